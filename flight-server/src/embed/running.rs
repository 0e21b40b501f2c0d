//! Queries that run: how they are started, watched and stopped, and begun again after failures that may pass.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::common::runtime::SpawnedTask;
use futures::FutureExt;
use millstream_connectors::{ViewSink, is_pushed};
use millstream_engine::CheckpointPolicy;
use millstream_engine::Error as EngineError;
use millstream_engine::durable::{Misfit, StateDirectory, resume_streams};
use millstream_engine::ingest::Ingest;
use millstream_engine::plan::{Location, StreamDefinition, StreamDurability};
use millstream_engine::query::{PlannedQuery, Query, QueryProgress, Recipe};
use millstream_engine::secret::redacted;
use millstream_engine::side::SideTables;
use millstream_engine::sink::Sink;
use millstream_sql::statement::Control;
use millstream_sql::{ParsedStatement, RelationKind, Statement};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use super::engine::Engine;
use super::home::KeptStatement;
use super::live::Lease;
use super::query::RunningQuery;
use crate::declarations::StreamSides;
use crate::error::{Error, Result};
use crate::queries::open_stream;
use crate::running::QueryStatus;
use crate::session::{Script, placed, refusal};

/// How long to wait before a query is begun again: at first, and at the most, as it fails again and again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// A query that ran for so long has got over what it failed of before.
const WELL_AFTER: Duration = Duration::from_secs(300);

/// How often it is looked whether a query has ended.
const LOOK: Duration = Duration::from_millis(5);

/// The queries that run or will be begun again.
#[derive(Debug, Default)]
pub(super) struct Running {
    pub(super) queries: BTreeMap<u64, Live>,
    started: u64,
    pub(super) tasks: JoinSet<()>,
}

/// A query that runs, or one that is kept and does not run for now.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) name: String,
    pub(super) stop: watch::Sender<bool>,
    pause: watch::Sender<bool>,
    pub(super) progress: watch::Receiver<QueryProgress>,
    pub(super) ingests: Vec<Arc<Ingest>>,
    kept: Option<Arc<KeptStatement>>,
    trouble: Option<Trouble>,
}

/// Why a kept query does not run.
#[derive(Debug)]
struct Trouble {
    error: String,
    /// Whether it will be begun again.
    may_pass: bool,
}

/// A query that is planned, where its rows go, and what stops it.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) query: PlannedQuery,
    pub(super) sink: Box<dyn Sink>,
    pub(super) stop: watch::Sender<bool>,
    /// What it is begun again from, where the engine keeps it.
    pub(super) kept: Option<Arc<KeptStatement>>,
}

/// What a query keeps from ending while it runs.
#[derive(Default)]
pub(super) struct Held {
    _leases: Vec<Lease>,
    _reading: Vec<Arc<SpawnedTask<()>>>,
}

/// A query that has its place in the logs of its streams.
pub(super) struct Begun {
    pub(super) name: String,
    pub(super) query: Query,
    /// How it is begun again when executors were lost, if nothing keeps it.
    pub(super) recipe: Option<Recipe>,
    pub(super) sink: Box<dyn Sink>,
    pub(super) stop: watch::Sender<bool>,
    pub(super) held: Held,
    pub(super) kept: Option<Arc<KeptStatement>>,
}

