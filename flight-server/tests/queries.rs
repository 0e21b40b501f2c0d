//! Whole queries through the binary: the stock queries, real trades against a row-at-a-time evaluation, exit codes.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn millstream(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_millstream"));
    command.current_dir(root()).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn stdout(arguments: &[&str]) -> String {
    let output = millstream(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// The rows of CSV output in one order, without the header.
fn rows(csv: &str) -> Vec<String> {
    let mut rows: Vec<String> = csv.lines().skip(1).map(str::to_owned).collect();
    rows.sort();
    rows
}

const INTERVALS: [&str; 3] = ["1ms", "100ms", "10s"];

#[test]
fn the_stock_queries_give_their_expected_rows_at_any_batch_interval() {
    for query in ["groupby", "join"] {
        let expected =
            std::fs::read_to_string(root().join(format!("queries/stock/small/{query}.expected.csv"))).unwrap();
        let expected: Vec<_> = expected.lines().map(str::to_owned).collect();
        let text = format!("queries/stock/{query}.sql");
        for interval in INTERVALS {
            let schema = "queries/stock/small/schema.sql";
            let bound = ["-p", "n=5 minutes", "-p", "s=1 minute", "--format", "csv", "--batch-interval", interval];
            let arguments = [&["run", schema, &text], bound.as_slice()].concat();
            assert_eq!(rows(&stdout(&arguments)), expected, "{query} at {interval}");
        }
    }
}

#[test]
fn a_hop_is_the_same_relation_as_a_bracket() {
    let schema = "queries/stock/small/schema.sql";
    let select = |from: &str| {
        let sql = format!("SELECT window_end, szcode, COUNT(*), SUM(Turnover) FROM {from} GROUP BY window_end, szcode");
        rows(&stdout(&["run", schema, "-e", &sql, "--format", "csv"]))
    };
    let bracket = select("TRANSACTION [Range 5 minutes, Slide 1 minute]");
    let hop = "HOP(TABLE TRANSACTION, DESCRIPTOR(eventTime), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE)";
    assert!(!bracket.is_empty());
    assert_eq!(select(hop), bracket);
    assert_eq!(select(&format!("TABLE({hop})")), bracket);
}

/// One trade of the slice: code, time in milliseconds of the day, shares, price in hundredths of a cent.
struct Trade {
    code: String,
    millis: i64,
    shares: i64,
    price: i128,
}

const SLICE: &str = "flight-server/tests/data/us-equity-trades-slice.csv";

fn trades() -> Vec<Trade> {
    let text = std::fs::read_to_string(root().join(SLICE)).unwrap();
    text.lines().skip(1).map(trade).collect()
}

fn trade(line: &str) -> Trade {
    let fields: Vec<&str> = line.split(',').collect();
    let clock: Vec<&str> = fields[2].split(' ').nth(1).unwrap().split([':', '.']).collect();
    let part = |index: usize| clock.get(index).map_or(0, |text| text.parse::<i64>().unwrap());
    let (whole, fraction) = fields[4].split_once('.').unwrap_or((fields[4], ""));
    Trade {
        code: fields[0].to_owned(),
        millis: ((part(0) * 60 + part(1)) * 60 + part(2)) * 1_000 + part(3),
        shares: fields[3].parse().unwrap(),
        price: format!("{whole}{fraction:0<4}").parse().unwrap(),
    }
}

/// For every window of five minutes at every minute and every code: count, shares, and value in hundredths of a cent.
fn expected_windows() -> BTreeMap<(String, String), (i64, i64, i128)> {
    const MINUTE: i64 = 60_000;
    let mut windows = BTreeMap::new();
    for trade in trades() {
        let first = trade.millis / MINUTE + 1;
        for end in first..first + 5 {
            let label = format!("2013-10-07T{:02}:{:02}:00", end / 60, end % 60);
            let sums = windows.entry((label, trade.code.clone())).or_insert((0, 0, 0));
            sums.0 += 1;
            sums.1 += trade.shares;
            sums.2 += trade.price * i128::from(trade.shares);
        }
    }
    windows
}

fn stream(price: &str, connector: &str) -> String {
    format!(
        "CREATE STREAM trades (szcode VARCHAR, venue VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price {price},
           WATERMARK FOR eventTime AS eventTime) WITH ({connector});"
    )
}

const WINDOWS: &str = "SELECT window_end, szcode, COUNT(*) AS n, SUM(Turnover) AS shares, SUM(Price*Turnover) AS value
    FROM trades [Range 5 minutes, Slide 1 minute] GROUP BY window_end, szcode";

fn check_windows(csv: &str, what: &str) {
    let expected = expected_windows();
    assert!(expected.len() > 100, "the slice has {} windows", expected.len());
    let found = rows(csv);
    assert_eq!(found.len(), expected.len(), "{what}");
    for row in found {
        let fields: Vec<&str> = row.split(',').collect();
        let (n, shares, value) = expected[&(fields[0].to_owned(), fields[1].to_owned())];
        assert_eq!((fields[2], fields[3]), (n.to_string().as_str(), shares.to_string().as_str()), "{what}: {row}");
        let (whole, fraction) = (value / 10_000, value % 10_000);
        if fields[4] == format!("{whole}.{fraction:04}") {
            continue;
        }
        assert!(what.contains("DOUBLE"), "{what}: {row} is not {whole}.{fraction:04}");
        let (found, exact) = (fields[4].parse::<f64>().unwrap(), value as f64 / 10_000.0);
        assert!((found - exact).abs() <= 1e-12 * exact.abs(), "{what}: {row} is not {exact}");
    }
}

#[test]
fn real_trades_from_a_file_give_the_sums_of_every_window_and_code() {
    for price in ["DECIMAL(18,4)", "DOUBLE"] {
        for interval in INTERVALS {
            let sql = stream(price, &format!("connector = 'files', path = '{SLICE}'")) + WINDOWS;
            let csv = stdout(&["run", "-e", &sql, "--format", "csv", "--batch-interval", interval]);
            check_windows(&csv, &format!("{price} at {interval}"));
        }
    }
}

#[test]
fn real_trades_line_by_line_over_a_socket_give_the_same() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let sender = std::thread::spawn(move || {
        let (mut client, _) = listener.accept().unwrap();
        client.set_nodelay(true).unwrap();
        let text = std::fs::read_to_string(root().join(SLICE)).unwrap();
        for line in text.lines().skip(1) {
            client.write_all(format!("{line}\n").as_bytes()).unwrap();
        }
    });
    let connector = format!("connector = 'socket', address = '{address}', reconnect = 'false'");
    let sql = stream("DECIMAL(18,4)", &connector) + WINDOWS;
    let csv = stdout(&["run", "-e", &sql, "--format", "csv", "--batch-interval", "1ms"]);
    sender.join().unwrap();
    check_windows(&csv, "socket");
}

