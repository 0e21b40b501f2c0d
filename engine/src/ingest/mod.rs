//! Ingestion of a stream, once for all its queries: read ▸ decode ▸ tag event time and lateness ▸ log.
//!
//! Reading and logging are sequential per partition; the splits between them are decoded on as many threads as there
//! are cores. Rows that cannot be used are counted and treated as the stream's `bad_data` says.

mod away;
mod block;
mod event;
mod log;
mod partitions;
mod progress;
mod rate;
mod reading;
mod status;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use datafusion::arrow::array::Int64Array;
use datafusion::arrow::record_batch::RecordBatch;
use futures::FutureExt;

pub(crate) use away::{Absent, Away, Found, Lease, Piece, Scanned, Stretch};
pub use block::Block;
pub(crate) use block::{Record, Timed};
pub(crate) use event::{LogPlace, LoggedEvent, Tally};
pub use log::LOG_LIMIT_BYTES;
pub(crate) use log::{LogReader, StreamLog};
use partitions::Partitions;
pub(crate) use progress::Lateness;
pub use progress::{Behind, Observed, PartitionState, Progress};
use rate::RateLimit;
use reading::ReadingRules;
pub(crate) use reading::{Event, Taken};
use status::Reached;
pub use status::{PartitionStatus, StreamStatus};

use crate::cluster::{Readers, Seat};
use crate::durable::{Frame, SharedWal};
use crate::error::{Error, Result};
use crate::plan::{BadData, StreamDefinition};
use crate::side::SideTables;
use crate::source::{BadRow, Decoded, InputIndex, MemoryIndex, Offset, PartitionId, Source};
use crate::time::{Clock, EventTime};

/// The most events that share a sync of the write-ahead log with the first of them.
const GROUPED_EVENTS: usize = 31;

/// What a stream has taken in so far.
#[derive(Debug, Default)]
pub struct IngestMetrics {
    rows: AtomicU64,
    bad_rows: AtomicU64,
    late_rows: AtomicU64,
}

impl IngestMetrics {
    /// Goes on counting where an earlier run was.
    fn begin_at(tally: Tally) -> Self {
        let Tally { rows, bad, behind } = tally;
        Self { rows: rows.into(), bad_rows: bad.into(), late_rows: behind.into() }
    }

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
    /// The executors that read it, if some do.
    readers: Option<Arc<Readers>>,
    /// Where to begin; taken by [`Ingest::run`].
    resume: Mutex<Option<Resume>>,
    reached: Mutex<Reached>,
}

/// Where and how the ingestion of a stream begins in a run that has a state directory.
#[derive(Debug, Default)]
pub struct Resume {
    /// The place of the first record.
    pub(crate) place: LogPlace,
    /// The records from there on that queries know already; they are made again as they were.
    pub(crate) replay: Vec<LoggedEvent>,
    /// What the source noted in earlier runs.
    pub(crate) index: Option<Arc<dyn InputIndex>>,
    /// Where records are kept with their rows, for a source that cannot be read again.
    pub(crate) wal: Option<SharedWal>,
}

/// The end of a stream's log, which decides what the next record is.
#[derive(Debug)]
pub(crate) struct Recorder {
    seq: u64,
    offsets: Vec<Offset>,
    progress: Progress,
}

impl Recorder {
    /// The end of the log at `place`, for a stream of this many partitions.
    ///
    /// # Errors
    /// Fails if the stream had another number of partitions.
    pub(crate) fn new(place: &LogPlace, definition: &StreamDefinition, partitions: usize) -> Result<Self> {
        let fresh = || Progress::new(definition.event_time.as_ref(), partitions);
        let progress = place.progress.clone().unwrap_or_else(fresh);
        if progress.partitions() != partitions {
            let message = format!(
                "stream \"{}\" had {} partitions when it was read last and has {partitions} now",
                definition.name,
                progress.partitions()
            );
            return Err(Error::state(message, "restore the input as it was, or start with a new state directory"));
        }
        let mut offsets = place.offsets.clone();
        offsets.resize(partitions, Offset(0));
        Ok(Self { seq: place.seq, offsets, progress })
    }

