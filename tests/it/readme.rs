//! The README keeps its word: its commands run, answer what it shows, and its table of settings is
//! the server's.

use std::path::Path;
use std::process::Command;

use feature_store::config::Config;
use serde_json::Value;

use crate::readme_server::ServerProcess;

/// What differs from run to run. Only that it is there is checked.
const OF_THE_MOMENT: [&str; 10] = [
    "age_seconds",
    "created_at",
    "event_timestamp",
    "event_timestamps",
    "expires_at",
    "request_id",
    "started_at",
    "updated_at",
    "uptime_seconds",
    "written_at",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).expect("the README")
}

/// A block between fences: what its first fence says, and its text.
struct Block {
    info: String,
    text: String,
}

fn blocks(markdown: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for line in markdown.lines() {
        match (line.strip_prefix("```"), open.take()) {
            (Some(_), Some(block)) => blocks.push(block),
            (Some(info), None) => open = Some(Block { info: info.to_owned(), text: String::new() }),
            (None, Some(mut block)) => {
                block.text.push_str(line);
                block.text.push('\n');
                open = Some(block);
            }
            (None, None) => {}
        }
    }
    assert!(open.is_none(), "a fence is not closed");
    blocks
}

fn run(program: &str, args: &[&str], text: &str, server: &ServerProcess) -> String {
    let text = text.replace("localhost:8080", &server.address);
    let output = Command::new(program).args(args).arg(&text).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is needed to test the README: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{text}\nended with {}: {stderr}", output.status);
    String::from_utf8(output.stdout).expect("an answer in UTF-8")
}

/// Two answers are alike if they differ in nothing but what belongs to the moment.
fn assert_alike(shown: &Value, answered: &Value, at: &str) {
    match (shown, answered) {
        (Value::Object(shown), Value::Object(answered)) => {
            let names = |map: &serde_json::Map<String, Value>| map.keys().cloned().collect::<Vec<_>>();
            assert_eq!(names(shown), names(answered), "members of {at}");
            for (name, value) in shown {
                if !OF_THE_MOMENT.contains(&name.as_str()) {
                    assert_alike(value, &answered[name], &format!("{at}/{name}"));
                }
            }
        }
        (Value::Array(shown), Value::Array(answered)) => {
            assert_eq!(shown.len(), answered.len(), "length of {at}");
            for (index, (shown, answered)) in shown.iter().zip(answered).enumerate() {
                assert_alike(shown, answered, &format!("{at}/{index}"));
            }
        }
        _ => assert_eq!(shown, answered, "{at}"),
    }
}

#[test]
fn its_commands_answer_what_it_shows() {
    let server = ServerProcess::start();
    let readme = readme();
    let mut blocks = blocks(&readme).into_iter().peekable();
    let mut tested = 0;
    while let Some(block) = blocks.next() {
        let (program, args): (&str, &[&str]) = match block.info.as_str() {
            "bash test" => ("bash", &["-euo", "pipefail", "-c"]),
            "python test" => ("python3", &["-c"]),
            _ => continue,
        };
        let answered = run(program, args, &block.text, &server);
        let shown = blocks.next_if(|next| matches!(next.info.as_str(), "json" | "text"));
        let shown = shown.unwrap_or_else(|| panic!("no answer is shown of\n{}", block.text));
        if shown.info == "json" {
            let parse = |text: &str| -> Value {
                serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}:\n{text}"))
            };
            assert_alike(&parse(&shown.text), &parse(&answered), &block.text);
        } else {
            assert_eq!(shown.text, answered, "{}", block.text);
        }
        tested += 1;
    }
    assert!(tested > 10, "only {tested} blocks are marked as tests");
}

/// The rows of the table of settings: key and default.
fn settings() -> Vec<(String, Option<String>)> {
    let readme = readme();
    let (_, section) = readme.split_once("\n## Configuration\n").expect("the section on configuration");
    let section = section.split("\n## ").next().unwrap_or(section);
    let rows = section.lines().filter_map(|line| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let key = cells.next()?.strip_suffix('`')?;
        let default = cells.next()?.strip_prefix('`').and_then(|cell| cell.strip_suffix('`'));
        Some((key.to_owned(), default.map(str::to_owned)))
    });
    rows.collect()
}

#[test]
fn its_settings_are_the_servers() {
    let Value::Object(known) = serde_json::to_value(Config::default()).expect("settings as JSON") else {
        panic!("settings are an object");
    };
    let mut listed: Vec<String> = settings().into_iter().map(|(key, _)| key).collect();
    listed.sort_unstable();
    let mut known: Vec<String> = known
        .iter()
        .flat_map(|(key, value)| match value {
            Value::Object(table) => table.keys().map(|inner| format!("{key}.{inner}")).collect(),
            _ => vec![key.clone()],
        })
        .collect();
    known.sort_unstable();
    assert_eq!(listed, known);
}

#[test]
fn its_defaults_are_the_servers() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("feature-store.toml");
    let lines = settings().into_iter().map(|(key, default)| match default {
        Some(default) => format!("{key} = {default}\n"),
        None => String::new(),
    });
    std::fs::write(&file, lines.collect::<String>()).expect("a file");
    let config =
        Config::load_from(Some(&file), std::iter::empty()).expect("the defaults as the README has them");
    let json = |config: &Config| serde_json::to_value(config).expect("settings as JSON");
    assert_eq!(json(&config), json(&Config::default()));
}

fn example(name: &str, server: &ServerProcess) -> Command {
    let mut command = Command::new("python3");
    command.arg("-B").arg(root().join("examples/python").join(name));
    command.arg(format!("http://{}", server.address));
    command
}

#[test]
fn the_python_examples_run() {
    let server = ServerProcess::start();
    let mut examples = vec!["first_steps.py"];
    let pandas = Command::new("python3").args(["-c", "import pandas"]).output().expect("python3 is there");
    if pandas.status.success() {
        examples.push("columns_to_dataframe.py");
    }
    for name in examples {
        let output = example(name, &server).output().expect("python3 is there");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
