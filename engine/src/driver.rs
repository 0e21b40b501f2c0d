//! The epoch loop: choose blocks, update, evaluate the instants that were crossed, commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::record_batch::RecordBatch;
use futures::FutureExt;
use futures::future::select_all;
use tokio::sync::watch;

use crate::batch::Epoch;
use crate::checkpoint::Counters;
use crate::cluster::{AwayRows, Stages};
use crate::durable::StreamRecords;
use crate::error::{Error, Result};
use crate::executor::{LateRows, StageAnalysis, StageCounts, units_of};
use crate::ingest::{Block, Ingest, LOG_LIMIT_BYTES, LogPlace, LogReader, LoggedEvent, Progress, Record};
use crate::keeper::Keeper;
use crate::pace::Pace;
use crate::query::{QueryOptions, QueryProgress};
use crate::refreshed::Versions;
use crate::sink::Sink;
use crate::time::{NANOS_PER_SECOND, Span, Watermark};

/// Rows that go through the update plan together; enough to make the cost of an execution vanish.
const UNIT_ROWS: usize = 1 << 16;
/// How many delays are kept for the summary, the most recent ones.
const KEPT_DELAYS: usize = 1 << 16;

/// Drives one query.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) stage: Stages,
    /// The streams, and then the refreshed tables.
    pub(crate) streams: Vec<Stream>,
    pub(crate) tables: Arc<Versions>,
    options: QueryOptions,
    pub(crate) epoch: Epoch,
    pub(crate) counters: Counters,
    pace: Pace,
    delays: Vec<Duration>,
    pub(crate) rebuilt: Option<Rebuilt>,
    /// What outlives the process; nothing does without a state directory.
    pub(crate) keeper: Option<Keeper>,
    /// Where rows go that come too late for every window, if that is not only the side table.
    pub(crate) late_sink: Option<Box<dyn Sink>>,
}

/// How many rows of an epoch wait in the sinks for their commit.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Staged {
    pub(crate) results: u64,
    pub(crate) late: u64,
}

/// A stream as the query has read it.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) reader: LogReader,
    pub(crate) watermark: Watermark,
    /// Where it has been read to.
    pub(crate) place: LogPlace,
    /// Of a refreshed table the place before the version that the query has come to.
    version_place: LogPlace,
}

impl Stream {
    /// Whether it is a refreshed table: its records are versions, and no query waits for their time.
    pub(crate) fn is_table(&self) -> bool {
        self.ingest.definition().refresh.is_some()
    }

    /// The place to begin from after a restart.
    pub(crate) fn kept_place(&self) -> &LogPlace {
        if self.is_table() { &self.version_place } else { &self.place }
    }

    /// The last version among records, with the name of the table.
    fn last_version(&self, records: &[Arc<Record>]) -> Option<(String, Vec<RecordBatch>)> {
        let last = records.iter().rfind(|record| is_version(record))?;
        let rows = last.block.iter().map(|block| block.rows.clone()).collect();
        Some((self.ingest.definition().name.clone(), rows))
    }

    /// Moves behind a record.
    fn pass(&mut self, record: &Record) {
        if is_version(record) {
            self.version_place = self.place.clone();
        }
        self.place.pass(record);
    }
}

/// Whether a record of a refreshed table is a version of it.
fn is_version(record: &Record) -> bool {
    matches!(record.event, LoggedEvent::Rows { .. })
}

/// What a query did, once it has ended.
#[derive(Debug, Clone)]
pub struct Summary {
    /// Its last progress.
    pub progress: QueryProgress,
    /// Where its rows went, and what its state cost.
    pub counts: StageCounts,
    /// For each epoch with output, from logging its last row to its commit; the most recent, in order of time.
    pub delays: Vec<Duration>,
    /// Whether it was stopped before its streams ended.
    pub was_stopped: bool,
    /// What it cost to go on; none if there was nothing to replay.
    pub rebuilt: Option<Rebuilt>,
    /// Its plans and those of its views, views first, with what they have done; empty unless
    /// [`QueryOptions::analyze`] is set.
    pub analysis: Vec<StageAnalysis>,
}

/// State that was rebuilt from its lineage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Epochs that were replayed.
    pub epochs: u64,
    /// Rows in them.
    pub rows: u64,
    /// How long it took, from the checkpoint's state to the first new epoch.
    pub elapsed: Duration,
}

