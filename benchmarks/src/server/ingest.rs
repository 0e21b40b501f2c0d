//! Rows a second from a client through the log into a query.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use datafusion::arrow::array::{AsArray, TimestampMillisecondArray};
use datafusion::arrow::datatypes::TimestampMillisecondType;
use datafusion::arrow::record_batch::RecordBatch;

use crate::client::{Server, TRADES, ask, messages, put, trades};
use crate::median;
use crate::progress::Progress;

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Trades to send in one run.
    #[arg(long, default_value_t = 30_000_000)]
    rows: u64,
    /// Rows of a message.
    #[arg(long, default_value_t = 65_536)]
    batch: usize,
    /// Runs; medians are printed.
    #[arg(long, default_value_t = 3)]
    runs: usize,
}

const QUERY: &str = "INSERT INTO nowhere SELECT window_end, szcode, SUM(price * turnover) AS value
                     FROM trades [Range 60 seconds, Slide 10 seconds] GROUP BY window_end, szcode";

pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    // Without a query that reads them, and with one.
    let (mut taken, mut read) = (Vec::new(), Vec::new());
    for _ in 0..args.runs.max(1) {
        taken.push(measure(args, false).await?);
        read.push(measure(args, true).await?);
    }
    let rate = |times: &mut Vec<Duration>| args.rows as f64 / median(times).as_secs_f64() / 1e6;
    println!("acknowledged, no query: {:.1} M rows/s", rate(&mut taken));
    println!("acknowledged and read by GROUP BY over windows: {:.1} M rows/s", rate(&mut read));
    Ok(())
}

async fn measure(args: &Args, is_read: bool) -> anyhow::Result<Duration> {
    let server = Server::start()?;
    let mut client = server.client().await?;
    ask(&mut client, TRADES).await?;
    ask(&mut client, "CREATE SINK nowhere WITH (connector = 'blackhole')").await?;
    if is_read {
        ask(&mut client, QUERY).await?;
    }
    // Some batches again and again, later each time: making rows is not what is measured, encoding them is.
    let made: Vec<_> = (0..16).map(|n| trades(n * args.batch as u64, args.batch, 10_000)).collect::<Result<_, _>>()?;
    let batches = args.rows.div_ceil(args.batch as u64);
    let begun = Instant::now();
    let first = messages(made.get(..1).unwrap_or_default(), None)?;
    let head = first.into_iter().next().into_iter();
    let size = args.batch as u64;
    let rest = (0..batches).filter_map(move |number| {
        let part = made.get(usize::try_from(number % 16).ok()?)?;
        let later = moved(part, number / 16 * 16 * size * 1_000 / 10_000)?;
        messages(&[later], None).ok()?.into_iter().nth(1)
    });
    let acknowledged = put(&mut client, head.chain(rest)).await?;
    ensure!(acknowledged.len() as u64 == batches, "{} of {batches} batches were acknowledged", acknowledged.len());
    if is_read {
        while Progress::of(&mut client, "nowhere").await?.context("the query has ended")?.rows_read < batches * size {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(begun.elapsed())
}

/// The same rows, so many milliseconds later.
fn moved(batch: &RecordBatch, millis: u64) -> Option<RecordBatch> {
    let times = batch.column(3).as_primitive::<TimestampMillisecondType>();
    let later = TimestampMillisecondArray::from_iter_values(times.values().iter().map(|t| t + millis.cast_signed()));
    let mut columns = batch.columns().to_vec();
    *columns.get_mut(3)? = Arc::new(later);
    RecordBatch::try_new(batch.schema(), columns).ok()
}
