//! The update plan on blocks: rows → deltas, the state that a micro-batch adds to each pane and tag.
//!
//! Rows that lie in few long runs are taken apart by slicing, which copies nothing, and each slot runs through the
//! plain plan; otherwise the slot number becomes a group key of the keyed plan, and its few state rows are taken apart.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{AsArray, BooleanArray, UInt32Array};
use datafusion::arrow::compute::{filter, filter_record_batch};
use datafusion::arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::arrays::take_rows;
use crate::error::Result;
use crate::executor::assign::{Assignment, DROPPED, PaneTag, Slots, assign};
use crate::ingest::Block;
use crate::program::{InputPlan, Kept, Rows, SlotState, rows_by_slot};
use crate::source::Offset;
use crate::time::{Span, Watermark};

/// Runs must be at least this long on average to be sliced: an execution costs as much as so many rows.
const SLICED_RUN_ROWS: usize = 2_048;

/// Blocks of one input that go through the update plan together.
pub(crate) type Unit = Vec<Arc<Block>>;

/// Blocks put together until they have as many rows as are worth an execution.
pub(crate) fn units_of(blocks: impl Iterator<Item = Arc<Block>>, unit_rows: usize) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    let mut rows = unit_rows;
    for block in blocks {
        if rows >= unit_rows {
            units.push(Vec::new());
            rows = 0;
        }
        rows += block.rows.num_rows();
        if let Some(unit) = units.last_mut() {
            unit.push(block);
        }
    }
    units
}

/// Rows of a block and the watermark that each missed.
pub(crate) type Missed = Vec<(u32, Watermark)>;

/// What a unit adds to state, and what became of its rows.
#[derive(Debug, Default)]
pub(crate) struct Delta {
    pub(crate) state: Vec<(PaneTag, Vec<RecordBatch>)>,
    pub(crate) counts: RowCounts,
    /// Too late for every window: the block, and the rows with the watermark each missed.
    pub(crate) late: Vec<(Arc<Block>, Missed)>,
}

/// Where the rows of an input went: `read = used + filtered + late + outside`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowCounts {
    /// Rows read.
    pub read: u64,
    /// Rows in some window.
    pub used: u64,
    /// Rows that a filter dropped.
    pub filtered: u64,
    /// Rows too late for every window.
    pub late: u64,
    /// Rows between windows.
    pub outside: u64,
}

impl RowCounts {
    /// Adds the counts of more rows.
    pub const fn add(&mut self, more: &Self) {
        self.read += more.read;
        self.used += more.used;
        self.filtered += more.filtered;
        self.late += more.late;
        self.outside += more.outside;
    }
}

/// Runs the update plan of `input` on `unit`; rows count as in time for so long behind the watermark.
pub(crate) fn update(input: &InputPlan, unit: &Unit, lateness: Span) -> Result<Delta> {
    let window = input.window()?;
    let mut slots = Slots::default();
    let assigned: Vec<_> = unit.iter().map(|block| (block, assign(block, window, lateness, &mut slots))).collect();
    let mut delta = Delta::default();
    for (block, assignment) in &assigned {
        delta.count(block, assignment);
    }
    let runs: usize = assigned.iter().map(|(_, assignment)| assignment.runs.len()).sum();
    let rows: usize = unit.iter().map(|block| block.rows.num_rows()).sum();
    let states = if runs <= 1.max(rows / SLICED_RUN_ROWS) || slots.pairs().len() <= 1 && is_clean(&delta) {
        sliced(input, &assigned, &mut delta.counts)?
    } else {
        keyed(input, &assigned, &mut delta.counts)?
    };
    delta.counts.filtered = delta.counts.read - delta.counts.used - delta.counts.late - delta.counts.outside;
    let pairs = slots.pairs();
    let state = states.into_iter().filter_map(|(slot, state)| Some((*pairs.get(usize::try_from(slot).ok()?)?, state)));
    delta.state = state.collect();
    // A slot whose rows were all filtered out still makes its window one with rows: COUNT(*) over it is 0.
    for pair in pairs {
        if !delta.state.iter().any(|(known, _)| known == pair) {
            delta.state.push((*pair, input.keeps.empty_state()));
        }
    }
    Ok(delta)
}

fn is_clean(delta: &Delta) -> bool {
    delta.counts.late == 0 && delta.counts.outside == 0
}

