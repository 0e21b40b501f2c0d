//! The engine as a program holds it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::{MemTable, provider_as_source};
use datafusion::logical_expr::{AggregateUDF, LogicalPlanBuilder, ScalarUDF};
use millstream_connectors::{ViewSink, is_pushed};
use millstream_engine::ingest::Ingest;
use millstream_engine::plan::{Emission, Location, StreamDefinition};
use millstream_engine::query::{PlannedQuery, Query, QueryOptions, QueryProgress};
use millstream_engine::side::SideTables;
use millstream_engine::sink::Sink;
use millstream_sql::statement::{Control, Running as ShowRunning};
use millstream_sql::{ParsedStatement, Relation, RelationKind, Session as Language, Statement, StreamQuery};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::builder::StreamSpec;
use super::live::{Lease, LiveStreams};
use super::query::{Rows, RowsSink, RunningQuery};
use super::stream::PushStream;
use crate::declarations::{StreamSides, declare, prepare, query_options, register_stream, table_definition};
use crate::error::{Error, Result};
use crate::explain::{analysis, explanation, plan_analyzed};
use crate::memory::Memory;
use crate::queries::{open_stream, plan_query};
use crate::running::{QueryStatus, queries_table, state_table, watermarks_table};
use crate::session::{Script, placed, refusal};

/// Declares streams and runs queries; clones are the same engine.
///
/// Queries end when the last clone is gone, and with it what was got from it. Everything that runs a query is called
/// from within a Tokio runtime.
#[derive(Debug, Clone)]
pub struct Engine {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    declared: Mutex<Declared>,
    streams: LiveStreams,
    running: Mutex<Running>,
}

