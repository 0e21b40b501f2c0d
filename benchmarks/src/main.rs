//! Measures whole queries on generated trades: `cargo run --release -p millstream-benchmarks -- groupby`.
//!
//! Runs of the variants are interleaved and medians are printed, because a machine drifts; what counts is their ratio.

mod groupby;

use clap::Parser;

/// The benchmarks.
#[derive(Debug, Parser)]
#[command(name = "millstream-benchmarks", about = "Measures whole queries on generated trades")]
enum Benchmark {
    /// GROUP BY over sliding windows of trades in CSV files, into a sink that counts rows.
    Groupby(groupby::Args),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Benchmark::parse() {
        Benchmark::Groupby(args) => groupby::run(&args).await,
    }
}
