//! Rows in the text format of PostgreSQL's COPY: columns between tabs, rows between newlines, `\N` for null.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray, TimestampNanosecondArray};
use datafusion::arrow::datatypes::{DataType, Schema, TimeUnit, TimestampNanosecondType};
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::{Error, Result};

use super::super::relation::{as_text, converted, unsupported};

/// The type that a column has in the table.
///
/// # Errors
/// Fails for types that are not written.
pub(super) fn sql_type(column: &str, kind: &DataType) -> Result<String> {
    Ok(match kind {
        DataType::Boolean => "boolean",
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "smallint",
        DataType::Int32 | DataType::UInt16 => "integer",
        DataType::Int64 | DataType::UInt32 => "bigint",
        DataType::UInt64 => "numeric(20,0)",
        DataType::Float16 | DataType::Float32 => "real",
        DataType::Float64 => "double precision",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => "text",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "bytea",
        DataType::Date32 | DataType::Date64 => "date",
        DataType::Timestamp(_, None) => "timestamp",
        DataType::Timestamp(_, Some(_)) => "timestamptz",
        DataType::Decimal32(p, s) | DataType::Decimal64(p, s) | DataType::Decimal128(p, s) => {
            return Ok(format!("numeric({p},{s})"));
        }
        DataType::Decimal256(p, s) => return Ok(format!("numeric({p},{s})")),
        DataType::Dictionary(_, value) => return sql_type(column, value),
        other => return Err(unsupported(column, other, "PostgreSQL")),
    }
    .to_owned())
}

/// The rows as COPY takes them, each with its number at its end if `is_numbered`.
///
/// # Errors
/// Names the column and a value that PostgreSQL cannot hold.
pub(super) fn copy_text(schema: &Schema, rows: &[RecordBatch], is_numbered: bool) -> Result<Vec<u8>> {
    let mut text = String::new();
    let mut number = 0_u64;
    for batch in rows {
        let fields = schema.fields().iter().zip(batch.columns());
        let columns = fields.map(|(field, array)| column_text(field.name(), array)).collect::<Result<Vec<_>>>()?;
        for row in 0..batch.num_rows() {
            for (index, column) in columns.iter().enumerate() {
                if index > 0 {
                    text.push('\t');
                }
                if column.is_null(row) {
                    text.push_str("\\N");
                } else {
                    push_escaped(&mut text, column.value(row));
                }
            }
            if is_numbered {
                text.push_str(&format!("\t{number}"));
                number += 1;
            }
            text.push('\n');
        }
    }
    Ok(text.into_bytes())
}

fn column_text(name: &str, array: &ArrayRef) -> Result<StringArray> {
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            check_microseconds(name, array.as_primitive::<TimestampNanosecondType>())?;
            as_text(name, array)
        }
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => {
            let bytes = converted(name, array, &DataType::Binary)?;
            Ok(bytes.as_binary::<i32>().iter().map(|value| value.map(hex)).collect())
        }
        _ => {
            let text = as_text(name, array)?;
            if text.iter().flatten().any(|value| value.contains('\0')) {
                let message = format!("column {name:?} holds a text with a zero byte, which PostgreSQL cannot hold");
                return Err(Error::data(message, "use REPLACE in the query"));
            }
            Ok(text)
        }
    }
}

/// PostgreSQL would round what is finer.
fn check_microseconds(name: &str, array: &TimestampNanosecondArray) -> Result<()> {
    let Some(value) = array.iter().flatten().find(|value| value % 1_000 != 0) else { return Ok(()) };
    let message = format!("column {name:?} holds {value} ns since 1970, which is finer than PostgreSQL's microseconds");
    Err(Error::data(message, "use date_trunc('microsecond', …) in the query"))
}

fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("\\x{digits}")
}

fn push_escaped(text: &mut String, value: &str) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{BinaryArray, BooleanArray, Float64Array};

    use super::super::super::text::tests::prices;
    use super::*;

    fn text(array: impl Array + 'static) -> Result<String> {
        let batch = RecordBatch::try_from_iter([("c", Arc::new(array) as ArrayRef)]).unwrap();
        let text = copy_text(&batch.schema(), &[batch], false)?;
        Ok(String::from_utf8(text).unwrap())
    }

    #[test]
    fn rows_are_columns_between_tabs() {
        let batch = prices();
        let text = String::from_utf8(copy_text(&batch.schema(), &[batch], true).unwrap()).unwrap();
        let expected = "2013-10-07T09:30:00\t600519,A\t7\t12.5\t0\n2013-10-07T09:30:00.500\t\\N\t\\N\t\\N\t1\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn what_has_a_meaning_in_copy_is_escaped() {
        assert_eq!(text(StringArray::from(vec!["a\tb\\N\n\r"])).unwrap(), "a\\tb\\\\N\\n\\r\n");
        assert_eq!(text(BinaryArray::from(vec![b"\x00\xff".as_slice()])).unwrap(), "\\\\x00ff\n");
        assert_eq!(text(BooleanArray::from(vec![true])).unwrap(), "true\n");
        assert_eq!(text(Float64Array::from(vec![f64::NAN, f64::NEG_INFINITY])).unwrap(), "NaN\n-inf\n");
    }

    #[test]
    fn what_postgres_cannot_hold_is_refused() {
        let error = text(TimestampNanosecondArray::from(vec![1_500])).unwrap_err();
        assert!(error.to_string().contains("finer than PostgreSQL's microseconds"), "{error}");
        let error = text(StringArray::from(vec!["a\0"])).unwrap_err();
        assert!(error.to_string().contains("a zero byte"), "{error}");
    }
}
