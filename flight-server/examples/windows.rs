//! Two queries over one pushed stream: trades go in as Arrow batches, windows come out.
//!
//! `cargo run --release --workspace --example windows`

use std::error::Error;
use std::sync::Arc;

use datafusion::arrow::array::{Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use millstream::embed::{Engine, EventTime, PushStream, Rows};

/// Trades of two stocks, one every ten milliseconds of event time.
fn trades(from: i64, count: i64) -> Result<RecordBatch, Box<dyn Error>> {
    let numbers = from..from + count;
    Ok(RecordBatch::try_from_iter([
        (
            "szcode",
            Arc::new(
                numbers.clone().map(|n| Some(if n % 3 == 0 { "600519" } else { "000001" })).collect::<StringArray>(),
            ) as _,
        ),
        ("price", Arc::new(numbers.clone().map(|n| Some(10.0 + (n % 7) as f64)).collect::<Float64Array>()) as _),
        ("turnover", Arc::new(numbers.clone().map(|n| Some(100 * (n % 5))).collect::<Int64Array>()) as _),
        ("ts", Arc::new(numbers.map(|n| Some(10 * n)).collect::<TimestampMillisecondArray>()) as _),
    ])?)
}

/// Pushes a hundred seconds of trades and ends the stream; waits whenever the queries are behind.
async fn push_all(stream: PushStream) -> Result<(), Box<dyn Error>> {
    for second in 0..100 {
        stream.push(&trades(second * 100, 100)?).await?;
    }
    // A promise closes windows without a row behind them.
    stream.advance_watermark(EventTime(100 * 1_000_000_000)).await?;
    stream.close();
    Ok(())
}

/// The last windows of a query, and how many rows it gave.
async fn last_rows(mut rows: Rows) -> Result<(usize, String), Box<dyn Error>> {
    let (mut count, mut last) = (0, None);
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        count += batch.num_rows();
        last = Some(batch);
    }
    Ok((count, pretty_format_batches(last.as_slice())?.to_string()))
}

/// Runs the example; how many rows each of the two queries gave.
pub(crate) async fn run() -> Result<(usize, usize), Box<dyn Error>> {
    let engine = Engine::new();
    engine
        .run(
            "CREATE STREAM trades (szcode VARCHAR, price DOUBLE, turnover BIGINT, ts TIMESTAMP(3),
               WATERMARK FOR ts AS ts - INTERVAL '1 second')
             WITH (connector = 'push')",
        )
        .await?;
    let value = engine
        .query(
            "SELECT window_end, szcode, SUM(price * turnover) AS value
             FROM trades [Range 30 seconds, Slide 10 seconds] GROUP BY window_end, szcode",
        )
        .await?;
    let busiest = engine
        .query(
            "SELECT window_end, szcode, COUNT(*) AS trades FROM trades [Range 10 seconds, Slide 10 seconds]
             GROUP BY window_end, szcode ORDER BY trades DESC LIMIT 1",
        )
        .await?;
    // Pushing and taking go on side by side, so that neither waits for the other for ever.
    let (pushed, value, busiest) =
        tokio::join!(push_all(engine.stream("trades")?), last_rows(value), last_rows(busiest));
    pushed?;
    let ((value, value_table), (busiest, busiest_table)) = (value?, busiest?);
    println!("{value} rows of value, the last of them:\n{value_table}");
    println!("{busiest} rows of the busiest stock, the last of them:\n{busiest_table}");
    Ok((value, busiest))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run().await.map(|_| ())
}
