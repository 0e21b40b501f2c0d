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
}

impl PaneStore {
    /// Adds batches behind those of the same pane and tag.
    pub(crate) fn add(&mut self, pane: Pane, tag: EventTime, batches: Vec<RecordBatch>) {
        self.changed.insert((pane, tag));
        self.put(pane, tag, batches.into());
    }

    /// Puts back the batches that were taken out, merged: the entry means the same as before.
    pub(crate) fn put(&mut self, pane: Pane, tag: EventTime, batches: Batches) {
        self.bytes += batches.bytes();
        self.panes.entry(pane).or_default().entry(tag).or_default().append(batches);
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
        let batches = self.panes.get_mut(&pane).and_then(|tags| tags.remove(&tag)).unwrap_or_default();
        self.bytes = self.bytes.saturating_sub(batches.bytes());
        batches.read()
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

    /// What the window at `instant` sees, in order of pane and tag, unread.
    pub(crate) fn visible(&self, window: &WindowSpec, instant: EventTime) -> Vec<Batches> {
        let (first, end) = window.panes_of(instant);
        if first >= end {
            return Vec::new();
        }
        let panes = self.panes.range(first..end);
        panes.flat_map(|(_, tags)| tags.range(..=instant).map(|(_, batches)| batches.clone())).collect()
    }

    /// Every entry, ascending, and those that changed since the last call with their state.
    pub(crate) fn image(&mut self) -> (Vec<PaneTag>, Vec<PaneEntry>) {
        let entries = self.panes.iter().flat_map(|(pane, tags)| tags.keys().map(|tag| (*pane, *tag))).collect();
        let changed = std::mem::take(&mut self.changed).into_iter();
        let changed =
            changed.filter_map(|(pane, tag)| Some(PaneEntry { pane, tag, state: self.entry(pane, tag)?.clone() }));
        (entries, changed.collect())
    }

    /// Takes every entry as changed.
    pub(crate) fn forget_image(&mut self) {
        self.changed = self.panes.iter().flat_map(|(pane, tags)| tags.keys().map(|tag| (*pane, *tag))).collect();
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
            let freed = entry.bytes();
            entry.spill(memory)?;
            self.bytes = self.bytes.saturating_sub(freed);
        }
        Ok(())
    }

    /// Drops panes before `pane`.
    pub(crate) fn evict(&mut self, pane: Pane) {
        self.changed = self.changed.split_off(&(pane, EventTime(i64::MIN)));
        let kept = self.panes.split_off(&pane);
        let dropped = std::mem::replace(&mut self.panes, kept);
        let bytes: usize = dropped.values().flat_map(BTreeMap::values).map(Batches::bytes).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// All entries, in order.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = (Pane, EventTime, Batches)> {
        let panes = self.panes.into_iter();
        panes.flat_map(|(pane, tags)| tags.into_iter().map(move |(tag, batches)| (pane, tag, batches)))
    }

    /// The memory the batches take.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}
