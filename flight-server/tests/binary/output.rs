//! What goes to stdout and what to stderr, and the rows that no result could use.

use super::process::{Folder, Running, run, run_sql};

const SCHEMA: &str = "queries/stock/small/schema.sql";

#[test]
fn csv_is_one_header_and_plain_rows_and_nothing_else() {
    let select = "SELECT szcode, Turnover, Price FROM TRANSACTION WHERE Turnover = 900";
    let found = run(&["run", SCHEMA, "-e", select, "--format", "csv", "--batch-interval", "1ms"]).silent();
    assert_eq!(found, "szcode,turnover,price\n000001,900,341.0\n300750,900,1771.25\n");
}

#[test]
fn the_header_comes_even_without_rows() {
    let select = "SELECT szcode, Turnover FROM TRANSACTION WHERE Turnover < 0";
    assert_eq!(run(&["run", SCHEMA, "-e", select, "--format", "csv"]).silent(), "szcode,turnover\n");
}

#[test]
fn fields_are_quoted_where_csv_needs_it_and_json_escapes() {
    let select = "SELECT 'a,b' AS x, 'say \"hi\"' AS y, 1.5 AS z, CAST(NULL AS BIGINT) AS n";
    assert_eq!(run_sql(select).silent(), "x,y,z,n\n\"a,b\",\"say \"\"hi\"\"\",1.5,\n");
    let json = run(&["run", "-e", select, "--format", "json"]).silent();
    assert_eq!(json, "{\"x\":\"a,b\",\"y\":\"say \\\"hi\\\"\",\"z\":1.5,\"n\":null}\n");
}

#[test]
fn a_file_takes_the_rows_in_place_of_stdout() {
    let folder = Folder::new();
    let path = folder.path("out.csv");
    let sql = "SELECT 1 AS a; SELECT 2 AS b";
    assert_eq!(run(&["run", "-e", sql, "--format", "csv", "--output", &path]).silent(), "");
    assert_eq!(std::fs::read_to_string(path).unwrap(), "a\n1\nb\n2\n");
}

#[test]
fn every_format_has_the_same_rows() {
    let select = "SELECT szcode, Turnover FROM TRANSACTION WHERE Turnover = 900";
    let show = |format: &str| run(&["run", SCHEMA, "-e", select, "--format", format]).silent();
    assert_eq!(show("json"), "{\"szcode\":\"000001\",\"turnover\":900}\n{\"szcode\":\"300750\",\"turnover\":900}\n");
    let table = show("table");
    let words: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert!(!table.contains('\x1b'), "{table:?}");
    assert!(words.contains(&vec!["000001", "900"]) && words.contains(&vec!["300750", "900"]), "{table}");
}

/// A stream of which one row is late for every window, one is late for a part of its windows, and one is bad.
fn lossy(folder: &Folder) -> String {
    let text = "k,ts,i\na,2024-01-01T00:00:07,1\nb,2024-01-01T00:00:22,2\nlate,2024-01-01T00:00:03,4\n\
                part,2024-01-01T00:00:13,8\nbad,2024-01-01T00:00:23,x\n";
    let path = folder.write("lossy.csv", text);
    format!(
        "CREATE STREAM t (k VARCHAR, ts TIMESTAMP(3), i BIGINT, WATERMARK FOR ts AS ts)
         WITH (connector = 'files', path = '{path}');"
    )
}

#[test]
fn late_and_bad_rows_are_noted_on_stderr_and_can_be_read_in_the_same_run() {
    let folder = Folder::new();
    let windows = "SELECT window_end, SUM(i) AS s FROM t [Range 10 s, Slide 5 s] GROUP BY window_end;";
    let sides = "SELECT query, watermark, k, ts, i FROM t$late; SELECT place, column, reason, raw FROM t$dead";
    let path = folder.path("lossy.csv");
    let finished = run_sql(&[&lossy(&folder), windows, sides].concat());
    // 00:00:13 lies in the windows up to 15, 20: both closed at 22. What is late for all of them is kept.
    let expected = format!(
        "window_end,s\n2024-01-01T00:00:10,1\n2024-01-01T00:00:15,1\n2024-01-01T00:00:25,2\n2024-01-01T00:00:30,2\n\
         query,watermark,k,ts,i\n\
         query 1,2024-01-01T00:00:22,part,2024-01-01T00:00:13,8\n\
         query 1,2024-01-01T00:00:22,late,2024-01-01T00:00:03,4\n\
         place,column,reason,raw\n{path} line 6,i,\"\"\"x\"\" is not a BIGINT\",\"bad,2024-01-01T00:00:23,x\"\n"
    );
    assert_eq!(finished.stdout, expected);
    let notes = "note: 1 row of t could not be used; see t$dead\n\
                 note: 2 rows of t came too late for every window; see t$late\n";
    assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), notes));
}

#[test]
fn a_row_that_is_in_time_for_one_of_its_windows_is_not_late() {
    let folder = Folder::new();
    let windows = "SELECT window_end, SUM(i) AS s FROM t [Range 20 s, Slide 10 s] GROUP BY window_end;
                   SELECT k FROM t$late";
    let finished = run_sql(&[&lossy(&folder), windows].concat());
    // 00:00:13 misses the window up to 20 and is in the one up to 30.
    let expected = "window_end,s\n2024-01-01T00:00:10,1\n2024-01-01T00:00:20,1\n2024-01-01T00:00:30,10\n\
                    2024-01-01T00:00:40,2\nk\nlate\n";
    assert_eq!(finished.stdout, expected);
    assert!(finished.stderr.contains("note: 1 row of t came too late"), "{}", finished.stderr);
}

#[test]
fn logs_go_to_stderr_when_asked_for() {
    let plain = run(&["run", SCHEMA, "-e", "SELECT szcode FROM STOCK", "--format", "csv"]).silent();
    let told = run(&["run", "-vv", SCHEMA, "-e", "SELECT szcode FROM STOCK", "--format", "csv"]);
    assert_eq!(told.stdout, plain);
    assert!(told.stderr.contains("epoch"), "{}", told.stderr);
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_ends_the_run_without_complaint() {
    let sql = "CREATE STREAM stock (szcode VARCHAR, eventTime TIMESTAMP(3), WATERMARK FOR eventTime AS eventTime)
               WITH (connector = 'generate'); SELECT szcode FROM stock";
    for format in ["csv", "json", "table"] {
        let mut running = Running::start(&["run", "-e", sql, "--format", format]);
        running.wait_for_line("600");
        running.stop_reading();
        assert_eq!(running.finish().silent(), "");
    }
}
