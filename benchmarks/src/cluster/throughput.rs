//! Rows a second through a GROUP BY over windows.

use std::time::Duration;

use super::executors::title;
use super::generated::{Job, SLIDING};
use crate::median;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Trades to generate in one run.
    #[arg(long, default_value_t = 20_000_000)]
    rows: u64,
    /// Stocks: the groups of a window.
    #[arg(long, default_value_t = 4_000)]
    codes: u32,
    /// Executors of the one server; the other has none.
    #[arg(long, default_value_t = 2)]
    executors: usize,
    /// Runs of each, in turn; medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
}

/// Rows in a second of event time.
const EVENT_RATE: u64 = 10_000;

pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    let job = Job { rows: args.rows, codes: args.codes, event_rate: EVENT_RATE, windows: SLIDING };
    let (mut embedded, mut spread) = (Vec::new(), Vec::new());
    for _ in 0..args.rounds.max(1) {
        embedded.push(job.run(0).await?);
        spread.push(job.run(args.executors).await?);
    }
    let rate = |times: &mut [Duration]| args.rows as f64 / median(times).as_secs_f64();
    let (embedded, spread) = (rate(&mut embedded), rate(&mut spread));
    println!(
        "GROUP BY ({}, {} codes) over {} generated trades, until the view is whole; medians of {} runs",
        SLIDING.sql,
        args.codes,
        args.rows,
        args.rounds.max(1)
    );
    println!("{:>14} {:>12} {:>8}", "state", "M rows/s", "ratio");
    for (executors, rate) in [(0, embedded), (args.executors, spread)] {
        println!("{:>14} {:>12.2} {:>8.2}", title(executors), rate / 1e6, rate / embedded);
    }
    println!("goal: a ratio of at least 0.75");
    Ok(())
}
