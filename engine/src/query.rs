//! A query from plan to running: what a caller holds.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::LogicalPlan;
use tokio::sync::watch;

use crate::cluster::{Seat, Stages};
use crate::driver::{Driver, Summary};
use crate::durable::{Durability, StatePlace};
use crate::error::{Error, Result};
use crate::executor::{RowCounts, Spreading, Stage, StageOptions};
use crate::ingest::{Ingest, LogPlace};
use crate::plan::{Emission, Input, StreamDefinition, StreamTable};
use crate::program::{Explanation, Program};
use crate::refreshed::{Versions, tables_of};
use crate::results::Results;
use crate::sink::{Guarantee, Sink};
use crate::state::{DEFAULT_KEY_PARTITIONS, StateMemory};
use crate::time::{Span, Watermark};

/// How a query is run; nothing here changes a row of its final output.
#[derive(Debug, Clone)]
pub struct QueryOptions {
    /// The query's name, for logs and `name$late`.
    pub name: String,
    /// The least time between the starts of two micro-batches; 100 ms unless set.
    pub interval: Duration,
    /// Rows that start a micro-batch before the interval is over; 262,144 unless set.
    pub batch_rows: usize,
    /// Plans run at once; as many as there are cores unless set.
    pub tasks: usize,
    /// T, the number of key partitions; 1,024 unless set.
    pub key_partitions: u32,
    /// State rows in a window from which its key partitions are spread over all tasks; 65,536 unless set.
    pub shared_rows: u64,
    /// The limit on the memory of state, shared by the queries that are given the same; half of the machine's unless
    /// set.
    pub state_memory: Arc<StateMemory>,
    /// The memory that running plans may take besides, in a pool shared by the queries that are given the same;
    /// without a bound unless set.
    pub runtime: Arc<RuntimeEnv>,
    /// How long rows may wait for their turn before the input is made to wait: bounds what is read ahead and how much
    /// makes a micro-batch; 1 s unless set.
    pub max_wait: Duration,
    /// Whether its operators' work is summed and told at its end, as `EXPLAIN ANALYZE` does; not unless set.
    pub analyze: bool,
    /// The executors at which its state lies, if it has some; in this process unless set.
    pub seat: Option<Seat>,
}

impl Default for QueryOptions {
    fn default() -> Self {
        Self {
            name: "query".to_owned(),
            interval: Duration::from_millis(100),
            batch_rows: 1 << 18,
            tasks: std::thread::available_parallelism().map_or(2, usize::from),
            key_partitions: DEFAULT_KEY_PARTITIONS,
            shared_rows: 1 << 16,
            state_memory: StateMemory::of_machine(),
            runtime: Arc::default(),
            max_wait: Duration::from_secs(1),
            analyze: false,
            seat: None,
        }
    }
}

/// A query that is planned and knows its streams, but reads none yet.
#[derive(Debug)]
pub struct PlannedQuery {
    pub(crate) stage: Stage,
    pub(crate) streams: Vec<Arc<StreamDefinition>>,
    /// Those of its refreshed tables.
    pub(crate) versions: Arc<Versions>,
    results: Results,
    pub(crate) options: QueryOptions,
    pub(crate) late_sink: Option<Box<dyn Sink>>,
    /// Where it has its state; in this process unless there is one.
    pub(crate) seat: Option<Seat>,
    logical: LogicalPlan,
    emission: Emission,
}

/// What a query is planned from.
#[derive(Debug, Clone)]
pub struct Recipe {
    logical: LogicalPlan,
    emission: Emission,
    options: QueryOptions,
}

impl Recipe {
    /// Plans the query once more; its late rows go nowhere.
    ///
    /// # Errors
    /// As [`PlannedQuery::plan_emitting`].
    pub async fn plan(&self) -> Result<PlannedQuery> {
        PlannedQuery::plan_emitting(&self.logical, self.emission, self.options.clone()).await
    }
}

impl PlannedQuery {
    /// Plans a logical plan whose stream leaves are [`StreamTable`]s.
    ///
    /// # Errors
    /// Fails on SQL that cannot be planned and on queries that would need endless state.
    pub async fn plan(logical: &LogicalPlan, options: QueryOptions) -> Result<Self> {
        Self::plan_emitting(logical, Emission::default(), options).await
    }

