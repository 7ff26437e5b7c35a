//! Computed features as schemas declare them.

use crate::domain::name::FeatureName;
use crate::domain::schema::{ComputeOn, EntityTypeSchema, SchemaDiff};

use super::*;
use crate::domain::derive::{Embedding, EmbeddingRequest, Embeddings};

fn schema(yaml: &str) -> EntityTypeSchema {
    yaml_serde::from_str(yaml).expect("the schema can be read")
}

fn shop() -> EntityTypeSchema {
    schema(include_str!("../../../examples/ecommerce/product.yaml"))
}

fn violations(yaml: &str) -> Vec<String> {
    match compile_entity_type(&schema(yaml)) {
        Ok(_) => panic!("{yaml} is wrong"),
        Err(violations) => violations
            .iter()
            .map(|v| format!("{}: {}", v.pointer.as_deref().unwrap_or("-"), v.message))
            .collect(),
    }
}

fn name(text: &str) -> FeatureName {
    FeatureName::parse(text).expect("a name")
}

#[test]
fn the_shop_example_passes_its_tests() {
    let shop = shop();
    let transformations = compile_entity_type(&shop).expect("it is right");
    let reports = check_cases(&transformations, &shop);
    assert_eq!(reports.len(), shop.tests.len());
    for report in reports {
        assert!(report.passed(), "{}: {:?}", report.name, report.differences);
    }
}

#[test]
fn a_schema_survives_being_written_and_read() {
    let shop = shop();
    let text = serde_json::to_string(&shop).expect("it can be written");
    let again: EntityTypeSchema = serde_json::from_str(&text).expect("it can be read");
    assert_eq!(shop, again);
    let plain: EntityTypeSchema =
        serde_json::from_str("{\"features\": {\"a\": {\"type\": \"int64\"}}}").expect("a schema");
    let text = serde_json::to_string(&plain).expect("it can be written");
    for word in ["computed", "raw_inputs", "transformations", "tests"] {
        assert!(!text.contains(word), "{text}");
    }
    assert_eq!(SchemaDiff::between(&plain, &again).settings.last().map(String::as_str), Some("tests"));
}

#[test]
fn a_test_that_fails_says_what_it_found() {
    let mut shop = shop();
    let broken = "  return num.label(price, PRICE_BOUNDARIES, [])";
    shop.transformations =
        shop.transformations.replace("  return num.label(price, PRICE_BOUNDARIES, PRICE_RANGES)", broken);
    shop.tests.truncate(1);
    let transformations = compile_entity_type(&shop).expect("it compiles");
    let report = check_cases(&transformations, &shop).remove(0);
    let found: Vec<(&str, &str)> = report
        .differences
        .iter()
        .map(|difference| {
            (&*difference.feature, difference.found.as_ref().map_or_else(|error| &**error, |_| ""))
        })
        .collect();
    assert_eq!(found[0].0, "price_range");
    assert!(found[0].1.contains("num.label(): 3 boundaries need 4 labels, not 0"), "{found:?}");
    assert_eq!(found[1], ("is_premium", "needs price_range, which could not be computed"));
    assert!(serde_json::to_string(&report).expect("it can be written").contains("\"error\""));
}

#[test]
fn the_graph_knows_order_and_dependents() {
    let transformations = compile_entity_type(&shop()).expect("it is right");
    let graph = transformations.graph();
    let names = |nodes: Vec<usize>| -> Vec<String> {
        nodes.iter().map(|at| graph.nodes()[*at].feature.to_string()).collect()
    };
    for (at, node) in graph.nodes().iter().enumerate() {
        for input in &node.inputs {
            if let Source::Computed(feature) = input {
                assert!(
                    graph.position(feature).expect("it is computed") < at,
                    "{feature} before {}",
                    node.feature
                );
            }
        }
    }
    assert_eq!(
        names(graph.dependents(["price"], ComputeOn::Write)),
        ["price_range", "is_premium", "feature_completeness"]
    );
    assert_eq!(
        names(graph.dependents(["description"], ComputeOn::Write)),
        [
            "combined_text",
            "feature_completeness",
            "text_quality_score",
            "text_embedding",
            "category_similarity"
        ]
    );
    assert_eq!(names(graph.dependents(["released_at"], ComputeOn::Read)), ["age_days"]);
    assert_eq!(names(graph.dependents(["released_at", "nothing"], ComputeOn::Write)), [""; 0]);
    let similarity = graph.position(&name("category_similarity")).expect("it is computed");
    assert_eq!(
        names(graph.with_needed([similarity])),
        ["combined_text", "text_embedding", "category_similarity"]
    );
    let age = &graph.nodes()[graph.position(&name("age_days")).expect("it is computed")];
    assert_eq!(age.inputs, [Source::Stored(name("released_at")), Source::Now]);
    assert!(graph.to_dot().contains("  price -> price_range;\n"));
    assert!(graph.to_mermaid().contains("  released_at -.-> age_days\n"));
}

