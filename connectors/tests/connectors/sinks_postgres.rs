//! The sink `postgres` with a real server, which MILLSTREAM_TEST_POSTGRES names.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::io::Write;
use std::sync::Arc;

use crate::common::options;
use datafusion::arrow::array::{Array, ArrayRef, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray};
use millstream_connectors::open_sink;
use millstream_engine::Result;
use millstream_engine::batch::Epoch;
use millstream_engine::sink::{Sink, SinkWriter};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

/// A table of its own on the server.
struct Place {
    url: String,
    table: String,
    client: Client,
}

impl Place {
    /// `None`, loudly, without a server.
    async fn new(table: &str) -> Option<Self> {
        let Ok(url) = std::env::var("MILLSTREAM_TEST_POSTGRES") else {
            let note = "SKIPPED: no PostgreSQL; MILLSTREAM_TEST_POSTGRES names one (`.ci/postgres start` makes one)";
            assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "{note}");
            // Not `eprintln!`, which is not shown for tests that pass.
            std::io::stderr().write_all(format!("{note}\n").as_bytes()).unwrap();
            return None;
        };
        let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
        tokio::spawn(connection);
        let table = format!("{table}_{}", std::process::id());
        Some(Self { url, table, client })
    }

    fn sink(&self, more: &[(&str, &str)], rows: &RecordBatch) -> Box<dyn Sink> {
        // By this name the server knows its connection.
        let url = format!("{}?application_name={}", self.url, self.table);
        let mut with = vec![("url", url.as_str()), ("table", self.table.as_str())];
        with.extend(more);
        Self::open(&with, rows)
    }

    fn open(with: &[(&str, &str)], rows: &RecordBatch) -> Box<dyn Sink> {
        let mut all = vec![("connector", "postgres")];
        all.extend(with);
        open_sink("results", &options(&all), rows.schema()).unwrap()
    }

    async fn ask(&self, sql: &str) -> Vec<String> {
        let messages = self.client.simple_query(sql).await.unwrap();
        let rows = messages.iter().filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                Some((0..row.len()).map(|column| row.get(column).unwrap_or("null")).collect::<Vec<_>>().join("|"))
            }
            _ => None,
        });
        rows.collect()
    }

    async fn rows(&self) -> Vec<String> {
        self.ask(&format!("SELECT * FROM \"{}\" ORDER BY 1", self.table)).await
    }
}

fn writer(query: &str, term: u64) -> SinkWriter {
    SinkWriter { query: query.to_owned(), term }
}

fn pairs(keys: &[i64], values: &[&str]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(Int64Array::from(keys.to_vec()));
    RecordBatch::try_from_iter([("k", keys), ("v", Arc::new(StringArray::from(values.to_vec())) as _)]).unwrap()
}

async fn put(sink: &mut dyn Sink, epoch: u64, rows: RecordBatch) -> Result<()> {
    sink.stage(Epoch(epoch), &[rows]).await?;
    sink.commit(Epoch(epoch)).await
}

#[tokio::test]
async fn epochs_are_there_once_and_an_earlier_run_is_refused() {
    let Some(place) = Place::new("append").await else { return };
    let query = format!("q{}", place.table);
    let mut old = place.sink(&[], &pairs(&[], &[]));
    assert_eq!(old.begin(&writer(&query, 1)).await.unwrap(), None);
    put(old.as_mut(), 0, pairs(&[1, 2], &["a\tb", "\\N"])).await.unwrap();
    put(old.as_mut(), 0, pairs(&[9], &["again"])).await.unwrap();
    let mut new = place.sink(&[], &pairs(&[], &[]));
    assert_eq!(new.begin(&writer(&query, 2)).await.unwrap(), Some(Epoch(0)));
    let error = put(old.as_mut(), 1, pairs(&[3], &["old"])).await.unwrap_err();
    assert!(error.to_string().contains("a newer run of this query has taken over"), "{error}");
    put(new.as_mut(), 1, pairs(&[4], &["new"])).await.unwrap();
    assert_eq!(place.rows().await, ["1|a\tb", "2|\\N", "4|new"]);
    let error = place.sink(&[], &pairs(&[], &[])).begin(&writer("other", 9)).await.unwrap_err();
    assert!(error.to_string().contains("holds the results of an earlier run"), "{error}");
}

