//! Arrow columns as values of SQLite.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, Float64Array, Int64Array, StringArray};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use millstream_engine::{Error, Result};
use rusqlite::types::Value;

use super::super::relation::{as_text, converted, present, unsupported};

/// The type that a column has in the table: what SQLite has no type for is a text that reads the same everywhere.
///
/// # Errors
/// Fails for types that have no such text.
pub(super) fn sql_type(column: &str, kind: &DataType) -> Result<String> {
    Ok(match kind {
        _ if kind.is_integer() => "INTEGER",
        DataType::Boolean => "INTEGER",
        _ if kind.is_floating() => "REAL",
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => "BLOB",
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => "TEXT",
        DataType::Timestamp(..) | DataType::Date32 | DataType::Date64 => "TEXT",
        DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..) | DataType::Decimal256(..) => {
            "TEXT"
        }
        DataType::Dictionary(_, value) => return sql_type(column, value),
        other => return Err(unsupported(column, other, "SQLite")),
    }
    .to_owned())
}

/// A column whose values SQLite takes.
#[derive(Debug)]
pub(super) struct Column<'a> {
    name: &'a str,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Integer(Int64Array),
    Real(Float64Array),
    Text(StringArray),
    Blob(BinaryArray),
}

impl<'a> Column<'a> {
    /// The values of `array`.
    ///
    /// # Errors
    /// Names the column and a value that SQLite cannot hold.
    pub(super) fn new(name: &'a str, array: &ArrayRef) -> Result<Self> {
        let values = match sql_type(name, array.data_type())?.as_str() {
            "INTEGER" => Values::Integer(converted(name, array, &DataType::Int64)?.as_primitive::<Int64Type>().clone()),
            "REAL" => Values::Real(converted(name, array, &DataType::Float64)?.as_primitive::<Float64Type>().clone()),
            "BLOB" => Values::Blob(converted(name, array, &DataType::Binary)?.as_binary::<i32>().clone()),
            _ => Values::Text(as_text(name, array)?),
        };
        Ok(Self { name, values })
    }

    /// The value of a row.
    ///
    /// # Errors
    /// Fails for NaN, which SQLite would turn into a null.
    pub(super) fn value(&self, row: usize) -> Result<Value> {
        let value = match &self.values {
            Values::Integer(array) => present(array, row, || Value::Integer(array.value(row))),
            Values::Real(array) => present(array, row, || Value::Real(array.value(row))),
            Values::Text(array) => present(array, row, || Value::Text(array.value(row).to_owned())),
            Values::Blob(array) => present(array, row, || Value::Blob(array.value(row).to_vec())),
        };
        match value {
            Some(Value::Real(number)) if number.is_nan() => {
                let message = format!("column {:?} holds NaN, which SQLite would turn into NULL", self.name);
                Err(Error::data(message, "use NULLIF or CASE in the query"))
            }
            other => Ok(other.unwrap_or(Value::Null)),
        }
    }
}