#[test]
fn mistakes_are_listed_with_their_place() {
    let found = violations(
        "
features:
  price: {type: float64}
  live: {type: float64, computed: {function: live, on: read}}
  a: {type: float64, computed: {function: pricerange}}
  b: {type: float64, computed: {function: b}}
  c: {type: float64, computed: {function: c}}
  d: {type: float64, computed: {function: d}}
  e: {type: float64, computed: {function: e}}
raw_inputs:
  price: {type: float64}
  vector: {type: embedding}
transformations: |
  def price_range(price):
      return price
  def b(cost):
      return cost
  def c(*args):
      return 1
  def d(now):
      return now
  def e(live):
      return live
  def live(context):
      return context
",
    );
    let expected = [
        "/raw_inputs/price: is a feature already, which functions can take as it is",
        "/raw_inputs/vector: an embedding needs a dimension from 1 to 65536",
        "/features/live/computed: line 11, column 5: the parameter `context` of `live` is no feature and no raw input; what comes from the request's context is declared in raw_inputs",
        "/features/a/computed: there is no function `pricerange` in transformations; did you mean `price_range`?",
        "/features/b/computed: line 3, column 5: the parameter `cost` of `b` is no feature and no raw input",
        "/features/c/computed: line 5, column 5: `c` takes *args or **kwargs, so its inputs are not known; name them",
        "/features/d/computed: line 7, column 5: `now` is there only for features computed on read",
        "/features/e/computed: line 9, column 5: needs `live`, which is computed on read and not stored; compute this one on read, too",
    ];
    assert_eq!(found, expected);
}

#[test]
fn cycles_are_named() {
    let found = violations(
        "
features:
  x: {type: float64, computed: {function: x}}
  a: {type: float64, computed: {function: a}}
  b: {type: float64, computed: {function: b}}
  c: {type: float64, computed: {function: c}}
transformations: |
  def x(a):
      return a
  def a(b):
      return b
  def b(c):
      return c
  def c(a):
      return a
",
    );
    assert_eq!(found, ["/features/a/computed: line 3, column 5: needs itself: a -> b -> c -> a"]);
    let itself =
        "features: {a: {type: int64, computed: {function: f}}}\ntransformations: 'def f(a): return a'";
    assert_eq!(violations(itself), ["/features/a/computed: line 1, column 5: needs itself: a -> a"]);
}

#[test]
fn a_broken_source_and_broken_tests_are_refused() {
    let found = violations("features: {a: {type: int64}}\ntransformations: |\n  def f(x):\n      return y\n");
    assert_eq!(found, ["/transformations: line 2, column 12: in f: `y` is not defined"]);
    let found = violations(
        "
features:
  a: {type: int64}
  b: {type: int64, computed: {function: b}}
transformations: |
  def b(a):
      return a
tests:
  - {inputs: {a: x, z: 1}, expect: {a: 1, b: 1.5}}
  - {expect: {}}
",
    );
    assert_eq!(
        found,
        [
            "/tests/0/inputs/a: expected int64, got the string \"x\"",
            "/tests/0/inputs/z: is no feature and no raw input",
            "/tests/0/expect/a: is no computed feature",
            "/tests/0/expect/b: expected int64, got the number 1.5",
            "/tests/1/expect: expects nothing; name a computed feature and its value",
        ]
    );
}

#[test]
fn missing_embeddings_of_all_functions_are_asked_for_together() {
    struct Nothing;
    impl Embeddings for Nothing {
        fn get(&self, _: &str, _: u32) -> Embedding {
            Embedding::Fetch
        }
    }
    let transformations = compile_entity_type(&shop()).expect("it is right");
    let env = Env { embeddings: Some(&Nothing), ..Env::default() };
    let graph = transformations.graph();
    let nodes = graph.dependents(["name", "category"], ComputeOn::Write);
    let value = |source: &Source| match source.name() {
        "name" => Some(Value::String("shoe".into())),
        "category" => Some(Value::String("shoes".into())),
        _ => None,
    };
    let requests = transformations.compute(&nodes, &value, &env).expect_err("nothing is there");
    assert_eq!(requests, [EmbeddingRequest { text: "shoe shoes".into(), dimension: 384 }]);
    // One that needs two at once asks for both.
    let stored = |source: &Source| match source.name() {
        "text_embedding" => Some(Value::Embedding(vec![1.0; 384].into())),
        _ => value(source),
    };
    let similarity = graph.position(&name("category_similarity")).expect("it is computed");
    let requests = transformations.compute(&[similarity], &stored, &env).expect_err("nothing is there");
    assert_eq!(requests, [EmbeddingRequest { text: "shoes".into(), dimension: 384 }]);
}

#[test]
fn the_reference_page_is_up_to_date() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/transformations.md");
    let page = reference_page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).expect("the page can be written");
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == page,
        "docs/transformations.md differs: UPDATE_DOCS=1 cargo test --lib transform writes it"
    );
}

#[test]
fn the_pages_own_example_is_right() {
    let page = reference_page();
    let yaml = page.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("an example");
    let schema = schema(yaml);
    let transformations = compile_entity_type(&schema).expect("it is right");
    assert!(check_cases(&transformations, &schema).iter().all(CaseReport::passed));
}
