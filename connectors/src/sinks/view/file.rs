//! The parts of a materialized view in an SQLite file, with its ledger.

use std::path::PathBuf;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::ipc::writer::StreamWriter;
use millstream_engine::batch::Epoch;
use millstream_engine::durable::durable_step;
use millstream_engine::ipc::read_stream;
use millstream_engine::sink::SinkWriter;
use millstream_engine::time::EventTime;
use millstream_engine::{Error, Result};
use rusqlite::{Connection, Transaction, TransactionBehavior, params};

use super::{Part, StillCounts};
use crate::sinks::not_begun;
use crate::sinks::relation::{CREATE_LEDGER, epoch_of, signed};
use crate::sinks::sqlite::ledger::{self, Reign};
use crate::sinks::taken_over;

/// The parts in the order of their commits; rows as an Arrow IPC stream.
const CREATE_PARTS: &str =
    "CREATE TABLE IF NOT EXISTS part (number INTEGER PRIMARY KEY AUTOINCREMENT, instant BIGINT, rows BLOB NOT NULL,
     epoch BIGINT NOT NULL DEFAULT 0)";
/// The view's name in the ledger: a file has one view.
const TABLE: &str = "part";

/// A file of parts.
#[derive(Debug)]
pub(super) struct ViewFile {
    path: PathBuf,
    schema: SchemaRef,
    /// Whether it has rows of other columns or of another kind, which only a query of another id may have left.
    has_other_rows: bool,
    begun: Option<Begun>,
}

#[derive(Debug)]
struct Begun {
    connection: Connection,
    writer: SinkWriter,
    last: Option<Epoch>,
}

/// What a writer finds as it begins.
#[derive(Debug)]
pub(super) struct Found {
    /// The last epoch of the query.
    pub(super) last: Option<Epoch>,
    /// Whether what was there was of another query, and is gone.
    pub(super) is_emptied: bool,
}

impl ViewFile {
    /// The file at `path`, which is made by the first that begins.
    pub(super) const fn new(path: PathBuf, schema: SchemaRef) -> Self {
        Self { path, schema, has_other_rows: false, begun: None }
    }

    /// Reads the parts in order; none if there is no file. `take` says whether a part is of the view's kind.
    ///
    /// # Errors
    /// Fails if the file cannot be read, or as `take` does.
    pub(super) fn read(&mut self, mut take: impl FnMut(Part) -> Result<bool>) -> Result<()> {
        if !self.path.exists() {
            return Ok(());
        }
        let mut connection = self.connect()?;
        let transaction = self.transaction(&mut connection)?;
        let mut select =
            transaction.prepare("SELECT instant, rows, epoch FROM part ORDER BY number").map_err(self.failed())?;
        let mut parts = select.query([]).map_err(self.failed())?;
        while let Some(part) = parts.next().map_err(self.failed())? {
            let instant = part.get::<_, Option<i64>>(0).map_err(self.failed())?.map(EventTime);
            let bytes = part.get::<_, Vec<u8>>(1).map_err(self.failed())?;
            let epoch = epoch_of(part.get::<_, i64>(2).map_err(self.failed())?);
            for rows in read_stream(&bytes)? {
                let is_alike = rows.schema() == self.schema;
                if !is_alike || !take(Part { epoch, instant, rows })? {
                    self.has_other_rows = true;
                }
            }
        }
        Ok(())
    }

    /// Begins a writer's reign.
    ///
    /// # Errors
    /// Fails if the file cannot be written, or a newer run has begun.
    pub(super) fn begin(&mut self, writer: &SinkWriter) -> Result<Found> {
        durable_step("view.open");
        if let Some(folder) = self.path.parent() {
            std::fs::create_dir_all(folder)
                .map_err(|error| Error::external(format!("making {}", folder.display()), error))?;
        }
        let mut connection = self.connect()?;
        let transaction = self.transaction(&mut connection)?;
        let is_emptied = self.forget_others(&transaction, &writer.query)?;
        if self.has_other_rows && !is_emptied {
            let message = format!("{} are of another kind or have other columns than its query has now", self.place());
            let hint = "run the earlier query, or begin anew: millstream state forget DIR NAME";
            return Err(Error::state(message, hint));
        }
        let reign = ledger::take_reign(&transaction, TABLE, writer).map_err(self.failed())?;
        let Reign::Begun(last) = reign else { return Err(taken_over(&self.place())) };
        durable_step("view.begin");
        transaction.commit().map_err(self.failed())?;
        self.begun = Some(Begun { connection, writer: writer.clone(), last });
        Ok(Found { last, is_emptied })
    }

