//! The engine as a program holds it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use millstream_connectors::is_pushed;
use millstream_engine::cluster::Seat;
use millstream_engine::query::{PlannedQuery, QueryOptions};
use millstream_sql::statement::Control;
use millstream_sql::{
    ParsedStatement, Relation, RelationKind, SERVER_SETTINGS, Session as Language, Statement, StreamQuery,
};

use super::answer::{Answer, fixed_rows};
use super::builder::StreamSpec;
use super::home::{Home, KeptStatement};
use super::live::LiveStreams;
use super::query::{Rows, RunningQuery};
use super::running::{Job, Running};
use super::stream::PushStream;
use super::subscription::Subscription;
use crate::cluster::{Cluster, Declaration, Program};
use crate::declarations::{Prepared, StreamSides, declare, prepare, query_options, register_stream, table_definition};
use crate::error::{Error, Result};
use crate::explain::{analysis, explanation};
use crate::memory::Memory;
use crate::queries::plan_query;
use crate::session::{Script, placed, refusal};

/// Declares streams and runs queries; clones are the same engine.
///
/// Queries end when the last clone is gone, and with it what was got from it. Everything that runs a query is called
/// from within a Tokio runtime.
#[derive(Debug, Clone)]
pub struct Engine {
    pub(super) shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) declared: Mutex<Declared>,
    pub(super) streams: LiveStreams,
    pub(super) running: Mutex<Running>,
    /// Where declarations and queries are kept; none where nothing outlives the process.
    pub(super) home: Option<Home>,
    /// The executors at which the state of queries lies, if there are some.
    pub(super) cluster: Option<Arc<Cluster>>,
    /// Held by whoever changes what is declared, from the look at it to the change.
    pub(super) changing: tokio::sync::Mutex<()>,
}

/// What is declared, and how queries run.
#[derive(Debug, Clone)]
pub(super) struct Declared {
    pub(super) language: Language,
    pub(super) sides: StreamSides,
    pub(super) memory: Memory,
    /// How many queries were planned, and how many for each sink.
    planned: u64,
    sink_uses: BTreeMap<String, u64>,
    /// The queries of materialized views, by the view's name.
    pub(super) views: BTreeMap<String, String>,
}

impl Default for Engine {
    fn default() -> Self {
        Self::new()
    }
}

impl Engine {
    /// An engine on which nothing is declared. State takes half of the machine's memory at the most, running plans a
    /// quarter; `SET state_memory` and `SET plan_memory` change that.
    pub fn new() -> Self {
        Self::within(None, None)
    }

