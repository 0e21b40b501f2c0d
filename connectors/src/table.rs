//! Static tables: a bounded file set or the state of a query, read whole.

use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use millstream_engine::plan::{BadData, StreamDefinition};
use millstream_engine::source::{BadRow, MemoryIndex, Source};
use millstream_engine::{Error, Result};

use crate::files::FilesSource;
use crate::state;

/// The rows of a static table.
#[derive(Debug)]
pub struct TableRows {
    /// The good rows, in the declared schema.
    pub batches: Vec<RecordBatch>,
    /// The rows that could not be used; empty where the table is told to fail on them.
    pub bad: Vec<BadRow>,
}

/// Reads the files of a table to their end.
///
/// # Errors
/// Fails if the connector is neither `files` nor `state` or watches, if a file cannot be read, and on the first bad row if the
/// table says `bad_data = 'fail'`.
pub async fn read_table(definition: &StreamDefinition) -> Result<TableRows> {
    match crate::connector(&definition.options) {
        Some("state") => return state::read(definition).await,
        Some("files") | None => {}
        Some(other) => {
            let message = format!("table {:?} cannot be read from connector {other:?}", definition.name);
            let hint = "use connector = 'files' or 'state', or declare it with CREATE STREAM";
            return Err(Error::query(message, hint));
        }
    }
    let source = FilesSource::new(definition)?;
    if !source.is_bounded() {
        let message = format!("table {:?} has a watch_interval", definition.name);
        return Err(Error::query(message, "remove it, or declare the table with CREATE STREAM"));
    }
    let mut rows = TableRows { batches: vec![RecordBatch::new_empty(Arc::clone(&definition.schema))], bad: Vec::new() };
    for mut partition in source.open(&[], Arc::new(MemoryIndex::default())).await? {
        while let Some(split) = partition.next(None).await? {
            let decoded = SpawnedTask::spawn_blocking(move || split.decode.decode()).join().await;
            let decoded = decoded.map_err(|error| Error::external(source.describe(), error))??;
            if let Some(bad) = decoded.bad.first().filter(|_| definition.bad_data == BadData::Fail) {
                return Err(bad_row_error(bad));
            }
            rows.batches.push(decoded.batch);
            rows.bad.extend(decoded.bad);
        }
    }
    Ok(rows)
}

fn bad_row_error(bad: &BadRow) -> Error {
    let column = bad.column.as_ref().map_or_else(String::new, |column| format!(", column {column:?}"));
    let message = format!("{}{column}: {}", bad.place, bad.reason);
    Error::data(message, "mend the row, or set bad_data = 'skip' or 'dead_letter'")
}