    /// The same for a query that gives its results in another way than whole at each instant.
    ///
    /// # Errors
    /// As for [`PlannedQuery::plan`], and if a query of that kind cannot give them so.
    pub async fn plan_emitting(logical: &LogicalPlan, emission: Emission, options: QueryOptions) -> Result<Self> {
        let mut streams = streams_of(logical)?;
        // A query without streams reads its tables once, as they are when it does.
        let tables = if streams.is_empty() { Vec::new() } else { tables_of(logical)? };
        let versions = Arc::new(Versions::of(&tables));
        streams.extend(tables);
        let stream_of = |name: &str| {
            let position = streams.iter().position(|stream| stream.name == name);
            position.ok_or_else(|| Error::internal(format!("a leaf reads stream {name}, which the plan does not name")))
        };
        let stage_options = StageOptions {
            tasks: options.tasks.max(1),
            key_partitions: options.key_partitions.max(1),
            shared_rows: options.shared_rows,
            memory: Arc::clone(&options.state_memory),
            lateness: Span(0),
            runtime: Arc::clone(&options.runtime),
            analyze: options.analyze,
            tables: Arc::clone(&versions),
        };
        let program = Program::compile(logical.clone(), stage_options.planner()).await?;
        let results = Results::of(logical, &program.shape, emission.mode);
        let stage = Stage::build(program, emission, stage_options, &stream_of).await?;
        // What tables become is known to the driver only, and so is what plans have done.
        let may_spread = stage.spreading() != Spreading::Nowhere && versions.is_empty() && !options.analyze;
        let seat = options.seat.clone().filter(|_| may_spread);
        let logical = logical.clone();
        Ok(Self { stage, streams, versions, results, options, late_sink: None, seat, logical, emission })
    }

    /// Has the rows that come too late for every window go to `sink`, which takes the columns of the streams: those of
    /// an epoch are committed with its results.
    #[must_use]
    pub fn send_late_to(mut self, sink: Box<dyn Sink>) -> Self {
        self.late_sink = Some(sink);
        self
    }

    /// The same query with its state in this process.
    #[must_use]
    pub fn here(mut self) -> Self {
        self.seat = None;
        self
    }

    /// Says where executors find what is kept of the query, and what that survives.
    #[must_use]
    pub fn stored_at(mut self, place: &StatePlace, durability: Durability) -> Self {
        if let Some(seat) = &mut self.seat {
            seat.store = Some((place.clone(), durability));
        }
        self
    }

    /// How to plan it once more.
    pub fn recipe(&self) -> Recipe {
        Recipe { logical: self.logical.clone(), emission: self.emission, options: self.options.clone() }
    }

    /// The executors at which its state lies, if it does.
    pub const fn seat(&self) -> Option<&Seat> {
        self.seat.as_ref()
    }

    /// Whether its state lies at executors.
    pub const fn is_spread(&self) -> bool {
        self.seat.is_some()
    }

    /// What a crash may do to its late rows, if they go to a sink.
    pub fn late_guarantee(&self) -> Option<Guarantee> {
        self.late_sink.as_ref().map(|sink| sink.guarantee())
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.options.name
    }

    /// The streams it reads, and then its refreshed tables; [`PlannedQuery::start`] wants their ingests in this order.
    pub fn streams(&self) -> &[Arc<StreamDefinition>] {
        &self.streams
    }

    /// The columns of its results.
    pub fn schema(&self) -> SchemaRef {
        self.stage.schema()
    }

    /// What its rows are to those that it gave before.
    pub const fn results(&self) -> &Results {
        &self.results
    }

    /// Its plans, those of the views it reads through windows first, with their names.
    pub fn explain(&self) -> Vec<(Option<String>, Explanation)> {
        self.stage.explain()
    }

    /// Takes a place in the log of each stream; rows logged from now on belong to the query.
    ///
    /// # Errors
    /// Fails if the ingests are not those of [`PlannedQuery::streams`].
    pub fn start(self, ingests: Vec<Arc<Ingest>>) -> Result<Query> {
        let names = |list: &[Arc<StreamDefinition>]| list.iter().map(|s| s.name.clone()).collect::<Vec<_>>();
        let given: Vec<_> = ingests.iter().map(|ingest| Arc::clone(ingest.definition())).collect();
        if names(&given) != names(&self.streams) {
            return Err(Error::internal(format!("query over {:?} got {:?}", names(&self.streams), names(&given))));
        }
        let streams = ingests.into_iter().map(|ingest| (ingest, LogPlace::default())).collect();
        let stage = Stages::new(self.stage, self.seat);
        let mut driver = Driver::new(stage, streams, self.versions, self.options);
        driver.late_sink = self.late_sink;
        Ok(Query::over(driver))
    }
}

/// A query ready to run.
#[derive(Debug)]
pub struct Query {
    driver: Driver,
    progress: watch::Sender<QueryProgress>,
    pause: watch::Sender<bool>,
}

