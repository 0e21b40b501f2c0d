//! A run in two lives: the first ends by a crash, the second goes on from what is in the state directory.
//!
//! Each life has a runtime of its own, which is gone with all its threads when the life ends, as a process would be.
//! The streams count as ones that cannot be read again, so that their rows come out of write-ahead logs.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::logical_expr::LogicalPlan;
use tokio::sync::watch;

use super::{Cut, ScriptReader, StreamLogScript, ingest_by_hand};
use crate::batch::Epoch;
use crate::driver::Driver;
use crate::durable::{Durability, Misfit, SharedWal, StateDirectory, resume_streams};
use crate::error::{Error, Result};
use crate::ingest::{Ingest, Recorder};
use crate::keeper::CheckpointPolicy;
use crate::plan::Emission;
use crate::query::{PlannedQuery, QueryOptions, QueryProgress};
use crate::sink::{Guarantee, Sink, SinkWriter};

/// How the first life ends.
#[derive(Debug, Clone, Copy)]
pub struct Crash {
    /// How many rounds of appending records and running micro-batches come before it; at the end of the scripts if
    /// there are not as many.
    pub rounds: usize,
    /// Whether it comes while an epoch is committed, between the sink's ledger and the journal; between two epochs
    /// otherwise, and if no epoch follows.
    pub is_in_commit: bool,
    /// Epochs between two checkpoints.
    pub checkpoint_epochs: u64,
}

/// Runs `logical` over `scripts` as [`run_scripts`](super::run_scripts) does, in two lives with an empty folder
/// `state` between them; the rows that a sink with a ledger holds in the end, in order.
///
/// Blocks the thread, which must not be one of an asynchronous runtime.
///
/// # Errors
/// Fails as the query fails, and if a script for one of its streams is missing.
pub fn run_restarted(
    logical: &LogicalPlan,
    emission: Emission,
    scripts: &[StreamLogScript],
    cut: &mut dyn Cut,
    options: &QueryOptions,
    state: &Path,
    crash: Crash,
) -> Result<Vec<RecordBatch>> {
    let policy = CheckpointPolicy { epochs: crash.checkpoint_epochs.max(1), ..CheckpointPolicy::default() };
    let lives = Lives { logical, emission, options, state, policy };
    let readers = scripts.iter().map(|script| (script.definition.name.clone(), ScriptReader::new(script)));
    let mut readers = readers.collect();
    let mut sink = Ledger::default();
    as_process(lives.live(&mut readers, cut, &mut sink, Some(crash)))?;
    as_process(lives.live(&mut readers, cut, &mut sink, None))?;
    Ok(sink.epochs.into_values().flatten().collect())
}

/// Runs a future as a process would: when this returns none of its threads is left.
fn as_process<T>(life: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    runtime.map_err(|error| Error::external("starting a runtime", error))?.block_on(life)
}

/// What both lives have in common.
struct Lives<'a> {
    logical: &'a LogicalPlan,
    emission: Emission,
    options: &'a QueryOptions,
    state: &'a Path,
    policy: CheckpointPolicy,
}

