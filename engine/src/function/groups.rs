//! The states of many groups at once.
//!
//! States of single rows pile up until there are as many as groups that they belong to, and are merged then: that
//! bounds the memory, and a group costs as much as it has rows, not as often as there are batches.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, BooleanArray};
use datafusion::arrow::compute::{filter, interleave, prep_null_mask_filter};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{EmitTo, GroupsAccumulator};

use super::fold::States;
use super::steps::Steps;

/// States that may pile up before they are merged, however few groups there are.
const PILE_ROWS: usize = 1 << 16;

/// The states of groups.
#[derive(Debug)]
pub(super) struct GroupStates {
    steps: Arc<Steps>,
    /// States by arrival; a group may have several.
    pile: Vec<States>,
    piled: usize,
    /// How many were left by the last merge.
    merged: usize,
    /// How many groups there are, those without a row included.
    groups: usize,
}

impl GroupStates {
    pub(super) fn new(steps: &Arc<Steps>) -> Self {
        Self { steps: Arc::clone(steps), pile: Vec::new(), piled: 0, merged: 0, groups: 0 }
    }

    fn push(&mut self, states: States, groups: usize) -> DataFusionResult<()> {
        self.groups = self.groups.max(groups);
        self.piled += states.groups.len();
        if !states.groups.is_empty() {
            self.pile.push(states);
        }
        if self.piled > PILE_ROWS.max(2 * self.merged) {
            self.fold()?;
        }
        Ok(())
    }

    /// Leaves one state for each group that has rows, groups ascending.
    fn fold(&mut self) -> DataFusionResult<()> {
        if self.pile.is_empty() {
            return Ok(());
        }
        let states = States::concat(&std::mem::take(&mut self.pile))?.fold(&self.steps)?;
        self.merged = states.groups.len();
        self.piled = self.merged;
        self.pile.push(states);
        Ok(())
    }

    /// Takes the states of the first groups out, one for each group.
    fn emit(&mut self, emit_to: EmitTo) -> DataFusionResult<Vec<ArrayRef>> {
        self.fold()?;
        let count = match emit_to {
            EmitTo::All => self.groups,
            EmitTo::First(count) => count.min(self.groups),
        };
        let states = self.pile.pop().unwrap_or_default();
        let split = states.groups.partition_point(|group| *group < count);
        let emitted = self.dense(&states, split, count)?;
        let rest = states.groups.len() - split;
        self.groups -= count;
        (self.piled, self.merged) = (rest, rest);
        if rest > 0 {
            self.pile.push(States {
                groups: states.groups.iter().skip(split).map(|group| group - count).collect(),
                columns: states.columns.iter().map(|column| column.slice(split, rest)).collect(),
            });
        }
        Ok(emitted)
    }

    /// The first `present` of `states` spread over `count` groups; a group without rows has the initial state.
    fn dense(&self, states: &States, present: usize, count: usize) -> DataFusionResult<Vec<ArrayRef>> {
        if present == count && !states.columns.is_empty() {
            return Ok(states.columns.iter().map(|column| column.slice(0, count)).collect());
        }
        if present == 0 {
            return self.steps.initial(count);
        }
        let mut sources = vec![(1, 0); count];
        for (row, group) in states.groups.iter().take(present).enumerate() {
            if let Some(source) = sources.get_mut(*group) {
                *source = (0, row);
            }
        }
        let initial = self.steps.initial(1)?;
        let column =
            |(there, initial): (&ArrayRef, &ArrayRef)| interleave(&[there.as_ref(), initial.as_ref()], &sources);
        Ok(states.columns.iter().zip(&initial).map(column).collect::<Result<_, _>>()?)
    }
}

impl GroupsAccumulator for GroupStates {
    fn update_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        opt_filter: Option<&BooleanArray>,
        total_num_groups: usize,
    ) -> DataFusionResult<()> {
        let (groups, values) = match opt_filter {
            None => (group_indices.to_vec(), values.to_vec()),
            Some(mask) => {
                let mask = if mask.null_count() > 0 { prep_null_mask_filter(mask) } else { mask.clone() };
                let kept = group_indices.iter().zip(mask.values()).filter(|(_, is_kept)| *is_kept);
                let values = values.iter().map(|column| filter(column, &mask)).collect::<Result<_, _>>()?;
                (kept.map(|(group, _)| *group).collect(), values)
            }
        };
        let columns = self.steps.update(self.steps.initial(groups.len())?, &values)?;
        self.push(States { groups, columns }, total_num_groups)
    }

    fn merge_batch(
        &mut self,
        values: &[ArrayRef],
        group_indices: &[usize],
        total_num_groups: usize,
    ) -> DataFusionResult<()> {
        self.push(States { groups: group_indices.to_vec(), columns: values.to_vec() }, total_num_groups)
    }

    fn evaluate(&mut self, emit_to: EmitTo) -> DataFusionResult<ArrayRef> {
        let states = self.emit(emit_to)?;
        self.steps.finish(states)
    }

    fn state(&mut self, emit_to: EmitTo) -> DataFusionResult<Vec<ArrayRef>> {
        self.emit(emit_to)
    }

    fn convert_to_state(
        &self,
        values: &[ArrayRef],
        opt_filter: Option<&BooleanArray>,
    ) -> DataFusionResult<Vec<ArrayRef>> {
        let rows = values.first().map_or(0, |column| column.len());
        let mut alone = Self::new(&self.steps);
        alone.update_batch(values, &(0..rows).collect::<Vec<_>>(), opt_filter, rows)?;
        alone.emit(EmitTo::All)
    }

    fn size(&self) -> usize {
        size_of::<Self>() + self.pile.iter().map(States::bytes).sum::<usize>()
    }
}
