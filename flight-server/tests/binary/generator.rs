//! `millstream generate`: into files and over sockets, and the stock queries over what it sends.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::path::Path;

use super::process::{Folder, Running, rows, run, run_sql};

const TRADES: &str = "szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DECIMAL(12,2)";

/// The lines of every file of a folder, without headers.
fn lines(folder: &str) -> Vec<String> {
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let text = |path: &Path| std::fs::read_to_string(path).unwrap();
    paths.flat_map(|path| text(&path).lines().skip(1).map(str::to_owned).collect::<Vec<_>>()).collect()
}

/// The sum of column `index` of CSV lines.
fn sum<'a>(lines: impl IntoIterator<Item = &'a String>, index: usize) -> u64 {
    lines.into_iter().map(|line| line.split(',').nth(index).unwrap().parse::<u64>().unwrap()).sum()
}

#[test]
fn generated_files_are_read_by_a_run() {
    let folder = Folder::new();
    let path = folder.path("trades");
    let made = run(&["generate", "transaction", "--rows", "20000", "--out", &path, "--files", "3", "--codes", "100"]);
    assert_eq!((made.code, made.stdout.as_str()), (Some(0), ""));
    assert!(made.stderr.contains("wrote 20,000 rows into 3 files"), "{}", made.stderr);
    assert_eq!(std::fs::read_dir(&path).unwrap().count(), 3);
    let lines = lines(&path);
    let sql = format!(
        "CREATE STREAM t ({TRADES}, WATERMARK FOR eventTime AS eventTime) WITH (connector = 'files', path = '{path}');
         SELECT COUNT(*) AS n, SUM(Turnover) AS shares FROM t [Range 1 hour, Slide 1 hour]"
    );
    assert_eq!(run_sql(&sql).silent(), format!("n,shares\n20000,{}\n", sum(&lines, 3)));
}

#[test]
fn equal_seeds_give_equal_rows_and_other_seeds_others() {
    let folder = Folder::new();
    let generate = |name: &str, seed: &str| {
        let path = folder.path(name);
        let made = run(&["generate", "stock", "--rows", "500", "--out", &path, "--seed", seed]);
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        lines(&path)
    };
    let first = generate("a", "7");
    assert_eq!(first.len(), 500);
    assert_eq!(generate("b", "7"), first);
    assert_ne!(generate("c", "8"), first);
}

#[test]
fn json_files_hold_the_rows_of_csv_files() {
    let folder = Folder::new();
    let count = |format: &str| {
        let path = folder.path(format);
        let made = run(&["generate", "position", "--rows", "1000", "--out", &path, "--format", format]);
        assert_eq!(made.code, Some(0), "{}", made.stderr);
        let columns =
            "userID VARCHAR, szcode VARCHAR, eventTime TIMESTAMP(3), lastPrice DECIMAL(12,2), openInterest INT";
        run_sql(&format!(
            "CREATE TABLE p ({columns}) WITH (connector = 'files', path = '{path}', format = '{format}');
             SELECT COUNT(*) AS n, SUM(openInterest) AS open, SUM(lastPrice) AS price, MAX(eventTime) AS t FROM p"
        ))
        .silent()
    };
    assert_eq!(count("json"), count("csv"));
}

/// A generator that serves one client so many rows, and where.
fn listen(kind: &str, rows: &str, rate: &str) -> (Running, String) {
    let arguments = ["generate", kind, "--listen", "127.0.0.1:0", "--rows", rows, "--rate", rate, "--codes", "50"];
    let mut generator = Running::start(&[&arguments, ["--users", "40"].as_slice()].concat());
    let note = generator.wait_for_note("127.0.0.1:");
    let address = note.split([' ', ';']).find(|word| word.starts_with("127.0.0.1:")).unwrap().to_owned();
    (generator, address)
}

/// The schema of the stock queries, reading these generators once.
fn schema(folder: &Folder, addresses: &[(&str, &str)]) -> String {
    let mut schema = std::fs::read_to_string(super::process::root().join("queries/stock/schema.sql")).unwrap();
    for (printed, address) in addresses {
        let (from, to) = (format!("'{printed}'"), format!("'{address}', reconnect = 'false'"));
        assert!(schema.contains(&from), "{schema}");
        schema = schema.replace(&from, &to);
    }
    folder.write("schema.sql", schema)
}

