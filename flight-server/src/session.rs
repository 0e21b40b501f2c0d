//! Carrying statements out, in order.
//!
//! Declarations take effect at once. Queries run to their end before the next statement, but INSERTs and materialized
//! views that follow each other, and a SELECT over streams right behind them, run together and share the ingestion of
//! their streams. When they are stopped, SELECTs right behind them that read what they kept are answered still.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use millstream_connectors::ViewSink;
use millstream_engine::Summary;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::query::{PlannedQuery, QueryOptions};
use millstream_sql::statement::Running;
use millstream_sql::{ParsedStatement, SERVER_SETTINGS, Session as Language, Statement, StreamQuery};
use tokio::sync::watch;

use crate::cli::SourceArgs;
use crate::cluster::Cluster;
use crate::declarations::{StreamSides, drop_relation, load_table, query_options, read_secret, register_stream};
use crate::error::{Error, Result};
use crate::explain::{analysis, explanation, plan_analyzed};
use crate::history::History;
use crate::memory::Memory;
use crate::output::Output;
use crate::queries::{Job, Outcome, lost_rows, plan_query, run_together};
use crate::running::{QueryStatus, queries_table, state_table, watermarks_table};
use crate::screen::Screen;
use crate::state::State;

/// A text of statements and where it came from.
#[derive(Debug, Clone)]
pub struct Script {
    /// A file's name, or what stands for it.
    pub origin: String,
    /// The statements.
    pub text: String,
    /// The settings that they are carried out under, besides those that hold for all.
    pub settings: BTreeMap<String, String>,
}

impl Script {
    /// A text from a place.
    pub fn new(origin: &str, text: &str) -> Self {
        Self { origin: origin.to_owned(), text: text.to_owned(), settings: BTreeMap::new() }
    }

    /// A text that somebody has typed.
    pub fn typed(text: &str) -> Self {
        Self::new("SQL", text)
    }

    /// The scripts that a command line names, files first.
    ///
    /// # Errors
    /// Fails if there is none, or a file cannot be read.
    pub fn load(source: &SourceArgs) -> Result<Vec<Self>> {
        if source.files.is_empty() && source.texts.is_empty() {
            let message = "nothing to run: name an SQL file, or give SQL with -e";
            return Err(Error::Usage(message.to_owned()));
        }
        let files = source.files.iter().map(|path| Self::read(path));
        let texts = source.texts.iter().map(|text| Ok(Self::new("-e", text)));
        files.chain(texts).collect()
    }

    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| Error::Io { context: format!("cannot read {}", path.display()), source })?;
        Ok(Self::new(&path.display().to_string(), &text))
    }
}

/// What queries are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// They run.
    Run,
    /// Their plans are shown.
    Explain,
}

/// A session of statements.
#[derive(Debug)]
pub struct Session {
    language: Language,
    side_tables: StreamSides,
    output: Output,
    screen: Screen,
    stop: watch::Receiver<bool>,
    mode: Mode,
    batch_interval: Option<Duration>,
    history: History,
    state: Option<State>,
    outcomes: Vec<Outcome>,
    queries_started: u64,
    memory: Memory,
    /// How many queries have written to each sink.
    sink_uses: BTreeMap<String, u64>,
}

impl Session {
    /// A session whose SELECTs write to `output`, until `stop` becomes true.
    pub fn new(output: Output, screen: Screen, stop: watch::Receiver<bool>, mode: Mode) -> Self {
        Self {
            language: Language::new(),
            side_tables: StreamSides::new(),
            output,
            screen,
            stop,
            mode,
            batch_interval: None,
            history: History::default(),
            state: None,
            outcomes: Vec::new(),
            queries_started: 0,
            memory: Memory::of_machine(),
            sink_uses: BTreeMap::new(),
        }
    }

    /// Binds a window's parameter.
    pub fn bind_parameter(&mut self, name: &str, value: &str) {
        self.language.bind_parameter(name, value);
    }

    /// Makes a Rust function of one row known to the statements that follow.
    pub fn register_function(&mut self, function: ScalarUDF) {
        self.language.register_function(function);
    }

