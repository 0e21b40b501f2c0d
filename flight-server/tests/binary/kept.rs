//! Queries with a state directory: what they read, what they compute, and where their rows go.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::process::{Finished, Folder, Running, run_sql};

/// Files per stream.
const FILES: usize = 6;
const SETTINGS: &str = "SET batch_interval = '1 ms';";

/// A query over files that are small enough to be a micro-batch each.
#[derive(Debug)]
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    input: Folder,
    rows: usize,
    select: &'static str,
    columns: &'static str,
}

impl Scenario {
    /// Sums by window and key, in files of `rows` rows.
    pub(crate) fn group_by(rows: usize) -> Self {
        let select = "SELECT window_end AS closed, szcode, COUNT(*) AS n, SUM(v) AS s
                      FROM t [Range 20 s, Slide 5 s] GROUP BY window_end, szcode";
        Self::new("group by", rows, select, "closed TIMESTAMP(3), szcode VARCHAR, n BIGINT, s BIGINT")
    }

    /// Pairs of two streams in each window.
    pub(crate) fn join(rows: usize) -> Self {
        let select = "SELECT t.szcode AS szcode, COUNT(*) AS n, SUM(t.v * q.v) AS s
                      FROM t [Range 10 s, Slide 5 s] JOIN q [Range 10 s, Slide 5 s] ON t.szcode = q.szcode
                      GROUP BY t.szcode";
        Self::new("join", rows, select, "szcode VARCHAR, n BIGINT, s BIGINT")
    }

    /// Ranks within each window, which need its rows.
    pub(crate) fn ranks(rows: usize) -> Self {
        let select = "SELECT szcode, v, RANK() OVER (PARTITION BY szcode ORDER BY v) AS n
                      FROM t [Range 10 s, Slide 10 s]";
        Self::new("ranks", rows, select, "szcode VARCHAR, v BIGINT, n BIGINT")
    }

    fn new(name: &'static str, rows: usize, select: &'static str, columns: &'static str) -> Self {
        let input = Folder::new();
        for (seed, stream) in [(1, "t"), (2, "q")] {
            std::fs::create_dir(input.path(stream)).unwrap();
            write_stream(&input, stream, rows, seed);
        }
        Self { name, input, rows, select, columns }
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
        format!("SET batch_rows = {}; {SETTINGS} {} {}", self.rows, stream("t"), stream("q"))
    }

    /// The rows of a run that nothing happens to, in one order.
    pub(crate) fn undisturbed(&self) -> Vec<String> {
        let output = run_sql(&[&self.streams(), self.select].concat());
        assert_eq!(output.code, Some(0), "{output:?}");
        sorted(&output.stdout)
    }

    fn arguments(&self, place: &dyn Place) -> Vec<String> {
        let sql = format!("{} {} INSERT INTO r {}", self.streams(), place.sink(), self.select);
        ["run", "-e", &sql, "--state-dir", &place.state(), "--checkpoint-interval", "1ms"].map(str::to_owned).into()
    }

    fn start_with(&self, place: &dyn Place, more: &[(&str, String)]) -> Running {
        let (arguments, variables) = (self.arguments(place), place.variables());
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let variables = variables.iter().chain(more).map(|(key, value)| (*key, value.as_str()));
        Running::start_with(&arguments, &variables.collect::<Vec<_>>())
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
        let finished = self.start_with(place, &[("MILLSTREAM_CRASH_AT", step.to_string())]).finish();
        if finished.code.is_some() {
            finished.check();
            return false;
        }
        true
    }
}

/// Trades that are a little out of order, in several files.
fn write_stream(folder: &Folder, stream: &str, rows: usize, seed: u64) {
    let mut random = StdRng::seed_from_u64(seed);
    for file in 0..FILES {
        let mut text = "szcode,eventTime,v\n".to_owned();
        for row in 0..rows {
            // 240 s of event time however many rows there are.
            let second = (file * rows + row) * 240 / (FILES * rows);
            let second = second.saturating_sub(random.random_range(0..4));
            let (code, v) = (random.random_range(0..5), random.random_range(0..100));
            text.push_str(&format!("c{code},2024-01-02T09:{:02}:{:02},{v}\n", 30 + second / 60, second % 60));
        }
        folder.write(&format!("{stream}/{file}.csv"), text);
    }
}

fn sorted(csv: &str) -> Vec<String> {
    super::process::rows(csv).into_iter().map(str::to_owned).collect()
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
    /// What a process must have in its environment to use it.
    fn variables(&self) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// The statement that declares the sink `r`.
    fn sink(&self) -> String;
    /// What is there, in one order.
    fn rows(&self, scenario: &Scenario) -> Vec<String>;
}

/// The sink `files` with Parquet.
pub(crate) struct Parquet {
    /// Further options, each with a comma before it.
    options: &'static str,
}

impl Parquet {
    /// A file for each epoch.
    pub(crate) const AN_EPOCH: Self = Self { options: "" };
    /// Files that are put together as soon as there are two.
    pub(crate) const COMPACTED: Self = Self { options: ", compact = '3 KiB', compact_after = '1 ms'" };
}

impl Destination for Parquet {
    fn place(&self) -> Box<dyn Place> {
        Box::new(ParquetPlace { folder: Folder::new(), options: self.options })
    }
}

struct ParquetPlace {
    folder: Folder,
    options: &'static str,
}

impl Place for ParquetPlace {
    fn folder(&self) -> &Folder {
        &self.folder
    }

