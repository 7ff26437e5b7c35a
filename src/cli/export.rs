//! `feature-store export`: a table of a running server, kept as a file once it is whole.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::body::Body;
use clap::{Args, ValueEnum};
use http::{Request, header};
use http_body_util::BodyExt;
use indicatif::{HumanBytes, ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use super::Failure;
use super::client::{Client, Server};
use super::file::{Unfinished, standard};
use super::load::FormatArg;
use crate::config::Config;
use crate::table::Format;

#[derive(Debug, Args)]
pub struct Options {
    /// What to export.
    #[arg(value_name = "ENTITY_TYPE")]
    entity_type: String,
    /// Where to; `-` (the default) is standard output, and needs `--format`.
    #[arg(long, short, value_name = "FILE", default_value = "-")]
    output: PathBuf,
    /// The format of the table (default: what the ending of the file says).
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// Which features; all, if neither these nor a feature service are given.
    #[arg(long, value_delimiter = ',', conflicts_with = "feature_service")]
    features: Option<Vec<String>>,
    /// The features of a feature service, as ranking or ranking@2.
    #[arg(long, value_name = "NAME")]
    feature_service: Option<String>,
    /// Only these entities.
    #[arg(long = "entity-id", value_name = "ID")]
    entity_ids: Option<Vec<String>>,
    /// What was true at that time, such as 2026-01-02T00:00:00Z.
    #[arg(long, value_name = "TIME")]
    as_of: Option<String>,
    /// How old by event time a value may be, such as 1d; goes before the schema's.
    #[arg(long, value_name = "SPAN")]
    max_age: Option<String>,
    /// A row for every version that is kept.
    #[arg(long)]
    history: bool,
    /// Columns beside each feature's values.
    #[arg(long, value_delimiter = ',')]
    include: Vec<Column>,
    /// Rows in the order of entity ids.
    #[arg(long)]
    ordered: bool,
    /// Show no progress. It is never shown where standard error is no terminal.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    server: Server,
}

/// A column beside a feature's values, on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "snake_case")]
enum Column {
    EventTimestamp,
    Status,
}

pub fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let client = options.server.client(config)?;
    let output = (options.output != Path::new("-")).then_some(options.output.as_path());
    let format = options.format.map(Format::from).or_else(|| output.and_then(Format::from_ending));
    let format = format.ok_or_else(|| {
        let known = Format::ALL.map(Format::name).join(", ");
        Failure::usage(format!("say which --format is wanted: {known}"))
    })?;
    super::runtime()?.block_on(export(&client, &body(options, format), format, output, options.quiet))
}

/// The export as its request has it.
fn body(options: &Options, format: Format) -> Value {
    let include = options.include.iter().map(|column| match column {
        Column::EventTimestamp => "event_timestamp",
        Column::Status => "status",
    });
    json!({
        "entity_type": options.entity_type,
        "entity_ids": options.entity_ids,
        "features": options.features,
        "feature_service": options.feature_service,
        "as_of": options.as_of,
        "max_age": options.max_age,
        "history": options.history,
        "include": include.collect::<Vec<_>>(),
        "order": options.ordered.then_some("entity_id"),
        "format": format.name(),
    })
}

async fn export(
    client: &Client,
    body: &Value,
    format: Format,
    output: Option<&Path>,
    is_quiet: bool,
) -> Result<(), Failure> {
    let request = Request::post("/v1/features/export").header(header::CONTENT_TYPE, "application/json");
    let request = request.body(Body::from(body.to_string())).map_err(Failure::usage)?;
    let mut table = client.ask(request).await?.into_body();
    let bar = bar(is_quiet);
    let mut end = Ending::default();
    let written = match output {
        Some(path) => {
            let mut file = Unfinished::create(path).await?;
            file.take(client, table, |bytes| {
                end.saw(bytes);
                bar.inc(bytes.len() as u64);
            })
            .await?;
            file.finish(|_| end.check(format)).await
        }
        None => {
            let mut out = File::from_std(standard(&std::io::stdout())?);
            while let Some(frame) = table.frame().await {
                let Ok(bytes) = frame.map_err(|error| client.lost(&error))?.into_data() else { continue };
                end.saw(&bytes);
                bar.inc(bytes.len() as u64);
                out.write_all(&bytes)
                    .await
                    .map_err(|error| Failure::usage(format!("standard output: {error}")))?;
            }
            out.flush().await.map_err(|error| Failure::usage(format!("standard output: {error}")))?;
            end.check(format).map_err(Failure::server)
        }
    };
    let took = bar.elapsed();
    bar.finish_and_clear();
    written?;
    if let Some(path) = output {
        let (bytes, seconds) = (HumanBytes(end.bytes), took.as_secs_f64());
        super::print(&format!("{}: {bytes} in {seconds:.1} s", path.display()))?;
    }
    Ok(())
}

fn bar(is_quiet: bool) -> ProgressBar {
    // Nobody knows how many bytes it will be. Hidden by itself where standard error is no terminal.
    let bar = if is_quiet { ProgressBar::hidden() } else { ProgressBar::new_spinner() };
    if let Ok(style) = ProgressStyle::with_template("{spinner} {bytes}, {bytes_per_sec}, {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// How a table ends, which shows whether it was cut off.
#[derive(Default)]
struct Ending {
    bytes: u64,
    last: Vec<u8>,
}

impl Ending {
    const KEPT: usize = 8;

    fn saw(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.last.extend_from_slice(&bytes[bytes.len().saturating_sub(Self::KEPT)..]);
        let surplus = self.last.len().saturating_sub(Self::KEPT);
        self.last.drain(..surplus);
    }

    fn check(&self, format: Format) -> Result<(), String> {
        let is_whole = match format {
            Format::Parquet => self.last.ends_with(b"PAR1"),
            Format::Arrow => self.last == [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0],
            Format::Json => self.last.ends_with(b"]\n"),
            Format::Csv => self.last.ends_with(b"\n"),
            Format::Ndjson => self.last.is_empty() || self.last.ends_with(b"\n"),
        };
        if is_whole { Ok(()) } else { Err(format!("the export was cut off after {} bytes", self.bytes)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_was_cut_off_is_found_out() {
        let check = |format, pieces: &[&[u8]]| {
            let mut end = Ending::default();
            pieces.iter().for_each(|piece| end.saw(piece));
            end.check(format).is_ok()
        };
        assert!(check(Format::Parquet, &[b"PAR1 and more", b"....PA", b"R1"]));
        assert!(!check(Format::Parquet, &[b"PAR1 and more", b"....PA", b"R"]));
        assert!(check(Format::Arrow, &[b"xxxxxxxxxx\xff\xff\xff\xff\0\0", b"\0\0"]));
        assert!(!check(Format::Arrow, &[b"\xff\xff\xff\xff\0\0\0"]));
        assert!(check(Format::Json, &[b"[]\n"]) && !check(Format::Json, &[b"[\n{}"]));
        assert!(check(Format::Csv, &[b"a\n"]) && !check(Format::Csv, &[]));
        assert!(check(Format::Ndjson, &[]) && !check(Format::Ndjson, &[b"{}\n{"]));
    }
}
