//! State directories as a user meets them: what `state` shows, what is refused, and what a run says when it goes on.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::process::{Finished, Folder, Running, rows, run, run_sql};

const STREAM: &str = "CREATE STREAM t (szcode VARCHAR, eventTime TIMESTAMP(3), v BIGINT,
    WATERMARK FOR eventTime AS eventTime) WITH (connector = 'files', path = '{in}'{more});";
const SUMS: &str = "SELECT szcode, SUM(v) AS s FROM t [Range 20 s, Slide 5 s] GROUP BY szcode";

/// One query with its input, its state and its results.
struct Case(Folder);

impl Case {
    fn new() -> Self {
        let case = Self::empty();
        case.write_input("1.csv", 0..60);
        case
    }

    /// A case without input.
    fn empty() -> Self {
        let case = Self(Folder::new());
        std::fs::create_dir(case.0.path("in")).unwrap();
        case
    }

    fn write_input(&self, name: &str, seconds: std::ops::Range<u32>) {
        let line = |second| format!("c{},2024-01-02T09:{:02}:{:02},{second}\n", second % 3, second / 60, second % 60);
        let text: String = seconds.map(line).collect();
        // Whole from the moment it is there.
        self.0.write(".new", format!("szcode,eventTime,v\n{text}"));
        std::fs::rename(self.0.path(".new"), self.0.path(&format!("in/{name}"))).unwrap();
    }