#[test]
fn a_run_reads_every_row_of_a_generator_by_socket() {
    let (generator, address) = listen("transaction", "6000", "4000");
    let sql = format!(
        "CREATE STREAM t ({TRADES}, WATERMARK FOR eventTime AS eventTime - INTERVAL '1' SECOND)
         WITH (connector = 'socket', address = '{address}', reconnect = 'false');
         SELECT COUNT(*) AS n, SUM(Turnover) AS shares FROM t [Range 2 s, Slide 1 s]"
    );
    let found = run_sql(&sql).silent();
    let sent = generator.finish();
    assert_eq!(sent.code, Some(0));
    assert!(sent.stderr.contains("sent 6,000 rows"), "{}", sent.stderr);
    let windows: Vec<String> = found.lines().skip(1).map(str::to_owned).collect();
    assert!(windows.len() > 2, "{found}");
    // Every row lies in two windows, and equal seeds give equal rows, whatever the clock says.
    let folder = Folder::new();
    let path = folder.path("same");
    run(&["generate", "transaction", "--rows", "6000", "--out", &path, "--codes", "50", "--users", "40"]);
    assert_eq!((sum(&windows, 0), sum(&windows, 1)), (12_000, 2 * sum(&lines(&path), 3)));
}

#[test]
fn the_group_by_query_runs_over_the_generators_socket() {
    let folder = Folder::new();
    let (generator, address) = listen("transaction", "6000", "2000");
    let schema = schema(&folder, &[("127.0.0.1:9999", &address)]);
    let arguments = ["run", &schema, "queries/stock/groupby.sql", "-p", "n=2 s", "-p", "s=1 s", "--format", "csv"];
    let found = run(&arguments).silent();
    assert_eq!(generator.finish().code, Some(0));
    assert!(rows(&found).len() > 100, "{found}");
    let total: f64 = found.lines().skip(1).map(|row| row.split(',').nth(1).unwrap().parse::<f64>().unwrap()).sum();
    let path = folder.path("same");
    run(&["generate", "transaction", "--rows", "6000", "--out", &path, "--codes", "50", "--users", "40"]);
    let value = |line: &String| {
        let fields: Vec<f64> = line.split(',').skip(3).map(|field| field.parse().unwrap()).collect();
        fields[0] * fields[1]
    };
    let expected = 2.0 * lines(&path).iter().map(value).sum::<f64>();
    assert!((total - expected).abs() < 1e-9 * expected, "{total} is not {expected}");
}

#[test]
fn the_join_query_runs_over_two_generators_sockets() {
    let folder = Folder::new();
    let (positions, position_address) = listen("position", "3000", "1000");
    let (stocks, stock_address) = listen("stock", "3000", "1000");
    let schema = schema(&folder, &[("127.0.0.1:9997", &position_address), ("127.0.0.1:9998", &stock_address)]);
    let arguments = ["run", &schema, "queries/stock/join.sql", "-p", "n=2 s", "-p", "s=1 s", "--format", "csv"];
    let found = run(&arguments).silent();
    assert_eq!((positions.finish().code, stocks.finish().code), (Some(0), Some(0)));
    let rows = rows(&found);
    assert!(rows.len() > 100, "{found}");
    for row in rows {
        let (user, value) = row.split_once(',').unwrap();
        assert!(user.parse::<u32>().unwrap() <= 40 && value.parse::<f64>().unwrap() > 0.0, "{row}");
    }
}

#[test]
fn late_rows_that_were_asked_for_are_counted() {
    let folder = Folder::new();
    let path = folder.path("late");
    let late = ["--late-share", "0.1", "--late-by", "1m", "--event-rate", "100", "--seed", "5"];
    run(&[&["generate", "transaction", "--rows", "50000", "--out", &path], late.as_slice()].concat());
    let sql = format!(
        "CREATE STREAM t ({TRADES}, WATERMARK FOR eventTime AS eventTime) WITH (connector = 'files', path = '{path}');
         SELECT window_end, COUNT(*) AS n FROM t [Range 10 s, Slide 10 s] GROUP BY window_end;
         SELECT COUNT(*) AS kept FROM t$late"
    );
    let finished = run_sql(&sql);
    let (windows, kept) = finished.stdout.split_once("kept\n").unwrap();
    let windows: Vec<String> = windows.lines().skip(1).map(str::to_owned).collect();
    let (in_time, kept) = (sum(&windows, 1), kept.trim().parse::<u64>().unwrap());
    assert_eq!(in_time + kept, 50_000);
    assert!((4_000..6_000).contains(&kept), "{kept} late rows");
    assert_eq!(finished.stderr.lines().count(), 1, "{}", finished.stderr);
}
