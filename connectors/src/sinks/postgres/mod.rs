//! The sink that writes into a table of a PostgreSQL database, with its ledger in the same database.
//!
//! Rows go in by COPY, in one transaction with the ledger's line. When the connection is lost the transaction is run
//! again on a new one; the ledger says whether the lost one had been committed.

mod copy;

use std::io::Cursor;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use futures::SinkExt;
use millstream_engine::batch::Epoch;
use millstream_engine::durable::durable_step;
use millstream_engine::sink::{Guarantee, Sink, SinkWriter};
use millstream_engine::{Error, Result};
use tokio_postgres::config::Host;
use tokio_postgres::{Client, Config, NoTls, Transaction};

use super::relation::{CREATE_LEDGER, Relation, epoch_of, list, names, quoted, signed};
use super::staged::Staged;
use super::{not_begun, taken_over};
use copy::{copy_text, sql_type};

/// How often a lost connection is made again …
const ATTEMPTS: u32 = 10;
/// … and the longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The table that an epoch's rows go through before an upsert, and its column with their order.
const STAGING: &str = "millstream_rows";
const ORDER: &str = "millstream_row";
/// Has a COMMIT answered when it is safe, where role or server are set to answer before: a crash of the server would
/// take an epoch back that the state directory knows to be in.
const SAFE_COMMIT: &str = "SELECT set_config('synchronous_commit', 'on', true)
    WHERE current_setting('synchronous_commit') = 'off'";
/// The name in the ledger of the table whose name as SQL is $1; the server resolves it, so that it is one for all
/// spellings.
const LEDGER_NAME: &str = "(SELECT format('%I.%I', nspname, relname) FROM pg_class
    JOIN pg_namespace ON pg_namespace.oid = relnamespace WHERE pg_class.oid = to_regclass($1::text))";

/// Writes rows into a table of a PostgreSQL database.
#[derive(Debug)]
pub struct PostgresSink {
    target: Target,
    writer: Option<SinkWriter>,
    last: Option<Epoch>,
    client: Option<Client>,
    staged: Staged,
}

#[derive(Debug)]
struct Target {
    /// Its `Debug` leaves the password out.
    config: Config,
    relation: Relation,
    schema: SchemaRef,
}

/// A transaction.
enum Work<'a> {
    Begin(&'a SinkWriter),
    Write(&'a SinkWriter, Epoch, &'a [u8]),
}

/// Why a transaction was not done.
enum Failure {
    /// The connection is gone; another one may do it.
    Lost(tokio_postgres::Error),
    Final(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Final(error)
    }
}

impl PostgresSink {
    /// A sink for rows of `schema`; nothing is connected yet.
    ///
    /// # Errors
    /// Fails for columns of types that are not written, and for a key that is no column.
    pub(super) fn new(config: Config, relation: Relation, schema: SchemaRef) -> Result<Self> {
        relation.check_key(&schema)?;
        relation.create_table(&schema, sql_type)?;
        let target = Target { config, relation, schema };
        Ok(Self { target, writer: None, last: None, client: None, staged: Staged::default() })
    }

    /// Does `work` on a connection, and again on a new one if that is lost; gives the last epoch in the ledger.
    async fn with_connection(&mut self, work: Work<'_>) -> Result<Option<Epoch>> {
        let mut pause = Duration::from_millis(100);
        for attempt in 1.. {
            let done = match &mut self.client {
                Some(client) => self.target.work(client, &work).await,
                empty => match self.target.connect().await {
                    Ok(client) => self.target.work(empty.insert(client), &work).await,
                    Err(error) => Err(Failure::Lost(error)),
                },
            };
            match done {
                Ok(value) => return Ok(value),
                Err(Failure::Lost(error)) if attempt < ATTEMPTS && is_passing(&error) => {
                    tracing::warn!(%error, attempt, "{} is not there, trying again", self.target.place());
                    self.client = None;
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                Err(Failure::Lost(error)) => return Err(self.target.failed(error)),
                Err(Failure::Final(error)) => return Err(error),
            }
        }
        Err(Error::internal("attempts do not end"))
    }
}

/// Whether trying again may help: the server is not there, or has dropped the connection.
fn is_passing(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_none_or(|error| {
        let code = error.code().code();
        // Connection exceptions, an operator's intervention, too many connections, a serialization failure.
        code.starts_with("08") || code.starts_with("57P") || code == "53300" || code.starts_with("40")
    })
}

#[async_trait]
impl Sink for PostgresSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn begin(&mut self, writer: &SinkWriter) -> Result<Option<Epoch>> {
        (self.staged, self.client) = (Staged::default(), None);
        self.last = self.with_connection(Work::Begin(writer)).await?;
        self.writer = Some(writer.clone());
        Ok(self.last)
    }

