//! The epoch loop: choose blocks, update, evaluate the instants that were crossed, commit.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use futures::future::select_all;
use tokio::sync::watch;

use crate::batch::Epoch;
use crate::error::Result;
use crate::executor::{Stage, StageCounts};
use crate::ingest::{Block, Ingest, LogReader, Record};
use crate::query::{QueryOptions, QueryProgress};
use crate::sink::Sink;
use crate::time::{NANOS_PER_SECOND, Span, Watermark};

/// Rows that go through the update plan together; enough to make the cost of an execution vanish.
const UNIT_ROWS: usize = 1 << 16;
/// How many delays are kept for the summary, the most recent ones.
const KEPT_DELAYS: usize = 1 << 16;

/// Drives one query.
#[derive(Debug)]
pub(crate) struct Driver {
    stage: Stage,
    streams: Vec<Stream>,
    options: QueryOptions,
    epoch: Epoch,
    rows_written: u64,
    rows_read: u64,
    rows_late: u64,
    delays: Vec<Duration>,
}

/// A stream as the query has read it.
#[derive(Debug)]
struct Stream {
    ingest: Arc<Ingest>,
    reader: LogReader,
    watermark: Watermark,
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

/// The records of a micro-batch.
struct MicroBatch {
    units: Vec<Vec<Vec<Arc<Block>>>>,
    records: usize,
    rows: u64,
    logged_at: Option<Instant>,
    watermark: Watermark,
}

impl Driver {
    pub(crate) fn new(stage: Stage, ingests: Vec<Arc<Ingest>>, options: QueryOptions) -> Self {
        let streams = ingests
            .into_iter()
            .map(|ingest| Stream { reader: ingest.reader(), ingest, watermark: Watermark::START })
            .collect();
        Self {
            stage,
            streams,
            options,
            epoch: Epoch(0),
            rows_written: 0,
            rows_read: 0,
            rows_late: 0,
            delays: Vec::new(),
        }
    }

    /// Runs epochs until the streams end or `stop` becomes true.
    pub(crate) async fn run(
        mut self,
        sink: &mut dyn Sink,
        mut stop: watch::Receiver<bool>,
        progress: &watch::Sender<QueryProgress>,
    ) -> Result<Summary> {
        let mut due = Instant::now();
        let mut was_stopped = false;
        loop {
            let is_over = tokio::select! {
                biased;
                () = stopped(&mut stop) => {
                    was_stopped = true;
                    true
                }
                ended = self.wait(due) => ended?,
            };
            if is_over && !self.streams.is_empty() {
                break;
            }
            let started = Instant::now();
            due = started + self.options.interval;
            let batch = self.choose();
            let watermark = batch.watermark;
            self.run_epoch(batch, sink).await?;
            progress.send_replace(self.progress(watermark, started.elapsed()));
            if self.streams.is_empty() {
                break;
            }
        }
        sink.finish().await?;
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
        }
    }

    /// Waits until there is something worth a micro-batch; true once every stream has ended.
    async fn wait(&mut self, due: Instant) -> Result<bool> {
        loop {
            let mut waiting = 0;
            let mut ended = 0;
            let mut is_pressing = false;
            for (index, stream) in self.streams.iter().enumerate() {
                if stream.reader.is_at_end()? {
                    ended += 1;
                } else if self.may_take(index) {
                    waiting += usize::from(stream.reader.has_record());
                    is_pressing |= stream.reader.is_full() || stream.reader.waiting_rows() >= self.options.batch_rows;
                }
            }
            if ended == self.streams.len() {
                return Ok(true);
            }
            // Once an input has ended, waiting for more rows of it is in vain.
            is_pressing |= self.streams.iter().any(|stream| stream.reader.is_closed());
            let now = Instant::now();
            if waiting > 0 && (is_pressing || now >= due) {
                return Ok(false);
            }
            let changes = self.streams.iter_mut().map(|stream| stream.reader.changed().boxed());
            let changed = select_all(changes);
            if waiting == 0 {
                changed.await;
            } else {
                tokio::select! {
                    _ = changed => {}
                    () = tokio::time::sleep_until(due.into()) => {}
                }
            }
        }
    }

