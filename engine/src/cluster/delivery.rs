//! Deltas on their way to slots: split by key partition, put together into frames.

use std::collections::BTreeMap;

use datafusion::arrow::array::UInt32Array;
use datafusion::arrow::record_batch::RecordBatch;

use super::frame::{Frame, LARGEST_BODY, in_parts};
use super::message::{DELTA, DeltaHead};
use super::slots::{KeyRange, slot_of};
use crate::arrays::{concat_rows, take_rows};
use crate::checkpoint::PaneTag;
use crate::error::{Error, Result};
use crate::executor::{Added, LeafDelta, Stage, StageDelta};
use crate::state::key_partitions_of;
use crate::time::EventTime;
use crate::window::Pane;

/// What a delta of `plan` has for each of the ranges.
///
/// # Errors
/// Fails if the ranges do not tile the key partitions, and if a key cannot be hashed.
pub(super) fn split(delta: StageDelta, plan: &Stage, ranges: &[KeyRange]) -> Result<Vec<SlotDeltas>> {
    let mut of_slots: Vec<SlotDeltas> = ranges.iter().map(|_| SlotDeltas::default()).collect();
    let (key_columns, partitions) = (plan.key_columns(), plan.key_partitions());
    let split = |rows: RecordBatch| -> Result<Vec<(usize, RecordBatch)>> {
        if ranges.len() == 1 {
            return Ok(vec![(0, rows)]);
        }
        by_slot(&rows, key_columns, partitions, ranges)
    };
    distribute(delta, &mut Vec::new(), &split, &mut of_slots)?;
    Ok(of_slots)
}

/// Deltas on their way to a slot, by the way to their stage and their leaf.
#[derive(Debug, Default)]
pub(super) struct SlotDeltas(BTreeMap<(Vec<usize>, usize), LeafRows>);

/// The panes of a leaf's delta, if it has such, and the rows of each.
#[derive(Debug)]
struct LeafRows {
    has_panes: bool,
    parts: Vec<(PaneTag, Option<RecordBatch>)>,
}

impl SlotDeltas {
    fn add(&mut self, place: (Vec<usize>, usize), pair: PaneTag, has_panes: bool, rows: Option<RecordBatch>) {
        let leaf = self.0.entry(place).or_insert_with(|| LeafRows { has_panes, parts: Vec::new() });
        leaf.parts.push((pair, rows));
    }

    /// As frames of a sender, for the slot with this number among those of its task.
    pub(super) fn framed(&mut self, sender: usize, slot: usize) -> Result<Vec<Frame>> {
        let leaves = std::mem::take(&mut self.0).into_iter();
        leaves.flat_map(|((path, leaf), rows)| rows.framed(sender, slot, &path, leaf)).collect()
    }
}

impl LeafRows {
    fn framed(self, sender: usize, slot: usize, path: &[usize], leaf: usize) -> Vec<Result<Frame>> {
        let mut frames = Vec::new();
        let head = |panes: Vec<(i64, i64, usize)>| DeltaHead {
            sender,
            slot,
            path: path.to_vec(),
            leaf,
            panes: self.has_panes.then_some(panes),
        };
        // Small parts go together: a frame costs as much as some hundred rows.
        let mut together: Vec<(PaneTag, Option<RecordBatch>)> = Vec::new();
        let mut bytes = 0;
        let mut parts = self.parts.iter().cloned().peekable();
        while let Some((pair, rows)) = parts.next() {
            let more = rows.as_ref().map_or(0, RecordBatch::get_array_memory_size);
            if more >= LARGEST_BODY && !together.is_empty() {
                // It goes alone, perhaps in several.
                frames.extend(frames_together(&std::mem::take(&mut together), &head));
                bytes = 0;
            }
            bytes += more;
            together.push((pair, rows));
            if bytes >= LARGEST_BODY || parts.peek().is_none() {
                frames.extend(frames_together(&std::mem::take(&mut together), &head));
                bytes = 0;
            }
        }
        frames
    }
}

