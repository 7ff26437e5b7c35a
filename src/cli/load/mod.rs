//! `feature-store load`: files, sent to a running server one after the other.
//!
//! Exit codes: 0, every row is stored; 1, some rows were rejected; 2, the command line or a file is
//! wrong; 3, the server could not be reached, went away or is not able to; 4, the server refused.
//! After 3 the same load may be repeated: rows that are there already are `unchanged`.

mod answer;
mod progress;
mod rejects;
mod upload;

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use serde_json::Value;

use self::answer::{Answer, Report, follow};
use self::progress::Progress;
use self::rejects::Rejects;
use self::upload::Input;
use super::Failure;
use super::client::{Client, Server};
use crate::config::Config;
use crate::table::Format;

/// So many rejected rows the server lists at most.
const MOST_LISTED: u64 = 10_000;
/// So many are shown where no file of them is asked for.
const SHOWN: u64 = 10;

#[derive(Debug, Args)]
pub struct Options {
    /// Tables to import: Parquet, Arrow stream, CSV, JSON lines or JSON; `-` is standard input.
    #[arg(required_unless_present = "from_stdin", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Read one table from standard input; needs `--format`.
    #[arg(long, conflicts_with = "files")]
    from_stdin: bool,
    /// The format of the tables (default: what the ending of each file says).
    #[arg(long, value_enum)]
    format: Option<FormatArg>,
    /// The entity type of all rows.
    #[arg(long, value_name = "TYPE")]
    entity_type: String,
    /// The column of the entity ids (default: entity_id).
    #[arg(long, value_name = "COLUMN")]
    id_column: Option<String>,
    /// The column of the event times (default: event_timestamp, where there is one).
    #[arg(long, value_name = "COLUMN")]
    timestamp_column: Option<String>,
    /// What event times that are whole numbers count since 1970: s, ms, us or ns.
    #[arg(long, value_name = "UNIT")]
    timestamp_unit: Option<String>,
    /// Columns to import, with the names of their features where they differ: price,title:name.
    #[arg(long, value_name = "COLUMNS")]
    columns: Option<String>,
    /// What a null cell does: skip leaves the feature as it is, write writes null.
    #[arg(long, value_name = "skip|write")]
    nulls: Option<String>,
    /// What a float cell that is not a number does: reject its row, or be taken as null.
    #[arg(long, value_name = "reject|null")]
    nan: Option<String>,
    /// The ttl of everything imported: seconds, text such as 1h, or never.
    #[arg(long)]
    ttl: Option<String>,
    /// The system or pipeline that the rows come from.
    #[arg(long)]
    source: Option<String>,
    /// The run of that pipeline.
    #[arg(long)]
    run_id: Option<String>,
    /// Where to write the rejected rows, as JSON lines of file, row, entity_id and errors.
    #[arg(long, value_name = "FILE")]
    rejects: Option<PathBuf>,
    /// So many rejected rows of a table are listed, at most 10000.
    #[arg(long, value_name = "N")]
    max_rejections: Option<u64>,
    /// Have the server import in jobs, and print their addresses instead of waiting for them.
    #[arg(long = "async", conflicts_with = "rejects")]
    in_background: bool,
    /// Show no progress. It is never shown where standard error is no terminal.
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    server: Server,
}

/// The name of a format, on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum FormatArg {
    Parquet,
    Arrow,
    Csv,
    Ndjson,
    Json,
}

impl From<FormatArg> for Format {
    fn from(name: FormatArg) -> Self {
        match name {
            FormatArg::Parquet => Self::Parquet,
            FormatArg::Arrow => Self::Arrow,
            FormatArg::Csv => Self::Csv,
            FormatArg::Ndjson => Self::Ndjson,
            FormatArg::Json => Self::Json,
        }
    }
}

