//! A server with executors: the queries of one driver, whose state lies in other processes.
//!
//! ```text
//!   driver (millstream serve)                       executor (millstream executor)
//!   Engine ─ Seat ─► Reach ──── control: what to hold, checkpoints ────► Host: slots of queries
//!                     │  └───── plane: deltas there, results back ─────►  │
//!                     └──────── membership ◄──── register, heartbeat ─────┘
//! ```
//!
//! What they do for each other is decided in [`millstream_engine::cluster`]; here is how they find and reach each other.
//! Control and heartbeats have a runtime and connections of their own, so that a busy executor is not taken for a lost one.
//!
//! Reading order: `driver` and `executor` start either end, `reach` is the way from one to the other, `programs` how an
//! executor learns what a query is. Below them are `membership`, `control`, `plane`, `link` and `spawn`.

mod backoff;
mod control;
mod driver;
mod executor;
mod link;
mod membership;
mod plane;
mod programs;
mod reach;
mod runtimes;
mod spawn;
#[cfg(test)]
mod tests;

pub(crate) use driver::{Cluster, ClusterOptions};
pub use executor::run as run_executor;
pub(crate) use programs::{Declaration, Program};