#[test]
fn both_stock_queries_run_over_the_generators_sockets() {
    for (query, kinds) in [("groupby", ["transaction"].as_slice()), ("join", ["position", "stock"].as_slice())] {
        let mut generators = Vec::new();
        let mut schema = std::fs::read_to_string(root().join("queries/stock/schema.sql")).unwrap();
        for kind in kinds {
            let (generator, address) = start_generator(kind);
            let port = [("transaction", 9999), ("stock", 9998), ("position", 9997)]
                .iter()
                .find(|(name, _)| name == kind)
                .map(|(_, port)| format!("address = '127.0.0.1:{port}'"));
            let bounded = format!("address = '{address}', reconnect = 'false'");
            schema = schema.replace(&port.unwrap(), &bounded);
            generators.push(generator);
        }
        let text = format!("queries/stock/{query}.sql");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("schema.sql");
        std::fs::write(&path, schema).unwrap();
        let bound = ["-p", "n=5 minutes", "-p", "s=1 minute", "--format", "csv"];
        let csv = stdout(&[&["run", path.to_str().unwrap(), &text], bound.as_slice()].concat());
        // Every row of the generator lies in five windows, and all of them close when it ends.
        assert!(csv.lines().count() > 100, "{query}: {csv}");
        for mut generator in generators {
            generator.wait().unwrap();
        }
    }
}

