//! Where results go: the console, files, databases, or nowhere.
//!
//! | connector | options |
//! |---|---|
//! | `console` | `format` = table, csv or json (table); `color` = true or false (false) |
//! | `files` | `path`, a folder; `format` = csv, json or parquet (csv); `compact`, a size, and `compact_after` (1 minute) |
//! | `delta` | `path`, the folder of a Delta Lake table |
//! | `sqlite` | `path`, a file; `table` (the sink's name); `mode` = append or upsert (append); `key`, for upsert |
//! | `postgres` | `url`; `table`, `mode` and `key` as for `sqlite` |
//! | `webhook` | `url`; `authorization`; `max_rows` of a request (1000); `timeout` of its answer (10 seconds) |
//! | `blackhole` | |

mod blackhole;
mod console;
mod delta;
mod files;
mod postgres;
mod relation;
mod sqlite;
mod staged;
mod table;
mod text;
mod view;
mod webhook;

use std::num::NonZeroUsize;
use std::time::Duration;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::common::runtime::SpawnedTask;
use millstream_engine::durable::{FullDisk, ROOM_PAUSE};
use millstream_engine::plan::WithOption;
use millstream_engine::sink::Sink;
use millstream_engine::{Error, Result};

pub use blackhole::BlackholeSink;
pub use console::{ConsoleSink, Format, OutputClosed, is_output_closed};
pub use delta::DeltaSink;
pub use files::{Compaction, FileFormat, FilesSink};
pub use postgres::PostgresSink;
pub use sqlite::SqliteSink;
pub use view::ViewSink;
pub use webhook::WebhookSink;

use crate::options::{Options, nearest};
use relation::Relation;

/// The connectors that take results.
const CONNECTORS: [&str; 7] = ["console", "files", "delta", "sqlite", "postgres", "webhook", "blackhole"];

/// The age from which small files are put together.
const COMPACT_AFTER: Duration = Duration::from_secs(60);

/// The rows that one web request has at the most, and how long its answer may take.
const REQUEST_ROWS: usize = 1000;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What the options of a sink ask for.
enum Destination<'a> {
    Console { format: Format, is_colored: bool },
    Files { path: &'a str, format: FileFormat, compaction: Option<Compaction> },
    Delta { path: &'a str },
    Sqlite { path: &'a str, relation: Relation },
    Postgres { config: Box<tokio_postgres::Config>, relation: Relation },
    Webhook(webhook::Target),
    Blackhole,
}

/// Opens the sink `name` that its options ask for; it takes rows of `schema`.
///
/// # Errors
/// Fails on an unknown connector or option, and if the destination cannot be made.
pub fn open(name: &str, options: &[WithOption], schema: SchemaRef) -> Result<Box<dyn Sink>> {
    Ok(match destination(name, options)? {
        Destination::Console { format, is_colored } => {
            let sink = ConsoleSink::new(std::io::stdout(), format, schema);
            Box::new(if is_colored { sink.colored() } else { sink })
        }
        Destination::Files { path, format, compaction } => {
            let sink = FilesSink::new(path, format, schema);
            Box::new(match compaction {
                Some(compaction) => sink.compacted(compaction),
                None => sink,
            })
        }
        Destination::Delta { path } => Box::new(DeltaSink::new(path, schema)?),
        Destination::Sqlite { path, relation } => Box::new(SqliteSink::new(path, relation, schema)?),
        Destination::Postgres { config, relation } => Box::new(PostgresSink::new(*config, relation, schema)?),
        Destination::Webhook(target) => Box::new(WebhookSink::new(target)?),
        Destination::Blackhole => Box::new(BlackholeSink::new()),
    })
}

/// Checks the options of the sink `name`; nothing is opened or made.
///
/// # Errors
/// Fails on an unknown connector or option.
pub fn check(name: &str, options: &[WithOption]) -> Result<()> {
    destination(name, options).map(|_| ())
}

fn destination<'a>(name: &str, options: &'a [WithOption]) -> Result<Destination<'a>> {
    let Some(connector) = options.iter().find(|option| option.key == "connector") else {
        let message = format!("sink {name:?} does not say where its rows go");
        return Err(Error::query(message, format!("add connector = '{}'", CONNECTORS.join("' or '"))));
    };
    match connector.value.to_ascii_lowercase().as_str() {
        "console" => console_options(options),
        "files" => files_options(options),
        "delta" => delta_options(options),
        "sqlite" => sqlite_options(name, options),
        "postgres" => postgres_options(name, options),
        "webhook" => webhook_options(options),
        "blackhole" => {
            Options::new("blackhole", options)?.finish()?;
            Ok(Destination::Blackhole)
        }
        _ => Err(unknown(name, &connector.value)),
    }
}

