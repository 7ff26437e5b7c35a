//! The OpenAPI document: committed, whole, and in the shape that clients and their generators need.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");

fn document() -> Value {
    let json = feature_store::http::openapi().to_pretty_json().unwrap();
    serde_json::from_str(&json).unwrap()
}

/// What is asked with a body, and changes nothing.
const READING_POSTS: [&str; 3] =
    ["post /v1/features/read", "post /v1/features/export", "post /v1/features/training-set"];

/// Every operation, as `("get /v1/…", operation)`.
fn operations(document: &Value) -> Vec<(String, &Map<String, Value>)> {
    let paths = document["paths"].as_object().unwrap();
    let mut operations = Vec::new();
    for (path, item) in paths {
        for (method, operation) in item.as_object().unwrap() {
            if let (
                "get" | "put" | "post" | "delete" | "patch" | "head" | "options" | "trace",
                Some(operation),
            ) = (method.as_str(), operation.as_object())
            {
                operations.push((format!("{method} {path}"), operation));
            }
        }
    }
    operations
}

#[test]
fn the_committed_document_is_that_of_this_build() {
    let built = format!("{}\n", feature_store::http::openapi().to_pretty_json().unwrap());
    let committed = std::fs::read_to_string(COMMITTED).unwrap_or_default();
    if built == committed {
        return;
    }
    let differs = built.lines().zip(committed.lines()).position(|(built, committed)| built != committed);
    let line = differs.unwrap_or_else(|| built.lines().count().min(committed.lines().count()));
    panic!(
        "openapi/openapi.json is not what this build serves (first difference in line {}):\n  \
         built:     {}\n  committed: {}\n\
         To update it: cargo run -- openapi > openapi/openapi.json",
        line + 1,
        built.lines().nth(line).unwrap_or("(end)"),
        committed.lines().nth(line).unwrap_or("(end)"),
    );
}

