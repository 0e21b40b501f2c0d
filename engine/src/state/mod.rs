//! Windowed state: immutable Arrow batches per pane and tag, and how windows are made of them.

mod batches;
mod calendar;
mod memory;
mod pane_store;
mod route;
mod spill;
mod stacks;

pub(crate) use batches::{Batches, byte_size};
pub(crate) use calendar::Calendar;
pub(crate) use memory::MemoryShare;
pub use memory::{StateMemory, machine_bytes};
pub(crate) use pane_store::PaneStore;
pub(crate) use route::KeyRouter;
pub use route::{DEFAULT_KEY_PARTITIONS, key_partitions_of};
pub(crate) use stacks::{MERGE_DIRECTLY_PANES, Stacks};