fn console_options(options: &[WithOption]) -> Result<Destination<'_>> {
    let mut options = Options::new("console", options)?;
    let formats = [("table", Format::Table), ("csv", Format::Csv), ("json", Format::Json)];
    let format = options.choice("format", &formats)?.unwrap_or(Format::Table);
    let is_colored = options.boolean("color")?.unwrap_or(false);
    options.finish()?;
    Ok(Destination::Console { format, is_colored })
}

fn files_options(options: &[WithOption]) -> Result<Destination<'_>> {
    let mut options = Options::new("files", options)?;
    let path = options.required("path", "results")?;
    let formats = [("csv", FileFormat::Csv), ("json", FileFormat::Json), ("parquet", FileFormat::Parquet)];
    let format = options.choice("format", &formats)?.unwrap_or(FileFormat::Csv);
    let bytes = options.size("compact")?;
    let age = options.duration("compact_after")?;
    options.finish()?;
    let compaction = match (bytes, age) {
        (None, None) => None,
        (None, Some(_)) => {
            let message = "option compact_after says when to put files together, and nothing says that they are to be";
            return Err(Error::query(message, "add compact = '32 MiB', the size of a file that is large enough"));
        }
        (Some(bytes), age) => Some(Compaction { bytes, age: age.unwrap_or(COMPACT_AFTER) }),
    };
    Ok(Destination::Files { path, format, compaction })
}

fn delta_options(options: &[WithOption]) -> Result<Destination<'_>> {
    let mut options = Options::new("delta", options)?;
    let path = options.required("path", "results")?;
    options.finish()?;
    if path.contains("://") {
        let message = format!("option path is {path:?}, and Delta tables are written to local folders only");
        return Err(Error::query(message, "name a folder"));
    }
    Ok(Destination::Delta { path })
}

fn sqlite_options<'a>(name: &str, options: &'a [WithOption]) -> Result<Destination<'a>> {
    let mut options = Options::new("sqlite", options)?;
    let path = options.required("path", "results.db")?;
    let relation = Relation::from_options(&mut options, name)?;
    options.finish()?;
    Ok(Destination::Sqlite { path, relation })
}

fn postgres_options<'a>(name: &str, options: &'a [WithOption]) -> Result<Destination<'a>> {
    let mut options = Options::new("postgres", options)?;
    let url = options.required("url", "postgres://user:password@host:5432/database")?;
    let config = Box::new(postgres::parse_url(url)?);
    let relation = Relation::from_options(&mut options, name)?;
    options.finish()?;
    Ok(Destination::Postgres { config, relation })
}

fn webhook_options(options: &[WithOption]) -> Result<Destination<'_>> {
    let mut options = Options::new("webhook", options)?;
    let url = webhook::parse_url(options.required("url", "https://alerts.example/hook")?)?;
    let authorization = options.string("authorization").map(webhook::parse_authorization).transpose()?;
    let max_rows = options.number::<NonZeroUsize>("max_rows", "a whole number of rows above 0")?;
    let timeout = options.duration("timeout")?.unwrap_or(REQUEST_TIMEOUT);
    options.finish()?;
    let max_rows = max_rows.map_or(REQUEST_ROWS, NonZeroUsize::get);
    Ok(Destination::Webhook(webhook::Target { url, authorization, max_rows, timeout }))
}

