//! Writes the answers of reads and writes as JSON. By hand and not by way of serde: the values of most
//! reads are JSON already, kept by the near cache, and are only copied; and names need no escapes.
//!
//! [`ReadFeaturesResponse`](super::features::ReadFeaturesResponse),
//! [`WriteFeaturesResponse`](super::features::WriteFeaturesResponse),
//! [`ReadBatchResponse`](super::batch::ReadBatchResponse) and
//! [`WriteBatchResponse`](super::batch::WriteBatchResponse) describe what is written here.

use serde::Serialize;

use super::answer::JsonText;
use super::problem::Problem;
use super::values::ValueMetadata;
use crate::domain::name::{EntityId, EntityKey};
use crate::domain::record::Version;
use crate::domain::view::{Answer, Status};
use crate::service::answer::{Cell, EntityAnswer, ReadAnswer, TypeAnswer};
use crate::service::batch::RowResult;
use crate::service::write::Written;

/// Answers in rows, in the order asked for.
pub fn rows(read: &ReadAnswer<Vec<TypeAnswer>>, metadata: bool) -> Result<JsonText, Problem> {
    let cells: usize = read.answer.iter().map(|of_type| of_type.len() * (of_type.columns.width() + 4)).sum();
    let mut json = Writer(Vec::with_capacity(64 + cells * 24));
    json.raw(b"{\"results\":[");
    let mut separator = Separator::default();
    for of_type in &read.answer {
        let judged = metadata.then(|| of_type.judged());
        for row in 0..of_type.len() {
            separator.write(&mut json);
            json.row(of_type, row, judged.as_ref().and_then(|judged| judged.get(row)), read)?;
        }
    }
    json.raw(b"]}");
    Ok(JsonText(json.0))
}

/// The answer of one entity.
pub fn row(read: &ReadAnswer<TypeAnswer>, metadata: bool) -> Result<JsonText, Problem> {
    let mut json = Writer(Vec::with_capacity(192 + read.answer.columns.width() * 32));
    let judged = metadata.then(|| read.answer.judged());
    json.row(&read.answer, 0, judged.as_ref().and_then(|judged| judged.first()), read)?;
    Ok(JsonText(json.0))
}

/// What became of a write of one entity.
pub fn written(entity: &EntityKey, written: &Written) -> Result<JsonText, Problem> {
    let mut json = Writer(Vec::with_capacity(192 + written.outcomes.len() * 32));
    json.start(entity.entity_type.as_str(), &entity.entity_id, written.version)?;
    json.outcomes(written);
    json.raw(b"}");
    Ok(JsonText(json.0))
}

/// What became of the rows of a batch.
pub fn written_rows(ids: &[EntityId], results: Vec<RowResult>) -> Result<JsonText, Problem> {
    let written = results.iter().filter(|result| result.is_ok()).count();
    let cells: usize = results.iter().flatten().map(|written| written.outcomes.len() + 3).sum();
    let mut json = Writer(Vec::with_capacity(64 + cells * 24));
    json.raw(b"{\"written\":");
    json.value(&written)?;
    json.raw(b",\"rejected\":");
    json.value(&(results.len() - written))?;
    json.raw(b",\"results\":[");
    let mut separator = Separator::default();
    for (entity_id, result) in ids.iter().zip(results) {
        separator.write(&mut json);
        json.raw(b"{\"entity_id\":");
        json.value(entity_id)?;
        match result {
            Ok(written) => {
                json.raw(b",\"version\":");
                json.value(&written.version)?;
                json.outcomes(&written);
            }
            Err(error) => {
                json.raw(b",\"error\":");
                json.value(&Problem::of_row(error))?;
            }
        }
        json.raw(b"}");
    }
    json.raw(b"]}");
    Ok(JsonText(json.0))
}

/// Answers in columns, by entity type.
pub fn columns(read: &ReadAnswer<Vec<TypeAnswer>>, metadata: bool) -> Result<JsonText, Problem> {
    let cells: usize =
        read.answer.iter().map(|of_type| (of_type.len() + 2) * (of_type.columns.width() + 4)).sum();
    let mut json = Writer(Vec::with_capacity(64 + cells * 16));
    json.raw(b"{");
    let mut separator = Separator::default();
    for of_type in &read.answer {
        separator.write(&mut json);
        json.name(of_type.columns.entity_type.name().as_str());
        json.columns_of(of_type, metadata, read)?;
    }
    json.raw(b"}");
    Ok(JsonText(json.0))
}

struct Writer(Vec<u8>);

/// Commas between things.
#[derive(Default)]
struct Separator(bool);

impl Separator {
    fn write(&mut self, json: &mut Writer) {
        if std::mem::replace(&mut self.0, true) {
            json.raw(b",");
        }
    }
}

impl Writer {
    fn raw(&mut self, json: &[u8]) {
        self.0.extend_from_slice(json);
    }

    fn value(&mut self, value: &(impl Serialize + ?Sized)) -> Result<(), Problem> {
        serde_json::to_writer(&mut self.0, value).map_err(|error| {
            // A stored JSON document that is no JSON ends up here.
            tracing::error!(%error, "an answer could not be written as JSON");
            Problem::internal()
        })
    }

    /// The name of a member, which needs no escapes: names of entity types and features have none.
    fn name(&mut self, name: &str) {
        self.raw(b"\"");
        self.raw(name.as_bytes());
        self.raw(b"\":");
    }

