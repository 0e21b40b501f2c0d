//! Queries with a state directory: what they read, what they compute, and what a place for their rows is.

#![expect(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

pub(crate) use super::databases::Sqlite;
use super::process::{Finished, Folder, Running, run_sql};

/// Files per stream where nothing else is said.
const FILES: usize = 6;
/// The file in a place's folder that lists the durable steps of the last run that was to be killed.
const STEPS: &str = "steps";
const SETTINGS: &str = "SET batch_interval = '1 ms';";

/// A query over files that are small enough to be a micro-batch each.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    input: Folder,
    rows: usize,
    select: &'static str,
    pub(crate) columns: &'static str,
    /// Whether only the last row of each value of its second column stays; the first column is the time then.
    is_upsert: bool,
}

impl Scenario {
    /// Sums by window and key, in files of `rows` rows.
    pub(crate) fn group_by(rows: usize) -> Self {
        Self::group_by_in(FILES, rows)
    }

    /// The same in another number of files.
    pub(crate) fn group_by_in(files: usize, rows: usize) -> Self {
        let select = "SELECT window_end AS closed, szcode, COUNT(*) AS n, SUM(v) AS s
                      FROM t [Range 20 s, Slide 5 s] GROUP BY window_end, szcode";
        let columns = "closed TIMESTAMP(3), szcode VARCHAR, n BIGINT, s BIGINT";
        Self::new("group by", (files, rows), select, columns)
    }

    /// Counts by window and value, of which the last of each value stays. Most values are rare: their last rows come
    /// in every epoch, so that none can be lost or repeated unseen, and a row is overwritten by later windows.
    pub(crate) fn upsert(files: usize, rows: usize) -> Self {
        let select = "SELECT window_end AS closed, v, COUNT(*) AS n, SUM(v) AS s
                      FROM t [Range 20 s, Slide 5 s] GROUP BY window_end, v";
        let columns = "closed TIMESTAMP(3), v BIGINT, n BIGINT, s BIGINT";
        Self { is_upsert: true, ..Self::new("upsert", (files, rows), select, columns) }
    }

    /// Counts in windows so short that rows are late for all of theirs.
    pub(crate) fn with_late_rows(files: usize, rows: usize) -> Self {
        let select = "SELECT window_end AS closed, szcode, COUNT(*) AS n, SUM(v) AS s
                      FROM t [Range 1 s, Slide 1 s] GROUP BY window_end, szcode";
        let columns = "closed TIMESTAMP(3), szcode VARCHAR, n BIGINT, s BIGINT";
        Self::new("late rows", (files, rows), select, columns)
    }

    /// The late rows of `t` that a run sets aside that nothing happens to, in one order.
    pub(crate) fn late_rows(&self) -> Vec<String> {
        let (streams, select) = (self.streams(), self.select);
        // What stands behind an INSERT runs with it, unless it is no query.
        let output = run_sql(&format!(
            "{streams} CREATE SINK r WITH (connector = 'blackhole'); INSERT INTO r {select};
             DROP SINK r; SELECT szcode, eventTime, v FROM t$late"
        ));
        output.check();
        sorted(&output.stdout)
    }

    /// Pairs of two streams in each window.
    pub(crate) fn join(rows: usize) -> Self {
        let select = "SELECT t.szcode AS szcode, COUNT(*) AS n, SUM(t.v * q.v) AS s
                      FROM t [Range 10 s, Slide 5 s] JOIN q [Range 10 s, Slide 5 s] ON t.szcode = q.szcode
                      GROUP BY t.szcode";
        Self::new("join", (FILES, rows), select, "szcode VARCHAR, n BIGINT, s BIGINT")
    }

    /// Ranks within each window, which need its rows.
    pub(crate) fn ranks(rows: usize) -> Self {
        let select = "SELECT szcode, v, RANK() OVER (PARTITION BY szcode ORDER BY v) AS n
                      FROM t [Range 10 s, Slide 10 s]";
        Self::new("ranks", (FILES, rows), select, "szcode VARCHAR, v BIGINT, n BIGINT")
    }