    /// Refuses rows that come before what was logged: nothing is read twice.
    fn check_follows(&self, partition: PartitionId, start: Offset) -> Result<()> {
        let known = self.offsets.get(usize::try_from(partition.0).unwrap_or(usize::MAX)).copied().unwrap_or(Offset(0));
        if start >= known {
            return Ok(());
        }
        let (partition, start, known) = (partition.0, start.0, known.0);
        Err(Error::internal(format!("partition {partition} gave offset {start} again, which was read up to {known}")))
    }

    fn reach(&mut self, partition: PartitionId, end: Offset) {
        if let Some(offset) = self.offsets.get_mut(usize::try_from(partition.0).unwrap_or(usize::MAX)) {
            *offset = end;
        }
    }
}

impl Ingest {
    /// A stream that is not read yet: first its readers are made, then it is run.
    pub fn new(
        definition: Arc<StreamDefinition>,
        source: Arc<dyn Source>,
        clock: Arc<dyn Clock>,
        side: SideTables,
    ) -> Self {
        let log = StreamLog::new(LOG_LIMIT_BYTES, 0);
        Self {
            definition,
            source,
            clock,
            log,
            metrics: Arc::default(),
            side,
            readers: None,
            resume: Mutex::default(),
            reached: Mutex::default(),
        }
    }

    /// The same stream, read on from where an earlier run left it.
    #[must_use]
    pub fn resume(mut self, resume: Resume) -> Self {
        self.log = StreamLog::new(LOG_LIMIT_BYTES, resume.place.seq);
        self.metrics = Arc::new(IngestMetrics::begin_at(resume.place.tally));
        self.resume = Mutex::new(Some(resume));
        self
    }

    /// The same stream, read and decoded by the executors of `seat`; here still where the source cannot say what a split
    /// is, or rows have the time at which they arrive here.
    #[must_use]
    pub fn read_at(mut self, seat: &Seat) -> Self {
        let can_be = self.definition.event_time.is_some() && self.definition.refresh.is_none();
        if can_be && self.source.is_replayable() {
            self.readers = Some(Arc::new(Readers::new(seat, Arc::clone(&self.definition), Arc::clone(&self.source))));
        }
        self
    }

    /// The executors that read it, if some do.
    pub(crate) const fn readers(&self) -> Option<&Arc<Readers>> {
        self.readers.as_ref()
    }

    /// The stream.
    pub const fn definition(&self) -> &Arc<StreamDefinition> {
        &self.definition
    }

    /// What it has taken in.
    pub const fn metrics(&self) -> &Arc<IngestMetrics> {
        &self.metrics
    }

    /// How far it has come; none before anything has.
    pub fn status(&self) -> Option<StreamStatus> {
        self.reached().status()
    }

    fn reached(&self) -> MutexGuard<'_, Reached> {
        self.reached.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows set aside.
    pub const fn side_tables(&self) -> &SideTables {
        &self.side
    }

    /// Where the rows come from, in a few words.
    pub fn describe(&self) -> String {
        self.source.describe()
    }

    /// Whether what it read can be read again after a restart.
    pub fn is_replayable(&self) -> bool {
        self.source.is_replayable()
    }

    /// A reader from the record `seq` on.
    pub(crate) fn reader(&self, seq: u64) -> LogReader {
        self.log.reader(seq)
    }

    /// Reads the stream to its end; for a stream without end, until it is dropped.
    ///
    /// A failure ends the log, so that each of its queries reports it.
    pub async fn run(&self) {
        match AssertUnwindSafe(self.read_all()).catch_unwind().await {
            Ok(Ok(())) => self.log.complete(),
            Ok(Err(error)) => self.log.fail(error),
            // Without an end its queries would wait for ever.
            Err(_) => {
                let message = format!("reading stream {} panicked; the panic is on stderr", self.definition.name);
                self.log.fail(Error::internal(message));
            }
        }
    }