/// A generator that serves one client 5,000 rows; its address is on its first line.
fn start_generator(kind: &str) -> (std::process::Child, String) {
    let mut generator = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["generate", kind, "--listen", "127.0.0.1:0", "--rows", "5000"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(generator.stderr.take().unwrap()).read_line(&mut line).unwrap();
    let address = line.split_whitespace().find(|word| word.starts_with("127.0.0.1:")).unwrap();
    (generator, address.trim_end_matches(';').to_owned())
}

#[test]
fn what_no_result_could_use_is_noted_and_can_be_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.csv");
    let text = "k,ts,i\na,2024-01-01T00:00:01,5\nb,oops,6\nc,2024-01-01T00:00:12\nd,2024-01-01T00:00:12,8\n\
                e,2024-01-01T00:00:01,9\n";
    std::fs::write(&path, text).unwrap();
    let create = |bad_data: &str| {
        format!(
            "CREATE STREAM t (k VARCHAR, ts TIMESTAMP(3), i BIGINT, WATERMARK FOR ts AS ts)
             WITH (connector = 'files', path = '{}', bad_data = '{bad_data}');
             SELECT window_end, SUM(i) AS s FROM t [Range 10 s, Slide 10 s] GROUP BY window_end;",
            path.display()
        )
    };
    let sql = create("dead_letter") + "SELECT reason, raw FROM t$dead; SELECT query, k, i FROM t$late";
    let output = millstream(&["run", "-e", &sql, "--format", "csv"]);
    let expected = "window_end,s\n2024-01-01T00:00:10,5\n2024-01-01T00:00:20,8\n\
                    reason,raw\n\"expected 3 fields, found 2\",\"c,2024-01-01T00:00:12\"\n\
                    \"event time \"\"oops\"\" is not a timestamp\",\"b,oops,6\"\n\
                    query,k,i\nquery 1,e,9\n";
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    let notes = "note: 2 rows of t could not be used; see t$dead\n\
                 note: 1 row of t came too late for every window; see t$late\n";
    assert_eq!(String::from_utf8_lossy(&output.stderr), notes);

    let failed = millstream(&["run", "-e", &create("fail"), "--format", "csv"]);
    assert_eq!(failed.status.code(), Some(1));
    let error = String::from_utf8_lossy(&failed.stderr).into_owned();
    for part in ["t.csv line 3", "column \"ts\"", "event time \"oops\" is not a timestamp"] {
        assert!(error.contains(part), "{error}");
    }
}

#[cfg(unix)]
#[test]
fn a_reader_that_leaves_ends_the_query_quietly() {
    let sql = "CREATE STREAM t (szcode VARCHAR, eventTime TIMESTAMP(3), lastPrice DOUBLE, WATERMARK FOR eventTime)
               WITH (connector = 'generate', kind = 'stock'); SELECT szcode FROM t";
    let mut running = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["run", "-e", sql, "--format", "csv"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = String::new();
    BufReader::new(running.stdout.take().unwrap()).read_line(&mut first).unwrap();
    assert_eq!(first, "szcode\n");
    let output = running.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}

#[test]
fn exit_codes_and_places_tell_what_went_wrong() {
    assert_eq!(millstream(&["run", "-e", "SELECT 1"]).status.code(), Some(0));
    assert_eq!(millstream(&["run"]).status.code(), Some(2));
    assert_eq!(millstream(&["run", "--no-such-flag"]).status.code(), Some(2));
    let refused = millstream(&["run", "-e", "SELECT 1;\nSELECT * FROM nowhere"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("line 2, column 15"));
    let unknown = millstream(&["run", "-e", "CREATE STREAM t (a INT) WITH (connector = 'files', pth = 'x')"]);
    let error = String::from_utf8_lossy(&unknown.stderr).into_owned();
    assert_eq!(unknown.status.code(), Some(1));
    assert!(error.contains("unknown option \"pth\"") && error.contains("did you mean \"path\""), "{error}");
    assert!(error.contains("line 1, column 52"), "{error}");
}

#[cfg(unix)]
#[test]
fn an_interrupt_ends_an_endless_query_after_its_epoch() {
    let sql = "CREATE STREAM t (szcode VARCHAR, eventTime TIMESTAMP(3), lastPrice DOUBLE, WATERMARK FOR eventTime)
               WITH (connector = 'generate', kind = 'stock', rate = 10000, event_rate = 10000);
               SELECT window_end, COUNT(*) FROM t [Range 100 ms, Slide 100 ms] GROUP BY window_end";
    let mut running = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .args(["run", "-e", sql, "--format", "csv"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(running.stdout.take().unwrap()).lines();
    // The header and a first window: the query runs.
    assert!(lines.by_ref().take(2).all(|line| line.is_ok()));
    Command::new("kill").args(["-INT", &running.id().to_string()]).status().unwrap();
    assert!(lines.all(|line| line.is_ok()));
    assert_eq!(running.wait().unwrap().code(), Some(130));
}

#[test]
fn the_demo_is_plain_when_piped_and_ends_with_a_summary() {
    let text = stdout(&["demo", "--seconds", "2", "--rate", "5000"]);
    assert!(!text.contains('\x1b'), "{text}");
    assert!(text.contains("rows/s") && text.contains("latency"), "{text}");
}
