//! Running a program: rows into state, state into results, in this process.
//!
//! `delta` is the way of rows into state, `instants` that of state into results.

mod analysis;
mod assign;
mod counted;
mod delta;
mod held;
mod image;
mod instants;
mod latest;
mod leaf;
mod new_rows;
mod output;
mod partners;
mod preceding;
mod row_keys;
mod sessions;
mod shard;
mod stage;
mod unbounded;
mod update;
mod view;

pub use analysis::StageAnalysis;
pub(crate) use delta::{Added, DeltaCounts, LeafDelta, StageDelta};
pub(crate) use image::stream_contract;
pub use stage::StageCounts;
pub(crate) use stage::{Emitted, LateRows, Spreading, Stage, StageOptions};
pub use update::RowCounts;
pub(crate) use update::{Unit, units_of};
