//! The durable side of a driver while it runs: intents and commits, and checkpoints.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use datafusion::common::runtime::SpawnedTask;
use futures::FutureExt;
use futures::future::{BoxFuture, pending, select_all};

use crate::batch::Epoch;
use crate::checkpoint::{MANIFEST_VERSION, Manifest, Saved, StageImage};
use crate::driver::{Driver, MicroBatch, Staged};
use crate::durable::{Commit, FullDisk, Intent, QueryStore, Recovered, SharedWal};
use crate::error::{Error, Result};
use crate::time::{Clock, SystemClock};

/// A checkpoint is due when a log has taken in this part of what it may hold.
const LOG_SHARES: u64 = 4;

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
    /// Rows of committed epochs whose state is rebuilt together, with one passing of watermarks; 1,048,576 unless set.
    pub replay_rows: u64,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(10),
            recovery_target: Duration::from_secs(3),
            epochs: u64::MAX,
            replay_rows: 1 << 20,
        }
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
    late_epoch: Option<Epoch>,
    term: u64,
    /// The logs of streams that are kept for this query, by name.
    wals: BTreeMap<String, SharedWal>,
    writing: Option<SpawnedTask<Result<Manifest>>>,
    /// The end of one that was written and is still to be taken in.
    written: Option<Result<Manifest>>,
    /// How much each log had taken in when the last checkpoint began.
    logged: BTreeMap<String, u64>,
    checkpointed: Instant,
    epochs_since: u64,
    /// Whether a checkpoint is due with the next epoch.
    wants_first: bool,
    /// Whether one was taken in just now, so that there is little to replay.
    is_fresh: bool,
    /// How long the updates since the last checkpoint took.
    updating: Duration,
    update_started: Instant,
}

/// The state of a checkpoint, still to be written.
enum Image<'a> {
    Here(Vec<StageImage>),
    /// At executors, which write it.
    Spread(BoxFuture<'a, Result<Saved>>),
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
            late_epoch: recovered.late_epoch,
            recovered: Some(recovered),
            logged: logged_by(&wals),
            wals,
            writing: None,
            written: None,
            checkpointed: Instant::now(),
            epochs_since: 0,
            wants_first: false,
            is_fresh: false,
            updating: Duration::ZERO,
            update_started: Instant::now(),
        }
    }

    /// What the last run left; it is taken once.
    pub(crate) fn take_recovered(&mut self) -> Result<Recovered> {
        self.recovered.take().ok_or_else(|| Error::internal("a query recovers twice"))
    }

    /// Asks for a checkpoint with the next epoch: what came before it in its logs may soon be gone.
    pub(crate) fn want_checkpoint(&mut self) {
        self.wants_first = true;
    }

    /// The rows that are replayed together.
    pub(crate) const fn replay_rows(&self) -> u64 {
        self.policy.replay_rows
    }

    /// Notes that the work of an epoch begins.
    pub(crate) fn begin_update(&mut self) {
        self.update_started = Instant::now();
    }

    /// Counts epochs that were replayed, the last of them with this commit.
    pub(crate) fn note_replayed(&mut self, epochs: u64, commit: &Commit, took: Duration) {
        (self.sink_epoch, self.late_epoch) = (commit.sink_epoch, commit.late_epoch);
        self.epochs_since += epochs;
        self.updating += took;
    }

    pub(crate) fn store(&mut self) -> Result<&mut QueryStore> {
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
            && (self.wants_first
                || self.checkpointed.elapsed() >= self.policy.interval
                || self.updating >= self.policy.recovery_target
                || self.epochs_since >= self.policy.epochs
                || self.wals.iter().any(|(name, wal)| wal.has_reached(self.pressing_at(name, wal))))
    }

    /// How much a log has taken in when it is time for a checkpoint, so that it can be trimmed before it is full.
    fn pressing_at(&self, name: &str, wal: &SharedWal) -> u64 {
        self.logged.get(name).copied().unwrap_or_default() + wal.limit_bytes() / LOG_SHARES
    }

    /// Completes when a checkpoint has been written or is due, however few rows come.
    pub(crate) async fn checkpoint_turn(&mut self) {
        if let Some(task) = self.writing.as_mut() {
            self.written = Some(flattened(task.await));
            self.writing = None;
        }
        if self.written.is_some() || self.is_due() {
            return;
        }
        if self.epochs_since == 0 {
            return pending().await;
        }
        let logs = self.wals.iter().map(|(name, wal)| wal.reaches(self.pressing_at(name, wal)).boxed());
        let pressed = select_all(logs.chain([pending().boxed()]));
        let due = self.checkpointed.checked_add(self.policy.interval);
        tokio::select! {
            () = until(due) => {}
            _ = pressed => {}
        }
    }
}