impl Engine {
    /// The query that a statement has run on by itself; the statement, if it is another.
    pub(super) async fn job(
        &self,
        compiled: Statement,
        parsed: &ParsedStatement,
        script: &Script,
    ) -> Result<ControlFlow<Job, Statement>> {
        let (destination, is_streaming) = match &compiled {
            Statement::Insert { sink, query } => (sink.name.clone(), query.is_streaming),
            Statement::CreateMaterializedView { definition, .. } => (definition.name.clone(), true),
            _ => return Ok(ControlFlow::Continue(compiled)),
        };
        let name = self.free_name(&destination);
        let Some(home) = self.shared.home.as_ref().filter(|_| is_streaming) else {
            return Ok(ControlFlow::Break(self.job_of(compiled, name, None, parsed, script).await?));
        };
        let mut kept = KeptStatement::query(&compiled, name.clone(), parsed, script);
        let mut job = self.job_of(compiled, name, None, parsed, script).await?;
        kept.reads = job.query.streams().iter().map(|stream| stream.name.clone()).collect();
        let kept = Arc::new(kept);
        if let Err(error) = self.check_keepable(&job.query).and_then(|()| home.add(&kept)) {
            self.undo(&kept)?;
            return Err(error);
        }
        job.kept = Some(kept);
        Ok(ControlFlow::Break(job))
    }

    /// The name of a query into a destination: where queries are kept the first one that none has, so that a query that
    /// was stopped goes on where it was.
    fn free_name(&self, destination: &str) -> String {
        let Some(home) = &self.shared.home else { return self.name_of(Some(destination)) };
        let is_taken =
            |name: &String| home.has_query(name) || self.running().queries.values().any(|live| live.name == *name);
        let others = (2..).map(|number: u64| format!("{destination} {number}"));
        let mut names = std::iter::once(destination.to_owned()).chain(others);
        names.find(|name| !is_taken(name)).unwrap_or_default()
    }

    /// Refuses a query of which nothing can be kept, or that would read what only one query can.
    fn check_keepable(&self, query: &PlannedQuery) -> Result<()> {
        for stream in query.streams() {
            if stream.durability == Some(StreamDurability::None) {
                let message = format!("nothing is kept of stream \"{}\", which has durability = 'none'", stream.name);
                return Err(EngineError::query(message, "declare it without, or SELECT from it").into());
            }
            let running = self.running();
            let reads = |live: &&Live| {
                let same = live
                    .ingests
                    .iter()
                    .any(|ingest| ingest.definition().name == stream.name && !ingest.is_replayable());
                live.kept.is_some() && same
            };
            if let Some(other) = running.queries.values().find(reads) {
                let message = format!("\"{}\" is read by query '{}' and cannot be read again", stream.name, other.name);
                let hint =
                    "declare it once more under another name, or send its rows to a stream with connector = 'push'";
                return Err(EngineError::query(message, hint).into());
            }
        }
        Ok(())
    }

    /// The query of that name that a statement runs.
    pub(super) async fn job_of(
        &self,
        compiled: Statement,
        name: String,
        kept: Option<Arc<KeptStatement>>,
        parsed: &ParsedStatement,
        script: &Script,
    ) -> Result<Job> {
        let (query, sink) = match compiled {
            Statement::Insert { sink, query } => {
                let planned = self.plan(&query, name, parsed, script).await?;
                let sink = millstream_connectors::open_sink(&sink.name, &sink.options, planned.schema())
                    .map_err(|error| placed(error, parsed, script))?;
                (planned, sink)
            }
            Statement::CreateMaterializedView { definition, query, retain } => {
                let planned = self.plan(&query, name, parsed, script).await?;
                let home = self.shared.home.as_ref();
                let file = home.map(|home| home.view_file(planned.name())).transpose()?;
                let sink = ViewSink::open(&definition.name, planned.results(), planned.schema(), retain, file)
                    .map_err(|error| placed(error, parsed, script))?;
                let mut declared = self.declared();
                declared.views.insert(definition.name.clone(), planned.name().to_owned());
                declared.language.register_materialized_view(definition, sink.rows());
                (planned, Box::new(sink) as Box<dyn Sink>)
            }
            _ => return Err(EngineError::internal("a statement without a query was to run").into()),
        };
        Ok(Job { query, sink, stop: watch::channel(false).0, kept })
    }

    pub(super) fn start_one(&self, job: Job) -> Result<RunningQuery> {
        let started = self.start(vec![job])?.pop();
        Ok(started.ok_or_else(|| EngineError::internal("a query was not started"))?)
    }

