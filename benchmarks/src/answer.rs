//! Columns of an answer, by their names.

use anyhow::Context;
use datafusion::arrow::array::{AsArray, PrimitiveArray, StringArray};
use datafusion::arrow::datatypes::ArrowPrimitiveType;
use datafusion::arrow::record_batch::RecordBatch;

/// A column of text.
pub(crate) fn texts<'a>(batch: &'a RecordBatch, name: &str) -> anyhow::Result<&'a StringArray> {
    let column = batch.column_by_name(name).with_context(|| format!("no column {name}"))?;
    column.as_string_opt::<i32>().with_context(|| format!("{name} is no text"))
}

/// A column of numbers of that type.
pub(crate) fn numbers<'a, T: ArrowPrimitiveType>(
    batch: &'a RecordBatch,
    name: &str,
) -> anyhow::Result<&'a PrimitiveArray<T>> {
    let column = batch.column_by_name(name).with_context(|| format!("no column {name}"))?;
    column.as_primitive_opt::<T>().with_context(|| format!("{name} is {}, not {}", column.data_type(), T::DATA_TYPE))
}
