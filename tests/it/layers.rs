//! The layers know each other only as `docs/ARCHITECTURE.md` says.

use std::path::{Path, PathBuf};

/// A layer, and the modules of this crate and the crates that it must not name.
struct Layer {
    /// Directory or file under `src/`.
    path: &'static str,
    forbidden: &'static [&'static str],
}

const WIRING: [&str; 4] = ["crate::cli", "crate::config", "crate::server", "crate::telemetry"];
const HTTP: [&str; 6] = ["crate::http", "axum", "hyper", "tower", "tower_http", "utoipa_axum"];
const ENGINES: [&str; 2] = ["fred", "redb"];

/// Only `trace` knows how traces are told.
const TRACES: [&str; 4] = ["opentelemetry", "opentelemetry_http", "opentelemetry_otlp", "opentelemetry_sdk"];

const LAYERS: [Layer; 11] = [
    Layer { path: "http", forbidden: &["crate::store::redis", "crate::store::embedded"] },
    Layer { path: "service", forbidden: &["crate::store::redis", "crate::store::embedded"] },
    Layer { path: "store/redis", forbidden: &["crate::store::embedded", "crate::service", "redb"] },
    Layer { path: "store/embedded", forbidden: &["crate::store::redis", "crate::service", "fred"] },
    Layer {
        path: "domain",
        forbidden: &[
            "crate::service",
            "crate::store",
            "crate::transform",
            "crate::embedding",
            "crate::clock",
            "tokio",
            "async_trait",
            "futures",
        ],
    },
    Layer {
        path: "transform",
        forbidden: &["crate::service", "crate::store", "crate::clock", "tokio", "async_trait"],
    },
    Layer {
        path: "table",
        forbidden: &["crate::service", "crate::store", "crate::clock", "tokio", "async_trait"],
    },
    Layer { path: "keys", forbidden: &["crate::store"] },
    Layer { path: "trace", forbidden: &["crate::service", "crate::store", "crate::clock"] },
    Layer { path: "monitor", forbidden: &["crate::service", "crate::store", "crate::clock"] },
    // Providers of what a service asks for.
    Layer { path: "embedding", forbidden: &["crate::store"] },
];

/// What a layer must not name besides its own list.
fn forbidden_to(layer: &Layer) -> Vec<&'static str> {
    let mut forbidden = layer.forbidden.to_vec();
    forbidden.extend(WIRING);
    if layer.path != "http" {
        forbidden.extend(HTTP);
    }
    if layer.path != "trace" {
        forbidden.extend(TRACES);
    }
    if !layer.path.starts_with("store/") {
        forbidden.extend(ENGINES);
    }
    forbidden
}

#[test]
fn no_layer_names_what_it_must_not_know() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut broken = Vec::new();
    for layer in &LAYERS {
        let files = rust_files(&root.join(layer.path));
        assert!(!files.is_empty(), "there is no layer src/{}", layer.path);
        for file in files {
            let name = file.strip_prefix(&root).unwrap().with_extension("");
            let module = module_of(&name);
            let text = std::fs::read_to_string(&file).unwrap();
            for (line, path) in violations(&text, &module, &forbidden_to(layer)) {
                broken.push(format!("src/{}.rs:{line} names {path}", name.display()));
            }
        }
    }
    assert!(broken.is_empty(), "layers are crossed:\n  {}", broken.join("\n  "));
}

/// Every file of a layer belongs to one, so that a new directory does not go unwatched.
#[test]
fn every_directory_is_a_layer_or_wires_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for entry in std::fs::read_dir(root).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        if entry.file_type().unwrap().is_dir() {
            let known = ["cli", "config", "server", "store"].contains(&name.as_str())
                || LAYERS.iter().any(|l| l.path == name);
            assert!(known, "src/{name} is in no layer: say in this file what it may know");
        }
    }
}