    /// Starts queries that share the reading of their streams; those that are kept read on their own.
    pub(super) fn start(&self, jobs: Vec<Job>) -> Result<Vec<RunningQuery>> {
        let sides = self.declared().sides.clone();
        let mut opened: BTreeMap<String, Arc<Ingest>> = BTreeMap::new();
        let mut begun = Vec::new();
        for mut job in jobs {
            if job.kept.is_none() && job.query.is_spread() {
                if self.can_be_read_again(&job.query, &sides)? {
                    begun.push(self.begin_spread(job, &sides)?);
                    continue;
                }
                job.query = job.query.here();
            }
            if job.kept.is_some() {
                begun.push(self.begin_kept(job, &sides)?);
                continue;
            }
            for stream in job.query.streams().iter().filter(|stream| !self.is_live(stream)) {
                if !opened.contains_key(&stream.name) {
                    opened.insert(stream.name.clone(), Arc::new(self.open_stream(stream, &sides)?));
                }
            }
            begun.push(self.begin(job, &opened, &sides)?);
        }
        // Every query has its place in every log now.
        let reading: Vec<_> = opened.into_values().map(read).collect();
        let running = begun.into_iter().map(|mut begun| {
            begun.held._reading.extend(reading.iter().cloned());
            self.spawn(begun, 0)
        });
        Ok(running.collect())
    }

    /// Whether the rows of a stream go to the queries that run when they come, and nowhere else.
    fn is_live(&self, stream: &StreamDefinition) -> bool {
        is_pushed(stream) && self.shared.home.is_none()
    }

    pub(super) fn open_stream(
        &self,
        stream: &Arc<StreamDefinition>,
        sides: &StreamSides,
    ) -> millstream_engine::Result<Ingest> {
        match &self.shared.home {
            Some(home) if is_pushed(stream) => home.open_pushed(stream, side_of(stream, sides)),
            _ => open_stream(stream, sides),
        }
    }

    /// Gives a query its place in the logs of its streams, those that were opened for it and those that are pushed.
    fn begin(&self, job: Job, opened: &BTreeMap<String, Arc<Ingest>>, sides: &StreamSides) -> Result<Begun> {
        let Job { query, sink, stop, kept } = job;
        let name = query.name().to_owned();
        let streams = query.streams().to_vec();
        let pushed = streams.iter().filter(|stream| self.is_live(stream));
        let pushed: Vec<_> = pushed.map(|stream| (Arc::clone(stream), side_of(stream, sides))).collect();
        let joined = self.shared.streams.join(&pushed, |live| {
            let live_one = |name: &str| live.iter().find(|ingest| ingest.definition().name == name);
            let ingests = streams.iter().filter_map(|stream| opened.get(&stream.name).or(live_one(&stream.name)));
            query.start(ingests.cloned().collect())
        });
        let (query, leases) = joined?;
        let held = Held { _leases: leases, ..Held::default() };
        Ok(Begun { name, query, recipe: None, sink, stop, held, kept })
    }

    /// Gives a query the place in its streams where an earlier run left it.
    fn begin_kept(&self, job: Job, sides: &StreamSides) -> Result<Begun> {
        let home = self.shared.home.as_ref().ok_or_else(|| EngineError::internal("nothing keeps a query"))?;
        let Job { query, sink, stop, kept } = job;
        let name = query.name().to_owned();
        let state = home.state();
        let query = query.stored_at(state.place(), state.durability);
        let (query, held) = self.placed(query, &state.directory, state.policy, state.misfit, sides)?;
        Ok(Begun { name, query, recipe: None, sink, stop, held, kept })
    }