#[tokio::test]
async fn another_spelling_of_a_table_is_the_same_table() {
    let Some(place) = Place::new("spelling").await else { return };
    let mut sink = place.sink(&[], &pairs(&[], &[]));
    sink.begin(&writer(&place.table, 1)).await.unwrap();
    put(sink.as_mut(), 0, pairs(&[1], &["a"])).await.unwrap();
    let spelled = format!("public.{}", place.table);
    let spelled = || Place::open(&[("url", &place.url), ("table", &spelled)], &pairs(&[], &[]));
    let error = spelled().begin(&writer("other", 9)).await.unwrap_err();
    assert!(error.to_string().contains("holds the results of an earlier run"), "{error}");
    let mut sink = spelled();
    assert_eq!(sink.begin(&writer(&place.table, 2)).await.unwrap(), Some(Epoch(0)));
    put(sink.as_mut(), 1, pairs(&[2], &["b"])).await.unwrap();
    assert_eq!(place.rows().await, ["1|a", "2|b"]);
}

#[tokio::test]
async fn a_commit_is_safe_where_the_server_is_set_to_answer_before() {
    let Some(place) = Place::new("safe").await else { return };
    let setting = "TEXT DEFAULT current_setting('synchronous_commit')";
    place.ask(&format!("CREATE TABLE {} (k BIGINT, v {setting})", place.table)).await;
    let rows = RecordBatch::try_from_iter([("k", Arc::new(Int64Array::from(vec![1])) as ArrayRef)]).unwrap();
    let url = format!("{}?options=-c%20synchronous_commit%3Doff", place.url);
    let mut sink = Place::open(&[("url", &url), ("table", &place.table)], &rows);
    sink.begin(&writer(&place.table, 1)).await.unwrap();
    put(sink.as_mut(), 0, rows).await.unwrap();
    assert_eq!(place.rows().await, ["1|on"]);
}

#[tokio::test]
async fn an_upsert_keeps_the_last_row_of_a_key() {
    let Some(place) = Place::new("upsert").await else { return };
    let mut sink = place.sink(&[("mode", "upsert"), ("key", "k")], &pairs(&[], &[]));
    sink.begin(&writer(&place.table, 1)).await.unwrap();
    put(sink.as_mut(), 0, pairs(&[1, 2, 1], &["a", "b", "c"])).await.unwrap();
    put(sink.as_mut(), 1, pairs(&[2], &["d"])).await.unwrap();
    assert_eq!(place.rows().await, ["1|c", "2|d"]);
}

#[tokio::test]
async fn a_lost_connection_is_made_again() {
    let Some(place) = Place::new("lost").await else { return };
    let mut sink = place.sink(&[], &pairs(&[], &[]));
    sink.begin(&writer(&place.table, 1)).await.unwrap();
    put(sink.as_mut(), 0, pairs(&[1], &["before"])).await.unwrap();
    sink.stage(Epoch(1), &[pairs(&[2], &["after"])]).await.unwrap();
    let name = &place.table;
    let ask = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = '{name}'");
    assert_eq!(place.ask(&ask).await, ["t"]);
    sink.commit(Epoch(1)).await.unwrap();
    assert_eq!(place.rows().await, ["1|before", "2|after"]);
}

#[tokio::test]
async fn a_row_that_the_table_refuses_leaves_nothing_of_its_epoch() {
    let Some(place) = Place::new("refused").await else { return };
    place.ask(&format!("CREATE TABLE {} (k BIGINT CHECK (k < 10), v TEXT)", place.table)).await;
    let mut sink = place.sink(&[], &pairs(&[], &[]));
    sink.begin(&writer(&place.table, 1)).await.unwrap();
    let error = put(sink.as_mut(), 0, pairs(&[1, 11], &["a", "b"])).await.unwrap_err();
    assert!(
        error.to_string().starts_with(&format!("writing table {} of PostgreSQL 127.0.0.1", place.table)),
        "{error}"
    );
    assert!(place.rows().await.is_empty());
}

#[tokio::test]
async fn timestamps_keep_their_microseconds() {
    let Some(place) = Place::new("times").await else { return };
    let times = TimestampMicrosecondArray::from(vec![Some(1_381_138_200_000_001), None]);
    let rows = RecordBatch::try_from_iter([("at", Arc::new(times) as Arc<dyn Array>)]).unwrap();
    let mut sink = place.sink(&[], &rows);
    sink.begin(&writer(&place.table, 1)).await.unwrap();
    put(sink.as_mut(), 0, rows).await.unwrap();
    assert_eq!(place.rows().await, ["2013-10-07 09:30:00.000001", "null"]);
}
