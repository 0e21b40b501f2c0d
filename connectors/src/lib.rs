//! Connectors: where Millstream's rows come from and where its results go.
//!
//! ```text
//! WITH (connector = 'files', …)  ─ open_source ─▶ Source ─▶ PartitionReader ─▶ Split ─▶ rows and bad rows
//! WITH (connector = 'console')   ─ open_sink ───▶ Sink
//! CREATE TABLE … WITH (…)        ─ read_table ──▶ all rows at once, again and again with a `refresh_interval`
//! ```
//!
//! Reading order: [`files`] and [`socket`] cut bytes into splits, `format` makes rows of them, [`generate`] and
//! [`nexmark`] make rows of nothing, [`push`] takes those of the program around it, [`sinks`] print and write. `options`
//! is how all of them read their `WITH` clause.
//!
//! A row that cannot be used never vanishes: it is handed on as a `BadRow` with its place, text and reason, and the
//! engine decides by the stream's `bad_data` what becomes of it.

mod choice;
pub mod files;
mod format;
pub mod generate;
pub mod nexmark;
mod numbered;
mod options;
pub mod push;
mod refreshed;
pub mod sinks;
pub mod socket;
mod state;
mod table;

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::SchemaRef;
use millstream_engine::plan::{StreamDefinition, WithOption};
use millstream_engine::sink::Sink;
use millstream_engine::source::Source;
use millstream_engine::{Error, Result};

use files::FilesSource;
use generate::GenerateSource;
use nexmark::NexmarkSource;
use push::PushSource;
use refreshed::VersionSource;
use socket::SocketSource;

pub use refreshed::CurrentTable;
pub use sinks::ViewSink;
pub use sinks::check as check_sink;
pub use state::state_table;
pub use table::{TableRows, read_table};

const SOURCES: [&str; 5] = ["files", "generate", "nexmark", "push", "socket"];

/// Makes the source that the options of a stream, or of a table that is read again, describe; nothing is read or
/// connected yet.
///
/// # Errors
/// Fails for a connector that is unknown or missing and for options that it does not take; the error has a hint.
pub fn open_source(definition: &Arc<StreamDefinition>) -> Result<Arc<dyn Source>> {
    if let Some(interval) = definition.refresh {
        let interval = Duration::from_nanos(interval.0.unsigned_abs());
        return Ok(Arc::new(VersionSource::new(Arc::clone(definition), interval)));
    }
    Ok(match connector(&definition.options) {
        Some("files") => Arc::new(FilesSource::new(definition)?),
        Some("socket") => Arc::new(SocketSource::new(definition)?),
        Some("generate") => Arc::new(GenerateSource::new(definition)?),
        Some("nexmark") => Arc::new(NexmarkSource::new(definition)?),
        Some("push") => {
            PushSource::new(definition)?;
            let message = format!("stream {:?} takes rows that a program pushes, and here is none", definition.name);
            return Err(Error::query(message, "embed the engine in the program, or take another connector"));
        }
        other => {
            let relation = format!("stream {:?}", definition.name);
            return Err(unknown_connector(&relation, other, &definition.options, &SOURCES));
        }
    })
}

/// Checks the options of a stream without a source being made.
///
/// # Errors
/// Fails as [`open_source`] does; for connector `push` only if an option is wrong.
pub fn check_source(definition: &Arc<StreamDefinition>) -> Result<()> {
    match connector(&definition.options) {
        Some("push") => PushSource::new(definition).map(drop),
        _ => open_source(definition).map(drop),
    }
}

/// Whether the rows of a stream are pushed by the program around the engine.
pub fn is_pushed(definition: &StreamDefinition) -> bool {
    connector(&definition.options) == Some("push")
}

/// Makes the sink `name` for rows of `schema`.
///
/// # Errors
/// Fails as [`open_source`] does, and if a destination cannot be prepared.
pub fn open_sink(name: &str, options: &[WithOption], schema: SchemaRef) -> Result<Box<dyn Sink>> {
    sinks::open(name, options, schema)
}

/// The value of the option `connector`.
fn connector(options: &[WithOption]) -> Option<&str> {
    options.iter().find(|option| option.key == "connector").map(|option| option.value.trim())
}

fn unknown_connector(relation: &str, connector: Option<&str>, given: &[WithOption], known: &[&str]) -> Error {
    let list = known.join(", ");
    let Some(connector) = connector else {
        if let Some(option) = options::misspelt(given, "connector") {
            let message = format!("{relation}: unknown option {:?}", option.key);
            return Error::query(message, "did you mean \"connector\"?").at(option.location);
        }
        return Error::query(format!("{relation} has no connector"), format!("add connector = '…', one of: {list}"));
    };
    let message = format!("{relation}: unknown connector {connector:?}");
    match options::nearest(connector, known.iter().copied()) {
        Some(nearest) => Error::query(message, format!("did you mean {nearest:?}? there are: {list}")),
        None => Error::query(message, format!("there are: {list}")),
    }
}