impl Lives<'_> {
    /// Lives until `crash`, or until the scripts are at their ends.
    async fn live(
        &self,
        readers: &mut HashMap<String, ScriptReader>,
        cut: &mut dyn Cut,
        sink: &mut Ledger,
        crash: Option<Crash>,
    ) -> Result<()> {
        let (mut driver, mut logs) = self.wake(readers, sink).await?;
        for round in 1.. {
            let mut is_over = true;
            for log in &mut logs {
                let name = &log.ingest.definition().name;
                let script = readers.get_mut(name).ok_or_else(|| missing(name))?;
                for _ in 0..cut.records() {
                    let Some(event) = script.next_event(cut.block_rows().max(1)) else { break };
                    log.ingest.append_all(vec![event], &mut log.recorder, log.wal.as_ref()).await?;
                }
                is_over &= !script.has_event();
            }
            let is_last = is_over || crash.is_some_and(|crash| round >= crash.rounds);
            sink.loses_answer = is_last && crash.is_some_and(|crash| crash.is_in_commit);
            match driver.run_available(sink).await {
                Err(_) if sink.has_lost_answer => break,
                ended => ended?,
            }
            if is_last {
                break;
            }
        }
        (sink.loses_answer, sink.has_lost_answer) = (false, false);
        Ok(())
    }

    /// Brings the query to where the life before left it.
    async fn wake(&self, readers: &HashMap<String, ScriptReader>, sink: &mut Ledger) -> Result<(Driver, Vec<KeptLog>)> {
        let planned = PlannedQuery::plan_emitting(self.logical, self.emission, self.options.clone()).await?;
        let directory = StateDirectory::open(&self.state.into(), Durability::ProcessCrash)?;
        let mut queries = vec![planned.keep_in(&directory, self.policy, Misfit::Refuse)?];
        let ingests = resume_streams(&mut queries, &directory, |stream| Ok(ingest_by_hand(stream, false)))?;
        let (Some(query), Some(ingests)) = (queries.pop(), ingests.into_iter().next()) else {
            return Err(Error::internal("a query without its ingests"));
        };
        let mut driver = query.start(ingests.clone())?.into_driver();
        let mut logs = Vec::new();
        for ingest in ingests {
            let name = &ingest.definition().name;
            let partitions = readers.get(name).ok_or_else(|| missing(name))?.partitions();
            logs.push(KeptLog::new(ingest, partitions)?);
        }
        let ((_running, mut stop), (progress, _)) = (watch::channel(false), watch::channel(QueryProgress::default()));
        let following = async {
            for log in &mut logs {
                log.follow().await?;
            }
            Ok(())
        };
        // Side by side: the query takes the records again as the logs hand them out.
        tokio::try_join!(following, driver.recover(sink, &mut stop, &progress))?;
        Ok((driver, logs))
    }
}

fn missing(stream: &str) -> Error {
    Error::internal(format!("no script for stream {stream}"))
}

/// A stream whose records are appended by hand to a log that lasts.
struct KeptLog {
    ingest: Arc<Ingest>,
    recorder: Recorder,
    wal: Option<SharedWal>,
}

impl KeptLog {
    fn new(ingest: Arc<Ingest>, partitions: usize) -> Result<Self> {
        let resume = ingest.take_resume();
        let recorder = Recorder::new(&resume.place, ingest.definition(), partitions)?;
        Ok(Self { ingest, recorder, wal: resume.wal })
    }

    /// Takes in what the life before has logged.
    async fn follow(&mut self) -> Result<()> {
        match &self.wal {
            Some(wal) => self.ingest.follow_wal(wal, &mut self.recorder).await,
            None => Ok(()),
        }
    }
}

/// A sink that outlives the query, and may lose the answer to a commit that it has made.
#[derive(Debug, Default)]
struct Ledger {
    staged: Vec<RecordBatch>,
    epochs: BTreeMap<Epoch, Vec<RecordBatch>>,
    loses_answer: bool,
    has_lost_answer: bool,
}

#[async_trait]
impl Sink for Ledger {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn begin(&mut self, _: &SinkWriter) -> Result<Option<Epoch>> {
        self.staged.clear();
        Ok(self.epochs.keys().next_back().copied())
    }

    async fn stage(&mut self, _: Epoch, rows: &[RecordBatch]) -> Result<()> {
        self.staged.extend_from_slice(rows);
        Ok(())
    }

    async fn commit(&mut self, epoch: Epoch) -> Result<()> {
        let staged = std::mem::take(&mut self.staged);
        self.epochs.entry(epoch).or_insert(staged);
        if self.loses_answer {
            self.has_lost_answer = true;
            return Err(Error::external("committing", "the answer was lost"));
        }
        Ok(())
    }
}
