//! A server under load: how many rows a second it takes in while a query reads them, how soon it answers, and many
//! clients at once. Server and clients share the machine.

mod clients;
mod ingest;
mod latency;

use clap::Subcommand;

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Measure {
    /// Trades by DoPut into a GROUP BY over windows: rows a second until the query has read all of them.
    Ingest(ingest::Args),
    /// SELECTs over a materialized view of many rows: how long they take.
    Latency(latency::Args),
    /// Clients that append, subscribe and ask at the same time; fails if a row is lost or comes twice.
    Clients(clients::Args),
}

/// Measures one.
pub(crate) async fn run(measure: &Measure) -> anyhow::Result<()> {
    match measure {
        Measure::Ingest(args) => ingest::run(args).await,
        Measure::Latency(args) => latency::run(args).await,
        Measure::Clients(args) => clients::run(args).await,
    }
}