    /// Gives a query the place in its streams where the directory says it was.
    pub(super) fn placed(
        &self,
        query: PlannedQuery,
        directory: &StateDirectory,
        policy: CheckpointPolicy,
        misfit: Misfit,
        sides: &StreamSides,
    ) -> Result<(Query, Held)> {
        let seat = query.seat().cloned();
        let mut kept = [query.keep_in(directory, policy, misfit)?];
        let streams = resume_streams(&mut kept, directory, |stream| {
            let ingest = self.open_stream(stream, sides)?;
            Ok(if let Some(seat) = &seat { ingest.read_at(seat) } else { ingest })
        })?;
        let ingests = streams.into_iter().flatten().collect::<Vec<_>>();
        let [query] = kept;
        let query = query.start(ingests.clone())?;
        Ok((query, Held { _reading: ingests.into_iter().map(read).collect(), ..Held::default() }))
    }

    /// Runs a query in a task of its own; `failures` is how often it has failed without running well between.
    fn spawn(&self, begun: Begun, failures: u32) -> RunningQuery {
        self.spawn_in(&mut self.running(), begun, failures)
    }

    fn spawn_in(&self, running: &mut Running, begun: Begun, failures: u32) -> RunningQuery {
        let Begun { name, query, recipe, mut sink, stop, held, kept } = begun;
        let (progress, stopped, handles) = (query.progress(), stop.subscribe(), query.handles());
        let live = Live {
            name: name.clone(),
            stop: stop.clone(),
            pause: query.pause(),
            progress: progress.clone(),
            ingests: query.ingests(),
            kept: kept.clone(),
            trouble: None,
        };
        let (ending, ended) = oneshot::channel();
        running.started += 1;
        let id = running.started;
        running.queries.insert(id, live);
        // What has ended leaves no trace here.
        while running.tasks.try_join_next().is_some() {}
        let (shared, task_name, begun_at) = (Arc::downgrade(&self.shared), name.clone(), Instant::now());
        running.tasks.spawn(async move {
            let (mut query, mut held) = (query, held);
            let summary = loop {
                let run = AssertUnwindSafe(query.run(sink.as_mut(), stopped.clone())).catch_unwind().await;
                let panicked = |_| Err(EngineError::internal("the query panicked; the panic is on stderr"));
                let ended = run.unwrap_or_else(panicked);
                let (Err(error), Some(recipe), Some(shared)) = (&ended, &recipe, shared.upgrade()) else { break ended };
                if !error.is_lost() || *stopped.borrow() {
                    break ended;
                }
                tracing::info!(query = %task_name, reason = %error, "goes on from its lineage");
                // What it read is not read on, or its logs would wait for it.
                drop(held);
                let engine = Self { shared };
                match engine.again(recipe, &handles).await {
                    Ok(begun) => (query, held) = begun,
                    Err(error) => break Err(error),
                }
                if let Some(live) = engine.running().queries.get_mut(&id) {
                    live.ingests = query.ingests();
                }
            };
            // The rows are at their end before the program is told how the query ended.
            drop(sink);
            let engine = shared.upgrade().map(|shared| Self { shared });
            if let (Some(engine), Some(_)) = (&engine, &recipe) {
                engine.forget_for_good(&task_name);
            }
            if let (Some(engine), Some(kept), Err(error)) = (&engine, &kept, &summary) {
                let failures = if begun_at.elapsed() >= WELL_AFTER { 0 } else { failures };
                engine.give_trouble(id, kept, error, failures);
            } else if let Some(engine) = &engine {
                engine.running().queries.remove(&id);
            }
            if let Err(Err(error)) = ending.send(summary)
                && kept.is_none()
            {
                tracing::error!(query = %task_name, %error, "a query failed that nobody waits for");
            }
        });
        RunningQuery { name, stop, progress, ended, _engine: self.clone() }
    }

