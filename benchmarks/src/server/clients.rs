//! Many clients at once: some append, some follow a view, some ask.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Int64Type};
use futures::StreamExt;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::client::{Client, Server, TRADES, ask, ask_number, begin, messages, put, trades};

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Clients: half of them append, a quarter follows the view, a quarter asks.
    #[arg(long, default_value_t = 200)]
    clients: usize,
    /// How long, in seconds.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Rows of an append.
    #[arg(long, default_value_t = 200)]
    rows: usize,
}

const VIEW: &str = "CREATE MATERIALIZED VIEW totals AS SELECT window_end, SUM(turnover) AS turnover, COUNT(*) AS trades
                    FROM trades [Range 1 second, Slide 1 second] GROUP BY window_end";

/// Counts of what was done.
#[derive(Debug, Default)]
struct Counts {
    rows: AtomicU64,
    answers: AtomicU64,
    slowest: AtomicU64,
}

pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    let server = Server::start()?;
    let mut client = server.client().await?;
    ask(&mut client, TRADES).await?;
    ask(&mut client, VIEW).await?;
    let counts = Arc::new(Counts::default());
    let (stop, stopped) = watch::channel(false);
    let (tell, told) = watch::channel(None);
    let (mut working, mut following) = (JoinSet::new(), JoinSet::new());
    let begun = Instant::now();
    for number in 0..args.clients {
        let client = server.client().await?;
        match number % 4 {
            0 | 1 => {
                drop(working.spawn(append(client, number, args.rows, begun, Arc::clone(&counts), stopped.clone())))
            }
            2 => drop(following.spawn(follow(client, told.clone()))),
            _ => drop(working.spawn(question(client, Arc::clone(&counts), stopped.clone()))),
        }
    }
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    stop.send_replace(true);
    while let Some(done) = working.join_next().await {
        done??;
    }
    // A row far behind all others closes their windows.
    let last = messages(&[trades(END_SECOND * 10, 1, 10)?], None)?;
    put(&mut client, last).await?;
    let rows = counts.rows.load(Ordering::Relaxed);
    while ask_number(&mut client, "SELECT SUM(trades) AS n FROM totals").await? != Some(rows.cast_signed()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
        ensure!(begun.elapsed() < Duration::from_secs(args.seconds + 300), "rows were lost: {rows} were acknowledged");
    }
    tell.send_replace(Some(rows.cast_signed()));
    let mut seen = 0;
    while let Some(done) = following.join_next().await {
        done??;
        seen += 1;
    }
    println!("{} clients, {} s: no error, no row lost or repeated", args.clients, args.seconds);
    println!("  {rows} rows acknowledged in appends of {}, followed by {seen} clients", args.rows);
    let answers = counts.answers.load(Ordering::Relaxed);
    println!("  {answers} SELECTs answered, the slowest in {} ms", counts.slowest.load(Ordering::Relaxed));
    println!("  at most {} MiB of memory", server.peak_memory()?);
    Ok(())
}

/// A second of event time that no row of a run reaches.
const END_SECOND: u64 = 1_000_000;

/// Appends rows of now until it is stopped; each append twice, as a producer does that does not know of the first.
async fn append(
    mut client: Client,
    number: usize,
    rows: usize,
    begun: Instant,
    counts: Arc<Counts>,
    stopped: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    let name = format!("client {number}");
    let mut sequence = 0;
    while !*stopped.borrow() {
        // No row is so far behind another one that it would be late.
        let second = begun.elapsed().as_secs();
        let batch = trades(second * rows as u64, rows, rows as u64)?;
        for _ in 0..2 {
            let sent = messages(std::slice::from_ref(&batch), Some((&name, sequence)))?;
            let answers = put(&mut client, sent).await?;
            ensure!(answers.len() == 1, "an append was not acknowledged");
        }
        counts.rows.fetch_add(rows as u64, Ordering::Relaxed);
        sequence += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Asks until it is stopped.
async fn question(mut client: Client, counts: Arc<Counts>, stopped: watch::Receiver<bool>) -> anyhow::Result<()> {
    while !*stopped.borrow() {
        let begun = Instant::now();
        ask(&mut client, "SELECT COUNT(*) AS n, MAX(turnover) AS most FROM totals").await?;
        let millis = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        counts.slowest.fetch_max(millis, Ordering::Relaxed);
        counts.answers.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    Ok(())
}

/// Follows the view until it has as many trades as are told to be there; an error if an epoch or a window comes again.
async fn follow(mut client: Client, mut whole: watch::Receiver<Option<i64>>) -> anyhow::Result<i64> {
    let mut rows = begin(&mut client, "SUBSCRIBE totals").await?;
    let (mut windows, mut last_epoch, mut sum) = (BTreeSet::new(), -1, 0);
    loop {
        if *whole.borrow() == Some(sum) {
            return Ok(sum);
        }
        let batch = tokio::select! {
            batch = rows.next() => batch.context("the view has ended")??,
            changed = whole.changed() => {
                changed?;
                continue;
            }
        };
        let ends = cast(batch.column_by_name("window_end").context("no window_end")?, &DataType::Utf8)?;
        let trades = batch.column_by_name("trades").context("no trades")?.as_primitive::<Int64Type>();
        let epochs = batch.column_by_name("_epoch").context("no _epoch")?.as_primitive::<Int64Type>();
        for ((end, trades), epoch) in ends.as_string::<i32>().iter().zip(trades.values()).zip(epochs.values()) {
            ensure!(*epoch >= last_epoch, "an epoch came again");
            last_epoch = *epoch;
            ensure!(windows.insert(end.unwrap_or_default().to_owned()), "a window came twice");
            sum += trades;
        }
    }
}
