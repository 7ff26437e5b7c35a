//! The language as it is documented.

use std::sync::Arc;

use super::*;
use crate::domain::derive::{Embedding, EmbeddingRequest, Embeddings};

#[test]
fn values_come_in_and_go_out() {
    let time = crate::domain::time::Timestamp::parse("2026-01-02T03:04:05.5Z").expect("a time");
    for (input, wanted) in [
        (Value::Null, FeatureType::String),
        (Value::Boolean(true), FeatureType::Boolean),
        (Value::Int64(i64::MIN), FeatureType::Int64),
        (Value::Float64(0.1), FeatureType::Float64),
        (Value::String("a é".into()), FeatureType::String),
        (Value::Timestamp(time), FeatureType::Timestamp),
        (Value::Embedding(vec![0.1, -2.5].into()), FeatureType::Embedding { dimension: 2 }),
        (Value::Json("{\"a\":[1,2.5,null,true,\"x\"],\"b\":{}}".into()), FeatureType::Json),
    ] {
        let same = run("def f(x):\n    return x\n", &[("x", input.clone())], wanted);
        assert_eq!(same, Ok(input));
    }
}

#[test]
fn inputs_without_a_value_are_the_default_or_none() {
    let source = "def f(a, b=7):\n    return [a, b]\n";
    assert_eq!(run(source, &[], FeatureType::Json), Ok(Value::Json("[null,7]".into())));
    let null = [("b", Value::Null)];
    assert_eq!(run(source, &null, FeatureType::Json), Ok(Value::Json("[null,null]".into())));
}

