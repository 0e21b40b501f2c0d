//! A query that dies at random epochs and goes on from a folder, compared with a batch query over each window.

use std::sync::Arc;

use datafusion::object_store::memory::InMemory;
use datafusion::object_store::path::Path;
use millstream_engine::Error;
use millstream_engine::durable::{Durability, ObjectFiles, StateDirectory};
use millstream_engine::plan::Emission;
use millstream_engine::sink::Sink;
use millstream_engine::testing::{Fate, LocalExecutors, Moment};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

use super::sink::{End, Ledger, LedgerSink, is_lost_answer};
use super::source::Replayable;
use super::{Job, Pace, Table, as_process, options};
use crate::oracle::Log;
use crate::oracle::batch::{Relation, logical_plan, results};
use crate::oracle::check::Query;
use crate::oracle::table::{Cells, cells_of, difference};

/// Deaths after which a query is left to live.
const MOST_DEATHS: u32 = 20;

/// Runs `query` through deaths at random epochs; how many there were, or what differs in the end.
pub(crate) fn check_restarted(
    query: &Query,
    logs: &[Log],
    relations: &[Relation],
    rng: &mut StdRng,
) -> Result<u32, String> {
    let relations = query.relations(relations);
    let (actual, deaths) = restarted(query, logs, &relations, Emission::default(), rng)?;
    let results = as_process(results(query.ordered, &relations));
    let expected: Vec<_> =
        results.values().flat_map(|result| cells_of(&result.batches, result.slack * query.slack)).collect();
    difference(&actual, &expected)
        .map_err(|difference| format!("{} after {deaths} deaths\n{difference}", query.sql))?;
    Ok(deaths)
}

/// The rows of `query` run through deaths at random epochs, and how many there were.
pub(crate) fn restarted(
    query: &Query,
    logs: &[Log],
    relations: &[Relation],
    emission: Emission,
    rng: &mut StdRng,
) -> Result<(Vec<Cells>, u32), String> {
    let lives = Lives::new(query, logs, relations, emission, None, rng);
    let deaths = lives.run(rng)?;
    Ok((cells_of(&lives.ledger.rows(), 0.0), deaths))
}

/// The same with the late rows of `query` behind its own: either sink may be the one that it dies at.
pub(crate) fn restarted_with_late_sink(
    query: &Query,
    logs: &[Log],
    relations: &[Relation],
    emission: Emission,
    rng: &mut StdRng,
) -> Result<(Vec<Cells>, Vec<Cells>, u32), String> {
    let late = Ledger::default();
    let lives = Lives::new(query, logs, relations, emission, Some(late.clone()), rng);
    let deaths = lives.run(rng)?;
    Ok((cells_of(&lives.ledger.rows(), 0.0), cells_of(&late.rows(), 0.0), deaths))
}

/// Runs a future that is told to stop before it is polled for the `polls`-th time.
async fn stopped_at<T>(polls: u32, stop: watch::Sender<bool>, run: impl Future<Output = T>) -> T {
    let (mut run, mut left) = (std::pin::pin!(run), polls);
    std::future::poll_fn(move |context| {
        left = left.saturating_sub(1);
        if left == 0 {
            stop.send_replace(true);
        }
        run.as_mut().poll(context)
    })
    .await
}

/// Where the state is.
enum State {
    Folder(tempfile::TempDir),
    Store(Arc<InMemory>),
}

impl State {
    fn open(&self) -> Result<StateDirectory, Error> {
        match self {
            Self::Folder(folder) => StateDirectory::open(&folder.path().into(), Durability::ProcessCrash),
            Self::Store(store) => {
                let files = ObjectFiles::new(Arc::clone(store) as _, Path::from("state"), "memory").unwrap();
                StateDirectory::on(Arc::new(files), None)
            }
        }
    }
}

/// An executor is lost in every tenth exchange or so, for a while.
fn losses(rng: &mut StdRng) -> Fate {
    let (mut rng, mut left) = (StdRng::seed_from_u64(rng.random()), MOST_DEATHS / 2);
    Box::new(move |executors| {
        if left == 0 || !rng.random_bool(0.1) {
            return None;
        }
        left -= 1;
        let moment = [Moment::Before, Moment::During, Moment::After, Moment::Away][rng.random_range(0..4)];
        Some((rng.random_range(0..executors), moment))
    })
}

