//! The last row of each group of a relation whose groups change.

use std::collections::HashMap;

use datafusion::arrow::compute::interleave_record_batch;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::row::{OwnedRow, RowConverter, SortField};
use millstream_engine::Result;

/// Rows of a batch that is made of the rows that count.
const BATCH_ROWS: usize = 8192;
/// Rows that may be kept in vain, besides as many as there are groups.
const IDLE_ROWS: usize = 1 << 16;
/// Parts that come before the rows are put together: each is an entry of the file.
const MANY_PARTS: usize = 1 << 10;

/// Rows by key; a row takes the place of the one that has its key.
#[derive(Debug)]
pub(super) struct Groups {
    key: Vec<usize>,
    converter: RowConverter,
    /// The batch and the row in it that each key has.
    places: HashMap<OwnedRow, (usize, usize)>,
    batches: Vec<RecordBatch>,
    rows: usize,
    /// Parts since the rows were put together.
    parts: usize,
}

impl Groups {
    /// No groups yet; these columns tell them apart.
    ///
    /// # Errors
    /// Fails for columns of types that cannot be compared.
    pub(super) fn new(schema: &SchemaRef, key: &[usize]) -> Result<Self> {
        let fields = key.iter().filter_map(|index| schema.fields().get(*index));
        let fields = fields.map(|field| SortField::new(field.data_type().clone())).collect();
        Ok(Self {
            key: key.to_vec(),
            converter: RowConverter::new(fields)?,
            places: HashMap::new(),
            batches: Vec::new(),
            rows: 0,
            parts: 0,
        })
    }

    /// Takes rows in, the later ones in place of the earlier.
    ///
    /// # Errors
    /// Fails if the rows have other columns.
    pub(super) fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        let batch = self.batches.len();
        self.parts += 1;
        let columns = rows.project(&self.key)?;
        if self.key.is_empty() {
            // One group, of all rows: the last row is its only one.
            self.batches.clear();
            self.batches.push(rows.slice(rows.num_rows().saturating_sub(1), rows.num_rows().min(1)));
            self.rows = rows.num_rows().min(1);
            return Ok(());
        }
        let keys = self.converter.convert_columns(columns.columns())?;
        for (row, key) in keys.iter().enumerate() {
            self.places.insert(key.owned(), (batch, row));
        }
        self.rows += rows.num_rows();
        self.batches.push(rows.clone());
        Ok(())
    }

    /// Whether more rows are kept in vain than is worth the time to drop them.
    pub(super) fn is_wasteful(&self) -> bool {
        let idle = if self.key.is_empty() { 0 } else { self.rows.saturating_sub(2 * self.places.len()) };
        idle > IDLE_ROWS || self.parts > MANY_PARTS
    }

    /// Drops the rows that others took the place of.
    ///
    /// # Errors
    /// Fails only if memory holds no batch of the others.
    pub(super) fn compact(&mut self) -> Result<()> {
        self.parts = 0;
        if self.key.is_empty() || self.rows == self.places.len() {
            return Ok(());
        }
        let mut places: Vec<_> = self.places.iter_mut().map(|(_, place)| place).collect();
        places.sort_unstable();
        let sources: Vec<&RecordBatch> = self.batches.iter().collect();
        let mut batches = Vec::new();
        for (batch, chunk) in places.chunks_mut(BATCH_ROWS).enumerate() {
            let rows: Vec<_> = chunk.iter().map(|place| **place).collect();
            batches.push(interleave_record_batch(&sources, &rows)?);
            for (row, place) in chunk.iter_mut().enumerate() {
                **place = (batch, row);
            }
        }
        self.rows = places.len();
        self.batches = batches;
        Ok(())
    }

    /// The rows; those that count alone after [`Groups::compact`].
    pub(super) fn batches(&self) -> Vec<RecordBatch> {
        self.batches.clone()
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        self.places.clear();
        self.batches.clear();
        self.rows = 0;
    }
}