#[test]
fn a_planted_violation_is_found() {
    let forbidden = ["crate::store::redis", "crate::service", "fred", "axum"];
    let lines = |text: &str, module: &str| -> Vec<usize> {
        let module: Vec<String> = module.split("::").map(str::to_owned).collect();
        violations(text, &module, &forbidden).into_iter().map(|(line, _)| line).collect()
    };
    for text in [
        "use fred::prelude::*;",
        "use fred;",
        "use fred as f;",
        "pub(crate) use ::fred::types;",
        "fn f() { let x = fred::clients::Pool::new(); }",
        "use crate::{domain::name, store::{redis::RedisStore, Store}};",
        "use crate::{\n    domain::name,\n    store::redis,\n};",
        "use crate :: store :: redis;",
        "use crate::store::{self, redis};",
        "use {crate::service::FeatureStore, std::fmt};",
        "fn f(s: &crate::service::FeatureStore) {}",
        "use crate::r#service::write;",
        "extern crate fred;",
        "use std::{fmt}; /* a comment */ use axum::Router;",
        "#[derive(axum::FromRef)] struct S;",
        "const A: &str = \"\\\"\"; use fred::x;",
        "const A: char = '\"'; use fred::x;",
        "fn f<'a>(x: &'a str) -> &'a str { fred::x(x) }",
    ] {
        assert!(!lines(text, "store::embedded::read").is_empty(), "not found: {text}");
    }
    // By way of `super`, from where the file is.
    assert_eq!(lines("use super::super::redis::Link;", "store::embedded::read"), [1]);
    assert_eq!(lines("\nuse super::redis;", "store::embedded"), [2]);
    assert_eq!(lines("mod tests { use super::super::super::redis::X; }", "store::embedded::read"), [1]);
    for text in [
        "// use fred::prelude::*;",
        "/* use fred; /* nested */ use axum; */",
        "//! [`crate::service`] says why",
        "const A: &str = \"use fred::prelude;\";",
        "const A: &str = r#\"crate::service::x \"quoted\" \"#;",
        "use std::fred_like::x; use crate::store::redis_like;",
        "use crate::store::{Store, StoreError}; use crate::domain::fred;",
        "let fred = 1; let x = a.axum;",
        "use super::writer::Writer;",
        "mod axum { }",
    ] {
        assert!(lines(text, "store::embedded::read").is_empty(), "found in: {text}");
    }
}

fn rust_files(path: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(path) else { return Vec::new() };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// `store/redis/mod` is the module `store::redis`.
fn module_of(file: &Path) -> Vec<String> {
    let mut parts: Vec<String> =
        file.iter().map(|part| part.to_str().expect("sources have plain names").to_owned()).collect();
    if parts.last().is_some_and(|last| last == "mod") {
        parts.pop();
    }
    parts
}

/// The forbidden paths that a source text of `module` names, with their lines.
fn violations(text: &str, module: &[String], forbidden: &[&str]) -> Vec<(usize, String)> {
    let tokens = tokens(text);
    let mut found = Vec::new();
    let mut at = 0;
    let mut depth = 0_usize;
    // Inline modules, with the depth of braces at which each ends: `super` counts from there.
    let mut inline: Vec<(String, usize)> = Vec::new();
    while at < tokens.len() {
        match tokens[at].1.as_str() {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                inline.retain(|(_, ends)| *ends <= depth);
            }
            "mod" if tokens.get(at + 2).is_some_and(|token| token.1 == "{") => {
                inline.push((tokens[at + 1].1.clone(), depth + 1));
                at += 2;
                depth += 1;
            }
            word => {
                let in_use = matches!(word, "use" | "extern");
                // `use {…}` and `::fred` start after the keyword.
                let mut start = if in_use { at + 1 } else { at };
                if in_use && tokens.get(start).is_some_and(|token| token.1 == "crate" && word == "extern") {
                    start += 1;
                }
                let previous = at.checked_sub(1).map(|before| tokens[before].1.as_str());
                let continues = matches!(previous, Some("::" | "." | "mod" | "let" | "fn" | "'"));
                let names_path = is_word(word) && tokens.get(at + 1).is_some_and(|token| token.1 == "::");
                if in_use || (names_path && !continues) {
                    let here: Vec<String> =
                        module.iter().cloned().chain(inline.iter().map(|(name, _)| name.clone())).collect();
                    let mut paths = Vec::new();
                    let end = read_tree(&tokens, start, &mut Vec::new(), &mut paths);
                    for (line, path) in paths {
                        let path = absolute(&path, &here).join("::");
                        let crossed = |name: &&&str| path == **name || path.starts_with(&format!("{name}::"));
                        if forbidden.iter().any(|name| crossed(&name)) {
                            found.push((line, path));
                        }
                    }
                    at = end.max(at + 1);
                    continue;
                }
            }
        }
        at += 1;
    }
    found
}

