//! Ingestion of a stream, once for all its queries: read ▸ decode ▸ tag event time and lateness ▸ log.
//!
//! Reading and logging are sequential per partition; the splits between them are decoded on as many threads as there
//! are cores. Rows that cannot be used are counted and treated as the stream's `bad_data` says.

mod block;
mod log;
mod progress;
mod reading;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use datafusion::arrow::array::{Array, Int64Array};
use datafusion::arrow::compute::{filter_record_batch, is_not_null};
use datafusion::arrow::record_batch::RecordBatch;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

pub use block::Block;
pub(crate) use block::Record;
pub use log::LOG_LIMIT_BYTES;
pub(crate) use log::{LogReader, StreamLog};
pub use progress::{Behind, Observed, Progress};
pub(crate) use reading::Event;
use reading::read_partition;

use crate::error::{Error, Result};
use crate::plan::{BadData, StreamDefinition};
use crate::side::SideTables;
use crate::source::{BadRow, Decoded, MemoryIndex, Offset, PartitionId, Source};
use crate::time::{Clock, Watermark};

/// Events between the partitions and the log.
const EVENT_QUEUE: usize = 4;

/// What a stream has taken in so far.
#[derive(Debug, Default)]
pub struct IngestMetrics {
    rows: AtomicU64,
    bad_rows: AtomicU64,
    late_rows: AtomicU64,
}

impl IngestMetrics {
    /// Rows logged.
    pub fn rows(&self) -> u64 {
        self.rows.load(Ordering::Relaxed)
    }

    /// Rows that could not be used.
    pub fn bad_rows(&self) -> u64 {
        self.bad_rows.load(Ordering::Relaxed)
    }

    /// Rows logged that were below the watermark of their partition; they may be in time for some window.
    pub fn rows_behind(&self) -> u64 {
        self.late_rows.load(Ordering::Relaxed)
    }
}

/// One stream being read.
#[derive(Debug)]
pub struct Ingest {
    definition: Arc<StreamDefinition>,
    source: Arc<dyn Source>,
    clock: Arc<dyn Clock>,
    log: Arc<StreamLog>,
    metrics: Arc<IngestMetrics>,
    side: SideTables,
}

impl Ingest {
    /// A stream that is not read yet: first its readers are made, then it is run.
    pub fn new(
        definition: Arc<StreamDefinition>,
        source: Arc<dyn Source>,
        clock: Arc<dyn Clock>,
        side: SideTables,
    ) -> Self {
        let log = StreamLog::new(LOG_LIMIT_BYTES);
        Self { definition, source, clock, log, metrics: Arc::default(), side }
    }

    /// The stream.
    pub const fn definition(&self) -> &Arc<StreamDefinition> {
        &self.definition
    }

    /// What it has taken in.
    pub const fn metrics(&self) -> &Arc<IngestMetrics> {
        &self.metrics
    }

    /// The rows set aside.
    pub const fn side_tables(&self) -> &SideTables {
        &self.side
    }

    /// Where the rows come from, in a few words.
    pub fn describe(&self) -> String {
        self.source.describe()
    }

    pub(crate) fn reader(&self) -> LogReader {
        self.log.reader()
    }

    /// Reads the stream to its end; for a stream without end, until it is dropped.
    ///
    /// A failure ends the log, so that each of its queries reports it.
    pub async fn run(&self) {
        match self.read_all().await {
            Ok(()) => self.log.complete(),
            Err(error) => self.log.fail(error),
        }
    }

    async fn read_all(&self) -> Result<()> {
        let readers = self.source.open(&[], Arc::new(MemoryIndex::default())).await?;
        tracing::info!(stream = %self.definition.name, partitions = readers.len(), "opened");
        let mut progress = Progress::new(self.definition.event_time.as_ref(), readers.len());
        let (events, mut received) = mpsc::channel(EVENT_QUEUE);
        let idle_timeout = self.definition.event_time.and_then(|rule| rule.idle_timeout);
        let mut tasks = JoinSet::new();
        for (number, reader) in (0..).zip(readers) {
            tasks.spawn(read_partition(PartitionId(number), reader, idle_timeout, events.clone()));
        }
        drop(events);
        while let Some(event) = self.next_event(&mut received).await {
            self.append_event(event, &mut progress, None).await?;
        }
        while let Some(ended) = tasks.join_next().await {
            ended.map_err(|error| Error::internal(format!("a reader ended early: {error}")))?;
        }
        // Also a stream without any partition ends, and with it what waits for its watermark.
        self.log.append(Record { block: None, watermark: Watermark::END, logged_at: Instant::now() }).await;
        Ok(())
    }