    /// Drops what another query of that name has left; whether there was something.
    fn forget_others(&self, transaction: &Transaction<'_>, query: &str) -> Result<bool> {
        if !ledger::is_of_another(transaction, TABLE, query).map_err(self.failed())? {
            return Ok(false);
        }
        let forget = "DELETE FROM part; DELETE FROM millstream_ledger";
        transaction.execute_batch(forget).map_err(self.failed())?;
        Ok(true)
    }

    /// Whether an epoch is in the file.
    pub(super) fn has(&self, epoch: Epoch) -> bool {
        self.begun.as_ref().is_some_and(|begun| begun.last >= Some(epoch))
    }

    /// Writes the parts of an epoch and its line of the ledger in one transaction, and drops the parts that no longer
    /// count.
    ///
    /// # Errors
    /// Fails if the file cannot be written, or a newer run has begun.
    pub(super) fn write(&mut self, epoch: Epoch, parts: &[Part], counting: &StillCounts) -> Result<()> {
        self.with_begun(|file, begun| {
            let transaction = file.transaction(&mut begun.connection)?;
            durable_step("view.ledger");
            if !ledger::enter(&transaction, TABLE, &begun.writer, epoch).map_err(file.failed())? {
                return Err(taken_over(&file.place()));
            }
            file.keep_to(&transaction, epoch, counting)?;
            for part in parts {
                file.insert(&transaction, part)?;
            }
            durable_step("view.commit");
            transaction.commit().map_err(file.failed())?;
            durable_step("view.committed");
            begun.last = Some(epoch);
            Ok(())
        })
    }

    fn keep_to(&self, transaction: &Transaction<'_>, epoch: Epoch, counting: &StillCounts) -> Result<()> {
        match counting {
            StillCounts::All => {}
            StillCounts::Since(oldest) => {
                let drop_old = "DELETE FROM part WHERE instant < ?1";
                transaction.execute(drop_old, params![oldest.0]).map_err(self.failed())?;
            }
            StillCounts::Only(batches) => {
                transaction.execute("DELETE FROM part", []).map_err(self.failed())?;
                for rows in batches {
                    self.insert(transaction, &Part { epoch, instant: None, rows: rows.clone() })?;
                }
            }
        }
        Ok(())
    }

    /// Does work of the writer that has begun, who goes on after a failure: the disk may only be full.
    fn with_begun(&mut self, work: impl FnOnce(&Self, &mut Begun) -> Result<()>) -> Result<()> {
        let mut begun = self.begun.take().ok_or_else(|| not_begun("view"))?;
        let done = work(self, &mut begun);
        self.begun = Some(begun);
        done
    }

    fn insert(&self, transaction: &Transaction<'_>, part: &Part) -> Result<()> {
        let mut writer = StreamWriter::try_new(Vec::new(), &self.schema)?;
        writer.write(&part.rows)?;
        let (instant, bytes) = (part.instant.map(|instant| instant.0), writer.into_inner()?);
        let insert = "INSERT INTO part (instant, rows, epoch) VALUES (?1, ?2, ?3)";
        transaction.execute(insert, params![instant, bytes, signed(part.epoch.0)]).map_err(self.failed())?;
        Ok(())
    }

    fn connect(&self) -> Result<Connection> {
        let connection = ledger::open(&self.path).map_err(self.failed())?;
        connection.execute_batch(&format!("{CREATE_LEDGER}; {CREATE_PARTS}")).map_err(self.failed())?;
        // Files of before parts had an epoch.
        let has_epochs = connection.prepare("SELECT epoch FROM part LIMIT 0").is_ok();
        if !has_epochs {
            let add = "ALTER TABLE part ADD COLUMN epoch BIGINT NOT NULL DEFAULT 0";
            connection.execute_batch(add).map_err(self.failed())?;
        }
        Ok(connection)
    }

    fn transaction<'a>(&self, connection: &'a mut Connection) -> Result<Transaction<'a>> {
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(self.failed())
    }

    fn place(&self) -> String {
        format!("the rows of a materialized view in {}", self.path.display())
    }

    fn failed(&self) -> impl Fn(rusqlite::Error) -> Error {
        |error| ledger::failed(format!("keeping {}", self.place()), error)
    }
}