    /// Runs it with `--drop-state`.
    fn run_without_state(&self, more: &str, select: &str) -> Finished {
        let mut arguments = self.arguments(more, select);
        arguments.push("--drop-state".to_owned());
        run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn arguments(&self, more: &str, select: &str) -> Vec<String> {
        let stream = STREAM.replace("{in}", &self.0.path("in")).replace("{more}", more);
        let sink = format!("CREATE SINK r WITH (connector = 'files', path = '{}');", self.0.path("out"));
        let sql = format!("{stream} {sink} INSERT INTO r {select}");
        ["run", "-e", &sql, "--state-dir", &self.state()].map(str::to_owned).into()
    }

    fn state(&self) -> String {
        self.0.path("state")
    }

    fn start(&self, more: &str, select: &str) -> Running {
        let arguments = self.arguments(more, select);
        Running::start(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn run(&self, more: &str, select: &str) -> Finished {
        self.start(more, select).finish()
    }

    /// Runs it over files that are waited for until there are more results.
    fn run_until_results(&self) -> Running {
        let before = self.parts();
        let mut running = self.start(", watch_interval = '5 ms'", SUMS);
        while self.parts() == before {
            assert!(running.is_running(), "it ended");
            std::thread::yield_now();
        }
        running
    }

    /// The same, stopped gracefully then.
    fn run_and_stop(&self) {
        let running = self.run_until_results();
        running.terminate();
        assert_eq!(running.finish().code, Some(130));
    }

    /// How many files of results there are.
    fn parts(&self) -> usize {
        let names = std::fs::read_dir(self.0.path("out")).into_iter().flatten();
        names.filter(|entry| entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with("part-")).count()
    }

    fn results(&self) -> String {
        let table = format!(
            "CREATE TABLE r (szcode VARCHAR, s BIGINT) WITH (connector = 'files', path = '{}', format = 'csv');",
            self.0.path("out")
        );
        run_sql(&(table + "SELECT * FROM r")).silent()
    }
}

#[test]
fn a_stopped_query_goes_on_with_files_that_came_later() {
    let case = Case::new();
    case.run_and_stop();
    case.write_input("2.csv", 60..120);
    let finished = case.run("", SUMS);
    finished.check();
    assert!(finished.stderr.starts_with("r: goes on from epoch "), "{}", finished.stderr);
    let whole = Case::new();
    whole.write_input("2.csv", 60..120);
    whole.run("", SUMS).check();
    assert_eq!(rows(&case.results()), rows(&whole.results()));
}

#[test]
fn a_query_that_has_ended_says_so() {
    let case = Case::new();
    case.run("", SUMS).check();
    let before = case.results();
    case.write_input("2.csv", 60..120);
    let again = case.run("", SUMS);
    again.check();
    assert!(again.stderr.contains("r: has read its input to the end before"), "{}", again.stderr);
    assert_eq!(case.results(), before);
}

#[test]
fn a_changed_query_is_refused_with_what_changed() {
    let case = Case::new();
    case.run_and_stop();
    let changed = case.run("", &SUMS.replace("SUM", "MAX"));
    changed.check_error(1, &["query \"r\" has changed so that its state does not fit", "  - ", "  + ", "max(t.v)"]);
    case.run("", &SUMS.replace("20 s", "30 s")).check_error(1, &["has changed", "hint: run the earlier version"]);
}

#[test]
fn a_query_that_changed_before_its_first_checkpoint_is_refused_too() {
    let case = Case::new();
    // Its first checkpoint would come ten seconds later.
    case.run_until_results().kill();
    case.run("", &SUMS.replace("SUM", "MAX"))
        .check_error(1, &["has changed so that its state does not fit", "max(t.v)"]);
    case.run_without_state("", &SUMS.replace("SUM", "MAX")).check_error(1, &["has changed"]);
    case.run("", SUMS).check();
    let whole = Case::new();
    whole.run("", SUMS).check();
    assert_eq!(rows(&case.results()), rows(&whole.results()));
}

#[test]
fn a_changed_query_goes_on_without_its_state_if_it_is_told_to() {
    let case = Case::new();
    case.run_and_stop();
    let before = case.results();
    case.write_input("2.csv", 60..120);
    let largest = SUMS.replace("SUM", "MAX");
    case.run("", &largest).check_error(1, &["has changed", "--drop-state"]);
    let finished = case.run_without_state("", &largest);
    finished.check();
    assert!(finished.stderr.contains("windows that are open lack the rows"), "{}", finished.stderr);
    let fresh = Case::empty();
    fresh.write_input("2.csv", 60..120);
    fresh.run("", &largest).check();
    let (results, later) = (case.results(), fresh.results());
    let mut expected: Vec<_> = rows(&before).into_iter().chain(rows(&later)).collect();
    expected.sort_unstable();
    assert_eq!(rows(&results), expected);
}

#[test]
fn a_place_in_another_input_means_nothing() {
    let case = Case::new();
    case.run_and_stop();
    let refused = case.run_without_state(", timestamp_unit = 'ms'", &SUMS.replace("SUM", "MAX"));
    refused.check_error(1, &["stream \"t\" is not declared as it was"]);
}

#[test]
fn a_query_that_was_forgotten_inherits_nothing() {
    let case = Case::new();
    case.run_and_stop();
    let state = case.state();
    run(&["state", "forget", &state, "other"]).check_error(2, &["keeps no query \"other\"; it keeps r"]);
    assert_eq!(run(&["state", "forget", &state, "r"]).silent(), "forgot r\n");
    assert_eq!(run(&["state", "inspect", &state]).silent(), "no queries\n");
    // Its results are those of the query that was forgotten.
    case.run("", SUMS).check_error(1, &["holds the results of an earlier run"]);
    std::fs::remove_dir_all(case.0.path("out")).unwrap();
    let fresh = case.run("", SUMS);
    fresh.check();
    assert!(fresh.stderr.contains("r: begins"), "{}", fresh.stderr);
}

#[test]
fn the_state_of_a_stopped_query_is_a_table() {
    let case = Case::new();
    case.run_and_stop();
    let table = |columns: &str, query: &str| {
        let options = format!("connector = 'state', path = '{}', query = '{query}'", case.state());
        format!("CREATE TABLE panes ({columns}) WITH ({options}); SELECT * FROM panes ORDER BY 1, 2")
    };
    let found = run_sql(&table("pane_start TIMESTAMP(3), szcode VARCHAR, \"sum(t.v)[sum]\" BIGINT", "r")).silent();
    // The last three panes of five seconds are still open: 45 to 60.
    assert!(found.contains("2024-01-02T09:00:55,c1,113\n"), "{found}");
    assert_eq!(found.lines().filter(|line| line.contains("09:00:45")).count(), 3, "{found}");
    run_sql(&table("price DOUBLE", "r")).check_error(1, &["has no column \"price\"; it has: pane, pane_start"]);
    run_sql(&table("pane BIGINT", "x")).check_error(1, &["keeps no query \"x\"", "it keeps: r"]);
    // Without a declaration too, with every column.
    let (state, sql) = (case.state(), "SELECT pane_start, szcode, \"sum(t.v)[sum]\" FROM state('r') ORDER BY 1, 2");
    let read = |sql: &str| run(&["run", "-e", sql, "--format", "csv", "--state-dir", &state]);
    assert_eq!(rows(&read(sql).silent()), rows(&found));
    read("SELECT * FROM state('x')").check_error(1, &["keeps no query \"x\"", "it keeps: r"]);
    read("SELECT * FROM state('r', '7-7')").check_error(1, &["has no input \"7-7\"", "its inputs are '0-0'"]);
    run_sql("SELECT * FROM state('r')").check_error(1, &["there is no state of \"r\"", "--state-dir DIR"]);
}

#[test]
fn damage_is_named_and_an_older_checkpoint_takes_over() {
    let case = Case::new();
    case.run_and_stop();
    case.write_input("2.csv", 60..120);
    case.run_and_stop();
    let state = case.state();
    assert!(run(&["state", "verify", &state]).silent().starts_with("checked "));
    let shown = run(&["state", "inspect", &state]).silent();
    let newest = shown.lines().rfind(|line| line.ends_with(".parquet")).unwrap().trim().to_owned();
    let mut bytes = std::fs::read(&newest).unwrap();
    let middle = bytes.len() / 2;
    *bytes.get_mut(middle).unwrap() ^= 1;
    std::fs::write(&newest, bytes).unwrap();
    let verified = run(&["state", "verify", &state]);
    assert_eq!(verified.code, Some(1));
    assert!(verified.stdout.contains(&newest), "{}", verified.stdout);
    case.write_input("3.csv", 120..180);
    let finished = case.run("", SUMS);
    finished.check();
    assert!(finished.stderr.contains("falling back to the one before"), "{}", finished.stderr);
    let whole = Case::new();
    whole.write_input("2.csv", 60..120);
    whole.write_input("3.csv", 120..180);
    whole.run("", SUMS).check();
    assert_eq!(rows(&case.results()), rows(&whole.results()));
}

#[test]
fn a_directory_has_one_process() {
    let case = Case::new();
    let mut first = case.start(", watch_interval = '5 ms'", SUMS);
    first.wait_for_note("r: begins");
    case.run("", SUMS).check_error(1, &["is in use by process", "hint: "]);
    first.terminate();
    first.finish();
}
