//! The share of an aggregate's state that one task owns: a range of key partitions.

use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;

use crate::arrays::{compact_views, concat_rows};
use crate::error::Result;
use crate::executor::assign::PaneTag;
use crate::program::AggregatePlans;
use crate::state::{Batches, KeyRouter, MERGE_DIRECTLY_PANES, PaneStore, Stacks, StateMemory};
use crate::time::{EventTime, Span};
use crate::window::{Pane, WindowSpec};

/// State added to a pane is merged once it has this many batches and half as many rows as the oldest of them …
const UNMERGED_BATCHES: usize = 16;
/// … or this many batches, however small.
const MOST_UNMERGED_BATCHES: usize = 256;

/// The pane state of some key partitions, and the windows made of it.
#[derive(Debug)]
pub(crate) struct Shard {
    plans: Arc<AggregatePlans>,
    window: WindowSpec,
    panes: PaneStore,
    stacks: Option<Stacks>,
    memory: Arc<StateMemory>,
    /// State rows read by merges and evaluations.
    pub(crate) rows_read: u64,
    /// State rows of the last window evaluated.
    pub(crate) window_rows: u64,
    /// Its instant.
    evaluated: EventTime,
    /// How long after its instant a window may be looked at again.
    lateness: Span,
}

impl Shard {
    /// No state; what memory has no room for goes to the files of `memory`.
    pub(crate) fn new(plans: Arc<AggregatePlans>, window: WindowSpec, memory: Arc<StateMemory>) -> Self {
        let overlaps = window.range().0 >= window.slide().0.saturating_mul(4);
        let use_stacks = window.panes_per_window() > MERGE_DIRECTLY_PANES && overlaps;
        let stacks = use_stacks.then(|| Stacks::new(&window, &memory));
        Self {
            plans,
            window,
            panes: PaneStore::default(),
            stacks,
            memory,
            rows_read: 0,
            window_rows: 0,
            evaluated: EventTime(i64::MIN),
            lateness: Span(0),
        }
    }

    /// The same for windows that are looked at again for so long after their instants.
    #[must_use]
    pub(crate) const fn correctable_for(mut self, lateness: Span) -> Self {
        self.lateness = lateness;
        self
    }

    /// Whether a window or a pane has so many state rows that one task is slow with them.
    pub(crate) fn is_large(&self, rows: u64) -> bool {
        self.window_rows >= rows || self.panes.largest() as u64 >= rows
    }

    /// Adds the state of a micro-batch.
    pub(crate) fn add(&mut self, deltas: Vec<(PaneTag, RecordBatch)>) -> Result<()> {
        for ((pane, tag), state) in deltas {
            // Rows in time for a window that was evaluated come only where late rows still count as such.
            if let (true, Some(stacks)) = (tag <= self.evaluated, &mut self.stacks) {
                stacks.forget();
            }
            self.panes.add(pane, tag, vec![state]);
            // What is on disk stays there until it is read anyway, or has doubled.
            if is_worth_merging(self.panes.recent(pane, tag)) {
                let batches = self.panes.take_recent(pane, tag);
                let merged = self.merge(batches)?;
                self.panes.put(pane, tag, merged.into());
            }
        }
        Ok(())
    }

    /// Merges the batches of a pane and tag.
    fn merge_entry(&mut self, pane: Pane, tag: EventTime) -> Result<()> {
        if !self.panes.is_in_pieces(pane, tag) {
            return Ok(());
        }
        let batches = self.panes.take(pane, tag)?;
        let merged = self.merge(batches)?;
        self.panes.put(pane, tag, merged.into());
        Ok(())
    }

    fn merge(&mut self, state: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        self.rows_read += row_count(&state);
        Ok(compact(self.plans.merge(state)?))
    }

    /// The state of the window at `instant`, older state first; instants must ascend.
    ///
    /// Cheap beside turning it into rows, which needs no shard and may be done for several instants at once.
    pub(crate) fn window_state(&mut self, instant: EventTime) -> Result<Vec<RecordBatch>> {
        let state = self.state_of(instant)?;
        self.window_rows = row_count(&state);
        self.rows_read += self.window_rows;
        Ok(state)
    }