    /// Each row with those of its code before it, by time, and how it differs from the last.
    pub(crate) fn over(rows: usize) -> Self {
        let select = "SELECT szcode, v, SUM(v) OVER (PARTITION BY szcode ORDER BY eventTime
                        RANGE BETWEEN INTERVAL '7' SECOND PRECEDING AND CURRENT ROW) AS s
                      FROM t";
        Self::new("over", (FILES, rows), select, "szcode VARCHAR, v BIGINT, s BIGINT")
    }

    /// Each row with the three of its code before it.
    pub(crate) fn over_rows(rows: usize) -> Self {
        let select = "SELECT szcode, v, SUM(v) OVER (PARTITION BY szcode ORDER BY eventTime ROWS 3 PRECEDING) AS s
                      FROM t";
        Self::new("over rows", (FILES, rows), select, "szcode VARCHAR, v BIGINT, s BIGINT")
    }

    /// Sums of the last fifty rows after every twenty.
    pub(crate) fn counted(rows: usize) -> Self {
        let select = "SELECT window_end AS closed, szcode, COUNT(*) AS n, SUM(v) AS s
                      FROM t [Rows 50, Slide 20] GROUP BY window_end, szcode";
        let columns = "closed TIMESTAMP(3), szcode VARCHAR, n BIGINT, s BIGINT";
        Self::new("counted", (FILES, rows), select, columns)
    }

    /// Rows of each window with the grade of their code, from a table that is read again and again.
    pub(crate) fn graded(rows: usize) -> Self {
        let select = "SELECT t.szcode AS szcode, v, grade
                      FROM t [Range 10 s, Slide 10 s] JOIN grades ON t.szcode = grades.szcode";
        let scenario = Self::new("graded", (FILES, rows), select, "szcode VARCHAR, v BIGINT, grade BIGINT");
        scenario.input.write("grades.csv", "szcode,grade\nc0,1\nc1,2\nc3,4\n");
        scenario
    }

    /// `size` is how many files each stream has, and how many rows each file.
    fn new(name: &'static str, size: (usize, usize), select: &'static str, columns: &'static str) -> Self {
        let input = Folder::new();
        for (seed, stream) in [(1, "t"), (2, "q")] {
            std::fs::create_dir(input.path(stream)).unwrap();
            write_stream(&input, stream, size, seed);
        }
        Self { name, input, rows: size.1, select, columns, is_upsert: false }
    }

    fn streams(&self) -> String {
        let stream = |name: &str| {
            format!(
                "CREATE STREAM {name} (szcode VARCHAR, eventTime TIMESTAMP(3), v BIGINT,
                   WATERMARK FOR eventTime AS eventTime - INTERVAL '2' SECOND
                 ) WITH (connector = 'files', path = '{}');",
                self.input.path(name)
            )
        };
        let grades = match self.name {
            "graded" => format!(
                "CREATE TABLE grades (szcode VARCHAR, grade BIGINT)
                 WITH (connector = 'files', path = '{}', refresh_interval = '1 ms');",
                self.input.path("grades.csv")
            ),
            _ => String::new(),
        };
        format!("SET batch_rows = {}; {SETTINGS} {} {} {grades}", self.rows, stream("t"), stream("q"))
    }

    /// The rows that a run leaves that nothing happens to, in one order.
    pub(crate) fn undisturbed(&self) -> Vec<String> {
        let output = run_sql(&[&self.streams(), self.select].concat());
        assert_eq!(output.code, Some(0), "{output:?}");
        let rows = sorted(&output.stdout);
        if self.is_upsert { latest(rows) } else { rows }
    }

    fn arguments(&self, place: &dyn Place) -> Vec<String> {
        let sql = format!("{} {}", self.streams(), place.statements(self.select));
        self.arguments_of(&sql, place)
    }

    fn arguments_of(&self, sql: &str, place: &dyn Place) -> Vec<String> {
        ["run", "-e", sql, "--format", "csv", "--state-dir", &place.state(), "--checkpoint-interval", "1ms"]
            .map(str::to_owned)
            .into()
    }

    fn start_with(&self, place: &dyn Place, more: &[(&str, String)]) -> Running {
        let (arguments, variables) = (self.arguments(place), place.variables());
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let variables = variables.iter().chain(more).map(|(key, value)| (*key, value.as_str()));
        Running::start_with(&arguments, &variables.collect::<Vec<_>>())
    }

    /// The rows of the relation `r` that the statements of `place` keep, in one order.
    pub(crate) fn kept_rows(&self, place: &dyn Place) -> Vec<String> {
        let sql = format!("{} {}; SELECT * FROM r", self.streams(), place.statements(self.select));
        let arguments = self.arguments_of(&sql, place);
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let finished = Running::start_with(&arguments, &[]).finish();
        finished.check();
        sorted(&finished.stdout)
    }

    /// Starts the query, or goes on with it.
    pub(crate) fn start_kept(&self, place: &dyn Place) -> Running {
        self.start_with(place, &[])
    }

    /// Runs the query to its end.
    pub(crate) fn run_kept(&self, place: &dyn Place) -> Finished {
        self.start_kept(place).finish()
    }

    /// Runs the query until it comes to its `step`th durable step; whether it did and was killed.
    pub(crate) fn run_to_crash(&self, place: &dyn Place, step: u64) -> bool {
        self.run_to_crash_at(place, &step.to_string())
    }

    /// Runs the query until it comes to a durable step, `n` or `n:name`; whether it did and was killed.
    pub(crate) fn run_to_crash_at(&self, place: &dyn Place, step: &str) -> bool {
        let log = place.folder().path(STEPS);
        let variables = [("MILLSTREAM_CRASH_AT", step.to_owned()), ("MILLSTREAM_CRASH_LOG", log)];
        let finished = self.start_with(place, &variables).finish();
        let was_killed = finished.code.is_none();
        if was_killed {
            finished.check_crashed();
        } else {
            finished.check();
        }
        was_killed
    }
}

