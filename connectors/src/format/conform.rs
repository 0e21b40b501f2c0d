//! Batches of a file's own columns into batches of the declared ones.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_engine::source::{BadRow, Decode, Decoded, Offset};
use millstream_engine::{Error, Result};

use super::column::sql_name;
use super::rows::{RowShape, cut_raw, drop_rows};

/// Finds the declared columns among those of a file, by exact name first, then regardless of case.
///
/// # Errors
/// Fails if a column is missing, or is a number where a timestamp is declared and no unit is known.
pub(crate) fn find_columns(shape: &RowShape, file: &Schema, place: &str) -> Result<Vec<usize>> {
    let columns = shape.declared.iter().zip(shape.schema.fields());
    columns.map(|(name, field)| find_column(shape, file, place, name, field)).collect()
}

fn find_column(shape: &RowShape, file: &Schema, place: &str, name: &str, declared: &Field) -> Result<usize> {
    let exact = file.fields().iter().position(|field| field.name() == name);
    let found = exact.or_else(|| file.fields().iter().position(|field| field.name().eq_ignore_ascii_case(name)));
    let Some(index) = found else {
        let names: Vec<_> = file.fields().iter().map(|field| field.name().as_str()).collect();
        let message = format!("{place} has no column {name:?}; it has: {}", names.join(", "));
        return Err(Error::data(message, "declare the columns as the file names them"));
    };
    let kind = file.field(index).data_type();
    let is_unit_missing = kind.is_integer() && declared.data_type().is_temporal() && shape.timestamp_unit.is_none();
    if is_unit_missing && matches!(declared.data_type(), DataType::Timestamp(_, _)) {
        let message = format!("column {name:?} of {place} holds numbers, not timestamps");
        return Err(Error::data(message, "set timestamp_unit = 's', 'ms', 'us' or 'ns'"));
    }
    Ok(index)
}

/// A batch of a file, not yet in the declared columns.
#[derive(Debug)]
pub(crate) struct ColumnarPiece {
    /// What the rows look like.
    pub(crate) shape: Arc<RowShape>,
    /// The file's columns that are declared, in the order of the declaration.
    pub(crate) arrays: Vec<ArrayRef>,
    /// How many rows.
    pub(crate) rows: usize,
    /// The offset of the first.
    pub(crate) start: Offset,
    /// What messages call the file, and how many of its rows come before.
    pub(crate) place: (Arc<str>, u64),
}

impl Decode for ColumnarPiece {
    fn decode(self: Box<Self>) -> Result<Decoded> {
        let shape = &self.shape;
        let mut arrays = Vec::with_capacity(self.arrays.len());
        let mut faults: Vec<(usize, usize, String)> = Vec::new();
        for (index, (array, field)) in self.arrays.iter().zip(shape.schema.fields()).enumerate() {
            let converted = self.convert(array, field.data_type())?;
            self.find_faults(index, array, &converted, &mut faults)?;
            arrays.push(converted);
        }
        faults.sort_by_key(|(row, column, _)| (*row, *column));
        faults.dedup_by_key(|(row, _, _)| *row);
        if !faults.is_empty() {
            let rows: Vec<_> = faults.iter().map(|(row, _, _)| *row).collect();
            arrays = drop_rows(&arrays, self.rows, &rows)?;
        }
        let bad = faults.into_iter().map(|fault| self.bad_row(fault)).collect::<Result<_>>()?;
        Ok(Decoded { batch: RecordBatch::try_new(Arc::clone(&shape.schema), arrays)?, bad })
    }
}

impl ColumnarPiece {
    /// The values in the declared type; those that do not fit become null.
    fn convert(&self, array: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
        let unit = self.shape.timestamp_unit;
        let timestamps = match (unit, kind) {
            (Some(unit), DataType::Timestamp(_, zone)) if array.data_type().is_integer() => {
                let numbers = cast(array, &DataType::Int64)?;
                &cast(&numbers, &DataType::Timestamp(unit, zone.clone()))?
            }
            _ => array,
        };
        if timestamps.data_type() == kind {
            return Ok(Arc::clone(timestamps));
        }
        cast(timestamps, kind).map_err(|error| {
            let context = format!("{}: a column of type {} as {}", self.place.0, array.data_type(), sql_name(kind));
            Error::external(context, error)
        })
    }

    fn find_faults(
        &self,
        index: usize,
        array: &ArrayRef,
        converted: &ArrayRef,
        faults: &mut Vec<(usize, usize, String)>,
    ) -> Result<()> {
        if converted.null_count() == 0 {
            return Ok(());
        }
        let refuses_null = self.shape.refuse_null(index);
        for row in (0..self.rows).filter(|row| converted.is_null(*row)) {
            match &refuses_null {
                _ if array.is_valid(row) => {
                    let text = format_value(array, row)?;
                    faults.push((row, index, self.shape.refuse_value(index, &text)));
                }
                Some(reason) => faults.push((row, index, reason.clone())),
                None => {}
            }
        }
        Ok(())
    }

    fn bad_row(&self, (row, column, reason): (usize, usize, String)) -> Result<BadRow> {
        let values = self.arrays.iter().map(|array| format_value(array, row)).collect::<Result<Vec<_>>>()?;
        Ok(BadRow {
            offset: Offset(self.start.0 + row as u64),
            place: format!("{} row {}", self.place.0, self.place.1 + row as u64 + 1),
            column: Some(self.shape.name(column).to_owned()),
            raw: cut_raw(values.join(",").as_bytes()),
            reason,
        })
    }
}

fn format_value(array: &ArrayRef, row: usize) -> Result<String> {
    let options = FormatOptions::default();
    Ok(ArrayFormatter::try_new(array.as_ref(), &options)?.value(row).to_string())
}
