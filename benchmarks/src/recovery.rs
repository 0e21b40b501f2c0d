//! How fast state is rebuilt from its lineage: a query is cut off in the middle of its input and begun again. The same
//! process replays what was logged and then reads the rest, so that both rates are of one run.

use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_engine::durable::{StatePlace, inspect};

use crate::checkpoint::{NEVER, SUBJECTS, Subject, kept, place, session};
use crate::median;

/// What the benchmark takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Trades to generate; about half of them are replayed.
    #[arg(long, default_value_t = 60_000_000)]
    rows: u64,
    /// Runs; medians are printed.
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

/// How often it is looked how far the query has come.
const LOOK: Duration = Duration::from_millis(50);

/// Rows and how long they took.
#[derive(Debug, Clone, Copy)]
struct Pace {
    rows: u64,
    time: Duration,
}

impl Pace {
    fn rate(self) -> f64 {
        self.rows as f64 / self.time.as_secs_f64()
    }
}

/// Measures both subjects.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    println!("{:>22} {:>14} {:>14} {:>14} {:>8}", "state", "rows replayed", "replayed/s", "live rows/s", "ratio");
    for subject in &SUBJECTS {
        let mut runs = Vec::new();
        for _ in 0..args.runs.max(1) {
            runs.push(measure(subject, args.rows).await?);
        }
        runs.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        let middle = runs.get(runs.len() / 2).copied().context("no run")?;
        let (replayed, live) = middle;
        let mut waits: Vec<_> = runs.iter().map(|(replayed, _)| replayed.time).collect();
        println!(
            "{:>22} {:>14} {:>14.0} {:>14.0} {:>8.2}   rebuilt in {:.2} s",
            subject.name,
            replayed.rows,
            replayed.rate(),
            live.rate(),
            ratio(&middle),
            median(&mut waits).as_secs_f64(),
        );
    }
    Ok(())
}

fn ratio((replayed, live): &(Pace, Pace)) -> f64 {
    replayed.rate() / live.rate()
}

/// The pace of replay and that of the live rows behind it.
async fn measure(subject: &Subject, rows: u64) -> anyhow::Result<(Pace, Pace)> {
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let mut cut_off = session(Some(kept(folder.path(), NEVER)?))?;
    tokio::select! {
        ended = subject.run(&mut cut_off, rows) => { ended?; }
        () = half_way(place(folder.path()), rows) => {}
    }
    // With its directory's lock goes all that it had in hand.
    drop(cut_off);
    let mut again = session(Some(kept(folder.path(), NEVER)?))?;
    let outcome = subject.run(&mut again, rows).await?;
    let summary = outcome.summaries.first().context("no query")?;
    let rebuilt = summary.rebuilt.context("the query ended before it was cut off: take more --rows")?;
    ensure!(summary.progress.rows_read == rows, "{} of {rows} rows were read", summary.progress.rows_read);
    let live = Pace { rows: rows - rebuilt.rows, time: outcome.elapsed.saturating_sub(rebuilt.elapsed) };
    Ok((Pace { rows: rebuilt.rows, time: rebuilt.elapsed }, live))
}

/// Waits until half of the rows have been read.
async fn half_way(place: StatePlace, rows: u64) {
    loop {
        tokio::time::sleep(LOOK).await;
        // A journal that is being written to may not be readable for a moment.
        let kept = inspect(&place).unwrap_or_default();
        if kept.iter().any(|query| query.rows_read >= rows / 2) {
            return;
        }
    }
}