/// A query and what outlives it.
struct Lives {
    job: Job,
    relations: Vec<Relation>,
    state: State,
    ledger: Ledger,
    /// Where its late rows go.
    late: Option<Ledger>,
    /// Executors that outlive it, if its state lies there.
    executors: Option<Arc<LocalExecutors>>,
}

impl Lives {
    fn new(
        query: &Query,
        logs: &[Log],
        relations: &[Relation],
        emission: Emission,
        late: Option<Ledger>,
        rng: &mut StdRng,
    ) -> Self {
        let tables = logs.iter().map(|log| Table { log: Arc::new(log.clone()), window: None }).collect();
        let state =
            if rng.random() { State::Store(Arc::default()) } else { State::Folder(tempfile::tempdir().unwrap()) };
        // Executors of other processes find a folder, but not a store in the memory of this one.
        let executors = match &state {
            State::Folder(folder) if rng.random() => {
                let logical = as_process(logical_plan(query.sql, relations));
                let executors = LocalExecutors::new(rng.random_range(1..5), &logical, emission, &options(1_000));
                executors.lose(losses(rng));
                for log in logs {
                    executors.read(&log.name, Arc::new(Replayable { log: Arc::new(log.clone()), split_rows: 1 }));
                }
                Some((executors.seat(Some(folder.path().into())), executors))
            }
            _ => None,
        };
        let (seat, executors) = executors.unzip();
        let job = Job { sql: query.sql, tables, given: None, emission, seat };
        Self { job, relations: relations.to_vec(), state, ledger: Ledger::default(), late, executors }
    }

    /// Starts the query until it comes to its end; how many deaths that took.
    fn run(&self, rng: &mut StdRng) -> Result<u32, String> {
        let mut deaths = 0;
        while !self.start(deaths, rng)? {
            deaths += 1;
        }
        Ok(deaths)
    }

    /// Runs the query to its end or its death; whether it came to its end.
    fn start(&self, deaths: u32, rng: &mut StdRng) -> Result<bool, String> {
        let pace = Pace {
            split_rows: rng.random_range(1..20),
            batch_rows: rng.random_range(1..30),
            checkpoint_epochs: rng.random_range(1..=6),
            replay_rows: rng.random_range(1..40),
        };
        let death = (deaths < MOST_DEATHS).then(|| (rng.random_range(1..6), End::LoseAnswer));
        let mut sink = LedgerSink::new(self.ledger.clone(), None, death);
        let late_sink = self.late.as_ref().map(|late| {
            let death = (deaths < MOST_DEATHS).then(|| (rng.random_range(1..4), End::LoseAnswer));
            Box::new(LedgerSink::new(late.clone(), None, death)) as Box<dyn Sink>
        });
        if let Some(executors) = self.executors.as_ref().filter(|_| deaths < MOST_DEATHS) {
            // They come and go between its lives.
            match rng.random_range(0..8) {
                0 => executors.start("executor-9"),
                2 | 3 => executors.come_back(),
                1 if executors.slots().len() > 1 => executors.end(executors.slots().keys().next().unwrap()),
                _ => {}
            }
        }
        let (sender, stop) = watch::channel(false);
        // A third of the runs are told to stop, at any of their steps: many of them while they still recover.
        let polls = if deaths < MOST_DEATHS && rng.random_bool(0.3) { rng.random_range(1..80) } else { u32::MAX };
        // Now and then it lives without them, and leaves them with what they held.
        let mut job = self.job.clone();
        job.seat = job.seat.filter(|_| !rng.random_bool(0.2));
        let ended = as_process(async {
            let directory = self.state.open()?;
            let logical = logical_plan(self.job.sql, &self.relations).await;
            let sinks = (&mut sink as &mut dyn Sink, late_sink);
            stopped_at(polls, sender, job.run_with_late_sink(&logical, &directory, pace, sinks, stop)).await
        });
        match ended {
            Ok(summary) => Ok(!summary.was_stopped),
            Err(error) if is_lost_answer(&error) || error.is_lost() => Ok(false),
            Err(error) => Err(format!("{} after {deaths} deaths: {error}: {error:?}", self.job.sql)),
        }
    }
}
