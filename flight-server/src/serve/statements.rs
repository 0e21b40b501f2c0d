//! Statements of clients: what columns they give, their rows, and what they change.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::arrow::array::{AsArray, BooleanArray, StringArray};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::query::PlannedQuery;
use millstream_engine::results::MaterializedRows;
use millstream_sql::{ParsedStatement, RelationKind, Shown, Statement};
use tokio::sync::OwnedSemaphorePermit;
use tonic::Status;

use super::Server;
use super::access::Identity;
use super::following::{followed_schema, following};
use super::listen::Connection;
use super::parameters::Template;
use super::results::{Messages, client_schema, ended, fixed, running, until};
use super::sessions::{Session, Waiting};
use super::spool::SlowReader;
use super::status::{bad_arrow, status};
use crate::embed::{Answer, Subscription};
use crate::explain::analysis;
use crate::session::Script;

/// The longest statement, in bytes.
const MAX_TEXT_BYTES: usize = 256 << 10;
/// The column of EXPLAIN.
const PLAN: &str = "plan";

/// A result whose columns are known and that nobody has fetched yet.
#[derive(Debug)]
pub(super) enum Pending {
    /// A query; planned until it is fetched the first time.
    Rows { planned: Mutex<Option<Box<PlannedQuery>>>, parsed: ParsedStatement, script: Script },
    /// A materialized view to be followed, from after an epoch on.
    Following { rows: Arc<dyn MaterializedRows>, after: Option<u64> },
    /// A query that runs, to be gone on with from after an epoch on.
    Resumed { query: String, after: Option<u64> },
    /// A query to be run for the sake of what its plans do.
    Analysis { parsed: ParsedStatement, script: Script },
    /// Rows that are there; none, without columns, for a statement that was carried out.
    Fixed(RecordBatch),
}

/// What a statement gives: its columns, and a result with them.
pub(super) type Asked = (SchemaRef, Pending);

impl Server {
    /// The statements of a text under the settings of a session.
    fn statements(&self, session: &Session, text: &str) -> Result<(Vec<ParsedStatement>, Script), Status> {
        if text.len() > MAX_TEXT_BYTES {
            let message = format!("the statement has {} bytes, and {MAX_TEXT_BYTES} are allowed", text.len());
            return Err(Status::invalid_argument(message));
        }
        let script = Script { settings: session.settings(), ..Script::typed(text) };
        let parsed = self.engine.statements(&script).map_err(|error| status(&error))?;
        Ok((parsed, script))
    }

    fn single(&self, session: &Session, text: &str) -> Result<(ParsedStatement, Script), Status> {
        let (mut parsed, script) = self.statements(session, text)?;
        match (parsed.pop(), parsed.is_empty()) {
            (Some(statement), true) => Ok((statement, script)),
            (None, _) => Err(Status::invalid_argument("there is no statement in the text")),
            _ => Err(Status::invalid_argument("send one statement at a time")),
        }
    }

    /// A statement that the user of the session may run, with names of things that the user may know of.
    fn compiled(&self, session: &Session, parsed: &ParsedStatement, script: &Script) -> Result<Statement, Status> {
        let compiled = self.engine.compile(parsed, script).map_err(|error| status(&error))?;
        session.user.check_statement(&compiled)?;
        let compiled = match compiled {
            Statement::Show { of: Shown::All(kind), rows } => {
                let rows = rows_seen(&session.user, kind, &rows)?;
                Statement::Show { of: Shown::All(kind), rows }
            }
            other => other,
        };
        self.engine.told(compiled, parsed).map_err(|error| status(&error))
    }

    /// Finds what columns a statement gives. One that gives none is carried out.
    pub(super) async fn ask(&self, session: &Session, text: &str) -> Result<Asked, Status> {
        let (parsed, script) = self.single(session, text)?;
        match self.compiled(session, &parsed, &script)? {
            Statement::Select(query) => {
                let planned = self.engine.plan_rows(&query, &parsed, &script).await.map_err(|error| status(&error))?;
                let schema = client_schema(&planned.schema());
                Ok((schema, Pending::Rows { planned: Mutex::new(Some(Box::new(planned))), parsed, script }))
            }
            Statement::Subscribe { rows, after, .. } => {
                Ok((followed_schema(&rows.schema()), Pending::Following { rows, after }))
            }
            Statement::SubscribeQuery { query, after } => {
                // Not the query itself, which would run on for the sake of a result that nobody fetches.
                let schema = Arc::clone(&self.selects.find(&query, &session.user.name)?.schema);
                Ok((schema, Pending::Resumed { query, after }))
            }
            Statement::ExplainAnalyze(_) => Ok((plan_schema(), Pending::Analysis { parsed, script })),
            Statement::Explain(_) => {
                let answer = self.engine.answer(&parsed, &script).await.map_err(|error| status(&error))?;
                let text = if let Answer::Text(text) = answer { text } else { String::new() };
                Ok((plan_schema(), Pending::Fixed(lines(&text)?)))
            }
            other => {
                self.carry_out(session, other, &parsed, &script).await?;
                let none = Arc::new(Schema::empty());
                Ok((Arc::clone(&none), Pending::Fixed(RecordBatch::new_empty(none))))
            }
        }
    }