    pub(super) fn within(home: Option<Home>, cluster: Option<Arc<Cluster>>) -> Self {
        let declared = Declared {
            language: Language::new(),
            sides: StreamSides::new(),
            memory: Memory::of_machine(),
            planned: 0,
            sink_uses: BTreeMap::new(),
            views: BTreeMap::new(),
        };
        let shared = Shared {
            declared: Mutex::new(declared),
            streams: LiveStreams::default(),
            running: Mutex::default(),
            home,
            cluster,
            changing: tokio::sync::Mutex::default(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Carries out declarations, settings, `INSERT INTO sink SELECT …` and `CREATE MATERIALIZED VIEW …`, in order; gives
    /// the queries that it has started, which run on. Those that follow each other share the reading of their streams.
    /// `PAUSE QUERY name`, `RESUME QUERY name` and `STOP QUERY name` act on queries that run.
    ///
    /// # Errors
    /// The first statement that is wrong; those before it have been carried out. A SELECT has nowhere to put its rows:
    /// it goes to [`Engine::query`].
    pub async fn run(&self, sql: &str) -> Result<Vec<RunningQuery>> {
        let script = Script::typed(sql);
        let statements = self.declared().language.parse(sql).map_err(|error| refusal(error, &script))?;
        let (mut started, mut jobs) = (Vec::new(), Vec::new());
        let carried_out = self.carry_out(&statements, &script, &mut started, &mut jobs).await;
        // What comes before a statement that is wrong runs all the same.
        started.extend(self.start(jobs)?);
        carried_out.map(|()| started)
    }

    async fn carry_out(
        &self,
        statements: &[ParsedStatement],
        script: &Script,
        started: &mut Vec<RunningQuery>,
        jobs: &mut Vec<Job>,
    ) -> Result<()> {
        for parsed in statements {
            match self.job(self.compile(parsed, script)?, parsed, script).await? {
                ControlFlow::Break(job) => jobs.push(job),
                ControlFlow::Continue(other) => {
                    started.extend(self.start(std::mem::take(jobs))?);
                    self.declare(other, parsed, script).await?;
                }
            }
        }
        Ok(())
    }

    /// Starts a query, `SELECT …`; its rows come as they are found. A query that reads materialized views and tables
    /// and no stream sees each view as its last commit left it. `SHOW …` and `DESCRIBE …` give their rows too.
    ///
    /// # Errors
    /// Fails if the text is not one query that can be run.
    pub async fn query(&self, sql: &str) -> Result<Rows> {
        let script = Script::typed(sql);
        let (query, parsed) = self.only_rows(&script)?;
        self.rows(&query, &parsed, &script).await
    }

    /// Follows a materialized view: `SUBSCRIBE view`, and `AS OF EPOCH n` for what came after that.
    ///
    /// # Errors
    /// Fails if the text is no such statement, or there is no such view.
    pub async fn subscribe(&self, sql: &str) -> Result<Subscription> {
        let script = Script::typed(sql);
        let statements = self.statements(&script)?;
        if let [parsed] = statements.as_slice()
            && let Answer::Following(subscription) = self.answer(parsed, &script).await?
        {
            return Ok(subscription);
        }
        let error = millstream_sql::Error::new("this is no SUBSCRIBE").at(statements.first().map(|of| of.location));
        Err(refusal(error.hint("write SUBSCRIBE view"), &script))
    }

    /// Says how a query would run and what state it would hold, without running it.
    ///
    /// # Errors
    /// Fails if the text is not one query that can be run.
    pub async fn explain(&self, sql: &str) -> Result<String> {
        let script = Script::typed(sql);
        let (query, parsed) = self.only_query(&script)?;
        let planned = self.plan(&query, self.name_of(None), &parsed, &script).await?;
        Ok(explanation(planned.explain()))
    }

    /// Runs a query until its streams end, or [`Engine::stop`], drops its rows, and says what [`Engine::explain`] does
    /// with what its plans have done: `EXPLAIN ANALYZE`.
    ///
    /// # Errors
    /// Fails if the text is not one query that can be run, and as a stream or a plan does.
    pub async fn explain_analyze(&self, sql: &str) -> Result<String> {
        let script = Script::typed(sql);
        let (query, parsed) = self.only_query(&script)?;
        Ok(analysis(&self.analyzed(&query, &parsed, &script).await?.wait().await?))
    }

    /// Declares a pushed stream.
    ///
    /// # Errors
    /// Fails if the name is taken or a column cannot be.
    pub fn create_stream(&self, spec: StreamSpec) -> Result<PushStream> {
        let definition = spec.definition()?;
        let name = definition.name.clone();
        let mut declared = self.declared();
        if declared.language.catalog().relation(&name).is_some() {
            let message = format!("there is a stream, table or view \"{name}\" already");
            return Err(millstream_engine::Error::query(message, "give the stream another name, or drop that").into());
        }
        let Declared { language, sides, .. } = &mut *declared;
        register_stream(language, sides, Arc::new(definition));
        Ok(PushStream { name, streams: self.shared.streams.clone() })
    }

    /// Declares a static table with its rows, in place of the relation of that name; queries that run keep what they
    /// have.
    ///
    /// # Errors
    /// Fails if there is no batch, or they have other columns than the first.
    pub fn register_table(&self, name: &str, rows: Vec<RecordBatch>) -> Result<()> {
        let Some(first) = rows.first() else {
            let message = format!("table \"{name}\" has no columns");
            return Err(millstream_engine::Error::query(message, "give it one batch, perhaps without rows").into());
        };
        let table = MemTable::try_new(first.schema(), vec![rows]).map_err(millstream_engine::Error::from)?;
        let definition = table_definition(&name.to_lowercase(), &table);
        self.declared().language.register_table(Arc::new(definition), Arc::new(table));
        Ok(())
    }

    /// Makes a Rust function of one row known to the SQL that follows.
    pub fn register_function(&self, function: ScalarUDF) {
        self.declared().language.register_function(function);
    }

    /// Makes a Rust aggregate known to the SQL that follows; the order of rows must make no difference to it.
    pub fn register_aggregate(&self, aggregate: AggregateUDF) {
        self.declared().language.register_aggregate(aggregate);
    }

    /// The program's end of a stream that is declared with `connector = 'push'`.
    ///
    /// # Errors
    /// Fails if there is no stream of that name, or it has another connector.
    pub fn stream(&self, name: &str) -> Result<PushStream> {
        let declared = self.declared();
        let catalog = declared.language.catalog();
        let folded = name.to_lowercase();
        let name = if catalog.relation(name).is_some() { name } else { &folded };
        let relation = catalog.expect_relation(name).map_err(|error| Error::Engine(error.into()))?;
        match relation {
            Relation::Stream(stream) if is_pushed(stream) => {
                Ok(PushStream { name: name.to_owned(), streams: self.shared.streams.clone() })
            }
            other => {
                let message = format!("the {} \"{name}\" takes no rows of the program", other.kind().noun());
                Err(millstream_engine::Error::query(message, "declare a stream WITH (connector = 'push')").into())
            }
        }
    }

    /// Stops every query after the epoch in hand, and waits for that; what is declared stays.
    pub async fn stop(&self) {
        let mut tasks = {
            let mut running = self.running();
            running.queries.values().for_each(|query| {
                query.stop.send_replace(true);
            });
            std::mem::take(&mut running.tasks)
        };
        while tasks.join_next().await.is_some() {}
    }

    pub(super) fn declared(&self) -> MutexGuard<'_, Declared> {
        // What is declared is whole after every statement that changes it.
        self.shared.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn running(&self) -> MutexGuard<'_, Running> {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is declared, as a text sees it that is carried out under settings of its own.
    pub(crate) fn language(&self, script: &Script) -> Result<Language> {
        // Planning is not done under the lock.
        let mut language = self.declared().language.clone();
        for (key, value) in &script.settings {
            language.set(key, value).map_err(|error| refusal(error, script))?;
        }
        Ok(language)
    }

    /// The statement, its names looked up; nothing is changed.
    ///
    /// # Errors
    /// It is wrong.
    pub(crate) fn compile(&self, parsed: &ParsedStatement, script: &Script) -> Result<Statement> {
        self.language(script)?.compile(parsed).map_err(|error| refusal(error, script))
    }

    /// The only statement of a text, as a query: a SELECT, or one that tells of what there is.
    fn only_rows(&self, script: &Script) -> Result<(StreamQuery, ParsedStatement)> {
        let statements = self.declared().language.parse(&script.text).map_err(|error| refusal(error, script))?;
        let [parsed] = statements.as_slice() else { return self.only_query(script) };
        match self.shown(self.compile(parsed, script)?)? {
            ControlFlow::Break(rows) => Ok((fixed_rows(rows, &parsed.text)?, parsed.clone())),
            ControlFlow::Continue(_) => self.only_query(script),
        }
    }

    fn only_query(&self, script: &Script) -> Result<(StreamQuery, ParsedStatement)> {
        let statements = self.declared().language.parse(&script.text).map_err(|error| refusal(error, script))?;
        if let [parsed] = statements.as_slice()
            && let Statement::Select(query) = self.compile(parsed, script)?
        {
            return Ok((query, parsed.clone()));
        }
        let place = statements.first().map(|parsed| parsed.location);
        let error = millstream_sql::Error::new("this is not one query").at(place);
        Err(refusal(error.hint("query takes one SELECT; declarations and INSERT go to run"), script))
    }

    pub(super) async fn declare(&self, compiled: Statement, parsed: &ParsedStatement, script: &Script) -> Result<()> {
        self.check_unused(&compiled, parsed, script)?;
        match &compiled {
            Statement::Control { action, query, location } => {
                self.control(*action, query, *location, script)?;
                if *action == Control::Stop && self.shared.home.is_some() {
                    // The same INSERT goes on where it was, once it is there no more.
                    self.ended(query).await;
                }
                return Ok(());
            }
            // Nobody could read what it goes on to keep.
            Statement::Drop { kind: RelationKind::MaterializedView, name } => self.stop_view(name, script).await?,
            _ => {}
        }
        let prepared = prepare(&compiled).await.map_err(|error| placed(error, parsed, script))?;
        if let Prepared::Rows(_, Some(note)) = &prepared {
            tracing::warn!("{note}");
        }
        if let Some(home) = &self.shared.home {
            home.note(&compiled, parsed, script)?;
        }
        let mut declared = self.declared();
        let Declared { language, sides, memory, .. } = &mut *declared;
        if declare(language, sides, memory, compiled, prepared)?.is_none() {
            return Ok(());
        }
        let error = millstream_sql::Error::new("run has nowhere to put rows").at(Some(parsed.location));
        Err(refusal(error.hint("give a SELECT to query, or write INSERT INTO sink SELECT …"), script))
    }

    /// Refuses to take away what a kept query needs whenever it is begun.
    fn check_unused(&self, compiled: &Statement, parsed: &ParsedStatement, script: &Script) -> Result<()> {
        if self.shared.home.is_none() {
            return Ok(());
        }
        let (kind, name, hint) = match compiled {
            Statement::Drop { kind: kind @ (RelationKind::Stream | RelationKind::Sink), name } => {
                (kind.noun(), name, "stop that first: STOP QUERY, or DROP MATERIALIZED VIEW")
            }
            Statement::CreateStream { definition, .. } => {
                ("stream", &definition.name, "stop that first: STOP QUERY, or DROP MATERIALIZED VIEW")
            }
            Statement::CreateSink { definition, .. } => ("sink", &definition.name, "stop that first: STOP QUERY"),
            Statement::Control { action: Control::Stop, query, .. } => {
                if !self.declared().views.values().any(|of_view| of_view == query) {
                    return Ok(());
                }
                let error =
                    millstream_sql::Error::new(format!("query \"{query}\" keeps a materialized view up to date"));
                let error = error.hint("pause it, or drop the view").at(Some(parsed.location));
                return Err(refusal(error, script));
            }
            _ => return Ok(()),
        };
        let users = self.users_of(name);
        if users.is_empty() {
            return Ok(());
        }
        let message = format!("the {kind} \"{name}\" is used by query '{}'", users.join("', '"));
        Err(refusal(millstream_sql::Error::new(message).hint(hint).at(Some(parsed.location)), script))
    }

    /// Ends the query of a materialized view that is dropped.
    async fn stop_view(&self, name: &str, script: &Script) -> Result<()> {
        let Some(query) = self.declared().views.remove(name) else { return Ok(()) };
        // It may have ended by itself.
        let _ = self.control(Control::Stop, &query, None, script);
        if let Some(home) = &self.shared.home {
            self.ended(&query).await;
            // It may have been about to be begun again.
            self.declared().views.remove(name);
            home.forget_view(&query)?;
        }
        Ok(())
    }

    /// Takes back a query that could not be started.
    pub(super) fn undo(&self, kept: &KeptStatement) -> Result<()> {
        let view = {
            let mut declared = self.declared();
            let view = declared.views.iter().find(|(_, query)| **query == kept.query).map(|(view, _)| view.clone());
            view.inspect(|view| {
                declared.views.remove(view);
                declared.language.unregister(RelationKind::MaterializedView, view);
            })
        };
        tracing::debug!(query = kept.query, view, "was not started");
        self.shared.home.as_ref().map_or(Ok(()), |home| home.forget(kept))
    }

    pub(super) async fn plan(
        &self,
        query: &StreamQuery,
        name: String,
        parsed: &ParsedStatement,
        script: &Script,
    ) -> Result<PlannedQuery> {
        let options = self.options(name, script)?;
        let options = QueryOptions { seat: self.seat(query, parsed, script)?, ..options };
        plan_query(query, options).await.map_err(|error| placed(error, parsed, script))
    }

    /// Where the state of a query lies, if not in this process.
    fn seat(&self, query: &StreamQuery, parsed: &ParsedStatement, script: &Script) -> Result<Option<Seat>> {
        let (Some(cluster), Some(home)) = (&self.shared.cluster, &self.shared.home) else { return Ok(None) };
        let is_off = self.language(script)?.setting("executors") == Some("off");
        // The rows of materialized views are here and nowhere else.
        if is_off || !query.is_streaming || query.reads_kept_rows {
            return Ok(None);
        }
        let query = Declaration { text: parsed.text.clone(), settings: own_settings(script) };
        cluster.seat(&Program { declarations: home.declarations(), query }).map(Some)
    }

    /// How a query of that name runs that is planned now.
    pub(super) fn options(&self, name: String, script: &Script) -> Result<QueryOptions> {
        let language = self.language(script)?;
        let options = query_options(&language, &self.declared().memory)?;
        Ok(QueryOptions { name, ..options })
    }

    /// The name of a query that is planned now, into this sink.
    pub(super) fn name_of(&self, sink: Option<&str>) -> String {
        self.declared().name_of(sink)
    }
}

/// The settings of a statement that another process knows too.
fn own_settings(script: &Script) -> BTreeMap<String, String> {
    let is_own = |key: &str| !SERVER_SETTINGS.contains(&key);
    script.settings.iter().filter(|(key, _)| is_own(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

impl Declared {
    /// The name under which a query is known: its sink's, or its number.
    fn name_of(&mut self, sink: Option<&str>) -> String {
        self.planned += 1;
        let Some(sink) = sink else { return format!("query {}", self.planned) };
        let count = self.sink_uses.entry(sink.to_owned()).or_default();
        *count += 1;
        if *count == 1 { sink.to_owned() } else { format!("{sink} {count}") }
    }
}
