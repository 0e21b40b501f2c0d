//! Windows of many panes in a constant number of merges: two stacks, aligned to absolute blocks of panes.
//!
//! Panes are grouped into blocks of one window's length, numbered from the origin. A window either is a block or
//! spans two: it is a suffix of the first and a prefix of the second. Suffixes are made once per block, back to
//! front; the prefix grows pane by pane. Per slide that is about six times the groups in state rows read (two for a
//! suffix, two for the prefix, two for the result), where merging all panes anew would read panes × groups.
//!
//! The method is van Herk's and Gil and Werman's for running extrema, known in stream processing as two-stacks;
//! blocks at absolute pane numbers make the shape of the merges, and so the last bits of floating-point results,
//! independent of when a query started.
//!
//! Only rows in time go in here. Late ones stay beside, in their pane, and are read in addition.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::state::batches::{Batches, byte_size};
use crate::state::memory::{MemoryShare, StateMemory};
use crate::state::pane_store::PaneStore;
use crate::time::EventTime;
use crate::window::{Pane, WindowSpec};

/// Up to this many panes in a window, merging all of them is cheaper.
pub(crate) const MERGE_DIRECTLY_PANES: i64 = 16;

/// Panes that a merge takes in together: reading one pane more now and then costs less than a hash table more.
const PANES_PER_MERGE: usize = 2;

/// The suffixes of one block and the prefix of the next.
#[derive(Debug)]
pub(crate) struct Stacks {
    block_panes: i64,
    suffix_block: i64,
    /// The merged panes from the key to the end of the block, for every second pane or so.
    suffixes: BTreeMap<Pane, Batches>,
    prefix_block: i64,
    /// One past the last pane in the prefix.
    prefix_end: Pane,
    prefix: Vec<RecordBatch>,
    /// Panes behind the prefix that are not merged into it yet.
    recent: Vec<RecordBatch>,
    recent_panes: usize,
    memory: Arc<StateMemory>,
}

/// State → state, counting the rows it reads.
pub(crate) type Merge<'a> = &'a mut dyn FnMut(Vec<RecordBatch>) -> Result<Vec<RecordBatch>>;

impl Stacks {
    pub(crate) fn new(window: &WindowSpec, memory: &Arc<StateMemory>) -> Self {
        Self {
            block_panes: window.panes_per_window(),
            suffix_block: i64::MIN,
            suffixes: BTreeMap::new(),
            prefix_block: i64::MIN,
            prefix_end: Pane(i64::MIN),
            prefix: Vec::new(),
            recent: Vec::new(),
            recent_panes: 0,
            memory: Arc::clone(memory),
        }
    }

    /// The state of the panes from `first` to before `end`, one window, as the few batches that it is made of.
    ///
    /// Calls must come with ascending windows, and every pane must be complete.
    pub(crate) fn window(
        &mut self,
        (first, end): (Pane, Pane),
        window: &WindowSpec,
        panes: &PaneStore,
        merge: Merge<'_>,
    ) -> Result<Vec<RecordBatch>> {
        let block = first.0.div_euclid(self.block_panes);
        let block_end = Pane((block + 1) * self.block_panes);
        let mut state = Vec::new();
        if first.0.rem_euclid(self.block_panes) == 0 {
            self.extend_prefix(block, end, window, panes, merge)?;
        } else {
            self.build_suffixes(block, (first, block_end), window, panes, merge)?;
            self.extend_prefix(block + 1, end, window, panes, merge)?;
            let (merged_from, suffix) = match self.suffixes.range(first..).next() {
                Some((pane, suffix)) => (*pane, suffix.read()?),
                None => (block_end, Vec::new()),
            };
            for (pane, tag) in in_time(panes, window, first, merged_from) {
                state.extend(panes.read(pane, tag)?);
            }
            state.extend(suffix);
        }
        state.extend_from_slice(&self.prefix);
        state.extend_from_slice(&self.recent);
        Ok(state)
    }