    /// The columns that a statement would give, carrying out none; without columns for one that gives no rows.
    pub(super) async fn describe(&self, session: &Session, template: &Template) -> Result<SchemaRef, Status> {
        let (parsed, script) = self.single(session, &template.open())?;
        match self.compiled(session, &parsed, &script)? {
            Statement::Select(query) => {
                let planned = self.engine.plan_rows(&query, &parsed, &script).await.map_err(|error| status(&error))?;
                Ok(client_schema(&planned.schema()))
            }
            Statement::Subscribe { rows, .. } => Ok(followed_schema(&rows.schema())),
            Statement::SubscribeQuery { query, .. } => {
                Ok(Arc::clone(&self.selects.find(&query, &session.user.name)?.schema))
            }
            Statement::Explain(_) | Statement::ExplainAnalyze(_) => Ok(plan_schema()),
            _ => Ok(Arc::new(Schema::empty())),
        }
    }

    /// The types of the parameters, text where the statement does not say.
    pub(super) fn parameter_schema(&self, session: &Session, template: &Template) -> Schema {
        let types = self.single(session, &template.numbered()).ok().and_then(|(parsed, script)| {
            match self.compiled(session, &parsed, &script).ok()? {
                Statement::Select(query) | Statement::Insert { query, .. } => query.logical.get_parameter_types().ok(),
                _ => None,
            }
        });
        let fields = (1..=template.parameters()).map(|number| {
            let name = format!("${number}");
            let kind = types.as_ref().and_then(|types| types.get(&name).cloned().flatten());
            Field::new(name, kind.unwrap_or(DataType::Utf8), true)
        });
        client_schema(&Schema::new(fields.collect::<Vec<_>>())).as_ref().clone()
    }

    /// Carries out statements that give no rows; how many rows they wrote.
    pub(super) async fn update(&self, session: &Session, text: &str) -> Result<i64, Status> {
        let (statements, mut script) = self.statements(session, text)?;
        let mut written = 0;
        for parsed in &statements {
            // A SET before it counts.
            script.settings = session.settings();
            let compiled = self.compiled(session, parsed, &script)?;
            if let Statement::Select(_)
            | Statement::Subscribe { .. }
            | Statement::SubscribeQuery { .. }
            | Statement::Explain(_)
            | Statement::ExplainAnalyze(_) = compiled
            {
                return Err(Status::invalid_argument("the statement gives rows: run it as a query, not as an update"));
            }
            written += self.carry_out(session, compiled, parsed, &script).await?;
        }
        Ok(written)
    }

    async fn carry_out(
        &self,
        session: &Session,
        compiled: Statement,
        parsed: &ParsedStatement,
        script: &Script,
    ) -> Result<i64, Status> {
        if let Statement::Set { key, value } = compiled {
            return self.set(session, &key, &value).map(|()| 0);
        }
        if let Statement::Nothing { .. } = compiled {
            // It would be looked at again, and might be something by then.
            return Ok(0);
        }
        self.confinement.check(&compiled)?;
        tracing::info!(target: "millstream::audit", user = session.user.name, "{}", told(&parsed.text));
        match self.engine.answer(parsed, script).await.map_err(|error| status(&error))? {
            Answer::Writing(query) | Answer::Analysis(query) => {
                // Also where its time is over, or the client has left.
                let _stopping = query.stopping();
                let summary = tokio::select! {
                    summary = query.wait() => summary.map_err(|error| status(&error))?,
                    ended = out_of_time(self.limits.statement) => return Err(ended),
                };
                Ok(i64::try_from(summary.progress.rows_written).unwrap_or(i64::MAX))
            }
            Answer::Started(_) | Answer::Text(_) | Answer::Rows(_) | Answer::Following(_) | Answer::Done => Ok(0),
        }
    }

    /// Sets something for a session; what holds for the whole server is for administrators.
    pub(super) fn set(&self, session: &Session, key: &str, value: &str) -> Result<(), Status> {
        if ["state_memory", "plan_memory"].contains(&key) {
            let hint = "start the server with it";
            return Err(Status::permission_denied(format!("{key} holds for the whole server: {hint}")));
        }
        let mut script = Script { settings: session.settings(), ..Script::typed("") };
        script.settings.insert(key.to_owned(), value.to_owned());
        self.engine.language(&script).map_err(|error| status(&error))?;
        session.set(key, value);
        Ok(())
    }

