//! Blocks and the records of a stream's log.

use std::ops::Range;
use std::time::Instant;

use datafusion::arrow::array::{Array, AsArray, BooleanArray, Int64Array, PrimitiveArray, UInt64Array};
use datafusion::arrow::compute::{cast, filter, filter_record_batch, is_not_null, max, min};
use datafusion::arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

use crate::error::{Error, Result};
use crate::ingest::away::Away;
use crate::ingest::event::LoggedEvent;
use crate::ingest::progress::{Behind, Progress};
use crate::source::{BadRow, Decoded, Offset, PartitionId};
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
    /// The offset of each row, where they do not follow each other from the first: it is a part of what was read.
    pub numbers: Option<UInt64Array>,
}

impl Block {
    /// The block without some of its rows, none of which it knows to be behind; none if nothing is left.
    ///
    /// # Errors
    /// Fails only if the block is not whole.
    pub(crate) fn without(&self, rows: &[u32]) -> Result<Option<Self>> {
        let mut leaving = rows.iter().peekable();
        let kept = (0..self.rows.num_rows()).map(|row| leaving.next_if(|left| **left as usize == row).is_none());
        let kept: BooleanArray = kept.map(Some).collect();
        let numbers: UInt64Array = (self.offsets.start.0..).take(self.rows.num_rows()).collect();
        let times: Int64Array = filter(&self.times, &kept)?.as_primitive().clone();
        let (Some(earliest), Some(latest)) = (min(&times), max(&times)) else { return Ok(None) };
        Ok(Some(Self {
            rows: filter_record_batch(&self.rows, &kept)?,
            times,
            earliest: EventTime(earliest),
            latest: EventTime(latest),
            numbers: Some(filter(&numbers, &kept)?.as_primitive().clone()),
            behind: Vec::new(),
            ..self.clone()
        }))
    }
}

/// An entry of a stream's log.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    /// Its number, contiguous from 0 at the beginning of the stream.
    pub(crate) seq: u64,
    /// What happened.
    pub(crate) event: LoggedEvent,
    /// The rows, unless only time has passed.
    pub(crate) block: Option<std::sync::Arc<Block>>,
    /// Rows besides that an executor holds.
    pub(crate) away: Option<std::sync::Arc<Away>>,
    /// How many rows could not be used.
    pub(crate) bad: u64,
    /// The watermarks after this record.
    pub(crate) progress: Progress,
    /// When the record was logged, for measuring delay.
    pub(crate) logged_at: Instant,
}

impl Record {
    /// The stream's watermark after this record.
    pub(crate) fn watermark(&self) -> Watermark {
        if self.event == LoggedEvent::Closed { Watermark::END } else { self.progress.watermark() }
    }

    /// The rows it has.
    pub(crate) fn row_count(&self) -> usize {
        let here = self.block.as_ref().map_or(0, |block| block.rows.num_rows());
        here + self.away.as_ref().map_or(0, |away| away.rows)
    }

    /// The memory its rows take, here and elsewhere.
    pub(crate) fn bytes(&self) -> usize {
        let here = self.block.as_ref().map_or(0, |block| block.rows.get_array_memory_size());
        here + self.away.as_ref().map_or(0, |away| away.bytes)
    }
}

/// The usable rows of a split with their event times in nanoseconds, and the others.
#[derive(Debug)]
pub(crate) struct Timed {
    pub(crate) rows: RecordBatch,
    pub(crate) times: Int64Array,
    pub(crate) bad: Vec<BadRow>,
}

/// The rows of a split that begins at `first` whose event time, in `column`, can be told; the others are bad rows.
///
/// # Errors
/// Fails if the column is no timestamp.
pub(crate) fn timed(decoded: Decoded, first: Offset, column: usize) -> Result<Timed> {
    let Decoded { batch: rows, mut bad } = decoded;
    let times = event_times(&rows, column)?;
    if times.null_count() == 0 {
        return Ok(Timed { rows, times, bad });
    }
    bad.extend(rows_without_time(&rows, &times, column, first)?);
    let rows = filter_record_batch(&rows, &is_not_null(&times)?)?;
    let times = event_times(&rows, column)?;
    Ok(Timed { rows, times, bad })
}

/// The event times of a column, in nanoseconds; null where the column is, and outside the years 1677 to 2262, which
/// nanoseconds cannot count.
///
/// # Errors
/// Fails if the column is no timestamp.
pub(crate) fn event_times(rows: &RecordBatch, column: usize) -> Result<Int64Array> {
    let values = rows.columns().get(column).ok_or_else(|| Error::internal("no event-time column"))?;
    let DataType::Timestamp(_, zone) = values.data_type() else {
        return Err(Error::internal(format!("an event-time column of type {}", values.data_type())));
    };
    let nanos = cast(values, &DataType::Timestamp(TimeUnit::Nanosecond, zone.clone()))?;
    let nanos = cast(&nanos, &DataType::Int64)?;
    let nanos: &PrimitiveArray<Int64Type> = nanos.as_primitive();
    Ok(nanos.clone())
}

/// The rows whose time is null, as bad rows.
fn rows_without_time(rows: &RecordBatch, times: &Int64Array, column: usize, first: Offset) -> Result<Vec<BadRow>> {
    let options = FormatOptions::default();
    let formatters =
        rows.columns().iter().map(|column| ArrayFormatter::try_new(column, &options)).collect::<Result<Vec<_>, _>>()?;
    let name = rows.schema().fields().get(column).map(|field| field.name().clone());
    let unusable = (0..rows.num_rows()).filter(|row| times.is_null(*row));
    Ok(unusable
        .map(|row| BadRow {
            offset: Offset(first.0 + row as u64),
            place: format!("row {row} after offset {}", first.0),
            column: name.clone(),
            raw: formatters.iter().map(|values| values.value(row).to_string()).collect::<Vec<_>>().join(","),
            reason: "the event time is null or outside the years 1677 to 2262".to_owned(),
        })
        .collect())
}
