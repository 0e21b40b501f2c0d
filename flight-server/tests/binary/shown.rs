//! What is shown of plans and declarations: `explain`, EXPLAIN, SHOW and DESCRIBE.

use std::sync::mpsc::channel;

use super::process::{Folder, Running, run, run_sql, send_lines, serve};

const SCHEMA: &str = "queries/stock/small/schema.sql";

#[test]
fn explain_shows_the_three_plans_and_what_bounds_each_state() {
    let shown =
        run(&["explain", SCHEMA, "queries/stock/groupby.sql", "-p", "n=5 minutes", "-p", "s=1 minute"]).silent();
    for part in
        ["update\n", "merge\n", "evaluate\n", "state\n", "bounded: one partial aggregate", "5 panes of 1 minute"]
    {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    assert!(!shown.contains("unbounded"), "{shown}");
}

#[test]
fn explain_of_a_query_that_no_window_bounds_says_so() {
    let select = "SELECT szcode, COUNT(*) FROM TRANSACTION GROUP BY szcode";
    let shown = run(&["explain", SCHEMA, "-e", select]).silent();
    assert!(shown.contains("unbounded: one partial aggregate for each group ever seen"), "{shown}");
}

#[test]
fn the_statement_and_the_command_explain_alike() {
    let select = "SELECT szcode, SUM(Price) FROM TRANSACTION [Range 1 minute, Slide 10 s] GROUP BY szcode";
    let command = run(&["explain", SCHEMA, "-e", select]).silent();
    let statement = run(&["run", SCHEMA, "-e", &format!("EXPLAIN {select}")]).silent();
    assert!(command.contains("6 panes of 10 seconds"), "{command}");
    assert_eq!(statement, command);
}

#[test]
fn explain_does_not_read_its_input() {
    let sql = "CREATE STREAM t (a BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
               WITH (connector = 'files', path = 'no-such.csv'); SELECT a FROM t WHERE a > 1";
    assert!(run(&["explain", "-e", sql]).silent().contains("Scan: t"));
}

/// A stream of five rows, of which one is late for its window of ten seconds, and a table of two names.
fn five_rows(folder: &Folder) -> String {
    let row = |k: &str, second: u8, v: u8| format!("{k},2024-01-01T00:00:{second:02},{v}\n");
    let rows = [row("a", 1, 1), row("b", 2, 2), row("a", 12, 3), row("b", 3, 4), row("c", 13, 100)];
    let t = folder.write("t.csv", format!("k,ts,v\n{}", rows.concat()));
    let names = folder.write("names.csv", "k,name\na,Alpha\nb,Beta\n");
    format!(
        "CREATE STREAM t (k VARCHAR, ts TIMESTAMP(3), v BIGINT, WATERMARK FOR ts)
         WITH (connector = 'files', path = '{t}');
         CREATE TABLE names (k VARCHAR, name VARCHAR) WITH (connector = 'files', path = '{names}');
         CREATE SINK late WITH (connector = 'console');"
    )
}

/// The rows that the operator has given whose line in `shown` has `part`.
fn output_rows(shown: &str, part: &str) -> Option<u64> {
    let line = shown.lines().find(|line| line.contains(part))?;
    let (_, metrics) = line.split_once(", metrics=[output_rows=")?;
    metrics.split([',', ']']).next()?.parse().ok()
}

#[test]
fn explain_analyze_runs_the_query_and_counts_what_each_operator_gives() {
    let folder = Folder::new();
    let select = "SELECT k, SUM(v) AS v FROM t [Range 10 s, Slide 10 s] WHERE v < 100 GROUP BY k HAVING SUM(v) > 1";
    let shown = run_sql(&[&five_rows(&folder), "EXPLAIN ANALYZE ", select].concat()).silent();
    // Windows {a: 1, b: 2} and {a: 3}; the second b is late.
    for (part, rows) in [("mode=Partial,", 3), ("mode=Final", 3), ("FilterExec", 2)] {
        assert_eq!(output_rows(&shown, part), Some(rows), "{part} in {shown}");
    }
    for part in ["read=5, used=3, filtered=1, late=1, outside=0", "instants=2,", "rows_in=5, rows_out=2\n"] {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    // What it shows besides is what EXPLAIN shows.
    let plans = run_sql(&[&five_rows(&folder), "EXPLAIN ", select].concat()).silent();
    let bare = |line: &str| line.split(", metrics=[").next().unwrap_or_default().to_owned();
    let lines: Vec<_> = shown.lines().map(bare).collect();
    let plans: Vec<_> = plans.lines().filter(|line| !line.is_empty()).collect();
    assert_eq!(lines[..plans.len()], plans);
}

#[test]
fn explain_analyze_sums_the_executions_of_a_plan_over_its_instants() {
    let folder = Folder::new();
    let select = "SELECT name, v FROM t [Range 10 s, Slide 10 s] JOIN names ON t.k = names.k LATE DATA TO late";
    let shown = run_sql(&[&five_rows(&folder), "EXPLAIN ANALYZE ", select].concat()).silent();
    // Of the rows in time one has no name; tables in memory measure nothing.
    assert_eq!(output_rows(&shown, "SlotExec"), Some(4), "{shown}");
    assert_eq!(output_rows(&shown, "HashJoinExec"), Some(3), "{shown}");
    assert!(shown.lines().any(|line| line.contains("DataSourceExec") && line.ends_with("metrics=[]")), "{shown}");
    assert!(shown.contains("rows_in=5, rows_out=3\n"), "{shown}");
}

#[test]
fn explain_analyze_shows_views_and_queries_over_tables() {
    let folder = Folder::new();
    let view = "CREATE VIEW sums AS SELECT window_end, k, SUM(v) AS v FROM t [Range 10 s, Slide 10 s]
                GROUP BY window_end, k;";
    let select = "EXPLAIN ANALYZE SELECT COUNT(*) FROM sums [Range 20 s, Slide 20 s]";
    let shown = run_sql(&[&five_rows(&folder), view, select].concat()).silent();
    for part in ["view sums\n", "late=1, outside=0", "sums[range 20 seconds slide 20 seconds]: read=4,", "rows_out=1\n"]
    {
        assert!(shown.contains(part), "no {part:?} in {shown}");
    }
    let shown = run_sql(&[&five_rows(&folder), "EXPLAIN ANALYZE SELECT * FROM names WHERE k = 'a'"].concat()).silent();
    assert_eq!(output_rows(&shown, "FilterExec"), Some(1), "{shown}");
    assert!(shown.contains("rows_in=0, rows_out=1\n"), "{shown}");
}

#[test]
fn explain_analyze_of_endless_input_shows_what_was_done_until_it_is_stopped() {
    let (connected, is_connected) = channel();
    let (stopped, is_stopped) = channel::<()>();
    let (address, sending) = serve(move |client| {
        send_lines(client, "a,1");
        connected.send(()).unwrap();
        // The stream stays open until the query has ended.
        let _ = is_stopped.recv();
    });
    let sql = format!(
        "CREATE STREAM s (k VARCHAR, v BIGINT) WITH (connector = 'socket', address = '{address}', format = 'csv');
         EXPLAIN ANALYZE SELECT k FROM s"
    );
    let running = Running::start(&["run", "-e", &sql]);
    is_connected.recv().unwrap();
    running.terminate();
    let ended = running.finish();
    drop(stopped);
    sending.join().unwrap();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(ended.stdout.contains("stopped before the end of its input"), "{ended:?}");
}

#[test]
fn what_was_declared_is_listed() {
    let sql = "CREATE STREAM trades (code VARCHAR NOT NULL, ts TIMESTAMP(3), n BIGINT,
                                     WATERMARK FOR ts AS ts - INTERVAL '5' SECOND)
               WITH (connector = 'files', path = 'trades.csv');
               CREATE STREAM raw (line VARCHAR) WITH (connector = 'socket', address = '127.0.0.1:1');
               CREATE VIEW large AS SELECT code FROM trades WHERE n > 2;
               CREATE SINK out WITH (connector = 'blackhole');
               SHOW STREAMS; DESCRIBE trades; SHOW VIEWS; SHOW SINKS; DROP STREAM raw; SHOW STREAMS";
    let expected = "stream,connector,event_time\nraw,socket,arrival\ntrades,files,ts\n\
                    column,type,nullable,note\ncode,VARCHAR,no,\n\
                    ts,TIMESTAMP(3),yes,\"event time, watermark 5 seconds behind\"\nn,BIGINT,yes,\n\
                    view,query\nlarge,SELECT code FROM trades WHERE n > 2\n\
                    sink,connector\nout,blackhole\n\
                    stream,connector,event_time\ntrades,files,ts\n";
    assert_eq!(run_sql(sql).silent(), expected);
}

#[test]
fn tables_are_listed_and_dropped() {
    let sql = "CREATE TABLE quotes (szcode VARCHAR, lastPrice DOUBLE)
               WITH (connector = 'files', path = 'queries/stock/small/stock.csv');
               SHOW TABLES; DESCRIBE quotes; SELECT COUNT(*) AS n FROM quotes; DROP TABLE quotes; SHOW TABLES";
    let expected = "table,connector\nquotes,files\ncolumn,type,nullable,note\nszcode,VARCHAR,yes,\nlastPrice,DOUBLE,yes,\n\
                    n\n16\ntable,connector\n";
    assert_eq!(run_sql(sql).silent(), expected);
}