impl Summary {
    /// The delay that this share of the epochs with output did not exceed; zero if there were none.
    pub fn delay_quantile(&self, share: f64) -> Duration {
        let mut sorted = self.delays.clone();
        sorted.sort_unstable();
        let last = sorted.len().saturating_sub(1);
        let rank = (share.clamp(0.0, 1.0) * last as f64).round() as usize;
        sorted.get(rank).copied().unwrap_or_default()
    }
}

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// Rows are worth a micro-batch.
    Epoch,
    /// A checkpoint is due, or one has been written, or executors have come or gone.
    Checkpoint,
    /// Every stream has ended.
    End,
}

/// The records of a micro-batch.
pub(crate) struct MicroBatch {
    units: Vec<Vec<Vec<Arc<Block>>>>,
    /// Rows that executors hold.
    away: AwayRows,
    /// What the records of each stream say, in words that last.
    logged: Vec<StreamRecords>,
    /// The tables that have another version from here on.
    versions: Vec<(String, Vec<RecordBatch>)>,
    records: usize,
    rows: u64,
    bytes: usize,
    logged_at: Option<Instant>,
    pub(crate) watermark: Watermark,
}

impl Driver {
    pub(crate) fn new(
        mut stage: Stages,
        streams: Vec<(Arc<Ingest>, LogPlace)>,
        tables: Arc<Versions>,
        options: QueryOptions,
    ) -> Self {
        if let Some(spread) = stage.spread() {
            spread.map_elsewhere(streams.iter().filter_map(|(ingest, _)| ingest.readers().cloned()).collect());
        }
        let streams = streams.into_iter().map(|(ingest, place)| Stream {
            reader: ingest.reader(place.seq),
            watermark: match ingest.definition().refresh {
                Some(_) => Watermark::END,
                None => place.progress.as_ref().map_or(Watermark::START, Progress::watermark),
            },
            ingest,
            version_place: place.clone(),
            place,
        });
        Self {
            stage,
            streams: streams.collect(),
            tables,
            pace: Pace::new(options.max_wait),
            options,
            epoch: Epoch(0),
            counters: Counters::default(),
            delays: Vec::new(),
            rebuilt: None,
            keeper: None,
            late_sink: None,
        }
    }

    /// The query's name.
    pub(crate) fn name(&self) -> &str {
        &self.options.name
    }

    /// Runs epochs until the streams end or `stop` becomes true.
    pub(crate) async fn run(
        mut self,
        sink: &mut dyn Sink,
        stop: watch::Receiver<bool>,
        pause: watch::Receiver<bool>,
        progress: &watch::Sender<QueryProgress>,
    ) -> Result<Summary> {
        let ended = self.run_to_end(sink, stop.clone(), pause, progress).await;
        let has_lost = ended.as_ref().is_err_and(Error::is_lost);
        // The epoch in hand is in the journal, as after a crash.
        let ended = if has_lost && *stop.borrow() { Ok(self.summary(true)) } else { ended };
        // A query that has lost executors will go on with what the others hold.
        let goes_on = ended.is_err() && has_lost;
        if let Some(spread) = self.stage.spread().filter(|_| !goes_on) {
            spread.release().await;
        }
        ended
    }

    async fn run_to_end(
        &mut self,
        sink: &mut dyn Sink,
        mut stop: watch::Receiver<bool>,
        mut pause: watch::Receiver<bool>,
        progress: &watch::Sender<QueryProgress>,
    ) -> Result<Summary> {
        self.stage.stop_with(stop.clone());
        if self.recover(sink, &mut stop, progress).await? {
            // A part of the lineage is no state to keep; all of it is still there for the next run.
            return Ok(self.summary(true));
        }
        let mut was_stopped = false;
        let mut due = Instant::now();
        loop {
            let turn = tokio::select! {
                biased;
                () = stopped(&mut stop) => {
                    was_stopped = true;
                    Turn::End
                }
                turn = self.wait_unless(&mut pause, due) => turn?,
            };
            match turn {
                Turn::Checkpoint => {
                    self.checkpoint_if_due().await?;
                    self.move_if_misplaced().await?;
                    continue;
                }
                Turn::End if was_stopped || !self.streams.is_empty() => break,
                Turn::End | Turn::Epoch => {}
            }
            let started = Instant::now();
            due = started + self.options.interval;
            let batch = self.choose();
            let (watermark, rows, bytes) = (batch.watermark, batch.rows, batch.bytes);
            self.run_epoch(batch, sink).await?;
            self.keep_pace(rows, bytes, started.elapsed());
            self.checkpoint_if_due().await?;
            self.move_if_misplaced().await?;
            progress.send_replace(self.progress(watermark, started.elapsed()));
            if turn == Turn::End {
                break;
            }
        }
        self.leave().await?;
        sink.finish().await?;
        if let Some(late_sink) = &mut self.late_sink {
            late_sink.finish().await?;
        }
        Ok(self.summary(was_stopped))
    }

