//! The state of one group, which rows also leave: for windows of `OVER`, and where there is no GROUP BY.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::common::{ScalarValue, internal_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::Accumulator;

use super::fold::States;
use super::steps::Steps;

/// One state.
#[derive(Debug)]
pub(super) struct OneState {
    steps: Arc<Steps>,
    /// Columns of one row; `None` for the state of no rows.
    state: Option<Vec<ArrayRef>>,
    /// The rows in the state, as far as they came one by one.
    rows: usize,
}

impl OneState {
    pub(super) fn new(steps: &Arc<Steps>) -> Self {
        Self { steps: Arc::clone(steps), state: None, rows: 0 }
    }

    fn current(&self) -> DataFusionResult<Vec<ArrayRef>> {
        self.state.as_ref().map_or_else(|| self.steps.initial(1), |state| Ok(state.clone()))
    }

    /// Takes in states in their order.
    fn absorb(&mut self, columns: Vec<ArrayRef>) -> DataFusionResult<()> {
        let count = columns.first().map_or(0, |column| column.len());
        if count == 0 {
            return Ok(());
        }
        let folded = States { groups: vec![0; count], columns }.fold(&self.steps)?.columns;
        self.state = Some(match self.state.take() {
            Some(state) => self.steps.merge(state, folded)?,
            None => folded,
        });
        Ok(())
    }
}

impl Accumulator for OneState {
    fn update_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        let rows = values.first().map_or(0, |column| column.len());
        self.rows += rows;
        if rows == 1 {
            self.state = Some(self.steps.update(self.current()?, values)?);
            return Ok(());
        }
        let single = self.steps.update(self.steps.initial(rows)?, values)?;
        self.absorb(single)
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> DataFusionResult<()> {
        self.absorb(states.to_vec())
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> DataFusionResult<()> {
        if !self.steps.has_inverse() {
            return internal_err!("a row leaves the state of an aggregate that has no inverse");
        }
        let rows = values.first().map_or(0, |column| column.len());
        for row in 0..rows {
            let values: Vec<_> = values.iter().map(|column| column.slice(row, 1)).collect();
            self.state = Some(self.steps.inverse(self.current()?, &values)?);
        }
        self.rows = self.rows.saturating_sub(rows);
        if self.rows == 0 {
            // What rounding has left of rows that are gone is gone with the last.
            self.state = None;
        }
        Ok(())
    }

    fn supports_retract_batch(&self) -> bool {
        self.steps.has_inverse()
    }

    fn evaluate(&mut self) -> DataFusionResult<ScalarValue> {
        ScalarValue::try_from_array(&self.steps.finish(self.current()?)?, 0)
    }

    fn state(&mut self) -> DataFusionResult<Vec<ScalarValue>> {
        self.current()?.iter().map(|column| ScalarValue::try_from_array(column, 0)).collect()
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.state.iter().flatten().map(|column| column.get_array_memory_size()).sum::<usize>()
    }
}
