//! Slots: ranges of key partitions, each owned by one executor.
//!
//! Slots tile the key partitions of a query without gaps. Which ranges there are changes as executors come and go; the
//! number of key partitions, and which of them a key is in, never does.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Slots that an executor may have of one query before all of them are cut anew.
const MOST_SLOTS_EACH: usize = 4;

/// A range of key partitions: from the first to before the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct KeyRange {
    /// The first key partition.
    pub from: u32,
    /// The one after the last.
    pub to: u32,
}

impl KeyRange {
    /// All key partitions.
    pub const fn all(partitions: u32) -> Self {
        Self { from: 0, to: partitions }
    }

    /// Whether a key partition is in it.
    pub const fn contains(self, partition: u32) -> bool {
        self.from <= partition && partition < self.to
    }

    /// Whether some key partition is in both.
    pub const fn overlaps(self, other: Self) -> bool {
        self.from < other.to && other.from < self.to
    }

    /// How many key partitions it has.
    pub const fn width(self) -> u32 {
        self.to.saturating_sub(self.from)
    }
}

impl fmt::Display for KeyRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..{}", self.from, self.to)
    }
}

/// Which executor, by its number among those there are, owns which range; ascending and without gaps.
pub(crate) type Assignment = Vec<(KeyRange, usize)>;

/// All key partitions in as many ranges as there are executors, which differ by one at the most.
pub(crate) fn even(partitions: u32, executors: usize) -> Assignment {
    cut(&[KeyRange::all(partitions)], executors)
}

/// Leaves every range where it is held, and spreads the ranges that nobody holds evenly over all executors.
///
/// Ranges that overlap another one, or would leave an executor with too many, are given up.
pub(crate) fn around(held: &[(KeyRange, usize)], partitions: u32, executors: usize) -> Assignment {
    let mut kept: Assignment = Vec::new();
    let mut sorted = held.to_vec();
    sorted.sort_unstable();
    for (range, executor) in sorted {
        let end = kept.last().map_or(0, |(before, _)| before.to);
        if range.from >= end && range.to <= partitions && range.width() > 0 {
            kept.push((range, executor));
        }
    }
    let mut lost = Vec::new();
    let mut next = 0;
    for (range, _) in &kept {
        lost.push(KeyRange { from: next, to: range.from });
        next = range.to;
    }
    lost.push(KeyRange { from: next, to: partitions });
    lost.retain(|range| range.width() > 0);
    let mut all = kept;
    all.extend(cut(&lost, executors));
    all.sort_unstable();
    let most = (0..executors).map(|executor| all.iter().filter(|(_, owner)| *owner == executor).count()).max();
    if most.unwrap_or_default() > MOST_SLOTS_EACH { even(partitions, executors) } else { all }
}

/// Cuts ranges into parts for executors, each of which gets an equal number of key partitions.
fn cut(ranges: &[KeyRange], executors: usize) -> Assignment {
    let total: u64 = ranges.iter().map(|range| u64::from(range.width())).sum();
    let count = executors.max(1) as u64;
    // The end of an executor's share among all key partitions of the ranges, one behind the other.
    let end_of = |executor: usize| total * (executor as u64 + 1) / count;
    let (mut parts, mut executor, mut passed) = (Assignment::new(), 0, 0_u64);
    for range in ranges {
        let mut from = range.from;
        while from < range.to {
            while end_of(executor) <= passed && executor + 1 < executors.max(1) {
                executor += 1;
            }
            let room = u32::try_from(end_of(executor) - passed).unwrap_or(u32::MAX);
            let to = range.to.min(from.saturating_add(room.max(1)));
            parts.push((KeyRange { from, to }, executor));
            passed += u64::from(to - from);
            from = to;
        }
    }
    parts
}

/// The number of the range that a key partition is in.
pub(crate) fn slot_of(slots: &[KeyRange], partition: u32) -> Option<usize> {
    let index = slots.partition_point(|range| range.to <= partition);
    slots.get(index).filter(|range| range.contains(partition)).map(|_| index)
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{Rng, SeedableRng};

    use super::*;

    fn check_tiles(assignment: &Assignment, partitions: u32, executors: usize) {
        let mut next = 0;
        for (range, executor) in assignment {
            assert_eq!(range.from, next, "{assignment:?}");
            assert!(range.width() > 0 && *executor < executors, "{assignment:?}");
            next = range.to;
        }
        assert_eq!(next, partitions, "{assignment:?}");
    }

    #[test]
    fn slots_tile_the_key_partitions_evenly() {
        for executors in 1..20 {
            let assignment = even(1_024, executors);
            check_tiles(&assignment, 1_024, executors);
            let widths: Vec<_> = assignment.iter().map(|(range, _)| range.width()).collect();
            assert_eq!(widths.len(), executors);
            assert!(widths.iter().max().unwrap() - widths.iter().min().unwrap() <= 1, "{widths:?}");
        }
    }

    #[test]
    fn what_was_lost_is_spread_over_all_that_are_left() {
        let before = even(1_024, 4);
        // Executor 1 is gone, and those behind it have other numbers.
        let held: Vec<_> = before.iter().filter(|(_, owner)| *owner != 1).collect();
        let held: Vec<_> = held.iter().map(|(range, owner)| (*range, if *owner > 1 { owner - 1 } else { 0 })).collect();
        let after = around(&held, 1_024, 3);
        check_tiles(&after, 1_024, 3);
        for kept in &held {
            assert!(after.contains(kept), "{kept:?} has moved: {after:?}");
        }
        let gained = |owner: usize| -> u32 {
            let new = after.iter().filter(|(range, of)| *of == owner && !held.contains(&(*range, *of)));
            new.map(|(range, _)| range.width()).sum()
        };
        assert_eq!((0..3).map(gained).collect::<Vec<_>>(), [85, 85, 86]);
    }

    #[test]
    fn slots_tile_after_any_losses() {
        let seed = 6;
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let (mut executors, mut assignment) = (5, even(1_024, 5));
        for _ in 0..500 {
            let lost = random.random_range(0..executors);
            let held: Vec<_> = assignment.iter().filter(|(_, owner)| *owner != lost).copied().collect();
            executors = random.random_range(executors.max(2) - 1..8).max(1);
            let held: Vec<_> = held.into_iter().filter(|(_, owner)| *owner < executors).collect();
            assignment = around(&held, 1_024, executors);
            check_tiles(&assignment, 1_024, executors);
            assert!(assignment.len() <= executors * MOST_SLOTS_EACH, "{assignment:?}");
        }
    }

    #[test]
    fn ranges_that_overlap_are_given_up() {
        let held = [(KeyRange { from: 0, to: 600 }, 0), (KeyRange { from: 500, to: 1_024 }, 1)];
        let after = around(&held, 1_024, 2);
        check_tiles(&after, 1_024, 2);
        assert_eq!(after[0], held[0]);
    }

    #[test]
    fn a_key_partition_is_in_one_slot() {
        let slots: Vec<_> = even(10, 3).into_iter().map(|(range, _)| range).collect();
        let found: Vec<_> = (0..11).map(|partition| slot_of(&slots, partition)).collect();
        let expected = [0, 0, 0, 1, 1, 1, 2, 2, 2, 2].map(Some);
        assert_eq!(found, [&expected[..], &[None]].concat());
    }
}