    fn cell(&mut self, cell: Cell<'_>) -> Result<(), Problem> {
        match cell {
            Cell::Ready(json) => {
                self.raw(json);
                Ok(())
            }
            Cell::Value(value) => self.value(value),
        }
    }

    /// A text that needs no escapes.
    fn word(&mut self, word: &str) {
        self.raw(b"\"");
        self.raw(word.as_bytes());
        self.raw(b"\"");
    }

    /// What the answer of an entity begins with.
    fn start(&mut self, entity_type: &str, entity_id: &EntityId, version: Version) -> Result<(), Problem> {
        self.raw(b"{\"entity_type\":");
        self.word(entity_type);
        self.raw(b",\"entity_id\":");
        self.value(entity_id)?;
        self.raw(b",\"version\":");
        self.value(&version)
    }

    fn outcomes(&mut self, written: &Written) {
        self.raw(b",\"outcomes\":{");
        let mut separator = Separator::default();
        for (name, outcome) in &written.outcomes {
            separator.write(self);
            self.name(name.as_str());
            self.word(outcome.as_str());
        }
        self.raw(b"}");
    }

    fn row<T>(
        &mut self,
        of_type: &TypeAnswer,
        row: usize,
        judged: Option<&EntityAnswer>,
        read: &ReadAnswer<T>,
    ) -> Result<(), Problem> {
        let Some((entity_id, version)) = of_type.head(row) else { return Err(Problem::internal()) };
        self.start(of_type.columns.entity_type.name().as_str(), entity_id, version)?;
        self.raw(b",\"features\":{");
        if let Some(members) = of_type.members(row) {
            members.write(&mut self.0);
            self.raw(b"},\"statuses\":{}");
        } else {
            let mut separator = Separator::default();
            for (column, name) in of_type.columns.names().enumerate() {
                separator.write(self);
                self.name(name.as_str());
                self.cell(of_type.cell(row, column))?;
            }
            self.raw(b"},\"statuses\":{");
            let mut separator = Separator::default();
            for (column, name) in of_type.columns.names().enumerate() {
                let status = of_type.status(row, column);
                if status != Status::Present {
                    separator.write(self);
                    self.name(name.as_str());
                    self.word(status.as_str());
                }
            }
            self.raw(b"}");
        }
        if let Some(judged) = judged {
            self.raw(b",\"metadata\":{");
            let mut separator = Separator::default();
            for (name, answer) in of_type.columns.names().zip(&judged.answers) {
                if let Some(metadata) = metadata_of(answer, read) {
                    separator.write(self);
                    self.name(name.as_str());
                    self.value(&metadata)?;
                }
            }
            self.raw(b"}");
        }
        self.raw(b"}");
        Ok(())
    }

    fn columns_of<T>(
        &mut self,
        of_type: &TypeAnswer,
        metadata: bool,
        read: &ReadAnswer<T>,
    ) -> Result<(), Problem> {
        self.raw(b"{\"entity_ids\":[");
        let mut separator = Separator::default();
        for (entity_id, _) in of_type.heads() {
            separator.write(self);
            self.value(entity_id)?;
        }
        self.raw(b"],\"versions\":[");
        let mut separator = Separator::default();
        for (_, version) in of_type.heads() {
            separator.write(self);
            self.value(&version)?;
        }
        self.raw(b"],\"features\":{");
        self.each_column(of_type, |_| true, |json, row, column| json.cell(of_type.cell(row, column)))?;
        self.raw(b"},\"statuses\":{");
        let rest: Vec<usize> = (0..of_type.len()).filter(|row| of_type.members(*row).is_none()).collect();
        let any = |column| rest.iter().any(|row| of_type.status(*row, column) != Status::Present);
        self.each_column(of_type, any, |json, row, column| {
            json.word(of_type.status(row, column).as_str());
            Ok(())
        })?;
        self.raw(b"}");
        if metadata {
            let judged = of_type.judged();
            self.raw(b",\"metadata\":{");
            self.each_column(
                of_type,
                |_| true,
                |json, row, column| {
                    let answer = judged.get(row).and_then(|entity| entity.answers.get(column));
                    json.value(&answer.and_then(|answer| metadata_of(answer, read)))
                },
            )?;
            self.raw(b"}");
        }
        self.raw(b"}");
        Ok(())
    }

    /// `"price":[…],"stock":[…]`, of the columns wanted.
    fn each_column(
        &mut self,
        of_type: &TypeAnswer,
        wanted: impl Fn(usize) -> bool,
        cell: impl Fn(&mut Self, usize, usize) -> Result<(), Problem>,
    ) -> Result<(), Problem> {
        let mut separator = Separator::default();
        for (column, name) in of_type.columns.names().enumerate().filter(|(column, _)| wanted(*column)) {
            separator.write(self);
            self.name(name.as_str());
            self.raw(b"[");
            for row in 0..of_type.len() {
                if row > 0 {
                    self.raw(b",");
                }
                cell(self, row, column)?;
            }
            self.raw(b"]");
        }
        Ok(())
    }
}

fn metadata_of<'a, T>(answer: &'a Answer, read: &'a ReadAnswer<T>) -> Option<ValueMetadata<'a>> {
    ValueMetadata::of(answer, &read.provenance, read.now)
}
