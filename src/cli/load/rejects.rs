//! The file of rejected rows: a line of JSON each.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::cli::Failure;
use crate::cli::file::at;

pub struct Rejects {
    file: File,
    path: PathBuf,
}

impl Rejects {
    /// In place of an earlier one, so that what is in it is of this load.
    pub fn create(path: &Path) -> Result<Self, Failure> {
        let file = File::create(path).map_err(|error| at(path, &error))?;
        Ok(Self { file, path: path.to_owned() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    pub fn write(&mut self, name: &str, rejections: &[Value]) -> Result<(), Failure> {
        let mut lines = String::new();
        for rejection in rejections {
            let of = |member: &str| rejection.get(member).cloned().unwrap_or(Value::Null);
            let line =
                json!({"file": name, "row": of("row"), "entity_id": of("entity_id"), "errors": of("errors")});
            lines += &format!("{line}\n");
        }
        self.file.write_all(lines.as_bytes()).map_err(|error| at(&self.path, &error))
    }
}

/// A rejected row for people.
pub fn line(rejection: &Value) -> String {
    let mut line = format!("row {}", rejection.get("row").unwrap_or(&Value::Null));
    if let Some(entity_id) = rejection.get("entity_id").and_then(Value::as_str) {
        line += &format!(" ({entity_id})");
    }
    let errors = rejection.get("errors").and_then(Value::as_array).into_iter().flatten();
    let said = errors.map(|error| {
        let of = |member: &str| error.get(member).and_then(Value::as_str);
        let place = of("feature").or(of("pointer")).map(|place| format!("{place}: ")).unwrap_or_default();
        format!("{place}{}", of("message").unwrap_or_default())
    });
    format!("{line}: {}", said.collect::<Vec<_>>().join("; "))
}
