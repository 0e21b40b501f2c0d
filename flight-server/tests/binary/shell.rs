//! `millstream sql` where nobody types: what comes through a pipe or the command line.

use std::io::Write;
use std::process::{Command, Output, Stdio};

use super::process::{Folder, root, run};

/// Pipes text into the shell.
fn pipe(text: &str, arguments: &[&str]) -> Output {
    let child = Command::new(env!("CARGO_BIN_EXE_millstream"))
        .arg("sql")
        .args(arguments)
        .current_dir(root())
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let ended = child.and_then(|mut child| {
        child.stdin.take().map_or(Ok(()), |mut stdin| stdin.write_all(text.as_bytes()))?;
        child.wait_with_output()
    });
    ended.unwrap_or_else(|error| unreachable!("{error}"))
}

/// Pipes text into a shell that has nothing to complain of; its rows as CSV.
#[track_caller]
fn answer(text: &str) -> String {
    let ended = pipe(text, &["--format", "csv"]);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!((ended.status.code(), said.as_ref()), (Some(0), ""));
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

const STREAM: &str = "CREATE STREAM t (ts TIMESTAMP(3), k VARCHAR, v BIGINT, WATERMARK FOR ts)
                      WITH (connector = 'files', path = 'docs/examples/t.csv');\n";

#[test]
fn statements_may_have_several_lines_and_a_line_several_statements() {
    assert_eq!(answer("SELECT 1 AS one; SELECT ';' AS\n  two -- not ; here\n;"), "one\n1\ntwo\n;\n");
    assert_eq!(answer("SELECT 1 AS one"), "one\n1\n", "the last one needs no semicolon");
    assert_eq!(answer(""), "");
}

#[test]
fn a_stream_is_answered_and_described() {
    let rows =
        answer(&format!("{STREAM}SELECT k, SUM(v) AS v FROM t [Range 30, Slide 30] GROUP BY k ORDER BY k;\n\\d t\n"));
    assert!(rows.starts_with("k,v\nA,136\nB,10\ncolumn,type,nullable,note\nts,TIMESTAMP(3)"), "{rows}");
    let explained = answer(&format!("{STREAM}EXPLAIN SELECT v FROM t WHERE v > 1;"));
    assert!(explained.contains("Filter: v"), "{explained}");
    let analyzed = answer(&format!("{STREAM}EXPLAIN ANALYZE SELECT v FROM t WHERE v > 1;"));
    assert!(analyzed.contains("rows_in=7, rows_out=6"), "{analyzed}");
}

#[test]
fn commands_are_taken_between_statements() {
    let folder = Folder::new();
    let file = folder.write("one.sql", "SELECT 1 AS one;");
    assert_eq!(
        answer(&format!("\\format json\n\\i {file}\n\\format csv\nSELECT 2 AS two;\n\\q\nSELECT 3;")),
        "{\"one\":1}\ntwo\n2\n"
    );
    assert!(answer("\\?").contains("\\watch N SQL"));
}

#[test]
fn the_first_mistake_ends_it_with_its_place() {
    let ended = pipe("SELECT 1 AS one;\nSELECT nothing;\nSELECT 2;\n", &["--format", "csv"]);
    assert_eq!((ended.status.code(), ended.stdout.as_slice()), (Some(1), b"one\n1\n".as_slice()));
    let said = String::from_utf8_lossy(&ended.stderr);
    assert!(said.contains("line 1, column 8") && said.contains("nothing"), "{said}");
    let ended = pipe("\\nothing\n", &[]);
    assert_eq!(ended.status.code(), Some(2));
}

#[test]
fn what_runs_on_comes_to_its_end() {
    let sink = "CREATE SINK out WITH (connector = 'console', format = 'csv');\n";
    let rows = answer(&format!("{STREAM}{sink}INSERT INTO out SELECT COUNT(*) AS n FROM t [Range 30, Slide 30];\n"));
    assert_eq!(rows, "n\n7\n");
}

#[test]
fn sql_of_the_command_line_is_run_and_no_other() {
    assert_eq!(run(&["sql", "-e", "SELECT 1 AS one", "--format", "csv"]).silent(), "one\n1\n");
    let window = "SELECT COUNT(*) AS n FROM t [Range n, Slide n]";
    let arguments = ["sql", "docs/examples/schema.sql", "-e", window, "-p", "n=30", "--format", "csv"];
    assert_eq!(run(&arguments).silent(), "n\n7\n");
    run(&["sql", "-e", "SELEC 1"]).check_error(1, &["starts no statement", "line 1, column 1"]);
}
