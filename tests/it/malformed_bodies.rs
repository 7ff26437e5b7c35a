//! Malformed requests whose path is right and whose body is not.

use crate::malformed_cases::{
    BATCH_READ, BATCH_WRITE, Case, INVALID, LARGE, LOOSE, REFUSED, ROLLBACK, UNDO, WRITE, case,
};

pub fn broken_bodies() -> Vec<Case> {
    let deep = |open: &str, close: &str| {
        let nested = format!("{}{}", open.repeat(100_000), close.repeat(100_000));
        format!("{{\"features\": {{\"extra\": {nested}}}}}")
    };
    let bodies: Vec<(&str, Vec<u8>, (u16, &'static str))> = vec![
        ("no body", b"".to_vec(), INVALID),
        ("half a body", b"{\"features\": {\"price\": 1".to_vec(), INVALID),
        ("a trailing comma", b"{\"features\": {\"price\": 1,}}".to_vec(), INVALID),
        ("two documents", b"{\"features\": {\"price\": 1}} {}".to_vec(), INVALID),
        ("single quotes", b"{'features': {'price': 1}}".to_vec(), INVALID),
        ("a comment", b"{\"features\": {\"price\": 1}} // x".to_vec(), INVALID),
        ("NaN", b"{\"features\": {\"price\": NaN}}".to_vec(), INVALID),
        ("Infinity", b"{\"features\": {\"price\": Infinity}}".to_vec(), INVALID),
        ("-Infinity", b"{\"features\": {\"price\": -Infinity}}".to_vec(), INVALID),
        ("a leading plus", b"{\"features\": {\"price\": +1}}".to_vec(), INVALID),
        ("a leading zero", b"{\"features\": {\"price\": 01}}".to_vec(), INVALID),
        ("hexadecimal", b"{\"features\": {\"price\": 0x1F}}".to_vec(), INVALID),
        ("an array", b"[]".to_vec(), INVALID),
        ("a string", b"\"features\"".to_vec(), INVALID),
        ("null", b"null".to_vec(), INVALID),
        ("invalid UTF-8 in a value", b"{\"features\": {\"name\": \"\xff\xfe\"}}".to_vec(), INVALID),
        ("invalid UTF-8 in a name", b"{\"features\": {\"\xc3\x28\": 1}}".to_vec(), INVALID),
        ("UTF-16", "\u{feff}{\"features\": {}}".encode_utf16().flat_map(u16::to_le_bytes).collect(), INVALID),
        ("a byte order mark", "\u{feff}{\"features\": {\"price\": 1}}".into(), INVALID),
        ("a control character in a string", b"{\"features\": {\"name\": \"a\nb\"}}".to_vec(), INVALID),
        ("half a surrogate pair", b"{\"features\": {\"name\": \"\\ud800\"}}".to_vec(), REFUSED),
        ("100,000 arrays in each other", deep("[", "]").into(), REFUSED),
        ("100,000 objects in each other", deep("{\"a\":", "}").replace(":}", ":1}").into(), REFUSED),
        (
            "deeply nested metadata",
            format!(
                "{{\"features\": {{\"price\": 2}}, \"metadata\": {{\"a\": {}1{}}}}}",
                "[".repeat(1000),
                "]".repeat(1000)
            )
            .into(),
            INVALID,
        ),
        ("nesting that never ends", "[".repeat(100_000).into(), INVALID),
        (
            "more than max_body_bytes",
            format!("{{\"features\": {{\"name\": \"{}\"}}}}", "x".repeat(1 << 20)).into(),
            LARGE,
        ),
        ("nothing but spaces, and too many", " ".repeat((1 << 20) + 1).into(), LARGE),
    ];
    bodies.into_iter().map(|(what, body, answer)| case(what, "POST", WRITE, body, answer)).collect()
}

pub fn wrong_values() -> Vec<Case> {
    let values = [
        ("price", "1e400"),
        ("price", "-1e400"),
        ("price", "\"1\""),
        ("price", "true"),
        ("price", "[1]"),
        ("price", "{}"),
        ("price", "-0.01"),
        ("stock", "9223372036854775808"),
        ("stock", "-9223372036854775809"),
        ("stock", "1e30"),
        ("stock", "1.5"),
        ("stock", "123456789012345678901234567890123456789012345678901234567890"),
        ("name", "1"),
        ("name", "null, \"name\": 1"),
        ("sure", "null"),
        ("sure", "\"true\""),
        ("sure", "1"),
        ("at", "\"tomorrow\""),
        ("at", "\"2026-02-30T00:00:00Z\""),
        ("at", "\"2026-01-02 03:04\""),
        ("at", "\"+10000-01-01T00:00:00Z\""),
        ("at", "1700000000"),
        ("vector", "[1, 2]"),
        ("vector", "[1, 2, 3, 4]"),
        ("vector", "[]"),
        ("vector", "[1, 2, null]"),
        ("vector", "[1, 2, \"3\"]"),
        ("vector", "[1, 2, 1e300]"),
        ("vector", "\"AACAPwAAAEAAAEBA\""),
        ("extra", "{\"a\": 1e400}"),
        ("unknown", "1"),
        ("", "1"),
        ("a.b", "1"),
        ("a b", "1"),
        ("1a", "1"),
        ("a\\u0000", "1"),
        ("__proto__.x", "1"),
        ("prïce", "1"),
        ("price\\n", "1"),
        ("price\": 1, \"price", "2"),
        ("price\": 1, \"pr\\u0069ce", "2"),
    ];
    let of_product = values.iter().map(|(name, value)| {
        let body = format!("{{\"features\": {{\"{name}\": {value}}}}}");
        case(format!("{name} is {value}"), "POST", WRITE, body, REFUSED)
    });
    let long = "n".repeat(129);
    let loose = [("n", "\"text\""), ("m", "null"), ("m", "1e400"), ("not a name", "1"), (long.as_str(), "1")];
    let loose = loose.iter().map(|(name, value)| {
        let body = format!("{{\"features\": {{\"{name}\": {value}}}}}");
        case(format!("{name} is {value} where registration is on"), "POST", LOOSE, body, REFUSED)
    });
    of_product.chain(loose).collect()
}

pub fn wrong_members(future: &str) -> Vec<Case> {
    let long = "x".repeat(1025);
    let large = "x".repeat(16 << 10);
    let of_write = [
        ("\"features\": {}".to_owned(), REFUSED),
        ("\"feature\": {\"price\": 1}".to_owned(), INVALID),
        ("\"features\": [\"price\"]".to_owned(), INVALID),
        ("\"features\": null".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"features\": {\"price\": 2}".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"colour\": 1".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"version\": 3".to_owned(), INVALID),
        (format!("\"features\": {{\"price\": 1}}, \"event_timestamp\": \"{future}\""), REFUSED),
        ("\"features\": {\"price\": 1}, \"event_timestamp\": \"9999-12-30T21:59:59Z\"".to_owned(), REFUSED),
        ("\"features\": {\"price\": 1}, \"event_timestamp\": \"9999-12-31T23:59:59Z\"".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"event_timestamp\": \"2026-01-02\"".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"event_timestamp\": \"2026-01-02T03:04:05\"".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"event_timestamp\": \"2026-01-02T25:04:05Z\"".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"event_timestamp\": \"\"".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"event_timestamp\": 1700000000".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"event_timestamp\": {}".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"ttl\": 0".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"ttl\": -1".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"ttl\": 1e400".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"ttl\": 99999999999999999999".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"ttl\": \"soon\"".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"ttl\": \"1 h\"".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"ttl\": \"-1h\"".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"ttl\": \"36501d\"".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"ttl\": \"NaN\"".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"ttl\": \"inf\"".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"ttl\": []".to_owned(), INVALID),
        ("\"features\": {\"price\": 1}, \"source\": 7".to_owned(), INVALID),
        (format!("\"features\": {{\"price\": 1}}, \"source\": \"{long}\""), INVALID),
        (format!("\"features\": {{\"price\": 1}}, \"run_id\": \"{long}\""), INVALID),
        ("\"features\": {\"price\": 1}, \"metadata\": []".to_owned(), INVALID),
        (format!("\"features\": {{\"price\": 1}}, \"metadata\": {{\"k\": \"{large}\"}}"), INVALID),
    ];
    let shown = |text: &str| text.chars().take(90).collect::<String>();
    let writes = of_write
        .into_iter()
        .map(|(members, answer)| case(shown(&members), "POST", WRITE, format!("{{{members}}}"), answer));
    let batches = [
        (BATCH_WRITE, "{\"rows\": []}", INVALID),
        (WRITE, "[{\"price\": 2}]", INVALID),
        (BATCH_WRITE, "{\"entity_type\": \"product\", \"rows\": [[\"sentinel\", {\"price\": 2}]]}", INVALID),
        (ROLLBACK, "[1]", INVALID),
        (BATCH_WRITE, "{\"entity_type\": \"a b\", \"rows\": []}", INVALID),
        (BATCH_WRITE, "{\"entity_type\": \"product\", \"rows\": {}}", INVALID),
        (BATCH_WRITE, "{\"entity_type\": \"product\", \"rows\": [{\"features\": {\"price\": 1}}]}", INVALID),
        (
            BATCH_WRITE,
            "{\"entity_type\": \"product\", \"rows\": [{\"entity_id\": \"\", \"features\": {\"price\": 1}}]}",
            INVALID,
        ),
        (
            BATCH_WRITE,
            "{\"entity_type\": \"product\", \"rows\": [{\"entity_id\": 7, \"features\": {\"price\": 1}}]}",
            INVALID,
        ),
        (
            BATCH_WRITE,
            "{\"entity_type\": \"product\", \"rows\": [{\"entity_id\": \"a\\u0000\", \"features\": {\"price\": 1}}]}",
            INVALID,
        ),
        (BATCH_WRITE, "{\"entity_type\": \"product\", \"atomic\": \"yes\", \"rows\": []}", INVALID),
        (
            BATCH_WRITE,
            "{\"entity_type\": \"product\", \"atomic\": true, \"rows\": [{\"entity_id\": \"new\", \"features\": {\"price\": 1}}, {\"entity_id\": \"sentinel\", \"features\": {\"price\": -1}}]}",
            REFUSED,
        ),
        (
            BATCH_READ,
            "{\"entities\": {\"product\": [\"1\"], \"product\": [\"sentinel\"]}, \"features\": [\"price\"]}",
            INVALID,
        ),
        (BATCH_READ, "{\"entities\": [\"sentinel\"], \"features\": [\"price\"]}", INVALID),
        (BATCH_READ, "{\"entities\": {\"product\": \"sentinel\"}, \"features\": [\"price\"]}", INVALID),
        (BATCH_READ, "{\"entities\": {\"product\": [\"sentinel\"]}, \"features\": \"price\"}", INVALID),
        (
            BATCH_READ,
            "{\"entities\": {\"product\": [\"sentinel\"]}, \"features\": [\"price\"], \"layout\": \"table\"}",
            INVALID,
        ),
        (
            BATCH_READ,
            "{\"entities\": {\"product\": [\"sentinel\"]}, \"features\": [\"price\"], \"include\": [\"everything\"]}",
            INVALID,
        ),
        (
            BATCH_READ,
            "{\"entities\": {\"product\": [\"sentinel\"]}, \"features\": [\"price\"], \"max_age\": \"never\"}",
            INVALID,
        ),
        (
            BATCH_READ,
            "{\"entities\": {\"product\": [\"sentinel\"]}, \"features\": [\"price\"], \"as_of\": \"then\"}",
            INVALID,
        ),
        (
            BATCH_READ,
            "{\"entities\": {\"product\": [\"sentinel\"]}, \"features\": [\"product.\"]}",
            (400, "unknown_feature"),
        ),
        (BATCH_READ, "{\"entities\": {\"product\": [\"sentinel\"]}, \"features\": [\".price\"]}", INVALID),
        (
            BATCH_READ,
            "{\"entities\": {\"product\": [\"sentinel\"]}, \"feature_service\": \"ranking@0\"}",
            INVALID,
        ),
        (
            BATCH_READ,
            "{\"entities\": {\"product\": [\"sentinel\"]}, \"feature_service\": \"ranking@@1\"}",
            INVALID,
        ),
        (
            BATCH_READ,
            "{\"entities\": {\"product\": [\"sentinel\"]}, \"feature_service\": \"ranking@99999999999\"}",
            INVALID,
        ),
        (BATCH_READ, "{\"entities\": {\"../product\": [\"sentinel\"]}, \"features\": [\"price\"]}", INVALID),
        (ROLLBACK, "{\"to_version\": -1}", INVALID),
        (ROLLBACK, "{\"to_version\": 1.5}", INVALID),
        (ROLLBACK, "{\"to_version\": \"1\"}", INVALID),
        (ROLLBACK, "{\"to_version\": 18446744073709551616}", INVALID),
        (ROLLBACK, "{\"to_version\": 18446744073709551615}", (404, "version_not_found")),
        (ROLLBACK, "{\"to_timestamp\": \"yesterday\"}", INVALID),
        (ROLLBACK, "{\"to_version\": 1, \"features\": \"price\"}", INVALID),
        (ROLLBACK, "{\"to_version\": 1, \"dry\": true}", INVALID),
        (UNDO, "[1]", INVALID),
        (UNDO, "{}", INVALID),
        (UNDO, "{\"run_id\": 1}", INVALID),
        (UNDO, "{\"source\": \"a\"}", INVALID),
        (UNDO, "{\"run_id\": \"a\", \"written_from\": \"yesterday\"}", INVALID),
        (UNDO, "{\"run_id\": \"a\", \"features\": \"price\"}", INVALID),
        (UNDO, "{\"run_id\": \"a\", \"not_restorable\": null}", INVALID),
        (UNDO, "{\"run_id\": \"a\", \"dry\": true}", INVALID),
    ];
    let batches =
        batches.into_iter().map(|(path, body, answer)| case(shown(body), "POST", path, body, answer));
    writes.chain(batches).collect()
}