    /// Notes that a kept query has failed, and begins it again after a pause where that can help.
    fn give_trouble(&self, id: u64, kept: &Arc<KeptStatement>, error: &EngineError, failures: u32) {
        let may_pass = may_pass(error);
        let message = shown(error);
        if error.is_lost() {
            tracing::info!(query = kept.query, reason = message, "a query goes on from its lineage");
        } else {
            tracing::error!(query = kept.query, error = message, may_pass, "a query has failed");
        }
        let mut running = self.running();
        let Some(live) = running.queries.get_mut(&id) else { return };
        if *live.stop.borrow() {
            // It was to end anyway.
            running.queries.remove(&id);
            return;
        }
        live.trouble = Some(Trouble { error: message, may_pass });
        live.ingests.clear();
        if !may_pass {
            return;
        }
        let (pause, failures) = match error.is_lost() {
            // There are others, or it waits for them; the query itself is well.
            true => (Duration::ZERO, failures),
            false => (FIRST_PAUSE.saturating_mul(1 << failures.min(16)).min(LONGEST_PAUSE), failures + 1),
        };
        let mut stopped = live.stop.subscribe();
        let (shared, kept) = (Arc::downgrade(&self.shared), Arc::clone(kept));
        running.tasks.spawn(async move {
            let is_stopped = tokio::select! {
                _ = stopped.wait_for(|stop| *stop) => true,
                () = tokio::time::sleep(pause) => false,
            };
            let Some(engine) = shared.upgrade().map(|shared| Self { shared }) else { return };
            if is_stopped {
                engine.running().queries.remove(&id);
                return;
            }
            engine.begin_again(id, kept, failures).await;
        });
    }

    /// Begins a kept query again in place of the one that has failed.
    async fn begin_again(&self, id: u64, kept: Arc<KeptStatement>, failures: u32) {
        match self.revived(&kept).await {
            Ok(begun) => self.take_the_place(id, begun, failures),
            Err(Error::Engine(error)) => self.give_trouble(id, &kept, &error, failures),
            Err(other) => self.give_trouble(id, &kept, &unplanned(&other), failures),
        }
    }

    /// Runs a query in the place of the one that has failed, unless that was stopped meanwhile.
    fn take_the_place(&self, id: u64, mut begun: Begun, failures: u32) {
        let mut running = self.running();
        let Some(failed) = running.queries.remove(&id) else { return };
        if !*failed.stop.borrow() {
            // Whoever stops it has the old end in hand.
            begun.stop = failed.stop;
            drop(self.spawn_in(&mut running, begun, failures));
        }
    }

    /// Plans a kept query from its statement and finds its place.
    async fn revived(&self, kept: &Arc<KeptStatement>) -> Result<Begun> {
        let (parsed, script) = self.parsed(kept)?;
        let compiled = self.compile_again(kept, &parsed, &script)?;
        let job = self.job_of(compiled, kept.query.clone(), Some(Arc::clone(kept)), &parsed, &script).await?;
        let sides = self.declared().sides.clone();
        self.begin_kept(job, &sides)
    }

    /// Compiles the statement of a query that has failed: the view that it keeps up to date is there still.
    fn compile_again(&self, kept: &KeptStatement, parsed: &ParsedStatement, script: &Script) -> Result<Statement> {
        let mut language = self.language(script)?;
        if let Some(view) = kept.view() {
            language.unregister(RelationKind::MaterializedView, view);
        }
        language.compile(parsed).map_err(|error| refusal(error, script))
    }

    /// Starts a query that an earlier process has left.
    ///
    /// # Errors
    /// Fails if it cannot be planned, as long as what it names is not there; of any other failure the query says itself.
    pub(super) async fn start_kept(&self, kept: &Arc<KeptStatement>) -> Result<()> {
        match self.revived(kept).await {
            Ok(begun) => drop(self.spawn(begun, 0)),
            Err(Error::Engine(error)) => self.note_trouble(kept, &error),
            Err(other) => return Err(other),
        }
        Ok(())
    }

    /// Has a query that could not be started say why; it is begun again where that can help.
    pub(super) fn note_trouble(&self, kept: &Arc<KeptStatement>, error: &EngineError) {
        let id = {
            let mut running = self.running();
            running.started += 1;
            let id = running.started;
            let live = Live {
                name: kept.query.clone(),
                stop: watch::channel(false).0,
                pause: watch::channel(false).0,
                progress: watch::channel(QueryProgress::default()).1,
                ingests: Vec::new(),
                kept: Some(Arc::clone(kept)),
                trouble: None,
            };
            running.queries.insert(id, live);
            id
        };
        self.give_trouble(id, kept, error, 0);
    }

