//! `LATE DATA TO sink`: rows that are late for every window of a query, in a sink of their own.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::crashes::check_steps_in_turn;
use super::databases::Sqlite;
use super::folders::rows_of_files;
use super::kept::{Destination, Place, Scenario};
use super::process::{Folder, rows, run_sql};

const LATE_COLUMNS: &str = "szcode VARCHAR, eventTime TIMESTAMP(3), v BIGINT";

/// Results in a database and late rows in files, so that no transaction has both.
struct LateRows;

struct LatePlace(Box<dyn Place>);

impl Destination for LateRows {
    fn place(&self) -> Box<dyn Place> {
        Box::new(LatePlace(Sqlite.place()))
    }
}

impl Place for LatePlace {
    fn folder(&self) -> &Folder {
        self.0.folder()
    }

    fn sink(&self) -> String {
        let path = self.folder().path("late");
        format!("{} CREATE SINK late WITH (connector = 'files', path = '{path}');", self.0.sink())
    }

    fn clauses(&self) -> &'static str {
        "LATE DATA TO late"
    }

    fn rows(&self, scenario: &Scenario) -> Vec<String> {
        assert_eq!(rows_of_files(&self.folder().path("late"), "csv", LATE_COLUMNS), scenario.late_rows());
        self.0.rows(scenario)
    }
}

#[test]
fn late_rows_and_results_survive_a_kill_at_each_step_in_turn() {
    let scenario = Scenario::with_late_rows(3, 160);
    assert!(scenario.late_rows().len() > 5, "{:?}", scenario.late_rows());
    check_steps_in_turn(&scenario, &LateRows);
}

/// Two files of a stream; the row at 8 in the second is late for the window of its ten seconds.
fn lines(folder: &Folder) -> String {
    folder.write("t/1.csv", "k,ts,v\na,2024-01-01T00:00:03,1\na,2024-01-01T00:00:12,2\n");
    folder.write("t/2.csv", "k,ts,v\nb,2024-01-01T00:00:08,4\nb,2024-01-01T00:00:13,8\n");
    format!(
        "CREATE STREAM t (k VARCHAR, ts TIMESTAMP(3), v BIGINT, WATERMARK FOR ts AS ts)
         WITH (connector = 'files', path = '{}');
         CREATE VIEW dear AS SELECT * FROM t [Range 10 s, Slide 10 s] WHERE v > 1;
         CREATE SINK nothing WITH (connector = 'blackhole');
         CREATE SINK late WITH (connector = 'console', format = 'csv');",
        folder.path("t")
    )
}

fn folder() -> Folder {
    let folder = Folder::new();
    std::fs::create_dir(folder.path("t")).unwrap();
    folder
}

#[test]
fn a_late_row_goes_to_the_sink_whole_and_to_the_side_table() {
    let folder = folder();
    for query in [
        "SELECT SUM(v) AS v FROM t [Range 10 s, Slide 10 s] LATE DATA TO late",
        "SELECT SUM(v) AS v FROM t [Range 10 s, Slide 10 s] EMIT FINAL LATE DATA TO late WITH EMPTY WINDOWS",
        "SELECT k FROM dear LATE DATA TO late",
    ] {
        let sql =
            format!("{} INSERT INTO nothing {query}; DROP SINK nothing; SELECT v AS aside FROM t$late", lines(&folder));
        let ended = run_sql(&sql);
        ended.check_error(0, &["note: 1 row of t came too late for every window; see t$late"]);
        assert_eq!(ended.stdout, "k,ts,v\nb,2024-01-01T00:00:08,4\naside\n4\n", "{query}");
    }
    // A SELECT has its rows shown, and its late rows in the sink.
    let query = "SELECT SUM(v) AS v FROM t [Range 10 s, Slide 10 s] LATE DATA TO late";
    let shown = run_sql(&format!("{} {query}", lines(&folder))).stdout;
    assert_eq!(rows(&shown), ["1", "10", "b,2024-01-01T00:00:08,4", "k,ts,v"], "{shown}");
    // A row that is let in late is not lost; the sink has nothing but its header.
    let query = "SELECT SUM(v) AS v FROM t [Range 10 s, Slide 10 s] ALLOW LATENESS 10 s LATE DATA TO late";
    assert_eq!(run_sql(&format!("{} INSERT INTO nothing {query}", lines(&folder))).silent(), "k,ts,v\n");
}

#[test]
fn a_sink_that_is_not_there_or_does_not_take_the_columns_is_refused() {
    let folder = folder();
    let refused = |sinks: &str, query: &str| run_sql(&format!("{} {sinks} {query}", lines(&folder)));
    let query = "SELECT SUM(v) AS v FROM t [Range 10 s, Slide 10 s] LATE DATA TO lat";
    let unknown = refused("", query);
    unknown.check_error(1, &["there is no sink \"lat\"", "did you mean late?"]);
    let keyed = "CREATE SINK lat WITH (connector = 'sqlite', path = 'x.db', mode = 'upsert', key = 'price');";
    refused(keyed, query).check_error(1, &["the key column \"price\" is no column of the result"]);
}

#[test]
fn a_test_refuses_late_rows_in_a_sink() {
    let folder = folder();
    let path = folder.write(
        "late.sql",
        format!(
            "{} TEST t BEGIN ASSERT SELECT SUM(v) FROM t [Range 10 s, Slide 10 s] LATE DATA TO late RETURNS (1); END;",
            lines(&folder)
        ),
    );
    let ended = super::process::run(&["test", &path]);
    assert!(
        ended.stdout.contains("a test writes to no sink") || ended.stderr.contains("a test writes to no sink"),
        "{ended:?}"
    );
}