#[test]
fn functions_are_first_class() {
    let source = "
RATES = {\"EUR\": 1.0, \"USD\": 1.1}

def make_adder(n):
    total = [n]
    def add(x):
        total.append(x)
        return sum(total)
    return add

def apply(g, *args, **kwargs):
    return g(*args, **kwargs)

def area(width, height=2):
    return width * height

def f():
    add = make_adder(10)
    add(1)
    squares = [x * x for x in range(5) if x % 2 == 0]
    lengths = {w: len(w) for w in [\"a\", \"bb\"]}
    double = lambda x, by=2: x * by
    return [
        add(5), squares, lengths, double(4), double(4, by=3), apply(area, 3), apply(area, 3, height=5),
        sorted([3, 1, 2], key=lambda x: -x), RATES[\"USD\"], [y for x in [[1], [2, 3]] for y in x],
        f\"{add(0)} {squares!r} {{}}\", \"a\" if squares else \"b\", 7 // 2, -7 // 2, -7 % 3, 7 / 2, 1 < 2 and 2 < 3,
    ]
";
    assert_eq!(
        run(source, &[], FeatureType::Json),
        Ok(Value::Json(
            "[16,[0,4,16],{\"a\":1,\"bb\":2},8,12,6,15,[3,2,1],1.1,[1,2,3],\"16 [0, 4, 16] {}\",\"a\",3,-4,2,3.5,true]".into()
        ))
    );
}

#[test]
fn statements_do_what_they_say() {
    let source = "
def f():
    found = []
    for i in range(10):
        if i == 3:
            continue
        elif i == 6:
            break
        else:
            found.append(i)
    a, (b, c) = 1, [2, 3]
    found[0] += 10
    d = {\"n\": 1}
    d[\"n\"] += 1
    d |= {\"m\": 2}
    text = \"x\"
    text *= 3
    return [found, a, b, c, d, text]
";
    assert_eq!(
        run(source, &[], FeatureType::Json),
        Ok(Value::Json("[[10,1,2,4,5],1,2,3,{\"m\":2,\"n\":2},\"xxx\"]".into()))
    );
}

#[test]
fn numbers_compare_exactly() {
    assert_eq!(
        json("[1 == 1.0, 9007199254740993 == 9007199254740992.0, 1 < 1.5, -1 > -1.5, True == 1]"),
        "[true,false,true,true,false]"
    );
    assert_eq!(json("{1: \"a\"}[1.0]"), "\"a\"");
    assert_eq!(
        json("[x for x in [0.1 + 0.2, 1e16, 1e-5, 100.0, -0.5]]"),
        "[0.30000000000000004,1e+16,0.00001,100.0,-0.5]"
    );
    assert_eq!(
        json("str([0.1, 1e16, 1e-5, 100.0, 1e22, 123456789.0])"),
        "\"[0.1, 1e+16, 1e-05, 100.0, 1e+22, 123456789.0]\""
    );
}

#[test]
fn slices_follow_python() {
    assert_eq!(
        json(
            "[\"abcdef\"[1:4], \"abcdef\"[::-1], \"abcdef\"[-2:], \"aéz\"[1:2], [1, 2, 3, 4][::2], [1, 2, 3][5:], [1, 2, 3][2:0:-1]]"
        ),
        "[\"bcd\",\"fedcba\",\"ef\",\"é\",[1,3],[],[3,2]]"
    );
}

#[test]
fn a_hash_depends_on_what_a_function_reads_and_nothing_else() {
    let base = "RATE = 2\n\ndef helper(x):\n    return x * RATE\n\ndef f(x):\n    return helper(x)\n\ndef other(x):\n    return x\n";
    let hash = |source: &str, name: &str| compile(source).function(name).expect("it is there").hash.clone();
    let same = |source: &str| assert_eq!(hash(base, "f"), hash(source, "f"), "{source}");
    let differs = |source: &str| assert_ne!(hash(base, "f"), hash(source, "f"), "{source}");
    assert_eq!(hash(base, "f").len(), 64);
    assert_ne!(hash(base, "f"), hash(base, "other"));
    same(&base.replace("    return x\n", "    return x + 1\n"));
    same(&base.replace("def f(x):\n", "# about f\ndef f( x ):\n    \"\"\"What it does.\"\"\"\n\n"));
    same(&base.replace("def other", "\n\n\ndef  other"));
    differs(&base.replace("RATE = 2", "RATE = 3"));
    differs(&base.replace("x * RATE", "x + RATE"));
    differs(&base.replace("helper(x)\n", "helper(-x)\n"));
}

#[test]
fn functions_say_what_they_take() {
    let program = compile("def f(a, b=1):\n    pass\n\ng = lambda x: x\n\ndef h(*args):\n    pass\nX = 1\n");
    let found: Vec<(&str, u32, usize, bool)> =
        program.functions().map(|f| (&*f.name, f.line, f.parameters.len(), f.variadic)).collect();
    assert_eq!(found, [("f", 1, 2, false), ("g", 4, 1, false), ("h", 6, 0, true)]);
    let parameters = &program.function("f").expect("f").parameters;
    assert_eq!(parameters[1], Parameter { name: "b".into(), has_default: true });
}

#[test]
fn missing_embeddings_are_all_asked_for_at_once() {
    struct Remote(Vec<(String, Arc<[f32]>)>);
    impl Embeddings for Remote {
        fn get(&self, text: &str, dimension: u32) -> Embedding {
            match self.0.iter().find(|(known, _)| known == text) {
                Some((_, numbers)) => Embedding::Here(numbers.clone()),
                None if text == "down" => Embedding::Failed("the provider did not answer in 2 s".into()),
                None => {
                    assert_eq!(dimension, 2);
                    Embedding::Fetch
                }
            }
        }
    }
    let program = compile("def f(a, b):\n    return vec.cosine(embed(a), embed(b))\n");
    let function = program.function("f").expect("f");
    let call = |provider: &Remote, a: &str, b: &str| {
        let env = Env { embeddings: Some(provider), dimension: Some(2), limits: None };
        let (a, b) = (Value::String(a.into()), Value::String(b.into()));
        program.call(function, &[("a", &a), ("b", &b)], FeatureType::Float64, &env)
    };
    let mut provider = Remote(Vec::new());
    let error = call(&provider, "x", "y").expect_err("nothing is there yet");
    let request = |text: &str| EmbeddingRequest { text: text.into(), dimension: 2 };
    assert_eq!(error, CallError::NeedsEmbeddings(vec![request("x"), request("y")]));
    provider.0.push(("x".into(), vec![1.0, 0.0].into()));
    provider.0.push(("y".into(), vec![1.0, 0.0].into()));
    assert_eq!(call(&provider, "x", "y"), Ok(Value::Float64(1.0)));
    let error = call(&provider, "x", "down").expect_err("it is down").to_string();
    assert!(error.contains("the provider did not answer in 2 s"), "{error}");
    provider.0[1].1 = vec![1.0].into();
    let error = call(&provider, "x", "y").expect_err("another dimension").to_string();
    assert!(error.contains("answered 1 numbers, not 2"), "{error}");
    provider.0[1].1 = vec![f32::NAN, 1.0].into();
    assert!(call(&provider, "x", "y").expect_err("not finite").to_string().contains("not finite"));
}

#[test]
fn hashing_is_deterministic_and_says_what_is_alike() {
    let cosine = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    let [shoe, same, near, far] =
        ["red running shoe", "Red, running SHOE!", "red walking shoe", "garden hose"]
            .map(|text| hashing(text, 256));
    assert!((cosine(&shoe, &shoe) - 1.0).abs() < 1e-5);
    assert_eq!(shoe, same);
    assert!(cosine(&shoe, &near) > cosine(&shoe, &far) + 0.2);
    assert_eq!(hashing("", 4).to_vec(), vec![0.0; 4]);
    // Stored embeddings must stay comparable: these numbers may never change.
    let numbers = hashing("red shoe", 16);
    assert_eq!(numbers[..8], [2.0 / 3.0, 0.0, 0.0, 0.0, -2.0 / 3.0, 0.0, 1.0 / 3.0, 0.0]);
    assert_eq!(numbers[8..], [0.0; 8]);
}

#[test]
fn a_program_is_shared_between_threads() {
    fn shared<T: Send + Sync + Clone>() {}
    shared::<Program>();
    fn sent<T: Send>() {}
    sent::<Session<'_>>();
}
