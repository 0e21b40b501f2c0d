//! Millstream inside a program: its examples, and what the interface promises.

#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "main is not called")]
#[path = "../../examples/foreach_batch.rs"]
mod foreach_batch;
#[expect(dead_code, reason = "main is not called")]
#[path = "../../examples/windows.rs"]
mod windows;

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::{AsArray, Int64Array, StringArray, TimestampMillisecondArray};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::arrow::record_batch::RecordBatch;
use millstream::embed::{Engine, EventTime, PushStream, Rows};

const SCHEMA: &str = "CREATE STREAM t (k VARCHAR, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
                      WITH (connector = 'push')";
const SUMS: &str = "SELECT window_end, SUM(v) AS v FROM t [Range 1 second, Slide 1 second] GROUP BY window_end";

/// An engine with a pushed stream `t`.
async fn engine() -> (Engine, PushStream) {
    let engine = Engine::new();
    assert!(engine.run(SCHEMA).await.unwrap().is_empty());
    let stream = engine.stream("t").unwrap();
    (engine, stream)
}

/// Rows of these values, at these milliseconds.
fn batch(rows: &[(i64, i64)]) -> RecordBatch {
    RecordBatch::try_from_iter([
        ("ts", Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1))) as _),
        ("K", Arc::new(StringArray::from_iter_values(rows.iter().map(|row| format!("k{}", row.0)))) as _),
        ("v", Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))) as _),
    ])
    .unwrap()
}

