//! Running a query over a log written down by hand: what the proofs of the invariants are made with.
//!
//! A log is a sequence of events per stream; a [`Cut`] says how it is cut into blocks and micro-batches. The blocks
//! are made by the same code that ingestion uses and the epochs are those of a running query; only time is missing.
//! [`run_restarted`] runs the same in two lives, the first of which ends by a crash.

mod damage;
mod executors;
mod restart;
mod spelled;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::logical_expr::LogicalPlan;

use crate::batch::Epoch;
use crate::cluster::{Lineage, Seat};
use crate::driver::{Driver, Summary};
use crate::error::{Error, Result};
use crate::ingest::{Block, Event, Ingest, LogPlace, Recorder, Taken};
use crate::plan::StreamDefinition;
use crate::query::{PlannedQuery, QueryOptions};
use crate::side::SideTables;
use crate::sink::{Guarantee, Sink, SinkWriter};
use crate::source::{BadRow, Decode, Decoded, InputIndex, Offset, PartitionId, PartitionReader, Source};
use crate::time::{Clock, EventTime};

pub use damage::damaged;
pub use executors::{Fate, LocalExecutors, Moment};
pub use restart::{Crash, run_restarted};

/// Something that happens to a stream.
#[derive(Debug, Clone)]
pub enum LogEvent {
    /// Rows of a partition, in the stream's declared columns.
    Rows(PartitionId, RecordBatch),
    /// A row of a partition that could not be used.
    Bad(PartitionId, BadRow),
    /// The partition is silent; it no longer holds the watermark back until it has rows again.
    Idle(PartitionId),
    /// No row that comes later has an earlier event time, in any partition; where event time is arrival time, rows
    /// that come later have this one.
    Watermark(EventTime),
}

/// The log of one stream.
#[derive(Debug, Clone)]
pub struct StreamLogScript {
    /// The stream.
    pub definition: Arc<StreamDefinition>,
    /// How many partitions it has.
    pub partitions: u32,
    /// What happens, in order.
    pub events: Vec<LogEvent>,
    /// Whether every partition ends with it; what would come after an open end is not waited for.
    pub ends: bool,
}

/// How logs are cut.
pub trait Cut {
    /// How many rows the next block has, at least 1; rows of one event are in one block at the most.
    fn block_rows(&mut self) -> usize;
    /// How many blocks, idle or end events of each stream the next micro-batch has; 0 is allowed for a while.
    fn records(&mut self) -> usize;
}

/// A cut into equal parts.
#[derive(Debug, Clone, Copy)]
pub struct EvenCut {
    /// Rows in a block.
    pub block_rows: usize,
    /// Records of each stream in a micro-batch.
    pub records: usize,
}

impl Cut for EvenCut {
    fn block_rows(&mut self) -> usize {
        self.block_rows
    }

    fn records(&mut self) -> usize {
        self.records
    }
}

/// Changes a block after it was made, to plant a bug.
pub type Tamper<'a> = &'a (dyn Fn(&mut Block) + Sync);

/// What a run gave.
#[derive(Debug)]
pub struct Run {
    /// The rows of each epoch that had any, in order.
    pub epochs: Vec<Vec<RecordBatch>>,
    /// What the query did.
    pub summary: Summary,
    /// The rows that were too late, per stream in the order of the scripts.
    pub late: Vec<RecordBatch>,
    /// The rows that could not be used, per stream in the order of the scripts.
    pub dead: Vec<RecordBatch>,
}

impl Run {
    /// All rows in order.
    pub fn batches(&self) -> Vec<RecordBatch> {
        self.epochs.iter().flatten().cloned().collect()
    }
}

/// Runs `logical` over `scripts` to their end; an open end closes no window.
///
/// # Errors
/// Fails as the query fails, and if a script for one of its streams is missing.
pub async fn run_scripts(
    logical: &LogicalPlan,
    scripts: &[StreamLogScript],
    cut: &mut dyn Cut,
    options: QueryOptions,
    tamper: Option<Tamper<'_>>,
) -> Result<Run> {
    run_planned(PlannedQuery::plan(logical, options).await?, scripts, cut, tamper).await
}

