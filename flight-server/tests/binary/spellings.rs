//! The windows of other systems over the small stock data: each gives the rows of the brackets.

use super::process::{Folder, rows, run, run_sql};

const SCHEMA: &str = "queries/stock/small/schema.sql";

#[track_caller]
fn answer(sql: &str) -> String {
    run(&["run", SCHEMA, "-e", sql, "--format", "csv"]).silent()
}

/// Checks that each query gives the rows of the one in brackets.
#[track_caller]
fn same(bracket: &str, spellings: &[&str]) {
    let expected = answer(bracket);
    assert!(expected.lines().count() > 5, "{expected}");
    for sql in spellings {
        assert_eq!(rows(&answer(sql)), rows(&expected), "{sql}");
    }
}

#[test]
fn hopping_windows_are_the_bracket_in_five_languages() {
    same(
        "SELECT window_start, window_end, szcode, SUM(Price*Turnover) FROM TRANSACTION [Range 5 minutes, Slide 1 minute]
         GROUP BY window_start, window_end, szcode",
        &[
            // Flink's group windows and LaminarDB
            "SELECT HOP_START(eventTime, INTERVAL '1' MINUTE, INTERVAL '5' MINUTE),
                    HOP_END(eventTime, INTERVAL '1' MINUTE, INTERVAL '5' MINUTE), szcode, SUM(Price*Turnover)
             FROM TRANSACTION GROUP BY szcode, HOP(eventTime, INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)",
            // Arroyo
            "SELECT w.start, w.end, szcode, v FROM (
               SELECT hop(interval '1 minute', interval '5 minutes') AS w, szcode, SUM(Price*Turnover) AS v
               FROM TRANSACTION GROUP BY 1, 2)",
            // Spark
            "SELECT window.start, window.end, szcode, SUM(Price*Turnover) FROM TRANSACTION
             GROUP BY window(eventTime, '5 minutes', '1 minute'), szcode",
            // ksqlDB
            "SELECT WINDOWSTART, WINDOWEND, szcode, SUM(Price*Turnover) FROM TRANSACTION
             WINDOW HOPPING (SIZE 5 MINUTES, ADVANCE BY 1 MINUTE) GROUP BY szcode",
            // RisingWave and Proton
            "SELECT window_start, window_end, szcode, SUM(Price*Turnover) FROM hop(TRANSACTION, eventTime, 1m, 5m)
             GROUP BY window_start, window_end, szcode",
        ],
    );
}

#[test]
fn tumbling_windows_are_the_bracket_in_five_languages() {
    same(
        "SELECT window_end, COUNT(*) FROM TRANSACTION [Range 1 minute, Slide 1 minute] GROUP BY window_end",
        &[
            "SELECT TUMBLE_END(eventTime, INTERVAL '1' MINUTE), COUNT(*) FROM TRANSACTION
             GROUP BY TUMBLE(eventTime, INTERVAL '1' MINUTE)",
            "SELECT tumble(interval '1 minute').end AS e, COUNT(*) FROM TRANSACTION GROUP BY tumble(interval '1 minute')",
            "SELECT window.end, COUNT(*) FROM TRANSACTION GROUP BY window(eventTime, '1 minute') ORDER BY window",
            "SELECT windowend, COUNT(*) FROM TRANSACTION WINDOW TUMBLING (SIZE 1 MINUTE) GROUP BY windowend",
            "SELECT window_time + INTERVAL '1 millisecond', COUNT(*) FROM TUMBLE(TRANSACTION, 1m) GROUP BY window_time",
        ],
    );
}

const TRADES: &str = "CREATE STREAM s (ts TIMESTAMP(3), k VARCHAR, v BIGINT, WATERMARK FOR ts)
                      WITH (connector = 'files', format = 'csv', path = '";

fn over(folder: &Folder, select: &str) -> String {
    let lines = "ts,k,v\n2024-01-01T15:59:59,a,1\n2024-01-01T16:00:00,a,2\n2024-01-01T16:00:03,b,4\n";
    let path = folder.write("s.csv", lines);
    run_sql(&format!("{TRADES}{path}'); {select}")).silent()
}

#[test]
fn the_struct_of_a_window_is_printed_with_its_bounds() {
    let folder = Folder::new();
    let found = over(&folder, "SELECT hop(5 s, 5 s) AS window, k, sum(v) AS v FROM s GROUP BY 1, 2");
    let expected = "window,k,v\n\
                    \"{start: 2024-01-01T15:59:55, end: 2024-01-01T16:00:00}\",a,1\n\
                    \"{start: 2024-01-01T16:00:00, end: 2024-01-01T16:00:05}\",a,2\n\
                    \"{start: 2024-01-01T16:00:00, end: 2024-01-01T16:00:05}\",b,4\n";
    assert_eq!(rows(&found), rows(expected), "{found}");
}

#[test]
fn windows_are_ordered_and_limited_by_their_struct() {
    let folder = Folder::new();
    let select =
        "SELECT window, k, sum(v) AS v FROM s GROUP BY window(ts, '5 seconds'), k ORDER BY window, v DESC LIMIT 1";
    let found = over(&folder, select);
    let expected = "window,k,v\n\
                    \"{start: 2024-01-01T15:59:55, end: 2024-01-01T16:00:00}\",a,1\n\
                    \"{start: 2024-01-01T16:00:00, end: 2024-01-01T16:00:05}\",b,4\n";
    assert_eq!(found, expected);
}

#[test]
fn a_day_in_shanghai_begins_at_four_in_the_afternoon_utc() {
    let folder = Folder::new();
    let select =
        "SELECT window_start, window_time, sum(v) AS v FROM s [Range 1 day, Slide 1 day, Time Zone 'Asia/Shanghai']
                  GROUP BY window_start, window_end";
    let expected = "window_start,window_time,v\n2023-12-31T16:00:00,2024-01-01T15:59:59.999,1\n\
                    2024-01-01T16:00:00,2024-01-02T15:59:59.999,6\n";
    assert_eq!(over(&folder, select), expected);
}
