//! Declarations, and what is known of them afterwards.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::arrow::util::pretty::pretty_format_batches;
use millstream_engine::plan::{BadData, StreamDefinition};
use millstream_engine::time::Span;
use millstream_sql::{Session, Statement};
use std::sync::Arc;

use crate::{run, session};

fn stream(text: &str) -> Arc<StreamDefinition> {
    match run(&mut Session::new(), text).unwrap_or_else(|error| panic!("{}", error.render(text))).remove(0) {
        Statement::CreateStream { definition, .. } | Statement::CreateTable { definition, .. } => definition,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_stream_keeps_all_it_is_told() {
    let trades = stream(
        "CREATE STREAM TRANSACTION (szcode VARCHAR NOT NULL, \"UserID\" STRING, timestamp TIMESTAMP(3), end INT,
           WATERMARK FOR timestamp AS timestamp - INTERVAL '2' SECOND IDLE TIMEOUT '5s' MAX FUTURE SKEW 5 minutes
         ) WITH (connector='kafka', 'properties.bootstrap.servers'='b:9092', format = csv, \"Header\" = true,
           max.rows = 10, offset = -1, bad_data='fail')",
    );
    assert_eq!(trades.name, "transaction");
    assert_eq!(trades.declared, ["szcode", "UserID", "timestamp", "end"]);
    let names: Vec<_> = trades.schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["szcode", "UserID", "timestamp", "end"]);
    assert!(!trades.schema.field(0).is_nullable());
    assert!(trades.schema.field(1).is_nullable());
    let rule = trades.event_time.unwrap();
    assert_eq!((rule.column, rule.delay), (2, Span::seconds(2)));
    assert_eq!((rule.idle_timeout, rule.max_future_skew), (Some(Span::seconds(5)), Some(Span::seconds(300))));
    assert_eq!(trades.bad_data, BadData::Fail);
    let options: Vec<_> = trades.options.iter().map(|option| (option.key.as_str(), option.value.as_str())).collect();
    let expected = [
        ("connector", "kafka"),
        ("properties.bootstrap.servers", "b:9092"),
        ("format", "csv"),
        ("header", "true"),
        ("max.rows", "10"),
        ("offset", "-1"),
        ("bad_data", "fail"),
    ];
    assert_eq!(options, expected);
    assert_eq!(trades.options[0].location.map(|location| (location.line, location.column)), Some((3, 18)));
}

#[test]
fn every_watermark_is_a_column_less_a_delay() {
    let cases = [
        ("WATERMARK FOR ts", 0),
        ("WATERMARK FOR ts AS ts", 0),
        ("WATERMARK FOR TS AS ts - INTERVAL '5' SECOND", 5_000),
        ("WATERMARK FOR ts AS ts - INTERVAL '5 seconds'", 5_000),
        ("WATERMARK FOR ts AS ts - INTERVAL '0.001' SECOND", 1),
        ("watermark for ts as ts - '1 minute'", 60_000),
        ("WATERMARK FOR ts IDLE TIMEOUT 5s", 0),
    ];
    for (watermark, millis) in cases {
        let definition = stream(&format!("CREATE STREAM t (ts TIMESTAMP, {watermark})"));
        assert_eq!(definition.event_time.unwrap().delay, Span::millis(millis), "{watermark}");
    }
    assert_eq!(stream("CREATE STREAM t (ts TIMESTAMP)").event_time, None);
}