/// Does what may block on a thread that may.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    SpawnedTask::spawn_blocking(work)
        .join()
        .await
        .map_err(|error| Error::internal(format!("a sink stopped: {error}")))?
}

/// Does work that may find the disk full, and again until there is room for it; the query pauses meanwhile.
///
/// # Errors
/// Any other failure of `work`.
fn when_there_is_room<T>(mut work: impl FnMut() -> Result<T>) -> Result<T> {
    let mut full_disk = FullDisk::new("the sink");
    loop {
        match work() {
            Err(error) if error.is_disk_full() => {
                full_disk.say(&error);
                std::thread::sleep(ROOM_PAUSE);
            }
            other => return other,
        }
    }
}

/// The error of a writer whose place another one has taken.
fn taken_over(destination: &str) -> Error {
    let message = format!("{destination}: a newer run of this query has taken over");
    Error::state(message, "stop one of the two; only the newer one writes")
}

/// The error of a sink that is used before its begin, or after a failure.
fn not_begun(connector: &str) -> Error {
    Error::internal(format!("the {connector} sink takes rows before its begin"))
}

fn unknown(name: &str, connector: &str) -> Error {
    let known = format!("the connectors are {}", CONNECTORS.join(", "));
    let hint = match nearest(connector, CONNECTORS.into_iter()) {
        Some(near) => format!("did you mean {near:?}? {known}"),
        None => known,
    };
    Error::query(format!("sink {name:?} has the unknown connector {connector:?}"), hint)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::datatypes::Schema;

    use millstream_engine::sink::SinkWriter;

    use super::*;

    /// The writer of a query in a term.
    pub(super) fn writer(query: &str, term: u64) -> SinkWriter {
        SinkWriter { query: query.to_owned(), term }
    }

    fn open_with(options: &[(&str, &str)]) -> Result<Box<dyn Sink>> {
        let options: Vec<_> = options.iter().map(|(key, value)| WithOption::new(key, value, None)).collect();
        open("results", &options, Arc::new(Schema::empty()))
    }

    #[test]
    fn every_connector_opens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new").display().to_string();
        assert!(open_with(&[("connector", "console"), ("format", "json"), ("color", "true")]).is_ok());
        assert!(open_with(&[("connector", "files"), ("path", &path), ("format", "parquet")]).is_ok());
        assert!(open_with(&[("connector", "sqlite"), ("path", &path), ("table", "t")]).is_ok());
        assert!(open_with(&[("connector", "postgres"), ("url", "postgres://me@127.0.0.1/db")]).is_ok());
        assert!(open_with(&[("connector", "webhook"), ("url", "https://alerts.example/hook")]).is_ok());
        assert!(open_with(&[("connector", "blackhole")]).is_ok());
        assert!(!folder.path().join("new").exists(), "nothing is made before the begin");
    }

    #[test]
    fn a_key_belongs_to_an_upsert() {
        let error = open_with(&[("connector", "sqlite"), ("path", "x"), ("mode", "upsert")]).unwrap_err();
        assert_eq!(error.to_string(), "sink \"results\" has mode = 'upsert' and no key");
        let error = open_with(&[("connector", "sqlite"), ("path", "x"), ("key", "a")]).unwrap_err();
        assert_eq!(error.to_string(), "sink \"results\" has a key and appends");
        let upsert = [("connector", "sqlite"), ("path", "x"), ("mode", "upsert"), ("key", "a, b")];
        assert_eq!(open_with(&upsert).unwrap_err().to_string(), "the key column \"a\" is no column of the result");
    }

    #[test]
    fn an_unknown_connector_is_refused_with_the_nearest_one() {
        let error = open_with(&[("connector", "file")]).unwrap_err();
        assert_eq!(error.to_string(), "sink \"results\" has the unknown connector \"file\"");
        assert_eq!(
            error.hint(),
            Some(
                "did you mean \"files\"? the connectors are console, files, delta, sqlite, postgres, webhook, blackhole"
            )
        );
        assert!(open_with(&[]).is_err());
        assert!(open_with(&[("connector", "blackhole"), ("path", "x")]).is_err());
    }
}
