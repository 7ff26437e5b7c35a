//! The table of malformed requests.

use crate::malformed_bodies::{broken_bodies, wrong_members, wrong_values};
use crate::raw_http::RawRequest;

/// One malformed request, and the problem it must get.
pub struct Case {
    pub what: String,
    pub request: RawRequest,
    pub status: u16,
    pub code: &'static str,
}

pub const INVALID: (u16, &str) = (400, "invalid_request");
pub const REFUSED: (u16, &str) = (422, "validation_failed");
pub const LARGE: (u16, &str) = (413, "payload_too_large");

pub const WRITE: &str = "/v1/entities/product/sentinel/features";
pub const LOOSE: &str = "/v1/entities/loose/sentinel/features";
pub const BATCH_WRITE: &str = "/v1/features/write";
pub const BATCH_READ: &str = "/v1/features/read";
const SCHEMA: &str = "/v1/entity-types/product";
const SERVICE: &str = "/v1/feature-services/ranking";
pub const ROLLBACK: &str = "/v1/entities/product/sentinel/rollback";
pub const UNDO: &str = "/v1/entity-types/product/rollback";

pub fn case(
    what: impl Into<String>,
    method: &'static str,
    target: impl Into<String>,
    body: impl Into<Vec<u8>>,
    (status, code): (u16, &'static str),
) -> Case {
    let headers = vec!["Content-Type: application/json".to_owned()];
    let request = RawRequest { method, target: target.into(), headers, body: body.into() };
    Case { what: what.into(), request, status, code }
}

fn with_header(mut case: Case, header: &str) -> Case {
    case.request.headers.push(header.to_owned());
    case
}

fn with_type(mut case: Case, content_type: &str) -> Case {
    case.request.headers = vec![format!("Content-Type: {content_type}")];
    case
}

/// `future` is a time beyond the allowed skew.
pub fn cases(future: &str) -> Vec<Case> {
    let mut all = broken_bodies();
    all.extend(wrong_values());
    all.extend(wrong_members(future));
    all.extend(wrong_paths());
    all.extend(wrong_queries());
    all.extend(wrong_documents());
    all.extend(wrong_headers());
    all
}

fn wrong_paths() -> Vec<Case> {
    let long = "x".repeat(257);
    let paths = [
        ("/v1/entities/product/a%00b/features".to_owned(), INVALID),
        ("/v1/entities/product/a%0ab/features".to_owned(), INVALID),
        ("/v1/entities/product/a%0d%0aX-Evil:%201/features".to_owned(), INVALID),
        ("/v1/entities/product/a%7fb/features".to_owned(), INVALID),
        ("/v1/entities/product/a%c2%85b/features".to_owned(), INVALID),
        ("/v1/entities/product/%ff%fe/features".to_owned(), INVALID),
        ("/v1/entities/product/%c3%28/features".to_owned(), INVALID),
        (format!("/v1/entities/product/{long}/features"), INVALID),
        (format!("/v1/entities/product/{}/features", "%F0%9F%98%80".repeat(65)), INVALID),
        ("/v1/entities/%2e%2e/sentinel/features".to_owned(), INVALID),
        ("/v1/entities/..%2fproduct/sentinel/features".to_owned(), INVALID),
        ("/v1/entities/pro%20duct/sentinel/features".to_owned(), INVALID),
        ("/v1/entities/1product/sentinel/features".to_owned(), INVALID),
        ("/v1/entities/pr%C3%B6duct/sentinel/features".to_owned(), INVALID),
        ("/v1/entities/product%00/sentinel/features".to_owned(), INVALID),
        (format!("/v1/entities/{}/sentinel/features", "p".repeat(129)), INVALID),
        ("/v1/entities//sentinel/features".to_owned(), INVALID),
        ("/v1/entities/product//features".to_owned(), INVALID),
        ("/v1/entities/product/../product/sentinel/features".to_owned(), INVALID),
        ("/v1/../v1/entities/product/sentinel/features".to_owned(), INVALID),
        ("//v1/entities/product/sentinel/features".to_owned(), INVALID),
        ("/v1/entities/product/sentinel/features/".to_owned(), INVALID),
        ("/V1/entities/product/sentinel/features".to_owned(), INVALID),
    ];
    // A path that is no route is 404; one with a segment that cannot be is 400.
    let no_route = ["/../", "//v1", "features/", "/V1"];
    paths
        .into_iter()
        .map(|(path, (status, code))| {
            let status = if no_route.iter().any(|part| path.contains(part)) { 404 } else { status };
            let what = path.chars().take(80).collect::<String>();
            case(what, "POST", path, "{\"features\": {\"price\": 2}}", (status, code))
        })
        .collect()
}

fn wrong_queries() -> Vec<Case> {
    let feature = "/v1/entities/product/sentinel/features";
    let gets = [
        (format!("{feature}?name=price"), INVALID),
        (format!("{feature}?names=price&names=stock"), INVALID),
        (format!("{feature}?names="), INVALID),
        (format!("{feature}?names=price,,stock"), INVALID),
        (format!("{feature}?names=prise"), (400, "unknown_feature")),
        (format!("{feature}?names=%ff"), (400, "unknown_feature")),
        (format!("{feature}?include=everything"), INVALID),
        (format!("{feature}?version=latest"), INVALID),
        (format!("{feature}?version=-1"), INVALID),
        (format!("{feature}?version=99999999999999999999"), INVALID),
        (format!("{feature}?version=99"), (404, "version_not_found")),
        (format!("{feature}?as_of=now"), INVALID),
        (format!("{feature}?as_of=2026-01-02T03:04:05+02:00"), INVALID),
        (format!("{feature}?as_of=2026-01-02T03:04:05Z&version=1"), INVALID),
        (format!("{feature}?max_age=0"), INVALID),
        (format!("{feature}?max_age=-5"), INVALID),
        (format!("{feature}?max_age=never"), INVALID),
        (format!("{feature}?feature_service=a@b@c"), INVALID),
        (format!("{feature}?feature_service=nothing"), (404, "invalid_request")),
        ("/v1/entities/product?cursor=%00%01".to_owned(), INVALID),
        ("/v1/entities/product?limit=1e3".to_owned(), INVALID),
        ("/v1/entities/product/sentinel/versions?before=-1".to_owned(), INVALID),
        ("/v1/entities/product/sentinel/versions/latest".to_owned(), INVALID),
        ("/v1/entities/product/sentinel/versions/99999999999999999999".to_owned(), INVALID),
        ("/v1/entities/product/sentinel/diff?from=1&to=x".to_owned(), INVALID),
        ("/v1/entities/product/sentinel/diff?to=1".to_owned(), INVALID),
        ("/v1/entities/product/sentinel/features/pri%20ce/lineage".to_owned(), INVALID),
        ("/v1/entity-types/pro-duct".to_owned(), INVALID),
    ];
    let gets = gets.into_iter().map(|(target, answer)| case(target.clone(), "GET", target, "", answer));
    let deletes = [
        (format!("{feature}?names=price&history=maybe"), INVALID),
        (format!("{feature}?names=price&cascade=true"), INVALID),
        (format!("{feature}?names=prise"), (400, "unknown_feature")),
        (format!("{SCHEMA}?cascade=1"), INVALID),
        (format!("{SCHEMA}?force=true"), INVALID),
        (SCHEMA.to_owned(), (409, "schema_conflict")),
        ("/v1/entities/product/%00".to_owned(), INVALID),
        ("/v1/entities/product/nobody".to_owned(), (404, "entity_not_found")),
    ];
    gets.chain(
        deletes
            .into_iter()
            .map(|(target, answer)| case(format!("DELETE {target}"), "DELETE", target, "", answer)),
    )
    .collect()
}

fn wrong_documents() -> Vec<Case> {
    let documents = [
        (SCHEMA, "[]", INVALID),
        (SCHEMA, "[\"a description\"]", INVALID),
        (SCHEMA, "{\"features\": {\"price\": [\"float64\"]}}", INVALID),
        (SERVICE, "[\"\", \"\", {}, [\"product.price\"]]", INVALID),
        (SCHEMA, "{\"features\": {\"price\": {\"type\": \"decimal\"}}}", INVALID),
        (SCHEMA, "{\"features\": {\"price\": {}}}", INVALID),
        (SCHEMA, "{\"features\": {\"n\": {\"type\": \"int64\"}, \"n\": {\"type\": \"string\"}}}", INVALID),
        (SCHEMA, "{\"features\": {\"price\": \"float64\"}}", INVALID),
        (SCHEMA, "{\"features\": {\"not a name\": {\"type\": \"int64\"}}}", INVALID),
        (SCHEMA, "{\"features\": {\"price\": {\"type\": \"float64\", \"min\": 1}}}", INVALID),
        (SCHEMA, "{\"features\": {}, \"owners\": \"x\"}", INVALID),
        (SCHEMA, "{\"features\": {}, \"schema_mode\": \"loose\"}", INVALID),
        (SCHEMA, "{\"features\": {}, \"ttl\": \"sometimes\"}", INVALID),
        (SCHEMA, "{\"features\": {}, \"max_versions\": 1.5}", INVALID),
        (SCHEMA, "{\"features\": {\"price\": {\"type\": \"int64\", \"minimum\": \"low\"}}}", INVALID),
        (SCHEMA, "{\"features\": {\"n\": {\"type\": \"string\", \"pattern\": \"(a\"}}}", REFUSED),
        (
            SCHEMA,
            "{\"features\": {\"n\": {\"type\": \"string\", \"pattern\": \"((a{1000}){1000}){1000}\"}}}",
            REFUSED,
        ),
        (SCHEMA, "{\"features\": {\"v\": {\"type\": \"embedding\", \"dimension\": 100000}}}", REFUSED),
        (SCHEMA, "{\"features\": {\"price\": {\"type\": \"string\"}}}", (409, "schema_conflict")),
        ("/v1/entity-types/product?dry=true", "{\"features\": {}}", INVALID),
        ("/v1/entity-types/..", "{\"features\": {}}", INVALID),
        (SERVICE, "{}", INVALID),
        (SERVICE, "{\"features\": [\"price\"]}", INVALID),
        (SERVICE, "{\"features\": [\"product.price.x\"]}", INVALID),
        (SERVICE, "{\"features\": []}", REFUSED),
        (SERVICE, "{\"features\": [\"product.prise\"]}", (400, "unknown_feature")),
        (SERVICE, "{\"features\": [\"product.price\", \"product.price\"]}", REFUSED),
        ("/v1/feature-services/ranking@1", "{\"features\": [\"product.price\"]}", INVALID),
        ("/v1/feature-services/%2e%2e", "{\"features\": [\"product.price\"]}", INVALID),
    ];
    let nested = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let nested = [
        (SCHEMA, format!("{{\"features\": {{\"f\": {{\"type\": \"json\", \"default\": {nested}}}}}}}")),
        (SCHEMA, nested),
    ];
    let nested =
        nested.into_iter().map(|(path, body)| case("a deeply nested schema", "PUT", path, body, INVALID));
    let json = documents.into_iter().map(|(path, body, answer)| case(body, "PUT", path, body, answer));
    // Nine nines in each other: a third of a thousand million values, if they were all made.
    let level = |n: usize| match n {
        0 => "  f0: {type: json, default: &f0 [x, x, x, x, x, x, x, x, x]}\n".to_owned(),
        n => {
            let inner = vec![format!("*f{}", n - 1); 9].join(", ");
            format!("  f{n}: {{type: json, default: &f{n} [{inner}]}}\n")
        }
    };
    let bomb = format!("features:\n{}", (0..9).map(level).collect::<String>());
    let deep = format!("features: {{f: {{type: json, default: {}{}}}}}", "[".repeat(1000), "]".repeat(1000));
    let yaml = [
        ("features: [".to_owned(), INVALID),
        (String::new(), INVALID),
        ("# nothing but a comment\n".to_owned(), INVALID),
        ("~".to_owned(), INVALID),
        ("[]".to_owned(), INVALID),
        ("features: {price: {type: float64}}\nfeatures: {}\n".to_owned(), INVALID),
        ("--- {}\n--- {}\n".to_owned(), INVALID),
        ("features: {price: !!python/object/apply:os.system [ls]}".to_owned(), INVALID),
        ("features: {price: {type: !!binary ZmxvYXQ2NA==}}".to_owned(), INVALID),
        (deep, INVALID),
        ("[".repeat(10_000), INVALID),
        (" ".repeat((256 << 10) + 1), LARGE),
        (bomb, INVALID),
    ];
    let yaml = yaml.into_iter().map(|(body, answer)| {
        let what = format!("YAML {}", body.chars().take(60).collect::<String>());
        with_type(case(what, "PUT", SCHEMA, body, answer), "application/yaml")
    });
    json.chain(nested).chain(yaml).collect()
}

fn wrong_headers() -> Vec<Case> {
    let body = "{\"features\": {\"price\": 2}}";
    let if_match = ["7", "W/\"1\"", "\"1\", \"2\"", "\"-1\"", "\"x\"", "", "\"1", "**"].map(|value| {
        with_header(
            case(format!("If-Match: {value}"), "POST", WRITE, body, INVALID),
            &format!("If-Match: {value}"),
        )
    });
    let stale = with_header(
        case("If-Match of another version", "POST", WRITE, body, (412, "version_conflict")),
        "If-Match: \"7\"",
    );
    let types = ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json", "*/*"]
        .map(|kind| {
            with_type(case(format!("the type {kind}"), "POST", WRITE, body, (415, "invalid_request")), kind)
        });
    let mut untyped = case("no type", "POST", WRITE, body, (415, "invalid_request"));
    untyped.request.headers.clear();
    let packed = with_header(
        case("a compressed body", "POST", WRITE, b"\x1f\x8b\x08\0".to_vec(), (415, "invalid_request")),
        "Content-Encoding: gzip",
    );
    let size = (1 << 20) + 1;
    let endless = format!("{size:x}\r\n{}\r\n0\r\n\r\n", " ".repeat(size));
    let chunked = with_header(
        case("a large body in chunks", "POST", WRITE, endless, LARGE),
        "Transfer-Encoding: chunked",
    );
    let methods = ["PATCH", "PUT", "PROPFIND"]
        .map(|method| case(method, method, WRITE, body, (405, "invalid_request")));
    if_match.into_iter().chain([stale, untyped, packed, chunked]).chain(types).chain(methods).collect()
}
