//! Functions that try to take the server down. Each is refused quickly, with what it hit.

use std::time::{Duration, Instant};

use super::*;
use ErrorKind::{Depth, Failed, Memory, Output, Steps};

/// Far above what each needs, even unoptimised on a busy machine, and far below what the bomb
/// would take: an upper bound, not a measurement.
const DEADLINE: Duration = Duration::from_secs(10);

/// The body of `f`, the kind of the failure, words of its message.
const BOMBS: &[(&str, &str, ErrorKind, &str)] = &[
    ("string times a trillion", "return len('x' * 1000000000000)", Memory, "64 MiB"),
    ("string times more than memory can address", "return 'xy' * 9223372036854775807", Memory, "64 MiB"),
    ("list times a billion", "return len([0] * 1000000000)", Memory, "64 MiB"),
    ("tuple times a billion", "return len((0,) * 1000000000)", Memory, "64 MiB"),
    (
        "times in place",
        "s = 'x' * 1000\n    for i in range(100):\n        s *= 1000\n    return len(s)",
        Memory,
        "64 MiB",
    ),
    (
        "doubling by plus",
        "s = 'x'\n    for i in range(100):\n        s = s + s\n    return len(s)",
        Memory,
        "64 MiB",
    ),
    (
        "a list doubling itself",
        "a = [0]\n    for i in range(100):\n        a += a\n    return len(a)",
        Memory,
        "64 MiB",
    ),
    (
        "a list extending itself",
        "a = [0]\n    for i in range(100):\n        a.extend(a)\n    return len(a)",
        Memory,
        "64 MiB",
    ),
    ("a giant range as a list", "return len(list(range(1000000000000)))", Memory, "64 MiB"),
    ("a giant range sorted", "return sorted(range(1000000000000))", Memory, "64 MiB"),
    ("a giant range spread", "return max(*range(1000000000000))", Memory, "64 MiB"),
    ("a comprehension without end", "return [i for i in range(1000000000000)]", Steps, "1000000 steps"),
    (
        "nested comprehensions",
        "return [a for a in range(1000) for b in range(1000) for c in range(1000)]",
        Steps,
        "1000000 steps",
    ),
    ("a loop without end", "for i in range(9223372036854775807):\n        pass", Steps, "1000000 steps"),
    (
        "loops in loops",
        "for a in range(10000):\n        for b in range(10000):\n            for c in range(10000):\n                pass",
        Steps,
        "1000000 steps",
    ),
    ("recursion without end", "return f()", Depth, "64 deep"),
    ("mutual recursion through sorted", "return sorted([1, 2], key=lambda x: f())", Depth, "deep"),
    (
        "exponential recursion",
        "def g(n):\n        return g(n - 1) + g(n - 1) if n > 0 else 1\n    return g(50)",
        Steps,
        "1000000 steps",
    ),
    (
        "a list of itself, doubled, shown",
        "a = [1]\n    for i in range(60):\n        a = [a, a]\n    return str(a)",
        Steps,
        "1000000 steps",
    ),
    (
        "a list of itself, doubled, returned",
        "a = [1]\n    for i in range(60):\n        a = [a, a]\n    return a",
        Output,
        "1 MiB",
    ),
    (
        "a list of itself, doubled, compared",
        "a = [1]\n    b = [1]\n    for i in range(60):\n        a = [a, a]\n        b = [b, b]\n    return a == b",
        Steps,
        "1000000 steps",
    ),
    (
        "a tuple of itself, doubled, as a key",
        "a = (1,)\n    for i in range(60):\n        a = (a, a)\n    return {a: 1}",
        Steps,
        "1000000 steps",
    ),
    (
        "a tuple of itself, doubled, in a message",
        "a = (1,)\n    for i in range(60):\n        a = (a, a)\n    return fail(a)",
        Steps,
        "1000000 steps",
    ),
    (
        "a tuple of itself as a wrong argument",
        "a = [1]\n    for i in range(60):\n        a = [a, a]\n    return 'x'.startswith(a)",
        Failed,
        "a list of 2",
    ),
    (
        "nested deep, shown",
        "a = []\n    for i in range(100000):\n        a = [a]\n    return str(a)",
        Depth,
        "100 levels",
    ),
    (
        "nested deep, compared",
        "a = []\n    b = []\n    for i in range(100000):\n        a = [a]\n        b = [b]\n    return a == b",
        Depth,
        "100 levels",
    ),
    (
        "nested deep, returned",
        "a = []\n    for i in range(100000):\n        a = [a]\n    return a",
        Depth,
        "100 levels",
    ),
    ("a list in itself", "a = []\n    a.append(a)\n    return str(a)", Depth, "100 levels"),
    ("a dict in itself", "d = {}\n    d['d'] = d\n    return d", Depth, "100 levels"),
    (
        "exponential %",
        "s = 'x'\n    for i in range(100):\n        s = '%s%s' % (s, s)\n    return len(s)",
        Memory,
        "64 MiB",
    ),
    (
        "exponential format",
        "s = 'x'\n    for i in range(100):\n        s = '{0}{0}{0}{0}'.format(s)\n    return len(s)",
        Memory,
        "64 MiB",
    ),
    (
        "exponential f-string",
        "s = 'x'\n    for i in range(100):\n        s = f'{s}{s}'\n    return len(s)",
        Memory,
        "64 MiB",
    ),
    (
        "exponential replace",
        "s = 'xx'\n    for i in range(100):\n        s = s.replace('x', s)\n    return len(s)",
        Memory,
        "64 MiB",
    ),
    ("a huge join", "s = 'x' * 1000000\n    return len(s.join(['a'] * 100000))", Memory, "64 MiB"),
    (
        "a regular expression replacing by itself",
        "s = 'x' * 60000\n    return len(text.replace(s, '(x+)', '$1' * 20000))",
        Memory,
        "64 MiB",
    ),
    ("a dict without end", "return {i: i for i in range(100000000)}", Steps, "1000000 steps"),
    ("text of a million values", "s = 'a,' * 5000000\n    return len(s.split(','))", Steps, "1000000 steps"),
    (
        "many big dicts",
        "d = {i: i for i in range(1000)}\n    a = [dict(d) for i in range(100000)]\n    return len(a)",
        Memory,
        "64 MiB",
    ),
    ("shift", "return 1 << 1000000000", Failed, "does not fit an int"),
    (
        "multiplying up",
        "x = 3\n    for i in range(100):\n        x *= x\n    return x",
        Failed,
        "does not fit an int",
    ),
    ("a power", "return math.pow(10, 1000000000)", Failed, "not a finite number"),
    ("edit distance of books", "return text.levenshtein('a' * 10000, 'b' * 10000)", Steps, "1000000 steps"),
    (
        "a catastrophic regular expression",
        "for i in range(1000):\n        text.matches('a' * 60000, '(a*)*b')",
        Steps,
        "1000000 steps",
    ),
    (
        "a large regular expression on a long text",
        "return text.matches('a' * 20000, '(?:[a-zé]{1,50}){1,20}[0-9]')",
        Failed,
        "at most 12 KiB",
    ),
    (
        "a huge regular expression",
        "p = '(a{900}){900}'\n    return text.matches('a', p + '')",
        Failed,
        "too large",
    ),
    ("a huge result", "return 'x' * 2000000", Output, "1 MiB"),
    ("a huge list as result", "return [1] * 200000", Output, "1 MiB"),
    ("n-grams of everything", "return len(text.char_ngrams('x' * 1000000, 100))", Memory, "64 MiB"),
    (
        "a mutation while looping",
        "a = [1]\n    for x in a:\n        a.append(x)",
        Failed,
        "while it is looped over",
    ),
];

