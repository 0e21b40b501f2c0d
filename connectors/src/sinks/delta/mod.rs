//! The sink that appends to a Delta Lake table in a local folder.
//!
//! An epoch is one Parquet file and one commit of the table's log, which adds the file and says, as application
//! transactions, that epoch and term of the query are in: `millstream-ID` and `millstream-ID-term`. A writer of an older
//! term finds its term changed by a commit that it has not read, and is refused by the protocol's own conflict check.
//!
//! Protocol: <https://github.com/delta-io/delta/blob/master/PROTOCOL.md>, "Transaction Identifiers".

mod columns;
mod store;

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use deltalake_core::kernel::transaction::{CommitBuilder, CommitProperties, TransactionError};
use deltalake_core::kernel::{Action, Add, Transaction};
use deltalake_core::logstore::LogStoreRef;
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::protocol::{DeltaOperation, SaveMode};
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, DeltaTableBuilder, DeltaTableError, ensure_table_uri};
use millstream_engine::batch::Epoch;
use millstream_engine::durable::durable_step;
use millstream_engine::sink::{Guarantee, Sink, SinkWriter};
use millstream_engine::{Error, Result};

use super::files::{FileFormat, Part};
use super::relation::{epoch_of, signed};
use super::{blocking, not_begun, taken_over};
use columns::Columns;
use store::SyncedStore;

/// The table property that names the query whose results a table was made for.
const QUERY: &str = "millstream.query";

/// Appends rows to a Delta table.
#[derive(Debug)]
pub struct DeltaSink {
    target: Target,
    begun: Option<Begun>,
    staged: Option<Part>,
}

/// A table that may not be there yet.
#[derive(Debug, Clone)]
struct Target {
    folder: PathBuf,
    columns: Columns,
}

/// A table with a writer's reign over it.
#[derive(Debug)]
struct Begun {
    log: LogStoreRef,
    state: DeltaTableState,
    writer: SinkWriter,
    last: Option<Epoch>,
}

impl DeltaSink {
    /// A sink for rows of `schema` in the table in `folder`, which is made at the begin if need be.
    ///
    /// # Errors
    /// Fails for columns of types that Delta Lake has no place for.
    pub fn new(folder: impl Into<PathBuf>, schema: SchemaRef) -> Result<Self> {
        let target = Target { folder: folder.into(), columns: Columns::new(&schema)? };
        Ok(Self { target, begun: None, staged: None })
    }
}

impl Target {
    fn place(&self) -> String {
        format!("Delta table {}", self.folder.display())
    }

    fn failed(&self, error: DeltaTableError) -> Error {
        match error {
            DeltaTableError::Transaction { source: TransactionError::CommitConflict(_) } => taken_over(&self.place()),
            error => Error::external(format!("writing {}", self.place()), error),
        }
    }

    /// The table, made if there is none.
    async fn open(&self, query: &str) -> Result<DeltaTable> {
        let fail = |error| self.failed(error);
        let url = ensure_table_uri(self.folder.to_string_lossy()).map_err(fail)?;
        let store = Arc::new(SyncedStore::new()?);
        let table = DeltaTableBuilder::from_url(url.clone())
            .map_err(fail)?
            .with_storage_backend(store, url)
            .build()
            .map_err(fail)?;
        if table.verify_deltatable_existence().await.map_err(fail)? {
            let mut table = table;
            table.load().await.map_err(fail)?;
            self.check_table(&table, query)?;
            return Ok(table);
        }
        let create = CreateBuilder::new()
            .with_log_store(table.log_store())
            .with_columns(self.columns.delta_fields()?)
            .with_raise_if_key_not_exists(false)
            .with_configuration([(QUERY, Some(query))]);
        create.await.map_err(fail)
    }

    /// Refuses a table of another query, or with other columns.
    fn check_table(&self, table: &DeltaTable, query: &str) -> Result<()> {
        let state = table.snapshot().map_err(|error| self.failed(error))?;
        let owner = state.metadata().configuration().get(QUERY);
        if owner.is_some_and(|owner| owner != query) {
            let message = format!("{} holds the results of an earlier run", self.place());
            return Err(Error::query(message, "name another path, or remove the folder"));
        }
        self.columns.check(&state.schema(), &self.place())
    }

    /// Enters the writer's term, and removes what a writer before has left of an epoch that is not in.
    async fn take_reign(&self, table: &DeltaTable, writer: &SinkWriter) -> Result<Begun> {
        let fail = |error| self.failed(error);
        let (log, state) = (table.log_store(), table.snapshot().map_err(fail)?.clone());
        let term = state.transaction_version(log.as_ref(), term_id(&writer.query)).await.map_err(fail)?;
        if term.is_some_and(|term| term > signed(writer.term)) {
            return Err(taken_over(&self.place()));
        }
        let last = state.transaction_version(log.as_ref(), epoch_id(&writer.query)).await.map_err(fail)?;
        let mut begun = Begun { log, state, writer: writer.clone(), last: last.map(epoch_of) };
        durable_step("delta.begin");
        begun.commit(Vec::new()).await.map_err(fail)?;
        self.remove_uncommitted(&begun)?;
        Ok(begun)
    }

