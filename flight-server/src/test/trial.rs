//! A query over logs written down by hand, run in every way in which its answer must be the same.
//!
//! First the whole log goes in one micro-batch, on one thread. Then it is cut at random into blocks and micro-batches,
//! with other numbers of threads and key partitions. Then the run is ended by a crash somewhere in the middle and goes
//! on from a state directory.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use millstream_engine::Error;
use millstream_engine::plan::{Emission, EmissionMode, StreamTable};
use millstream_engine::query::{PlannedQuery, QueryOptions};
use millstream_engine::state::StateMemory;
use millstream_engine::testing::{Crash, Cut, EvenCut, Run, StreamLogScript, run_planned, run_restarted};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// In how many ways each answer is found.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ways {
    /// What the random ones are made of.
    pub(super) seed: u64,
    /// How many random cuts there are.
    pub(super) cuts: u64,
    /// How many times it is found over a crash.
    pub(super) restarts: u64,
}

impl fmt::Display for Ways {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let many = |count: u64, noun: &str| format!("{count} {noun}{}", if count == 1 { "" } else { "s" });
        let (cuts, restarts) = (many(self.cuts, "random cut"), many(self.restarts, "restart"));
        write!(f, "seed {}: each answer is also found in {cuts} and over {restarts}", self.seed)
    }
}

/// A query and its input.
#[derive(Debug, Clone)]
pub(super) struct Trial {
    pub(super) logical: LogicalPlan,
    /// What it gives of its results.
    pub(super) emission: Emission,
    /// The logs of its streams.
    pub(super) scripts: Vec<StreamLogScript>,
    pub(super) state_memory: Arc<StateMemory>,
}

impl Trial {
    /// The rows when everything comes at once.
    ///
    /// # Errors
    /// Fails as the query does.
    pub(super) async fn whole(&self) -> Result<Run, Error> {
        let mut cut = EvenCut { block_rows: usize::MAX, records: usize::MAX };
        let options = QueryOptions { tasks: 1, ..self.options() };
        run_planned(self.planned(options).await?, &self.scripts, &mut cut, None).await
    }

    /// The rows in a random cut.
    ///
    /// # Errors
    /// Fails as the query does.
    pub(super) async fn cut(&self, seed: u64) -> Result<Vec<RecordBatch>, Error> {
        let mut cut = RandomCut::new(seed);
        let options = cut.options(self.options());
        let run = run_planned(self.planned(options).await?, &self.scripts, &mut cut, None).await?;
        Ok(run.batches())
    }

    /// The rows in a random cut with a crash in the middle.
    ///
    /// # Errors
    /// Fails as the query does, and if there is no folder for its state.
    pub(super) async fn restarted(&self, seed: u64) -> Result<Vec<RecordBatch>, Error> {
        let trial = self.clone();
        let run = tokio::task::spawn_blocking(move || {
            let mut cut = RandomCut::new(seed);
            let options = cut.options(trial.options());
            let crash = Crash {
                rounds: cut.rng.random_range(1..=6),
                is_in_commit: cut.rng.random(),
                checkpoint_epochs: cut.rng.random_range(1..=4),
            };
            let state = tempfile::tempdir().map_err(|error| Error::external("making a folder for state", error))?;
            run_restarted(&trial.logical, trial.emission, &trial.scripts, &mut cut, &options, state.path(), crash)
        });
        run.await.map_err(|error| Error::internal(format!("a run ended early: {error}")))?
    }

    async fn planned(&self, options: QueryOptions) -> Result<PlannedQuery, Error> {
        PlannedQuery::plan_emitting(&self.logical, self.emission, options).await
    }

    fn options(&self) -> QueryOptions {
        QueryOptions {
            name: "test".to_owned(),
            interval: Duration::ZERO,
            state_memory: Arc::clone(&self.state_memory),
            ..QueryOptions::default()
        }
    }

    /// Whether it shows groups again as they change, so that how often it does depends on the cut.
    pub(super) fn shows_changes(&self) -> bool {
        let (mut is_grouped, mut is_windowed) = (false, false);
        let visited = self.logical.apply_with_subqueries(|node| {
            match node {
                LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(_) => is_grouped = true,
                LogicalPlan::TableScan(scan) => {
                    let provider = source_as_provider(&scan.source)?;
                    let leaf = provider.downcast_ref::<StreamTable>();
                    is_windowed |= leaf.is_some_and(|leaf| leaf.window().is_some());
                }
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        });
        let gives_changes =
            matches!(self.emission.mode, EmissionMode::Changes { .. }) || self.emission.lateness.is_some();
        gives_changes || (visited.is_ok() && is_grouped && !is_windowed && !self.scripts.is_empty())
    }
}

/// A cut that is the same for equal seeds.
struct RandomCut {
    rng: StdRng,
    most_rows: usize,
    most_records: usize,
}

impl RandomCut {
    fn new(seed: u64) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let most_rows = [1, 2, 5, 50].get(rng.random_range(0..4)).copied().unwrap_or(1);
        let most_records = rng.random_range(1..=4);
        Self { rng, most_rows, most_records }
    }

    fn options(&mut self, options: QueryOptions) -> QueryOptions {
        QueryOptions {
            batch_rows: self.rng.random_range(1..=20),
            tasks: self.rng.random_range(1..=3),
            key_partitions: [1, 7, 1_024].get(self.rng.random_range(0..3)).copied().unwrap_or(1),
            shared_rows: self.rng.random_range(1..=8),
            ..options
        }
    }
}

impl Cut for RandomCut {
    fn block_rows(&mut self) -> usize {
        self.rng.random_range(1..=self.most_rows)
    }

    fn records(&mut self) -> usize {
        self.rng.random_range(0..=self.most_records)
    }
}
