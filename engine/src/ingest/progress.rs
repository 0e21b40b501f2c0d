//! Watermarks: how far each partition of a stream has come, decided row by row. Pure.
//!
//! A row is behind if its event time lies below the watermark that the rows before it in its own partition have
//! made. Nothing here depends on where a block ends, so that cutting a log differently changes no decision.

use crate::plan::EventTimeRule;
use crate::source::PartitionId;
use crate::time::{EventTime, Span, Watermark};

/// A row whose event time lies below the watermark of its partition as it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Behind {
    /// The row's index in its block.
    pub row: usize,
    /// The watermark it missed.
    pub watermark: Watermark,
}

/// What the rows of a block did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    /// The least event time.
    pub earliest: EventTime,
    /// The greatest event time.
    pub latest: EventTime,
    /// The rows that are behind, in order.
    pub behind: Vec<Behind>,
}

/// How rows move the watermark of their partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Lateness {
    delay: Span,
    max_future_skew: Option<Span>,
}

impl Lateness {
    /// The watermark after rows, from what it was before them, and the rows below it.
    pub(crate) fn scan(self, mut running: Watermark, times: &[i64]) -> (Watermark, Vec<Behind>) {
        let mut behind = Vec::new();
        for (row, time) in times.iter().enumerate() {
            if *time < running.0 {
                behind.push(Behind { row, watermark: running });
            } else {
                running = self.step(running, EventTime(*time));
            }
        }
        (running, behind)
    }

    /// The watermark after rows of which the bounds are known, if these are enough: then none of them is behind.
    fn in_order(self, before: Watermark, earliest: EventTime, latest: EventTime) -> Option<Watermark> {
        let highest = Watermark(latest.minus(self.delay).0);
        let is_first = before == Watermark::START;
        let is_clamped = self.max_future_skew.is_some() && (is_first || self.step(before, latest) < highest);
        let after = before.max(highest);
        (earliest.0 >= after.0 && !is_clamped).then_some(after)
    }

    /// The watermark after a row: one row moves it by the skew bound at the most.
    fn step(self, watermark: Watermark, time: EventTime) -> Watermark {
        let reached = time.minus(self.delay).0;
        let bound = match self.max_future_skew {
            Some(skew) if watermark != Watermark::START => watermark.0.saturating_add(skew.0),
            _ => i64::MAX,
        };
        watermark.max(Watermark(reached.min(bound)))
    }
}

/// The watermarks of a stream and its partitions; as JSON, part of a place in its log.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Progress {
    delay: Span,
    max_future_skew: Option<Span>,
    partitions: Vec<Partition>,
    stream: Watermark,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
struct Partition {
    watermark: Watermark,
    state: PartitionState,
}

/// Whether a partition takes part in the watermark of its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PartitionState {
    /// It takes part in the watermark of its stream.
    Active,
    /// It is silent, and holds nothing back.
    Idle,
    /// It is at its end.
    Ended,
}

impl Progress {
    /// The start of a stream with this many partitions; no rule means that event time is arrival time.
    pub fn new(rule: Option<&EventTimeRule>, partitions: usize) -> Self {
        Self {
            delay: rule.map_or(Span(0), |rule| rule.delay),
            max_future_skew: rule.and_then(|rule| rule.max_future_skew),
            partitions: vec![Partition { watermark: Watermark::START, state: PartitionState::Active }; partitions],
            stream: Watermark::START,
        }
    }

    /// The stream's watermark: the least of the partitions that take part; it never decreases.
    pub const fn watermark(&self) -> Watermark {
        self.stream
    }

