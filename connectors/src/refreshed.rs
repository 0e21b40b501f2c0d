//! Static tables that are read again: each reading that finds other rows than the one before is a version.
//!
//! As an input of a query a version is one split of all rows of the table; its offsets go one further than its rows, so
//! that an empty table is a version too.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::MemTable;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::source::{Decode, Decoded, InputIndex, Offset, PartitionReader, Source, Split};
use millstream_engine::{Error, Result};
use tokio::time::Instant;

use crate::table::{TableRows, read_table};

/// The versions of a table.
#[derive(Debug)]
pub(crate) struct VersionSource {
    definition: Arc<StreamDefinition>,
    interval: Duration,
}

impl VersionSource {
    /// Those of the table of `definition`, which is read again every `interval`.
    pub(crate) const fn new(definition: Arc<StreamDefinition>, interval: Duration) -> Self {
        Self { definition, interval }
    }
}

#[async_trait]
impl Source for VersionSource {
    fn is_replayable(&self) -> bool {
        false
    }

    async fn open(&self, _: &[Offset], _: Arc<dyn InputIndex>) -> Result<Vec<Box<dyn PartitionReader>>> {
        let (definition, interval) = (Arc::clone(&self.definition), self.interval);
        Ok(vec![Box::new(VersionReader { definition, interval, due: None, last: None, offset: 0 })])
    }

    fn describe(&self) -> String {
        format!("table {}", self.definition.name)
    }
}

#[derive(Debug)]
struct VersionReader {
    definition: Arc<StreamDefinition>,
    interval: Duration,
    /// When to read next; at once at first.
    due: Option<Instant>,
    last: Option<RecordBatch>,
    offset: u64,
}

#[async_trait]
impl PartitionReader for VersionReader {
    async fn next(&mut self, _: Option<Offset>) -> Result<Option<Split>> {
        loop {
            if let Some(due) = self.due {
                tokio::time::sleep_until(due).await;
            }
            let read = read_table(&self.definition).await.and_then(|rows| whole(&self.definition.schema, &rows));
            self.due = Instant::now().checked_add(self.interval);
            match read {
                Err(error) if self.last.is_none() => return Err(error),
                Err(error) => {
                    let table = &self.definition.name;
                    tracing::warn!(%error, table, "the table cannot be read again, it stays as it was");
                }
                Ok(rows) if self.last.as_ref() != Some(&rows) => {
                    self.last = Some(rows.clone());
                    return Ok(Some(self.split(rows)));
                }
                Ok(_) => {}
            }
        }
    }
}

impl VersionReader {
    fn split(&mut self, rows: RecordBatch) -> Split {
        let start = self.offset;
        self.offset += rows.num_rows() as u64 + 1;
        let bytes = rows.get_array_memory_size();
        Split { offsets: Offset(start)..Offset(self.offset), bytes, decode: Box::new(Version(rows)) }
    }
}

/// All rows in one batch.
fn whole(schema: &SchemaRef, rows: &TableRows) -> Result<RecordBatch> {
    if let Some(bad) = rows.bad.first() {
        tracing::warn!(rows = rows.bad.len(), first = bad.place, reason = bad.reason, "rows of a table cannot be used");
    }
    Ok(concat_batches(schema, &rows.batches)?)
}

#[derive(Debug)]
struct Version(RecordBatch);

impl Decode for Version {
    fn decode(self: Box<Self>) -> Result<Decoded> {
        Ok(Decoded { batch: self.0, bad: Vec::new() })
    }
}

/// The rows of a table as they are whenever it is looked at.
#[derive(Debug)]
pub struct CurrentTable(pub Arc<StreamDefinition>);

#[async_trait]
impl TableProvider for CurrentTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.0.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let external = |error: Error| DataFusionError::External(Box::new(error));
        let TableRows { batches, .. } = read_table(&self.0).await.map_err(external)?;
        let rows = MemTable::try_new(Arc::clone(&self.0.schema), vec![batches])?;
        rows.scan(state, projection, filters, limit).await
    }
}