impl Driver {
    /// Sends the intent of an epoch to the disk; its work may begin meanwhile.
    pub(crate) fn begin_intent(&mut self, batch: &mut MicroBatch) -> PendingIntent {
        let epoch = self.epoch;
        let keeper = self.keeper.as_mut()?;
        keeper.begin_update();
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
    pub(crate) async fn log_commit(&mut self, staged: Staged) -> Result<()> {
        let (epoch, counters) = (self.epoch, self.counters);
        let Some(keeper) = self.keeper.as_mut() else { return Ok(()) };
        if staged.results > 0 {
            keeper.sink_epoch = Some(epoch);
        }
        if staged.late > 0 {
            keeper.late_epoch = Some(epoch);
        }
        keeper.epochs_since += 1;
        keeper.updating += keeper.update_started.elapsed();
        let (term, sink_epoch, late_epoch) = (keeper.term, keeper.sink_epoch, keeper.late_epoch);
        let commit = Commit { epoch, term, sink_epoch, late_epoch, counters };
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
            (keeper.writing, keeper.written) = (None, Some(flattened(written)));
        }
        if let Some(written) = keeper.written.take() {
            self.take_in(written).await?;
        }
        if self.keeper.as_ref().is_some_and(|keeper| keeper.writing.is_none() && keeper.is_due()) {
            self.start_checkpoint().await?;
        }
        Ok(())
    }

    /// Moves state that should lie elsewhere, once there is little to send again.
    ///
    /// # Errors
    /// [`Error::Lost`] if the query has to be begun again for that.
    pub(crate) async fn move_if_misplaced(&mut self) -> Result<()> {
        let (Some(spread), Some(keeper)) = (self.stage.spread(), self.keeper.as_mut()) else { return Ok(()) };
        let is_fresh = std::mem::take(&mut keeper.is_fresh);
        if spread.wants_checkpoint() {
            keeper.want_checkpoint();
        }
        let Some(reason) = spread.misplaced() else { return Ok(()) };
        if is_fresh || (keeper.epochs_since == 0 && keeper.writing.is_none()) {
            return spread.rebalance(reason).await;
        }
        keeper.want_checkpoint();
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
        let state = match self.stage.spread() {
            None => Image::Here(self.stage.plan_mut().images()?),
            Some(spread) => Image::Spread(spread.image(self.epoch).await?.boxed()),
        };
        let (epoch, watermark, counters) = (self.epoch, self.watermark(), self.counters);
        let places =
            self.streams.iter().map(|s| (s.ingest.definition().name.clone(), s.kept_place().clone())).collect();
        let Some(keeper) = self.keeper.as_mut() else { return Ok(()) };
        let (term, sink_epoch, late_epoch) = (keeper.term, keeper.sink_epoch, keeper.late_epoch);
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
            late_epoch,
            counters,
            streams: places,
            stages: Vec::new(),
            files: Vec::new(),
        };
        (keeper.checkpointed, keeper.epochs_since, keeper.updating) = (Instant::now(), 0, Duration::ZERO);
        (keeper.logged, keeper.wants_first) = (logged_by(&keeper.wals), false);
        keeper.writing = Some(match state {
            Image::Here(stages) => SpawnedTask::spawn_blocking(move || writer.write(manifest, stages)),
            Image::Spread(saved) => SpawnedTask::spawn(async move {
                let saved = saved.await?;
                flattened(SpawnedTask::spawn_blocking(move || writer.publish(manifest, saved)).join().await)
            }),
        });
        Ok(())
    }

    /// Waits for the checkpoint that is being written, if one is.
    async fn take_in_checkpoint(&mut self) -> Result<()> {
        let Some(keeper) = self.keeper.as_mut() else { return Ok(()) };
        let written = match (keeper.written.take(), keeper.writing.take()) {
            (Some(written), _) => written,
            (None, Some(task)) => flattened(task.join().await),
            (None, None) => return Ok(()),
        };
        self.take_in(written).await
    }

    /// Releases what a checkpoint that was written makes unnecessary.
    async fn take_in(&mut self, written: Result<Manifest>) -> Result<()> {
        let Some(keeper) = self.keeper.as_mut() else { return Ok(()) };
        let manifest = match written {
            Ok(manifest) => manifest,
            Err(error) if error.is_disk_full() || error.is_lost() => {
                // The lineage is still there; the next checkpoint writes everything.
                tracing::error!(%error, "a checkpoint was not written, the query goes on without it");
                match self.stage.spread() {
                    None => self.stage.plan_mut().forget_images(),
                    Some(spread) => spread.forget_images(),
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        tracing::info!(epoch = manifest.epoch.0, files = manifest.files.len(), "checkpointed");
        let kept = manifest.clone();
        keeper.on_disk(move |store| store.keep(kept)).await?;
        keeper.is_fresh = true;
        if let Some(spread) = self.stage.spread() {
            spread.note_checkpoint(&manifest);
        }
        for (name, wal) in &keeper.wals {
            // Nothing of the store is held while waiting: threads share no store, and a query may move between them.
            let Some(store) = &keeper.store else { return Ok(()) };
            let (id, needed, reached) = (store.id.clone(), store.needed_from(name), store.reached(name));
            if let Some(seq) = needed {
                wal.release(&id, seq).await?;
            }
            if let (true, Some(seq)) = (wal.is_full(), reached) {
                // An input that waits is worse than a checkpoint that there is no falling back behind.
                wal.release(&id, seq).await?;
            }
        }
        Ok(())
    }
}

fn logged_by(wals: &BTreeMap<String, SharedWal>) -> BTreeMap<String, u64> {
    wals.iter().map(|(name, wal)| (name.clone(), wal.appended())).collect()
}

/// Completes at a time; never at one that no clock can show.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => pending().await,
    }
}

fn flattened<T>(ended: std::result::Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    ended.map_err(|error| Error::internal(format!("a write stopped: {error}")))?
}
