//! Sinks: what is printed and written, and when it becomes visible.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::io::{self, Write};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use crate::common::{options, read, stream};
use datafusion::arrow::array::{
    Array, Decimal128Array, Float64Array, RecordBatch, StringArray, TimestampNanosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use millstream_connectors::open_sink;
use millstream_connectors::sinks::{BlackholeSink, ConsoleSink, FileFormat, FilesSink, Format as ConsoleFormat};
use millstream_engine::batch::Epoch;
use millstream_engine::sink::{Sink, SinkWriter};
use tempfile::TempDir;

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

fn rows(codes: &[&str]) -> RecordBatch {
    let count = codes.len();
    let columns: Vec<(&str, Arc<dyn Array>)> = vec![
        ("szcode", Arc::new(StringArray::from(codes.to_vec()))),
        ("window_end", Arc::new(TimestampNanosecondArray::from(vec![1_381_138_200_000_000_000; count]))),
        ("volume", Arc::new(Float64Array::from(vec![None; count]))),
        ("sum", Arc::new(Decimal128Array::from(vec![1_725; count]).with_precision_and_scale(12, 2).unwrap())),
    ];
    let fields: Vec<_> =
        columns.iter().map(|(name, array)| Field::new(*name, array.data_type().clone(), true)).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns.into_iter().map(|(_, array)| array).collect()).unwrap()
}

async fn print(format: ConsoleFormat, epochs: &[&[&str]]) -> String {
    let out = Shared::default();
    let mut sink = ConsoleSink::new(out.clone(), format, rows(&[]).schema());
    for (epoch, codes) in epochs.iter().enumerate() {
        let before = out.text();
        sink.stage(Epoch(epoch as u64), &[rows(codes)]).await.unwrap();
        assert_eq!(out.text(), before, "nothing is visible before the commit");
        sink.commit(Epoch(epoch as u64)).await.unwrap();
        sink.commit(Epoch(epoch as u64)).await.unwrap();
    }
    sink.finish().await.unwrap();
    out.text()
}

#[tokio::test]
async fn csv_has_one_header_and_plain_rows() {
    let header = "szcode,window_end,volume,sum\n";
    assert_eq!(print(ConsoleFormat::Csv, &[]).await, header);
    let expected = format!("{header}a,2013-10-07T09:30:00,,17.25\n\"b,c\",2013-10-07T09:30:00,,17.25\n");
    assert_eq!(print(ConsoleFormat::Csv, &[&["a"], &["b,c"]]).await, expected);
}

#[tokio::test]
async fn json_has_every_key_in_every_line() {
    let text = print(ConsoleFormat::Json, &[&["a"], &["b"]]).await;
    let line = |code| {
        format!("{{\"szcode\":\"{code}\",\"window_end\":\"2013-10-07T09:30:00\",\"volume\":null,\"sum\":17.25}}\n")
    };
    assert_eq!(text, line("a") + &line("b"));
}

#[tokio::test]
async fn tables_keep_their_columns() {
    let text = print(ConsoleFormat::Table, &[&["a"], &["bcd"]]).await;
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 4, "{text}");
    assert!(lines[0].starts_with("szcode ") && lines[0].ends_with(" sum"), "{text}");
    let widths: Vec<_> = lines.iter().map(|line| line.chars().count()).collect();
    assert!(widths.iter().all(|width| *width == widths[0]), "{text}");
    assert!(lines[3].starts_with("bcd ") && lines[3].contains(" NULL ") && lines[3].ends_with(" 17.25"), "{text}");
}

#[tokio::test]
async fn files_appear_whole_at_commit_and_once() {
    for (format, name) in [(FileFormat::Csv, "csv"), (FileFormat::Json, "json"), (FileFormat::Parquet, "parquet")] {
        let folder = TempDir::new().unwrap();
        let visible = || {
            let names =
                fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
            let mut names: Vec<_> = names.filter(|name| !name.starts_with(['.', '_'])).collect();
            names.sort();
            names
        };
        let mut sink = FilesSink::new(folder.path(), format, rows(&[]).schema());
        sink.begin(&SinkWriter { query: "q".to_owned(), term: 1 }).await.unwrap();
        sink.stage(Epoch(12), &[rows(&["a", "b"])]).await.unwrap();
        assert!(visible().is_empty());
        sink.commit(Epoch(12)).await.unwrap();
        sink.commit(Epoch(12)).await.unwrap();
        // A restart brings the epoch again; what is there stays.
        sink.stage(Epoch(12), &[rows(&["other"])]).await.unwrap();
        sink.commit(Epoch(12)).await.unwrap();
        sink.finish().await.unwrap();
        assert_eq!(visible(), [format!("part-0000000012.{name}")]);
        let path = folder.path().display().to_string();
        let columns = [("szcode", DataType::Utf8), ("sum", DataType::Decimal128(12, 2))];
        let rows = read(&stream(&columns, &[("connector", "files"), ("path", &path)])).await.unwrap();
        assert_eq!(rows.good, ["a|17.25", "b|17.25"], "{name} {:?}", rows.bad);
    }
}

#[tokio::test]
async fn the_blackhole_counts_what_is_committed() {
    let mut sink = BlackholeSink::new();
    let count = sink.rows();
    sink.stage(Epoch(0), &[rows(&["a", "b"])]).await.unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 0);
    sink.commit(Epoch(0)).await.unwrap();
    sink.commit(Epoch(0)).await.unwrap();
    assert_eq!(count.load(Ordering::Relaxed), 2);
}

#[test]
fn sinks_are_opened_by_name() {
    let schema = rows(&[]).schema();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("results").display().to_string();
    for with in [
        vec![("connector", "console")],
        vec![("connector", "blackhole")],
        vec![("connector", "files"), ("path", &path)],
    ] {
        assert!(open_sink("out", &options(&with), Arc::clone(&schema)).is_ok(), "{with:?}");
    }
    let error = open_sink("out", &options(&[("connector", "consol")]), Arc::clone(&schema)).unwrap_err();
    assert!(error.to_string().contains("unknown connector \"consol\""), "{error}");
    let error = open_sink("out", &options(&[("connector", "console"), ("formt", "csv")]), schema).unwrap_err();
    assert!(error.hint().unwrap().starts_with("did you mean \"format\"? console takes: format"));
}
