//! `feature-store demo`, as people and CI run it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::readme_server::binary;

fn demo(args: &[&str], temporary: &Path) -> Command {
    let mut command = binary();
    command.arg("demo").args(args).env("TMPDIR", temporary).stdin(Stdio::null());
    command
}

fn is_empty(directory: &Path) -> bool {
    std::fs::read_dir(directory).expect("a directory").next().is_none()
}

#[test]
fn every_step_answers_what_it_should_and_nothing_is_left_behind() {
    let temporary = tempfile::tempdir().expect("a directory");
    let output = demo(&["--exit"], temporary.path()).output().expect("the binary starts");
    let stdout = String::from_utf8_lossy(&output.stdout);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    assert!(stdout.contains("steps answered what they should"), "{stdout}");
    assert!(is_empty(temporary.path()));
}

#[test]
fn the_shop_stays_open_until_it_is_interrupted_and_cleans_up_then() {
    let temporary = tempfile::tempdir().expect("a directory");
    let mut child = demo(&[], temporary.path()).stdout(Stdio::piped()).spawn().expect("the binary starts");
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let stays_open = lines.any(|line| line.is_ok_and(|line| line.contains("The shop stays open")));
    assert!(stays_open);
    assert!(!is_empty(temporary.path()));
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().expect("kill is there");
    assert!(sent.success());
    // What it still has to say must find a reader.
    lines.for_each(drop);
    assert!(child.wait().expect("the demo ends").success());
    assert!(is_empty(temporary.path()));
}