    /// The watermark and state of each partition.
    pub(super) fn states(&self) -> Vec<(Watermark, PartitionState)> {
        self.partitions.iter().map(|partition| (partition.watermark, partition.state)).collect()
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> usize {
        self.partitions.len()
    }

    /// Whether a partition has come to its end.
    pub fn has_ended(&self, partition: PartitionId) -> bool {
        self.get(partition).is_some_and(|partition| partition.state == PartitionState::Ended)
    }

    /// Whether every partition has come to its end.
    pub fn is_over(&self) -> bool {
        (0..).map(PartitionId).take(self.partitions()).all(|partition| self.has_ended(partition))
    }

    /// The watermark of one partition.
    pub fn partition_watermark(&self, partition: PartitionId) -> Option<Watermark> {
        self.get(partition).map(|partition| partition.watermark)
    }

    /// Takes in rows of a partition, in their order; `None` if there are none.
    ///
    /// A partition that was idle takes part again, from no lower than what the stream has promised since.
    pub fn observe(&mut self, partition: PartitionId, times: &[i64]) -> Option<Observed> {
        let earliest = EventTime(times.iter().copied().min()?);
        let latest = EventTime(times.iter().copied().max()?);
        let before = self.rejoin(partition)?;
        let in_order = self.lateness().in_order(before, earliest, latest);
        let (after, behind) = in_order.map_or_else(|| self.lateness().scan(before, times), |after| (after, Vec::new()));
        self.move_to(partition, after);
        Some(Observed { earliest, latest, behind })
    }

    /// Takes in rows of which only the bounds are known, if that is enough; else gives the watermark from which they
    /// have to be scanned, for [`Progress::move_to`].
    pub(crate) fn observe_bounds(
        &mut self,
        partition: PartitionId,
        earliest: EventTime,
        latest: EventTime,
    ) -> Option<Watermark> {
        let before = self.rejoin(partition)?;
        match self.lateness().in_order(before, earliest, latest) {
            Some(after) => {
                self.move_to(partition, after);
                None
            }
            None => Some(before),
        }
    }

    /// Moves the watermark of a partition to where its rows have brought it.
    pub(crate) fn move_to(&mut self, partition: PartitionId, after: Watermark) {
        self.update(partition, |state| state.watermark = after);
    }

    /// How rows move watermarks.
    pub(crate) const fn lateness(&self) -> Lateness {
        Lateness { delay: self.delay, max_future_skew: self.max_future_skew }
    }

    /// Says that a partition is silent: it no longer holds the stream back.
    pub fn idle(&mut self, partition: PartitionId) {
        self.update(partition, |state| {
            if state.state == PartitionState::Active {
                state.state = PartitionState::Idle;
            }
        });
    }

    /// Says that a partition is at its end.
    pub fn end(&mut self, partition: PartitionId) {
        self.update(partition, |state| *state = Partition { watermark: Watermark::END, state: PartitionState::Ended });
    }

    /// Says that no row will have an event time before `now`: time itself does on a stream whose event time is arrival
    /// time, a source by its promise.
    pub fn arrive(&mut self, now: EventTime) {
        for state in self.partitions.iter_mut().filter(|partition| partition.state != PartitionState::Ended) {
            state.watermark = state.watermark.max(Watermark(now.0));
        }
        self.refresh();
    }

    fn get(&self, partition: PartitionId) -> Option<&Partition> {
        self.partitions.get(usize::try_from(partition.0).ok()?)
    }

    fn rejoin(&mut self, partition: PartitionId) -> Option<Watermark> {
        let stream = self.stream;
        self.update(partition, |state| {
            if state.state == PartitionState::Idle {
                *state = Partition { watermark: state.watermark.max(stream), state: PartitionState::Active };
            }
        });
        self.partition_watermark(partition)
    }

    fn update(&mut self, partition: PartitionId, change: impl FnOnce(&mut Partition)) {
        let index = usize::try_from(partition.0).unwrap_or(usize::MAX);
        if let Some(state) = self.partitions.get_mut(index) {
            change(state);
        }
        self.refresh();
    }

    fn refresh(&mut self) {
        let taking_part = self.partitions.iter().filter(|partition| partition.state == PartitionState::Active);
        let least = taking_part.map(|partition| partition.watermark).min();
        let all_ended = self.partitions.iter().all(|partition| partition.state == PartitionState::Ended);
        let reached = if all_ended { Some(Watermark::END) } else { least };
        self.stream = self.stream.max(reached.unwrap_or(Watermark::START));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(delay: i64, skew: Option<i64>, partitions: usize) -> Progress {
        let rule = EventTimeRule { column: 0, delay: Span(delay), max_future_skew: skew.map(Span), idle_timeout: None };
        Progress::new(Some(&rule), partitions)
    }

    const P0: PartitionId = PartitionId(0);
    const P1: PartitionId = PartitionId(1);

    #[test]
    fn rows_are_behind_the_running_watermark_not_that_of_the_block() {
        let mut progress = progress(5, None, 1);
        let observed = progress.observe(P0, &[10, 4, 20, 14, 15]).unwrap();
        let expected = [Behind { row: 1, watermark: Watermark(5) }, Behind { row: 3, watermark: Watermark(15) }];
        assert_eq!(observed.behind, expected);
        assert_eq!(progress.watermark(), Watermark(15));
    }

    #[test]
    fn any_cut_gives_the_same_rows_behind() {
        let times = [10, 4, 20, 14, 15, 40, 34, 35, 36, 3, 50];
        let whole = progress(5, Some(12), 1).observe(P0, &times).unwrap().behind;
        for size in 1..times.len() {
            let mut cut = progress(5, Some(12), 1);
            let mut behind = Vec::new();
            for (index, part) in times.chunks(size).enumerate() {
                for row in cut.observe(P0, part).unwrap().behind {
                    behind.push(Behind { row: row.row + index * size, ..row });
                }
            }
            assert_eq!(behind, whole, "blocks of {size}");
        }
    }

    #[test]
    fn the_slowest_partition_holds_the_stream_until_it_idles() {
        let mut progress = progress(0, None, 2);
        progress.observe(P0, &[100]);
        assert_eq!(progress.watermark(), Watermark::START);
        progress.observe(P1, &[30]);
        assert_eq!(progress.watermark(), Watermark(30));
        progress.idle(P1);
        assert_eq!(progress.watermark(), Watermark(100));
        let back = progress.observe(P1, &[40, 120]).unwrap();
        assert_eq!(back.behind, [Behind { row: 0, watermark: Watermark(100) }]);
        assert_eq!(progress.watermark(), Watermark(100));
    }

    #[test]
    fn one_row_far_in_the_future_moves_the_watermark_by_the_bound_only() {
        let mut progress = progress(0, Some(10), 1);
        progress.observe(P0, &[100, 1_000_000, 105]);
        assert_eq!(progress.watermark(), Watermark(110));
    }

    #[test]
    fn the_end_of_every_partition_is_the_end_of_the_stream() {
        let mut progress = progress(0, None, 2);
        progress.observe(P0, &[1]);
        progress.end(P1);
        assert_eq!(progress.watermark(), Watermark(1));
        progress.end(P0);
        assert_eq!(progress.watermark(), Watermark::END);
    }
}