    /// Makes a Rust aggregate known to the statements that follow; the order of rows must make no difference to it.
    pub fn register_aggregate(&mut self, aggregate: AggregateUDF) {
        self.language.register_aggregate(aggregate);
    }

    /// Sets the least time between micro-batches; `SET batch_interval` overrides it.
    pub fn set_batch_interval(&mut self, interval: Option<Duration>) {
        self.batch_interval = interval;
    }

    /// Reads streams that are declared from now on from files, if they have some.
    pub fn read_history(&mut self, history: History) {
        self.history = history;
    }

    /// Checks that every stream that has files was declared.
    ///
    /// # Errors
    /// One was not.
    pub fn check_history(&self) -> Result<()> {
        self.history.check()
    }

    /// Keeps what the queries need to go on after a crash.
    pub fn keep_state(&mut self, state: State) {
        self.language.read_states(state.states());
        self.state = Some(state);
    }

    /// What the queries did, group by group.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// Whether it was stopped.
    pub fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    /// Carries a script out.
    ///
    /// # Errors
    /// The first statement that fails; those before it have been carried out, except queries that were to run with it.
    pub async fn run(&mut self, script: &Script) -> Result<()> {
        let statements = self.language.parse(&script.text).map_err(|error| refusal(error, script))?;
        let mut jobs = Vec::new();
        for statement in &statements {
            let mut compiled = match self.compile(statement, script) {
                // What is wrong with statements that are not carried out nobody asked.
                Err(_) if self.is_stopped() => return Ok(()),
                compiled => compiled?,
            };
            if self.is_stopped() && !is_question(&compiled) {
                return Ok(());
            }
            if !joins(&compiled) && !jobs.is_empty() {
                self.finish(&mut jobs).await?;
                // It reads what the queries before it have given.
                compiled = self.compile(statement, script)?;
            }
            let closes = !matches!(compiled, Statement::Insert { .. } | Statement::CreateMaterializedView { .. });
            if let Some(job) = self.carry_out(compiled, statement, script).await? {
                jobs.push(job);
            }
            if closes {
                self.finish(&mut jobs).await?;
            }
        }
        self.finish(&mut jobs).await
    }

    fn compile(&self, statement: &ParsedStatement, script: &Script) -> Result<Statement> {
        self.language.compile(statement).map_err(|error| refusal(error, script))
    }

    async fn finish(&mut self, jobs: &mut Vec<Job>) -> Result<()> {
        if jobs.is_empty() {
            return Ok(());
        }
        let jobs = std::mem::take(jobs);
        // Questions are asked of what is there when the queries before them have been stopped.
        let stop = if self.is_stopped() { watch::channel(false).1 } else { self.stop.clone() };
        let outcome = run_together(jobs, &self.side_tables, self.state.as_ref(), stop, &self.screen).await?;
        for note in lost_rows(&outcome) {
            self.screen.note(&note);
        }
        self.outcomes.push(outcome);
        Ok(())
    }