    /// The messages of a result, for the connection that asks.
    pub(super) async fn fetch(
        &self,
        session: &Session,
        waiting: &Arc<Waiting>,
        connection: Option<Connection>,
    ) -> Result<Messages, Status> {
        match &waiting.pending {
            Pending::Fixed(batch) => Ok(fixed(batch)),
            Pending::Resumed { query, after } => {
                let select = self.selects.find(query, &session.user.name)?;
                let messages = self.selects.read(select, *after, connection, waiting.cancelled.subscribe())?;
                Ok(self.ending(messages, waiting))
            }
            Pending::Following { rows, after } => {
                let subscription = Subscription::new(Arc::clone(rows), *after);
                Ok(self.ending(following(subscription, *after)?, waiting))
            }
            Pending::Analysis { parsed, script } => {
                let answer = self.engine.answer(parsed, script).await.map_err(|error| status(&error))?;
                let Answer::Analysis(query) = answer else { return Err(Status::internal("nothing to analyse")) };
                // Also where the client leaves, and this is dropped.
                let stopping = query.stopping();
                let _place = self.place()?;
                let waited = query.wait();
                tokio::pin!(waited);
                let summary = tokio::select! {
                    summary = &mut waited => summary,
                    ended = ended(waiting.cancelled.subscribe(), self.stop.clone()) => return Err(ended),
                    _ = out_of_time(self.limits.statement) => {
                        // What it has done until now is what was asked for.
                        drop(stopping);
                        waited.await
                    }
                };
                Ok(fixed(&lines(&analysis(&summary.map_err(|error| status(&error))?))?))
            }
            Pending::Rows { planned, parsed, script } => {
                let planned = planned.lock().unwrap_or_else(PoisonError::into_inner).take();
                let planned = match planned {
                    Some(planned) => *planned,
                    None => self.plan_again(session, parsed, script).await?,
                };
                self.run(session, waiting, planned, connection)
            }
        }
    }

    /// Runs a query; one over streams can be gone on with over another connection, any other one has a time to end.
    fn run(
        &self,
        session: &Session,
        waiting: &Waiting,
        planned: PlannedQuery,
        connection: Option<Connection>,
    ) -> Result<Messages, Status> {
        let place = self.place()?;
        if planned.streams().is_empty() {
            let schema = client_schema(&planned.schema());
            let rows = self.engine.start_rows(planned).map_err(|error| status(&error))?;
            let messages = self.ending(running(rows, schema, place, self.limits.result_bytes)?, waiting);
            return Ok(until(messages, out_of_time(self.limits.statement)));
        }
        let slow_reader = session.settings().get("slow_reader").map(|word| SlowReader::of(word)).unwrap_or_default();
        let select = self.selects.start(&self.engine, planned, &session.user.name, slow_reader, place)?;
        let messages = self.selects.read(select, None, connection, waiting.cancelled.subscribe())?;
        Ok(self.ending(messages, waiting))
    }

    /// A place among the queries that run at once.
    fn place(&self) -> Result<OwnedSemaphorePermit, Status> {
        loop {
            match Arc::clone(&self.places).try_acquire_owned() {
                Ok(place) => return Ok(place),
                // Those that wait for their clients to come again go first.
                Err(_) if self.selects.give_way() => {}
                Err(_) => {
                    let message = "as many SELECTs run as the server lets run at once: try again later";
                    return Err(Status::resource_exhausted(message));
                }
            }
        }
    }

    /// The messages until the client cancels them by another call, or the server stops.
    fn ending(&self, messages: Messages, waiting: &Waiting) -> Messages {
        until(messages, ended(waiting.cancelled.subscribe(), self.stop.clone()))
    }

    async fn plan_again(
        &self,
        session: &Session,
        parsed: &ParsedStatement,
        script: &Script,
    ) -> Result<PlannedQuery, Status> {
        let Statement::Select(query) = self.compiled(session, parsed, script)? else {
            return Err(Status::internal("a query is none any more"));
        };
        self.engine.plan_rows(&query, parsed, script).await.map_err(|error| status(&error))
    }
}

/// The rows of a list that tell of what the user may know of.
fn rows_seen(user: &Identity, kind: RelationKind, rows: &RecordBatch) -> Result<RecordBatch, Status> {
    let Some(names) = rows.columns().first().and_then(|names| names.as_string_opt::<i32>()) else {
        return Err(Status::internal("a list has no names"));
    };
    let seen: BooleanArray = names.iter().map(|name| name.map(|name| user.role.sees(kind, name))).collect();
    filter_record_batch(rows, &seen).map_err(|error| bad_arrow(&error))
}

/// Completes when a statement has run for as long as it may.
async fn out_of_time(limit: Duration) -> Status {
    tokio::time::sleep(limit).await;
    let limit = limit.as_secs();
    Status::deadline_exceeded(format!("the statement has run for {limit} s, which is max_statement_seconds"))
}

/// The first words of a statement, for the audit log: what it does and to what, and not what its options hold.
fn told(text: &str) -> String {
    let head = text.split(['(', '\'', '"']).next().unwrap_or_default();
    head.split_whitespace().take(5).collect::<Vec<_>>().join(" ")
}

fn plan_schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new(PLAN, DataType::Utf8, true)]))
}

/// A text as rows of one line each.
fn lines(text: &str) -> Result<RecordBatch, Status> {
    let lines: StringArray = text.lines().map(Some).collect();
    RecordBatch::try_new(plan_schema(), vec![Arc::new(lines)]).map_err(|error| bad_arrow(&error))
}