/// Runs a planned query over `scripts` to their end.
///
/// # Errors
/// As for [`run_scripts`].
pub async fn run_planned(
    planned: PlannedQuery,
    scripts: &[StreamLogScript],
    cut: &mut dyn Cut,
    tamper: Option<Tamper<'_>>,
) -> Result<Run> {
    let mut feeds = Vec::new();
    // What is to be tampered with has to be here.
    let seat = planned.seat().cloned().filter(|_| tamper.is_none());
    for script in scripts_of(&planned, scripts)? {
        feeds.push(Feed::new(script, seat.as_ref())?);
    }
    let ingests: Vec<_> = feeds.iter().map(|feed| Arc::clone(&feed.ingest)).collect();
    let mut driver = planned.start(ingests.clone())?.into_driver();
    if let Some(spread) = driver.stage.spread() {
        spread.resume("query", 1, Lineage::default()).await?;
    }
    let mut sink = Collect::default();
    loop {
        let mut is_over = true;
        for feed in &mut feeds {
            let records = cut.records();
            is_over &= !feed.feed(records, cut, tamper).await?;
        }
        driver.run_available(&mut sink).await?;
        if is_over {
            break;
        }
    }
    let side = ingests.iter().map(|ingest| ingest.side_tables());
    Ok(Run {
        late: side.clone().map(|side| side.late.rows()).collect::<Result<_>>()?,
        dead: side.map(|side| side.dead.rows()).collect::<Result<_>>()?,
        epochs: sink.epochs,
        summary: driver.summary(false),
    })
}

/// The scripts of a query's streams, in their order.
fn scripts_of<'a>(planned: &PlannedQuery, scripts: &'a [StreamLogScript]) -> Result<Vec<&'a StreamLogScript>> {
    let known: HashMap<_, _> = scripts.iter().map(|script| (script.definition.name.as_str(), script)).collect();
    let script_of = |name: &str| {
        let script = known.get(name).copied();
        script.ok_or_else(|| Error::internal(format!("no script for stream {name}")))
    };
    planned.streams().iter().map(|stream| script_of(&stream.name)).collect()
}

/// A stream whose records are appended by hand; nothing reads a source or a clock.
fn ingest_by_hand(definition: &Arc<StreamDefinition>, is_replayable: bool) -> Ingest {
    let side = SideTables::new(&definition.schema);
    let source = Arc::new(NoSource { is_replayable });
    Ingest::new(Arc::clone(definition), source, Arc::new(StillClock), side)
}

/// A script on its way into an ingest's log.
struct Feed {
    ingest: Arc<Ingest>,
    recorder: Recorder,
    script: ScriptReader,
    fed: usize,
}

impl Feed {
    fn new(script: &StreamLogScript, seat: Option<&Seat>) -> Result<Self> {
        let partitions = usize::try_from(script.partitions).unwrap_or_default();
        Ok(Self {
            recorder: Recorder::new(&LogPlace::default(), &script.definition, partitions)?,
            ingest: Arc::new(match seat {
                Some(seat) => ingest_by_hand(&script.definition, true).read_at(seat),
                None => ingest_by_hand(&script.definition, true),
            }),
            script: ScriptReader::new(script),
            fed: 0,
        })
    }

    /// Appends the next records; whether any are left.
    async fn feed(&mut self, records: usize, cut: &mut dyn Cut, tamper: Option<Tamper<'_>>) -> Result<bool> {
        for _ in 0..records {
            let Some(event) = self.script.next_event(cut.block_rows().max(1)) else { break };
            self.fed += 1;
            // Some stay here, as those do of which a source does not say what they are.
            let event =
                if self.fed.is_multiple_of(4) { event } else { spelled::elsewhere(event, &self.ingest).await? };
            self.ingest.append_event(event, &mut self.recorder, tamper).await?;
        }
        Ok(self.script.has_event())
    }
}

/// A script being read, in events of as many rows as are asked for.
struct ScriptReader {
    schema: SchemaRef,
    events: VecDeque<LogEvent>,
    next_offsets: Vec<u64>,
    open: Vec<PartitionId>,
}

