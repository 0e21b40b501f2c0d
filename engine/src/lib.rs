//! Millstream's engine: windowed queries over micro-batches, whose answers depend on the query and the input only.
//!
//! ```text
//!   Source ─► ingest ─► log of blocks ─► driver ─► stage ─────────────► Sink
//!             decode,   bounded, read    chooses   update: rows → pane state
//!             tag       by every query   blocks,   merge:  state → state
//!             lateness                   commits   evaluate: panes of a window → rows
//! ```
//!
//! A stream is a log of blocks, ingested once for all its queries. A query is planned once by DataFusion and cut into
//! plans that are bound to new rows for every micro-batch and every window. State is immutable Arrow batches by pane,
//! a slice of event time, and tag, the first instant that may see the rows.
//!
//! # Invariants
//!
//! Each has a test of its name in `tests/`.
//!
//! 1. **Batch invariance**: cutting the same log into other blocks and micro-batches, or running it on another number
//!    of tasks or key partitions, changes no row of final output. Lateness is decided row by row.
//! 2. **Replay**: reading a log again gives the same rows in the same order.
//! 3. **Determinism**: results depend on plan and log only; order is broken by position, integers and decimals are
//!    exact, overflow is an error.
//! 4. **Tiling**: panes tile time, every window is a whole number of panes.
//! 5. **Once**: a window and key are emitted once, and not before the watermark crosses the window's instant.
//! 6. **Conservation**: rows read = used + filtered + late + outside every window + set aside as bad.
//!
//! The crate names no SQL text, no connector and no transport.
//!
//! # Reading order
//!
//! [`time`], [`window`] and [`ingest`]'s `progress` are arithmetic. [`plan`] and [`source`] are what comes in.
//! [`function`] is aggregates that users declare. [`program`] makes plans, `executor` runs them on `state`, `driver` is the loop, [`query`] what a caller holds.
//! [`cluster`] spreads their state over executors.
//! [`testing`] runs queries over logs written down by hand.

mod arrays;
pub mod batch;
mod checkpoint;
pub mod cluster;
mod driver;
pub mod durable;
pub mod error;
mod executor;
pub mod function;
pub mod ingest;
pub mod ipc;
pub mod json;
mod keeper;
mod late;
pub mod nodes;
mod pace;
pub mod plan;
pub mod program;
pub mod query;
mod recovery;
pub mod refreshed;
pub mod results;
pub mod secret;
pub mod side;
pub mod sink;
pub mod size;
pub mod source;
pub mod state;
pub mod testing;
pub mod time;
pub mod window;

pub use driver::{Rebuilt, Summary};
pub use error::{Error, Result};
pub use executor::{RowCounts, StageAnalysis, StageCounts};
pub use keeper::CheckpointPolicy;