/// Parts in as few frames as they fit into.
fn frames_together(
    parts: &[(PaneTag, Option<RecordBatch>)],
    head: &impl Fn(Vec<(i64, i64, usize)>) -> DeltaHead,
) -> Vec<Result<Frame>> {
    let framed = || -> Result<Vec<Frame>> {
        let pane = |(pane, tag): &PaneTag, rows: usize| (pane.0, tag.0, rows);
        if let [(pair, Some(rows))] = parts {
            let parts = in_parts(rows)?.into_iter();
            return parts.map(|part| Frame::of(DELTA, &head(vec![pane(pair, part.num_rows())]), Some(&part))).collect();
        }
        let batches: Vec<RecordBatch> = parts.iter().filter_map(|(_, rows)| rows.clone()).collect();
        let rows = match batches.first() {
            Some(first) => Some(concat_rows(&first.schema(), &batches)?),
            None => None,
        };
        let panes = parts.iter().map(|(pair, rows)| pane(pair, rows.as_ref().map_or(0, RecordBatch::num_rows)));
        Ok(vec![Frame::of(DELTA, &head(panes.collect()), rows.as_ref())?])
    };
    match framed() {
        Ok(frames) => frames.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    }
}

/// A result's rows for each slot that has some of them.
type Split<'a> = dyn Fn(RecordBatch) -> Result<Vec<(usize, RecordBatch)>> + 'a;

/// Sends what is added to a stage and its views to the slots.
fn distribute(delta: StageDelta, path: &mut Vec<usize>, split: &Split<'_>, slots: &mut [SlotDeltas]) -> Result<()> {
    for (leaf, LeafDelta { added, .. }) in delta.leaves.into_iter().enumerate() {
        let mut add = |slot: usize, pair: PaneTag, has_panes: bool, rows: Option<RecordBatch>| {
            if let Some(deltas) = slots.get_mut(slot) {
                deltas.add((path.clone(), leaf), pair, has_panes, rows);
            }
        };
        match added {
            Added::Nothing => {}
            Added::Panes(panes) => {
                for (pair, batches) in panes {
                    if batches.is_empty() {
                        // A window with rows that were all filtered out matters only where there is one slot.
                        add(0, pair, true, None);
                    }
                    for batch in batches {
                        split(batch)?.into_iter().for_each(|(slot, rows)| add(slot, pair, true, Some(rows)));
                    }
                }
            }
            Added::Rows(batches) => {
                let pair = (Pane(0), EventTime(0));
                for batch in batches {
                    split(batch)?.into_iter().for_each(|(slot, rows)| add(slot, pair, false, Some(rows)));
                }
            }
        }
    }
    for (number, view) in delta.views.into_iter().enumerate() {
        path.push(number);
        distribute(view, path, split, slots)?;
        path.pop();
    }
    Ok(())
}

/// The rows of each slot, by the key partition of their first columns.
fn by_slot(
    rows: &RecordBatch,
    key_columns: usize,
    partitions: u32,
    ranges: &[KeyRange],
) -> Result<Vec<(usize, RecordBatch)>> {
    let keys: Vec<_> = rows.columns().iter().take(key_columns).cloned().collect();
    let mut of_slots: Vec<Vec<u32>> = vec![Vec::new(); ranges.len()];
    for (row, partition) in (0..).zip(key_partitions_of(&keys, rows.num_rows(), partitions)?) {
        let slot = slot_of(ranges, partition).and_then(|slot| of_slots.get_mut(slot));
        slot.ok_or_else(|| Error::internal(format!("no slot has key partition {partition}")))?.push(row);
    }
    let of_slots = of_slots.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
    of_slots.map(|(slot, indices)| Ok((slot, take_rows(rows, &UInt32Array::from(indices))?))).collect()
}