    fn state_of(&mut self, instant: EventTime) -> Result<Vec<RecordBatch>> {
        let (first, end) = self.window.panes_of(instant);
        self.evaluated = instant;
        self.seal(instant, (first, end))?;
        let Some(mut stacks) = self.stacks.take() else {
            return self.visible(instant);
        };
        let Self { plans, rows_read, panes, window, .. } = self;
        let mut merge = |state: Vec<RecordBatch>| {
            *rows_read += row_count(&state);
            Ok(compact(plans.merge(state)?))
        };
        let in_time = stacks.window((first, end), window, panes, &mut merge);
        self.stacks = Some(stacks);
        let mut state = in_time?;
        for (pane, tag) in self.panes.tags(first, end) {
            if tag <= instant && tag != self.window.first_instant(pane) {
                state.extend(self.panes.read(pane, tag)?);
            }
        }
        Ok(state)
    }

    /// The state of the window at `instant` as far as it has come, pane by pane.
    pub(crate) fn visible(&self, instant: EventTime) -> Result<Vec<RecordBatch>> {
        let mut state = Vec::new();
        for batches in self.panes.visible(&self.window, instant) {
            state.extend(batches.read()?);
        }
        Ok(state)
    }

    /// Merges the entries that become visible at `instant` and can no longer grow.
    ///
    /// Late entries join those of their pane that are already visible, so that a pane has two at the most besides those
    /// that a window which may be looked at again does not see yet.
    fn seal(&mut self, instant: EventTime, (first, end): (Pane, Pane)) -> Result<()> {
        let due: Vec<_> = self.panes.tags(first, end).filter(|(_, tag)| *tag <= instant).collect();
        for pair in due.chunk_by(|a, b| a.0 == b.0) {
            let Some((pane, _)) = pair.first().copied() else { continue };
            let natural = self.window.first_instant(pane);
            let seen_by_all = |tag: &EventTime| *tag != natural && *tag <= instant.minus(self.lateness);
            let mut late: Vec<_> = pair.iter().map(|(_, tag)| *tag).filter(seen_by_all).collect();
            self.merge_entry(pane, natural)?;
            if let (Some(oldest), true) = (late.first().copied(), late.len() > 1) {
                let mut batches = Vec::new();
                for tag in late.drain(..) {
                    batches.extend(self.panes.take(pane, tag)?);
                }
                self.panes.add(pane, oldest, batches);
                self.merge_entry(pane, oldest)?;
            }
        }
        Ok(())
    }

    /// As many shards as `router` has, for [`Shard::move_into`]; what this one has read counts as read by the first.
    pub(crate) fn empty_parts(&self, router: &KeyRouter) -> Vec<Self> {
        let part =
            || Self::new(Arc::clone(&self.plans), self.window, Arc::clone(&self.memory)).correctable_for(self.lateness);
        let mut parts: Vec<_> = (0..router.shards).map(|_| part()).collect();
        if let Some(first) = parts.first_mut() {
            first.rows_read = self.rows_read;
        }
        parts
    }

    /// Moves its state into `shards`, to each the key partitions that `router` gives it.
    ///
    /// What was on disk is on disk again before more of it is read: state beyond the limit must not come into memory
    /// together. What did not change since the last checkpoint still did not.
    ///
    /// # Errors
    /// As the disk fails; nothing is lost then, and another call goes on where this one ended.
    pub(crate) fn move_into(&mut self, shards: &mut [Self], router: &KeyRouter) -> Result<()> {
        let pairs: Vec<_> = self.panes.all_tags().collect();
        for (pane, tag) in pairs {
            let parts = self.parts_of(pane, tag, shards.len(), router)?;
            let is_changed = self.panes.is_changed(pane, tag);
            self.panes.remove(pane, tag);
            for (shard, part) in shards.iter_mut().zip(parts) {
                if part.row_count() == 0 {
                    continue;
                }
                shard.panes.put(pane, tag, part);
                if is_changed {
                    shard.panes.mark_changed(pane, tag);
                }
            }
        }
        Ok(())
    }