    async fn carry_out(
        &mut self,
        compiled: Statement,
        parsed: &ParsedStatement,
        script: &Script,
    ) -> Result<Option<Job>> {
        match compiled {
            Statement::CreateStream { definition, .. } => {
                let definition = self.history.of(definition);
                // Opening a source reads its options, so that a wrong one is refused where it stands.
                millstream_connectors::open_source(&definition).map_err(|error| placed(error, parsed, script))?;
                register_stream(&mut self.language, &mut self.side_tables, definition);
            }
            Statement::CreateTable { definition, .. } => {
                let provider = self.load_table(&definition).await.map_err(|error| placed(error, parsed, script))?;
                self.language.register_table(definition, provider);
            }
            Statement::CreateView { definition, .. } => self.language.register_view(definition),
            Statement::CreateMaterializedView { definition, query, retain } => {
                let planned = self.plan(&query, Some(&definition.name), parsed, script).await?;
                let runs = self.mode == Mode::Run;
                let kept = self.state.as_ref().filter(|_| runs);
                let file = kept.map(|state| state.view_file(planned.name())).transpose()?;
                let sink = ViewSink::open(&definition.name, planned.results(), planned.schema(), retain, file);
                let sink = sink.map_err(|error| placed(error, parsed, script))?;
                self.language.register_materialized_view(definition, sink.rows());
                if runs {
                    return Job::new(planned, |_| Ok(Box::new(sink))).map(Some);
                }
                self.output.text(&explanation(planned.explain()))?;
            }
            Statement::CreateSink { definition, .. } => {
                millstream_connectors::check_sink(&definition.name, &definition.options)
                    .map_err(|error| placed(error, parsed, script))?;
                self.language.register_sink(definition);
            }
            Statement::CreateSecret { name, source, .. } => {
                let secret = read_secret(&name, &source).map_err(|error| placed(error, parsed, script))?;
                self.language.register_secret(&name, secret);
            }
            Statement::CreateFunction { definition, .. } => {
                self.language.declare_function(&definition).map_err(|error| refusal(error, script))?;
            }
            Statement::Drop { kind, name } => {
                drop_relation(&mut self.language, &mut self.side_tables, kind, &name);
            }
            Statement::Set { key, .. } if SERVER_SETTINGS.contains(&key.as_str()) => {
                let error = millstream_sql::Error::new(format!("{key} is for the connections to a server"));
                return Err(refusal(
                    error.hint("set it in a session of millstream serve").at(Some(parsed.location)),
                    script,
                ));
            }
            Statement::Set { key, value } => {
                self.language.set(&key, &value).map_err(|error| refusal(error, script))?;
                self.memory.set(&key, &value)?;
            }
            Statement::Show { rows, .. } => self.show(rows).await?,
            Statement::ShowRunning(Running::Queries) => self.show(queries_table(&self.query_statuses())?).await?,
            Statement::ShowRunning(Running::State) => self.show(state_table(&self.query_statuses())?).await?,
            Statement::ShowRunning(Running::Watermarks) => {
                // Of a stream that was read several times the last reading counts.
                let ingests = self.outcomes.iter().flat_map(|outcome| &outcome.ingests);
                let last: BTreeMap<_, _> = ingests.map(|ingest| (&ingest.definition().name, ingest)).collect();
                self.show(watermarks_table(&last.into_values().cloned().collect::<Vec<_>>())?).await?;
            }
            Statement::ShowRunning(Running::Executors) => self.show(Cluster::no_table()?).await?,
            Statement::Control { action, query, location } => {
                let message =
                    format!("{} QUERY {query}: no query runs between the statements of a script", action.word());
                let hint = "queries run to their end or until Ctrl-C; a program has them in hand by the embedding API";
                return Err(refusal(millstream_sql::Error::new(message).hint(hint).at(location), script));
            }
            Statement::Subscribe { view, .. } => {
                let error = millstream_sql::Error::new("nothing comes to a view between the statements of a script");
                let hint = format!("write SELECT * FROM {view}, or subscribe in millstream sql or on a server");
                return Err(refusal(error.hint(hint).at(Some(parsed.location)), script));
            }
            Statement::SubscribeQuery { query, .. } => {
                let error =
                    millstream_sql::Error::new(format!("there is no server on which the query \"{query}\" runs"));
                return Err(refusal(error.hint("ask the server that has named it").at(Some(parsed.location)), script));
            }
            Statement::Nothing { note } => self.screen.note(&note),
            Statement::ExplainAnalyze(query) if self.mode == Mode::Run => self.analyze(&query, parsed, script).await?,
            Statement::Explain(query) | Statement::ExplainAnalyze(query) => {
                self.explain(&query, parsed, script).await?;
            }
            Statement::Insert { query, .. } | Statement::Select(query) if self.mode == Mode::Explain => {
                self.explain(&query, parsed, script).await?;
            }
            Statement::Insert { sink, query } => {
                let planned = self.plan(&query, Some(&sink.name), parsed, script).await?;
                let open = |schema| Ok(millstream_connectors::open_sink(&sink.name, &sink.options, schema)?);
                return Job::new(planned, open).map(Some);
            }
            Statement::Select(query) => {
                let planned = self.plan(&query, None, parsed, script).await?;
                return Job::new(planned, |schema| Ok(self.output.sink(&schema))).map(Some);
            }
        }
        Ok(None)
    }

    async fn show(&self, rows: RecordBatch) -> Result<()> {
        let mut sink = self.output.sink(&rows.schema());
        let epoch = millstream_engine::batch::Epoch(0);
        sink.stage(epoch, &[rows]).await?;
        sink.commit(epoch).await?;
        sink.finish().await?;
        Ok(())
    }