/// Reads `a::b::{c, d::e}` from `at`; the answer is where it ends.
fn read_tree(
    tokens: &[(usize, String)],
    mut at: usize,
    prefix: &mut Vec<String>,
    paths: &mut Vec<(usize, Vec<String>)>,
) -> usize {
    let before = prefix.len();
    let line = tokens.get(at).map_or(0, |token| token.0);
    while let Some((_, token)) = tokens.get(at) {
        match token.as_str() {
            "::" => at += 1,
            "{" if at == 0 || tokens[at - 1].1 == "::" || tokens[at - 1].1 == "use" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token.1 != "}") {
                    let end = read_tree(tokens, at, prefix, paths);
                    at = if tokens.get(end).is_some_and(|token| token.1 == ",") {
                        end + 1
                    } else {
                        end.max(at + 1)
                    };
                }
                prefix.truncate(before);
                return at + 1;
            }
            word if is_word(word) => {
                let joined = prefix.len() == before || tokens[at - 1].1 == "::";
                if !joined {
                    break;
                }
                if word != "self" || prefix.is_empty() {
                    prefix.push(word.to_owned());
                }
                at += 1;
            }
            _ => break,
        }
    }
    // `as name`
    if tokens.get(at).is_some_and(|token| token.1 == "as") {
        at += 2;
    }
    if !prefix.is_empty() {
        paths.push((line, prefix.clone()));
    }
    prefix.truncate(before);
    at
}

/// A path from the crate's root, where it is relative to the module `here`.
fn absolute(path: &[String], here: &[String]) -> Vec<String> {
    let supers = path.iter().take_while(|part| *part == "super" || *part == "self").count();
    if supers == 0 {
        return path.to_vec();
    }
    let up = path[..supers].iter().filter(|part| *part == "super").count();
    let mut absolute = vec!["crate".to_owned()];
    absolute.extend(here[..here.len().saturating_sub(up)].iter().cloned());
    absolute.extend(path[supers..].iter().cloned());
    absolute
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// Words and marks with their lines; comments, strings and characters left out.
fn tokens(text: &str) -> Vec<(usize, String)> {
    let chars: Vec<char> = text.chars().collect();
    let (mut at, mut line) = (0, 1);
    let mut tokens = Vec::new();
    let starts = |at: usize, what: &str| what.chars().enumerate().all(|(i, c)| chars.get(at + i) == Some(&c));
    while at < chars.len() {
        let c = chars[at];
        let begin = at;
        if starts(at, "//") {
            while at < chars.len() && chars[at] != '\n' {
                at += 1;
            }
        } else if starts(at, "/*") {
            let mut depth = 0;
            while at < chars.len() {
                if starts(at, "/*") {
                    depth += 1;
                    at += 2;
                } else if starts(at, "*/") {
                    depth -= 1;
                    at += 2;
                    if depth == 0 {
                        break;
                    }
                } else {
                    at += 1;
                }
            }
        } else if let Some(end) = raw_string_end(&chars, at) {
            at = end;
        } else if c == '"' {
            at += 1;
            while at < chars.len() && chars[at] != '"' {
                at += if chars[at] == '\\' { 2 } else { 1 };
            }
            at += 1;
        } else if c == '\'' {
            // A character, or else a lifetime.
            if chars.get(at + 1) == Some(&'\\') {
                at += 3;
                while at < chars.len() && chars[at] != '\'' {
                    at += 1;
                }
                at += 1;
            } else if chars.get(at + 2) == Some(&'\'') {
                at += 3;
            } else {
                tokens.push((line, "'".to_owned()));
                at += 1;
            }
        } else if c.is_alphanumeric() || c == '_' {
            while at < chars.len() && (chars[at].is_alphanumeric() || chars[at] == '_') {
                at += 1;
            }
            let mut word: String = chars[begin..at].iter().collect();
            if word == "r" && chars.get(at) == Some(&'#') {
                at += 1;
                continue;
            }
            if word.is_empty() {
                word.push(c);
            }
            tokens.push((line, word));
        } else if starts(at, "::") {
            tokens.push((line, "::".to_owned()));
            at += 2;
        } else {
            if !c.is_whitespace() {
                tokens.push((line, c.to_string()));
            }
            at += 1;
        }
        let end = at.min(chars.len());
        line += chars[begin..end].iter().filter(|c| **c == '\n').count();
    }
    tokens
}

/// Where a raw string that starts here ends.
fn raw_string_end(chars: &[char], at: usize) -> Option<usize> {
    if at > 0 && (chars[at - 1].is_alphanumeric() || chars[at - 1] == '_') {
        return None;
    }
    let mut start = at;
    if matches!(chars.get(start), Some('b' | 'c')) {
        start += 1;
    }
    if chars.get(start) != Some(&'r') {
        return None;
    }
    let hashes = chars[start + 1..].iter().take_while(|c| **c == '#').count();
    if chars.get(start + 1 + hashes) != Some(&'"') {
        return None;
    }
    let mut end = start + 2 + hashes;
    while end < chars.len() {
        if chars[end] == '"' && chars[end + 1..].iter().take(hashes).filter(|c| **c == '#').count() == hashes
        {
            return Some(end + 1 + hashes);
        }
        end += 1;
    }
    Some(chars.len())
}
