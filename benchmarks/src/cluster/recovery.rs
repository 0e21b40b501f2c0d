//! How late windows come when executors are killed.
//!
//! A client follows windows of a second over trades of now. The delay of a window is from its end to its arrival; what
//! counts is by how much that of the worst window after the kill is above the median of those before the first one.
//! Executors are killed just before a window is due, as otherwise the time that nobody waits would hide a part of the
//! outage. A query is also checkpointed when replaying would take it longer than 3 s: at a high rate the intervals that
//! are measured may be shorter than those that are set.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use millstream_engine::time::{Clock, EventTime, NANOS_PER_SECOND, Span, SystemClock};

use super::arrivals::Arrivals;
use super::executors::{Executor, signal, start, until_live};
use super::figures::Samples;
use super::follower::Follower;
use super::generated::{Job, TUMBLING, VIEW, stream_statement, view_statement};
use crate::client::{Client, Server, ask};
use crate::progress::Progress;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rows a second; a share of the capacity, which is measured, unless given.
    #[arg(long)]
    rate: Option<u64>,
    /// The share of the capacity, in percent.
    #[arg(long, default_value_t = 20)]
    share: u64,
    /// Trades for measuring the capacity.
    #[arg(long, default_value_t = 10_000_000)]
    rows: u64,
    /// Seconds between two checkpoints, of each server in turn.
    #[arg(long, value_delimiter = ',', default_values_t = [2_u64, 10, 30])]
    intervals: Vec<u64>,
    /// Stocks: the groups of a window.
    #[arg(long, default_value_t = 4_000)]
    codes: u32,
    /// Executors of a server; at least three.
    #[arg(long, default_value_t = 4)]
    executors: usize,
    /// Seconds of windows that are waited for after each kill.
    #[arg(long, default_value_t = 4)]
    settle: u64,
    /// Servers for each interval; medians are printed.
    #[arg(long, default_value_t = 1)]
    rounds: usize,
}

/// How many are killed at once, one time after the other.
const KILLED: [usize; 2] = [1, 2];
/// Rows in a second of event time when the capacity is measured.
const EVENT_RATE: u64 = 1_000_000;
/// The fewest windows before the first kill.
const LEAST_WINDOWS: u64 = 8;
/// From the arrival of a window until executors are killed: most of the second until the next one.
const NEARLY_A_WINDOW: Duration = Duration::from_millis(900);
/// How long windows may be overdue.
const PATIENCE: Duration = Duration::from_secs(60);
/// A second beyond the second after which a silent executor is given up.
const GOAL_MS: f64 = 2_000.0;

pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    let rate = rate(args).await?;
    let mut delays: BTreeMap<(u64, usize), Vec<f64>> = BTreeMap::new();
    for _ in 0..args.rounds.max(1) {
        for interval in &args.intervals {
            let mut trial = Trial::start(args, rate, *interval).await?;
            let measured = trial.measure(args, *interval).await;
            // What the query says of it tells more than that no windows come.
            let measured = match (measured, Progress::of(&mut trial.client, VIEW).await) {
                (Err(error), Err(reason)) => return Err(error.context(reason)),
                (measured, _) => measured?,
            };
            for (killed, delay) in KILLED.into_iter().zip(measured) {
                delays.entry((*interval, killed)).or_default().push(delay);
            }
        }
    }
    println!(
        "delay of the worst window after a kill beyond the undisturbed one, {} executors, {} codes, {rate} rows/s",
        args.executors, args.codes
    );
    println!(
        "{:>14} {:>8} {:>12} {:>12} {:>9} {:>8}",
        "checkpoints", "killed", "median ms", "most ms", "of goal", "samples"
    );
    for ((interval, killed), delays) in delays {
        let delays = Samples::new(delays)?;
        let (half, most) = (delays.median(), delays.percentile(100));
        let (share, count) = (half / GOAL_MS, delays.count());
        println!("{interval:>12} s {killed:>8} {half:>12.0} {most:>12.0} {share:>9.2} {count:>8}");
    }
    println!("goal: at most {GOAL_MS} ms, one second beyond the heartbeat timeout of one second");
    Ok(())
}

