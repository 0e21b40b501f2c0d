//! Measures whole queries on generated trades: `cargo run --release -p millstream-benchmarks -- groupby`.
//!
//! Runs of the variants are interleaved and medians are printed, because a machine drifts; what counts is their ratio.

mod answer;
mod checkpoint;
mod client;
mod cluster;
mod groupby;
mod process;
mod progress;
mod recovery;
mod server;

use std::time::Duration;

use clap::Parser;

/// The benchmarks.
#[derive(Debug, Parser)]
#[command(name = "millstream-benchmarks", about = "Measures whole queries on generated trades")]
enum Benchmark {
    /// GROUP BY over sliding windows of trades in CSV files, into a sink that counts rows.
    Groupby(groupby::Args),
    /// The same with state that is logged and checkpointed, against one that is not kept.
    Checkpoint(checkpoint::Args),
    /// How fast state is rebuilt from its lineage, against how fast live rows are read.
    Recovery(recovery::Args),
    /// A server under load.
    #[command(subcommand)]
    Server(server::Measure),
    /// A server whose state lies at executors, against one that keeps it in its own process.
    #[command(subcommand)]
    Cluster(cluster::Measure),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Benchmark::parse() {
        Benchmark::Groupby(args) => groupby::run(&args).await,
        Benchmark::Checkpoint(args) => checkpoint::run(&args).await,
        Benchmark::Recovery(args) => recovery::run(&args).await,
        Benchmark::Server(measure) => server::run(&measure).await,
        Benchmark::Cluster(measure) => cluster::run(&measure).await,
    }
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
