//! Files: formats, headers, packing, folders, globs, watching, and every bad input.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use crate::common::{Rows, next, open, read, stream, texts, timestamp, trades};
use datafusion::arrow::array::{Array, Float64Array, Int64Array, RecordBatch, StringArray};
use datafusion::arrow::csv::ReaderBuilder;
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::arrow::ipc::writer::{FileWriter, StreamWriter};
use datafusion::parquet::arrow::ArrowWriter;
use millstream_connectors::{open_source, read_table};
use millstream_engine::plan::{BadData, StreamDefinition};
use millstream_engine::source::{InputIndex, MemoryIndex, Offset};
use tempfile::TempDir;

const HEADER: &str = "szcode,eventTime,Turnover,Price\n";
const ONE: &str = "600519,2013-10-07T09:30:00.123,300,17.25\n";
const ONE_TEXT: &str = "600519|2013-10-07T09:30:00.123|300|17.25";

fn write(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> String {
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    path.display().to_string()
}

/// Reads one CSV file of trades with more options.
async fn read_csv(content: impl AsRef<[u8]>, with: &[(&str, &str)]) -> Rows {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "trades.csv", content);
    let mut options = vec![("connector", "files"), ("path", path.as_str())];
    options.extend(with);
    read(&trades(&options)).await.unwrap()
}

#[tokio::test]
async fn headers_are_found_or_told() {
    let other_order = "Price,EXTRA,SZCODE,turnover,EventTime\n17.25,x,600519,300,2013-10-07T09:30:00.123\n";
    let cases = [
        (format!("{HEADER}{ONE}"), vec![]),
        (format!("\u{feff}{HEADER}{ONE}"), vec![]),
        (format!("{HEADER}{ONE}").replace('\n', "\r\n"), vec![("header", "true")]),
        (ONE.to_owned(), vec![]),
        (ONE.to_owned(), vec![("header", "false")]),
        (ONE.trim_end().to_owned(), vec![]),
        (other_order.to_owned(), vec![]),
        (ONE.replace(',', ";"), vec![("delimiter", ";")]),
        (format!("{HEADER}{ONE}").replace(',', "\t"), vec![("delimiter", "\\t")]),
        (format!("\n{ONE}\n\n"), vec![("header", "false")]),
    ];
    for (content, with) in cases {
        let rows = read_csv(&content, &with).await;
        assert_eq!(rows.good, [ONE_TEXT], "{content:?} {with:?} {:?}", rows.bad);
        assert!(rows.bad.is_empty(), "{content:?} {:?}", rows.bad);
        assert_eq!(rows.end, content.len() as u64);
    }
}

#[tokio::test]
async fn a_missing_column_is_refused_with_the_header() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "trades.csv", "szcode,eventTime,Volume,Price\n");
    let error = read(&trades(&[("connector", "files"), ("path", &path)])).await.unwrap_err();
    let expected = format!("{path} has no column \"Turnover\"; its header has: szcode, eventTime, Volume, Price");
    assert_eq!(error.to_string(), expected);
    assert!(error.hint().is_some());
}