    /// Runs one micro-batch of what the logs hold now; how many records it had.
    pub(crate) async fn run_next(&mut self, sink: &mut dyn Sink) -> Result<usize> {
        let batch = self.choose();
        let records = batch.records;
        self.run_epoch(batch, sink).await?;
        Ok(records)
    }

    /// What has been done so far.
    pub(crate) fn summary(&self, was_stopped: bool) -> Summary {
        Summary {
            progress: self.progress(self.watermark(), Duration::ZERO),
            counts: self.stage.counts(),
            delays: self.delays.clone(),
            was_stopped,
            rebuilt: self.rebuilt,
            analysis: if self.options.analyze { self.stage.analysis() } else { Vec::new() },
        }
    }

    /// Bounds what is taken next by how long the last epoch took.
    fn keep_pace(&mut self, rows: u64, bytes: usize, took: Duration) {
        self.pace.note(rows, bytes, took);
        self.streams.iter().for_each(|stream| stream.reader.let_wait(self.pace.log_bytes()));
    }

    /// Waits until there is something to do and `pause` holds false.
    async fn wait_unless(&mut self, pause: &mut watch::Receiver<bool>, due: Instant) -> Result<Turn> {
        loop {
            // It fails where nobody is left to pause the query.
            let _ = pause.wait_for(|pause| !*pause).await;
            tokio::select! {
                biased;
                Ok(_) = pause.wait_for(|pause| *pause) => {}
                turn = self.wait(due) => return turn,
            }
        }
    }

    /// The rows that make a micro-batch: as many for each executor that maps some as for this process, as each costs a
    /// message.
    fn batch_rows(&mut self) -> usize {
        let mappers = self.stage.spread().map_or(1, |spread| spread.mapper_count().max(1));
        self.pace.batch_rows(self.options.batch_rows.saturating_mul(mappers))
    }

