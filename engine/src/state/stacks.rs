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

use datafusion::arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::state::pane_store::{PaneStore, byte_size};
use crate::window::{Pane, WindowSpec};

/// Up to this many panes in a window, merging all of them is cheaper.
pub(crate) const MERGE_DIRECTLY_PANES: i64 = 16;

/// The suffixes of one block and the prefix of the next.
#[derive(Debug)]
pub(crate) struct Stacks {
    block_panes: i64,
    suffix_block: i64,
    suffixes: BTreeMap<Pane, Vec<RecordBatch>>,
    prefix_block: i64,
    /// One past the last pane in the prefix.
    prefix_end: Pane,
    prefix: Vec<RecordBatch>,
}

/// State → state, counting the rows it reads.
pub(crate) type Merge<'a> = &'a mut dyn FnMut(Vec<RecordBatch>) -> Result<Vec<RecordBatch>>;

impl Stacks {
    pub(crate) fn new(window: &WindowSpec) -> Self {
        Self {
            block_panes: window.panes_per_window(),
            suffix_block: i64::MIN,
            suffixes: BTreeMap::new(),
            prefix_block: i64::MIN,
            prefix_end: Pane(i64::MIN),
            prefix: Vec::new(),
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
        if first.0.rem_euclid(self.block_panes) == 0 {
            self.extend_prefix(block, end, window, panes, merge)?;
            return Ok(self.prefix.clone());
        }
        self.build_suffixes(block, block_end, first, window, panes, merge)?;
        self.extend_prefix(block + 1, end, window, panes, merge)?;
        let suffix = self.suffixes.range(first..).next().map(|(_, batches)| batches.clone());
        Ok(suffix.into_iter().flatten().chain(self.prefix.iter().cloned()).collect())
    }

    /// Makes the suffixes of `block` from its end down to `first`, once.
    fn build_suffixes(
        &mut self,
        block: i64,
        block_end: Pane,
        first: Pane,
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
        let tags: Vec<_> = panes.tags(first, block_end).collect();
        for (pane, tag) in tags.into_iter().rev().filter(|(pane, tag)| *tag == window.first_instant(*pane)) {
            let newer = std::mem::take(&mut suffix);
            suffix = panes.get(pane, tag).iter().cloned().chain(newer).collect();
            if suffix.len() > 1 {
                suffix = merge(suffix)?;
            }
            self.suffixes.insert(pane, suffix.clone());
        }
        Ok(())
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
        }
        let tags: Vec<_> = panes.tags(self.prefix_end.min(end), end).collect();
        for (pane, tag) in tags.into_iter().filter(|(pane, tag)| *tag == window.first_instant(*pane)) {
            self.prefix.extend(panes.get(pane, tag).iter().cloned());
            if self.prefix.len() > 1 {
                self.prefix = merge(std::mem::take(&mut self.prefix))?;
            }
        }
        self.prefix_end = end;
        Ok(())
    }

    /// The memory of what is derived from panes.
    pub(crate) fn bytes(&self) -> usize {
        byte_size(&self.prefix) + self.suffixes.values().map(|batches| byte_size(batches)).sum::<usize>()
    }
}
