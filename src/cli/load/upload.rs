//! A table on its way to the server.

use std::path::{Path, PathBuf};

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::{Request, header};
use tokio::fs::File;
use tokio::io::AsyncReadExt;

use super::progress::Progress;
use crate::cli::Failure;
use crate::cli::file::{at, standard};
use crate::table::Format;
use crate::table::read::parquet_rows;

/// What stands for standard input.
pub const STDIN: &str = "-";
/// So many bytes are sent at a time.
const PIECE: usize = 64 << 10;

/// A table that is there to be sent.
pub struct Input {
    path: PathBuf,
    file: Option<std::fs::File>,
    format: Format,
    /// `None`: nobody knows before the end.
    pub bytes: Option<u64>,
    /// Only where the format tells.
    pub rows: Option<u64>,
}

impl Input {
    pub fn open(path: &Path, format: Option<Format>) -> Result<Self, Failure> {
        let format = format.or_else(|| Format::from_ending(path)).ok_or_else(|| {
            let known = Format::ALL.map(Format::name).join(", ");
            Failure::usage(format!("{}: say which --format this is: {known}", path.display()))
        })?;
        if path == Path::new(STDIN) {
            return Ok(Self { path: path.to_owned(), file: None, format, bytes: None, rows: None });
        }
        let failed = |error| at(path, &error);
        let file = std::fs::File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(Failure::usage(format!("{} is a directory", path.display())));
        }
        let bytes = metadata.is_file().then_some(metadata.len());
        // What is no Parquet is for the server to refuse.
        let rows = match format {
            Format::Parquet => std::fs::File::open(path).ok().and_then(|file| parquet_rows(file).ok()),
            Format::Arrow | Format::Csv | Format::Ndjson | Format::Json => None,
        };
        Ok(Self { path: path.to_owned(), file: Some(file), format, bytes, rows })
    }

    pub fn name(&self) -> &str {
        if self.file.is_none() { "standard input" } else { self.path.to_str().unwrap_or("a file") }
    }
}

/// The request that sends a table.
pub fn request(
    input: Input,
    query: &[(&str, String)],
    in_background: bool,
    progress: &Progress,
) -> Result<Request<Body>, Failure> {
    let pairs = query.iter().map(|(name, value)| format!("{name}={}", escaped(value)));
    let mut path = format!("/v1/features/import?{}", pairs.collect::<Vec<_>>().join("&"));
    if in_background {
        path += "&async=true";
    }
    let mut request = Request::post(path)
        .header(header::CONTENT_TYPE, input.format.media_type())
        .header(header::ACCEPT, "application/x-ndjson, application/json;q=0.5");
    if let Some(bytes) = input.bytes {
        request = request.header(header::CONTENT_LENGTH, bytes);
    }
    let file = match input.file {
        Some(file) => file,
        None => standard(&std::io::stdin())?,
    };
    request.body(Body::from_stream(pieces(file.into(), progress.sent()))).map_err(Failure::usage)
}

fn pieces(
    file: File,
    sent: impl Fn(u64) + Send + 'static,
) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send {
    futures::stream::try_unfold((file, sent), |(mut file, sent)| async move {
        let mut piece = BytesMut::with_capacity(PIECE);
        let taken = file.read_buf(&mut piece).await?;
        sent(taken as u64);
        Ok((taken > 0).then(|| (piece.freeze(), (file, sent))))
    })
}

/// Text as a part of a query.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => escaped.push(byte.into()),
            other => escaped += &format!("%{other:02X}"),
        }
    }
    escaped
}
