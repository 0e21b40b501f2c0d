//! The queries in `queries/stock` over their small data: the rows that were checked by hand, however input is cut.

use super::process::{root, rows, run};

const SCHEMA: &str = "queries/stock/small/schema.sql";
const PARAMETERS: [&str; 6] = ["-p", "n=5 minutes", "-p", "s=1 minute", "--format", "csv"];

#[track_caller]
fn check(query: &str, interval: &str) {
    let file = format!("queries/stock/{query}.sql");
    let arguments = [&["run", SCHEMA, &file, "--batch-interval", interval], PARAMETERS.as_slice()].concat();
    let found = run(&arguments).silent();
    let expected = std::fs::read_to_string(root().join(format!("queries/stock/small/{query}.expected.csv")));
    let mut expected: Vec<String> = expected.unwrap_or_default().lines().map(str::to_owned).collect();
    expected.sort_unstable();
    assert!(expected.len() > 20, "{query} expects {} rows", expected.len());
    assert_eq!(rows(&found), expected, "{query} at {interval}");
}

#[test]
fn the_group_by_query_gives_its_rows_at_every_batch_interval() {
    ["1ms", "100ms", "10s"].into_iter().for_each(|interval| check("groupby", interval));
}

#[test]
fn the_join_query_gives_its_rows_at_every_batch_interval() {
    ["1ms", "100ms", "10s"].into_iter().for_each(|interval| check("join", interval));
}

#[test]
fn micro_batches_of_one_row_give_the_same_rows() {
    let one_row = "SET batch_rows = 1; SET batch_interval = '1 ms'";
    let folder = super::process::Folder::new();
    let settings = folder.write("settings.sql", one_row);
    for query in ["groupby", "join"] {
        let file = format!("queries/stock/{query}.sql");
        let whole = run(&[&["run", SCHEMA, &file], PARAMETERS.as_slice()].concat()).silent();
        let cut = run(&[&["run", &settings, SCHEMA, &file], PARAMETERS.as_slice()].concat()).silent();
        assert_eq!(rows(&cut), rows(&whole), "{query}");
    }
}

/// The rows of both spellings of one window.
fn spelled(from: &str) -> String {
    let sql = format!(
        "SELECT window_start, window_end, szcode, COUNT(*) AS n, SUM(Price*Turnover) AS value
         FROM {from} GROUP BY window_start, window_end, szcode"
    );
    run(&["run", SCHEMA, "-e", &sql, "--format", "csv"]).silent()
}

#[test]
fn hop_and_tumble_are_the_bracket_in_other_words() {
    let hopping = spelled("TRANSACTION [Range 5 minutes, Slide 1 minute]");
    assert!(hopping.lines().count() > 20, "{hopping}");
    for hop in [
        "HOP(TABLE TRANSACTION, DESCRIPTOR(eventTime), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)",
        "TABLE(HOP(TABLE TRANSACTION, DESCRIPTOR(eventTime), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE))",
        "TABLE(HOP(DATA => TABLE TRANSACTION, TIMECOL => DESCRIPTOR(eventTime),
                   SLIDE => INTERVAL '1' MINUTE, SIZE => INTERVAL '5' MINUTE))",
        "transaction [RANGE 300 SLIDE 60]",
    ] {
        assert_eq!(rows(&spelled(hop)), rows(&hopping), "{hop}");
    }
    let tumbling = spelled("TRANSACTION [Range 2 minutes, Slide 2 minutes]");
    let tumble = "TABLE(TUMBLE(TABLE TRANSACTION, DESCRIPTOR(eventTime), INTERVAL '2' MINUTE))";
    assert_eq!(rows(&spelled(tumble)), rows(&tumbling));
}

#[test]
fn two_processes_give_the_same_rows_under_one_header() {
    let arguments = [&["run", SCHEMA, "queries/stock/join.sql"], PARAMETERS.as_slice()].concat();
    let first = run(&arguments).silent();
    assert_eq!(rows(&run(&arguments).silent()), rows(&first));
    assert_eq!(first.lines().filter(|line| line.starts_with("userid")).count(), 1, "{first}");
}
