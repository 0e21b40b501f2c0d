//! What durable state costs: the GroupBy query over generated trades with no state directory, with one that logs its
//! epochs, and with one that checkpoints.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use millstream::cli::{Durability, Format, StateArgs};
use millstream::output::Output;
use millstream::queries::Outcome;
use millstream::screen::Screen;
use millstream::session::{Mode, Script, Session};
use millstream::state::State;
use millstream_engine::durable::StatePlace;
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
pub(crate) const NEVER: Duration = Duration::from_secs(1 << 30);

/// A query whose state has this many keys and panes.
pub(crate) struct Subject {
    pub(crate) name: &'static str,
    codes: u32,
    users: u32,
    key: &'static str,
    window: &'static str,
}

pub(crate) const SUBJECTS: [Subject; 2] = [
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
    let interval = match variant {
        "logged" => Some(NEVER),
        "checkpointed" => Some(Duration::from_secs(args.interval)),
        _ => None,
    };
    let mut session = session(interval.map(|interval| kept(folder.path(), interval)).transpose()?)?;
    let outcome = subject.run(&mut session, args.rows).await?;
    let epochs = outcome.summaries.iter().map(|summary| summary.progress.epochs).sum();
    Ok((epochs, outcome.elapsed))
}

/// A session with the state that is kept, if any is.
pub(crate) fn session(state: Option<State>) -> anyhow::Result<Session> {
    // Nothing stops it: the sender may go.
    let (_, stop) = watch::channel(false);
    let screen = Screen::new();
    let output = Output::new(Format::Csv, None, screen.clone())?;
    let mut session = Session::new(output, screen, stop, Mode::Run);
    if let Some(state) = state {
        session.keep_state(state);
    }
    Ok(session)
}

impl Subject {
    /// Runs the query over so many generated trades.
    pub(crate) async fn run<'a>(&self, session: &'a mut Session, rows: u64) -> anyhow::Result<&'a Outcome> {
        let Self { codes, users, key, window, .. } = self;
        let text = format!(
            "CREATE STREAM TRANSACTION (
               szcode VARCHAR, userID BIGINT, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE,
               WATERMARK FOR eventTime AS eventTime
             ) WITH (connector = 'generate', rows = {rows}, codes = {codes}, users = {users});
             CREATE SINK nowhere WITH (connector = 'blackhole');
             INSERT INTO nowhere SELECT {key}, SUM(Price*Turnover) FROM TRANSACTION [{window}] GROUP BY {key}"
        );
        let script = Script::new("benchmark", &text);
        session.run(&script).await.map_err(|error| anyhow::anyhow!(error.render()))?;
        session.outcomes().last().context("the query did not run")
    }
}

/// A state directory whose queries are checkpointed at this interval and never for another reason.
pub(crate) fn kept(folder: &Path, interval: Duration) -> anyhow::Result<State> {
    let args = StateArgs {
        durability: Durability::ProcessCrash,
        checkpoint_interval: Some(interval),
        recovery_target: Some(NEVER),
        ..StateArgs::default()
    };
    Ok(State::open(&place(folder), &args)?)
}

/// Where state is kept in a folder.
pub(crate) fn place(folder: &Path) -> StatePlace {
    folder.join("state").as_path().into()
}