#[test]
fn every_operation_says_what_it_is() {
    let document = document();
    let tags: BTreeSet<&str> =
        document["tags"].as_array().unwrap().iter().map(|tag| tag["name"].as_str().unwrap()).collect();
    let id = regex::Regex::new("^[a-z]+(_[a-z]+)+$").unwrap();
    let mut ids: HashMap<String, String> = HashMap::new();
    let operations = operations(&document);
    assert!(operations.len() >= 26, "only {} operations", operations.len());
    for (name, operation) in operations {
        let summary = operation.get("summary").and_then(Value::as_str).unwrap_or_default();
        assert!(!summary.is_empty() && !summary.ends_with('.'), "{name}: summary {summary:?}");
        let operation_id = operation["operationId"].as_str().unwrap_or_default();
        assert!(id.is_match(operation_id), "{name}: operationId {operation_id:?} is not verb_noun");
        if let Some(other) = ids.insert(operation_id.to_owned(), name.clone()) {
            panic!("{name} and {other} have the same operationId {operation_id}");
        }
        let of: Vec<&str> = operation["tags"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
        assert!(of.len() == 1 && tags.contains(of[0]), "{name}: tags {of:?}");
    }
}

#[test]
fn every_operation_says_what_it_needs() {
    let document = document();
    for (name, operation) in operations(&document) {
        let access = operation["x-access"].as_str().unwrap_or_default();
        let changes = !name.starts_with("get ") && !READING_POSTS.contains(&name.as_str());
        match access {
            "write" | "admin" => assert!(changes, "{name} changes nothing, yet needs {access}"),
            "probe" | "docs" | "metrics" | "read" => {
                assert!(!changes, "{name} changes something, yet needs {access}")
            }
            other => panic!("{name}: x-access {other:?}"),
        }
        let refusals =
            ["401", "403", "429"].iter().filter(|status| operation["responses"].get(**status).is_some());
        assert_eq!(refusals.count(), if access == "probe" { 0 } else { 3 }, "{name}");
    }
}

#[test]
fn every_body_has_an_example() {
    let document = document();
    for (name, operation) in operations(&document) {
        let request = operation.get("requestBody").map(|body| &body["content"]);
        let answers = operation["responses"].as_object().unwrap();
        let successes = answers.iter().filter(|(status, _)| status.starts_with('2'));
        let contents = request.into_iter().chain(successes.filter_map(|(_, answer)| answer.get("content")));
        for content in contents {
            for (media_type, content) in content.as_object().unwrap() {
                let plain = !media_type.contains("json") && !media_type.contains("yaml");
                assert!(
                    plain || has_example(content) || has_example(resolve(&document, &content["schema"])),
                    "{name}: no example of {media_type}"
                );
            }
        }
    }
}

fn has_example(of: &Value) -> bool {
    let forms = of.get("oneOf").or_else(|| of.get("anyOf")).and_then(Value::as_array);
    of.get("example").is_some()
        || of.get("examples").is_some()
        || forms.is_some_and(|forms| forms.iter().any(has_example))
}

#[test]
fn every_refusal_is_a_problem() {
    let document = document();
    for (name, operation) in operations(&document) {
        let mut statuses = BTreeSet::new();
        for (status, answer) in operation["responses"].as_object().unwrap() {
            let status: u16 = status.parse().unwrap_or_else(|_| panic!("{name}: status {status}"));
            statuses.insert(status);
            assert!(answer["description"].as_str().is_some_and(|text| !text.is_empty()), "{name}: {status}");
            if status >= 400 {
                let content =
                    answer["content"].as_object().unwrap_or_else(|| panic!("{name}: {status} is empty"));
                let types: Vec<&String> = content.keys().collect();
                assert_eq!(types, ["application/problem+json"], "{name}: {status}");
                let schema = &content["application/problem+json"]["schema"]["$ref"];
                assert_eq!(schema, "#/components/schemas/Problem", "{name}: {status}");
            }
        }
        assert!(statuses.iter().any(|status| (200..300).contains(status)), "{name}: no success");
        for status in [400, 404, 413, 500, 503, 504] {
            assert!(statuses.contains(&status), "{name}: {status} is not documented");
        }
        if operation.contains_key("requestBody") {
            assert!(
                statuses.contains(&415) && statuses.contains(&422),
                "{name}: 415 or 422 is not documented"
            );
        }
    }
}

#[test]
fn every_reference_leads_somewhere() {
    let document = document();
    let mut used = BTreeSet::new();
    walk(&document, &mut |value| {
        if let Some(reference) = value.get("$ref").and_then(Value::as_str) {
            let pointer = reference.strip_prefix('#').unwrap_or_else(|| panic!("{reference} leads out"));
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
            used.insert(reference.to_owned());
        }
    });
    assert!(used.contains("#/components/schemas/FeatureValue"));
}

/// A closed schema as a part of `allOf` forbids what the other parts add.
#[test]
fn no_closed_schema_is_part_of_another() {
    let document = document();
    walk(&document, &mut |value| {
        for part in value.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            let closed = resolve(&document, part).get("additionalProperties") == Some(&Value::Bool(false));
            assert!(!closed, "allOf with a closed part: {part}");
        }
    });
}

#[test]
fn a_feature_value_is_one_of_its_forms() {
    let document = document();
    let forms = document.pointer("/components/schemas/FeatureValue/oneOf").and_then(Value::as_array);
    let types: Vec<&str> = forms.unwrap().iter().filter_map(|form| form["type"].as_str()).collect();
    assert_eq!(types, ["boolean", "number", "string", "array", "object", "null"]);
}

fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema.get("$ref").and_then(Value::as_str) {
        Some(reference) => document.pointer(&reference[1..]).unwrap_or(&Value::Null),
        None => schema,
    }
}

fn walk(value: &Value, visit: &mut impl FnMut(&Value)) {
    visit(value);
    match value {
        Value::Array(items) => items.iter().for_each(|item| walk(item, visit)),
        Value::Object(members) => members.values().for_each(|member| walk(member, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
