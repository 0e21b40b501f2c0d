//! A server whose state lies at executors, against one that keeps it in its own process: what an epoch costs, how many
//! rows a second go through it, what becomes of both when executors die or are slow, and whether it takes more of the
//! machine the longer it runs.
//!
//! Server, executors and clients share the machine. Durability is `process_crash`, as for the other servers.

mod arrivals;
mod busy;
mod cores;
mod executors;
mod figures;
mod follower;
mod generated;
mod growth;
mod latency;
mod pushed;
mod recovery;
mod soak;
mod straggler;
mod straggling;
mod throughput;
mod usage;

use clap::Subcommand;

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Measure {
    /// How long an epoch takes in which a few pushed rows come, when no window closes and when one does.
    Latency(latency::Args),
    /// Generated trades into a GROUP BY over windows, as fast as they are taken: rows a second until the view is whole.
    Throughput(throughput::Args),
    /// How late windows come when executors are killed.
    Recovery(recovery::Args),
    /// How long an epoch takes before, while and after one executor is slow.
    Straggler(straggler::Args),
    /// Memory, file handles and threads of all processes over many short epochs; fails if one of them grows.
    Soak(soak::Args),
    /// Threads that take time from others until stdin ends; `straggler` starts it.
    #[command(hide = true)]
    Busy(busy::Args),
}

/// Measures one.
pub(crate) async fn run(measure: &Measure) -> anyhow::Result<()> {
    match measure {
        Measure::Latency(args) => latency::run(args).await,
        Measure::Throughput(args) => throughput::run(args).await,
        Measure::Recovery(args) => recovery::run(args).await,
        Measure::Straggler(args) => straggler::run(args).await,
        Measure::Soak(args) => soak::run(args).await,
        Measure::Busy(args) => busy::run(args),
    }
}
