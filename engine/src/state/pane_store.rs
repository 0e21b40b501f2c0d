//! The state of record: immutable batches by pane and tag.
//!
//! A tag is the first instant that may see the rows: the natural one for rows that came in time, a later one for rows
//! that missed it. Entries whose tag has passed are merged by whoever evaluates, entries to come are kept apart.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::arrow::record_batch::RecordBatch;

use crate::checkpoint::{PaneEntry, PaneTag};
use crate::error::Result;
use crate::state::batches::Batches;
use crate::state::memory::StateMemory;
use crate::time::EventTime;
use crate::window::{Pane, WindowSpec};

/// Batches by pane and tag.
#[derive(Debug, Default)]
pub(crate) struct PaneStore {
    panes: BTreeMap<Pane, BTreeMap<EventTime, Batches>>,
    /// The entries to which something was added since the last image.
    changed: BTreeSet<PaneTag>,
    bytes: usize,
    /// How many entries have a part on disk.
    on_disk: usize,
}

impl PaneStore {
    /// Adds batches behind those of the same pane and tag.
    pub(crate) fn add(&mut self, pane: Pane, tag: EventTime, batches: Vec<RecordBatch>) {
        self.mark_changed(pane, tag);
        self.put(pane, tag, batches.into());
    }

    /// Puts back the batches that were taken out, merged: the entry means the same as before.
    pub(crate) fn put(&mut self, pane: Pane, tag: EventTime, batches: Batches) {
        self.bytes += batches.bytes();
        let entry = self.panes.entry(pane).or_default().entry(tag).or_default();
        let was_on_disk = entry.is_on_disk();
        entry.append(batches);
        self.on_disk += usize::from(entry.is_on_disk() && !was_on_disk);
    }

    /// Takes the entry as changed since the last image.
    pub(crate) fn mark_changed(&mut self, pane: Pane, tag: EventTime) {
        self.changed.insert((pane, tag));
    }

    /// Whether the entry changed since the last image.
    pub(crate) fn is_changed(&self, pane: Pane, tag: EventTime) -> bool {
        self.changed.contains(&(pane, tag))
    }

    /// The state of a pane and tag, unread.
    pub(crate) fn entry(&self, pane: Pane, tag: EventTime) -> Option<&Batches> {
        self.panes.get(&pane)?.get(&tag)
    }

    /// The batches of a pane and tag.
    ///
    /// # Errors
    /// As the disk fails.
    pub(crate) fn read(&self, pane: Pane, tag: EventTime) -> Result<Vec<RecordBatch>> {
        self.entry(pane, tag).map_or_else(|| Ok(Vec::new()), Batches::read)
    }

    /// The batches of a pane and tag that are in memory.
    pub(crate) fn recent(&self, pane: Pane, tag: EventTime) -> &[RecordBatch] {
        self.entry(pane, tag).map_or(&[], Batches::recent)
    }

    /// Whether a pane and tag have more than one batch.
    pub(crate) fn is_in_pieces(&self, pane: Pane, tag: EventTime) -> bool {
        self.entry(pane, tag).is_some_and(Batches::is_in_pieces)
    }

    /// Takes the batches of a pane and tag out.
    ///
    /// # Errors
    /// As the disk fails.
    pub(crate) fn take(&mut self, pane: Pane, tag: EventTime) -> Result<Vec<RecordBatch>> {
        self.remove(pane, tag).read()
    }

    /// Takes the state of a pane and tag out, unread.
    pub(crate) fn remove(&mut self, pane: Pane, tag: EventTime) -> Batches {
        let Some(tags) = self.panes.get_mut(&pane) else { return Batches::default() };
        let batches = tags.remove(&tag).unwrap_or_default();
        if tags.is_empty() {
            self.panes.remove(&pane);
        }
        self.forget(&batches);
        batches
    }

    /// Takes what was removed off the sums.
    fn forget(&mut self, batches: &Batches) {
        self.bytes = self.bytes.saturating_sub(batches.bytes());
        self.on_disk = self.on_disk.saturating_sub(usize::from(batches.is_on_disk()));
    }

    /// Takes those batches of a pane and tag out that are in memory.
    pub(crate) fn take_recent(&mut self, pane: Pane, tag: EventTime) -> Vec<RecordBatch> {
        let Some(entry) = self.panes.get_mut(&pane).and_then(|tags| tags.get_mut(&tag)) else { return Vec::new() };
        self.bytes = self.bytes.saturating_sub(entry.bytes());
        entry.take_recent()
    }

    /// The tags of each pane from `first` to before `end`, panes and tags ascending.
    pub(crate) fn tags(&self, first: Pane, end: Pane) -> impl Iterator<Item = PaneTag> {
        self.panes.range(first..end).flat_map(|(pane, tags)| tags.keys().map(|tag| (*pane, *tag)))
    }

    /// The pane and tag of every entry, ascending.
    pub(crate) fn all_tags(&self) -> impl Iterator<Item = PaneTag> {
        self.panes.iter().flat_map(|(pane, tags)| tags.keys().map(|tag| (*pane, *tag)))
    }

