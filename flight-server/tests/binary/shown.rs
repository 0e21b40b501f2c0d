//! What is shown of plans and declarations: `explain`, EXPLAIN, SHOW and DESCRIBE.

use super::process::{run, run_sql};

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