#[test]
fn column_types_are_those_of_datafusion() {
    let cases = [
        ("BOOLEAN", DataType::Boolean),
        ("TINYINT", DataType::Int8),
        ("SMALLINT", DataType::Int16),
        ("INT", DataType::Int32),
        ("INTEGER", DataType::Int32),
        ("BIGINT", DataType::Int64),
        ("BIGINT UNSIGNED", DataType::UInt64),
        ("REAL", DataType::Float32),
        ("DOUBLE", DataType::Float64),
        ("DOUBLE PRECISION", DataType::Float64),
        ("VARCHAR", DataType::Utf8View),
        ("VARCHAR(20)", DataType::Utf8View),
        ("STRING", DataType::Utf8View),
        ("TEXT", DataType::Utf8View),
        ("DECIMAL(18, 4)", DataType::Decimal128(18, 4)),
        ("NUMERIC(9)", DataType::Decimal128(9, 0)),
        ("DATE", DataType::Date32),
        ("TIMESTAMP", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        ("TIMESTAMP(0)", DataType::Timestamp(TimeUnit::Second, None)),
        ("TIMESTAMP(3)", DataType::Timestamp(TimeUnit::Millisecond, None)),
        ("TIMESTAMP(6)", DataType::Timestamp(TimeUnit::Microsecond, None)),
        ("TIMESTAMP(9)", DataType::Timestamp(TimeUnit::Nanosecond, None)),
        ("BYTEA", DataType::Binary),
    ];
    for (sql, arrow) in cases {
        let definition = stream(&format!("CREATE STREAM t (x {sql} NOT NULL, y {sql})"));
        assert_eq!(*definition.schema.field(0).data_type(), arrow, "{sql}");
        assert_eq!(*definition.schema.field(1).data_type(), arrow, "{sql}");
    }
}

#[test]
fn a_table_with_a_watermark_is_a_stream() {
    let statements = run(
        &mut Session::new(),
        "CREATE TABLE a (ts TIMESTAMP(3), WATERMARK FOR ts AS ts - INTERVAL '5' SECOND) WITH (connector = 'socket');
         CREATE TABLE b (x INT) WITH (connector = 'files', path = 'b.csv')",
    )
    .unwrap();
    assert!(matches!(statements[0], Statement::CreateStream { .. }));
    assert!(matches!(statements[1], Statement::CreateTable { .. }));
}

#[test]
fn names_that_exist_are_respected() {
    let mut session = session();
    let statements = run(
        &mut session,
        "CREATE STREAM IF NOT EXISTS stock (x INT); DROP VIEW IF EXISTS nothing;
         CREATE OR REPLACE STREAM stock (szcode VARCHAR, lastPrice INT); DROP STREAM stock",
    )
    .unwrap();
    assert!(matches!(statements[0], Statement::Nothing { .. }));
    assert!(matches!(statements[1], Statement::Nothing { .. }));
    assert!(matches!(statements[2], Statement::CreateStream { or_replace: true, .. }));
    assert!(session.catalog().relation("stock").is_none());
}

#[test]
fn show_and_describe_answer_in_rows() {
    let mut session = session();
    let mut rows = |text| match run(&mut session, text).unwrap().remove(0) {
        Statement::Show { rows: batch, .. } => pretty_format_batches(&[batch]).unwrap().to_string(),
        other => panic!("{other:?}"),
    };
    let described = rows("DESCRIBE stock");
    for line in [
        "| szcode    | VARCHAR      | yes",
        "| eventTime | TIMESTAMP(3) | yes      | event time, watermark 2 seconds behind",
    ] {
        assert!(described.contains(line), "{described}");
    }
    assert!(rows("SHOW STREAMS").contains("| stock"));
    assert!(rows("SHOW TABLES").contains("| codes"));
    assert!(rows("SHOW VIEWS").contains("| v_minutes"));
    assert!(rows("show sinks").contains("blackhole"));
    assert!(rows("DESCRIBE v_minutes").contains("BIGINT"));
}

#[test]
fn settings_are_checked_and_kept() {
    let mut session = session();
    run(&mut session, "SET batch_interval = '100 ms'; SET TASKS = 4; SET batch_rows TO 1000").unwrap();
    assert_eq!(session.setting("batch_interval"), Some("100 ms"));
    assert_eq!(session.setting("tasks"), Some("4"));
    assert!(session.set("tasks", "0").is_err());
}
