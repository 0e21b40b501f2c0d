//! The sink that appends to a Delta Lake table in a local folder.
//!
//! An epoch is one Parquet file and one commit of the table's log, which adds the file and says, as application
//! transactions, that epoch and term of the query are in: `millstream-ID` and `millstream-ID-term`. The protocol's own
//! conflict check stops a writer of an older term, whose term was changed by a commit that it has not read. It stops it
//! for some commits of other programs as well, after which the epoch goes in again (`reign`).
//!
//! Protocol: <https://github.com/delta-io/delta/blob/master/PROTOCOL.md>, "Transaction Identifiers".

mod columns;
mod reign;
mod rules;
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
use deltalake_core::kernel::Add;
use deltalake_core::operations::create::CreateBuilder;
use deltalake_core::table::state::DeltaTableState;
use deltalake_core::{DeltaTable, DeltaTableBuilder, DeltaTableError, ensure_table_uri};
use millstream_engine::batch::Epoch;
use millstream_engine::durable::durable_step;
use millstream_engine::sink::{Guarantee, Sink, SinkWriter};
use millstream_engine::{Error, Result};

use super::files::{FileFormat, Part};
use super::relation::signed;
use super::{blocking, not_begun, when_there_is_room};
use columns::Columns;
use reign::Reign;
use rules::refuse_rules;
use store::SyncedStore;

/// The table property that names the query whose results a table was made for.
const QUERY: &str = "millstream.query";

/// Appends rows to a Delta table.
#[derive(Debug)]
pub struct DeltaSink {
    target: Target,
    reign: Option<Reign>,
    staged: Option<Part>,
}

/// A table that may not be there yet.
#[derive(Debug, Clone)]
struct Target {
    folder: PathBuf,
    columns: Columns,
}

impl DeltaSink {
    /// A sink for rows of `schema` in the table in `folder`, which is made at the begin if need be.
    ///
    /// # Errors
    /// Fails for columns of types that Delta Lake has no place for, and of names that it does not allow.
    pub fn new(folder: impl Into<PathBuf>, schema: SchemaRef) -> Result<Self> {
        let target = Target { folder: folder.into(), columns: Columns::new(&schema)? };
        Ok(Self { target, reign: None, staged: None })
    }
}

impl Target {
    fn place(&self) -> String {
        format!("Delta table {}", self.folder.display())
    }

    fn failed(&self, error: DeltaTableError) -> Error {
        Error::external(format!("writing {}", self.place()), error)
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
            return Ok(table);
        }
        let create = CreateBuilder::new()
            .with_log_store(table.log_store())
            .with_columns(self.columns.delta_fields()?)
            .with_raise_if_key_not_exists(false)
            .with_configuration([(QUERY, Some(query))]);
        create.await.map_err(fail)
    }

    /// Refuses a table of another query, with other columns, or with rules that this sink does not follow.
    fn check(&self, table: &DeltaTableState, query: &str) -> Result<()> {
        let owner = table.metadata().configuration().get(QUERY);
        if owner.is_some_and(|owner| owner != query) {
            let message = format!("{} holds the results of an earlier run", self.place());
            return Err(Error::query(message, "name another path, or remove the folder"));
        }
        refuse_rules(table, &self.place())?;
        self.columns.check(&table.schema(), &self.place())
    }

    /// Removes what a writer before has left of an epoch that is not in.
    fn remove_uncommitted(&self, reign: &Reign) -> Result<()> {
        let failed = |error| Error::external(format!("reading {}", self.place()), error);
        let prefix = file_prefix(&reign.writer.query);
        for entry in fs::read_dir(&self.folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let epoch = name.strip_prefix(&prefix).and_then(|rest| rest.split('-').next()?.parse().ok()).map(Epoch);
            if epoch.is_some_and(|epoch| Some(epoch) > reign.last) {
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

#[async_trait]
impl Sink for DeltaSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn begin(&mut self, writer: &SinkWriter) -> Result<Option<Epoch>> {
        self.staged = None;
        let target = self.target.clone();
        let table = target.open(&writer.query).await?;
        let reign = Reign::begin(&target, &table, writer).await?;
        target.remove_uncommitted(&reign)?;
        let last = reign.last;
        self.reign = Some(reign);
        Ok(last)
    }

    async fn stage(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<()> {
        let reign = self.reign.as_ref().ok_or_else(|| not_begun("delta"))?;
        if reign.last >= Some(epoch) {
            return Ok(());
        }
        let rows = rows.iter().map(|batch| self.target.columns.convert(batch)).collect::<Result<Vec<_>>>()?;
        let (path, schema) = (self.target.path(&reign.writer, epoch), self.target.columns.schema());
        let earlier = self.staged.take();
        let staged = blocking(move || {
            let mut part = match earlier {
                Some(part) if part.epoch == epoch => part,
                other => {
                    other.map_or(Ok(()), Part::discard)?;
                    durable_step("delta.stage");
                    when_there_is_room(|| Part::create(epoch, path.clone(), FileFormat::Parquet, Arc::clone(&schema)))?
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
        let mut reign = self.reign.take().ok_or_else(|| not_begun("delta"))?;
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
            path: target.file_name(&reign.writer, epoch),
            partition_values: HashMap::new(),
            size: signed(content.bytes),
            modification_time: i64::try_from(now).unwrap_or(i64::MAX),
            data_change: true,
            stats: Some(format!("{{\"numRecords\":{}}}", content.rows)),
            ..Add::default()
        };
        durable_step("delta.commit");
        reign.commit(epoch, &add).await?;
        durable_step("delta.committed");
        self.reign = Some(reign);
        Ok(())
    }
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