/// The numbers in a column of the next batch.
async fn next_numbers(rows: &mut Rows, column: &str) -> Option<Vec<i64>> {
    let batch = rows.next().await?.unwrap();
    Some(batch.column_by_name(column).unwrap().as_primitive::<Int64Type>().values().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_run() {
    let (value, busiest) = windows::run().await.unwrap();
    // Windows end every ten seconds up to 120 s for the ones that are 30 s long.
    assert_eq!((value, busiest), (24, 10));
    let counts = foreach_batch::run().await.unwrap();
    assert_eq!(counts["be"], 20);
    assert_eq!(counts["or"], 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_close_by_rows_by_promises_and_at_the_end() {
    let (engine, stream) = engine().await;
    let mut rows = engine.query(SUMS).await.unwrap();
    assert_eq!(rows.schema().field(1).name(), "v");
    stream.push(&batch(&[(1, 100), (2, 900), (4, 1_500)])).await.unwrap();
    assert_eq!(next_numbers(&mut rows, "v").await, Some(vec![3]));
    stream.advance_watermark(EventTime(2_000_000_000)).await.unwrap();
    assert_eq!(next_numbers(&mut rows, "v").await, Some(vec![4]));
    // Late for every window, and so in none.
    stream.push(&batch(&[(8, 1_900), (16, 2_100)])).await.unwrap();
    stream.close();
    assert_eq!(next_numbers(&mut rows, "v").await, Some(vec![16]));
    assert!(rows.next().await.is_none());
    let summary = rows.stop().await.unwrap();
    assert_eq!((summary.progress.rows_read, summary.progress.rows_late), (5, 1));
    let late = engine.query("SELECT v FROM t$late").await.unwrap().collect().await.unwrap();
    assert_eq!(late[0].column(0).as_primitive::<Int64Type>().values(), &[8]);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_share_a_stream_and_are_stopped_one_by_one() {
    let (engine, stream) = engine().await;
    let mut all = engine.query("SELECT v FROM t").await.unwrap();
    let mut odd = engine.query("SELECT v FROM t WHERE v % 2 = 1").await.unwrap();
    stream.push(&batch(&[(1, 1), (2, 2), (3, 3)])).await.unwrap();
    assert_eq!(next_numbers(&mut all, "v").await, Some(vec![1, 2, 3]));
    assert_eq!(next_numbers(&mut odd, "v").await, Some(vec![1, 3]));
    assert!(all.stop().await.unwrap().was_stopped);
    // One that comes later sees what is pushed from then on.
    let mut later = engine.query("SELECT v FROM t").await.unwrap();
    stream.push(&batch(&[(5, 5)])).await.unwrap();
    assert_eq!(next_numbers(&mut odd, "v").await, Some(vec![5]));
    assert_eq!(next_numbers(&mut later, "v").await, Some(vec![5]));
    engine.stop().await;
    assert!(odd.next().await.is_none());
    assert!(later.next().await.is_none());
    let error = stream.push(&batch(&[(7, 7)])).await.unwrap_err();
    assert_eq!(error.to_string(), "no query reads stream \"t\"");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_was_closed_is_opened_anew_by_the_next_query() {
    let (engine, stream) = engine().await;
    for value in [1, 2] {
        let mut rows = engine.query(SUMS).await.unwrap();
        stream.push(&batch(&[(value, 100)])).await.unwrap();
        stream.close();
        let error = stream.push(&batch(&[(9, 200)])).await.unwrap_err();
        assert_eq!(error.to_string(), "stream \"t\" is closed");
        assert_eq!(next_numbers(&mut rows, "v").await, Some(vec![value]));
        assert!(rows.next().await.is_none());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pushing_waits_while_nobody_takes_the_rows() {
    let (engine, stream) = engine().await;
    engine.run("SET max_wait = '10 ms'; SET batch_rows = 1000").await.unwrap();
    let mut rows = engine.query("SELECT k, v FROM t").await.unwrap();
    let many: Vec<_> = (0..50_000).map(|number| (number, number)).collect();
    let batches = 400;
    let pushing = tokio::spawn(async move {
        for _ in 0..batches {
            stream.push(&batch(&many)).await.unwrap();
        }
        stream.close();
    });
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(!pushing.is_finished(), "nothing was taken, and everything went in");
    let mut count = 0;
    while let Some(batch) = rows.next().await {
        count += batch.unwrap().num_rows();
    }
    pushing.await.unwrap();
    assert_eq!(count, 50_000 * batches);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_nobody_takes_rows_of_can_be_stopped() {
    let (engine, stream) = engine().await;
    let rows = engine.query("SELECT v FROM t").await.unwrap();
    for number in 0..50 {
        stream.push(&batch(&[(number, number)])).await.unwrap();
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    engine.stop().await;
    drop(rows);
    let rows = engine.query("SELECT v FROM t").await.unwrap();
    drop(rows);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_do_not_fit_are_set_aside_and_batches_that_do_not_are_refused() {
    let (engine, stream) = engine().await;
    let mut rows = engine.query("SELECT v FROM t").await.unwrap();
    let texts = RecordBatch::try_from_iter([
        ("k", Arc::new(StringArray::from(vec!["a", "b"])) as _),
        ("v", Arc::new(StringArray::from(vec!["12", "many"])) as _),
        ("ts", Arc::new(TimestampMillisecondArray::from(vec![1, 2])) as _),
    ]);
    stream.push(&texts.unwrap()).await.unwrap();
    assert_eq!(next_numbers(&mut rows, "v").await, Some(vec![12]));
    let dead = engine.query("SELECT * FROM t$dead").await.unwrap().collect().await.unwrap();
    assert_eq!(dead.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    let short = batch(&[(1, 1)]).project(&[0, 1]).unwrap();
    let error = stream.push(&short).await.unwrap_err();
    assert_eq!(error.to_string(), "a batch for stream \"t\" has no column \"v\"; it has: ts, K");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failing_query_says_so_once_and_its_neighbour_goes_on() {
    let (engine, stream) = engine().await;
    let mut failing = engine.query("SELECT 10 / v AS v FROM t").await.unwrap();
    let mut passing = engine.query("SELECT v FROM t").await.unwrap();
    stream.push(&batch(&[(0, 1)])).await.unwrap();
    let error = failing.next().await.unwrap().unwrap_err();
    assert!(error.render().contains("ivide by zero"), "{}", error.render());
    assert!(failing.next().await.is_none());
    assert!(failing.stop().await.is_err());
    assert_eq!(next_numbers(&mut passing, "v").await, Some(vec![0]));
    stream.push(&batch(&[(1, 1)])).await.unwrap();
    assert_eq!(next_numbers(&mut passing, "v").await, Some(vec![1]));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_a_callback_stops_the_query() {
    let (engine, stream) = engine().await;
    let rows = engine.query("SELECT v FROM t").await.unwrap();
    let taking = tokio::spawn(rows.for_each_batch(|_| async { Err("enough") }));
    stream.push(&batch(&[(1, 1)])).await.unwrap();
    let error = taking.await.unwrap().unwrap_err();
    assert!(error.render().contains("because: enough"), "{}", error.render());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_connectors_tables_and_explain_work_as_in_scripts() {
    let engine = Engine::new();
    let script = "CREATE STREAM made (szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT,
                    Price DOUBLE, WATERMARK FOR eventTime AS eventTime)
                  WITH (connector = 'generate', rows = 1000);
                  CREATE SINK hole WITH (connector = 'blackhole');
                  INSERT INTO hole SELECT szcode FROM made;
                  INSERT INTO hole SELECT userID FROM made";
    for query in engine.run(script).await.unwrap() {
        assert_eq!(query.wait().await.unwrap().progress.rows_written, 1_000);
    }
    engine.register_table("names", vec![batch(&[(1, 1), (2, 2)])]).unwrap();
    let mut sum = engine.query("SELECT SUM(v) AS v FROM names").await.unwrap();
    assert_eq!(next_numbers(&mut sum, "v").await, Some(vec![3]));
    assert!(engine.explain("SELECT szcode FROM made").await.unwrap().contains("made"));
    let analyzed = engine.explain_analyze("SELECT szcode FROM made").await.unwrap();
    assert!(analyzed.contains("made") && analyzed.contains("rows_in=1000, rows_out=1000\n"), "{analyzed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_wrongly_is_refused_with_a_hint() {
    let (engine, _) = engine().await;
    engine.run("CREATE VIEW w AS SELECT 1 AS one").await.unwrap();
    let shown = |error: millstream::Error| error.render();
    for (shown, part) in [
        (shown(engine.run("SELECT 1").await.unwrap_err()), "hint: give a SELECT to query"),
        (shown(engine.query("SELECT 1; SELECT 2").await.unwrap_err()), "hint: query takes one SELECT"),
        (shown(engine.query(SCHEMA).await.unwrap_err()), "exists already"),
        (shown(engine.query("SET tasks = 2").await.unwrap_err()), "this is not one query"),
        (shown(engine.query("SELECT w FROM t").await.unwrap_err()), "unknown column \"w\""),
        (shown(engine.stream("tt").unwrap_err()), "there is t, "),
        (shown(engine.stream("w").unwrap_err()), "the view \"w\" takes no rows of the program"),
        (shown(engine.run("CREATE STREAM p (v BIGINT) WITH (connector = 'push', x = 1)").await.unwrap_err()), "\"x\""),
        (shown(engine.register_table("n", Vec::new()).unwrap_err()), "has no columns"),
    ] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
}

/// The rows that a query gives whose answer is there at once, as text.
async fn answer(engine: &Engine, sql: &str) -> String {
    let batches = engine.query(sql).await.unwrap().collect().await.unwrap();
    datafusion::arrow::util::pretty::pretty_format_batches(&batches).unwrap().to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_materialized_view_is_read_while_it_grows() {
    let (engine, stream) = engine().await;
    let view = format!("CREATE MATERIALIZED VIEW sums AS {SUMS}");
    let mut rows = engine.query(SUMS).await.unwrap();
    let started = engine.run(&view).await.unwrap();
    assert_eq!(started[0].name(), "sums");
    stream.push(&batch(&[(1, 100), (2, 900), (4, 1_500)])).await.unwrap();
    assert_eq!(next_numbers(&mut rows, "v").await, Some(vec![3]));
    // It has read the same rows, and commits by itself.
    let mut progress = started[0].watch();
    progress.wait_for(|progress| progress.rows_written == 1).await.unwrap();
    assert!(answer(&engine, "SELECT COUNT(*) AS n, SUM(v) AS v FROM sums").await.contains("| 1 | 3 |"));
    let shown = answer(&engine, "SHOW QUERIES").await;
    assert!(shown.contains("| sums    | running |"), "{shown}");
    let shown = answer(&engine, "SHOW STATE").await;
    assert!(shown.contains("| sums    | t[range 1 second slide 1 second] | 3         | 3         |"), "{shown}");
    let shown = answer(&engine, "SHOW WATERMARKS").await;
    assert!(shown.contains("1970-01-01T00:00:01.500"), "{shown}");
    assert!(engine.query("SELECT k FROM t [Now], sums").await.is_err(), "a stream with rows that change");
    engine.run("DROP MATERIALIZED VIEW sums").await.unwrap();
    for running in started {
        assert!(running.wait().await.unwrap().was_stopped);
    }
    assert!(engine.query("SELECT * FROM sums").await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_is_paused_resumed_and_stopped_by_name() {
    let (engine, stream) = engine().await;
    let started = engine.run(&format!("CREATE MATERIALIZED VIEW sums AS {SUMS}")).await.unwrap();
    engine.run("PAUSE QUERY sums").await.unwrap();
    let shown = answer(&engine, "SHOW QUERIES").await;
    assert!(shown.contains("| sums  | paused |"), "{shown}");
    let mut other = engine.query(SUMS).await.unwrap();
    stream.push(&batch(&[(1, 100), (2, 900), (4, 1_500)])).await.unwrap();
    // Another query that reads the same rows has come so far, and this one has not.
    assert_eq!(next_numbers(&mut other, "v").await, Some(vec![3]));
    assert_eq!(started[0].progress().rows_read, 0);
    engine.run("RESUME QUERY sums").await.unwrap();
    started[0].watch().wait_for(|progress| progress.rows_written == 1).await.unwrap();
    let error = engine.run("STOP QUERY sum").await.unwrap_err().to_string();
    assert!(error.contains("no query \"sum\" runs"), "{error}");
    engine.run("STOP QUERY sums").await.unwrap();
    for running in started {
        assert!(running.wait().await.unwrap().was_stopped);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_go_to_the_sink_that_a_query_names() {
    let (engine, stream) = engine().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().display();
    engine.run(&format!("CREATE SINK late WITH (connector = 'files', path = '{path}')")).await.unwrap();
    let mut rows = engine.query(&format!("{SUMS} LATE DATA TO late")).await.unwrap();
    stream.push(&batch(&[(1, 100), (2, 1_500)])).await.unwrap();
    stream.push(&batch(&[(4, 300), (8, 2_000)])).await.unwrap();
    stream.close();
    for sum in [1, 2, 8] {
        assert_eq!(next_numbers(&mut rows, "v").await, Some(vec![sum]));
    }
    assert!(rows.next().await.is_none());
    let read = "CREATE TABLE late_rows (k VARCHAR, v BIGINT, ts TIMESTAMP(3)) WITH (connector = 'files', path = ";
    engine.run(&format!("{read}'{path}')")).await.unwrap();
    let late = engine.query("SELECT k, v FROM late_rows").await.unwrap().collect().await.unwrap();
    assert_eq!(late[0].column(1).as_primitive::<Int64Type>().values(), &[4]);
    let error = engine.query(&format!("{SUMS} LATE DATA TO lat")).await.unwrap_err().render();
    assert!(error.contains("there is no sink \"lat\""), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_views_the_instants_are_seen_that_all_have_closed() {
    let (engine, ahead) = engine().await;
    engine.run(&SCHEMA.replace("STREAM t", "STREAM u")).await.unwrap();
    let behind = engine.stream("u").unwrap();
    let of = |stream: &str| SUMS.replace("FROM t", &format!("FROM {stream}"));
    let views = format!("CREATE MATERIALIZED VIEW a AS {}; CREATE MATERIALIZED VIEW b AS {}", of("t"), of("u"));
    let started = engine.run(&views).await.unwrap();
    ahead.push(&batch(&[(1, 100), (2, 1_500), (4, 2_500)])).await.unwrap();
    behind.push(&batch(&[(8, 200), (16, 1_200)])).await.unwrap();
    for (running, rows) in started.iter().zip([2, 1]) {
        running.watch().wait_for(|progress| progress.rows_written == rows).await.unwrap();
    }
    assert!(answer(&engine, "SELECT SUM(v) AS v FROM a").await.contains("| 3 |"));
    let both = "SELECT SUM(a.v) AS a, SUM(b.v) AS b FROM a FULL JOIN b ON a.window_end = b.window_end";
    assert!(answer(&engine, both).await.contains("| 1 | 8 |"));
    behind.push(&batch(&[(32, 2_700)])).await.unwrap();
    started[1].watch().wait_for(|progress| progress.rows_written == 2).await.unwrap();
    assert!(answer(&engine, both).await.contains("| 3 | 24 |"));
}