pub fn run(config: &Config, options: &Options) -> Result<(), Failure> {
    let client = options.server.client(config)?;
    let mut files: Vec<&Path> = options.files.iter().map(PathBuf::as_path).collect();
    if options.from_stdin {
        files.push(Path::new(upload::STDIN));
    }
    if files.iter().filter(|file| **file == Path::new(upload::STDIN)).count() > 1 {
        return Err(Failure::usage("standard input is one table: name it once"));
    }
    // All of them before the first is sent: a name that is wrong should not cost half a load.
    let inputs = files.into_iter().map(|file| Input::open(file, options.format.map(Format::from)));
    let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
    let rejects = options.rejects.as_deref().map(Rejects::create).transpose()?;
    let runtime = super::runtime()?;
    let result = runtime.block_on(load(&client, options, inputs, rejects));
    // Whoever writes to standard input may have no end, and is not waited for after an early answer.
    runtime.shutdown_background();
    result
}

async fn load(
    client: &Client,
    options: &Options,
    inputs: Vec<Input>,
    mut rejects: Option<Rejects>,
) -> Result<(), Failure> {
    let (count, mut rejected) = (inputs.len(), 0);
    for (place, input) in inputs.into_iter().enumerate() {
        let name = input.name().to_owned();
        let progress = Progress::new(&input, options.quiet || options.in_background);
        let request = upload::request(input, &query(options), options.in_background, &progress)?;
        let answer = follow(client, request, &progress).await;
        progress.clear();
        let report = match answer {
            Ok(Answer::Report(report)) => report,
            Ok(Answer::Job(location)) => {
                super::print(&format!("{name}: {}{location}", client.base()))?;
                continue;
            }
            Err(failure) => {
                let failure = failure.about(format!("{name}: "));
                let failure = match failure.may_pass() {
                    true => failure.and("what was stored stays, and the load may be repeated"),
                    false => failure,
                };
                return Err(match place {
                    0 => failure,
                    _ => failure.and(format!("the tables before it, {place} of {count}, are loaded")),
                });
            }
        };
        super::print(&format!("{name}: {}", report.summary(progress.elapsed())))?;
        rejected += report.rejected;
        tell_rejections(&name, &report, rejects.as_mut())?;
    }
    match rejected {
        0 => Ok(()),
        1 => Err(Failure::partly("1 row was rejected")),
        more => Err(Failure::partly(format!("{} rows were rejected", progress::number(more)))),
    }
}

/// Rejections go to their file, else some of them to standard error.
fn tell_rejections(name: &str, report: &Report, rejects: Option<&mut Rejects>) -> Result<(), Failure> {
    let listed = report.rejections.len() as u64;
    let place = match rejects {
        Some(rejects) => {
            rejects.write(name, &report.rejections)?;
            format!("listed in {}", rejects.path().display())
        }
        None => {
            let shown = report.rejections.iter().take(SHOWN as usize);
            shown.for_each(|rejection| eprintln!("  {}", rejects::line(rejection)));
            "shown".to_owned()
        }
    };
    if report.rejected > listed {
        eprintln!(
            "  only the first {} of {} rejected rows are {place}: load again when these are put right, or split the table",
            progress::number(listed),
            progress::number(report.rejected)
        );
    }
    Ok(())
}

/// The parameters of the import, as its URL has them.
fn query(options: &Options) -> Vec<(&'static str, String)> {
    let listed =
        options.max_rejections.unwrap_or(if options.rejects.is_some() { MOST_LISTED } else { SHOWN });
    let given = [
        ("entity_type", Some(&options.entity_type)),
        ("id_column", options.id_column.as_ref()),
        ("timestamp_column", options.timestamp_column.as_ref()),
        ("timestamp_unit", options.timestamp_unit.as_ref()),
        ("columns", options.columns.as_ref()),
        ("nulls", options.nulls.as_ref()),
        ("nan", options.nan.as_ref()),
        ("ttl", options.ttl.as_ref()),
        ("source", options.source.as_ref()),
        ("run_id", options.run_id.as_ref()),
    ];
    let mut query: Vec<_> =
        given.into_iter().filter_map(|(name, value)| Some((name, value?.clone()))).collect();
    query.push(("max_rejections", listed.to_string()));
    query
}

/// A member of an answer that is a count; 0 where there is none.
fn count(value: &Value, name: &str) -> u64 {
    value.get(name).and_then(Value::as_u64).unwrap_or(0)
}
