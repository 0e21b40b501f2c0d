//! Destinations that are databases: the sinks `sqlite` and `postgres`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::io::Write;

use super::kept::{Destination, Place, Scenario};
use super::process::Folder;

/// Options that keep the last row of each `v`, as [`Scenario::upsert`] wants it.
const UPSERT: &str = ", mode = 'upsert', key = 'v'";

/// What is said where there is no PostgreSQL.
const NO_POSTGRES: &str =
    "SKIPPED: no PostgreSQL; MILLSTREAM_TEST_POSTGRES names one (`.ci/postgres start` makes one)\n";

/// The sink `sqlite`.
pub(crate) struct Sqlite;

impl Destination for Sqlite {
    fn place(&self) -> Box<dyn Place> {
        Box::new(SqlitePlace { folder: Folder::new(), options: "" })
    }
}

/// The sink `sqlite` with one row per key.
pub(crate) struct SqliteUpsert;

impl Destination for SqliteUpsert {
    fn place(&self) -> Box<dyn Place> {
        Box::new(SqlitePlace { folder: Folder::new(), options: UPSERT })
    }
}

struct SqlitePlace {
    folder: Folder,
    options: &'static str,
}

impl Place for SqlitePlace {
    fn folder(&self) -> &Folder {
        &self.folder
    }

    fn sink(&self) -> String {
        let path = self.folder.path("results.db");
        format!("CREATE SINK r WITH (connector = 'sqlite', path = '{path}'{});", self.options)
    }

    fn rows(&self, _: &Scenario) -> Vec<String> {
        let database = rusqlite::Connection::open(self.folder.path("results.db")).unwrap();
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
    options: &'static str,
}

impl Postgres {
    /// The server that `MILLSTREAM_TEST_POSTGRES` names. Without one the tests that need it say so; where `CI` is
    /// `true` they fail.
    pub(crate) fn of_environment() -> Option<Self> {
        let url = std::env::var("MILLSTREAM_TEST_POSTGRES").ok();
        if url.is_none() {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "{NO_POSTGRES}");
            // Not `eprintln!`, which is not shown for tests that pass.
            std::io::stderr().write_all(NO_POSTGRES.as_bytes()).unwrap();
        }
        url.map(|url| Self { url, options: "" })
    }

    /// The same server, with one row per key.
    pub(crate) fn upserting(self) -> Self {
        Self { options: UPSERT, ..self }
    }
}

impl Destination for Postgres {
    fn place(&self) -> Box<dyn Place> {
        let (folder, url) = (Folder::new(), self.url.clone());
        let table = format!("r_{}", folder.name());
        Box::new(PostgresPlace { folder, url, table, options: self.options })
    }
}

struct PostgresPlace {
    folder: Folder,
    url: String,
    table: String,
    options: &'static str,
}

impl Place for PostgresPlace {
    fn folder(&self) -> &Folder {
        &self.folder
    }

    fn sink(&self) -> String {
        let Self { url, table, options, .. } = self;
        format!("CREATE SINK r WITH (connector = 'postgres', url = '{url}', table = '{table}'{options});")
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
