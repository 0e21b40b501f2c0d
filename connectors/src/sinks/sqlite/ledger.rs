//! The ledger in an SQLite file, and how such a file is opened.

use std::path::Path;
use std::time::Duration;

use millstream_engine::Error;
use millstream_engine::batch::Epoch;
use millstream_engine::sink::SinkWriter;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Result, Transaction, params};

use crate::sinks::relation::{epoch_of, signed};

/// How long to wait for another program that writes to the file.
const PATIENCE: Duration = Duration::from_secs(10);

/// Opens a file, or makes it.
pub(in crate::sinks) fn open(path: &Path) -> Result<Connection> {
    let connection = Connection::open(path)?;
    // With FULL a power cut after the COMMIT could bring the rollback journal back, and with it the epoch before,
    // while the state directory on another disk knows that this one is in. EXTRA makes its removal safe as well.
    connection.busy_timeout(PATIENCE).and_then(|()| connection.pragma_update(None, "synchronous", "EXTRA"))?;
    Ok(connection)
}

/// Whether the ledger has a line of another query for the table.
pub(in crate::sinks) fn is_of_another(transaction: &Transaction<'_>, table: &str, query: &str) -> Result<bool> {
    let other = "SELECT 1 FROM millstream_ledger WHERE sink_table = ?1 AND query <> ?2";
    let other = transaction.query_row(other, params![table, query], |_| Ok(()));
    Ok(other.optional()?.is_some())
}

/// What the ledger says to a writer that begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sinks) enum Reign {
    /// It may write; this is the last epoch of its query.
    Begun(Option<Epoch>),
    /// A newer run of the query has begun.
    TakenOver,
}

/// Enters the writer's term in the ledger.
pub(in crate::sinks) fn take_reign(transaction: &Transaction<'_>, table: &str, writer: &SinkWriter) -> Result<Reign> {
    let query = &writer.query;
    let line = "SELECT term, epoch FROM millstream_ledger WHERE sink_table = ?1 AND query = ?2";
    let line = transaction.query_row(line, params![table, query], |row| Ok((row.get(0)?, row.get(1)?)));
    let line: Option<(i64, Option<i64>)> = line.optional()?;
    if line.is_some_and(|(term, _)| term > signed(writer.term)) {
        return Ok(Reign::TakenOver);
    }
    let write = "INSERT INTO millstream_ledger (query, sink_table, term) VALUES (?1, ?2, ?3)
                 ON CONFLICT (query, sink_table) DO UPDATE SET term = excluded.term";
    transaction.execute(write, params![query, table, signed(writer.term)])?;
    Ok(Reign::Begun(line.and_then(|(_, epoch)| epoch).map(epoch_of)))
}

/// Enters an epoch in the ledger; whether the writer still reigns, and the epoch is a new one.
pub(in crate::sinks) fn enter(
    transaction: &Transaction<'_>,
    table: &str,
    writer: &SinkWriter,
    epoch: Epoch,
) -> Result<bool> {
    let line = "UPDATE millstream_ledger SET epoch = ?1 WHERE sink_table = ?2 AND query = ?3 AND term = ?4
                AND (epoch IS NULL OR epoch < ?1)";
    let lines = transaction.execute(line, params![signed(epoch.0), table, writer.query, signed(writer.term)])?;
    Ok(lines == 1)
}

/// A failure of SQLite in words of the engine.
pub(in crate::sinks) fn failed(context: String, error: rusqlite::Error) -> Error {
    match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            Error::external(context, std::io::Error::new(std::io::ErrorKind::StorageFull, error))
        }
        _ => Error::external(context, error),
    }
}
