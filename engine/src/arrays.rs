//! Batches that may have no column (`COUNT(*)` keeps none, and only the number of rows is left to go by), and batches
//! that hold more memory than their rows use.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, GenericByteViewArray, ListArray, UInt32Array};
use datafusion::arrow::buffer::{Buffer, OffsetBuffer};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{ByteViewType, DataType, FieldRef, SchemaRef};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};

use crate::error::Result;

/// What a batch may hold without using it: copying less than that would save nothing.
const UNUSED_BYTES: usize = 1 << 14;

/// A batch of `rows` rows, even where there is no column.
pub(crate) fn batch_of(schema: &SchemaRef, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    Ok(RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)?)
}

/// The rows of `batch` with these indices, in their order.
pub(crate) fn take_rows(batch: &RecordBatch, indices: &UInt32Array) -> Result<RecordBatch> {
    if batch.num_columns() == 0 {
        return batch_of(&batch.schema(), Vec::new(), indices.len());
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

/// The batch, copied if its rows are the smaller part of the buffers that it holds.
///
/// A slice keeps all that it was cut from in memory, and counts all of it: a block cut into panes is counted, and kept
/// as long as the last of them, once for each.
pub fn without_waste(batch: RecordBatch) -> Result<RecordBatch> {
    let held = batch.get_array_memory_size();
    let Ok(rows) = u32::try_from(batch.num_rows()) else { return Ok(batch) };
    if held <= UNUSED_BYTES || held - UNUSED_BYTES <= 2 * used_bytes(&batch)? {
        return Ok(batch);
    }
    compact_views(&take_rows(&batch, &UInt32Array::from_iter_values(0..rows))?)
}

/// The bytes of the rows themselves, without those of others that share their buffers; of lists that were sliced, all
/// elements.
///
/// # Errors
/// Fails only for columns that are not whole.
pub fn used_bytes(batch: &RecordBatch) -> Result<usize> {
    let mut used = 0;
    for column in batch.columns() {
        // For views this is without the strings.
        used += column.to_data().get_slice_memory_size()?;
        used += match column.data_type() {
            DataType::Utf8View => column.as_string_view().total_buffer_bytes_used(),
            DataType::BinaryView => column.as_binary_view().total_buffer_bytes_used(),
            _ => 0,
        };
    }
    Ok(used)
}

/// The batch, with the strings of views copied where the views refer to the smaller part of their buffers.
///
/// Slices of views and rows taken from them share whole buffers, and the IPC format writes buffers whole.
pub(crate) fn compact_views(batch: &RecordBatch) -> Result<RecordBatch> {
    if !batch.schema().fields().iter().any(|field| has_views(field.data_type())) {
        return Ok(batch.clone());
    }
    let columns = batch.columns().iter().map(compact_column).collect::<Result<Vec<_>>>()?;
    batch_of(&batch.schema(), columns, batch.num_rows())
}

fn has_views(kind: &DataType) -> bool {
    match kind {
        DataType::Utf8View | DataType::BinaryView => true,
        DataType::List(element) => has_views(element.data_type()),
        _ => false,
    }
}

fn compact_column(column: &ArrayRef) -> Result<ArrayRef> {
    Ok(match column.data_type() {
        DataType::Utf8View => compact_view(column, column.as_string_view()),
        DataType::BinaryView => compact_view(column, column.as_binary_view()),
        DataType::List(element) if has_views(element.data_type()) => compact_list(column.as_list(), element)?,
        _ => Arc::clone(column),
    })
}

fn compact_view<T: ByteViewType>(column: &ArrayRef, views: &GenericByteViewArray<T>) -> ArrayRef {
    let held: usize = views.data_buffers().iter().map(Buffer::capacity).sum();
    if held <= 2 * views.total_buffer_bytes_used() { Arc::clone(column) } else { Arc::new(views.gc()) }
}

/// The list with those of its elements only that it shows, compacted: `array_agg` of strings keeps such lists.
fn compact_list(list: &ListArray, element: &FieldRef) -> Result<ArrayRef> {
    let first = list.value_offsets().first().copied().unwrap_or_default();
    let last = list.value_offsets().last().copied().unwrap_or_default();
    let start = usize::try_from(first).unwrap_or_default();
    let count = usize::try_from(last - first).unwrap_or_default();
    let values = compact_column(&list.values().slice(start, count))?;
    let offsets = OffsetBuffer::new(list.value_offsets().iter().map(|offset| offset - first).collect());
    Ok(Arc::new(ListArray::try_new(Arc::clone(element), offsets, values, list.nulls().cloned())?))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ListBuilder, StringViewArray, StringViewBuilder};

    use super::*;

    const WORD: &str = "a string that is longer than the twelve bytes of a view";

    fn batch_with(column: ArrayRef) -> RecordBatch {
        RecordBatch::try_from_iter([("k", column)]).unwrap()
    }

    fn words(count: usize) -> RecordBatch {
        batch_with(Arc::new((0..count).map(|number| Some(format!("{WORD} {number}"))).collect::<StringViewArray>()))
    }

    #[test]
    fn a_small_slice_does_not_keep_the_whole_in_memory() {
        let whole = words(4_096);
        let slice = whole.slice(100, 50);
        let alone = without_waste(slice.clone()).unwrap();
        assert_eq!(alone, slice);
        assert!(slice.get_array_memory_size() > 4_096 * WORD.len());
        assert!(alone.get_array_memory_size() < 100 * WORD.len() + UNUSED_BYTES);
    }

    #[test]
    fn a_batch_that_uses_most_of_what_it_holds_is_not_copied() {
        let whole = words(4_096);
        let same = without_waste(whole.slice(0, 4_000)).unwrap();
        let buffer = |batch: &RecordBatch| batch.column(0).as_string_view().data_buffers()[0].as_ptr();
        assert_eq!(buffer(&same), buffer(&whole));
    }

    #[test]
    fn lists_of_views_are_compacted_with_their_nulls_and_empty_ones() {
        let mut lists = ListBuilder::new(StringViewBuilder::new());
        for number in 0..3_000 {
            if number % 3 > 0 {
                lists.values().append_value(format!("{WORD} {number}"));
            }
            lists.append(number % 3 < 2);
        }
        let slice = batch_with(Arc::new(lists.finish())).slice(1_000, 20);
        let alone = compact_views(&slice).unwrap();
        assert_eq!(alone, slice);
        assert_eq!(alone.column(0).as_list::<i32>().values().len(), 14);
        assert!(alone.get_array_memory_size() < 60 * WORD.len());
    }
}
