//! What the database sinks share: the table that rows go to, how they go there, and the ledger beside it.

use datafusion::arrow::array::{Array, ArrayRef, AsArray, StringArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::batch::Epoch;
use millstream_engine::{Error, Result};

use crate::options::Options;

/// The ledger: the last epoch of each query in each table, and who may write the next.
pub(super) const CREATE_LEDGER: &str = "CREATE TABLE IF NOT EXISTS millstream_ledger (
    query TEXT NOT NULL, sink_table TEXT NOT NULL, term BIGINT NOT NULL, epoch BIGINT,
    PRIMARY KEY (query, sink_table))";

/// A table and how rows go into it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Relation {
    /// Its name as given, with its schema if that was given.
    pub(super) table: String,
    /// The columns of which there is one row per value; empty where rows are appended.
    pub(super) key: Vec<String>,
}

impl Relation {
    /// Reads `table`, `mode` and `key`; `sink` is the name of the sink, which the table has unless told otherwise.
    ///
    /// # Errors
    /// Fails for an upsert without a key and for a key without an upsert.
    pub(super) fn from_options(options: &mut Options<'_>, sink: &str) -> Result<Self> {
        let table = options.string("table").unwrap_or(sink).to_owned();
        let upserts = options.choice("mode", &[("append", false), ("upsert", true)])?.unwrap_or(false);
        let key = options.string("key").unwrap_or_default();
        let key: Vec<_> = key.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect();
        match (upserts, key.is_empty()) {
            (true, true) => {
                let message = format!("sink {sink:?} has mode = 'upsert' and no key");
                Err(Error::query(message, "add key = 'column, column': the columns that name a row"))
            }
            (false, false) => {
                let message = format!("sink {sink:?} has a key and appends");
                Err(Error::query(message, "add mode = 'upsert', or remove the key"))
            }
            _ => Ok(Self { table, key }),
        }
    }

    /// Checks that the key is among the columns.
    ///
    /// # Errors
    /// Names the column that is not.
    pub(super) fn check_key(&self, schema: &Schema) -> Result<()> {
        let Some(missing) = self.key.iter().find(|key| schema.field_with_name(key).is_err()) else { return Ok(()) };
        let names: Vec<_> = schema.fields().iter().map(|field| field.name().as_str()).collect();
        let message = format!("the key column {missing:?} is no column of the result");
        Err(Error::query(message, format!("the result has: {}", names.join(", "))))
    }

    /// Checks that every row has a value in every column of the key: a NULL is equal to no other, so that a table made
    /// by hand would take such rows again and again.
    ///
    /// # Errors
    /// Names the column that has none.
    pub(super) fn check_key_values(&self, schema: &Schema, rows: &[RecordBatch]) -> Result<()> {
        for batch in rows {
            for (field, array) in schema.fields().iter().zip(batch.columns()) {
                if self.key.contains(field.name()) && array.logical_null_count() > 0 {
                    let message = format!("the key column {:?} is NULL in a row of the result", field.name());
                    return Err(Error::data(message, format!("filter with WHERE {} IS NOT NULL", field.name())));
                }
            }
        }
        Ok(())
    }

    /// The table's name as SQL.
    pub(super) fn quoted_table(&self) -> String {
        self.table.split('.').map(quoted).collect::<Vec<_>>().join(".")
    }

    /// The statement that makes the table, with the SQL type that `kind` gives each column.
    ///
    /// # Errors
    /// Fails as `kind` does.
    pub(super) fn create_table(
        &self,
        schema: &Schema,
        kind: impl Fn(&str, &DataType) -> Result<String>,
    ) -> Result<String> {
        let mut columns = Vec::new();
        for field in schema.fields() {
            let is_key = self.key.contains(field.name());
            let not_null = if is_key { " NOT NULL" } else { "" };
            columns.push(format!("{} {}{not_null}", quoted(field.name()), kind(field.name(), field.data_type())?));
        }
        if !self.key.is_empty() {
            columns.push(format!("PRIMARY KEY ({})", list(&self.key)));
        }
        Ok(format!("CREATE TABLE IF NOT EXISTS {} ({})", self.quoted_table(), columns.join(", ")))
    }

    /// What an INSERT does with rows that are there already; empty where rows are appended.
    pub(super) fn on_conflict(&self, schema: &Schema) -> String {
        if self.key.is_empty() {
            return String::new();
        }
        let others = schema.fields().iter().map(|field| field.name()).filter(|name| !self.key.contains(name));
        let set: Vec<_> = others.map(|name| format!("{0} = excluded.{0}", quoted(name))).collect();
        let action = if set.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", set.join(", ")) };
        format!(" ON CONFLICT ({}) DO {action}", list(&self.key))
    }

    /// The error for a table that another query writes to, or wrote to.
    pub(super) fn holds_earlier_results(&self, place: &str) -> Error {
        let message = format!("table {} of {place} holds the results of an earlier run", self.table);
        Error::query(message, "name another table, or drop it together with its lines in millstream_ledger")
    }
}

/// A name as SQL.
pub(super) fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// Names as SQL, with commas.
pub(super) fn list<T: AsRef<str>>(names: &[T]) -> String {
    names.iter().map(|name| quoted(name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// The names of all columns.
pub(super) fn names(schema: &Schema) -> Vec<String> {
    schema.fields().iter().map(|field| field.name().clone()).collect()
}

/// The error for a column of a type that a database does not have.
pub(super) fn unsupported(column: &str, kind: &DataType, database: &str) -> Error {
    let message = format!("column {column:?} has the type {kind}, which {database} has no place for");
    Error::query(message, "cast it to a text, a number or a timestamp in the query")
}

/// A column as another type; a value that does not fit is an error.
///
/// # Errors
/// Names the column and the value.
pub(super) fn converted(column: &str, array: &ArrayRef, kind: &DataType) -> Result<ArrayRef> {
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    cast_with_options(array, kind, &strict).map_err(|error| {
        let message = format!("column {column:?} cannot be written: {error}");
        Error::data(message, "cast it in the query")
    })
}

/// A column as text: numbers and timestamps as SQL writes them, the fraction of a second as long as it needs to be.
///
/// # Errors
/// Names the column and the value.
pub(super) fn as_text(column: &str, array: &ArrayRef) -> Result<StringArray> {
    Ok(converted(column, array, &DataType::Utf8)?.as_string::<i32>().clone())
}

/// Whether a value is there.
pub(super) fn present<T>(array: &dyn Array, row: usize, value: impl FnOnce() -> T) -> Option<T> {
    array.is_valid(row).then(value)
}

/// A term or epoch as databases have it; they are counted from 0 and never come near the limit.
pub(super) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// An epoch as a database has it.
pub(super) fn epoch_of(number: i64) -> Epoch {
    Epoch(u64::try_from(number).unwrap_or_default())
}
