//! A function of the program for every batch of results, and a query into a sink beside it; then both are stopped.
//!
//! `cargo run --release --workspace --example foreach_batch`

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::arrow::array::{AsArray, Int64Array, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use millstream::embed::{Engine, StreamSpec};

/// The words counted so far, as the program keeps them.
type Counts = Arc<Mutex<BTreeMap<String, i64>>>;

/// Takes the counts that a micro-batch has changed.
async fn take(batch: RecordBatch, counts: Counts) -> Result<(), Box<dyn Error + Send + Sync>> {
    let words = batch.column_by_name("word").ok_or("no column word")?;
    let numbers = batch.column_by_name("n").ok_or("no column n")?.as_primitive::<Int64Type>();
    let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
    for (word, number) in words.as_string::<i32>().iter().zip(numbers) {
        counts.insert(word.unwrap_or_default().to_owned(), number.unwrap_or_default());
    }
    Ok(())
}

/// Runs the example; the counts in the end.
pub(crate) async fn run() -> Result<BTreeMap<String, i64>, Box<dyn Error>> {
    let engine = Engine::new();
    // A stream can be declared without SQL; this one has no event time, so rows have the time of their arrival.
    let schema =
        Schema::new(vec![Field::new("word", DataType::Utf8, false), Field::new("weight", DataType::Int64, false)]);
    let words = engine.create_stream(StreamSpec::new("words", Arc::new(schema)))?;

    let mut queries = engine
        .run(
            "CREATE SINK hole WITH (connector = 'blackhole');
             INSERT INTO hole SELECT word FROM words WHERE weight > 1",
        )
        .await?;
    let rows = engine.query("SELECT word, SUM(weight) AS n FROM words GROUP BY word").await?;

    let counts = Counts::default();
    let taken = Arc::clone(&counts);
    let counting = tokio::spawn(rows.for_each_batch(move |batch| take(batch, Arc::clone(&taken))));

    for _ in 0..10 {
        let columns: [(&str, Arc<dyn datafusion::arrow::array::Array>); 2] = [
            ("word", Arc::new(StringArray::from(vec!["to", "be", "or", "not", "to", "be"]))),
            ("weight", Arc::new(Int64Array::from(vec![1, 1, 2, 1, 1, 1]))),
        ];
        words.push(&RecordBatch::try_from_iter(columns)?).await?;
    }
    // The query into the sink is stopped by hand, once it has seen all rows; the other one ends with its stream.
    let Some(hole) = queries.pop() else { return Err("no query was started".into()) };
    while hole.progress().rows_read < 60 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let written = hole.stop().await?.progress.rows_written;
    words.close();
    let summary = counting.await??;
    println!("{} rows counted, {written} heavy ones written", summary.progress.rows_read);

    let counts = counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
    counts.iter().for_each(|(word, count)| println!("{word}: {count}"));
    Ok(counts)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    run().await.map(|_| ())
}