    fn remove_uncommitted(&self, begun: &Begun) -> Result<()> {
        let failed = |error| Error::external(format!("reading {}", self.place()), error);
        let prefix = file_prefix(&begun.writer.query);
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let epoch = name.strip_prefix(&prefix).and_then(|rest| rest.split('-').next()?.parse().ok()).map(Epoch);
            if epoch.is_some_and(|epoch| Some(epoch) > begun.last) {
                durable_step("delta.remove");
                remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn path(&self, writer: &SinkWriter, epoch: Epoch) -> PathBuf {
        self.folder.join(self.file_name(writer, epoch))
    }

    fn file_name(&self, writer: &SinkWriter, epoch: Epoch) -> String {
        format!("{}{:010}-{}.parquet", file_prefix(&writer.query), epoch.0, writer.term)
    }
}

impl Begun {
    /// Commits actions together with the writer's term, and with an epoch if they are its.
    async fn commit(&mut self, added: Vec<(Epoch, Add)>) -> std::result::Result<(), DeltaTableError> {
        let SinkWriter { query, term } = &self.writer;
        let mut transactions = vec![Transaction::new(term_id(query), signed(*term))];
        transactions.extend(added.last().map(|(epoch, _)| Transaction::new(epoch_id(query), signed(epoch.0))));
        let properties = CommitProperties::default()
            .with_application_transactions(transactions)
            .with_cleanup_expired_logs(Some(false));
        let operation = DeltaOperation::Write { mode: SaveMode::Append, partition_by: None, predicate: None };
        let actions = added.into_iter().map(|(_, add)| Action::Add(add)).collect();
        let commit = CommitBuilder::from(properties).with_actions(actions).build(
            Some(&self.state),
            Arc::clone(&self.log),
            operation,
        );
        let committed = commit.await?;
        self.state = committed.snapshot();
        Ok(())
    }
}

#[async_trait]
impl Sink for DeltaSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn begin(&mut self, writer: &SinkWriter) -> Result<Option<Epoch>> {
        self.staged = None;
        let target = self.target.clone();
        let table = target.open(&writer.query).await?;
        let begun = target.take_reign(&table, writer).await?;
        let last = begun.last;
        self.begun = Some(begun);
        Ok(last)
    }

    async fn stage(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<()> {
        let begun = self.begun.as_ref().ok_or_else(|| not_begun("delta"))?;
        if begun.last >= Some(epoch) {
            return Ok(());
        }
        let rows = rows.iter().map(|batch| self.target.columns.convert(batch)).collect::<Result<Vec<_>>>()?;
        let (path, schema) = (self.target.path(&begun.writer, epoch), self.target.columns.schema());
        let earlier = self.staged.take();
        let staged = blocking(move || {
            let mut part = match earlier {
                Some(part) if part.epoch == epoch => part,
                other => {
                    other.map_or(Ok(()), Part::discard)?;
                    durable_step("delta.stage");
                    Part::create(epoch, path, FileFormat::Parquet, schema)?
                }
            };
            part.write(&rows)?;
            Ok(part)
        });
        self.staged = Some(staged.await?);
        Ok(())
    }

    async fn commit(&mut self, epoch: Epoch) -> Result<()> {
        let Some(part) = self.staged.take_if(|part| part.epoch == epoch) else { return Ok(()) };
        // A failure leaves nothing begun: what has become of the epoch, the next begin finds out.
        let mut begun = self.begun.take().ok_or_else(|| not_begun("delta"))?;
        let target = self.target.clone();
        let folder = target.folder.clone();
        let content = blocking(move || {
            durable_step("delta.sync");
            let content = part.finish()?;
            store::sync_folder(&folder)?;
            Ok(content)
        });
        let content = content.await?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        let add = Add {
            path: target.file_name(&begun.writer, epoch),
            partition_values: HashMap::new(),
            size: signed(content.bytes),
            modification_time: i64::try_from(now).unwrap_or(i64::MAX),
            data_change: true,
            stats: Some(format!("{{\"numRecords\":{}}}", content.rows)),
            ..Add::default()
        };
        durable_step("delta.commit");
        begun.commit(vec![(epoch, add)]).await.map_err(|error| target.failed(error))?;
        durable_step("delta.committed");
        begun.last = Some(epoch);
        self.begun = Some(begun);
        Ok(())
    }
}

/// Under which id the log says which epochs of a query are in.
fn epoch_id(query: &str) -> String {
    format!("millstream-{query}")
}

/// Under which id the log says who may write the next.
fn term_id(query: &str) -> String {
    format!("millstream-{query}-term")
}

/// How the names of a query's files begin; epoch and term follow.
fn file_prefix(query: &str) -> String {
    format!("part-{query}-")
}

fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(Error::external(format!("removing {}", path.display()), error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