    /// The next thing that happens; on a stream whose event time is arrival time, time itself happens too.
    async fn next_event(&self, received: &mut mpsc::Receiver<Event>) -> Option<Event> {
        if self.definition.event_time.is_some() {
            return received.recv().await;
        }
        tokio::select! {
            event = received.recv() => event,
            () = tokio::time::sleep(ARRIVAL_TICK) => Some(Event::Tick),
        }
    }

    /// Logs what happened; `tamper` may change the block on its way.
    pub(crate) async fn append_event(
        &self,
        event: Event,
        progress: &mut Progress,
        tamper: Option<&(dyn Fn(&mut Block) + Sync)>,
    ) -> Result<()> {
        let mut block = self.block_of(event, progress)?;
        if let (Some(tamper), Some(block)) = (tamper, &mut block) {
            tamper(block);
        }
        let record = Record { block: block.map(Arc::new), watermark: progress.watermark(), logged_at: Instant::now() };
        self.log.append(record).await;
        Ok(())
    }

    fn block_of(&self, event: Event, progress: &mut Progress) -> Result<Option<Block>> {
        let block = match event {
            Event::Rows { partition, offsets, decoded } => {
                self.set_aside(partition, &decoded.bad)?;
                self.block(partition, offsets, decoded, progress)?
            }
            Event::Idle(partition) => {
                progress.idle(partition);
                None
            }
            Event::End(partition) => {
                progress.end(partition);
                None
            }
            Event::Tick => {
                progress.arrive(self.clock.now());
                None
            }
            Event::Failed(error) => return Err(error),
        };
        Ok(block)
    }

    fn block(
        &self,
        partition: PartitionId,
        offsets: std::ops::Range<Offset>,
        decoded: Decoded,
        progress: &mut Progress,
    ) -> Result<Option<Block>> {
        let (rows, times) = match &self.definition.event_time {
            Some(rule) => self.with_event_times(partition, &offsets, decoded.batch, rule.column)?,
            None => {
                let now = self.clock.now().0.max(progress.watermark().0);
                let times = Int64Array::from_value(now, decoded.batch.num_rows());
                (decoded.batch, times)
            }
        };
        let Some(Observed { earliest, latest, behind }) = progress.observe(partition, times.values()) else {
            return Ok(None);
        };
        self.metrics.rows.fetch_add(rows.num_rows() as u64, Ordering::Relaxed);
        self.metrics.late_rows.fetch_add(behind.len() as u64, Ordering::Relaxed);
        Ok(Some(Block { partition, offsets, rows, times, earliest, latest, behind }))
    }

    /// The rows whose event time can be told, and those times; the others are set aside.
    fn with_event_times(
        &self,
        partition: PartitionId,
        offsets: &std::ops::Range<Offset>,
        rows: RecordBatch,
        column: usize,
    ) -> Result<(RecordBatch, Int64Array)> {
        let times = block::event_times(&rows, column)?;
        if times.null_count() == 0 {
            return Ok((rows, times));
        }
        let usable = is_not_null(&times)?;
        self.set_aside(partition, &block::rows_without_time(&rows, &times, column, offsets.start)?)?;
        let rows = filter_record_batch(&rows, &usable)?;
        let times = block::event_times(&rows, column)?;
        Ok((rows, times))
    }

    /// Counts bad rows and does with them what the stream says.
    fn set_aside(&self, partition: PartitionId, bad: &[BadRow]) -> Result<()> {
        let Some(first) = bad.first() else { return Ok(()) };
        self.metrics.bad_rows.fetch_add(bad.len() as u64, Ordering::Relaxed);
        match self.definition.bad_data {
            BadData::Fail => Err(bad_row_error(&self.definition.name, first)),
            BadData::Skip => Ok(()),
            BadData::DeadLetter => self.side.dead.add_dead(partition, bad),
        }
    }
}

/// How often a stream whose event time is arrival time lets time pass without rows.
const ARRIVAL_TICK: std::time::Duration = std::time::Duration::from_millis(100);

/// How much of a bad row an error shows.
const SHOWN_CHARACTERS: usize = 200;

/// The error for the first bad row of a stream that is to fail on one.
pub fn bad_row_error(stream: &str, row: &BadRow) -> Error {
    let column = row.column.as_ref().map(|column| format!(", column \"{column}\"")).unwrap_or_default();
    let shown: String = row.raw.chars().take(SHOWN_CHARACTERS).collect();
    let rest = if shown.len() < row.raw.len() { " …" } else { "" };
    Error::data(
        format!("bad row in stream \"{stream}\": {}{column}: {}; the row is: {shown}{rest}", row.place, row.reason),
        "mend the row, or set bad_data = 'dead_letter' or 'skip' in the stream's WITH clause",
    )
}
