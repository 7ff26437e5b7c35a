//! Every helper's example is true.

use super::super::native;
use super::*;

#[test]
fn every_example_gives_what_it_says() {
    let mut wrong = Vec::new();
    for native in native::all() {
        let (expression, expected) = native.def.example;
        match repr(expression) {
            Ok(found) if found == expected => {}
            found => wrong.push(format!("{}: {expression} gives {found:?}, not {expected}", native.name)),
        }
        assert!(native.params.len() <= native::MAX_PARAMS, "{}", native.name);
        assert!(
            native.def.doc.ends_with('.') || native.def.doc.ends_with(')'),
            "{}: {}",
            native.name,
            native.def.doc
        );
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn none_passes_through_where_the_page_says_so() {
    for native in native::all().iter().filter(|native| native.def.passes_none) {
        let arguments = vec!["None"; native.required.max(1)].join(", ");
        if !native.params.is_empty() {
            assert_eq!(
                repr(&format!("{}({arguments})", native.name)).as_deref(),
                Ok("None"),
                "{}",
                native.name
            );
        }
    }
}

#[test]
fn no_helper_panics_whatever_it_is_given() {
    let values = [
        "None",
        "True",
        "0",
        "-1",
        "9223372036854775807",
        "-9223372036854775807 - 1",
        "0.0",
        "1e308",
        "-1e-308",
        "1e308 * 10",
        "1e308 * 10 * 0",
        "\"\"",
        "\"a é \\n\"",
        "\"2026-01-02T03:04:05Z\"",
        "[]",
        "[1, \"a\"]",
        "[1.5, 2]",
        "[[1], [2, 3]]",
        "(1, 2)",
        "{}",
        "{\"a\": [1]}",
        "range(3)",
        "len",
        "lambda x: x",
    ];
    let env = Env { embeddings: Some(&Hashing), ..Env::default() };
    for native in native::all() {
        let most = native.params.len().min(3);
        for count in native.required.max(usize::from(native.is_method))..=most {
            let arguments = &["A[i]", "A[j]", "A[j]"][..count];
            let call = match native.is_method {
                true => format!("A[i].{}({})", native.title(), arguments[1..].join(", ")),
                false => format!("{}({})", native.name, arguments.join(", ")),
            };
            let source = format!("def f(i, j):\n    A = [{}]\n    return {call}\n", values.join(", "));
            let program = compile(&source);
            let mut session = program.session(&env);
            for i in 0..values.len() {
                for j in 0..values.len() {
                    let (i, j) = (Value::Int64(i as i64), Value::Int64(j as i64));
                    // A wrong argument is an error; all that counts here is that it is one.
                    let _ = session.call(
                        program.function("f").expect("f"),
                        &[Some(&i), Some(&j)],
                        FeatureType::Json,
                    );
                }
            }
        }
    }
}