    /// What each of `count` shards has of an entry, on disk if the entry was.
    fn parts_of(&self, pane: Pane, tag: EventTime, count: usize, router: &KeyRouter) -> Result<Vec<Batches>> {
        let mut rows: Vec<Vec<RecordBatch>> = vec![Vec::new(); count];
        for batch in self.panes.read(pane, tag)? {
            for (shard, part) in router.split(batch)? {
                if let Some(rows) = rows.get_mut(shard) {
                    rows.push(compact_views(&part)?);
                }
            }
        }
        let mut parts: Vec<Batches> = rows.into_iter().map(Batches::from).collect();
        if self.panes.entry(pane, tag).is_some_and(Batches::is_on_disk) {
            parts.iter_mut().try_for_each(|part| part.spill(&self.memory))?;
        }
        Ok(parts)
    }

    /// Drops panes before `pane`.
    pub(crate) fn evict(&mut self, pane: Pane) {
        self.panes.evict(pane);
    }

    /// Puts state back that was taken out.
    pub(crate) fn put(&mut self, pane: Pane, tag: EventTime, state: Batches) {
        self.panes.put(pane, tag, state);
    }

    /// Its pane state.
    pub(crate) const fn panes(&mut self) -> &mut PaneStore {
        &mut self.panes
    }

    /// Writes state to disk until at least `bytes` of memory are free or nothing is left in it.
    ///
    /// # Errors
    /// As the disk fails; nothing is lost then.
    pub(crate) fn spill(&mut self, bytes: usize) -> Result<()> {
        let before = self.panes.bytes();
        self.panes.spill(bytes, &self.memory)?;
        let freed = before - self.panes.bytes();
        self.merge_on_disk()?;
        match &mut self.stacks {
            Some(stacks) if freed < bytes => stacks.spill(bytes - freed),
            _ => Ok(()),
        }
    }

    /// Merges entries of which the disk has many pieces, so that it has to hold groups and not rows.
    fn merge_on_disk(&mut self) -> Result<()> {
        let pairs: Vec<_> = self.panes.doubled_on_disk().collect();
        for (pane, tag) in pairs {
            let pieces = self.panes.read(pane, tag)?;
            let mut merged = Batches::from(self.merge(pieces)?);
            match merged.spill(&self.memory) {
                // The pieces are as good, and take no more room than they have.
                Err(error) if error.is_disk_full() => return Ok(()),
                ended => ended?,
            }
            self.panes.remove(pane, tag);
            self.panes.put(pane, tag, merged);
        }
        Ok(())
    }

    /// Whether some of its state is on disk.
    pub(crate) fn is_on_disk(&self) -> bool {
        self.panes.is_on_disk() || self.stacks.as_ref().is_some_and(Stacks::is_on_disk)
    }

    /// The memory of the state and what is derived from it.
    pub(crate) fn bytes(&self) -> usize {
        self.panes.bytes() + self.stacks.as_ref().map_or(0, Stacks::bytes)
    }
}

/// Merging reads the oldest batch, the result of the last merge, again: it pays once enough has come since.
fn is_worth_merging(batches: &[RecordBatch]) -> bool {
    let Some((oldest, newer)) = batches.split_first() else { return false };
    batches.len() >= MOST_UNMERGED_BATCHES
        || (batches.len() >= UNMERGED_BATCHES && row_count(newer) * 2 >= oldest.num_rows() as u64)
}

fn row_count(batches: &[RecordBatch]) -> u64 {
    batches.iter().map(|batch| batch.num_rows() as u64).sum()
}

/// One batch instead of slices of one, so that what is kept pins nothing else and can be counted.
fn compact(batches: Vec<RecordBatch>) -> Vec<RecordBatch> {
    match batches.first().map(RecordBatch::schema) {
        Some(schema) if batches.len() > 1 => concat_rows(&schema, &batches).map_or(batches, |whole| vec![whole]),
        _ => batches,
    }
}
