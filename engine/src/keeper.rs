//! The durable side of a driver: intents and commits, checkpoints, and recovery from them.
//!
//! Recovery is the normal path run again. The state of the last checkpoint is put back, the epochs that were
//! committed since go through the update plan for their state only, and an epoch whose intent was logged but not its
//! commit runs wholly, with the blocks and the watermark of the intent. The sink's ledger says whether its output is
//! there already.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::common::runtime::SpawnedTask;
use futures::FutureExt;
use tokio::sync::watch;

use crate::batch::Epoch;
use crate::checkpoint::{MANIFEST_VERSION, Manifest};
use crate::driver::{Driver, MicroBatch, stopped};
use crate::durable::{Commit, FullDisk, Intent, LoggedEpoch, QueryStore, Recovered, SharedWal};
use crate::error::{Error, Result};
use crate::ingest::Record;
use crate::query::{QueryProgress, Recovery};
use crate::sink::{Guarantee, Sink};
use crate::time::{Clock, SystemClock};

/// Rows of committed epochs whose state is rebuilt together; watermarks of windows in between are passed at once.
const REPLAYED_ROWS: u64 = 1 << 20;
/// Rows that go through the update plan together then: the more, the fewer state rows come out.
const REPLAYED_UNIT_ROWS: usize = 1 << 19;

/// How checkpoints are paced.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointPolicy {
    /// The longest time between two checkpoints of a query that has work; 10 s unless set.
    pub interval: Duration,
    /// How long replaying the lineage may take: a checkpoint is due when the updates since the last one took longer.
    /// 3 s unless set.
    pub recovery_target: Duration,
    /// Epochs between two checkpoints at the most; without a bound unless set.
    pub epochs: u64,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self { interval: Duration::from_secs(10), recovery_target: Duration::from_secs(3), epochs: u64::MAX }
    }
}

/// What a driver keeps.
#[derive(Debug)]
pub(crate) struct Keeper {
    /// Away while a thread writes to it.
    store: Option<QueryStore>,
    policy: CheckpointPolicy,
    recovered: Option<Recovered>,
    sink_epoch: Option<Epoch>,
    term: u64,
    /// The logs of streams that are kept for this query, by name.
    wals: BTreeMap<String, SharedWal>,
    writing: Option<SpawnedTask<Result<Manifest>>>,
    checkpointed: Instant,
    epochs_since: u64,
    /// How long the updates since the last checkpoint took.
    updating: Duration,
    update_started: Instant,
}

/// An intent on its way to the disk.
pub(crate) type PendingIntent = Option<SpawnedTask<(QueryStore, Intent, Result<()>)>>;

impl Keeper {
    pub(crate) fn new(
        store: QueryStore,
        recovered: Recovered,
        wals: BTreeMap<String, SharedWal>,
        policy: CheckpointPolicy,
    ) -> Self {
        Self {
            term: store.term,
            store: Some(store),
            policy,
            sink_epoch: recovered.sink_epoch,
            recovered: Some(recovered),
            wals,
            writing: None,
            checkpointed: Instant::now(),
            epochs_since: 0,
            updating: Duration::ZERO,
            update_started: Instant::now(),
        }
    }

    fn store(&mut self) -> Result<&mut QueryStore> {
        self.store.as_mut().ok_or_else(|| Error::internal("the query's store is away"))
    }

    /// Runs disk work on a thread that may block.
    async fn on_disk<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut QueryStore) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut store = self.store.take().ok_or_else(|| Error::internal("the query's store is away"))?;
        let task = SpawnedTask::spawn_blocking(move || {
            let result = work(&mut store);
            (store, result)
        });
        let (store, result) =
            task.join().await.map_err(|error| Error::internal(format!("a write stopped: {error}")))?;
        self.store = Some(store);
        result
    }

    /// Does disk work, and again while there is no room for it; the query pauses meanwhile.
    async fn when_there_is_room<T: Send + 'static>(
        &mut self,
        work: impl Fn(&mut QueryStore) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        let mut full_disk = FullDisk::new(format!("query {}", self.store()?.name));
        loop {
            match self.on_disk(work.clone()).await {
                Err(error) if error.is_disk_full() => {
                    full_disk.say(&error);
                    tokio::time::sleep(self.store()?.room_pause()).await;
                }
                other => return other,
            }
        }
    }

    fn is_due(&self) -> bool {
        self.epochs_since > 0
            && (self.checkpointed.elapsed() >= self.policy.interval
                || self.updating >= self.policy.recovery_target
                || self.epochs_since >= self.policy.epochs)
    }
}

