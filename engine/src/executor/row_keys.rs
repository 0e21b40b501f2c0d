//! The keys of rows as bytes that can be compared and hashed.

use datafusion::arrow::datatypes::Schema;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::row::{RowConverter, Rows, SortField};

use crate::error::{Error, Result};
use crate::program::Selection;

/// Encodes the keys of kept rows; NULL is a key like any other, as in GROUP BY.
#[derive(Debug)]
pub(super) struct RowKeys {
    columns: Vec<usize>,
    converter: Option<RowConverter>,
}

/// The keys of some rows.
#[derive(Debug)]
pub(super) struct EncodedKeys(Option<Rows>);

impl RowKeys {
    /// For the keys of `selection` among the columns of `schema`.
    pub(super) fn new(selection: &Selection, schema: &Schema) -> Result<Self> {
        let columns = selection.keys.clone();
        let fields = columns
            .iter()
            .map(|index| match schema.fields().get(*index) {
                Some(field) => Ok(SortField::new(field.data_type().clone())),
                None => Err(Error::internal("kept rows lack a key")),
            })
            .collect::<Result<Vec<_>>>()?;
        let converter = if fields.is_empty() { None } else { Some(RowConverter::new(fields)?) };
        Ok(Self { columns, converter })
    }

    /// The keys of `rows`.
    pub(super) fn of(&self, rows: &RecordBatch) -> Result<EncodedKeys> {
        let Some(converter) = &self.converter else { return Ok(EncodedKeys(None)) };
        Ok(EncodedKeys(Some(converter.convert_columns(rows.project(&self.columns)?.columns())?)))
    }
}

impl EncodedKeys {
    /// The key of a row; the empty one for all where there are no key columns.
    pub(super) fn get(&self, row: usize) -> &[u8] {
        match &self.0 {
            Some(rows) => rows.row(row).data(),
            None => &[],
        }
    }
}
