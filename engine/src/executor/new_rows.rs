//! Which rows are new: bags of rows compared, in parts.

use std::collections::HashMap;

use datafusion::arrow::array::BooleanArray;
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::row::{RowConverter, Rows, SortField};

use crate::arrays::concat_rows;
use crate::error::Result;

/// Finds the result rows that were not there before, from one part of the groups after another.
///
/// Rows are compared and not groups, as results need not show their keys: a row that one group lost and another won is
/// not new, whichever parts they are in.
#[derive(Debug, Default)]
pub(super) struct NewRows {
    /// For the columns of the results, once some are known.
    converter: Option<RowConverter>,
    /// Rows that were there before and have not been met since, encoded, with their number.
    gone: HashMap<Vec<u8>, usize>,
    new: Vec<RecordBatch>,
    parts: usize,
}

impl NewRows {
    /// Takes in a part: rows as they were, and as they are.
    pub(super) fn compare(&mut self, before: &[RecordBatch], after: &[RecordBatch]) -> Result<()> {
        self.parts += 1;
        for batch in before {
            for row in &self.encoded(batch)? {
                *self.gone.entry(row.as_ref().to_vec()).or_default() += 1;
            }
        }
        for batch in after {
            let new = self.not_met(batch)?;
            if new.num_rows() > 0 {
                self.new.push(new);
            }
        }
        Ok(())
    }

    /// The new rows in one batch; none if there are none.
    pub(super) fn finish(mut self) -> Result<Vec<RecordBatch>> {
        let Some(schema) = self.new.first().map(RecordBatch::schema) else { return Ok(Vec::new()) };
        let mut new = concat_rows(&schema, &self.new)?;
        if self.parts > 1 {
            // A row may have gone in a later part than it came in.
            new = self.not_met(&new)?;
        }
        Ok(if new.num_rows() == 0 { Vec::new() } else { vec![new] })
    }

    /// The rows that were not there before; those that were are met.
    fn not_met(&mut self, batch: &RecordBatch) -> Result<RecordBatch> {
        let rows = self.encoded(batch)?;
        let is_new: BooleanArray = rows.iter().map(|row| Some(!self.meet(row.as_ref()))).collect();
        Ok(filter_record_batch(batch, &is_new)?)
    }

    /// Whether such a row was there before; it is there once less then.
    fn meet(&mut self, row: &[u8]) -> bool {
        let Some(count) = self.gone.get_mut(row) else { return false };
        *count -= 1;
        if *count == 0 {
            self.gone.remove(row);
        }
        true
    }

    fn encoded(&mut self, batch: &RecordBatch) -> Result<Rows> {
        let converter = match self.converter.take() {
            Some(converter) => converter,
            None => {
                let schema = batch.schema();
                let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone()));
                RowConverter::new(fields.collect())?
            }
        };
        let rows = converter.convert_columns(batch.columns())?;
        self.converter = Some(converter);
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array};
    use datafusion::arrow::datatypes::Int64Type;

    use super::*;

    fn batch(numbers: &[i64]) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from(numbers.to_vec()));
        RecordBatch::try_from_iter([("n", numbers)]).unwrap()
    }

    fn new_rows(parts: &[(&[i64], &[i64])]) -> Vec<i64> {
        let mut rows = NewRows::default();
        for (before, after) in parts {
            rows.compare(&[batch(before)], &[batch(after)]).unwrap();
        }
        let new = rows.finish().unwrap();
        new.iter().flat_map(|batch| batch.column(0).as_primitive::<Int64Type>().values().to_vec()).collect()
    }

    #[test]
    fn rows_are_new_as_often_as_they_were_not_there_before() {
        assert_eq!(new_rows(&[(&[1, 2, 2], &[2, 3, 1, 2, 2])]), [3, 2]);
        assert_eq!(new_rows(&[(&[1, 2], &[2, 1])]), Vec::<i64>::new());
    }

    #[test]
    fn the_parts_that_rows_are_compared_in_do_not_matter() {
        assert_eq!(new_rows(&[(&[1, 2], &[2, 3])]), [3]);
        assert_eq!(new_rows(&[(&[1], &[2]), (&[2], &[3])]), [3], "2 came before it went");
        assert_eq!(new_rows(&[(&[2], &[3]), (&[1], &[2])]), [3], "2 went before it came");
        assert_eq!(new_rows(&[(&[], &[5, 5]), (&[5], &[])]), [5]);
    }
}