impl Driver {
    /// Sends the intent of an epoch to the disk; its work may begin meanwhile.
    pub(crate) fn begin_intent(&mut self, batch: &mut MicroBatch) -> PendingIntent {
        let epoch = self.epoch;
        let keeper = self.keeper.as_mut()?;
        keeper.update_started = Instant::now();
        let mut store = keeper.store.take()?;
        let intent = Intent {
            epoch,
            term: keeper.term,
            batch_time: SystemClock.now(),
            watermark: batch.watermark,
            streams: batch.take_logged(),
        };
        Some(SpawnedTask::spawn_blocking(move || {
            let logged = store.log_intent(&intent);
            (store, intent, logged)
        }))
    }

    /// Waits until the intent is durable.
    pub(crate) async fn end_intent(&mut self, pending: PendingIntent) -> Result<()> {
        let (Some(keeper), Some(task)) = (self.keeper.as_mut(), pending) else { return Ok(()) };
        let (store, intent, logged) =
            task.join().await.map_err(|error| Error::internal(format!("a write stopped: {error}")))?;
        keeper.store = Some(store);
        match logged {
            Err(error) if error.is_disk_full() => {
                keeper.when_there_is_room(move |store| store.log_intent(&intent)).await
            }
            other => other,
        }
    }

    /// Logs the commit of the epoch in hand.
    pub(crate) async fn log_commit(&mut self, has_rows: bool) -> Result<()> {
        let (epoch, counters) = (self.epoch, self.counters);
        let Some(keeper) = self.keeper.as_mut() else { return Ok(()) };
        if has_rows {
            keeper.sink_epoch = Some(epoch);
        }
        keeper.epochs_since += 1;
        keeper.updating += keeper.update_started.elapsed();
        let commit = Commit { epoch, term: keeper.term, sink_epoch: keeper.sink_epoch, counters };
        // A buffered write of a few hundred bytes: too short to be worth another thread.
        match keeper.store()?.log_commit(&commit) {
            Err(error) if error.is_disk_full() => {
                keeper.when_there_is_room(move |store| store.log_commit(&commit)).await
            }
            other => other,
        }
    }

    /// Starts a checkpoint if one is due, and takes in one that has been written.
    pub(crate) async fn checkpoint_if_due(&mut self) -> Result<()> {
        let Some(keeper) = self.keeper.as_mut() else { return Ok(()) };
        if let Some(written) = keeper.writing.as_mut().and_then(FutureExt::now_or_never) {
            keeper.writing = None;
            self.take_in(flattened(written)).await?;
        }
        if self.keeper.as_ref().is_some_and(|keeper| keeper.writing.is_none() && keeper.is_due()) {
            self.start_checkpoint().await?;
        }
        Ok(())
    }

    /// Finishes what is being written and checkpoints what has come since: nothing is left to replay.
    pub(crate) async fn leave(&mut self) -> Result<()> {
        if self.keeper.is_none() {
            return Ok(());
        }
        self.take_in_checkpoint().await?;
        if self.keeper.as_ref().is_some_and(|keeper| keeper.epochs_since > 0) {
            self.start_checkpoint().await?;
            self.take_in_checkpoint().await?;
        }
        Ok(())
    }

