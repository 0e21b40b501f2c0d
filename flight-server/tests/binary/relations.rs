//! Streams with tables, views, views of windows, and queries that no window bounds.

use std::collections::BTreeMap;

use super::process::{Folder, rows, run, run_sql};

/// Six trades of three codes; only two of the codes have a sector.
fn declarations(folder: &Folder) -> String {
    let trades = "code,ts,n\na,2024-01-01T00:00:01,1\nb,2024-01-01T00:00:04,2\na,2024-01-01T00:00:09,3\n\
                  a,2024-01-01T00:00:11,4\nc,2024-01-01T00:00:12,5\nb,2024-01-01T00:00:25,6\n";
    let (trades, sectors) =
        (folder.write("trades.csv", trades), folder.write("sectors.csv", "code,sector\na,tech\nb,oil\n"));
    format!(
        "CREATE STREAM trades (code VARCHAR, ts TIMESTAMP(3), n BIGINT, WATERMARK FOR ts AS ts)
         WITH (connector = 'files', path = '{trades}');
         CREATE TABLE sectors (code VARCHAR, sector VARCHAR) WITH (connector = 'files', path = '{sectors}');
         CREATE VIEW large AS SELECT code, ts, n FROM trades WHERE n > 2;
         CREATE VIEW sums AS SELECT window_end, code, SUM(n) AS total
           FROM trades [Range 10 s, Slide 10 s] GROUP BY window_end, code;"
    )
}

/// Checks the rows of one query over those declarations, with and without cutting the input.
#[track_caller]
fn check(select: &str, expected: &[&str]) {
    let folder = Folder::new();
    for settings in ["", "SET batch_rows = 1; SET batch_interval = '1 ms';"] {
        let found = run_sql(&[settings, &declarations(&folder), select].concat()).silent();
        assert_eq!(rows(&found), expected, "{settings} {select}");
    }
}

#[test]
fn a_filter_without_a_window_gives_each_row_as_it_comes() {
    check("SELECT code, n * 10 AS tens FROM trades WHERE n >= 4", &["a,40", "b,60", "c,50"]);
    check("SELECT * FROM large WHERE code = 'a'", &["a,2024-01-01T00:00:09,3", "a,2024-01-01T00:00:11,4"]);
}

#[test]
fn a_window_joins_a_static_table() {
    let select = "SELECT window_end, sector, SUM(n) AS total FROM trades [Range 10 s, Slide 10 s] AS t
                  JOIN sectors ON t.code = sectors.code GROUP BY window_end, sector";
    let expected = [
        "2024-01-01T00:00:10,oil,2",
        "2024-01-01T00:00:10,tech,4",
        "2024-01-01T00:00:20,tech,4",
        "2024-01-01T00:00:30,oil,6",
    ];
    check(select, &expected);
}

#[test]
fn a_row_joins_a_static_table_without_a_window() {
    let select =
        "SELECT trades.code, sector, n FROM trades LEFT JOIN sectors ON trades.code = sectors.code WHERE n > 3";
    check(select, &["a,tech,4", "b,oil,6", "c,,5"]);
}

#[test]
fn a_view_over_windows_gives_their_rows() {
    let select = "SELECT window_end, total FROM sums WHERE code = 'a'";
    check(select, &["2024-01-01T00:00:10,4", "2024-01-01T00:00:20,4"]);
}

#[test]
fn a_window_over_a_windowed_view_takes_its_rows_at_their_window_ends() {
    let select =
        "SELECT window_end, MAX(total) AS most, COUNT(*) AS n FROM sums [Range 20 s, Slide 20 s] GROUP BY window_end";
    check(select, &["2024-01-01T00:00:20,5,4", "2024-01-01T00:00:40,6,1"]);
}

#[test]
fn the_best_of_each_window_can_be_ordered_and_limited() {
    let select = "SELECT window_end, code, n FROM trades [Range 10 s, Slide 10 s] ORDER BY n DESC LIMIT 1";
    check(select, &["2024-01-01T00:00:10,a,3", "2024-01-01T00:00:20,c,5", "2024-01-01T00:00:30,b,6"]);
}

#[test]
fn two_windows_of_one_stream_are_joined_and_united() {
    let join = "SELECT l.code, r.code, l.n + r.n AS both
                FROM trades [Range 10 s, Slide 10 s] AS l JOIN trades [Range 10 s, Slide 10 s] AS r ON l.n + 1 = r.n";
    // Only 1 and 2, 2 and 3, 4 and 5 share a window.
    check(join, &["a,b,3", "a,c,9", "b,a,5"]);
    let union = "SELECT code FROM trades [Range 10 s, Slide 10 s] WHERE n = 1
                 UNION ALL SELECT code FROM trades [Range 10 s, Slide 10 s] WHERE n > 5";
    check(union, &["a", "b"]);
}

#[test]
fn the_last_row_of_every_key_of_an_unbounded_group_by_is_what_a_batch_gives() {
    let folder = Folder::new();
    let path = folder.path("trades");
    let made = run(&["generate", "transaction", "--rows", "100000", "--out", &path, "--files", "4", "--codes", "30"]);
    assert_eq!(made.code, Some(0));
    let columns = "szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DECIMAL(12,4)";
    let options = format!("connector = 'files', path = '{path}', format = 'csv'");
    let select = "SELECT szcode, COUNT(*) AS n, SUM(Turnover) AS shares, MIN(Price) AS low, MAX(Price) AS high,
                  SUM(Price*Turnover) AS value FROM trades GROUP BY szcode";
    let batch = run_sql(&format!("CREATE TABLE trades ({columns}) WITH ({options}); {select}")).silent();
    let stream = format!(
        "SET batch_rows = 10000; SET batch_interval = '1 ms';
         CREATE STREAM trades ({columns}, WATERMARK FOR eventTime AS eventTime) WITH ({options}); {select}"
    );
    let stream = run_sql(&stream).silent();
    let last: BTreeMap<&str, &str> = stream.lines().skip(1).map(|row| (row.split_once(',').unwrap().0, row)).collect();
    assert_eq!(last.values().copied().collect::<Vec<_>>(), rows(&batch));
    assert_eq!(last.len(), 30);
    // Groups that change are emitted anew: there is more than the end result.
    assert!(stream.lines().count() > 60, "{}", stream.lines().count());
}