impl ScriptReader {
    fn new(script: &StreamLogScript) -> Self {
        let closing = if script.ends { 0..script.partitions } else { 0..0 };
        Self {
            schema: Arc::clone(&script.definition.schema),
            events: script.events.iter().cloned().collect(),
            next_offsets: vec![0; usize::try_from(script.partitions).unwrap_or_default()],
            open: closing.rev().map(PartitionId).collect(),
        }
    }

    fn partitions(&self) -> usize {
        self.next_offsets.len()
    }

    fn has_event(&self) -> bool {
        !self.events.is_empty() || !self.open.is_empty()
    }

    fn next_event(&mut self, rows: usize) -> Option<Event> {
        match self.events.pop_front() {
            None => self.open.pop().map(Event::End),
            Some(LogEvent::Idle(partition)) => Some(Event::Idle(partition)),
            Some(LogEvent::Watermark(time)) => Some(Event::Tick(time)),
            Some(LogEvent::Bad(partition, row)) => {
                let batch = RecordBatch::new_empty(Arc::clone(&self.schema));
                Some(self.rows_event(partition, Decoded { batch, bad: vec![row] }))
            }
            Some(LogEvent::Rows(partition, batch)) => {
                if batch.num_rows() > rows {
                    let rest = batch.slice(rows, batch.num_rows() - rows);
                    self.events.push_front(LogEvent::Rows(partition, rest));
                }
                let batch = batch.slice(0, rows.min(batch.num_rows()));
                Some(self.rows_event(partition, Decoded { batch, bad: Vec::new() }))
            }
        }
    }

    fn rows_event(&mut self, partition: PartitionId, decoded: Decoded) -> Event {
        let index = usize::try_from(partition.0).unwrap_or_default();
        let start = self.next_offsets.get(index).copied().unwrap_or_default();
        let end = start + decoded.batch.num_rows() as u64 + decoded.bad.len() as u64;
        if let Some(next) = self.next_offsets.get_mut(index) {
            *next = end;
        }
        Event::Rows { partition, offsets: Offset(start)..Offset(end), taken: Taken::Here(decoded), arrival: None }
    }
}

/// The scripts take its place.
#[derive(Debug)]
struct NoSource {
    /// Whether a restart would read the scripts again rather than a log of what they gave.
    is_replayable: bool,
}

#[async_trait]
impl Source for NoSource {
    async fn open(&self, _: &[Offset], _: Arc<dyn InputIndex>) -> Result<Vec<Box<dyn PartitionReader>>> {
        Ok(Vec::new())
    }

    fn is_replayable(&self) -> bool {
        self.is_replayable
    }

    fn describe(&self) -> String {
        "script".to_owned()
    }

    fn decoder(&self, recipe: &str) -> Result<Box<dyn Decode>> {
        spelled::read(recipe)
    }
}

/// A clock that stands at the epoch, so that event time moves by the scripts alone.
#[derive(Debug)]
struct StillClock;

impl Clock for StillClock {
    fn now(&self) -> EventTime {
        EventTime(0)
    }
}

/// A sink that keeps what was committed.
#[derive(Debug, Default)]
pub struct Collect {
    staged: Vec<RecordBatch>,
    /// The rows of each epoch that had any, in order.
    pub epochs: Vec<Vec<RecordBatch>>,
}

#[async_trait]
impl Sink for Collect {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn begin(&mut self, _: &SinkWriter) -> Result<Option<Epoch>> {
        Ok(None)
    }

    async fn stage(&mut self, _: Epoch, rows: &[RecordBatch]) -> Result<()> {
        self.staged.extend_from_slice(rows);
        Ok(())
    }

    async fn commit(&mut self, _: Epoch) -> Result<()> {
        self.epochs.push(std::mem::take(&mut self.staged));
        Ok(())
    }
}

impl Driver {
    /// Runs micro-batches until everything that is in the logs has been taken.
    async fn run_available(&mut self, sink: &mut dyn Sink) -> Result<()> {
        loop {
            let taken = self.run_next(sink).await?;
            self.checkpoint_if_due().await?;
            if taken == 0 {
                return Ok(());
            }
        }
    }
}
