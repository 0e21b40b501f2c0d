//! Rows set aside: `name$late` and `name$dead`, bounded tables of what no result could use, most recent first.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::array::{StringArray, TimestampNanosecondArray, UInt32Array, UInt64Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::{Session, TableProvider};
use datafusion::datasource::memory::MemorySourceConfig;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::error::Result;
use crate::source::{BadRow, PartitionId};
use crate::time::Watermark;

/// The rows a side table keeps.
pub const SIDE_TABLE_ROWS: usize = 10_000;

/// The two side tables of a stream, which outlive the queries that read it.
#[derive(Debug, Clone)]
pub struct SideTables {
    /// Rows that could not be used: `name$dead`.
    pub dead: Arc<SideTable>,
    /// Rows that were too late for a query: `name$late`.
    pub late: Arc<SideTable>,
}

impl SideTables {
    /// Empty side tables for a stream with these columns.
    pub fn new(stream: &Schema) -> Self {
        Self { dead: Arc::new(SideTable::dead()), late: Arc::new(SideTable::late(stream)) }
    }
}

/// A bounded table of rows set aside; reading it shows the most recent first.
#[derive(Debug)]
pub struct SideTable {
    schema: SchemaRef,
    kept: Mutex<VecDeque<RecordBatch>>,
}

impl SideTable {
    fn new(schema: Schema) -> Self {
        Self { schema: Arc::new(schema), kept: Mutex::default() }
    }

    /// The table of rows that could not be read: one row per bad row of the input.
    fn dead() -> Self {
        Self::new(Schema::new(vec![
            Field::new("partition", DataType::UInt32, false),
            Field::new("offset", DataType::UInt64, false),
            Field::new("place", DataType::Utf8, false),
            Field::new("column", DataType::Utf8, true),
            Field::new("reason", DataType::Utf8, false),
            Field::new("raw", DataType::Utf8, false),
        ]))
    }

    /// The table of rows that came too late: the query, the watermark they missed, and their columns.
    fn late(stream: &Schema) -> Self {
        let mut fields = vec![
            Arc::new(Field::new("query", DataType::Utf8, false)),
            Arc::new(Field::new("watermark", DataType::Timestamp(TimeUnit::Nanosecond, None), false)),
        ];
        fields.extend(stream.fields().iter().cloned());
        Self::new(Schema::new(fields))
    }

    /// Sets bad rows aside.
    pub(crate) fn add_dead(&self, partition: PartitionId, rows: &[BadRow]) -> Result<()> {
        let rows: Vec<&BadRow> = rows.iter().rev().take(SIDE_TABLE_ROWS).collect();
        let text =
            |field: fn(&BadRow) -> &str| Arc::new(rows.iter().map(|row| Some(field(row))).collect::<StringArray>());
        let columns: Vec<datafusion::arrow::array::ArrayRef> = vec![
            Arc::new(UInt32Array::from_value(partition.0, rows.len())),
            Arc::new(rows.iter().map(|row| row.offset.0).collect::<UInt64Array>()),
            text(|row| &row.place),
            Arc::new(rows.iter().map(|row| row.column.as_deref()).collect::<StringArray>()),
            text(|row| &row.reason),
            text(|row| &row.raw),
        ];
        self.push(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        Ok(())
    }

    /// Sets rows of a stream aside that `query` got too late.
    pub(crate) fn add_late(&self, query: &str, rows: &RecordBatch, missed: &[(u32, Watermark)]) -> Result<()> {
        let recent = missed.iter().rev().take(SIDE_TABLE_ROWS);
        let indices: UInt32Array = recent.clone().map(|(row, _)| *row).collect();
        let watermarks = TimestampNanosecondArray::from_iter_values(recent.map(|(_, watermark)| watermark.0));
        let late = take_record_batch(rows, &indices)?;
        let names = StringArray::from_iter_values(std::iter::repeat_n(query, late.num_rows()));
        let mut columns: Vec<datafusion::arrow::array::ArrayRef> = vec![Arc::new(names), Arc::new(watermarks)];
        columns.extend(late.columns().iter().cloned());
        self.push(RecordBatch::try_new(Arc::clone(&self.schema), columns)?);
        Ok(())
    }

    fn push(&self, batch: RecordBatch) {
        if batch.num_rows() == 0 {
            return;
        }
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.push_front(batch);
        let mut rows: usize = kept.iter().map(RecordBatch::num_rows).sum();
        while rows > SIDE_TABLE_ROWS {
            let Some(oldest) = kept.pop_back() else { break };
            rows -= oldest.num_rows();
            if let Some(room) = SIDE_TABLE_ROWS.checked_sub(rows).filter(|room| *room > 0) {
                kept.push_back(oldest.slice(0, room.min(oldest.num_rows())));
                break;
            }
        }
    }

    /// The rows that are kept, most recent first.
    ///
    /// # Errors
    /// Fails only if memory holds no batch of them.
    pub fn rows(&self) -> Result<RecordBatch> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(concat_batches(&self.schema, kept.iter())?)
    }
}

#[async_trait]
impl TableProvider for SideTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let rows = self.rows()?;
        Ok(MemorySourceConfig::try_new_exec(&[vec![rows]], Arc::clone(&self.schema), projection.cloned())?)
    }
}
