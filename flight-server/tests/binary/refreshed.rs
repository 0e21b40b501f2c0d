//! Static tables that are read again while queries join them.

use std::io::Write;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::crashes::check_steps_in_turn;
use super::kept::{Scenario, Sqlite};
use super::process::{Folder, Running, rows, run_sql, serve};

/// Puts a file in the place of another, as whoever writes a table that is read again should.
fn replace(folder: &Folder, name: &str, text: &str) -> String {
    let path = folder.path(name);
    assert!(std::fs::rename(folder.write(&format!("{name}.tmp"), text), &path).is_ok());
    path
}

#[test]
fn who_comes_off_a_blacklist_is_let_through_and_who_comes_on_it_is_not() {
    let folder = Folder::new();
    let path = replace(&folder, "blacklist.csv", "name\nb\n");
    let (end, ended) = channel::<()>();
    let (address, sender) = serve(move |client| {
        for number in 0.. {
            client.write_all(format!("a,{number}\nb,{number}\n").as_bytes()).unwrap_or_default();
            if ended.recv_timeout(Duration::from_millis(1)).is_ok() {
                return;
            }
        }
    });
    let sql = format!(
        "SET batch_interval = '1 ms';
         CREATE STREAM s (name VARCHAR, n BIGINT) WITH (connector = 'socket', address = '{address}', format = 'csv', reconnect = 'false');
         CREATE TABLE blacklist (name VARCHAR) WITH (connector = 'files', path = '{path}', refresh_interval = '1 ms');
         SELECT name, n FROM s WHERE name NOT IN (SELECT name FROM blacklist)"
    );
    let mut running = Running::start(&["run", "-e", &sql, "--format", "csv"]);
    running.wait_for_line("a,");
    // A table that cannot be read stays as it was.
    replace(&folder, "blacklist.csv", "other\n\"");
    running.wait_for_line("a,");
    replace(&folder, "blacklist.csv", "name\na\n");
    running.wait_for_line("b,");
    replace(&folder, "blacklist.csv", "name\n");
    running.wait_for_line("a,");
    assert!(end.send(()).is_ok());
    assert!(sender.join().is_ok());
    let finished = running.finish();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let names: Vec<_> = finished.stdout.lines().skip(1).filter_map(|line| line.split(',').next()).collect();
    let changes: Vec<_> = names.chunk_by(|a, b| a == b).filter_map(|run| run.first().copied()).collect();
    assert!(changes.starts_with(&["a", "b", "a"]), "{changes:?}");
}

#[test]
fn a_query_without_streams_reads_the_table_as_it_is() {
    let folder = Folder::new();
    let path = replace(&folder, "grades.csv", "k,grade\nx,1\ny,2\n");
    let sql = format!(
        "CREATE TABLE grades (k VARCHAR, grade BIGINT)
         WITH (connector = 'files', path = '{path}', refresh_interval = '1 hour');
         SELECT SUM(grade) AS grades FROM grades"
    );
    assert_eq!(run_sql(&sql).silent(), "grades\n3\n");
}

#[test]
fn only_tables_are_read_again() {
    let sql = "CREATE STREAM t (a INT) WITH (connector = 'files', path = 'x.csv', refresh_interval = '1 s')";
    run_sql(sql).check_error(1, &["a stream has no refresh_interval", "line 1, column 68", "CREATE TABLE"]);
    let sql = "CREATE TABLE t (a INT) WITH (connector = 'files', path = 'x.csv', refresh_interval = '0 s')";
    run_sql(sql).check_error(1, &["refresh_interval is '0 s'", "line 1, column 67", "refresh_interval = '10 s'"]);
    let sql = "CREATE TABLE t (a INT) WITH (connector = 'files', path = 'x.csv', refresh_interval = '1 s')";
    run_sql(sql).check_error(1, &["x.csv"]);
}

#[test]
fn a_join_with_a_table_that_is_read_again_survives_a_kill_at_each_step_in_turn() {
    check_steps_in_turn(&Scenario::graded(40), &Sqlite);
}

/// The epoch that a crash interrupts joins what it has joined before, though the table is another by then.
#[test]
fn an_epoch_that_is_run_again_sees_the_version_it_has_seen() {
    let input = Folder::new();
    input.write("t.csv", "k,v\nx,1\ny,2\nx,3\n");
    let (mut with_old, mut with_new) = (0, 0);
    for step in 1..200 {
        let folder = Folder::new();
        let path = replace(&folder, "grades.csv", "k,grade\nx,old\ny,old\n");
        let sql = format!(
            "CREATE STREAM t (k VARCHAR, v BIGINT) WITH (connector = 'files', path = '{}');
             CREATE TABLE grades (k VARCHAR, grade VARCHAR)
             WITH (connector = 'files', path = '{path}', refresh_interval = '1 hour');
             CREATE SINK r WITH (connector = 'files', path = '{}', format = 'csv');
             INSERT INTO r SELECT grade, v FROM t JOIN grades ON t.k = grades.k",
            input.path("t.csv"),
            folder.path("out")
        );
        let state = folder.path("state");
        let arguments = ["run", "-e", &sql, "--state-dir", &state];
        let first = Running::start_with(&arguments, &[("MILLSTREAM_CRASH_AT", &step.to_string())]).finish();
        if first.code.is_some() {
            first.check();
            break;
        }
        first.check_crashed();
        replace(&folder, "grades.csv", "k,grade\nx,new\ny,new\n");
        // How often the table is read says nothing about what it is.
        let again = sql.replace("'1 hour'", "'2 hours'");
        Running::start(&["run", "-e", &again, "--state-dir", &state]).finish().check();
        let read = format!(
            "CREATE TABLE r (grade VARCHAR, v BIGINT) WITH (connector = 'files', path = '{}'); SELECT * FROM r",
            folder.path("out")
        );
        let written = run_sql(&read).silent();
        match rows(&written).as_slice() {
            ["old,1", "old,2", "old,3"] => with_old += 1,
            ["new,1", "new,2", "new,3"] => with_new += 1,
            other => unreachable!("killed at step {step}: {other:?}"),
        }
    }
    assert!(with_old > 3 && with_new > 3, "{with_old} with the old table, {with_new} with the new one");
}