    async fn stage(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<()> {
        if self.writer.is_none() {
            return Err(not_begun("postgres"));
        }
        if self.last < Some(epoch) {
            self.staged.add(epoch, rows);
        }
        Ok(())
    }

    async fn commit(&mut self, epoch: Epoch) -> Result<()> {
        let Some(rows) = self.staged.take(epoch) else { return Ok(()) };
        let writer = self.writer.clone().ok_or_else(|| not_begun("postgres"))?;
        self.target.relation.check_key_values(&self.target.schema, &rows)?;
        let text = copy_text(&self.target.schema, &rows, !self.target.relation.key.is_empty())?;
        self.last = self.with_connection(Work::Write(&writer, epoch, &text)).await?;
        Ok(())
    }
}

impl Target {
    async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = self.config.connect(NoTls).await?;
        // It ends with the client.
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a PostgreSQL connection ended");
            }
        });
        Ok(client)
    }

    async fn work(&self, client: &mut Client, work: &Work<'_>) -> Result<Option<Epoch>, Failure> {
        match work {
            Work::Begin(writer) => self.begin(client, writer).await,
            Work::Write(writer, epoch, text) => self.write(client, writer, *epoch, text).await.map(|()| Some(*epoch)),
        }
    }

    /// A transaction that is safe when its COMMIT is answered.
    async fn transaction<'a>(&self, client: &'a mut Client) -> Result<Transaction<'a>, Failure> {
        let transaction = client.transaction().await.map_err(|error| self.sorted(error))?;
        transaction.batch_execute(SAFE_COMMIT).await.map_err(|error| self.sorted(error))?;
        Ok(transaction)
    }

    /// Makes tables and ledger if need be, and enters the writer's term; gives the last epoch of its query.
    async fn begin(&self, client: &mut Client, writer: &SinkWriter) -> Result<Option<Epoch>, Failure> {
        let transaction = self.transaction(client).await?;
        durable_step("postgres.create");
        let create = self.relation.create_table(&self.schema, sql_type)?;
        // Two sinks may begin at once, and IF NOT EXISTS looks before it makes.
        let lock = "SELECT pg_advisory_xact_lock(7813520148)";
        let create = format!("{lock}; SET LOCAL client_min_messages = warning; {CREATE_LEDGER}; {create}");
        transaction.batch_execute(&create).await.map_err(|error| self.sorted(error))?;
        self.check_columns(&transaction).await?;
        let last = self.take_reign(&transaction, writer).await?;
        durable_step("postgres.begin");
        transaction.commit().await.map_err(|error| self.sorted(error))?;
        Ok(last)
    }

    /// Says at once if the table or a column is missing.
    async fn check_columns(&self, transaction: &Transaction<'_>) -> Result<(), Failure> {
        let columns = list(&names(&self.schema));
        let check = format!("SELECT {columns} FROM {} LIMIT 0", self.relation.quoted_table());
        transaction.batch_execute(&check).await.map_err(|error| self.sorted(error))
    }

    async fn take_reign(&self, transaction: &Transaction<'_>, writer: &SinkWriter) -> Result<Option<Epoch>, Failure> {
        let (query, table) = (&writer.query, self.relation.quoted_table());
        let lines =
            format!("SELECT query, term, epoch FROM millstream_ledger WHERE sink_table = {LEDGER_NAME} FOR UPDATE");
        let lines = transaction.query(lines.as_str(), &[&table]).await.map_err(|error| self.sorted(error))?;
        let mut last = None;
        for line in lines {
            let (owner, term, epoch): (String, i64, Option<i64>) = (line.get(0), line.get(1), line.get(2));
            if owner != *query {
                return Err(self.relation.holds_earlier_results(&self.place()).into());
            }
            if term > signed(writer.term) {
                return Err(taken_over(&self.place()).into());
            }
            last = epoch.map(epoch_of);
        }
        let write = format!(
            "INSERT INTO millstream_ledger (query, sink_table, term) VALUES ($2, {LEDGER_NAME}, $3)
             ON CONFLICT (query, sink_table) DO UPDATE SET term = excluded.term"
        );
        let term = signed(writer.term);
        transaction.execute(write.as_str(), &[&table, query, &term]).await.map_err(|error| self.sorted(error))?;
        Ok(last)
    }

    /// Writes an epoch and its line of the ledger, unless it is there.
    async fn write(&self, client: &mut Client, writer: &SinkWriter, epoch: Epoch, text: &[u8]) -> Result<(), Failure> {
        let transaction = self.transaction(client).await?;
        let table = self.relation.quoted_table();
        let line = format!(
            "SELECT term, epoch FROM millstream_ledger WHERE sink_table = {LEDGER_NAME} AND query = $2 FOR UPDATE"
        );
        let line = transaction.query_opt(line.as_str(), &[&table, &writer.query]).await;
        let line = line.map_err(|error| self.sorted(error))?;
        let line: Option<(i64, Option<i64>)> = line.map(|line| (line.get(0), line.get(1)));
        match line {
            Some((term, _)) if term != signed(writer.term) => return Err(taken_over(&self.place()).into()),
            // The answer to the COMMIT was lost with its connection.
            Some((_, Some(last))) if last >= signed(epoch.0) => return Ok(()),
            Some(_) => {}
            None => {
                // A table that is gone has no line either, and says so.
                self.check_columns(&transaction).await?;
                return Err(taken_over(&self.place()).into());
            }
        }
        durable_step("postgres.ledger");
        let line = format!("UPDATE millstream_ledger SET epoch = $3 WHERE sink_table = {LEDGER_NAME} AND query = $2");
        let done = transaction.execute(line.as_str(), &[&table, &writer.query, &signed(epoch.0)]).await;
        done.map_err(|error| self.sorted(error))?;
        durable_step("postgres.copy");
        self.put_rows(&transaction, text).await.map_err(|error| self.sorted(error))?;
        durable_step("postgres.commit");
        transaction.commit().await.map_err(|error| self.sorted(error))?;
        durable_step("postgres.committed");
        Ok(())
    }

    async fn put_rows(&self, transaction: &Transaction<'_>, text: &[u8]) -> Result<(), tokio_postgres::Error> {
        let columns = list(&names(&self.schema));
        let table = self.relation.quoted_table();
        if self.relation.key.is_empty() {
            return copy(transaction, &format!("COPY {table} ({columns}) FROM STDIN"), text).await;
        }
        let staging = format!(
            "CREATE TEMP TABLE {STAGING} ON COMMIT DROP AS
             SELECT {columns}, 0::bigint AS {ORDER} FROM {table} WITH NO DATA"
        );
        transaction.batch_execute(&staging).await?;
        copy(transaction, &format!("COPY {STAGING} ({columns}, {ORDER}) FROM STDIN"), text).await?;
        let (key, conflict) = (list(&self.relation.key), self.relation.on_conflict(&self.schema));
        let upsert = format!(
            "INSERT INTO {table} ({columns})
             SELECT DISTINCT ON ({key}) {columns} FROM {STAGING} ORDER BY {key}, {} DESC{conflict}",
            quoted(ORDER)
        );
        transaction.batch_execute(&upsert).await
    }

    /// Where the rows go, without user and password.
    fn place(&self) -> String {
        let hosts = self.config.get_hosts().iter().map(|host| match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        });
        let ports = self.config.get_ports().iter().map(|port| format!(":{port}"));
        let database = self.config.get_dbname().map_or_else(String::new, |name| format!("/{name}"));
        let hosts: Vec<_> = hosts.zip(ports.chain(std::iter::repeat(String::new()))).map(|(h, p)| h + &p).collect();
        format!("PostgreSQL {}{database}", hosts.join(","))
    }

    fn sorted(&self, error: tokio_postgres::Error) -> Failure {
        if is_passing(&error) { Failure::Lost(error) } else { Failure::Final(self.failed(error)) }
    }

    fn failed(&self, error: tokio_postgres::Error) -> Error {
        let context = format!("writing table {} of {}", self.relation.table, self.place());
        match error.as_db_error() {
            Some(reason) => {
                let detail = reason.detail().map_or_else(String::new, |detail| format!(": {detail}"));
                Error::external(context, format!("{}{detail}", reason.message()))
            }
            None => Error::external(context, error),
        }
    }
}

