//! The sink that writes into a table of an SQLite file, with its ledger in the same file.
//!
//! Rows and the ledger's line go in one transaction, which SQLite makes safe before it says that it is done.

pub(super) mod ledger;
mod value;

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::batch::Epoch;
use millstream_engine::durable::durable_step;
use millstream_engine::sink::{Guarantee, Sink, SinkWriter};
use millstream_engine::{Error, Result};
use rusqlite::{Connection, Transaction, TransactionBehavior, params_from_iter};

use super::relation::{CREATE_LEDGER, Relation, list, names};
use super::staged::Staged;
use super::{blocking, not_begun, taken_over, when_there_is_room};
use ledger::Reign;
use value::{Column, sql_type};

/// Writes rows into a table of an SQLite file.
#[derive(Debug)]
pub struct SqliteSink {
    target: Target,
    begun: Option<Begun>,
    staged: Staged,
}

#[derive(Debug, Clone)]
struct Target {
    path: PathBuf,
    relation: Relation,
    schema: SchemaRef,
}

#[derive(Debug)]
struct Begun {
    connection: Connection,
    writer: SinkWriter,
    last: Option<Epoch>,
}

impl SqliteSink {
    /// A sink for rows of `schema` in the file at `path`, which is made at the begin if need be.
    ///
    /// # Errors
    /// Fails for columns of types that SQLite has no place for, and for a key that is no column.
    pub(super) fn new(path: impl Into<PathBuf>, relation: Relation, schema: SchemaRef) -> Result<Self> {
        relation.check_key(&schema)?;
        relation.create_table(&schema, sql_type)?;
        Ok(Self { target: Target { path: path.into(), relation, schema }, begun: None, staged: Staged::default() })
    }
}

#[async_trait]
impl Sink for SqliteSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn begin(&mut self, writer: &SinkWriter) -> Result<Option<Epoch>> {
        self.staged = Staged::default();
        let (target, writer) = (self.target.clone(), writer.clone());
        let begun = blocking(move || when_there_is_room(|| target.begin(writer.clone()))).await?;
        let last = begun.last;
        self.begun = Some(begun);
        Ok(last)
    }

    async fn stage(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<()> {
        let begun = self.begun.as_ref().ok_or_else(|| not_begun("sqlite"))?;
        if begun.last < Some(epoch) {
            self.staged.add(epoch, rows);
        }
        Ok(())
    }

    async fn commit(&mut self, epoch: Epoch) -> Result<()> {
        let Some(rows) = self.staged.take(epoch) else { return Ok(()) };
        self.target.relation.check_key_values(&self.target.schema, &rows)?;
        let target = self.target.clone();
        // A failure leaves nothing begun: what has become of the epoch, the next begin finds out.
        let mut begun = self.begun.take().ok_or_else(|| not_begun("sqlite"))?;
        let committed = blocking(move || {
            when_there_is_room(|| target.write(&mut begun, epoch, &rows))?;
            begun.last = Some(epoch);
            Ok(begun)
        });
        self.begun = Some(committed.await?);
        Ok(())
    }
}

impl Target {
    fn begin(&self, writer: SinkWriter) -> Result<Begun> {
        durable_step("sqlite.open");
        let mut connection = ledger::open(&self.path).map_err(|error| self.failed(error))?;
        let transaction = self.transaction(&mut connection)?;
        durable_step("sqlite.create");
        let create = self.relation.create_table(&self.schema, sql_type)?;
        transaction.execute_batch(&format!("{CREATE_LEDGER}; {create}")).map_err(|error| self.failed(error))?;
        // Says at once if a column or the key is missing.
        transaction.prepare(&self.insert()).map_err(|error| self.failed(error))?;
        let last = self.take_reign(&transaction, &writer)?;
        durable_step("sqlite.begin");
        transaction.commit().map_err(|error| self.failed(error))?;
        Ok(Begun { connection, writer, last })
    }

    /// Enters the writer's term in the ledger; gives the last epoch of its query.
    fn take_reign(&self, transaction: &Transaction<'_>, writer: &SinkWriter) -> Result<Option<Epoch>> {
        let table = self.ledger_name();
        if ledger::is_of_another(transaction, &table, &writer.query).map_err(|error| self.failed(error))? {
            return Err(self.relation.holds_earlier_results(&self.place()));
        }
        match ledger::take_reign(transaction, &table, writer).map_err(|error| self.failed(error))? {
            Reign::Begun(last) => Ok(last),
            Reign::TakenOver => Err(taken_over(&self.place())),
        }
    }

    /// Writes an epoch and its line of the ledger.
    fn write(&self, begun: &mut Begun, epoch: Epoch, rows: &[RecordBatch]) -> Result<()> {
        let transaction = self.transaction(&mut begun.connection)?;
        durable_step("sqlite.ledger");
        let entered = ledger::enter(&transaction, &self.ledger_name(), &begun.writer, epoch);
        if !entered.map_err(|error| self.failed(error))? {
            return Err(taken_over(&self.place()));
        }
        durable_step("sqlite.insert");
        self.insert_rows(&transaction, rows)?;
        durable_step("sqlite.commit");
        transaction.commit().map_err(|error| self.failed(error))?;
        durable_step("sqlite.committed");
        Ok(())
    }

    fn insert_rows(&self, transaction: &Transaction<'_>, rows: &[RecordBatch]) -> Result<()> {
        let mut insert = transaction.prepare(&self.insert()).map_err(|error| self.failed(error))?;
        for batch in rows {
            let fields = self.schema.fields().iter().zip(batch.columns());
            let columns = fields.map(|(field, array)| Column::new(field.name(), array)).collect::<Result<Vec<_>>>()?;
            for row in 0..batch.num_rows() {
                let values = columns.iter().map(|column| column.value(row)).collect::<Result<Vec<_>>>()?;
                insert.execute(params_from_iter(values)).map_err(|error| self.failed(error))?;
            }
        }
        Ok(())
    }

    fn insert(&self) -> String {
        let names = names(&self.schema);
        let marks = vec!["?"; names.len()].join(", ");
        let (table, conflict) = (self.relation.quoted_table(), self.relation.on_conflict(&self.schema));
        format!("INSERT INTO {table} ({}) VALUES ({marks}){conflict}", list(&names))
    }

    fn transaction<'a>(&self, connection: &'a mut Connection) -> Result<Transaction<'a>> {
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|error| self.failed(error))
    }

    /// The table's name in the ledger, which is one for all its spellings.
    fn ledger_name(&self) -> String {
        let name = self.relation.table.to_ascii_lowercase();
        name.strip_prefix("main.").unwrap_or(&name).to_owned()
    }

    fn place(&self) -> String {
        shown(&self.path)
    }

    fn failed(&self, error: rusqlite::Error) -> Error {
        ledger::failed(format!("writing table {} of {}", self.relation.table, self.place()), error)
    }
}

fn shown(path: &Path) -> String {
    format!("SQLite file {}", path.display())
}

#[cfg(test)]
mod tests;
