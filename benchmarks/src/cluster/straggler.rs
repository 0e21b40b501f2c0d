//! How long an epoch takes while one executor is slow; [`super::straggling`] says what is simulated.
//!
//! Every epoch closes a window and has rows of most codes, so that it needs all executors, and takes as long as the
//! slowest of them until that one has lost its slots.

use std::time::{Duration, Instant};

use super::cores::can_confine;
use super::executors::{Executor, live, until_holding};
use super::figures::Samples;
use super::pushed::{Push, Pushed};
use super::straggling::{Load, Straggling};

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Epochs in each phase of a round.
    #[arg(long, default_value_t = 150)]
    samples: usize,
    /// Seconds after which a phase ends in any case.
    #[arg(long, default_value_t = 30)]
    seconds: u64,
    /// Rows of an epoch.
    #[arg(long, default_value_t = 4_000)]
    rows: usize,
    /// Executors, one of which becomes slow.
    #[arg(long, default_value_t = 3)]
    executors: usize,
    /// Busy threads beside it.
    #[arg(long, default_value_t = 60)]
    threads: usize,
    /// The part of the time in which it is stopped, in percent.
    #[arg(long, default_value_t = 90, value_parser = clap::value_parser!(u32).range(..100))]
    stopped: u32,
    /// Confine it to the core of the busy threads; to be given with --stopped 0, or it is lost.
    #[arg(long)]
    confined: bool,
    /// How often it becomes slow.
    #[arg(long, default_value_t = 2)]
    rounds: usize,
}

const PHASES: [&str; 3] = ["before", "during", "after"];
/// Of one that is slow: it must not be taken for lost.
const TIMEOUT: [&str; 2] = ["--executor-timeout", "10s"];

pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    let push = Push { rows: args.rows, per_second: 1 };
    let mut pushed = Pushed::start(args.executors, &TIMEOUT, "1 second", push).await?;
    let slow = until_holding(&mut pushed.client).await?;
    let load = Load { threads: args.threads, stopped_percent: args.stopped, is_confined: args.confined };
    let (mut before, mut during, mut after) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..args.rounds.max(1) {
        before.extend(phase(&mut pushed, args).await?);
        let straggling = Straggling::begin(slow, load)?;
        during.extend(phase(&mut pushed, args).await?);
        straggling.end()?;
        after.extend(phase(&mut pushed, args).await?);
    }
    print_setting(args);
    print_phases([before, during, after])?;
    println!("the slow executor {}", fate(slow, &live(&mut pushed.client).await?));
    Ok(())
}

/// The times of the epochs of a phase, in milliseconds.
async fn phase(pushed: &mut Pushed, args: &Args) -> anyhow::Result<Vec<f64>> {
    let begun = Instant::now();
    let mut times = Vec::new();
    while times.len() < args.samples && begun.elapsed() < Duration::from_secs(args.seconds) {
        times.push(pushed.epoch_ms().await?);
    }
    Ok(times)
}

fn print_setting(args: &Args) {
    let place = match (can_confine(), args.confined) {
        (true, true) => "on the only core that it may use",
        (true, false) => "on one of its cores",
        (false, _) => "on all cores",
    };
    println!(
        "epochs of a GROUP BY view over a pushed stream, {} rows an epoch, {} rounds; one of {} executors is stopped \
         {} % of the time, {} busy threads {place}",
        args.rows,
        args.rounds.max(1),
        args.executors,
        args.stopped,
        args.threads
    );
}

fn print_phases(phases: [Vec<f64>; PHASES.len()]) -> anyhow::Result<()> {
    println!("{:>8} {:>10} {:>10} {:>10} {:>8} {:>8}", "", "p50 ms", "p95 ms", "most ms", "ratio", "samples");
    let mut base = None;
    for (name, times) in PHASES.into_iter().zip(phases) {
        let times = Samples::new(times)?;
        let [half, most, worst] = [50, 95, 100].map(|percent| times.percentile(percent));
        let ratio = half / *base.get_or_insert(half);
        println!("{name:>8} {half:>10.2} {most:>10.2} {worst:>10.2} {ratio:>8.1} {:>8}", times.count());
    }
    Ok(())
}

/// What has become of an executor: one that was given up has not been measured as a slow one.
fn fate(slow: Executor, live: &[Executor]) -> String {
    match live.iter().find(|executor| executor.pid == slow.pid) {
        None => "has died".to_owned(),
        Some(found) => format!("was given up {} times", found.times_lost - slow.times_lost),
    }
}
