//! Rows that cannot be read: each kind of fault under each value of `bad_data`, nothing lost without a count.

use super::process::{Folder, run_sql, send_lines, serve};

/// A fault in line 3: the row, the column that is named, what is said and the value that is shown.
#[derive(Debug)]
struct Fault {
    row: Vec<u8>,
    column: Option<&'static str>,
    reason: &'static str,
    value: &'static str,
}

fn faults() -> Vec<Fault> {
    let fault = |row: &[u8], column, reason, value| Fault { row: row.to_vec(), column, reason, value };
    vec![
        fault(b"b,2024-01-01T00:00:02", None, "expected 3 fields, found 2", "b,2024-01-01T00:00:02"),
        fault(b"b,2024-01-01T00:00:02,2,more", None, "expected 3 fields, found 4", "2,more"),
        fault(b"b,2024-01-01T00:00:02,two", Some("i"), "\"two\" is not a BIGINT", "two"),
        fault(b"b,2024-01-01T00:00:02,2.5", Some("i"), "\"2.5\" is not a BIGINT", "2.5"),
        fault(b"b,2024-01-01T00:00:02,99999999999999999999", Some("i"), "is not a BIGINT", "99999999999999999999"),
        fault(b"b\xff,2024-01-01T00:00:02,2", None, "invalid UTF-8", "b\u{fffd},2024"),
        fault(b"b,,2", Some("ts"), "event time is null", "b,,2"),
        fault(b"b,yesterday,2", Some("ts"), "event time \"yesterday\" is not a timestamp", "yesterday"),
        fault(b"b,2024-02-30T00:00:02,2", Some("ts"), "is not a timestamp", "2024-02-30T00:00:02"),
        fault(&[b'z'; 1_100_000], None, "line longer than 1 MiB", "zzzz"),
    ]
}

fn bytes(fault: &Fault) -> Vec<u8> {
    [b"k,ts,i\na,2024-01-01T00:00:01,1\n", fault.row.as_slice(), b"\nc,2024-01-01T00:00:03,3\n"].concat()
}

fn sql(connector: &str, bad_data: &str) -> String {
    format!(
        "CREATE STREAM t (k VARCHAR, ts TIMESTAMP(3), i BIGINT, WATERMARK FOR ts AS ts)
         WITH ({connector}, bad_data = '{bad_data}');
         SELECT k, i FROM t; SELECT COUNT(*) AS dead FROM t$dead; SELECT place, \"column\", reason FROM t$dead"
    )
}

const GOOD: &str = "k,i\na,1\nc,3\n";

#[test]
fn fail_ends_the_run_and_names_file_line_column_and_value() {
    for fault in faults() {
        let folder = Folder::new();
        let path = folder.write("bad.csv", bytes(&fault));
        let failed = run_sql(&sql(&format!("connector = 'files', path = '{path}'"), "fail"));
        let place = match fault.column {
            Some(column) => format!("{path} line 3, column \"{column}\": "),
            None => format!("{path} line 3: "),
        };
        failed.check_error(1, &["stream \"t\"", &place, fault.reason, fault.value, "hint: "]);
        assert!(!failed.stdout.contains("dead"), "{}", failed.stdout);
    }
}

#[test]
fn skip_goes_on_with_the_other_rows_and_counts() {
    for fault in faults() {
        let folder = Folder::new();
        let path = folder.write("bad.csv", bytes(&fault));
        let skipped = run_sql(&sql(&format!("connector = 'files', path = '{path}'"), "skip"));
        assert_eq!(skipped.stdout, format!("{GOOD}dead\n0\nplace,column,reason\n"), "{}", fault.reason);
        // Nothing says to look into t$dead, where a row that is skipped is not.
        assert_eq!((skipped.code, skipped.stderr.as_str()), (Some(0), "note: 1 row of t could not be used\n"));
    }
}

