//! INSERT INTO files, and reading them back in a second run.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::process::{Folder, run_sql};

const ROWS: u64 = 200_000;

fn source() -> String {
    format!(
        "CREATE STREAM transaction (
           szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE,
           WATERMARK FOR eventTime AS eventTime
         ) WITH (connector = 'generate', rows = {ROWS}, codes = 50, event_rate = 5000);"
    )
}

fn sink(name: &str, path: &str, format: &str) -> String {
    format!("CREATE SINK {name} WITH (connector = 'files', path = '{path}', format = '{format}');")
}

const WINDOWS: &str = "SELECT window_end AS closed, szcode, COUNT(*) AS n, SUM(Turnover) AS shares
    FROM transaction [Range 10 s, Slide 2 s] GROUP BY window_end, szcode";
const WINDOW_COLUMNS: &str = "closed TIMESTAMP(3), szcode VARCHAR, n BIGINT, shares BIGINT";

/// Checks that a folder has whole parts alone, beside its ledger; gives their number.
#[track_caller]
fn check_parts(folder: &str, format: &str) -> usize {
    let names = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names: Vec<String> = names.filter(|name| name != "_manifest").collect();
    let is_part = |name: &String| name.starts_with("part-") && name.ends_with(&format!(".{format}"));
    assert!(!names.is_empty() && names.iter().all(is_part), "{names:?}");
    names.len()
}

/// The rows of a folder, read as a table.
fn read_back(folder: &str, format: &str, columns: &str, select: &str) -> String {
    let options = format!("connector = 'files', path = '{folder}', format = '{format}'");
    run_sql(&format!("CREATE TABLE r ({columns}) WITH ({options}); {select}")).silent()
}

#[test]
fn files_of_every_format_hold_the_rows_of_the_select() {
    let direct = run_sql(&(source() + WINDOWS)).silent();
    let direct = super::process::rows(&direct);
    assert!(direct.len() > 1_000, "{}", direct.len());
    for format in ["csv", "json", "parquet"] {
        let folder = Folder::new();
        let path = folder.path("out");
        let settings = "SET batch_rows = 1000; SET batch_interval = '1 ms';";
        let sql = [settings, &source(), &sink("results", &path, format), "INSERT INTO results ", WINDOWS].concat();
        assert_eq!(run_sql(&sql).silent(), "");
        assert!(check_parts(&path, format) > 1, "{format}");
        let read = read_back(&path, format, WINDOW_COLUMNS, "SELECT closed, szcode, n, shares FROM r");
        assert_eq!(super::process::rows(&read), direct, "{format}");
    }
}

#[test]
fn two_inserts_on_one_stream_both_get_every_row() {
    let folder = Folder::new();
    let (all, windows) = (folder.path("all"), folder.path("windows"));
    let sql = [
        &source(),
        &sink("all_rows", &all, "parquet"),
        &sink("windows", &windows, "csv"),
        "INSERT INTO all_rows SELECT szcode, eventTime, Turnover, Price FROM transaction;",
        "INSERT INTO windows SELECT window_end AS closed, COUNT(*) AS n, SUM(Turnover) AS shares
         FROM transaction [Range 4 s, Slide 2 s] GROUP BY window_end",
    ];
    assert_eq!(run_sql(&sql.concat()).silent(), "");
    check_parts(&all, "parquet");
    check_parts(&windows, "csv");
    let columns = "szcode VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE";
    let read = read_back(&all, "parquet", columns, "SELECT COUNT(*) AS n, SUM(Turnover) AS shares FROM r");
    let (n, shares) = read.lines().nth(1).unwrap().split_once(',').unwrap();
    assert_eq!(n, ROWS.to_string());
    // Every row lies in two windows.
    let columns = "closed TIMESTAMP(3), n BIGINT, shares BIGINT";
    let read = read_back(&windows, "csv", columns, "SELECT SUM(n) / 2 AS n, SUM(shares) / 2 AS shares FROM r");
    assert_eq!(read, format!("n,shares\n{n},{shares}\n"));
}

#[test]
fn an_insert_and_a_select_behind_it_share_one_run() {
    let folder = Folder::new();
    let path = folder.path("out");
    let select = "SELECT window_end, COUNT(*) AS n FROM transaction [Range 40 s, Slide 40 s] GROUP BY window_end";
    let insert = "INSERT INTO results SELECT szcode, Turnover FROM transaction WHERE Turnover > 1000;";
    let shown = run_sql(&[&source(), &sink("results", &path, "csv"), insert, select].concat()).silent();
    assert_eq!(shown, format!("window_end,n\n2024-01-02T09:30:40,{ROWS}\n"));
    let read = read_back(&path, "csv", "szcode VARCHAR, Turnover BIGINT", "SELECT MIN(Turnover) AS least FROM r");
    let least: u64 = read.lines().nth(1).unwrap().parse().unwrap();
    assert!(least > 1_000, "{read}");
}

#[test]
fn a_folder_with_an_earlier_run_is_not_written_to() {
    let folder = Folder::new();
    let path = folder.path("out");
    let sql =
        [&source(), &sink("results", &path, "csv"), "INSERT INTO results SELECT szcode FROM transaction"].concat();
    run_sql(&sql).silent();
    let parts = check_parts(&path, "csv");
    run_sql(&sql).check_error(1, &["holds the results of an earlier run", "hint: "]);
    assert_eq!(check_parts(&path, "csv"), parts);
}

#[test]
fn a_blackhole_takes_rows_and_says_nothing() {
    let sql = "CREATE SINK nowhere WITH (connector = 'blackhole'); INSERT INTO nowhere ";
    assert_eq!(run_sql(&[&source(), sql, WINDOWS].concat()).silent(), "");
}
