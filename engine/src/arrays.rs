//! Batches that may have no column: `COUNT(*)` keeps none, and only the number of rows is left to go by.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, UInt32Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::error::Result;

/// A batch of `rows` rows, even where there is no column.
pub(crate) fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The rows of `batch` with these indices, in their order.
pub(crate) fn take_rows(batch: &RecordBatch, indices: &UInt32Array) -> Result<RecordBatch> {
    if batch.num_columns() == 0 {
        return batch_of(&batch.schema(), Vec::new(), datafusion::arrow::array::Array::len(indices));
    }
    Ok(take_record_batch(batch, indices)?)
}

/// The rows of all batches, which share a schema, in one.
pub(crate) fn concat_rows(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<RecordBatch> {
    if schema.fields().is_empty() {
        return batch_of(schema, Vec::new(), batches.iter().map(RecordBatch::num_rows).sum());
    }
    Ok(concat_batches(schema, batches)?)
}