    async fn start_checkpoint(&mut self) -> Result<()> {
        let stages = self.stage.images()?;
        let (epoch, watermark, counters) = (self.epoch, self.watermark(), self.counters);
        let places = self.streams.iter().map(|s| (s.ingest.definition().name.clone(), s.place.clone())).collect();
        let Some(keeper) = self.keeper.as_mut() else { return Ok(()) };
        let (term, sink_epoch) = (keeper.term, keeper.sink_epoch);
        let (writer, id, journal) = keeper
            .when_there_is_room(|store| {
                let journal = store.begin_segment()?;
                Ok((store.checkpoint_writer(), store.id.clone(), journal))
            })
            .await?;
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            query: id,
            datafusion: datafusion::DATAFUSION_VERSION.to_owned(),
            epoch,
            journal,
            term,
            taken_at: SystemClock.now(),
            watermark,
            sink_epoch,
            counters,
            streams: places,
            stages: Vec::new(),
            files: Vec::new(),
        };
        (keeper.checkpointed, keeper.epochs_since, keeper.updating) = (Instant::now(), 0, Duration::ZERO);
        keeper.writing = Some(SpawnedTask::spawn_blocking(move || writer.write(manifest, stages)));
        Ok(())
    }

    /// Waits for the checkpoint that is being written, if one is.
    async fn take_in_checkpoint(&mut self) -> Result<()> {
        let Some(keeper) = self.keeper.as_mut() else { return Ok(()) };
        let Some(task) = keeper.writing.take() else { return Ok(()) };
        self.take_in(flattened(task.join().await)).await
    }

    /// Releases what a checkpoint that was written makes unnecessary.
    async fn take_in(&mut self, written: Result<Manifest>) -> Result<()> {
        let Some(keeper) = self.keeper.as_mut() else { return Ok(()) };
        let manifest = match written {
            Ok(manifest) => manifest,
            Err(error) if error.is_disk_full() => {
                // The lineage is still there; the next checkpoint writes everything.
                tracing::error!(%error, "no room for a checkpoint, the query goes on without it");
                self.stage.forget_images();
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        tracing::info!(epoch = manifest.epoch.0, files = manifest.files.len(), "checkpointed");
        let names: Vec<String> = keeper.wals.keys().cloned().collect();
        let needed = keeper
            .on_disk(move |store| {
                store.keep(manifest)?;
                Ok(names.into_iter().filter_map(|name| Some((store.needed_from(&name)?, name))).collect::<Vec<_>>())
            })
            .await?;
        for (seq, name) in needed {
            if let (Some(wal), Some(store)) = (keeper.wals.get(&name), &keeper.store) {
                wal.release(&store.id, seq).await?;
            }
        }
        Ok(())
    }

    /// Begins the sink's reign and brings the state to where the last run left it; whether it was stopped meanwhile.
    pub(crate) async fn recover(
        &mut self,
        sink: &mut dyn Sink,
        stop: &mut watch::Receiver<bool>,
        progress: &watch::Sender<QueryProgress>,
    ) -> Result<bool> {
        let Some(keeper) = self.keeper.as_mut() else {
            let fresh = crate::sink::SinkWriter { query: uuid::Uuid::new_v4().to_string(), term: 1 };
            sink.begin(&fresh).await?;
            return Ok(false);
        };
        let writer = keeper.store()?.writer();
        let recovered = keeper.recovered.take().ok_or_else(|| Error::internal("a query recovers twice"))?;
        let ledger = sink.begin(&writer).await?;
        check_ledger(&keeper.store()?.name, sink.guarantee(), ledger, &recovered)?;
        (self.epoch, self.counters) = (recovered.epoch, recovered.counters);
        if let Some(stages) = recovered.stages {
            self.stage.put_back(&mut stages.into_iter())?;
        }
        let total = recovered.epochs.len() as u64;
        let (started, rows_before) = (Instant::now(), self.counters.rows_read);
        let mut epochs = recovered.epochs.into_iter();
        while epochs.len() > 0 {
            let recovery = Some(Recovery { epochs_done: total - epochs.len() as u64, epochs: total });
            progress.send_replace(QueryProgress { recovery, ..self.progress(self.watermark(), Duration::ZERO) });
            tokio::select! {
                biased;
                () = stopped(stop) => return Ok(true),
                ended = self.run_again(&mut epochs, ledger, sink) => ended?,
            }
        }
        if total > 0 {
            let rows = self.counters.rows_read - rows_before;
            tracing::info!(epochs = total, rows, elapsed = ?started.elapsed(), "rebuilt the state from its lineage");
        }
        progress.send_replace(self.progress(self.watermark(), Duration::ZERO));
        Ok(false)
    }

    /// Runs the next of the logged epochs again, several at once where only their state is wanted.
    async fn run_again(
        &mut self,
        epochs: &mut std::vec::IntoIter<LoggedEpoch>,
        ledger: Option<Epoch>,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let mut together: Option<(MicroBatch, u64, Commit)> = None;
        while together.as_ref().is_none_or(|(batch, ..)| batch.rows() < REPLAYED_ROWS)
            && let Some(logged) = epochs.next()
        {
            let LoggedEpoch { intent, commit } = logged;
            let batch = self.batch_again(&intent).await?;
            let Some(commit) = commit else {
                self.rebuild(together).await?;
                return self.finish_in_hand(batch, ledger, sink).await;
            };
            match &mut together {
                Some((known, count, last)) => {
                    known.append(batch, REPLAYED_UNIT_ROWS);
                    (*count, *last) = (*count + 1, commit);
                }
                None => together = Some((batch, 1, commit)),
            }
        }
        self.rebuild(together).await
    }

    /// The micro-batch that an intent names.
    async fn batch_again(&mut self, intent: &Intent) -> Result<MicroBatch> {
        let mut taken = Vec::new();
        for (index, records) in intent.streams.iter().enumerate() {
            taken.push(self.take_until(index, records.end()).await?);
        }
        let mut batch = self.batch_of(taken);
        if batch.watermark == intent.watermark && batch.take_logged() == intent.streams {
            return Ok(batch);
        }
        Err(Error::state(
            format!(
                "epoch {} cannot be repeated: its input gives watermark {} instead of {}",
                intent.epoch, batch.watermark, intent.watermark
            ),
            "restore the input as it was, or start again with a new state directory",
        ))
    }

    /// Brings the state to what it was after so many committed epochs, the last of which had this commit.
    async fn rebuild(&mut self, epochs: Option<(MicroBatch, u64, Commit)>) -> Result<()> {
        let Some((batch, count, commit)) = epochs else { return Ok(()) };
        let started = Instant::now();
        self.update(&batch).await?;
        self.stage.pass(batch.watermark)?;
        self.counters = commit.counters;
        self.epoch = commit.epoch.next();
        if let Some(keeper) = self.keeper.as_mut() {
            keeper.sink_epoch = commit.sink_epoch;
            keeper.epochs_since += count;
            keeper.updating += started.elapsed();
        }
        Ok(())
    }

    /// Runs the epoch that was not committed, wholly.
    async fn finish_in_hand(&mut self, batch: MicroBatch, ledger: Option<Epoch>, sink: &mut dyn Sink) -> Result<()> {
        if let Some(keeper) = self.keeper.as_mut() {
            keeper.update_started = Instant::now();
        }
        self.update(&batch).await?;
        let staged = self.evaluate(&batch, sink).await?;
        // Where the ledger has the epoch, the sink leaves it as it is.
        if staged > 0 {
            sink.commit(self.epoch).await?;
        }
        tracing::info!(epoch = self.epoch.0, staged, ledger = ?ledger, "finished the epoch in hand");
        self.finish_epoch(staged).await
    }

    /// Takes the records of a stream up to `end`.
    async fn take_until(&mut self, index: usize, end: u64) -> Result<Vec<Arc<Record>>> {
        let stream = self.streams.get_mut(index).ok_or_else(|| Error::internal("an epoch names too many streams"))?;
        let mut records = Vec::new();
        while stream.reader.place() < end {
            let taken = stream.reader.take(usize::MAX, end);
            if taken.is_empty() {
                if stream.reader.is_at_end()? {
                    let name = &stream.ingest.definition().name;
                    return Err(Error::state(
                        format!("stream \"{name}\" ends before record {end}, which the query has used"),
                        "restore the input as it was, or start again with a new state directory",
                    ));
                }
                stream.reader.changed().await;
            }
            records.extend(taken);
        }
        Ok(records)
    }
}

fn flattened<T>(ended: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    ended.map_err(|error| Error::internal(format!("a write stopped: {error}")))?
}

/// Compares the sink's ledger with the journal.
fn check_ledger(name: &str, guarantee: Guarantee, ledger: Option<Epoch>, recovered: &Recovered) -> Result<()> {
    if guarantee == Guarantee::AtLeastOnce {
        return Ok(());
    }
    let committed = recovered.epochs.iter().filter_map(|epoch| epoch.commit.as_ref()).next_back();
    let known = committed.map_or(recovered.sink_epoch, |commit| commit.sink_epoch);
    let in_hand = recovered.epochs.last().filter(|epoch| epoch.commit.is_none()).map(|epoch| epoch.intent.epoch);
    if ledger == known || (ledger.is_some() && ledger == in_hand) {
        return Ok(());
    }
    let say = |epoch: Option<Epoch>| epoch.map_or("no epoch".to_owned(), |epoch| format!("epoch {epoch}"));
    Err(Error::state(
        format!("the sink of query \"{name}\" has {} of it, but the state directory says {}", say(ledger), say(known)),
        "state directory and sink belong together: restore both from copies of the same time, or begin anew with both",
    ))
}
