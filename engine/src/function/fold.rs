//! Merging states in pairs, level by level, until each group has one.
//!
//! ```text
//! group   a a a a a b b c        levels: as many as the logarithm of the largest group,
//!         └┬┘ └┬┘ │ └┬┘ │        each one evaluation of `merge` on columns
//!          a   a  a  b  c
//! ```
//!
//! Neighbours are merged, the earlier one first, so that the order of rows is kept as far as merging has one.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, UInt64Array};
use datafusion::arrow::compute::{concat, interleave, take};
use datafusion::error::Result as DataFusionResult;

use super::steps::Steps;

/// States, each of a group.
#[derive(Debug, Default, Clone)]
pub(super) struct States {
    /// The group of each.
    pub(super) groups: Vec<usize>,
    /// The state columns.
    pub(super) columns: Vec<ArrayRef>,
}

impl States {
    /// Several lists as one; at least one.
    pub(super) fn concat(parts: &[Self]) -> DataFusionResult<Self> {
        let groups = parts.iter().flat_map(|part| part.groups.iter().copied()).collect();
        let width = parts.first().map_or(0, |part| part.columns.len());
        let column = |index: usize| {
            let arrays: Vec<&dyn Array> =
                parts.iter().filter_map(|part| part.columns.get(index)).map(AsRef::as_ref).collect();
            concat(&arrays)
        };
        Ok(Self { groups, columns: (0..width).map(column).collect::<Result<_, _>>()? })
    }

    /// One state for each group, groups ascending.
    pub(super) fn fold(self, steps: &Steps) -> DataFusionResult<Self> {
        let mut states = self.by_group()?;
        while let Some(level) = Level::of(&states.groups) {
            states = level.merge(&states, steps)?;
        }
        Ok(states)
    }

    /// The states of a group side by side, in their order.
    fn by_group(self) -> DataFusionResult<Self> {
        if self.groups.is_sorted() {
            return Ok(self);
        }
        let mut order: Vec<(usize, u64)> = self.groups.iter().copied().zip(0..).collect();
        order.sort_unstable();
        let rows: UInt64Array = order.iter().map(|(_, row)| *row).collect();
        Ok(Self { groups: order.iter().map(|(group, _)| *group).collect(), columns: taken(&self.columns, &rows)? })
    }

    /// The bytes that the arrays take.
    pub(super) fn bytes(&self) -> usize {
        let arrays: usize = self.columns.iter().map(|column| column.get_array_memory_size()).sum();
        arrays + self.groups.capacity() * size_of::<usize>()
    }
}

/// Which neighbours are merged in one go.
#[derive(Debug, Default)]
struct Level {
    groups: Vec<usize>,
    first: Vec<u64>,
    second: Vec<u64>,
    /// Where each state comes from: list 0 is what was merged, list 1 what was there.
    sources: Vec<(usize, usize)>,
}

impl Level {
    /// The pairs among groups that stand side by side; `None` if no group has two states.
    fn of(groups: &[usize]) -> Option<Self> {
        let mut level = Self::default();
        let mut rows = groups.iter().copied().enumerate().peekable();
        while let Some((row, group)) = rows.next() {
            level.groups.push(group);
            match rows.next_if(|(_, next)| *next == group) {
                Some((second, _)) => {
                    level.sources.push((0, level.first.len()));
                    level.first.push(row as u64);
                    level.second.push(second as u64);
                }
                None => level.sources.push((1, row)),
            }
        }
        (!level.first.is_empty()).then_some(level)
    }

    fn merge(self, states: &States, steps: &Steps) -> DataFusionResult<States> {
        let first = taken(&states.columns, &self.first.into())?;
        let second = taken(&states.columns, &self.second.into())?;
        let merged = steps.merge(first, second)?;
        let column =
            |(merged, there): (&ArrayRef, &ArrayRef)| interleave(&[merged.as_ref(), there.as_ref()], &self.sources);
        let columns = merged.iter().zip(&states.columns).map(column).collect::<Result<_, _>>()?;
        Ok(States { groups: self.groups, columns })
    }
}

fn taken(columns: &[ArrayRef], rows: &UInt64Array) -> DataFusionResult<Vec<ArrayRef>> {
    Ok(columns.iter().map(|column| take(&Arc::clone(column), rows, None)).collect::<Result<_, _>>()?)
}