    /// The queries so far, which have all ended when a statement asks for them.
    fn query_statuses(&self) -> Vec<QueryStatus> {
        let queries = self.outcomes.iter().flat_map(|outcome| outcome.names.iter().zip(&outcome.summaries));
        let status = |(name, summary): (&String, &Summary)| QueryStatus {
            name: name.clone(),
            state: if summary.was_stopped { "stopped" } else { "ended" },
            progress: summary.progress.clone(),
            error: None,
        };
        queries.map(status).collect()
    }

    async fn plan(
        &mut self,
        query: &StreamQuery,
        sink: Option<&str>,
        parsed: &ParsedStatement,
        script: &Script,
    ) -> Result<PlannedQuery> {
        self.queries_started += 1;
        let mut options = self.options()?;
        options.name = self.name_of(sink);
        plan_query(query, options).await.map_err(|error| placed(error, parsed, script))
    }

    /// The name under which a query is known, the same whenever the script is run: its sink's, or its number.
    fn name_of(&mut self, sink: Option<&str>) -> String {
        let Some(sink) = sink else { return format!("query {}", self.queries_started) };
        let count = self.sink_uses.entry(sink.to_owned()).or_default();
        *count += 1;
        if *count == 1 { sink.to_owned() } else { format!("{sink} {count}") }
    }

    fn options(&self) -> Result<QueryOptions> {
        let mut options = query_options(&self.language, &self.memory)?;
        if let (Some(interval), None) = (self.batch_interval, self.language.setting("batch_interval")) {
            options.interval = interval;
        }
        Ok(options)
    }

    async fn explain(&mut self, query: &StreamQuery, parsed: &ParsedStatement, script: &Script) -> Result<()> {
        let planned = self.plan(query, None, parsed, script).await?;
        self.output.text(&explanation(planned.explain()))
    }

    /// Runs a query to its end, or until it is stopped, and shows its plans with what they have done.
    async fn analyze(&mut self, query: &StreamQuery, parsed: &ParsedStatement, script: &Script) -> Result<()> {
        self.queries_started += 1;
        let options = QueryOptions { name: self.name_of(None), ..self.options()? };
        let planned = plan_analyzed(query, options).await;
        let (query, sink) = planned.map_err(|error| placed(error, parsed, script))?;
        let jobs = vec![Job { query, sink }];
        let outcome = run_together(jobs, &self.side_tables, None, self.stop.clone(), &self.screen).await?;
        for summary in &outcome.summaries {
            self.output.text(&analysis(summary))?;
        }
        Ok(())
    }

    async fn load_table(
        &self,
        definition: &Arc<StreamDefinition>,
    ) -> Result<Arc<dyn TableProvider>, millstream_engine::Error> {
        let (rows, note) = load_table(definition).await?;
        if let Some(note) = note {
            self.screen.note(&note);
        }
        Ok(rows)
    }
}

/// Whether a statement runs together with the queries right before it.
const fn joins(statement: &Statement) -> bool {
    match statement {
        Statement::CreateMaterializedView { .. } => true,
        // What reads no stream may read what those queries give.
        Statement::Insert { query, .. } | Statement::Select(query) => query.is_streaming,
        _ => false,
    }
}

/// Whether a statement asks what queries have kept, and so comes to its end by itself.
const fn is_question(statement: &Statement) -> bool {
    matches!(statement, Statement::Select(query) if query.reads_kept_rows)
}

pub(crate) fn refusal(error: millstream_sql::Error, script: &Script) -> Error {
    Error::Sql { error: Box::new(error), text: script.text.clone(), origin: script.origin.clone() }
}

/// A fault of a statement that the language could not see, with the statement's place.
pub(crate) fn placed(error: millstream_engine::Error, parsed: &ParsedStatement, script: &Script) -> Error {
    match error {
        millstream_engine::Error::Query { message, hint, location } => {
            let mut error = millstream_sql::Error::new(message).at(location.or(Some(parsed.location)));
            error.hint = hint;
            refusal(error, script)
        }
        other => Error::Engine(other),
    }
}