    /// The rows of the largest entry.
    pub(crate) fn largest(&self) -> usize {
        self.panes.values().flat_map(BTreeMap::values).map(Batches::row_count).max().unwrap_or_default()
    }

    /// The entries whose pieces on disk are worth merging, ascending.
    pub(crate) fn doubled_on_disk(&self) -> impl Iterator<Item = PaneTag> {
        self.all_tags().filter(move |(pane, tag)| self.entry(*pane, *tag).is_some_and(Batches::has_doubled_on_disk))
    }

    /// Whether some of it is on disk.
    pub(crate) const fn is_on_disk(&self) -> bool {
        self.on_disk > 0
    }

    /// What the window at `instant` sees, in order of pane and tag, unread.
    pub(crate) fn visible(&self, window: &WindowSpec, instant: EventTime) -> Vec<Batches> {
        let (first, end) = window.panes_of(instant);
        if first >= end {
            return Vec::new();
        }
        let panes = self.panes.range(first..end);
        panes.flat_map(|(_, tags)| tags.range(..=instant).map(|(_, batches)| batches.clone())).collect()
    }

    /// The entries whose tag lies after `from` and up to `to`, in order of pane and tag, unread.
    pub(crate) fn seen_between(&self, from: EventTime, to: EventTime) -> Vec<(PaneTag, Batches)> {
        let entries =
            self.panes.iter().flat_map(|(pane, tags)| tags.iter().map(|(tag, batches)| (*pane, *tag, batches)));
        let seen = entries.filter(|(_, tag, _)| from < *tag && *tag <= to);
        seen.map(|(pane, tag, batches)| ((pane, tag), batches.clone())).collect()
    }

    /// Every entry, ascending, and those that changed since the last call with their state.
    pub(crate) fn image(&mut self) -> (Vec<PaneTag>, Vec<PaneEntry>) {
        let entries = self.all_tags().collect();
        let changed = std::mem::take(&mut self.changed).into_iter();
        let changed =
            changed.filter_map(|(pane, tag)| Some(PaneEntry { pane, tag, state: self.entry(pane, tag)?.clone() }));
        (entries, changed.collect())
    }

    /// Takes every entry as changed.
    pub(crate) fn forget_image(&mut self) {
        self.changed = self.all_tags().collect();
    }

    /// Writes entries to disk until at least `bytes` of memory are free or nothing is left in it, the oldest panes
    /// first: those that wait longest for their window, or were merged into larger pieces already.
    ///
    /// # Errors
    /// As the disk fails; nothing is lost then.
    pub(crate) fn spill(&mut self, bytes: usize, memory: &StateMemory) -> Result<()> {
        let goal = self.bytes.saturating_sub(bytes);
        for entry in self.panes.values_mut().flat_map(BTreeMap::values_mut) {
            if self.bytes <= goal {
                break;
            }
            let (freed, was_on_disk) = (entry.bytes(), entry.is_on_disk());
            entry.spill(memory)?;
            self.bytes = self.bytes.saturating_sub(freed);
            self.on_disk += usize::from(entry.is_on_disk() && !was_on_disk);
        }
        Ok(())
    }

    /// Drops panes before `pane`.
    pub(crate) fn evict(&mut self, pane: Pane) {
        self.changed = self.changed.split_off(&(pane, EventTime(i64::MIN)));
        let kept = self.panes.split_off(&pane);
        let dropped = std::mem::replace(&mut self.panes, kept);
        dropped.values().flat_map(BTreeMap::values).for_each(|batches| self.forget(batches));
    }

    /// The memory the batches take.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn numbers(count: i64) -> Vec<RecordBatch> {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
        vec![RecordBatch::try_from_iter([("n", numbers)]).unwrap()]
    }

    #[test]
    fn a_store_knows_whether_some_of_it_is_on_disk() {
        let folder = tempfile::tempdir().unwrap();
        let memory = StateMemory::new(0, folder.path());
        let (mut store, tag) = (PaneStore::default(), EventTime(0));
        for pane in 0..3 {
            store.add(Pane(pane), tag, numbers(4));
        }
        assert!(!store.is_on_disk());
        store.spill(1, &memory).unwrap();
        store.add(Pane(0), tag, numbers(4));
        store.spill(1, &memory).unwrap();
        assert_eq!(store.on_disk, 1, "the oldest has two pieces");
        assert_eq!(store.doubled_on_disk().collect::<Vec<_>>(), [(Pane(0), tag)]);
        store.spill(usize::MAX, &memory).unwrap();
        assert_eq!((store.on_disk, store.bytes()), (3, 0));
        let taken = store.take(Pane(1), tag).unwrap();
        store.put(Pane(1), tag, taken.into());
        assert_eq!(store.on_disk, 2);
        store.evict(Pane(2));
        assert_eq!(store.on_disk, 1);
        store.evict(Pane(3));
        assert!(!store.is_on_disk());
        assert_eq!(store.bytes(), 0);
    }
}