async fn copy(transaction: &Transaction<'_>, statement: &str, text: &[u8]) -> Result<(), tokio_postgres::Error> {
    let sink = transaction.copy_in(statement).await?;
    let mut sink = std::pin::pin!(sink);
    sink.send(Cursor::new(text.to_vec())).await?;
    sink.close().await
}

/// Reads the option `url`.
///
/// # Errors
/// Fails if it is no URL of a database; the error does not quote it, as it may hold a password.
pub(super) fn parse_url(url: &str) -> Result<Config> {
    url.parse().map_err(|_| {
        let message = "the option url does not name a PostgreSQL database";
        Error::query(message, "write url = 'postgres://user:password@host:5432/database'")
    })
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Schema;

    use super::*;

    #[test]
    fn a_password_is_in_no_message() {
        let config = parse_url("postgres://me:secret@db.example:5433/stock").unwrap();
        let schema = SchemaRef::new(Schema::empty());
        let sink = PostgresSink::new(config, Relation { table: "t".to_owned(), key: Vec::new() }, schema).unwrap();
        assert_eq!(sink.target.place(), "PostgreSQL db.example:5433/stock");
        assert!(!format!("{sink:?}").contains("secret"), "{sink:?}");
        let error = parse_url("postgres://me:secret@db:port/x").unwrap_err();
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}
