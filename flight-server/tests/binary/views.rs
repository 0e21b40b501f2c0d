//! Materialized views: what they keep, what reads them, and what a crash does to them.

use std::sync::mpsc::channel;

use super::crashes::check_steps_in_turn;
use super::kept::{Destination, Place, Scenario};
use super::process::{Folder, Running, run, run_sql, send_lines, serve};

const INPUT: &str = "k,v,ts\na,1,2024-01-02T09:00:01\nb,2,2024-01-02T09:00:02\na,4,2024-01-02T09:00:11\n\
                     b,8,2024-01-02T09:00:12\na,16,2024-01-02T09:00:25\n";

fn streams(folder: &Folder) -> String {
    folder.write("t/1.csv", INPUT);
    format!(
        "CREATE STREAM t (k VARCHAR, v BIGINT, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
         WITH (connector = 'files', path = '{}');",
        folder.path("t")
    )
}

fn folder() -> Folder {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("t")).unwrap_or_else(|error| unreachable!("{error}"));
    folder
}

const SUMS: &str = "CREATE MATERIALIZED VIEW sums AS SELECT window_end AS at, k, SUM(v) AS v
                    FROM t [Range 10 s, Slide 10 s] GROUP BY window_end, k";

#[test]
fn views_are_read_with_tables_and_other_views() {
    let folder = folder();
    let sql = format!(
        "{} {SUMS};
         CREATE MATERIALIZED VIEW totals AS SELECT k, COUNT(*) AS n, SUM(v) AS v FROM t GROUP BY k;
         CREATE VIEW large AS SELECT * FROM sums WHERE v > 1;
         SELECT large.k, large.v, totals.n, again.v AS first FROM large JOIN totals ON large.k = totals.k
         JOIN sums AS again ON again.k = large.k AND again.at = TIMESTAMP '2024-01-02T09:00:10'",
        streams(&folder)
    );
    let rows = run_sql(&sql).silent();
    assert_eq!(super::process::rows(&rows), ["a,16,3,1", "a,4,3,1", "b,2,2,2", "b,8,2,2"]);
}

#[test]
fn a_view_with_a_window_is_its_query() {
    let folder = folder();
    let select = "SELECT window_end, SUM(v) AS v FROM sums [Range 20 s, Slide 20 s] GROUP BY window_end";
    let materialized = run_sql(&format!("{} {SUMS}; {select}", streams(&folder))).silent();
    let view = SUMS.replace("MATERIALIZED ", "");
    assert_eq!(materialized, run_sql(&format!("{} {view}; {select}", streams(&folder))).silent());
    assert_eq!(super::process::rows(&materialized).len(), 2);
}

#[test]
fn only_the_last_instants_are_retained() {
    let folder = folder();
    for (retain, expected) in [("0 seconds", 1), ("10 s", 3), ("1 hour", 5)] {
        let sql = format!("{} {SUMS} RETAIN {retain}; SELECT * FROM sums", streams(&folder));
        assert_eq!(super::process::rows(&run_sql(&sql).silent()).len(), expected, "{retain}");
    }
}

#[test]
fn the_queries_of_a_script_are_shown() {
    let folder = folder();
    let sql = format!("{} {SUMS}; SHOW QUERIES", streams(&folder));
    let shown = run_sql(&sql).silent();
    assert!(shown.contains("sums,ended,"), "{shown}");
    let state = run_sql(&format!("{} {SUMS}; SHOW STATE", streams(&folder))).silent();
    assert!(state.contains("sums,t[range 10 seconds slide 10 seconds],5,5,0,0,0,"), "{state}");
    let watermarks = run_sql(&format!("{} {SUMS}; SHOW WATERMARKS", streams(&folder))).silent();
    assert!(watermarks.lines().nth(1).is_some_and(|row| row.starts_with("t,0,")), "{watermarks}");
}

#[test]
fn a_script_with_state_is_answered_each_time() {
    let folder = folder();
    let sql = format!("{} {SUMS}; SELECT SUM(v) AS v FROM sums", streams(&folder));
    for _ in 0..2 {
        let answered = run(&["run", "-e", &sql, "--format", "csv", "--state-dir", &folder.path("state")]);
        answered.check();
        assert_eq!(answered.stdout, "v\n31\n");
    }
}

#[test]
fn a_view_over_an_endless_stream_is_read_when_it_is_stopped() {
    let sql = "CREATE STREAM s (v BIGINT) WITH (connector = 'socket', address = '{}', format = 'csv');
               CREATE SINK out WITH (connector = 'console', format = 'csv');
               CREATE MATERIALIZED VIEW n AS SELECT COUNT(*) AS n FROM s;
               INSERT INTO out SELECT v + 40 AS v FROM s;
               SELECT COUNT(*) AS kept FROM n; SELECT 6 * 7 AS answer FROM n; SELECT 'afterwards' AS never";
    let (end, ended) = channel::<()>();
    let (address, sender) = serve(move |client| {
        send_lines(client, "1\n2\n");
        // The stream goes on until the process has ended.
        let _ = ended.recv();
    });
    let sql = sql.replace("{}", &address.to_string());
    let mut running = Running::start(&["run", "-e", &sql, "--format", "csv"]);
    running.wait_for_line("42");
    running.terminate();
    let finished = running.finish();
    drop(end);
    assert!(sender.join().is_ok());
    assert_eq!(finished.code, Some(130), "{finished:?}");
    let is_answered =
        |kept: usize| finished.stdout.ends_with(&format!("kept\n{kept}\nanswer\n{}", "42\n".repeat(kept)));
    assert!(is_answered(0) || is_answered(1), "{finished:?}");
}

/// Materialized views in state directories.
struct Views;

struct ViewPlace(Folder);

impl Destination for Views {
    fn place(&self) -> Box<dyn Place> {
        Box::new(ViewPlace(Folder::new()))
    }
}

impl Place for ViewPlace {
    fn folder(&self) -> &Folder {
        &self.0
    }

    fn sink(&self) -> String {
        String::new()
    }

    fn statements(&self, select: &str) -> String {
        format!("CREATE MATERIALIZED VIEW r AS {select} RETAIN 1 hour")
    }

    fn step_prefix(&self) -> String {
        "view.".to_owned()
    }

    fn rows(&self, scenario: &Scenario) -> Vec<String> {
        scenario.kept_rows(self)
    }
}

#[test]
fn a_view_survives_a_kill_at_each_step_in_turn() {
    check_steps_in_turn(&Scenario::group_by_in(3, 40), &Views);
}