#[tokio::test]
async fn every_bad_row_is_set_aside_with_its_reason() {
    let cases: [(&[u8], &str, Option<&str>); 11] = [
        (b"600519,2013-10-07T09:30:00,300", "expected 4 fields, found 3", None),
        (b"600519,2013-10-07T09:30:00,300,1,2", "expected 4 fields, found 5", None),
        (b"600519,2013-10-07T09:30:00,300,abc", "\"abc\" is not a DOUBLE", Some("Price")),
        (b"600519,2013-10-07T09:30:00,3.5,1", "\"3.5\" is not a BIGINT", Some("Turnover")),
        (
            b"600519,2013-10-07T09:30:00,99999999999999999999,1",
            "\"99999999999999999999\" is not a BIGINT",
            Some("Turnover"),
        ),
        (b"6005\xff9,2013-10-07T09:30:00,300,1", "invalid UTF-8", None),
        (b"600519,,300,1", "event time is null", Some("eventTime")),
        (b"600519,x,300,1", "event time \"x\" is not a timestamp", Some("eventTime")),
        (b"600519,1381138200,300,1", "event time \"1381138200\" is not a timestamp", Some("eventTime")),
        (b"600519,\"x,y\",300,1", "event time \"x,y\" is not a timestamp", Some("eventTime")),
        (b"nothing", "expected 4 fields, found 1", None),
    ];
    for (line, reason, column) in cases {
        let content = [HEADER.as_bytes(), ONE.as_bytes(), line, b"\r\n", ONE.as_bytes()].concat();
        let rows = read_csv(content, &[]).await;
        assert_eq!(rows.good, [ONE_TEXT, ONE_TEXT], "{reason}");
        assert_eq!(rows.reasons(), [reason]);
        let bad = &rows.bad[0];
        assert_eq!(bad.column.as_deref(), column, "{reason}");
        assert_eq!(bad.raw, String::from_utf8_lossy(line), "{reason}");
        assert_eq!(bad.offset.0, (HEADER.len() + ONE.len()) as u64);
        assert!(bad.place.ends_with("trades.csv line 3"), "{}", bad.place);
    }
}

#[tokio::test]
async fn a_long_line_is_one_bad_row() {
    for length in [1024 * 1024 + 1, 5 * 1024 * 1024] {
        let rows = read_csv([ONE, &"x".repeat(length), "\n", ONE].concat(), &[]).await;
        assert_eq!(rows.good, [ONE_TEXT, ONE_TEXT]);
        assert_eq!(rows.reasons(), ["line longer than 1 MiB"]);
        assert_eq!(rows.bad[0].raw.len(), 4096);
        assert!(rows.bad[0].place.ends_with("line 2"));
    }
}

#[tokio::test]
async fn quotes_may_hold_delimiters_newlines_and_nothing() {
    let definition = |path: &str| {
        let columns = [("a", DataType::Utf8), ("b", DataType::Int32)];
        stream(&columns, &[("connector", "files"), ("path", path), ("header", "false")])
    };
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "q.csv", "\"x,\ny\",1\n\"\",2\n,3\n\"say \"\"hi\"\"\",\"4\"\n5\" pipe,5\n");
    let rows = read(&definition(&path)).await.unwrap();
    assert_eq!(rows.good, ["x,\ny|1", "|2", "null|3", "say \"hi\"|4", "5\" pipe|5"]);
    let path = write(&folder, "open.csv", "a,1\nb,\"2\nc,3\n");
    let rows = read(&definition(&path)).await.unwrap();
    assert_eq!((rows.good.len(), rows.reasons()), (2, vec!["quoted field is not closed"]));
}

#[tokio::test]
async fn nulls_are_empty_or_as_told() {
    let rows = read_csv("600519,2013-10-07T09:30:00,,\n", &[]).await;
    assert_eq!(rows.good, ["600519|2013-10-07T09:30:00|null|null"]);
    let rows = read_csv("600519,2013-10-07T09:30:00,NA,\n", &[("null", "NA")]).await;
    assert_eq!(rows.reasons(), ["\"\" is not a DOUBLE"]);
}

#[tokio::test]
async fn every_type_is_read_from_text() {
    let columns = [
        ("a", DataType::Int8),
        ("b", DataType::UInt64),
        ("c", DataType::Float32),
        ("d", DataType::Decimal128(10, 2)),
        ("e", DataType::Boolean),
        ("f", DataType::Date32),
        ("g", DataType::Timestamp(TimeUnit::Millisecond, Some("+02:00".into()))),
        ("h", DataType::LargeUtf8),
        ("eventTime", timestamp()),
    ];
    let folder = TempDir::new().unwrap();
    let line = "-128,18446744073709551615,1.5,3.1,TRUE,2024-02-29,2024-01-01 02:00:00,z,1500\n128,1,1,1,1,1,1,1,1\n";
    let path = write(&folder, "types.csv", line);
    let with = [("connector", "files"), ("path", path.as_str()), ("timestamp_unit", "ms")];
    let rows = read(&stream(&columns, &with)).await.unwrap();
    let expected =
        "-128|18446744073709551615|1.5|3.10|true|2024-02-29|2024-01-01T02:00:00+02:00|z|1970-01-01T00:00:01.500";
    assert_eq!(rows.good, [expected]);
    assert_eq!(rows.reasons(), ["\"128\" is not a TINYINT"]);
}

