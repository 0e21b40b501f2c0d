//! What a stage holds, taken out so that it can be written while the stage goes on, or put back.

use crate::executor::RowCounts;
use crate::state::Batches;
use crate::time::EventTime;
use crate::window::{Pane, WindowSpec};

/// A pane and the first instant that may see the rows.
pub(crate) type PaneTag = (Pane, EventTime);

/// The state of a pane and tag.
#[derive(Debug, Clone)]
pub(crate) struct PaneEntry {
    pub(crate) pane: Pane,
    pub(crate) tag: EventTime,
    pub(crate) state: Batches,
}

/// A stage; views come as stages of their own.
#[derive(Debug, Clone)]
pub(crate) struct StageImage {
    /// All that decides what the state means; a state is only read by a stage of the same contract.
    pub(crate) contract: String,
    /// All instants up to here have been evaluated.
    pub(crate) evaluated: EventTime,
    /// Rows the stage has handed to the one above it.
    pub(crate) rows: u64,
    /// Whether a plan without streams has run.
    pub(crate) is_done: bool,
    /// What each leaf holds.
    pub(crate) leaves: Vec<LeafImage>,
}

/// The state that belongs to one leaf.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeafImage {
    /// The live panes with the first instant at which some of their rows may appear.
    pub(crate) calendar: Vec<PaneTag>,
    /// Where its rows went.
    pub(crate) counts: RowCounts,
    /// The leaf's window, for the bounds of panes; none where panes are key partitions.
    pub(crate) window: Option<WindowSpec>,
    /// How many columns of the state are keys, from the first.
    pub(crate) key_columns: usize,
    /// T.
    pub(crate) key_partitions: u32,
    /// Every entry there is.
    pub(crate) live: Vec<PaneTag>,
    /// The entries that are new or changed since the last image; all of them when it is put back.
    pub(crate) entries: Vec<PaneEntry>,
}