    fn sink(&self) -> String {
        let path = self.folder.path("out");
        format!("CREATE SINK r WITH (connector = 'files', path = '{path}', format = 'parquet'{});", self.options)
    }

    fn rows(&self, scenario: &Scenario) -> Vec<String> {
        let options = format!("connector = 'files', path = '{}', format = 'parquet'", self.folder.path("out"));
        let columns = scenario.columns;
        sorted(&run_sql(&format!("CREATE TABLE r ({columns}) WITH ({options}); SELECT * FROM r")).silent())
    }
}

/// The sink `delta`.
pub(crate) struct Delta;

impl Destination for Delta {
    fn place(&self) -> Box<dyn Place> {
        Box::new(DeltaPlace(Folder::new()))
    }
}

struct DeltaPlace(Folder);

impl DeltaPlace {
    /// The files that the newest version of the table has.
    fn files(&self) -> Vec<String> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            let url = deltalake_core::ensure_table_uri(self.0.path("out")).unwrap();
            let table = deltalake_core::DeltaTableBuilder::from_url(url).unwrap().load().await.unwrap();
            table.get_file_uris().unwrap().collect()
        })
    }
}

impl Place for DeltaPlace {
    fn folder(&self) -> &Folder {
        &self.0
    }

    fn sink(&self) -> String {
        format!("CREATE SINK r WITH (connector = 'delta', path = '{}');", self.0.path("out"))
    }

    fn rows(&self, scenario: &Scenario) -> Vec<String> {
        let folder = Folder::new();
        for (number, file) in self.files().iter().enumerate() {
            std::fs::copy(file.trim_start_matches("file://"), folder.path(&format!("{number}.parquet"))).unwrap();
        }
        let options = format!("connector = 'files', path = '{}', format = 'parquet'", folder.path(""));
        sorted(&run_sql(&format!("CREATE TABLE r ({}) WITH ({options}); SELECT * FROM r", scenario.columns)).silent())
    }
}

/// The sink `sqlite`.
pub(crate) struct Sqlite;

impl Destination for Sqlite {
    fn place(&self) -> Box<dyn Place> {
        Box::new(SqlitePlace(Folder::new()))
    }
}

struct SqlitePlace(Folder);

impl Place for SqlitePlace {
    fn folder(&self) -> &Folder {
        &self.0
    }

    fn sink(&self) -> String {
        format!("CREATE SINK r WITH (connector = 'sqlite', path = '{}');", self.0.path("results.db"))
    }

    fn rows(&self, _: &Scenario) -> Vec<String> {
        let database = rusqlite::Connection::open(self.0.path("results.db")).unwrap();
        let mut statement = database.prepare("SELECT * FROM r").unwrap();
        let count = statement.column_count();
        let read = |row: &rusqlite::Row<'_>| {
            let values = (0..count).map(|column| match row.get_ref(column).unwrap() {
                rusqlite::types::ValueRef::Integer(value) => value.to_string(),
                rusqlite::types::ValueRef::Text(text) => String::from_utf8(text.to_vec()).unwrap(),
                other => panic!("{other:?}"),
            });
            Ok(values.collect::<Vec<_>>().join(","))
        };
        let mut rows: Vec<String> = statement.query_map([], read).unwrap().map(Result::unwrap).collect();
        rows.sort_unstable();
        rows
    }
}

/// The sink `postgres`, with a server that is there already.
pub(crate) struct Postgres {
    url: String,
}

impl Postgres {
    /// The server that `MILLSTREAM_TEST_POSTGRES` names; without it the tests that need one say so.
    pub(crate) fn of_environment() -> Option<Self> {
        let url = std::env::var("MILLSTREAM_TEST_POSTGRES").ok();
        if url.is_none() {
            eprintln!("SKIPPED: no PostgreSQL; MILLSTREAM_TEST_POSTGRES names one (`.ci/postgres start` makes one)");
        }
        url.map(|url| Self { url })
    }
}

impl Destination for Postgres {
    fn place(&self) -> Box<dyn Place> {
        let (folder, url) = (Folder::new(), self.url.clone());
        let table = format!("r_{}", folder.name());
        Box::new(PostgresPlace { folder, url, table })
    }
}

struct PostgresPlace {
    folder: Folder,
    url: String,
    table: String,
}

impl Place for PostgresPlace {
    fn folder(&self) -> &Folder {
        &self.folder
    }

    fn sink(&self) -> String {
        let Self { url, table, .. } = self;
        format!("CREATE SINK r WITH (connector = 'postgres', url = '{url}', table = '{table}');")
    }

    fn rows(&self, _: &Scenario) -> Vec<String> {
        let (url, table) = (self.url.clone(), self.table.clone());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut rows: Vec<String> = runtime.block_on(async {
            let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls).await.unwrap();
            let connection = tokio::spawn(connection);
            let answer = client.simple_query(&format!("SELECT * FROM \"{table}\"")).await.unwrap();
            let rows = answer.iter().filter_map(|message| match message {
                tokio_postgres::SimpleQueryMessage::Row(row) => {
                    let values: Vec<_> = (0..row.len()).map(|column| row.get(column).unwrap_or_default()).collect();
                    Some(values.join(",").replace("2024-01-02 ", "2024-01-02T"))
                }
                _ => None,
            });
            let rows = rows.collect();
            client.simple_query(&format!("DROP TABLE \"{table}\"")).await.unwrap();
            connection.abort();
            rows
        });
        rows.sort_unstable();
        rows
    }
}