    async fn read_all(&self) -> Result<()> {
        let Resume { place, replay, index, wal } = self.take_resume();
        let from = if self.source.is_replayable() { place.offsets.clone() } else { Vec::new() };
        let readers = self.source.open(&from, index.unwrap_or_else(|| Arc::new(MemoryIndex::default()))).await?;
        tracing::info!(stream = %self.definition.name, partitions = readers.len(), seq = place.seq, "opened");
        let mut recorder = Recorder::new(&place, &self.definition, readers.len())?;
        let idle_timeout = self.definition.event_time.and_then(|rule| rule.idle_timeout);
        let rules = ReadingRules::new(idle_timeout, self.readers.clone());
        let limits = if wal.is_some() { &[] } else { replay.as_slice() };
        let mut partitions = Partitions::spawn(&self.definition.name, readers, limits, &rules);
        if let Some(wal) = &wal {
            self.follow_wal(wal, &mut recorder).await?;
            partitions.move_to(&recorder.offsets);
        } else {
            for logged in &replay {
                let event = partitions.again(logged).await?;
                self.append_event(event, &mut recorder, None).await?;
            }
        }
        partitions.leave_ended(&recorder.progress);
        let mut limit = self.definition.rate_limit.map(RateLimit::new);
        while let Some(event) = self.next_event(&mut partitions).await {
            let mut events = vec![event];
            if wal.is_some() {
                // Whatever is there shares one sync.
                events.extend(std::iter::from_fn(|| partitions.try_next()).take(GROUPED_EVENTS));
            }
            if let Some(limit) = &mut limit {
                limit.pass(events.iter().map(Event::row_count).sum()).await;
            }
            self.append_all(events, &mut recorder, wal.as_ref()).await?;
        }
        partitions.finish().await?;
        // Also a stream without any partition ends, and with it what waits for its watermark.
        self.append_all(vec![Event::Closed], &mut recorder, wal.as_ref()).await
    }

    /// Where and how to begin; the start of the stream once it is taken.
    pub(crate) fn take_resume(&self) -> Resume {
        self.resume.lock().unwrap_or_else(PoisonError::into_inner).take().unwrap_or_default()
    }

    /// Takes in what the write-ahead log holds from the recorder's place on.
    pub(crate) async fn follow_wal(&self, wal: &SharedWal, recorder: &mut Recorder) -> Result<()> {
        while let Some(frame) = wal.read(recorder.seq).await? {
            let Frame { event, rows, bad, .. } = frame;
            let event = match event {
                LoggedEvent::Rows { partition, start, end, arrival } => {
                    let batch = rows.unwrap_or_else(|| RecordBatch::new_empty(Arc::clone(&self.definition.schema)));
                    let decoded = Decoded { batch, bad: Vec::new() };
                    Event::Rows { partition, offsets: start..end, taken: Taken::Here(decoded), arrival }
                }
                LoggedEvent::Idle(partition) => Event::Idle(partition),
                LoggedEvent::End(partition) => Event::End(partition),
                LoggedEvent::Tick(time) => Event::Tick(time),
                LoggedEvent::Closed => Event::Closed,
            };
            let mut record = self.record_of(event, recorder).await?;
            // They are not in the log, and they count all the same.
            record.bad += bad;
            self.metrics.bad_rows.fetch_add(bad, Ordering::Relaxed);
            self.log.append(record).await;
        }
        Ok(())
    }

    /// The next thing that happens; on a stream whose event time is arrival time, time itself happens too.
    async fn next_event(&self, partitions: &mut Partitions) -> Option<Event> {
        if self.definition.event_time.is_some() || self.definition.refresh.is_some() {
            return partitions.next().await;
        }
        tokio::select! {
            event = partitions.next() => event,
            () = tokio::time::sleep(ARRIVAL_TICK) => Some(Event::Tick(self.clock.now())),
        }
    }

    /// Logs what happened, in the write-ahead log first if there is one.
    pub(crate) async fn append_all(
        &self,
        events: Vec<Event>,
        recorder: &mut Recorder,
        wal: Option<&SharedWal>,
    ) -> Result<()> {
        let mut records = Vec::with_capacity(events.len());
        let mut failure = None;
        for event in events {
            match self.record_of(event, recorder).await {
                Ok(record) => records.push(record),
                Err(error) => {
                    failure = Some(error);
                    break;
                }
            }
        }
        if let Some(wal) = wal {
            wal.write(records.iter().map(Frame::of).collect()).await?;
        }
        for record in records {
            self.log.append(record).await;
        }
        failure.map_or(Ok(()), Err)
    }

    /// Logs what happened; `tamper` may change the block on its way.
    pub(crate) async fn append_event(
        &self,
        event: Event,
        recorder: &mut Recorder,
        tamper: Option<&(dyn Fn(&mut Block) + Sync)>,
    ) -> Result<()> {
        let mut record = self.record_of(event, recorder).await?;
        if let (Some(tamper), Some(block)) = (tamper, &mut record.block) {
            tamper(Arc::make_mut(block));
        }
        self.log.append(record).await;
        Ok(())
    }