/// Trades that are a little out of order, in several files.
fn write_stream(folder: &Folder, stream: &str, (files, rows): (usize, usize), seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    for file in 0..files {
        let mut text = "szcode,eventTime,v\n".to_owned();
        for row in 0..rows {
            // 240 s of event time however many rows there are.
            let second = (file * rows + row) * 240 / (files * rows);
            let second = second.saturating_sub(random.random_range(0..4));
            let (code, v) = (random.random_range(0..5), random.random_range(0..100));
            text.push_str(&format!("c{code},2024-01-02T09:{:02}:{:02},{v}\n", 30 + second / 60, second % 60));
        }
        folder.write(&format!("{stream}/{file}.csv"), text);
    }
}

/// The rows of CSV text without its header, in one order.
pub(crate) fn sorted(csv: &str) -> Vec<String> {
    super::process::rows(csv).into_iter().map(str::to_owned).collect()
}

/// The last row of each value of the second column; the rows are in the order of time.
fn latest(rows: Vec<String>) -> Vec<String> {
    let mut latest = BTreeMap::new();
    for row in rows {
        latest.insert(row.split(',').nth(1).map(str::to_owned), row);
    }
    let mut rows: Vec<String> = latest.into_values().collect();
    rows.sort_unstable();
    rows
}

/// A kind of exact sink.
pub(crate) trait Destination {
    /// A new place for one query's rows and state.
    fn place(&self) -> Box<dyn Place>;
}

/// Where one query keeps its state and writes its rows.
pub(crate) trait Place {
    /// The folder of its own.
    fn folder(&self) -> &Folder;
    /// Where the state directory is.
    fn state(&self) -> String {
        self.folder().path("state")
    }
    /// The names of the durable steps of the last run here that was to be killed.
    fn steps(&self) -> Vec<String> {
        let names = std::fs::read_to_string(self.folder().path(STEPS)).unwrap();
        names.lines().map(str::to_owned).collect()
    }
    /// What a process must have in its environment to use it.
    fn variables(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// The statement that declares the sink `r`.
    fn sink(&self) -> String;
    /// The statements that run a query into `r`.
    fn statements(&self, select: &str) -> String {
        format!("{} INSERT INTO r {select} {}", self.sink(), self.clauses())
    }
    /// What the names of the sink's durable steps begin with: its connector, which is its first option.
    fn step_prefix(&self) -> String {
        format!("{}.", self.sink().split('\'').nth(1).unwrap_or_default())
    }
    /// What stands behind the query.
    fn clauses(&self) -> &'static str {
        ""
    }
    /// What is there, in one order.
    fn rows(&self, scenario: &Scenario) -> Vec<String>;
}
