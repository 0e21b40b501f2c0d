//! Pane state as Parquet: plain columns that other programs can read.
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `pane` | Int64 | the pane's number; for a GROUP BY without window, the key partition |
//! | `pane_start` | Timestamp(ns), null without window | where the pane begins |
//! | `visible_from` | Timestamp(ns) | the first instant that may see the row |
//! | `key_partition` | Int32 | the key partition of the row's keys |
//! | … | | the keys, then the aggregates' state, or the row as the query needs it |
//!
//! Rows are in order of pane and `visible_from`.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray, Int32Array, Int64Array, TimestampNanosecondArray};
use datafusion::arrow::compute::{concat_batches, filter_record_batch};
use datafusion::arrow::datatypes::{
    DataType, Field, Int32Type, Int64Type, Schema, SchemaRef, TimeUnit, TimestampNanosecondType,
};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::parquet::arrow::ArrowWriter;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use datafusion::parquet::file::properties::{EnabledStatistics, WriterProperties};

use crate::arrays::batch_of;
use crate::checkpoint::image::{LeafImage, PaneEntry, PaneTag};
use crate::cluster::KeyRange;
use crate::error::Result;
use crate::state::key_partitions_of;
use crate::time::EventTime;
use crate::window::Pane;

/// The columns before those of the state.
const OWN_COLUMNS: usize = 4;
/// Rows decoded at a time.
const READ_ROWS: usize = 1 << 16;

/// The Parquet file of some of a leaf's entries, and how many rows it has; `None` if they are empty.
///
/// # Errors
/// Fails for columns that Parquet cannot hold, and as the disk fails that has state for want of memory.
pub(crate) fn write_panes(leaf: &LeafImage, entries: &[PaneEntry]) -> Result<Option<(Vec<u8>, u64)>> {
    let Some(state) = entries.iter().find_map(|entry| entry.state.schema()) else { return Ok(None) };
    let schema = file_schema(&state);
    let properties = WriterProperties::builder()
        .set_dictionary_enabled(false)
        .set_statistics_enabled(EnabledStatistics::None)
        .build();
    let parquet = |error| DataFusionError::ParquetError(Box::new(error));
    let mut writer = ArrowWriter::try_new(Vec::new(), Arc::clone(&schema), Some(properties)).map_err(parquet)?;
    let mut rows = 0;
    for entry in entries {
        for batch in entry.state.read()?.iter().filter(|batch| batch.num_rows() > 0) {
            rows += batch.num_rows() as u64;
            writer.write(&with_own_columns(leaf, entry, batch, &schema)?).map_err(parquet)?;
        }
    }
    Ok(Some((writer.into_inner().map_err(parquet)?, rows)))
}

fn file_schema(state: &SchemaRef) -> SchemaRef {
    let time = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let mut fields = vec![
        Field::new("pane", DataType::Int64, false),
        Field::new("pane_start", time.clone(), true),
        Field::new("visible_from", time, false),
        Field::new("key_partition", DataType::Int32, false),
    ];
    for field in state.fields() {
        // Two aggregates may give their states the same name, which Parquet readers would mix up.
        let mut name = field.name().clone();
        while fields.iter().any(|known| *known.name() == name) {
            name.push('_');
        }
        fields.push(Field::new(name, field.data_type().clone(), true));
    }
    Arc::new(Schema::new(fields))
}

fn with_own_columns(
    leaf: &LeafImage,
    entry: &PaneEntry,
    batch: &RecordBatch,
    schema: &SchemaRef,
) -> Result<RecordBatch> {
    let rows = batch.num_rows();
    let keys: Vec<ArrayRef> = batch.columns().iter().take(leaf.key_columns).cloned().collect();
    let partitions = key_partitions_of(&keys, rows, leaf.key_partitions)?;
    let partitions = partitions.into_iter().map(|partition| i32::try_from(partition).unwrap_or(i32::MAX));
    let start = leaf.window.map(|window| window.pane_bounds(entry.pane).0.0);
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_value(entry.pane.0, rows)),
        Arc::new(TimestampNanosecondArray::from(vec![start; rows])),
        Arc::new(TimestampNanosecondArray::from_value(entry.tag.0, rows)),
        Arc::new(Int32Array::from_iter_values(partitions)),
    ];
    columns.extend(batch.columns().iter().cloned());
    batch_of(schema, columns, rows)
}

/// The rows of a file whose entries `current` names, with all columns of the file.
///
/// # Errors
/// Fails if the file is not one of these.
pub(crate) fn read_current(bytes: Vec<u8>, current: &[PaneTag]) -> Result<RecordBatch> {
    let parquet = |error| DataFusionError::ParquetError(Box::new(error));
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).map_err(parquet)?;
    let schema = Arc::clone(builder.schema());
    let mut batches = Vec::new();
    for batch in builder.with_batch_size(READ_ROWS).build().map_err(parquet)? {
        let batch = batch?;
        let is_current: BooleanArray =
            tags_of(&batch).iter().map(|tag| Some(current.binary_search(tag).is_ok())).collect();
        batches.push(filter_record_batch(&batch, &is_current)?);
    }
    Ok(concat_batches(&schema, &batches)?)
}

/// Pane and first instant of each row.
fn tags_of(batch: &RecordBatch) -> Vec<PaneTag> {
    let panes = batch.column(0).as_primitive::<Int64Type>().values();
    let tags = batch.column(2).as_primitive::<TimestampNanosecondType>().values();
    panes.iter().zip(tags.iter()).map(|(pane, tag)| (Pane(*pane), EventTime(*tag))).collect()
}

/// The rows whose key partition is in `range`.
fn within(batch: &RecordBatch, range: KeyRange) -> Result<RecordBatch> {
    let partitions = batch.column(3).as_primitive::<Int32Type>().values();
    let is_within: BooleanArray =
        partitions.iter().map(|partition| u32::try_from(*partition).ok().map(|known| range.contains(known))).collect();
    Ok(filter_record_batch(batch, &is_within)?)
}

/// The entries of a file that `current` names, with the columns of `state`; of one range of key partitions if that is
/// all that is wanted.
///
/// # Errors
/// Fails if the file is not one of these, or its columns are not those of `state`.
pub(crate) fn read_panes(
    bytes: Vec<u8>,
    current: &[PaneTag],
    state: &SchemaRef,
    range: Option<KeyRange>,
) -> Result<Vec<PaneEntry>> {
    let parquet = |error| DataFusionError::ParquetError(Box::new(error));
    let builder = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes)).map_err(parquet)?;
    let reader = builder.with_batch_size(READ_ROWS).build().map_err(parquet)?;
    let mut entries: Vec<PaneEntry> = Vec::new();
    for batch in reader {
        let batch = match range {
            Some(range) => within(&batch?, range)?,
            None => batch?,
        };
        let pairs = tags_of(&batch);
        let columns: Vec<ArrayRef> = batch.columns().iter().skip(OWN_COLUMNS).cloned().collect();
        let rows = batch_of(state, columns, batch.num_rows())?;
        let mut at = 0;
        for run in pairs.chunk_by(|a, b| a == b) {
            let Some((pane, tag)) = run.first().copied() else { continue };
            if current.binary_search(&(pane, tag)).is_ok() {
                let part = rows.slice(at, run.len());
                match entries.last_mut().filter(|entry| (entry.pane, entry.tag) == (pane, tag)) {
                    Some(entry) => entry.state.extend(vec![part]),
                    None => entries.push(PaneEntry { pane, tag, state: vec![part].into() }),
                }
            }
            at += run.len();
        }
    }
    Ok(entries)
}
