//! What a call costs. Run by hand, in a release build:
//! `cargo test --release --lib transform::tests::speed -- --ignored --nocapture`

use std::time::Instant;

use super::*;

fn measure(name: &str, mut turn: impl FnMut()) {
    const TURNS: u32 = 200_000;
    let mut rounds: Vec<f64> = (0..7)
        .map(|_| {
            let start = Instant::now();
            (0..TURNS).for_each(|_| turn());
            start.elapsed().as_secs_f64() * 1e9 / f64::from(TURNS)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    println!("{name}: {:.0} ns (median of 7 rounds; {:.0} to {:.0})", rounds[3], rounds[0], rounds[6]);
}

#[test]
#[ignore = "a measurement, not a check"]
fn cost_of_a_call() {
    let source = "def tiny(price):\n    return price * 2\n\ndef price_range(price):\n    if price < 50:\n        return \"budget\"\n    elif price < 200:\n        return \"mid_range\"\n    elif price < 1000:\n        return \"premium\"\n    return \"luxury\"\n\ndef words(name):\n    return text.word_count(name)\n";
    let program = compile(source);
    let env = Env::default();
    let price = Value::Float64(999.99);
    let name = Value::String("iPhone 15 Pro Max".into());
    let tiny = program.function("tiny").expect("tiny");
    measure("tiny, a call of its own", || {
        program.call(tiny, &[("price", &price)], FeatureType::Float64, &env).expect("a result");
    });
    let mut session = program.session(&env);
    measure("tiny, in a session", || {
        session.call(tiny, &[Some(&price)], FeatureType::Float64).expect("a result");
    });
    // The evaluator of the reference, as it would be used: a module and an evaluator for each call.
    let dialect = starlark::syntax::Dialect::Standard;
    let ast =
        starlark::syntax::AstModule::parse("reference", source.replace("text.word_count", "len"), &dialect);
    let globals = starlark::environment::Globals::standard();
    let frozen = starlark::environment::Module::with_temp_heap(|module| {
        starlark::eval::Evaluator::new(&module)
            .eval_module(ast.expect("it parses"), &globals)
            .expect("it runs");
        module.freeze().expect("it freezes")
    });
    let reference = frozen.get("tiny").expect("tiny");
    measure("tiny, with the reference's evaluator", || {
        starlark::environment::Module::with_temp_heap(|module| {
            let callee = module.heap().access_owned_frozen_value(&reference);
            let mut evaluator = starlark::eval::Evaluator::new(&module);
            let price = module.heap().alloc(999.99);
            let result = evaluator.eval_function(callee, &[price], &[]).expect("a result");
            std::hint::black_box(result.unpack_bool());
        });
    });
    let range = program.function("price_range").expect("price_range");
    measure("price_range, in a session", || {
        session.call(range, &[Some(&price)], FeatureType::String).expect("a result");
    });
    let words = program.function("words").expect("words");
    measure("words, in a session", || {
        session.call(words, &[Some(&name)], FeatureType::Int64).expect("a result");
    });
    let schema: crate::domain::schema::EntityTypeSchema =
        yaml_serde::from_str(include_str!("../../../examples/ecommerce/product.yaml")).expect("a schema");
    let transformations = compile_entity_type(&schema).expect("it is right");
    let graph = transformations.graph();
    let on_write: Vec<usize> = (0..graph.nodes().len())
        .filter(|at| graph.nodes()[*at].on == crate::domain::schema::ComputeOn::Write)
        .collect();
    assert_eq!(on_write.len(), 8);
    let texts = [
        ("name", "iPhone 15 Pro"),
        ("brand", "Apple"),
        ("category", "smartphones"),
        ("description", "A phone of titanium, with a camera that zooms five times."),
    ];
    let texts = texts.map(|(name, text)| (name, Value::String(text.into())));
    let input = |source: &Source| match source.name() {
        "price" => Some(Value::Float64(999.99)),
        "rating" => Some(Value::Float64(4.5)),
        name => texts.iter().find(|(other, _)| *other == name).map(|(_, value)| value.clone()),
    };
    let env = Env { embeddings: Some(&Hashing), ..Env::default() };
    measure("all 8 of the shop's functions for one product", || {
        let outcomes = transformations.compute(&on_write, &input, &env).expect("all is at hand");
        assert!(outcomes.iter().all(|outcome| outcome.result.as_ref().is_ok_and(Option::is_some)));
    });
    let embedding = |name: &str| matches!(name, "text_embedding" | "category_similarity");
    let plain: Vec<usize> =
        on_write.iter().copied().filter(|at| !embedding(graph.nodes()[*at].feature.as_str())).collect();
    measure("the 6 of them without embeddings", || {
        transformations.compute(&plain, &input, &env).expect("all is at hand");
    });
    let mut session = transformations.program().session(&env);
    for node in plain.iter().map(|at| &graph.nodes()[*at]) {
        let values: Vec<Option<Value>> = node
            .inputs
            .iter()
            .map(|source| match source.name() {
                "price_range" => Some(Value::String("premium".into())),
                "combined_text" => Some(Value::String("Apple iPhone 15 Pro smartphones A phone of titanium, with a camera that zooms five times.".into())),
                _ => input(source),
            })
            .collect();
        let values: Vec<Option<&Value>> = values.iter().map(Option::as_ref).collect();
        measure(node.feature.as_str(), || {
            session.call(&node.function, &values, node.feature_type).expect("a result");
        });
    }
    measure("hashing a text into 384 numbers", || {
        std::hint::black_box(hashing(std::hint::black_box("iPhone 15 Pro smartphones"), 384));
    });
}

/// How far one search of a regular expression can go beyond the wall time: it is not interrupted.
#[test]
#[ignore = "a measurement, not a check"]
fn the_longest_search() {
    let mut worst = std::time::Duration::ZERO;
    for (text, pattern) in [
        ("'ab cd ' * 10000", "(?:\\\\w{1,20}\\\\s?){1,8}x$"),
        ("'aé' * 4000", "(?:[a-zé]{1,50}){1,20}\\\\d"),
        ("'aé' * 20000", "(?:[a-zé]{1,20}){1,10}[0-9]"),
        ("'aé' * 20000", "(?:[a-zé]{1,15}){1,8}[0-9]"),
        ("'ab cd ' * 2000", "(?:[a-z]{1,20} ?){1,20}x$"),
        ("'a' * 65000", "(a+a+)+y"),
        ("'a' * 65000", "(?:a?){200}a{200}y"),
        ("'aé' * 20000", "(?:[a-zé]{1,50}){1,20}\\\\d"),
        ("'a' * 65000", ".{0,400}y"),
        ("'ab' * 32000", "(?:a|b|ab|ba|.a|.b){90}y"),
        ("'ab' * 32000", "(.*)(.*)(.*)(.*)(.*)[^ab]"),
    ] {
        for helper in ["matches", "search"] {
            let source = format!("def f():\n    return text.{helper}({text}, '{pattern}')\n");
            let program = match Program::compile(&source) {
                Ok(program) => program,
                Err(problems) => {
                    println!("{pattern}: refused: {}", problems[0]);
                    continue;
                }
            };
            let function = program.function("f").expect("f");
            let start = Instant::now();
            let result = program.call(function, &[], FeatureType::Json, &Env::default());
            println!("{helper} {pattern}: {:?} {result:?}", start.elapsed());
            worst = worst.max(start.elapsed());
        }
    }
    println!("the longest: {worst:?}");
}
