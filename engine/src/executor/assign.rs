//! Which pane and tag each row of a block belongs to, for one window. Pure.

use std::collections::HashMap;

use crate::ingest::Block;
use crate::time::{EventTime, Span, Watermark};
use crate::window::{Pane, WindowSpec};

/// A pane and the first instant that may see the rows put there.
pub(crate) type PaneTag = (Pane, EventTime);

/// The pane-and-tag pairs of some blocks, numbered in order of first sight.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    numbers: HashMap<PaneTag, u32>,
    pairs: Vec<PaneTag>,
}

impl Slots {
    fn number(&mut self, pair: PaneTag) -> u32 {
        *self.numbers.entry(pair).or_insert_with(|| {
            self.pairs.push(pair);
            u32::try_from(self.pairs.len() - 1).unwrap_or(DROPPED)
        })
    }

    /// The pairs by number.
    pub(crate) fn pairs(&self) -> &[PaneTag] {
        &self.pairs
    }
}

/// The slot number of a row that no window sees.
pub(crate) const DROPPED: u32 = u32::MAX;

/// Consecutive rows of a block with the same slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) slot: u32,
    pub(crate) start: usize,
    pub(crate) rows: usize,
}

/// A block's rows sorted into slots.
#[derive(Debug, Default)]
pub(crate) struct Assignment {
    /// In the order of the rows, without gaps.
    pub(crate) runs: Vec<Run>,
    /// Rows too late for every window, with the watermark each missed.
    pub(crate) late: Vec<(u32, Watermark)>,
    /// Rows between windows, where the slide is longer than the range.
    pub(crate) outside: usize,
}

/// Sorts the rows of `block` into `slots`; rows are late once the watermark has passed by `lateness` what they are for.
pub(crate) fn assign(block: &Block, window: &WindowSpec, lateness: Span, slots: &mut Slots) -> Assignment {
    let shift = window.shift();
    let mut assignment = Assignment::default();
    let first = window.pane_of(block.earliest.minus(shift));
    if block.behind.is_empty() && first == window.pane_of(block.latest.minus(shift)) {
        let rows = block.rows.num_rows();
        let slot = in_time(window, first, slots);
        if slot == DROPPED {
            assignment.outside = rows;
        }
        assignment.runs.push(Run { slot, start: 0, rows });
        return assignment;
    }
    let mut behind = block.behind.iter().peekable();
    let mut last = PaneSlot::none();
    for (row, time) in block.times.values().iter().enumerate() {
        let time = EventTime(*time).minus(shift);
        if let Some(missed) = behind.next_if(|missed| missed.row == row) {
            let watermark = Watermark(EventTime(missed.watermark.0).minus(shift).minus(lateness).0);
            let pane = window.pane_of(time);
            let slot = match window.tag(pane, watermark) {
                Some(tag) => slots.number((pane, tag)),
                None if window.is_gap(pane) => {
                    assignment.outside += 1;
                    DROPPED
                }
                None => {
                    assignment.late.push((u32::try_from(row).unwrap_or(u32::MAX), missed.watermark));
                    DROPPED
                }
            };
            assignment.push(slot, row);
            continue;
        }
        if !last.holds(time) {
            last = PaneSlot::of(window, time, slots);
        }
        if last.slot == DROPPED {
            assignment.outside += 1;
        }
        assignment.push(last.slot, row);
    }
    assignment
}

impl Assignment {
    fn push(&mut self, slot: u32, row: usize) {
        match self.runs.last_mut() {
            Some(run) if run.slot == slot => run.rows += 1,
            _ => self.runs.push(Run { slot, start: row, rows: 1 }),
        }
    }
}

/// The slot of a pane's rows in time; rows tend to follow each other within a pane.
struct PaneSlot {
    start: EventTime,
    end: EventTime,
    slot: u32,
}

impl PaneSlot {
    const fn none() -> Self {
        Self { start: EventTime(0), end: EventTime(0), slot: DROPPED }
    }

    fn of(window: &WindowSpec, time: EventTime, slots: &mut Slots) -> Self {
        let pane = window.pane_of(time);
        let (start, end) = window.pane_bounds(pane);
        Self { start, end, slot: in_time(window, pane, slots) }
    }

    fn holds(&self, time: EventTime) -> bool {
        self.start <= time && time < self.end
    }
}

fn in_time(window: &WindowSpec, pane: Pane, slots: &mut Slots) -> u32 {
    if window.is_gap(pane) { DROPPED } else { slots.number((pane, window.first_instant(pane))) }
}