#[test]
fn dead_letter_keeps_place_column_and_reason() {
    for fault in faults() {
        let folder = Folder::new();
        let path = folder.write("bad.csv", bytes(&fault));
        let kept = run_sql(&sql(&format!("connector = 'files', path = '{path}'"), "dead_letter"));
        let start = format!("{GOOD}dead\n1\nplace,column,reason\n{path} line 3,{},", fault.column.unwrap_or_default());
        assert!(kept.stdout.starts_with(&start), "{}: {}", fault.reason, kept.stdout);
        assert!(kept.stdout.replace("\"\"", "\"").contains(fault.reason), "{}", kept.stdout);
        kept.check_error(0, &["note: 1 row of t could not be used; see t$dead"]);
    }
}

#[test]
fn dead_letter_is_what_happens_unless_told_otherwise() {
    let folder = Folder::new();
    let all: Vec<u8> = faults().iter().flat_map(|fault| [&fault.row, b"\n".as_slice()].concat()).collect();
    let path = folder.write("bad.csv", [b"k,ts,i\na,2024-01-01T00:00:01,1\n", all.as_slice()].concat());
    let create = format!(
        "CREATE STREAM t (k VARCHAR, ts TIMESTAMP(3), i BIGINT, WATERMARK FOR ts AS ts)
         WITH (connector = 'files', path = '{path}');"
    );
    let count = faults().len();
    let kept =
        run_sql(&(create + "SELECT k FROM t; SELECT COUNT(*) AS n, COUNT(DISTINCT \"offset\") AS o FROM t$dead"));
    assert_eq!(kept.stdout, format!("k\na\nn,o\n{count},{count}\n"));
    kept.check_error(0, &[&format!("note: {count} rows of t could not be used; see t$dead")]);
}

#[test]
fn a_socket_names_its_address_and_line() {
    for (bad_data, code) in [("fail", 1), ("skip", 0), ("dead_letter", 0)] {
        let lines = "a,2024-01-01T00:00:01,1\nb,2024-01-01T00:00:02,two\nc,2024-01-01T00:00:03,3";
        let (address, sending) = serve(move |client| send_lines(client, lines));
        let connector = format!("connector = 'socket', address = '{address}', reconnect = 'false'");
        let finished = run_sql(&sql(&connector, bad_data));
        sending.join().unwrap();
        match bad_data {
            "fail" => {
                finished.check_error(code, &[&format!("{address} line 2, column \"i\": \"two\" is not a BIGINT")])
            }
            _ => finished.check_error(code, &["note: 1 row of t could not be used"]),
        }
        assert_eq!(finished.stdout.starts_with(GOOD), code == 0, "{}", finished.stdout);
        assert_eq!(finished.stdout.contains(&format!("{address} line 2,i,")), bad_data == "dead_letter");
    }
}

#[test]
fn json_lines_are_judged_by_the_same_rules() {
    let lines = [
        (r#"{"k":"b","ts":"2024-01-01T00:00:02","i":"two"}"#, "\"two\" is not a BIGINT"),
        (r#"{"k":"b","ts":"2024-01-01T00:00:02","i":2"#, "not a JSON object"),
        ("b,2024-01-01T00:00:02,2", "not a JSON object"),
        (r#"{"k":"b","ts":null,"i":2}"#, "event time is null"),
        (r#"{"k":"b","i":2}"#, "event time is null"),
        (r#"{"k":"b","ts":"soon","i":2}"#, "event time \"soon\" is not a timestamp"),
    ];
    for (line, reason) in lines {
        let folder = Folder::new();
        let good = |k: &str, i: u8| format!("{{\"k\":\"{k}\",\"ts\":\"2024-01-01T00:00:0{i}\",\"i\":{i}}}\n");
        let path = folder.write("bad.json", [good("a", 1), format!("{line}\n"), good("c", 3)].concat());
        let connector = format!("connector = 'files', path = '{path}'");
        run_sql(&sql(&connector, "fail")).check_error(1, &["bad.json line 2", reason]);
        let kept = run_sql(&sql(&connector, "dead_letter"));
        assert!(kept.stdout.starts_with(&format!("{GOOD}dead\n1\n")), "{line}: {}", kept.stdout);
        assert!(kept.stdout.replace("\"\"", "\"").contains(reason), "{line}: {}", kept.stdout);
    }
}