#[test]
fn each_bomb_is_an_error_of_its_call_alone() {
    let mut wrong = Vec::new();
    for (name, body, kind, words) in BOMBS {
        let start = Instant::now();
        let failure = failure(&format!("def f():\n    {body}\n"));
        assert!(start.elapsed() < DEADLINE, "{name}: took {:?}", start.elapsed());
        assert_eq!(failure.function, "f", "{name}: {failure}");
        // A result is refused after the function has returned: at its definition.
        let of_result = *kind == Output || failure.message.starts_with("a value");
        let located = failure.line >= 2 || of_result;
        if failure.kind != *kind || !failure.message.contains(words) || !located {
            wrong.push(format!("{name}: {:?}: {failure}", failure.kind));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn wall_time_is_bounded_where_steps_are_not() {
    let program = compile("def f():\n    for i in range(1000000000000):\n        pass\n");
    let wall_time = Duration::from_millis(30);
    let limits = Limits { steps: u64::MAX, wall_time, ..Limits::default() };
    let env = Env { limits: Some(&limits), ..Env::default() };
    let start = Instant::now();
    let error = program.call(program.function("f").expect("f"), &[], FeatureType::Json, &env);
    assert!(start.elapsed() < DEADLINE);
    let error = error.expect_err("it has no end");
    let failure = error.failure().expect("a failure");
    assert_eq!(failure.kind, ErrorKind::Time);
    assert!(failure.message.contains("30 ms"), "{failure}");
}

#[test]
fn searching_again_and_again_is_bounded_in_time() {
    // Quadratic: each of many matches scans to the end for a longer one.
    let program = compile("def f():\n    s = 'a' * 60000\n    return text.count(s, 'a.*[^a]|a')\n");
    let function = program.function("f").expect("f");
    let start = Instant::now();
    let error = program.call(function, &[], FeatureType::Json, &Env::default());
    assert!(start.elapsed() < DEADLINE, "took {:?}", start.elapsed());
    let error = error.expect_err("it takes minutes");
    assert_eq!(error.failure().map(|failure| failure.kind), Some(ErrorKind::Time), "{error}");
}

#[test]
fn the_deepest_evaluation_fits_a_small_stack() {
    // As deep as the bounds allow: expressions of the greatest depth, in calls inside calls.
    let deep = |open: &str, close: &str| format!("{}f(n - 1){}", open.repeat(110), close.repeat(110));
    let shallow = |levels: usize, open: &str, close: &str| {
        format!("{}f(n - 1){}", open.repeat(levels), close.repeat(levels))
    };
    let blocks: String = (1..=25).map(|level| format!("{}for i in [1]:\n", " ".repeat(level))).collect();
    let mut sources: Vec<String> = [
        "f(n - 1)".to_owned(),
        deep("[", "]"),
        deep("(", ",)"),
        shallow(38, "abs(", ")"),
        shallow(38, "max(1, 2, 3, 4, ", ")"),
        deep("not (", ")"),
        deep("1 + (", ")"),
        deep("1 and (", ")"),
        deep("1 if (", ") else 2"),
        deep("[1][", "]"),
        deep("'abc'[", ":]"),
        deep("{1: ", "}"),
        shallow(38, "'a'.replace('b', ", ")"),
        shallow(38, "dict(a=", ")"),
        shallow(38, "dict(**", ")"),
        shallow(38, "max(*", ")"),
        shallow(20, "[x for x in ", "]"),
        shallow(9, "[1 for x in [1] for y in [1] if ", "]"),
        shallow(20, "{x: x for x in ", "}"),
        shallow(40, "(lambda: ", ")()"),
        format!("sorted([1], key=lambda x: {})", deep("[", "]")),
        deep("f'{", "}'"),
    ]
    .iter()
    .map(|body| format!("def f(n):\n    return {body}\n"))
    .collect();
    sources.push(format!("def f(n):\n{blocks}{}f(n - 1)\n", " ".repeat(26)));
    for source in sources {
        let thread = std::thread::Builder::new().stack_size(1536 << 10);
        let thread = thread.spawn(move || {
            let program = compile(&source);
            let function = program.function("f").expect("f");
            let error =
                program.call(function, &[("n", &Value::Int64(1))], FeatureType::Json, &Env::default());
            let error = error.expect_err("it has no end");
            assert_eq!(error.failure().map(|failure| failure.kind), Some(Depth), "{source}: {error}");
        });
        thread.expect("a thread").join().expect("it does not overflow its stack");
    }
}

#[test]
fn a_source_cannot_overflow_the_compiler() {
    let deep: Vec<(&str, String)> = vec![
        ("brackets", format!("x = {}{}", "[".repeat(100_000), "]".repeat(100_000))),
        ("brackets not closed", format!("x = {}", "(".repeat(100_000))),
        ("a chain of plus", format!("x = {}1", "1 + ".repeat(50_000))),
        ("a chain of not", format!("x = {}1", "not ".repeat(50_000))),
        ("a chain of minus", format!("x = {}1", "-".repeat(100_000))),
        ("a chain of calls", format!("x = len{}", "()".repeat(50_000))),
        ("a chain of methods", format!("x = ''{}", ".lower()".repeat(20_000))),
        ("a chain of indices", format!("x = ''{}", "[0]".repeat(50_000))),
        ("a chain of conditions", format!("x = {}1", "1 if 1 else ".repeat(20_000))),
        ("a chain of lambdas", format!("x = {}1", "lambda: ".repeat(20_000))),
        (
            "a chain of elif",
            format!("def f(x):\n  if x:\n    pass\n{}", "  elif x:\n    pass\n".repeat(10_000)),
        ),
        ("f-strings", format!("x = {}1{}", "f'{".repeat(10_000), "}'".repeat(10_000))),
        ("blocks", (0..600).map(|n| format!("{}if x:\n", " ".repeat(n))).collect()),
        ("defs", (0..300).map(|n| format!("{}def f():\n", " ".repeat(n))).collect()),
        ("a chain of comparisons", format!("x = {}1", "1 and ".repeat(30_000))),
        ("targets", format!("{}x{} = 1", "(".repeat(50_000), ",)".repeat(50_000))),
        ("a dict in a dict", "{1:".repeat(50_000)),
        ("too long", "# nothing\n".repeat(100_000)),
    ];
    for (name, source) in deep {
        let start = Instant::now();
        let problems = problems(&source);
        assert!(start.elapsed() < DEADLINE, "{name}: took {:?}", start.elapsed());
        assert!(problems[0].line >= 1, "{name}: {problems:?}");
    }
}

#[test]
fn a_module_cannot_run_away_while_it_is_compiled() {
    for (source, words) in [
        ("x = 'x' * 1000000000000", "64 MiB"),
        ("x = [i for i in range(1000000000)]", "steps"),
        ("def f():\n    return f()\nx = f()", "deep"),
    ] {
        let start = Instant::now();
        let problems = problems(source);
        assert!(start.elapsed() < DEADLINE);
        assert!(problems[0].message.contains(words), "{problems:?}");
    }
}

#[test]
fn others_are_not_held_up() {
    // A bomb on one thread, an ordinary function of the same program on this one.
    let program = compile(
        "def bomb():\n    s = 'x'\n    for i in range(100):\n        s += s\n\ndef small(price):\n    return price * 2\n",
    );
    std::thread::scope(|scope| {
        let bomb = scope.spawn(|| {
            for _ in 0..20 {
                let function = program.function("bomb").expect("bomb");
                assert!(program.call(function, &[], FeatureType::Json, &Env::default()).is_err());
            }
        });
        let small = program.function("small").expect("small");
        let price = Value::Int64(21);
        for _ in 0..1000 {
            let doubled = program.call(small, &[("price", &price)], FeatureType::Int64, &Env::default());
            assert_eq!(doubled, Ok(Value::Int64(42)));
        }
        bomb.join().expect("the bombs were refused");
    });
}
