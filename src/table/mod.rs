//! Tables as bytes: the formats in which features leave and enter in bulk. Between the formats and
//! the rest of the server stands Arrow's `RecordBatch`.

pub mod cells;
pub mod columns;
pub mod given;
pub mod json_columns;
pub mod keys;
pub mod read;
pub mod write;

/// A format of tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    Parquet,
    /// An Arrow IPC stream.
    Arrow,
    Csv,
    /// One JSON object a line.
    Ndjson,
    Json,
}

impl Format {
    pub const ALL: [Self; 5] = [Self::Parquet, Self::Arrow, Self::Csv, Self::Ndjson, Self::Json];

    pub fn name(self) -> &'static str {
        match self {
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
            Self::Csv => "csv",
            Self::Ndjson => "ndjson",
            Self::Json => "json",
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::Parquet => "application/vnd.apache.parquet",
            Self::Arrow => "application/vnd.apache.arrow.stream",
            Self::Csv => "text/csv; charset=utf-8",
            Self::Ndjson => "application/x-ndjson",
            Self::Json => "application/json",
        }
    }

    /// The format that the ending of a file's name tells.
    pub fn from_ending(file: &std::path::Path) -> Option<Self> {
        match file.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "arrows" | "ipc" => Some(Self::Arrow),
            "jsonl" => Some(Self::Ndjson),
            ending => Self::from_name(ending),
        }
    }

    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|format| format.name() == name)
    }

    /// The format that a `Content-Type` or one item of `Accept` names, parameters aside.
    pub fn from_media_type(text: &str) -> Option<Self> {
        let essence = |text: &str| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let wanted = essence(text);
        match wanted.as_str() {
            "application/ndjson" | "application/jsonl" | "application/x-jsonlines" => Some(Self::Ndjson),
            "application/parquet" | "application/x-parquet" => Some(Self::Parquet),
            _ => Self::ALL.into_iter().find(|format| essence(format.media_type()) == wanted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_found_by_name_by_ending_and_by_media_type() {
        for format in Format::ALL {
            assert_eq!(Format::from_name(format.name()), Some(format));
            assert_eq!(Format::from_media_type(format.media_type()), Some(format));
        }
        assert_eq!(Format::from_media_type("Text/CSV"), Some(Format::Csv));
        assert_eq!(Format::from_media_type("application/ndjson; charset=utf-8"), Some(Format::Ndjson));
        assert_eq!(Format::from_media_type("text/html"), None);
        for (file, format) in
            [("a.b.CSV", Some(Format::Csv)), ("x.jsonl", Some(Format::Ndjson)), ("csv", None)]
        {
            assert_eq!(Format::from_ending(file.as_ref()), format);
        }
    }
}