/// The rows a second of all trials.
async fn rate(args: &Args) -> anyhow::Result<u64> {
    if let Some(rate) = args.rate {
        return Ok(rate);
    }
    let job = Job { rows: args.rows, codes: args.codes, event_rate: EVENT_RATE, windows: TUMBLING };
    let millis = u64::try_from(job.run(args.executors).await?.as_millis())?;
    let capacity = args.rows * 1_000 / millis.max(1);
    println!("capacity: {capacity} rows/s with {} executors, {} rows, 1 sample", args.executors, args.rows);
    Ok((capacity * args.share / 100).max(1))
}

/// A server under an even load, and who follows it.
struct Trial {
    client: Client,
    follower: Follower,
    executors: usize,
    _server: Server,
}

impl Trial {
    async fn start(args: &Args, rate: u64, interval: u64) -> anyhow::Result<Self> {
        let (server, mut client) = start(args.executors, &["--checkpoint-interval", &format!("{interval}s")]).await?;
        let codes = args.codes;
        let options = format!("codes = {codes}, start = 'now', rate = {rate}, event_rate = {rate}");
        ask(&mut client, &stream_statement(&options)).await?;
        ask(&mut client, &view_statement(TUMBLING)).await?;
        let follower = Follower::start(server.client().await?);
        Ok(Self { client, follower, executors: args.executors, _server: server })
    }

    /// The delay beyond the undisturbed one of each kill, in milliseconds.
    async fn measure(&mut self, args: &Args, interval: u64) -> anyhow::Result<Vec<f64>> {
        // As many seconds: a checkpoint has been made, and there is something to replay behind it.
        let windows = (interval + interval / 2).max(LEAST_WINDOWS);
        let count = usize::try_from(windows)?;
        let limit = PATIENCE + Duration::from_secs(windows);
        let usual = undisturbed(&self.follower.until(limit, |arrivals| arrivals.count() >= count).await?, interval)?;
        let mut delays = Vec::new();
        for killed in KILLED {
            let at = self.kill(killed).await?;
            let arrivals = self.settled(at, args.settle).await?;
            let worst = arrivals.worst_since(at).context("no window after a kill")?;
            delays.push(millis(worst) - usual);
            // All that was held back has come: the next kill finds the query as it was.
            self.settled(SystemClock.now(), args.settle).await?;
        }
        Ok(delays)
    }

    /// Kills executors that hold state, just before a window is due; when that was.
    async fn kill(&mut self, count: usize) -> anyhow::Result<EventTime> {
        let live = until_live(&mut self.client, self.executors).await?;
        let chosen: Vec<Executor> = live.into_iter().filter(|executor| executor.slots > 0).take(count).collect();
        ensure!(chosen.len() == count, "{} executors hold state, {count} are to be killed", chosen.len());
        let come = self.follower.count();
        self.follower.until(PATIENCE, |arrivals| arrivals.count() > come).await?;
        tokio::time::sleep(NEARLY_A_WINDOW).await;
        let at = SystemClock.now();
        signal("KILL", &chosen)?;
        Ok(at)
    }

    /// Waits for the windows of so many seconds after a moment.
    async fn settled(&mut self, moment: EventTime, seconds: u64) -> anyhow::Result<Arrivals> {
        let until = moment.plus(Span(seconds.cast_signed() * NANOS_PER_SECOND));
        let limit = PATIENCE + Duration::from_secs(seconds);
        self.follower.until(limit, |arrivals| arrivals.have_reached(until)).await
    }
}

/// The median delay of windows before the first kill, in milliseconds; prints how even the delays were.
fn undisturbed(arrivals: &Arrivals, interval: u64) -> anyhow::Result<f64> {
    let delays = Samples::new(arrivals.delays().into_iter().map(millis).collect())?;
    println!(
        "checkpoints every {interval} s: undisturbed windows come after {:.0} ms, at most {:.0} ms, {} samples",
        delays.median(),
        delays.percentile(100),
        delays.count()
    );
    Ok(delays.median())
}

fn millis(span: Span) -> f64 {
    span.0 as f64 / 1e6
}