    /// Whether a stream may be read on: one that is ahead of the others waits for them, or its state would pile up.
    fn may_take(&self, index: usize) -> bool {
        let Some(stream) = self.streams.get(index) else { return false };
        let slowest = self.watermark();
        let ahead = self.stage.longest_slide().max(Span(NANOS_PER_SECOND));
        stream.watermark == slowest || stream.watermark.0 <= slowest.0.saturating_add(ahead.0)
    }

    /// The least watermark of the streams as read so far.
    fn watermark(&self) -> Watermark {
        self.streams.iter().map(|stream| stream.watermark).min().unwrap_or(Watermark::END)
    }

    fn choose(&mut self) -> MicroBatch {
        let allowed: Vec<bool> = (0..self.streams.len()).map(|index| self.may_take(index)).collect();
        let mut units = Vec::with_capacity(self.streams.len());
        let mut rows = 0;
        let mut taken = 0;
        let mut logged_at = None;
        for (stream, allowed) in self.streams.iter_mut().zip(allowed) {
            let records = if allowed { stream.reader.take(self.options.batch_rows) } else { Vec::new() };
            if let Some(last) = records.last() {
                stream.watermark = stream.watermark.max(last.watermark);
                logged_at = logged_at.max(Some(last.logged_at));
            }
            taken += records.len();
            rows += records.iter().map(|record| record.row_count() as u64).sum::<u64>();
            units.push(units_of(&records));
        }
        MicroBatch { units, records: taken, rows, logged_at, watermark: self.watermark() }
    }

    #[tracing::instrument(level = "debug", skip_all, fields(query = %self.options.name, epoch = self.epoch.0))]
    async fn run_epoch(&mut self, batch: MicroBatch, sink: &mut dyn Sink) -> Result<()> {
        for late in self.stage.update(&batch.units, batch.watermark).await? {
            self.rows_late += late.missed.len() as u64;
            if let Some(stream) = self.streams.get(late.stream) {
                stream.ingest.side_tables().late.add_late(&self.options.name, &late.block.rows, &late.missed)?;
            }
        }
        self.rows_read += batch.rows;
        let mut staged = 0;
        loop {
            let emissions = self.stage.evaluate(batch.watermark).await?;
            if emissions.is_empty() {
                break;
            }
            for emission in emissions {
                let rows: usize = emission.rows.iter().map(|rows| rows.num_rows()).sum();
                if rows > 0 {
                    tracing::trace!(instant = ?emission.instant, rows, "staged");
                    sink.stage(self.epoch, &emission.rows).await?;
                    staged += rows as u64;
                }
            }
        }
        if staged > 0 {
            sink.commit(self.epoch).await?;
            self.rows_written += staged;
            self.note_delay(batch.logged_at);
        }
        tracing::debug!(rows_in = batch.rows, rows_out = staged, watermark = %batch.watermark, "committed");
        self.epoch = self.epoch.next();
        Ok(())
    }

    fn note_delay(&mut self, logged_at: Option<Instant>) {
        if let Some(logged_at) = logged_at {
            if self.delays.len() >= KEPT_DELAYS {
                self.delays.drain(..KEPT_DELAYS / 2);
            }
            self.delays.push(logged_at.elapsed());
        }
    }

    fn progress(&self, watermark: Watermark, epoch_time: Duration) -> QueryProgress {
        QueryProgress {
            epochs: self.epoch.0,
            rows_read: self.rows_read,
            rows_written: self.rows_written,
            rows_late: self.rows_late,
            watermark,
            state_bytes: self.stage.counts().state_bytes,
            epoch_time,
        }
    }
}

/// Completes once `stop` holds true; never if its sender is gone.
async fn stopped(stop: &mut watch::Receiver<bool>) {
    if stop.wait_for(|stop| *stop).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Blocks put together until they are worth an execution.
fn units_of(records: &[Arc<Record>]) -> Vec<Vec<Arc<Block>>> {
    let mut units: Vec<Vec<Arc<Block>>> = Vec::new();
    let mut rows = UNIT_ROWS;
    for block in records.iter().filter_map(|record| record.block.as_ref()) {
        if rows >= UNIT_ROWS {
            units.push(Vec::new());
            rows = 0;
        }
        rows += block.rows.num_rows();
        if let Some(unit) = units.last_mut() {
            unit.push(Arc::clone(block));
        }
    }
    units
}
