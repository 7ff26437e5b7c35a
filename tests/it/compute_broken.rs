//! Schemas and functions that are broken, and functions that try to run away.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::client::violations;
use crate::test_server::On;

/// So long a health request may take while a bomb goes off beside it, on an unoptimised build.
const HEALTH_DEADLINE: Duration = Duration::from_secs(5);

#[tokio::test]
async fn broken_schemas_are_refused_with_line_and_column() {
    let server = On::Embedded.server().await;
    // The function of the feature `b`, where the refusal points to, and what it says.
    let cases = [
        ("def b(b):\n    return b", "/features/b/computed", "line 1, column 5: needs itself: b -> b"),
        ("def c(a):\n    return a", "/features/b/computed", "there is no function `b`"),
        ("def b(nme):\n    return nme", "/features/b/computed", "line 1, column 5: the parameter `nme`"),
        ("def b(a) return a", "/transformations", "line 1, column"),
        (
            "def b(a):\n    return undefined",
            "/transformations",
            "line 2, column 12: in b: `undefined` is not defined",
        ),
        ("def b(a):\n    while True:\n        pass", "/transformations", "line 2"),
        ("load('x', 'y')\ndef b(a):\n    return a", "/transformations", "line 1"),
        ("def b(now):\n    return now", "/features/b/computed", "only for features computed on read"),
        ("x = 1 // 0\ndef b(a):\n    return a", "/transformations", "line 1"),
    ];
    for (source, pointer, message) in cases {
        let schema = json!({
            "features": {"a": {"type": "int64"}, "b": {"type": "int64", "computed": {"function": "b"}}},
            "transformations": source,
        });
        for path in ["/v1/entity-types/item", "/v1/entity-types/item?dry_run=true"] {
            let problem = server.put(path, &schema).await.problem(422, "validation_failed");
            assert!(violations(&problem["errors"]).contains(&(place(&problem), "invalid_schema".to_owned())));
            let found = problem["errors"].as_array().expect("errors").iter().any(|error| {
                error["pointer"] == pointer
                    && error["message"].as_str().is_some_and(|text| text.contains(message))
            });
            assert!(found, "{source}: {problem}");
        }
    }
    server.get("/v1/entity-types/item").await.problem(404, "unknown_entity_type");
}

fn place(problem: &serde_json::Value) -> String {
    let error = &problem["errors"][0];
    error["feature"].as_str().or(error["pointer"].as_str()).unwrap_or_default().to_owned()
}

/// The body of a function of `a` (1) and `text` ("x"), the line where it fails (0: it depends on which
/// turn of a loop is the last), and what is said.
const BOMBS: [(&str, u32, &str); 18] = [
    ("return 1 // (a - 1)", 2, "by zero"),
    ("return fail('no price')", 2, "no price"),
    ("return text", 1, "int64"),
    ("return [a][5]", 2, "index"),
    ("return {}['k']", 2, "k"),
    ("return a + text", 2, "+"),
    ("return text.join(a)", 2, "join"),
    ("return len(a)", 2, "len"),
    ("return int('x')", 2, "int"),
    ("return len(text * 1000000000000)", 2, "more"),
    ("return len([0] * 1000000000000)", 2, "more"),
    ("return len(list(range(1000000000)))", 2, "more"),
    ("s = text\n    for i in range(64):\n        s = s + s\n    return len(s)", 4, "it "),
    ("n = 0\n    for i in range(1000000000):\n        n += 1\n    return n", 0, "it takes "),
    ("l = []\n    for i in range(100000000):\n        l.append(l)\n    return len(l)", 0, "it "),
    ("n = 9223372036854775807\n    return n + a", 3, "64"),
    ("return b(a, text)", 2, ""),
    ("return len([x for x in range(100000) for y in range(100000)])", 2, "it takes "),
];

/// While one bomb after another goes off in several requests at once, others are answered as ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_bombs_leaves_a_processor_for_others() {
    let server = On::Embedded.server().await;
    let bomb = "def b(a):\n    n = 0\n    for i in range(1000000000):\n        n += 1\n    return n\n";
    let schema = json!({
        "features": {"a": {"type": "int64"}, "b": {"type": "int64", "computed": {"function": "b"}}},
        "transformations": bomb,
    });
    server.declare("bomb", schema).await;
    server.write("item/1", json!({"still": "alive"})).await;
    let write = json!({"features": {"a": 1}});
    // From the first one on, the function is known to be slow.
    server.post_features("bomb/0", &write).await.problem(422, "validation_failed");
    let done = std::sync::atomic::AtomicBool::new(false);
    let bombs = async {
        let floods = (0..8).map(|_| async {
            for _ in 0..2 {
                server.post_features("bomb/1", &write).await.problem(422, "validation_failed");
            }
        });
        futures::future::join_all(floods).await;
        done.store(true, std::sync::atomic::Ordering::SeqCst);
    };
    let others = async {
        let mut times = Vec::new();
        while !done.load(std::sync::atomic::Ordering::SeqCst) {
            let started = Instant::now();
            server.get_features("item/1", "").await.ok();
            times.push(started.elapsed());
        }
        times.sort_unstable();
        times
    };
    let (_, times) = tokio::join!(bombs, others);
    let median = times[times.len() / 2];
    assert!(times.len() > 20 && median < HEALTH_DEADLINE / 20, "{} reads, median {median:?}", times.len());
}

#[tokio::test]
async fn bombs_cost_their_own_request_an_error_and_nobody_else_anything() {
    let server = On::Embedded.server().await;
    for (at, (body, line, message)) in BOMBS.iter().enumerate() {
        let entity_type = format!("bomb{at}");
        let schema = json!({
            "features": {
                "a": {"type": "int64"}, "text": {"type": "string"},
                "b": {"type": "int64", "computed": {"function": "b"}},
            },
            "transformations": format!("def b(a, text):\n    {body}\n"),
        });
        server.declare(&entity_type, schema).await;
        let (entity, write) = (format!("{entity_type}/1"), json!({"features": {"a": 1, "text": "x"}}));
        let (bomb, health) = tokio::join!(server.post_features(&entity, &write), async {
            let started = Instant::now();
            server.get("/readyz").await.ok();
            started.elapsed()
        });
        assert!(health < HEALTH_DEADLINE, "{body}: health took {health:?}");
        let problem = bomb.problem(422, "validation_failed");
        assert_eq!(violations(&problem["errors"]), [("b".to_owned(), "computation_failed".to_owned())]);
        let text = problem["errors"][0]["message"].as_str().expect("a message");
        let start = if *line == 0 { "b (line ".to_owned() } else { format!("b (line {line}, column ") };
        assert!(text.starts_with(&start) && text.contains(message), "{body}: {text}");
        assert!(text.len() < 2000, "{body}: {} bytes", text.len());
        server.get_features(&entity, "").await.problem(404, "entity_not_found");
    }
    server.write("item/1", json!({"still": "alive"})).await;
}
