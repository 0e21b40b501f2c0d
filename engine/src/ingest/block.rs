//! Blocks and the records of a stream's log.

use std::ops::Range;
use std::time::Instant;

use datafusion::arrow::array::{Array, AsArray, Int64Array, PrimitiveArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};
use crate::ingest::progress::Behind;
use crate::source::{Offset, PartitionId};
use crate::time::{EventTime, Watermark};

/// An offset range of one partition, decoded once and shared by all queries on the stream.
#[derive(Debug, Clone)]
pub struct Block {
    /// The partition.
    pub partition: PartitionId,
    /// The range.
    pub offsets: Range<Offset>,
    /// The rows, in the stream's declared columns.
    pub rows: RecordBatch,
    /// The event time of each row in nanoseconds.
    pub times: Int64Array,
    /// The least event time.
    pub earliest: EventTime,
    /// The greatest event time.
    pub latest: EventTime,
    /// The rows that were behind their partition's watermark as they arrived, in order.
    pub behind: Vec<Behind>,
}

/// An entry of a stream's log.
#[derive(Debug, Clone)]
pub struct Record {
    /// The rows, unless only time has passed.
    pub block: Option<std::sync::Arc<Block>>,
    /// The stream's watermark after this record.
    pub watermark: Watermark,
    /// When the record was logged, for measuring delay.
    pub logged_at: Instant,
}

impl Record {
    /// The rows it has.
    pub fn row_count(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.rows.num_rows())
    }

    /// The memory its rows take.
    pub fn bytes(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.rows.get_array_memory_size())
    }
}

/// The event times of a column, in nanoseconds.
///
/// # Errors
/// Fails if the column is no timestamp, holds a null, or a time outside the years 1677 to 2262.
pub(crate) fn event_times(rows: &RecordBatch, column: usize) -> Result<Int64Array> {
    let values = rows.columns().get(column).ok_or_else(|| Error::internal("no event-time column"))?;
    if values.null_count() > 0 {
        return Err(Error::internal("a row with a null event time was decoded as good"));
    }
    let nanos = match values.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, None) => std::sync::Arc::clone(values),
        DataType::Timestamp(_, zone) => {
            let utc = cast(values, &DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()))?;
            cast(&utc, &DataType::Int64)?
        }
        other => return Err(Error::internal(format!("an event-time column of type {other}"))),
    };
    let nanos = cast(&nanos, &DataType::Int64)?;
    let nanos: &PrimitiveArray<Int64Type> = nanos.as_primitive();
    Ok(nanos.clone())
}
