//! The Nexmark queries over 20,000 events, against DataFusion alone over the same rows as tables.
//!
//! `queries/nexmark/batch` has each query once more in other words: no windows, but joins with the instants,
//! `date_bin`, self-joins; so that a fault of the engine's is not on both sides.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use datafusion::arrow::csv::WriterBuilder;
use datafusion::prelude::{ParquetReadOptions, SessionContext};

use super::difference::difference;
use super::process::{Folder, root, run};

const SCHEMA: &str = "queries/nexmark/schema.sql";
const TABLES: [&str; 3] = ["person", "auction", "bid"];

/// The events as tables of DataFusion, from Parquet files that queries wrote.
struct Batch {
    tables: SessionContext,
    runtime: tokio::runtime::Runtime,
    folder: Folder,
}

impl Batch {
    fn new() -> Self {
        let folder = Folder::new();
        let write = |name: &str| {
            let path = folder.path(name);
            format!(
                "CREATE SINK {name}_files WITH (connector = 'files', path = '{path}', format = 'parquet');
                 INSERT INTO {name}_files SELECT * FROM {name};"
            )
        };
        run(&["run", SCHEMA, "-e", &TABLES.map(write).concat()]).silent();
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let tables = SessionContext::new();
        for name in TABLES {
            let registered = tables.register_parquet(name, folder.path(name), ParquetReadOptions::default());
            runtime.block_on(registered).unwrap();
        }
        Self { tables, runtime, folder }
    }

    /// The rows of `queries/nexmark/batch/NAME.sql`.
    fn rows(&self, name: &str) -> Vec<String> {
        let sql = std::fs::read_to_string(root().join(format!("queries/nexmark/batch/{name}.sql"))).unwrap();
        let batches = self.runtime.block_on(async { self.tables.sql(&sql).await?.collect().await });
        let batches = batches.unwrap_or_else(|error| panic!("batch/{name}.sql: {error}"));
        let mut text = Vec::new();
        for batch in batches {
            WriterBuilder::new().with_header(false).build(&mut text).write(&batch).unwrap();
        }
        String::from_utf8(text).unwrap().lines().map(str::to_owned).collect()
    }
}

/// The rows of `queries/nexmark/NAME.sql` behind `settings`.
fn streamed(name: &str, settings: &str) -> Vec<String> {
    let query = format!("queries/nexmark/{name}.sql");
    let text = run(&["run", settings, SCHEMA, &query, "--format", "csv"]).silent();
    let rows: Vec<String> = text.lines().skip(1).map(str::to_owned).collect();
    if name == "q12" { totals(&rows) } else { rows }
}

/// The sum of the second column by the first, over all windows.
pub(crate) fn totals(rows: &[String]) -> Vec<String> {
    let mut totals = BTreeMap::<&str, u64>::new();
    for row in rows {
        let mut values = row.split(',');
        let (key, value) = (values.next().unwrap(), values.next().unwrap());
        *totals.entry(key).or_default() += value.parse::<u64>().unwrap();
    }
    totals.into_iter().map(|(key, total)| format!("{key},{total}")).collect()
}

/// Checks some queries with input in one micro-batch and in many.
fn check(queries: std::ops::Range<usize>) {
    let batch = Batch::new();
    let whole = batch.folder.write("whole.sql", "SET batch_interval = '10 s'");
    let cut = batch.folder.write("cut.sql", "SET batch_rows = 700; SET batch_interval = '1 ms'");
    let mut failures = String::new();
    for name in queries.map(|number| format!("q{number}")) {
        let expected = batch.rows(&name);
        assert!(expected.len() > 1, "batch/{name}.sql has {} rows", expected.len());
        for (settings, cutting) in [(&whole, "in one piece"), (&cut, "cut")] {
            if let Some(difference) = difference(&streamed(&name, settings), &expected) {
                failures.push_str(&format!("{name}, input {cutting}: {difference}"));
            }
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn queries_0_to_7_give_the_rows_of_the_batch() {
    check(0..8);
}

#[test]
fn queries_8_to_15_give_the_rows_of_the_batch() {
    check(8..16);
}

#[test]
fn queries_16_to_22_give_the_rows_of_the_batch() {
    check(16..23);
}