impl Delta {
    fn count(&mut self, block: &Arc<Block>, assignment: &Assignment) {
        self.counts.read += block.rows.num_rows() as u64;
        self.counts.late += assignment.late.len() as u64;
        self.counts.outside += assignment.outside as u64;
        if !assignment.late.is_empty() {
            self.late.push((Arc::clone(block), assignment.late.clone()));
        }
    }
}

type Assigned<'a> = [(&'a Arc<Block>, Assignment)];

/// Each slot's rows as slices, through the plain plan.
fn sliced(input: &InputPlan, assigned: &Assigned<'_>, counts: &mut RowCounts) -> Result<Vec<SlotState>> {
    let mut slices = BTreeMap::<u32, Vec<RecordBatch>>::new();
    for (block, assignment) in assigned {
        for run in assignment.runs.iter().filter(|run| run.slot != DROPPED) {
            let headed = input.head.run(&slice(block, run.start, run.rows), None)?;
            counts.used += headed.batch.num_rows() as u64;
            slices.entry(run.slot).or_default().push(headed.batch);
        }
    }
    slices
        .into_iter()
        .map(|(slot, rows)| match &input.keeps {
            Kept::Aggregate(plans) => Ok((slot, plans.update(rows)?)),
            Kept::Rows => Ok((slot, rows.iter().map(|rows| input.kept_rows(rows)).collect::<Result<_>>()?)),
        })
        .collect()
}

fn slice(block: &Block, start: usize, rows: usize) -> Rows {
    Rows {
        batch: block.rows.slice(start, rows),
        times: block.times.slice(start, rows),
        partition: block.partition,
        first: Offset(block.offsets.start.0 + start as u64),
        numbers: block.numbers.as_ref().map(|numbers| numbers.slice(start, rows)),
    }
}

/// All rows at once with their slot as a key.
fn keyed(input: &InputPlan, assigned: &Assigned<'_>, counts: &mut RowCounts) -> Result<Vec<SlotState>> {
    let mut headed = Vec::with_capacity(assigned.len());
    for (block, assignment) in assigned {
        let (rows, slots) = with_slots(block, assignment)?;
        let part = input.head.run(&rows, Some(slots))?;
        counts.used += part.batch.num_rows() as u64;
        if part.batch.num_rows() > 0 {
            headed.push(part);
        }
    }
    match &input.keeps {
        Kept::Aggregate(plans) => plans.update_keyed(headed),
        Kept::Rows => {
            let mut parts = BTreeMap::<u32, Vec<RecordBatch>>::new();
            for part in headed {
                let kept = input.kept_rows(&part.batch)?;
                let slots = part.slots.unwrap_or_else(|| UInt32Array::from(Vec::<u32>::new()));
                for (slot, rows) in rows_by_slot(&slots)? {
                    parts.entry(slot).or_default().push(take_rows(&kept, &rows)?);
                }
            }
            Ok(parts.into_iter().collect())
        }
    }
}

/// The rows of a block that some window sees, with their slots.
fn with_slots(block: &Block, assignment: &Assignment) -> Result<(Rows, UInt32Array)> {
    let all = || assignment.runs.iter().flat_map(|run| std::iter::repeat_n(run.slot, run.rows));
    let rows = slice(block, 0, block.rows.num_rows());
    if assignment.late.is_empty() && assignment.outside == 0 {
        return Ok((rows, all().collect::<Vec<_>>().into()));
    }
    let mask: BooleanArray = all().map(|slot| Some(slot != DROPPED)).collect();
    let slots: Vec<u32> = all().filter(|slot| *slot != DROPPED).collect();
    // Offsets of what is left still ascend, which is all that their order is used for.
    let times = filter(&rows.times, &mask)?.as_primitive().clone();
    let numbers = rows.numbers.as_ref().map(|numbers| filter(numbers, &mask)).transpose()?;
    let numbers = numbers.map(|numbers| numbers.as_primitive().clone());
    Ok((Rows { batch: filter_record_batch(&rows.batch, &mask)?, times, numbers, ..rows }, slots.into()))
}

/// The rows of a unit after the head, for queries without windows.
pub(crate) fn head_rows(input: &InputPlan, unit: &Unit, counts: &mut RowCounts) -> Result<Vec<RecordBatch>> {
    let mut batches = Vec::with_capacity(unit.len());
    for block in unit {
        let headed = input.head.run(&slice(block, 0, block.rows.num_rows()), None)?;
        counts.read += block.rows.num_rows() as u64;
        counts.used += headed.batch.num_rows() as u64;
        batches.push(headed.batch);
    }
    counts.filtered = counts.read - counts.used;
    Ok(batches)
}
