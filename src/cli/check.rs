//! `feature-store check`

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::config::Config;
use crate::domain::name::EntityType;
use crate::domain::schema::{EntityTypeSchema, RegisteredEntityType};
use crate::domain::time::Timestamp;
use crate::http::read_document;
use crate::service::compile::compile;
use crate::transform::{CaseReport, check_cases, compile_entity_type};

#[derive(Debug, Args)]
pub struct Options {
    /// Schemas of entity types, in YAML or JSON.
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Only say what is wrong.
    #[arg(long, short)]
    quiet: bool,
}

/// Checks schema files as the server would, and runs their tests. What is wrong goes to standard
/// output, like what is right.
pub fn run(config: &Config, options: &Options) -> Result<(), String> {
    let mut wrong = 0usize;
    for file in &options.files {
        let report = check(config, file);
        wrong += usize::from(!report.passed);
        if !(report.passed && options.quiet) {
            // Written rather than printed: a reader that closes the pipe early is no reason to panic.
            std::io::stdout().write_all(report.text.as_bytes()).map_err(|error| error.to_string())?;
        }
    }
    match (wrong, options.files.len()) {
        (0, _) => Ok(()),
        (1, 1) => Err("the schema is not right".to_owned()),
        (wrong, all) => Err(format!("{wrong} of {all} schemas are not right")),
    }
}

/// What is to be said of one file.
struct Report {
    passed: bool,
    text: String,
}

fn check(config: &Config, file: &Path) -> Report {
    let name = file.display();
    let schema = match read(file) {
        Ok(schema) => schema,
        Err(message) => return Report { passed: false, text: format!("{name}: {message}\n") },
    };
    let violations = violations(config, &schema);
    if !violations.is_empty() {
        let mut text = format!("{name}: cannot be used\n");
        for violation in violations {
            // Writing to a String does not fail.
            let _ = writeln!(text, "  {violation}");
        }
        return Report { passed: false, text };
    }
    let cases = match compile_entity_type(&schema) {
        Ok(transformations) => check_cases(&transformations, &schema),
        // A schema without anything to compute.
        Err(_) => Vec::new(),
    };
    let passed = cases.iter().filter(|case| case.passed()).count();
    let mut text = match cases.len() {
        0 => format!("{name}: right, without tests\n"),
        all => format!("{name}: {passed} of {all} tests passed\n"),
    };
    cases.iter().for_each(|case| show(case, &mut text));
    Report { passed: passed == cases.len(), text }
}

fn show(case: &CaseReport, text: &mut String) {
    let _ = writeln!(text, "  {} {}", if case.passed() { "ok    " } else { "FAILED" }, case.name);
    for difference in &case.differences {
        let json = |value| serde_json::to_string(value).unwrap_or_default();
        let found = difference.found.as_ref().map_or_else(|error| error.replace('\n', "\n      "), json);
        let expected = json(&difference.expected);
        let _ = writeln!(text, "    {}: expected {expected}, found {found}", difference.feature);
    }
}

/// By its extension; a file without a known one is YAML, of which JSON is a part.
fn read(file: &Path) -> Result<EntityTypeSchema, String> {
    let bytes = std::fs::read(file).map_err(|error| format!("cannot be read: {error}"))?;
    let json = file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    read_document(&bytes, !json)
}

fn violations(config: &Config, schema: &EntityTypeSchema) -> Vec<String> {
    let entity_type = match EntityType::parse("checked") {
        Ok(entity_type) => entity_type,
        Err(error) => return vec![error.to_string()],
    };
    let at = Timestamp::MIN;
    let schema = schema.clone();
    let registered =
        RegisteredEntityType { entity_type, schema_version: 1, created_at: at, updated_at: at, schema };
    match compile(registered, &config.settings().defaults) {
        Ok(_) => Vec::new(),
        Err(violations) => violations
            .iter()
            .map(|violation| match &violation.pointer {
                Some(pointer) => format!("{pointer}: {}", violation.message),
                None => violation.to_string(),
            })
            .collect(),
    }
}