#[tokio::test]
async fn json_lines_map_keys_and_refuse_wrong_types() {
    let good =
        r#"{"szcode":"600519","eventTime":"2013-10-07T09:30:00.123","x":[1,{"y":2}],"Turnover":300,"Price":17.25}"#;
    let other = r#"{"PRICE":17.25,"turnover":300,"SZCODE":"600519","eventtime":"2013-10-07 09:30:00.123"}"#;
    let partial = r#"{"eventTime":"2013-10-07T09:30:00"}"#;
    let bad = [
        (r#"{"szcode":5,"eventTime":"2013-10-07T09:30:00"}"#, "\"5\" is not a VARCHAR"),
        (r#"{"eventTime":"2013-10-07T09:30:00","Price":"1"}"#, "\"1\" is not a DOUBLE"),
        (r#"{"eventTime":"2013-10-07T09:30:00","Price":true}"#, "\"true\" is not a DOUBLE"),
        (r#"{"eventTime":"2013-10-07T09:30:00","Turnover":1.5}"#, "\"1.5\" is not a BIGINT"),
        (r#"{"szcode":"x"}"#, "event time is null"),
        (r#"{"eventTime":1381138200}"#, "event time \"1381138200\" is not a timestamp"),
        ("{oops", "not a JSON object: a key is not a string"),
        ("[1]", "not a JSON object: no '{' at the beginning"),
    ];
    let folder = TempDir::new().unwrap();
    let mut lines = vec![good, other, "", partial];
    lines.extend(bad.iter().map(|(line, _)| *line));
    let path = write(&folder, "trades.jsonl", lines.join("\n"));
    let rows = read(&trades(&[("connector", "files"), ("path", &path)])).await.unwrap();
    assert_eq!(rows.good, [ONE_TEXT, ONE_TEXT, "null|2013-10-07T09:30:00|null|null"]);
    assert_eq!(rows.reasons(), bad.map(|(_, reason)| reason));
    assert!(rows.bad[0].place.ends_with("trades.jsonl line 5"), "{}", rows.bad[0].place);
}

#[tokio::test]
async fn packed_files_are_unpacked() {
    let folder = TempDir::new().unwrap();
    let content = format!("{HEADER}{}", ONE.repeat(50_000));
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(content.as_bytes()).unwrap();
    let packed = [("t.csv.gz", gz.finish().unwrap()), ("t.csv.zst", zstd::encode_all(content.as_bytes(), 1).unwrap())];
    for (name, bytes) in packed {
        let path = write(&folder, name, bytes);
        let rows = read(&trades(&[("connector", "files"), ("path", &path)])).await.unwrap();
        assert_eq!((rows.good.len(), rows.bad.len(), rows.end), (50_000, 0, content.len() as u64), "{name}");
    }
}

fn sample() -> RecordBatch {
    let fields = ["PRICE", "szcode", "Turnover", "eventTime"];
    let kinds = [DataType::Float64, DataType::Utf8, DataType::Int64, DataType::Utf8];
    let schema =
        Schema::new(fields.into_iter().zip(kinds).map(|(name, kind)| Field::new(name, kind, true)).collect::<Vec<_>>());
    let columns: Vec<Arc<dyn Array>> = vec![
        Arc::new(Float64Array::from(vec![17.25, 1.0, 2.0])),
        Arc::new(StringArray::from(vec!["600519", "x", "y"])),
        Arc::new(Int64Array::from(vec![300, 1, 2])),
        Arc::new(StringArray::from(vec![Some("2013-10-07T09:30:00.123"), None, Some("soon")])),
    ];
    RecordBatch::try_new(Arc::new(schema), columns).unwrap()
}

#[tokio::test]
async fn columnar_files_are_matched_by_name_and_cast() {
    let folder = TempDir::new().unwrap();
    let batch = sample();
    let (mut parquet, mut file, mut ipc) = (Vec::new(), Vec::new(), Vec::new());
    let mut writer = ArrowWriter::try_new(&mut parquet, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let mut writer = FileWriter::try_new(&mut file, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let mut writer = StreamWriter::try_new(&mut ipc, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    for (name, bytes) in [("t.parquet", parquet), ("t.arrow", file), ("s.arrow", ipc)] {
        let path = write(&folder, name, bytes);
        let rows = read(&trades(&[("connector", "files"), ("path", &path)])).await.unwrap();
        assert_eq!(rows.good, [ONE_TEXT], "{name}");
        assert_eq!(rows.reasons(), ["event time is null", "event time \"soon\" is not a timestamp"], "{name}");
        assert!(rows.bad[1].place.ends_with(&format!("{name} row 3")), "{}", rows.bad[1].place);
        assert_eq!(rows.end, 3);
        let missing = stream(&[("venue", DataType::Utf8)], &[("connector", "files"), ("path", &path)]);
        let error = read(&missing).await.unwrap_err().to_string();
        assert!(error.ends_with("has no column \"venue\"; it has: PRICE, szcode, Turnover, eventTime"), "{error}");
    }
}

fn line(code: &str) -> String {
    format!("{code},2013-10-07T09:30:00,1,1\n")
}

fn codes(rows: &Rows) -> String {
    rows.good.iter().map(|row| row.split('|').next().unwrap()).collect()
}

#[tokio::test]
async fn folders_and_globs_are_read_in_order() {
    let folder = TempDir::new().unwrap();
    for (name, code) in
        [("b.csv", "b"), ("a.csv", "a"), ("c.csv", "c"), (".h.csv", "h"), ("_u.csv", "u"), ("t.csv.tmp", "t")]
    {
        write(&folder, name, line(code));
    }
    write(&folder, "notes.txt", "not for us");
    let root = folder.path().display().to_string();
    let read_order = async |path: &str, order: &str| {
        let with = [("connector", "files"), ("path", path), ("order", order), ("format", "csv")];
        codes(&read(&trades(&with)).await.unwrap())
    };
    assert_eq!(read_order(&root, "name").await, "abc");
    assert_eq!(read_order(&format!("{root}/[bc].csv"), "name").await, "bc");
    let age = |name: &str, seconds: u64| {
        let time = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds);
        fs::File::options().write(true).open(folder.path().join(name)).unwrap().set_modified(time).unwrap();
    };
    age("a.csv", 3_000);
    age("b.csv", 2_000);
    age("c.csv", 1_000);
    assert_eq!(read_order(&root, "modified").await, "cba");
    let by_names = trades(&[("connector", "files"), ("path", &format!("{root}/a.csv"))]);
    assert_eq!(codes(&read(&by_names).await.unwrap()), "a");
}

#[tokio::test]
async fn a_path_without_files_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = format!("{}/*.csv", folder.path().display());
    let error = read(&trades(&[("connector", "files"), ("path", &path)])).await.unwrap_err();
    assert_eq!(error.to_string(), format!("path {path:?} matches no file"));
    let root = folder.path().display().to_string();
    let error = read(&trades(&[("connector", "files"), ("path", &root), ("format", "json")])).await.unwrap_err();
    assert_eq!(error.to_string(), format!("folder {root:?} holds no json file"));
    let error = open_source(&trades(&[("connector", "files"), ("path", &root)])).unwrap_err();
    assert!(error.to_string().starts_with("cannot tell the format"), "{error}");
}

#[tokio::test]
async fn watching_reads_each_file_once_when_it_is_renamed() {
    let folder = TempDir::new().unwrap();
    write(&folder, "1.csv", line("a"));
    let root = folder.path().display().to_string();
    let with = [("connector", "files"), ("path", root.as_str()), ("format", "csv"), ("watch_interval", "5ms")];
    let mut reader = open(&trades(&with)).await.unwrap();
    let mut rows = Rows::default();
    rows.push(next(reader.as_mut()).await.unwrap().unwrap()).unwrap();
    for code in ["b", "c"] {
        write(&folder, ".new", line(code));
        fs::rename(folder.path().join(".new"), folder.path().join(format!("{code}.csv"))).unwrap();
        // Calls that are dropped while they wait lose nothing.
        for _ in 0..20 {
            let _ = tokio::time::timeout(std::time::Duration::from_micros(1), std::future::pending::<()>()).await;
            tokio::select! { biased; split = reader.next(None) => { rows.push(split.unwrap().unwrap()).unwrap(); break; } () = tokio::task::yield_now() => {} }
        }
        while rows.good.len() < usize::from(code == "c") + 2 {
            rows.push(next(reader.as_mut()).await.unwrap().unwrap()).unwrap();
        }
    }
    assert_eq!(codes(&rows), "abc");
}

#[tokio::test]
async fn a_file_that_changes_while_it_is_read_is_refused() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "t.csv", ONE.repeat(100_000));
    let mut reader = open(&trades(&[("connector", "files"), ("path", &path)])).await.unwrap();
    next(reader.as_mut()).await.unwrap().unwrap();
    fs::File::options().append(true).open(&path).unwrap().write_all(ONE.as_bytes()).unwrap();
    let error = loop {
        match next(reader.as_mut()).await {
            Ok(split) => assert!(split.is_some()),
            Err(error) => break error,
        }
    };
    assert_eq!(error.to_string(), format!("{path} changed while it was read"));
}

#[tokio::test]
async fn tables_are_read_whole_or_refused() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "t.csv", format!("{ONE}bad\n{ONE}"));
    let definition = trades(&[("connector", "files"), ("path", &path)]);
    let table = read_table(&definition).await.unwrap();
    assert_eq!(crate::common::one_batch(&table.batches).num_rows(), 2);
    assert_eq!(table.bad.len(), 1);
    let mut strict = definition.as_ref().clone();
    strict.bad_data = BadData::Fail;
    let error = read_table(&strict).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{path} line 2: expected 4 fields, found 1"));
}

/// A generator of its own for the tests, so that cases are the same everywhere.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

/// The rule of this test, written without the decoder: which lines are good.
#[tokio::test]
async fn random_lines_are_good_or_bad_one_by_one() {
    for seed in 0..40 {
        let mut dice = Dice(seed);
        let (mut content, mut good, mut bad) = (HEADER.to_owned(), 0, 0);
        for number in 0..dice.roll(400) {
            let (line, is_good) = match dice.roll(9) {
                0 => ("600519,2013-10-07T09:30:00,1".to_owned(), false),
                1 => ("600519,2013-10-07T09:30:00,1,1,1".to_owned(), false),
                2 => (format!("\"60,{number}\",2013-10-07T09:30:00,\"1\",1"), true),
                3 => (format!("\"60\n{number}\",2013-10-07T09:30:00,1,1"), true),
                4 => ("x,,1,1".to_owned(), false),
                5 => (format!("x,2013-10-07T09:30:00,{number}x,1"), false),
                _ => (format!("é{number},2013-10-07 09:30:00.{number:03},{number},{number}.5"), true),
            };
            content.push_str(&line);
            content.push_str(if dice.roll(2) == 0 { "\n" } else { "\r\n" });
            if is_good { good += 1 } else { bad += 1 }
        }
        let rows = read_csv(&content, &[]).await;
        assert_eq!((rows.good.len(), rows.bad.len()), (good, bad), "seed {seed}");
    }
}

/// Clean CSV gives what Arrow's own reader gives.
#[tokio::test]
async fn clean_csv_agrees_with_arrow() {
    let mut content = HEADER.to_owned();
    let mut dice = Dice(7);
    for _ in 0..20_000 {
        let (cents, millis) = (dice.roll(10_000_000), dice.roll(1_000));
        content.push_str(&format!(
            "{},2013-10-{:02}T{:02}:30:00.{millis:03},{},{}.{:02}\n",
            600_000 + dice.roll(4_000),
            1 + dice.roll(31),
            dice.roll(24),
            dice.roll(1_000_000),
            cents / 100,
            cents % 100
        ));
    }
    let definition = trades(&[]);
    let arrow = ReaderBuilder::new(Arc::clone(&definition.schema)).with_header(true);
    let batches: Vec<_> = arrow.build(content.as_bytes()).unwrap().map(Result::unwrap).collect();
    let expected = texts(&crate::common::one_batch(&batches));
    let rows = read_csv(&content, &[]).await;
    assert!(rows.good == expected && rows.bad.is_empty());
}

#[test]
fn options_that_no_one_knows_are_refused() {
    let error = open_source(&trades(&[("connector", "files"), ("pth", "x"), ("path", "x.csv")])).unwrap_err();
    assert_eq!(error.to_string(), "unknown option \"pth\" for connector files");
    assert!(error.hint().unwrap().starts_with("did you mean \"path\"? files takes: path, format"));
    let error = open_source(&trades(&[("connector", "file"), ("path", "x.csv")])).unwrap_err();
    assert!(error.hint().unwrap().starts_with("did you mean \"files\"?"));
    assert!(Path::new("x.csv").extension().is_some());
}

/// Every row of a stream with the offsets of its split, and what was noted.
async fn read_splits(definition: &Arc<StreamDefinition>) -> (Vec<(Offset, Vec<String>)>, Vec<String>) {
    let index = Arc::new(MemoryIndex::default());
    let source = open_source(definition).unwrap();
    let mut reader = source.open(&[], Arc::clone(&index) as _).await.unwrap().remove(0);
    let mut splits = Vec::new();
    while let Some(split) = reader.next(None).await.unwrap() {
        let end = split.offsets.end;
        splits.push((end, decoded(split)));
    }
    (splits, index.notes())
}

/// Good rows and the reasons of bad ones.
fn decoded(split: millstream_engine::source::Split) -> Vec<String> {
    let decoded = split.decode.decode().unwrap();
    let bad = decoded.bad.into_iter().map(|bad| format!("bad: {} {:?}", bad.reason, bad.raw));
    texts(&decoded.batch).into_iter().chain(bad).collect()
}

/// An index with these notes in it.
fn index_of(notes: &[String]) -> Arc<MemoryIndex> {
    let index = Arc::new(MemoryIndex::default());
    notes.iter().for_each(|note| index.push(note).unwrap());
    index
}

/// Goes on behind every split, along the splits of the first run and freely, and compares what comes.
async fn check_resumed(definition: &Arc<StreamDefinition>, name: &str) {
    let (splits, notes) = read_splits(definition).await;
    assert!(splits.len() > 3, "{name} is too short: {} splits", splits.len());
    for resumed in 0..=splits.len() {
        let from = resumed.checked_sub(1).map_or(Offset(0), |last| splits[last].0);
        for is_bound in [true, false] {
            let index = index_of(&notes);
            let source = open_source(definition).unwrap();
            let mut reader = source.open(&[from], Arc::clone(&index) as _).await.unwrap().remove(0);
            let mut rest = splits[resumed..].iter();
            if is_bound {
                for (limit, rows) in rest.by_ref() {
                    let mut again = Vec::new();
                    let mut reached = Offset(0);
                    while reached < *limit {
                        let split = reader.next(Some(*limit)).await.unwrap().unwrap();
                        reached = split.offsets.end;
                        again.extend(decoded(split));
                    }
                    assert_eq!((reached, &again), (*limit, rows), "{name} from {from:?}");
                }
            }
            let mut freely = Vec::new();
            while let Some(split) = reader.next(None).await.unwrap() {
                freely.extend(decoded(split));
            }
            let mut expected: Vec<_> = rest.flat_map(|(_, rows)| rows.clone()).collect();
            // The good rows of a split come before its bad ones, wherever it is cut.
            expected.sort();
            freely.sort();
            assert_eq!(freely, expected, "{name} from {from:?}");
            assert_eq!(index.notes(), notes, "{name}: nothing new is noted");
        }
    }
}

/// Lines of every kind: quoted ones, one that is too long, quotes that stay open, and bad values.
pub(crate) fn mixed_lines() -> String {
    let mut text = format!("\u{feff}{HEADER}");
    for number in 0..60_000 {
        text.push_str(&match number {
            40_000 => format!("{},2013-10-07T09:30:00,1,1\n", "x".repeat(3 << 20)),
            _ if number % 997 == 0 => format!("\"quoted,\n{number}\",2013-10-07T09:30:00,{number},1.5\n"),
            _ if number % 1_009 == 0 => format!("{number},whenever,1,1\n"),
            _ => format!("{number},2013-10-07T09:30:00,{number},1.25\n"),
        });
    }
    text.push_str("\"never closed,2013-10-07T09:30:00,1,1\n");
    text + &ONE.repeat(30_000)
}

#[tokio::test]
async fn text_is_resumed_behind_any_split() {
    let folder = TempDir::new().unwrap();
    write(&folder, "1.csv", mixed_lines());
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(mixed_lines().as_bytes()).unwrap();
    write(&folder, "2.csv.gz", gz.finish().unwrap());
    write(&folder, "3.csv.zst", zstd::encode_all(mixed_lines().as_bytes(), 1).unwrap());
    let path = folder.path().display().to_string();
    check_resumed(&trades(&[("connector", "files"), ("path", &path)]), "csv").await;
}

#[tokio::test]
async fn columnar_files_are_resumed_behind_any_split() {
    let rows = 200_000;
    let numbers = || Arc::new(Int64Array::from_iter_values(0..rows)) as Arc<dyn Array>;
    let batch = RecordBatch::try_from_iter([("n", numbers())]).unwrap();
    let (mut parquet, mut file) = (Vec::new(), Vec::new());
    let mut writer = ArrowWriter::try_new(&mut parquet, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let mut writer = FileWriter::try_new(&mut file, &batch.schema()).unwrap();
    for start in (0..200_000).step_by(33_333) {
        writer.write(&batch.slice(start, 33_333.min(200_000 - start))).unwrap();
    }
    writer.finish().unwrap();
    for (name, bytes) in [("t.parquet", parquet), ("t.arrow", file)] {
        let folder = TempDir::new().unwrap();
        let path = write(&folder, name, bytes);
        check_resumed(&stream(&[("n", DataType::Int64)], &[("connector", "files"), ("path", &path)]), name).await;
    }
}

#[tokio::test]
async fn files_that_were_read_may_be_gone_and_others_may_not_change() {
    let folder = TempDir::new().unwrap();
    for name in ["a.csv", "b.csv", "d.csv"] {
        write(&folder, name, line(name));
    }
    let path = folder.path().display().to_string();
    let definition = trades(&[("connector", "files"), ("path", &path)]);
    let (splits, notes) = read_splits(&definition).await;
    let source = open_source(&definition).unwrap();
    let codes_behind = async |split: usize| {
        let mut reader = source.open(&[splits[split].0], index_of(&notes)).await?.remove(0);
        let mut rows = Vec::new();
        while let Some(split) = reader.next(None).await? {
            rows.extend(decoded(split).into_iter().map(|row| row.split('|').next().unwrap().to_owned()));
        }
        Ok::<_, millstream_engine::Error>(rows)
    };
    fs::remove_file(folder.path().join("a.csv")).unwrap();
    assert_eq!(codes_behind(0).await.unwrap(), ["b.csv", "d.csv"]);
    // One that came later is read behind those that were read before, wherever its name is.
    write(&folder, "aa.csv", line("new"));
    assert_eq!(codes_behind(2).await.unwrap(), ["new"]);
    let changed = write(&folder, "d.csv", line("e.csv"));
    let error = codes_behind(1).await.unwrap_err();
    assert!(error.to_string().starts_with(&format!("{changed} has changed since")), "{error}");
    assert_eq!(codes_behind(2).await.unwrap(), ["new"]);
    fs::remove_file(&changed).unwrap();
    let error = codes_behind(1).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{changed}, which is not read to its end, is gone"));
}
