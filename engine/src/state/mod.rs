//! Windowed state: immutable Arrow batches per pane and tag, and how windows are made of them.

mod calendar;
mod pane_store;
mod route;
mod stacks;

pub(crate) use calendar::Calendar;
pub(crate) use pane_store::{PaneStore, byte_size};
pub(crate) use route::KeyRouter;
pub use route::{DEFAULT_KEY_PARTITIONS, key_partitions_of};
pub(crate) use stacks::{MERGE_DIRECTLY_PANES, Stacks};