/// The ends by which a query is watched and held, for one that goes on in its place.
#[derive(Debug, Clone)]
pub struct Handles {
    progress: watch::Sender<QueryProgress>,
    pause: watch::Sender<bool>,
}

impl Query {
    /// Its ends.
    pub fn handles(&self) -> Handles {
        Handles { progress: self.progress.clone(), pause: self.pause.clone() }
    }

    /// The same query, watched and held by the ends of one that it goes on for.
    #[must_use]
    pub fn continuing(mut self, handles: &Handles) -> Self {
        (self.progress, self.pause) = (handles.progress.clone(), handles.pause.clone());
        self
    }

    /// What it has done so far, updated after every epoch.
    pub fn progress(&self) -> watch::Receiver<QueryProgress> {
        self.progress.subscribe()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        self.driver.name()
    }

    /// The streams it reads.
    pub fn ingests(&self) -> Vec<Arc<Ingest>> {
        self.driver.streams.iter().map(|stream| Arc::clone(&stream.ingest)).collect()
    }

    /// Whether it waits for windows to close.
    pub fn has_windows(&self) -> bool {
        self.driver.stage.longest_slide() > Span(0)
    }

    /// Holds it while true: no micro-batch begins, and its input waits once its logs are full.
    pub fn pause(&self) -> watch::Sender<bool> {
        self.pause.clone()
    }

    pub(crate) fn over(driver: Driver) -> Self {
        let (progress, _) = watch::channel(QueryProgress::default());
        let (pause, _) = watch::channel(false);
        Self { driver, progress, pause }
    }

    pub(crate) fn into_driver(self) -> Driver {
        self.driver
    }

    /// Runs it into `sink` until its streams end or `stop` becomes true; the epoch in hand is finished.
    ///
    /// # Errors
    /// Fails if a stream, a plan or the sink fails.
    pub async fn run(self, sink: &mut dyn Sink, stop: watch::Receiver<bool>) -> Result<Summary> {
        self.driver.run(sink, stop, self.pause.subscribe(), &self.progress).await
    }
}

/// What a running query has done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryProgress {
    /// Epochs committed.
    pub epochs: u64,
    /// Rows taken from its streams.
    pub rows_read: u64,
    /// Rows written to its sink.
    pub rows_written: u64,
    /// Rows too late for every window.
    pub rows_late: u64,
    /// Its watermark.
    pub watermark: Watermark,
    /// Memory of its state.
    pub state_bytes: u64,
    /// The disk that the state of all queries that share its memory takes besides.
    pub disk_bytes: u64,
    /// Its inputs, those of its views included.
    pub inputs: Vec<InputProgress>,
    /// How long the last epoch took.
    pub epoch_time: Duration,
    /// How far it has come with rebuilding its state, while it does.
    pub recovery: Option<Recovery>,
}

/// An input of a running query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputProgress {
    /// The stream or view with its window: `trades[range 5 minutes slide 1 minute]`.
    pub name: String,
    /// Where its rows went.
    pub rows: RowCounts,
    /// Memory of its state.
    pub state_bytes: u64,
}

/// The replay of the epochs since the last checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recovery {
    /// Epochs that have been replayed.
    pub epochs_done: u64,
    /// Epochs to replay.
    pub epochs: u64,
}

impl Default for QueryProgress {
    fn default() -> Self {
        Self {
            epochs: 0,
            rows_read: 0,
            rows_written: 0,
            rows_late: 0,
            watermark: Watermark::START,
            state_bytes: 0,
            disk_bytes: 0,
            inputs: Vec::new(),
            epoch_time: Duration::ZERO,
            recovery: None,
        }
    }
}

/// The streams that a plan reads, those of its windowed views included, each once, by name.
///
/// # Errors
/// Fails if a leaf cannot be looked into.
pub fn streams_of(logical: &LogicalPlan) -> Result<Vec<Arc<StreamDefinition>>> {
    let mut streams = BTreeMap::new();
    collect_streams(logical, &mut streams)?;
    Ok(streams.into_values().collect())
}

fn collect_streams(logical: &LogicalPlan, streams: &mut BTreeMap<String, Arc<StreamDefinition>>) -> Result<()> {
    logical.apply_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(TreeNodeRecursion::Continue) };
        let provider = source_as_provider(&scan.source)?;
        let provider: &dyn std::any::Any = provider.as_ref();
        match provider.downcast_ref::<StreamTable>().map(StreamTable::input) {
            Some(Input::Stream(stream)) => {
                streams.insert(stream.name.clone(), Arc::clone(stream));
            }
            Some(Input::View(view)) => collect_streams(&view.query, streams)?,
            None => {}
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}
