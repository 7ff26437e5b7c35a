//! `feature-store check`, as people run it.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// Exit code, standard output and standard error.
fn check(files: &[&Path]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_feature-store"))
        .env_clear()
        .current_dir(std::env::temp_dir())
        .arg("check")
        .args(files)
        .output()
        .expect("the built binary can be started");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("the output is text");
    (output.status.code().expect("an exit code"), text(output.stdout), text(output.stderr))
}

fn shop() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/examples/ecommerce/product.yaml"))
}

#[test]
fn the_shop_example_passes() {
    let (code, out, err) = check(&[shop()]);
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    assert!(out.contains("7 of 7 tests passed") && out.contains("  ok     a phone\n"), "{out}");
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_an_exit_code() {
    let dir = TempDir::new().expect("a temporary directory");
    let shop_text = std::fs::read_to_string(shop()).expect("the example");
    // What is in the file, and what is said of it.
    let cases = [
        (
            "test.yaml",
            shop_text.replace("[50, 200, 1000]", "[60, 200, 1000]"),
            vec![
                "6 of 7 tests passed",
                "FAILED the boundaries of the price ranges",
                "price_range: expected \"mid_range\", found \"budget\"",
            ],
        ),
        (
            "fails.yaml",
            shop_text.replace("return num.label(price, ", "return num.label(name, "),
            vec!["/transformations: line ", "`name` is not defined"],
        ),
        (
            "cycle.yaml",
            "features: {a: {type: int64, computed: {function: f}}}\ntransformations: 'def f(a): return a'"
                .into(),
            vec!["/features/a/computed: line 1, column 5: needs itself: a -> a"],
        ),
        (
            "syntax.yaml",
            "features: {a: {type: int64}}\ntransformations: 'def f(a) return a'".into(),
            vec!["/transformations: line 1, column"],
        ),
        (
            "type.json",
            "{\"features\": {\"a\": {\"type\": \"number\"}}}".into(),
            vec!["/features/a/type: is not the document that is wanted"],
        ),
        (
            "bounds.json",
            "{\"features\": {\"a\": {\"type\": \"int64\", \"minimum\": 3, \"maximum\": 2}}}".into(),
            vec!["/features/a"],
        ),
        (
            "twice.yaml",
            "features:\n  a: {type: int64}\n  a: {type: string}\n".into(),
            vec!["a is there twice"],
        ),
        ("empty.yaml", String::new(), vec!["invalid type: null"]),
        ("key.yaml", "featurs: {}".into(), vec!["unknown field `featurs`"]),
    ];
    for (name, text, expected) in &cases {
        let file = dir.path().join(name);
        std::fs::write(&file, text).expect("a file");
        let (code, out, err) = check(&[shop(), &file]);
        assert_eq!(
            (code, err.as_str()),
            (1, "feature-store: 1 of 2 schemas are not right\n"),
            "{name}: {out}"
        );
        assert!(out.contains("7 of 7 tests passed"), "{name}: {out}");
        // YAML goes by way of JSON, whose lines nobody has seen.
        assert!(!name.ends_with("yaml") || !out.contains(" at line "), "{name}: {out}");
        for part in expected {
            assert!(out.contains(part), "{name}: {part:?} is not in {out}");
        }
    }
    let (code, out, _) = check(&[&dir.path().join("missing.yaml")]);
    assert!(code == 1 && out.contains("missing.yaml: cannot be read"), "{out}");
    let plain = dir.path().join("plain.json");
    std::fs::write(&plain, "{\"features\": {\"a\": {\"type\": \"int64\"}}}").expect("a file");
    let (code, out, _) = check(&[&plain]);
    assert!(code == 0 && out.contains("right, without tests"), "{out}");
}
