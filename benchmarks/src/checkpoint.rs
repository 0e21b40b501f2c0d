//! What durable state costs: the GroupBy query over generated trades with no state directory, with one that logs its
//! epochs, and with one that checkpoints.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use millstream::cli::{Durability, Format};
use millstream::output::Output;
use millstream::screen::Screen;
use millstream::session::{Mode, Script, Session};
use millstream::state::State;
use tokio::sync::watch;

use crate::median;

/// What the benchmark takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Trades to generate.
    #[arg(long, default_value_t = 60_000_000)]
    rows: u64,
    /// Runs of each variant; the median is printed.
    #[arg(long, default_value_t = 3)]
    runs: usize,
    /// Seconds between two checkpoints.
    #[arg(long, default_value_t = 10)]
    interval: u64,
}

/// Longer than any run.
const NEVER: Duration = Duration::from_secs(1 << 30);

/// A query whose state has this many keys and panes.
struct Subject {
    name: &'static str,
    codes: u32,
    users: u32,
    key: &'static str,
    window: &'static str,
}

const SUBJECTS: [Subject; 2] = [
    Subject {
        name: "4,000 keys x 60 panes",
        codes: 4_000,
        users: 10_000,
        key: "szcode",
        window: "Range 60 s, Slide 1 s",
    },
    Subject {
        name: "1 M keys x 6 panes",
        codes: 4_000,
        users: 1_000_000,
        key: "userID",
        window: "Range 60 minutes, Slide 10 minutes",
    },
];

/// How state is kept.
const VARIANTS: [&str; 3] = ["none", "logged", "checkpointed"];

/// Runs all variants of both subjects in turn.
pub(crate) async fn run(args: &Args) -> anyhow::Result<()> {
    for subject in &SUBJECTS {
        let mut times: [Vec<Duration>; VARIANTS.len()] = Default::default();
        let mut epochs = 0;
        for _ in 0..args.runs.max(1) {
            for (variant, times) in VARIANTS.iter().zip(&mut times) {
                let (count, elapsed) = measure(subject, args, variant).await?;
                epochs = count;
                times.push(elapsed);
            }
        }
        let [none, logged, checkpointed] = times.map(|mut times| median(&mut times).as_secs_f64());
        println!("{}, {} trades, medians of {} runs", subject.name, args.rows, args.runs.max(1));
        println!("{:>14} {:>10} {:>14} {:>8}", "state", "seconds", "rows/s", "ratio");
        for (variant, seconds) in VARIANTS.iter().zip([none, logged, checkpointed]) {
            println!("{variant:>14} {seconds:>10.3} {:>14.0} {:>8.3}", args.rows as f64 / seconds, none / seconds);
        }
        println!("logging an epoch: {:.2} ms ({epochs} epochs)", (logged - none) * 1e3 / epochs.max(1) as f64);
    }
    Ok(())
}

/// Runs one variant; its epochs and the time it took.
async fn measure(subject: &Subject, args: &Args, variant: &str) -> anyhow::Result<(u64, Duration)> {
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let (_keep_running, stop) = watch::channel(false);
    let screen = Screen::new();
    let output = Output::new(Format::Csv, None, screen.clone())?;
    let mut session = Session::new(output, screen, stop, Mode::Run);
    match variant {
        "logged" => session.keep_state(kept(folder.path(), NEVER)?),
        "checkpointed" => session.keep_state(kept(folder.path(), Duration::from_secs(args.interval))?),
        _ => {}
    }
    let Subject { codes, users, key, window, .. } = subject;
    let text = format!(
        "CREATE STREAM TRANSACTION (
           szcode VARCHAR, userID BIGINT, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE,
           WATERMARK FOR eventTime AS eventTime
         ) WITH (connector = 'generate', rows = {}, codes = {codes}, users = {users});
         CREATE SINK nowhere WITH (connector = 'blackhole');
         INSERT INTO nowhere SELECT {key}, SUM(Price*Turnover) FROM TRANSACTION [{window}] GROUP BY {key}",
        args.rows
    );
    let script = Script { origin: "benchmark".to_owned(), text };
    session.run(&script).await.map_err(|error| anyhow::anyhow!(error.render()))?;
    let outcome = session.outcomes().last().context("the query did not run")?;
    let epochs = outcome.summaries.iter().map(|summary| summary.progress.epochs).sum();
    Ok((epochs, outcome.elapsed))
}

fn kept(folder: &Path, interval: Duration) -> anyhow::Result<State> {
    let mut state = State::open(&folder.join("state").as_path().into(), Durability::ProcessCrash, Some(interval))?;
    // What is measured is the interval alone.
    state.policy.recovery_target = NEVER;
    Ok(state)
}