    /// The queries that run, in the order in which they were started.
    pub(super) fn query_statuses(&self) -> Vec<QueryStatus> {
        let running = self.running();
        let status = |query: &Live| QueryStatus {
            name: query.name.clone(),
            state: match &query.trouble {
                Some(Trouble { may_pass: true, .. }) => "restarting",
                Some(_) => "failed",
                None if *query.pause.borrow() => "paused",
                None => "running",
            },
            progress: query.progress.borrow().clone(),
            error: query.trouble.as_ref().map(|trouble| trouble.error.clone()),
        };
        running.queries.values().map(status).collect()
    }

    /// The streams that are being read, each once.
    pub(super) fn ingests(&self) -> Vec<Arc<Ingest>> {
        let running = self.running();
        let mut found: Vec<Arc<Ingest>> = Vec::new();
        for ingest in running.queries.values().flat_map(|query| &query.ingests) {
            if !found.iter().any(|known| Arc::ptr_eq(known, ingest)) {
                found.push(Arc::clone(ingest));
            }
        }
        found
    }

    /// The kept queries that read the stream, or write to the sink, of that name.
    pub(super) fn users_of(&self, name: &str) -> Vec<String> {
        let running = self.running();
        let uses = |live: &&Live| {
            let uses = |kept: &Arc<KeptStatement>| {
                kept.sink.as_deref() == Some(name) || kept.reads.iter().any(|stream| stream == name)
            };
            live.kept.as_ref().is_some_and(uses)
        };
        running.queries.values().filter(uses).map(|live| live.name.clone()).collect()
    }

    /// Acts on the query of that name, the one that was started last.
    pub(super) fn control(&self, action: Control, name: &str, place: Option<Location>, script: &Script) -> Result<()> {
        let mut running = self.running();
        let Some((id, query)) = running.queries.iter().rfind(|(_, query)| query.name == name) else {
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
        if action != Control::Stop {
            return Ok(());
        }
        if let (Some(home), Some(kept)) = (&self.shared.home, &query.kept) {
            home.forget(kept)?;
        }
        let id = *id;
        if query.trouble.as_ref().is_some_and(|trouble| !trouble.may_pass) {
            // No task is there to do it.
            running.queries.remove(&id);
        }
        Ok(())
    }

    /// Waits until no query of that name runs any more.
    pub(super) async fn ended(&self, name: &str) {
        while self.running().queries.values().any(|query| query.name == name) {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Reads a stream in a task of its own, until nobody holds that.
fn read(ingest: Arc<Ingest>) -> Arc<SpawnedTask<()>> {
    Arc::new(SpawnedTask::spawn(async move { ingest.run().await }))
}

fn side_of(stream: &StreamDefinition, sides: &StreamSides) -> SideTables {
    sides.get(&stream.name).cloned().unwrap_or_else(|| SideTables::new(&stream.schema))
}

/// The failure of a kept query whose statement is refused: what it names is no longer there, or is another thing.
pub(super) fn unplanned(error: &Error) -> EngineError {
    EngineError::query(error.to_string(), "stop the query, or declare what it reads again")
}

/// Whether a failure may be over when the query is begun again: something outside has failed.
fn may_pass(error: &EngineError) -> bool {
    match error {
        EngineError::External { .. } | EngineError::Lost { .. } => true,
        EngineError::Shared(error) => may_pass(error),
        _ => false,
    }
}

/// An error with its causes, in a line.
fn shown(error: &EngineError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let line = error.to_string();
        if !text.ends_with(&line) {
            text = format!("{text}: {line}");
        }
        cause = error.source();
    }
    redacted(&text).into_owned()
}