    async fn record_of(&self, event: Event, recorder: &mut Recorder) -> Result<Record> {
        let bad_before = self.metrics.bad_rows();
        let (mut block, mut away) = (None, None);
        if let Event::Rows { partition, offsets, .. } = &event {
            recorder.check_follows(*partition, offsets.start)?;
        }
        let progress = &mut recorder.progress;
        let event = match event {
            Event::Rows { partition, offsets, taken, arrival } => {
                let arrival = self.arrival_time(arrival, progress);
                match taken {
                    Taken::Here(decoded) => {
                        block = self.block(partition, offsets.clone(), decoded, arrival, progress)?;
                    }
                    Taken::Away(absent) => (block, away) = self.place(*absent, progress).await?,
                }
                recorder.reach(partition, offsets.end);
                LoggedEvent::Rows { partition, start: offsets.start, end: offsets.end, arrival }
            }
            Event::Idle(partition) => {
                progress.idle(partition);
                LoggedEvent::Idle(partition)
            }
            Event::End(partition) => {
                progress.end(partition);
                LoggedEvent::End(partition)
            }
            Event::Tick(time) => {
                progress.arrive(time);
                LoggedEvent::Tick(time)
            }
            Event::Closed => LoggedEvent::Closed,
            Event::Failed(error) => return Err(error),
        };
        let seq = recorder.seq;
        recorder.seq += 1;
        let progress = recorder.progress.clone();
        let here = block.as_ref().map(|block| block.partition);
        self.reached().note(&progress, here.or(away.as_ref().map(|away: &Away| away.lease.stretch.partition)));
        let bad = self.metrics.bad_rows() - bad_before;
        let (block, away) = (block.map(Arc::new), away.map(Arc::new));
        Ok(Record { seq, event, block, away, bad, progress, logged_at: Instant::now() })
    }

    /// The event time that rows without one get: when they came, or when they came the first time.
    fn arrival_time(&self, logged: Option<EventTime>, progress: &Progress) -> Option<EventTime> {
        let is_arrival = self.definition.event_time.is_none();
        is_arrival.then(|| logged.unwrap_or_else(|| EventTime(self.clock.now().0.max(progress.watermark().0))))
    }

    fn block(
        &self,
        partition: PartitionId,
        offsets: std::ops::Range<Offset>,
        decoded: Decoded,
        arrival: Option<EventTime>,
        progress: &mut Progress,
    ) -> Result<Option<Block>> {
        let Timed { rows, times, bad } = match (&self.definition.event_time, arrival) {
            (Some(rule), _) => block::timed(decoded, offsets.start, rule.column)?,
            (None, arrival) => {
                let arrival = arrival.ok_or_else(|| Error::internal("rows without event time have no arrival time"))?;
                let times = Int64Array::from_value(arrival.0, decoded.batch.num_rows());
                Timed { rows: decoded.batch, times, bad: decoded.bad }
            }
        };
        self.set_aside(partition, &bad)?;
        let Some(Observed { earliest, latest, behind }) = progress.observe(partition, times.values()) else {
            return Ok(None);
        };
        self.count(rows.num_rows(), behind.len());
        Ok(Some(Block { partition, offsets, rows, times, earliest, latest, behind, numbers: None }))
    }

    /// The rows of an absent block that were behind, which are had here, and the others, which stay where they are.
    async fn place(&self, absent: Absent, progress: &mut Progress) -> Result<(Option<Block>, Option<Away>)> {
        let partition = absent.lease.stretch.partition;
        self.set_aside(partition, &absent.found.bad)?;
        let Some((earliest, latest)) = absent.found.times else { return Ok((None, None)) };
        let Some(before) = progress.observe_bounds(partition, earliest, latest) else {
            self.count(absent.found.rows, 0);
            return Ok((None, Some(absent.without(Vec::new()))));
        };
        let scanned = absent.lease.readers.scan(&absent.lease, progress.lateness(), before).await?;
        progress.move_to(partition, scanned.after);
        self.count(absent.found.rows, scanned.behind.len());
        let column = self.definition.event_time.as_ref().map_or(0, |rule| rule.column);
        absent.part(scanned, column)
    }

    fn count(&self, rows: usize, behind: usize) {
        self.metrics.rows.fetch_add(rows as u64, Ordering::Relaxed);
        self.metrics.late_rows.fetch_add(behind as u64, Ordering::Relaxed);
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