    /// Makes the suffixes of `block` from its end down to `first`, once; what memory has no room for goes to disk.
    fn build_suffixes(
        &mut self,
        block: i64,
        (first, block_end): (Pane, Pane),
        window: &WindowSpec,
        panes: &PaneStore,
        merge: Merge<'_>,
    ) -> Result<()> {
        if self.suffix_block == block {
            self.suffixes = self.suffixes.split_off(&first);
            return Ok(());
        }
        self.suffix_block = block;
        self.suffixes.clear();
        let mut suffix: Vec<RecordBatch> = Vec::new();
        let mut share = MemoryShare::new(Arc::clone(&self.memory));
        let mut held = 0;
        let tags: Vec<_> = in_time(panes, window, first, block_end).collect();
        for group in tags.rchunks(PANES_PER_MERGE).filter(|group| group.len() == PANES_PER_MERGE) {
            let mut older = Vec::new();
            for (pane, tag) in group {
                older.extend(panes.read(*pane, *tag)?);
            }
            suffix = merge(older.into_iter().chain(suffix).collect())?;
            if let Some((pane, _)) = group.first() {
                held += byte_size(&suffix);
                self.suffixes.insert(*pane, suffix.clone().into());
                held = self.make_room(&mut share, held)?;
            }
        }
        Ok(())
    }

    /// Writes the suffixes in memory, which take `held` bytes, to disk if there is no room for them; what is held then.
    ///
    /// Together the suffixes of a block are many times a window, so that this cannot wait until all are made.
    fn make_room(&mut self, share: &mut MemoryShare, held: usize) -> Result<usize> {
        if share.set(held) == 0 {
            return Ok(held);
        }
        // They are made back to front, so that those that were not written yet come first.
        for suffix in self.suffixes.values_mut().take_while(|suffix| suffix.bytes() > 0) {
            match suffix.spill(&self.memory) {
                // The stage waits for room once it has the window.
                Err(error) if error.is_disk_full() => return Ok(held),
                ended => ended?,
            }
        }
        share.set(0);
        Ok(0)
    }

    /// Takes the panes of `block` up to `end` into the prefix.
    fn extend_prefix(
        &mut self,
        block: i64,
        end: Pane,
        window: &WindowSpec,
        panes: &PaneStore,
        merge: Merge<'_>,
    ) -> Result<()> {
        if self.prefix_block != block {
            self.prefix_block = block;
            self.prefix_end = Pane(block * self.block_panes);
            self.prefix.clear();
            self.recent.clear();
            self.recent_panes = 0;
        }
        for (pane, tag) in in_time(panes, window, self.prefix_end.min(end), end) {
            self.recent.extend(panes.read(pane, tag)?);
            self.recent_panes += 1;
            if self.recent_panes == PANES_PER_MERGE {
                self.recent_panes = 0;
                let all = self.prefix.drain(..).chain(self.recent.drain(..)).collect();
                self.prefix = merge(all)?;
            }
        }
        self.prefix_end = end;
        Ok(())
    }

    /// Forgets all that was made of panes: one of them has changed.
    pub(crate) fn forget(&mut self) {
        (self.suffix_block, self.prefix_block) = (i64::MIN, i64::MIN);
        self.suffixes.clear();
    }

    /// Writes suffixes to disk until at least `bytes` of memory are free or none is left in it, those first that are
    /// needed last.
    ///
    /// # Errors
    /// As the disk fails; nothing is lost then.
    pub(crate) fn spill(&mut self, bytes: usize) -> Result<()> {
        let mut freed = 0;
        for suffix in self.suffixes.values_mut().rev() {
            if freed >= bytes {
                break;
            }
            let held = suffix.bytes();
            suffix.spill(&self.memory)?;
            freed += held;
        }
        Ok(())
    }

    /// Whether some suffixes are on disk.
    pub(crate) fn is_on_disk(&self) -> bool {
        self.suffixes.values().rev().any(Batches::is_on_disk)
    }

    /// The memory of what is derived from panes.
    pub(crate) fn bytes(&self) -> usize {
        byte_size(&self.prefix) + byte_size(&self.recent) + self.suffixes.values().map(Batches::bytes).sum::<usize>()
    }
}

/// The panes from `first` to before `end` with the tag of their rows in time.
fn in_time<'a>(
    panes: &'a PaneStore,
    window: &'a WindowSpec,
    first: Pane,
    end: Pane,
) -> impl Iterator<Item = (Pane, EventTime)> + 'a {
    panes.tags(first, end).filter(|(pane, tag)| *tag == window.first_instant(*pane))
}