    /// Waits until there is something to do.
    async fn wait(&mut self, due: Instant) -> Result<Turn> {
        let batch_rows = self.batch_rows();
        loop {
            let mut waiting = 0;
            let mut ended = 0;
            let mut is_pressing = false;
            for (index, stream) in self.streams.iter().enumerate() {
                if stream.reader.is_at_end()? {
                    ended += 1;
                } else if stream.is_table() {
                    // What a table may become changes nothing once all rows have been there.
                    ended += 1;
                    waiting += usize::from(stream.reader.has_record());
                } else if self.may_take(index) {
                    waiting += usize::from(stream.reader.has_record());
                    is_pressing |= stream.reader.is_full() || stream.reader.waiting_rows() >= batch_rows;
                }
            }
            if ended == self.streams.len() {
                return Ok(Turn::End);
            }
            if !self.has_tables() {
                waiting = 0;
            }
            // Once an input has ended, waiting for more rows of it is in vain.
            is_pressing |= self.streams.iter().any(|stream| stream.reader.is_closed());
            let now = Instant::now();
            if waiting > 0 && (is_pressing || now >= due) {
                return Ok(Turn::Epoch);
            }
            // Results of open windows may wait for their time, and no row come.
            let early = self.stage.early_due().map(|early| early.max(due));
            let Self { streams, keeper, stage, .. } = self;
            let changes = streams.iter_mut().map(|stream| stream.reader.changed().boxed());
            // Also without a row more: an input may wait for a checkpoint to make room in its log.
            let checkpoint = async {
                match keeper {
                    Some(keeper) => keeper.checkpoint_turn().await,
                    None => std::future::pending().await,
                }
            };
            let moved = async {
                match stage.spread() {
                    Some(spread) => spread.moved().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = select_all(changes) => {}
                () = moved => return Ok(Turn::Checkpoint),
                () = tokio::time::sleep_until(due.into()), if waiting > 0 => {}
                () = tokio::time::sleep_until(early.unwrap_or(now).into()), if early.is_some() => {
                    return Ok(Turn::Epoch);
                }
                () = checkpoint => return Ok(Turn::Checkpoint),
            }
        }
    }

    /// Whether a version of every table is there: what has none yet is not empty.
    fn has_tables(&self) -> bool {
        let mut tables = self.streams.iter().filter(|stream| stream.is_table());
        self.tables.are_complete() || tables.all(|table| table.reader.has_record())
    }

    /// Whether a stream may be read on: one that is ahead of the others waits for them, or its state would pile up.
    fn may_take(&self, index: usize) -> bool {
        let Some(stream) = self.streams.get(index) else { return false };
        if stream.is_table() {
            return true;
        }
        let slide = self.stage.longest_slide();
        if slide == Span(0) {
            // Without windows no state waits for the others, and rows that pass should not either.
            return true;
        }
        let slowest = self.watermark();
        let ahead = slide.max(Span(NANOS_PER_SECOND));
        stream.watermark == slowest || stream.watermark.0 <= slowest.0.saturating_add(ahead.0)
    }

    /// The least watermark of the streams as read so far.
    pub(crate) fn watermark(&self) -> Watermark {
        self.streams.iter().map(|stream| stream.watermark).min().unwrap_or(Watermark::END)
    }

    fn choose(&mut self) -> MicroBatch {
        let batch_rows = self.batch_rows();
        let allowed: Vec<bool> = (0..self.streams.len()).map(|index| self.may_take(index)).collect();
        let streams = self.streams.iter_mut().zip(allowed);
        let taken = streams.map(
            |(stream, allowed)| {
                if allowed { stream.reader.take(batch_rows, u64::MAX) } else { Vec::new() }
            },
        );
        let taken = taken.collect();
        self.batch_of(taken)
    }

    /// The micro-batch of these records of each stream, which are read with it.
    pub(crate) fn batch_of(&mut self, taken: Vec<Vec<Arc<Record>>>) -> MicroBatch {
        let mut batch = MicroBatch {
            units: Vec::with_capacity(taken.len()),
            away: Vec::new(),
            logged: Vec::with_capacity(taken.len()),
            versions: Vec::new(),
            records: 0,
            rows: 0,
            bytes: 0,
            logged_at: None,
            watermark: Watermark::START,
        };
        for (number, (stream, records)) in self.streams.iter_mut().zip(taken).enumerate() {
            let from = stream.place.seq;
            if let Some(last) = records.last() {
                stream.watermark = stream.watermark.max(last.watermark());
                batch.logged_at = batch.logged_at.max(Some(last.logged_at));
            }
            records.iter().for_each(|record| stream.pass(record));
            batch.records += records.len();
            batch.bytes += records.iter().map(|record| record.bytes()).sum::<usize>();
            if stream.is_table() {
                batch.versions.extend(stream.last_version(&records));
                batch.units.push(Vec::new());
            } else {
                batch.rows += records.iter().map(|record| record.row_count() as u64).sum::<u64>();
                batch.away.extend(records.iter().filter_map(|record| Some((number, record.away.clone()?))));
                batch.units.push(units_of(records.iter().filter_map(|record| record.block.clone()), UNIT_ROWS));
            }
            let events =
                if self.keeper.is_some() { records.iter().map(|r| r.event.clone()).collect() } else { Vec::new() };
            batch.logged.push(StreamRecords { from, events });
        }
        batch.watermark = self.watermark();
        batch
    }

    #[tracing::instrument(level = "debug", skip_all, fields(query = %self.options.name, epoch = self.epoch.0))]
    async fn run_epoch(&mut self, mut batch: MicroBatch, sink: &mut dyn Sink) -> Result<()> {
        let intent = self.begin_intent(&mut batch);
        let staged = self.stage_epoch(&batch, sink).await;
        // The intent was on its way to the disk meanwhile; nothing of the epoch has been visible so far. It has to be
        // there also if an executor was lost: those that are left have taken in what it says.
        self.end_intent(intent).await?;
        let staged = staged?;
        self.commit_epoch(staged, sink).await?;
        if staged.results > 0 {
            self.note_delay(batch.logged_at);
        }
        tracing::debug!(rows_in = batch.rows, rows_out = staged.results, watermark = %batch.watermark, "committed");
        Ok(())
    }

    /// Rows into state, and what comes of them into the sinks.
    pub(crate) async fn stage_epoch(&mut self, batch: &MicroBatch, sink: &mut dyn Sink) -> Result<Staged> {
        let late = self.update(batch).await?;
        let late = self.stage_late(&late).await?;
        Ok(Staged { results: self.evaluate(batch, sink).await?, late })
    }

    /// Commits an epoch in its sinks, where a ledger that has it already leaves it as it is, and logs that.
    pub(crate) async fn commit_epoch(&mut self, staged: Staged, sink: &mut dyn Sink) -> Result<()> {
        if staged.results > 0 {
            sink.commit(self.epoch).await?;
        }
        if let (1.., Some(late_sink)) = (staged.late, &mut self.late_sink) {
            late_sink.commit(self.epoch).await?;
        }
        self.counters.rows_written += staged.results;
        self.log_commit(staged).await?;
        sink.publish(self.stage.evaluated())?;
        self.epoch = self.epoch.next();
        Ok(())
    }

    /// Rows into state; gives those that were too late.
    pub(crate) async fn update(&mut self, batch: &MicroBatch) -> Result<Vec<LateRows>> {
        batch.versions.iter().for_each(|(table, rows)| self.tables.set(table, rows.clone()));
        let all_late = self.stage.update(&batch.units, &batch.away, batch.watermark).await?;
        for late in &all_late {
            self.counters.rows_late += late.missed.len() as u64;
            if let Some(stream) = self.streams.get(late.stream) {
                stream.ingest.side_tables().late.add_late(&self.options.name, &late.block.rows, &late.missed)?;
            }
        }
        self.counters.rows_read += batch.rows;
        Ok(all_late)
    }

    /// State into the sink, for the instants that the micro-batch crosses; how many rows.
    async fn evaluate(&mut self, batch: &MicroBatch, sink: &mut dyn Sink) -> Result<u64> {
        let mut staged = 0;
        loop {
            let emissions = self.stage.evaluate(batch.watermark).await?;
            if emissions.is_empty() {
                return Ok(staged);
            }
            for emission in emissions {
                let rows: usize = emission.rows.iter().map(|rows| rows.num_rows()).sum();
                if rows > 0 {
                    tracing::trace!(instant = ?emission.instant, rows, "staged");
                    match emission.instant {
                        Some(instant) => sink.stage_instant(self.epoch, instant, &emission.rows).await?,
                        None => sink.stage(self.epoch, &emission.rows).await?,
                    }
                    staged += rows as u64;
                }
            }
        }
    }

    fn note_delay(&mut self, logged_at: Option<Instant>) {
        if let Some(logged_at) = logged_at {
            if self.delays.len() >= KEPT_DELAYS {
                self.delays.drain(..KEPT_DELAYS / 2);
            }
            self.delays.push(logged_at.elapsed());
        }
    }

    pub(crate) fn progress(&self, watermark: Watermark, epoch_time: Duration) -> QueryProgress {
        QueryProgress {
            epochs: self.epoch.0,
            rows_read: self.counters.rows_read,
            rows_written: self.counters.rows_written,
            rows_late: self.counters.rows_late,
            watermark,
            state_bytes: self.stage.counts().state_bytes,
            disk_bytes: self.options.state_memory.disk_bytes(),
            inputs: self.stage.inputs(),
            epoch_time,
            recovery: None,
        }
    }
}

impl MicroBatch {
    /// Takes in the records of the micro-batch that follows, in units of this many rows.
    pub(crate) fn append(&mut self, next: Self, unit_rows: usize) {
        for (units, more) in self.units.iter_mut().zip(next.units) {
            *units = units_of(std::mem::take(units).into_iter().chain(more).flatten(), unit_rows);
        }
        self.away.extend(next.away);
        self.versions.extend(next.versions);
        self.records += next.records;
        self.rows += next.rows;
        self.bytes += next.bytes;
        self.logged_at = self.logged_at.max(next.logged_at);
        self.watermark = self.watermark.max(next.watermark);
    }

    /// Whether it is as large as what is rebuilt together may be.
    pub(crate) const fn is_full(&self, rows: u64) -> bool {
        self.rows >= rows || self.bytes >= LOG_LIMIT_BYTES
    }

    /// What its records say, for the journal.
    pub(crate) fn take_logged(&mut self) -> Vec<StreamRecords> {
        std::mem::take(&mut self.logged)
    }
}

/// Completes once `stop` holds true; never if its sender is gone.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}
