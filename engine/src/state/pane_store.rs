//! The state of record: immutable batches by pane and tag.
//!
//! A tag is the first instant that may see the rows: the natural one for rows that came in time, a later one for rows
//! that missed it. Entries whose tag has passed are merged by whoever evaluates, entries to come are kept apart.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::arrow::record_batch::RecordBatch;

use crate::checkpoint::PaneTag;
use crate::time::EventTime;
use crate::window::{Pane, WindowSpec};

/// Batches by pane and tag.
#[derive(Debug, Default)]
pub(crate) struct PaneStore {
    panes: BTreeMap<Pane, BTreeMap<EventTime, Vec<RecordBatch>>>,
    /// The entries to which something was added since the last image.
    changed: BTreeSet<(Pane, EventTime)>,
    bytes: usize,
}

impl PaneStore {
    /// Adds batches behind those of the same pane and tag.
    pub(crate) fn add(&mut self, pane: Pane, tag: EventTime, batches: Vec<RecordBatch>) {
        self.changed.insert((pane, tag));
        self.put(pane, tag, batches);
    }

    /// Puts back the batches that were taken out, merged: the entry means the same as before.
    pub(crate) fn put(&mut self, pane: Pane, tag: EventTime, batches: Vec<RecordBatch>) {
        self.bytes += byte_size(&batches);
        self.panes.entry(pane).or_default().entry(tag).or_default().extend(batches);
    }

    /// The batches of a pane and tag.
    pub(crate) fn get(&self, pane: Pane, tag: EventTime) -> &[RecordBatch] {
        self.panes.get(&pane).and_then(|tags| tags.get(&tag)).map_or(&[], Vec::as_slice)
    }

    /// Takes the batches of a pane and tag out.
    pub(crate) fn take(&mut self, pane: Pane, tag: EventTime) -> Vec<RecordBatch> {
        let batches = self.panes.get_mut(&pane).and_then(|tags| tags.remove(&tag)).unwrap_or_default();
        self.bytes = self.bytes.saturating_sub(byte_size(&batches));
        batches
    }

    /// The tags of each pane from `first` to before `end`, panes and tags ascending.
    pub(crate) fn tags(&self, first: Pane, end: Pane) -> impl Iterator<Item = (Pane, EventTime)> {
        self.panes.range(first..end).flat_map(|(pane, tags)| tags.keys().map(|tag| (*pane, *tag)))
    }

    /// The batches that the window at `instant` sees, in order of pane and tag.
    pub(crate) fn visible(&self, window: &WindowSpec, instant: EventTime) -> Vec<RecordBatch> {
        let (first, end) = window.panes_of(instant);
        if first >= end {
            return Vec::new();
        }
        let panes = self.panes.range(first..end);
        panes.flat_map(|(_, tags)| tags.range(..=instant).flat_map(|(_, batches)| batches.iter().cloned())).collect()
    }

    /// Every entry, and those that changed since the last call, ascending.
    pub(crate) fn image(&mut self) -> (Vec<PaneTag>, BTreeSet<PaneTag>) {
        let entries = self.panes.iter().flat_map(|(pane, tags)| tags.keys().map(|tag| (*pane, *tag)));
        (entries.collect(), std::mem::take(&mut self.changed))
    }

    /// Takes every entry as changed.
    pub(crate) fn forget_image(&mut self) {
        self.changed = self.panes.iter().flat_map(|(pane, tags)| tags.keys().map(|tag| (*pane, *tag))).collect();
    }

    /// Drops panes before `pane`.
    pub(crate) fn evict(&mut self, pane: Pane) {
        self.changed = self.changed.split_off(&(pane, EventTime(i64::MIN)));
        let kept = self.panes.split_off(&pane);
        let dropped = std::mem::replace(&mut self.panes, kept);
        let bytes: usize = dropped.values().flat_map(BTreeMap::values).map(|batches| byte_size(batches)).sum();
        self.bytes = self.bytes.saturating_sub(bytes);
    }

    /// All batches by pane and tag, in order.
    pub(crate) fn into_entries(self) -> impl Iterator<Item = (Pane, EventTime, Vec<RecordBatch>)> {
        let panes = self.panes.into_iter();
        panes.flat_map(|(pane, tags)| tags.into_iter().map(move |(tag, batches)| (pane, tag, batches)))
    }

    /// The memory the batches take.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }
}

/// The memory of batches; buffers that batches share count in each.
pub(crate) fn byte_size(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::get_array_memory_size).sum()
}
