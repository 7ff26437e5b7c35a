//! Programs that nobody would write: whatever they do, they end, without a panic.

use proptest::prelude::*;

use super::*;

fn expression() -> impl Strategy<Value = String> {
    let atoms = [
        "a",
        "b",
        "0",
        "-1",
        "7",
        "2.5",
        "9223372036854775807",
        "1e308",
        "True",
        "None",
        "\"\"",
        "\"x y\"",
        "\"{} %s\"",
        "[]",
        "[1, 2]",
        "(1,)",
        "{}",
        "{\"k\": a}",
        "range(5)",
        "range(9223372036854775807)",
        "len",
        "f",
        "(lambda x: x)",
    ];
    let binary = [
        "+", "-", "*", "/", "//", "%", "==", "!=", "<", ">=", "in", "not in", "&", "|", "^", "<<", ">>",
        "and", "or",
    ];
    let methods = [
        "append(",
        "extend(",
        "insert(0, ",
        "pop(",
        "remove(",
        "index(",
        "get(",
        "setdefault(",
        "update(",
        "join(",
        "split(",
        "replace(\"x\", ",
        "format(",
        "startswith(",
        "strip(",
        "count(",
        "partition(",
    ];
    let functions = [
        "str",
        "repr",
        "list",
        "tuple",
        "dict",
        "sorted",
        "reversed",
        "zip",
        "enumerate",
        "max",
        "min",
        "sum",
        "any",
        "len",
        "hash",
        "int",
        "float",
        "range",
        "bool",
        "abs",
        "text.tokens",
        "text.lower",
        "vec.mean",
        "vec.norm",
        "math.exp",
        "num.mean",
        "cat.hex_digest",
        "time.format",
        "embed",
    ];
    prop::sample::select(atoms.to_vec()).prop_map(str::to_owned).prop_recursive(5, 40, 3, move |inner| {
        let op = prop::sample::select(binary.to_vec());
        let method = prop::sample::select(methods.to_vec());
        let function = prop::sample::select(functions.to_vec());
        prop_oneof![
            (inner.clone(), op, inner.clone()).prop_map(|(a, op, b)| format!("({a} {op} {b})")),
            (inner.clone(), method, inner.clone()).prop_map(|(a, method, b)| format!("({a}).{method}{b})")),
            (function, inner.clone()).prop_map(|(function, a)| format!("{function}({a})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a})[{b}:{c}]")),
            (inner.clone(), inner.clone(), inner.clone())
                .prop_map(|(a, b, c)| format!("({a} if {b} else {c})")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a} for a in {b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("{{b: {a} for b in {b}}}")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("sorted({a}, key=lambda b: {b})")),
            inner.clone().prop_map(|a| format!("f\"{{{a}}} and {{{a}!r}}\"").replace('\\', "")),
            inner.prop_map(|a| format!("(lambda a: {a})(1)")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn any_program_ends(first in expression(), second in expression(), last in expression()) {
        let source = format!(
            "def f(a, b):\n    for i in range(50):\n        a = {first}\n        b = {second}\n    return {last}\n"
        );
        // What does not compile is refused, which is an end, too.
        if let Ok(program) = Program::compile(&source) {
            let limits = Limits { steps: 100_000, heap_bytes: 4 << 20, ..Limits::default() };
            let env = Env { embeddings: Some(&Hashing), dimension: Some(4), limits: Some(&limits) };
            let inputs = [("a", &Value::Int64(3)), ("b", &Value::String("x".into()))];
            let start = std::time::Instant::now();
            let _ = program.call(program.function("f").expect("f"), &inputs, FeatureType::Json, &env);
            prop_assert!(start.elapsed() < std::time::Duration::from_secs(5), "{source}");
        }
    }

    #[test]
    fn any_text_is_compiled_or_refused(text in "[a-c0-9 \\n:=+*\\[\\](){}\"'#.,-]{0,80}|\\PC{0,60}") {
        let _ = Program::compile(&text);
    }
}