/// What is declared, and how queries run.
#[derive(Debug, Clone)]
struct Declared {
    language: Language,
    sides: StreamSides,
    memory: Memory,
    /// How many queries were planned, and how many for each sink.
    planned: u64,
    sink_uses: BTreeMap<String, u64>,
    /// The queries of materialized views, by the view's name.
    views: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct Running {
    queries: BTreeMap<u64, Live>,
    started: u64,
    tasks: JoinSet<()>,
}

/// A query that runs.
#[derive(Debug)]
struct Live {
    name: String,
    stop: watch::Sender<bool>,
    pause: watch::Sender<bool>,
    progress: watch::Receiver<QueryProgress>,
    ingests: Vec<Arc<Ingest>>,
}

/// A query that is planned, where its rows go, and what stops it.
struct Job {
    query: PlannedQuery,
    sink: Box<dyn Sink>,
    stop: watch::Sender<bool>,
}

/// What a query keeps from ending while it runs.
#[derive(Default)]
struct Kept {
    _leases: Vec<Lease>,
    _reading: Vec<Arc<SpawnedTask<()>>>,
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
        let declared = Declared {
            language: Language::new(),
            sides: StreamSides::new(),
            memory: Memory::of_machine(),
            planned: 0,
            sink_uses: BTreeMap::new(),
            views: BTreeMap::new(),
        };
        let shared =
            Shared { declared: Mutex::new(declared), streams: LiveStreams::default(), running: Mutex::default() };
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
        let script = script(sql);
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
            let compiled = self.compile(parsed, script)?;
            let (query, sink) = match compiled {
                Statement::Insert { sink, query } => {
                    let planned = self.plan(&query, Some(&sink.name), parsed, script).await?;
                    let sink = millstream_connectors::open_sink(&sink.name, &sink.options, planned.schema())
                        .map_err(|error| placed(error, parsed, script))?;
                    (planned, sink)
                }
                Statement::CreateMaterializedView { definition, query, retain } => {
                    let planned = self.plan(&query, Some(&definition.name), parsed, script).await?;
                    let sink = ViewSink::open(&definition.name, planned.results(), planned.schema(), retain, None)
                        .map_err(|error| placed(error, parsed, script))?;
                    let mut declared = self.declared();
                    declared.views.insert(definition.name.clone(), planned.name().to_owned());
                    declared.language.register_materialized_view(definition, sink.rows());
                    (planned, Box::new(sink) as Box<dyn Sink>)
                }
                other => {
                    started.extend(self.start(std::mem::take(jobs))?);
                    self.declare(other, parsed, script).await?;
                    continue;
                }
            };
            jobs.push(Job { query, sink, stop: watch::channel(false).0 });
        }
        Ok(())
    }

    /// Starts a query, `SELECT …`; its rows come as they are found. A query that reads materialized views and tables
    /// and no stream sees each view as its last commit left it. `SHOW …` and `DESCRIBE …` give their rows too.
    ///
    /// # Errors
    /// Fails if the text is not one query that can be run.
    pub async fn query(&self, sql: &str) -> Result<Rows> {
        let script = script(sql);
        let (query, parsed) = self.only_rows(&script)?;
        let planned = self.plan(&query, None, &parsed, &script).await?;
        let schema = planned.schema();
        let (stop, stopped) = watch::channel(false);
        let (sink, batches) = RowsSink::new(stopped);
        let started = self.start(vec![Job { query: planned, sink: Box::new(sink), stop }])?.pop();
        let running = started.ok_or_else(|| millstream_engine::Error::internal("a query was not started"))?;
        Ok(Rows::new(schema, batches, running))
    }

    /// Says how a query would run and what state it would hold, without running it.
    ///
    /// # Errors
    /// Fails if the text is not one query that can be run.
    pub async fn explain(&self, sql: &str) -> Result<String> {
        let script = script(sql);
        let (query, parsed) = self.only_query(&script)?;
        let planned = self.plan(&query, None, &parsed, &script).await?;
        Ok(explanation(planned.explain()))
    }

    /// Runs a query until its streams end, or [`Engine::stop`], drops its rows, and says what [`Engine::explain`] does
    /// with what its plans have done: `EXPLAIN ANALYZE`.
    ///
    /// # Errors
    /// Fails if the text is not one query that can be run, and as a stream or a plan does.
    pub async fn explain_analyze(&self, sql: &str) -> Result<String> {
        let script = script(sql);
        let (query, parsed) = self.only_query(&script)?;
        let planned = plan_analyzed(&query, self.options(None)?).await;
        let (query, sink) = planned.map_err(|error| placed(error, &parsed, &script))?;
        let started = self.start(vec![Job { query, sink, stop: watch::channel(false).0 }])?.pop();
        let running = started.ok_or_else(|| millstream_engine::Error::internal("a query was not started"))?;
        Ok(analysis(&running.wait().await?))
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

    fn declared(&self) -> MutexGuard<'_, Declared> {
        // What is declared is whole after every statement that changes it.
        self.shared.declared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn running(&self) -> MutexGuard<'_, Running> {
        self.shared.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn compile(&self, parsed: &ParsedStatement, script: &Script) -> Result<Statement> {
        // Planning is not done under the lock.
        let language = self.declared().language.clone();
        language.compile(parsed).map_err(|error| refusal(error, script))
    }

    /// The only statement of a text, as a query: a SELECT, or one that tells of what there is.
    fn only_rows(&self, script: &Script) -> Result<(StreamQuery, ParsedStatement)> {
        let statements = self.declared().language.parse(&script.text).map_err(|error| refusal(error, script))?;
        let [parsed] = statements.as_slice() else { return self.only_query(script) };
        let rows = match self.compile(parsed, script)? {
            Statement::Show(rows) => rows,
            Statement::ShowRunning(ShowRunning::Queries) => queries_table(&self.query_statuses())?,
            Statement::ShowRunning(ShowRunning::State) => state_table(&self.query_statuses())?,
            Statement::ShowRunning(ShowRunning::Watermarks) => watermarks_table(&self.ingests())?,
            _ => return self.only_query(script),
        };
        Ok((fixed_rows(rows, &parsed.text)?, parsed.clone()))
    }

    /// The queries that run, in the order in which they were started.
    fn query_statuses(&self) -> Vec<QueryStatus> {
        let running = self.running();
        let status = |query: &Live| QueryStatus {
            name: query.name.clone(),
            state: if *query.pause.borrow() { "paused" } else { "running" },
            progress: query.progress.borrow().clone(),
        };
        running.queries.values().map(status).collect()
    }

    /// The streams that are being read, each once.
    fn ingests(&self) -> Vec<Arc<Ingest>> {
        let running = self.running();
        let mut found: Vec<Arc<Ingest>> = Vec::new();
        for ingest in running.queries.values().flat_map(|query| &query.ingests) {
            if !found.iter().any(|known| Arc::ptr_eq(known, ingest)) {
                found.push(Arc::clone(ingest));
            }
        }
        found
    }

    /// Acts on the query of that name, the one that was started last.
    fn control(&self, action: Control, name: &str, place: Option<Location>, script: &Script) -> Result<()> {
        let running = self.running();
        let Some(query) = running.queries.values().rfind(|query| query.name == name) else {
            let names: Vec<_> = running.queries.values().map(|query| query.name.as_str()).collect();
            let error = millstream_sql::Error::new(format!("no query \"{name}\" runs"));
            let hint = if names.is_empty() {
                "no query runs".into()
            } else {
                format!("those that run are '{}'", names.join("', '"))
            };
            return Err(refusal(error.hint(hint).at(place), script));
        };
        match action {
            Control::Pause => query.pause.send_replace(true),
            Control::Resume => query.pause.send_replace(false),
            Control::Stop => query.stop.send_replace(true),
        };
        Ok(())
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

    async fn declare(&self, compiled: Statement, parsed: &ParsedStatement, script: &Script) -> Result<()> {
        match &compiled {
            Statement::Control { action, query, location } => {
                return self.control(*action, query, *location, script);
            }
            // Nobody could read what it goes on to keep.
            Statement::Drop { kind: RelationKind::MaterializedView, name } => {
                let query = self.declared().views.remove(name);
                // It may have ended by itself.
                let _ = query.map(|query| self.control(Control::Stop, &query, None, script));
            }
            _ => {}
        }
        let prepared = prepare(&compiled).await.map_err(|error| placed(error, parsed, script))?;
        if let Some((_, Some(note))) = &prepared {
            tracing::warn!("{note}");
        }
        let mut declared = self.declared();
        let Declared { language, sides, memory, .. } = &mut *declared;
        if declare(language, sides, memory, compiled, prepared)?.is_none() {
            return Ok(());
        }
        let error = millstream_sql::Error::new("run has nowhere to put rows").at(Some(parsed.location));
        Err(refusal(error.hint("give a SELECT to query, or write INSERT INTO sink SELECT …"), script))
    }

    async fn plan(
        &self,
        query: &StreamQuery,
        sink: Option<&str>,
        parsed: &ParsedStatement,
        script: &Script,
    ) -> Result<PlannedQuery> {
        let options = self.options(sink)?;
        plan_query(query, options).await.map_err(|error| placed(error, parsed, script))
    }

    /// How a query runs that is planned now, into this sink.
    fn options(&self, sink: Option<&str>) -> Result<QueryOptions> {
        let mut declared = self.declared();
        let options = query_options(&declared.language, &declared.memory)?;
        Ok(QueryOptions { name: declared.name_of(sink), ..options })
    }

    /// Starts queries that share the reading of their streams.
    fn start(&self, jobs: Vec<Job>) -> Result<Vec<RunningQuery>> {
        let sides = self.declared().sides.clone();
        let mut opened: BTreeMap<String, Arc<Ingest>> = BTreeMap::new();
        let mut started = Vec::new();
        for Job { query, sink, stop } in jobs {
            let name = query.name().to_owned();
            for stream in query.streams().iter().filter(|stream| !is_pushed(stream)) {
                if !opened.contains_key(&stream.name) {
                    opened.insert(stream.name.clone(), Arc::new(open_stream(stream, &sides)?));
                }
            }
            let (query, leases) = self.join(query, &opened, &sides)?;
            started.push((name, query, sink, stop, leases));
        }
        // Every query has its place in every log now.
        let reading = opened.into_values().map(|ingest| {
            let reading = SpawnedTask::spawn(async move { ingest.run().await });
            Arc::new(reading)
        });
        let reading: Vec<_> = reading.collect();
        let running = started.into_iter().map(|(name, query, sink, stop, leases)| {
            let kept = Kept { _leases: leases, _reading: reading.clone() };
            self.spawn(name, query, sink, stop, kept)
        });
        Ok(running.collect())
    }

    /// Gives a query its place in the logs of its streams, those that were opened for it and those that are pushed.
    fn join(
        &self,
        query: PlannedQuery,
        opened: &BTreeMap<String, Arc<Ingest>>,
        sides: &StreamSides,
    ) -> Result<(Query, Vec<Lease>)> {
        let side_of = |stream: &StreamDefinition| match sides.get(&stream.name) {
            Some(side) => side.clone(),
            None => SideTables::new(&stream.schema),
        };
        let streams = query.streams().to_vec();
        let pushed = streams.iter().filter(|stream| is_pushed(stream));
        let pushed: Vec<_> = pushed.map(|stream| (Arc::clone(stream), side_of(stream))).collect();
        let joined = self.shared.streams.join(&pushed, |live| {
            let live_one = |name: &str| live.iter().find(|ingest| ingest.definition().name == name);
            let ingests = streams.iter().filter_map(|stream| opened.get(&stream.name).or(live_one(&stream.name)));
            query.start(ingests.cloned().collect())
        });
        Ok(joined?)
    }

    fn spawn(
        &self,
        name: String,
        query: Query,
        mut sink: Box<dyn Sink>,
        stop: watch::Sender<bool>,
        kept: Kept,
    ) -> RunningQuery {
        let (progress, stopped) = (query.progress(), stop.subscribe());
        let live = Live {
            name: name.clone(),
            stop: stop.clone(),
            pause: query.pause(),
            progress: progress.clone(),
            ingests: query.ingests(),
        };
        let (ending, ended) = oneshot::channel();
        let mut running = self.running();
        running.started += 1;
        let id = running.started;
        running.queries.insert(id, live);
        // What has ended leaves no trace here.
        while running.tasks.try_join_next().is_some() {}
        let (shared, task_name) = (Arc::downgrade(&self.shared), name.clone());
        running.tasks.spawn(async move {
            let summary = query.run(sink.as_mut(), stopped).await;
            // The rows are at their end before the program is told how the query ended.
            drop((sink, kept));
            if let Some(shared) = shared.upgrade() {
                shared.running.lock().unwrap_or_else(PoisonError::into_inner).queries.remove(&id);
            }
            if let Err(Err(error)) = ending.send(summary) {
                tracing::error!(query = %task_name, %error, "a query failed that nobody waits for");
            }
        });
        drop(running);
        RunningQuery { name, stop, progress, ended, _engine: self.clone() }
    }
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

/// Rows that are there already, as a query.
fn fixed_rows(rows: RecordBatch, text: &str) -> Result<StreamQuery> {
    let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).map_err(millstream_engine::Error::from)?;
    let logical = LogicalPlanBuilder::scan("shown", provider_as_source(Arc::new(table)), None)
        .and_then(LogicalPlanBuilder::build)
        .map_err(millstream_engine::Error::from)?;
    Ok(StreamQuery {
        logical,
        text: text.to_owned(),
        emission: Emission::default(),
        is_streaming: false,
        reads_kept_rows: false,
        late_sink: None,
    })
}

fn script(sql: &str) -> Script {
    Script { origin: "SQL".to_owned(), text: sql.to_owned() }
}
