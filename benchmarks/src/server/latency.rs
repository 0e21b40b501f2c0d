//! How long a SELECT over a materialized view takes.

use std::time::{Duration, Instant};

use crate::client::{Server, TRADES, ask, ask_number, messages, put, trades};

/// What is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Rows of the view; 4,000 for each window.
    #[arg(long, default_value_t = 100_000)]
    rows: u64,
    /// How often each SELECT is asked.
    #[arg(long, default_value_t = 300)]
    times: usize,
}

const VIEW: &str = "CREATE MATERIALIZED VIEW totals AS SELECT window_end, szcode, SUM(price * turnover) AS value,
                    COUNT(*) AS trades FROM trades [Range 1 second, Slide 1 second] GROUP BY window_end, szcode";

const SELECTS: [(&str, &str); 4] = [
    ("one code", "SELECT window_end, value FROM totals WHERE szcode = '000042' ORDER BY window_end"),
    ("top 10", "SELECT szcode, SUM(value) AS value FROM totals GROUP BY szcode ORDER BY value DESC LIMIT 10"),
    ("count", "SELECT COUNT(*) AS n FROM totals"),
    ("no table", "SELECT 1 AS one"),
];

pub(super) async fn run(args: &Args) -> anyhow::Result<()> {
    let server = Server::start()?;
    let mut client = server.client().await?;
    ask(&mut client, TRADES).await?;
    ask(&mut client, VIEW).await?;
    // Every code in every second, and a row that closes the last one, which is behind the delay of the watermark.
    let seconds = args.rows.div_ceil(4_000);
    let rows = seconds * 4_000;
    let batches = vec![trades(0, usize::try_from(rows)?, 4_000)?, trades(rows + 61 * 4_000, 1, 4_000)?];
    put(&mut client, messages(&batches, None)?).await?;
    while ask_number(&mut client, "SELECT COUNT(*) AS n FROM totals").await?.unwrap_or_default() < rows.cast_signed() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{:>10} {:>10} {:>10}   of {rows} rows, {} times", "SELECT", "p50 ms", "p95 ms", args.times);
    for (name, sql) in SELECTS {
        let mut times = Vec::with_capacity(args.times);
        for _ in 0..args.times {
            let begun = Instant::now();
            ask(&mut client, sql).await?;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        let at = |share: usize| times.get(times.len() * share / 100).copied().unwrap_or_default().as_secs_f64() * 1e3;
        println!("{name:>10} {:>10.1} {:>10.1}", at(50), at(95));
    }
    Ok(())
}
