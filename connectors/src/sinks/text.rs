//! Batches as CSV and JSON lines, for the console and for files alike.
//!
//! Timestamps are ISO 8601, with a fraction only where it is not zero; a null is empty in CSV and `null` in JSON.

use std::io::Write;
use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, RecordBatchOptions, StringArray};
use datafusion::arrow::csv;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::json::LineDelimitedWriter;
use datafusion::arrow::json::WriterBuilder as JsonBuilder;
use datafusion::arrow::json::writer::{JsonArray, LineDelimited};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_engine::Result;

/// Writes the rows as CSV, with the names of the columns before them if `has_header`.
pub(super) fn write_csv<W: Write>(output: W, batch: &RecordBatch, has_header: bool) -> Result<()> {
    Ok(csv::WriterBuilder::new().with_header(has_header).build(output).write(&flat(batch)?)?)
}

/// The rows with lists, structs and maps as text, which CSV has no other form for: `{start: …, end: …}`.
fn flat(batch: &RecordBatch) -> Result<RecordBatch> {
    let options = FormatOptions::new().with_null("NULL");
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        if !field.data_type().is_nested() {
            fields.push(Arc::clone(field));
            columns.push(Arc::clone(column));
            continue;
        }
        let formatter = ArrayFormatter::try_new(column.as_ref(), &options)?;
        let text = (0..column.len()).map(|row| column.is_valid(row).then(|| formatter.value(row).to_string()));
        fields.push(Arc::new(Field::new(field.name(), DataType::Utf8, true)));
        columns.push(Arc::new(text.collect::<StringArray>()) as ArrayRef);
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?)
}

/// Writes the rows as one JSON object a line, every column in each.
pub(super) fn write_json<W: Write>(output: W, batch: &RecordBatch) -> Result<()> {
    let mut writer: LineDelimitedWriter<W> =
        JsonBuilder::new().with_explicit_nulls(true).build::<_, LineDelimited>(output);
    writer.write(batch)?;
    Ok(writer.finish()?)
}

/// The rows as one JSON array of objects, every column in each.
pub(super) fn write_json_array(batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let mut output = Vec::new();
    let mut writer = JsonBuilder::new().with_explicit_nulls(true).build::<_, JsonArray>(&mut output);
    batches.iter().try_for_each(|batch| writer.write(batch))?;
    writer.finish()?;
    drop(writer);
    Ok(output)
}

#[cfg(test)]
pub(super) mod tests {
    use datafusion::arrow::array::{Float64Array, Int64Array, TimestampNanosecondArray};

    use super::*;

    /// One column `n`.
    pub(crate) fn numbers(values: &[i64]) -> RecordBatch {
        let array: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
        RecordBatch::try_from_iter([("n", array)]).unwrap()
    }

    /// Two windows, a text with a comma, nulls in every column but the first.
    pub(crate) fn prices() -> RecordBatch {
        let ends = vec![Some(1_381_138_200_000_000_000), Some(1_381_138_200_500_000_000)];
        RecordBatch::try_from_iter_with_nullable([
            ("window_end", Arc::new(TimestampNanosecondArray::from(ends)) as ArrayRef, true),
            ("szcode", Arc::new(StringArray::from(vec![Some("600519,A"), None])), true),
            ("trades", Arc::new(Int64Array::from(vec![Some(7), None])), true),
            ("price", Arc::new(Float64Array::from(vec![Some(12.5), None])), true),
        ])
        .unwrap()
    }

    #[test]
    fn csv_quotes_what_must_be_and_leaves_nulls_empty() {
        let mut output = Vec::new();
        write_csv(&mut output, &prices(), true).unwrap();
        let expected = "window_end,szcode,trades,price\n2013-10-07T09:30:00,\"600519,A\",7,12.5\n\
                        2013-10-07T09:30:00.500,,,\n";
        assert_eq!(String::from_utf8(output).unwrap(), expected);
    }

    #[test]
    fn json_names_every_column_in_every_line() {
        let mut output = Vec::new();
        write_json(&mut output, &prices()).unwrap();
        let expected = concat!(
            "{\"window_end\":\"2013-10-07T09:30:00\",\"szcode\":\"600519,A\",\"trades\":7,\"price\":12.5}\n",
            "{\"window_end\":\"2013-10-07T09:30:00.500\",\"szcode\":null,\"trades\":null,\"price\":null}\n",
        );
        assert_eq!(String::from_utf8(output).unwrap(), expected);
    }
}
