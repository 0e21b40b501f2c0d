//! Running a query over a log written down by hand: what the proofs of the invariants are made with.
//!
//! A log is a sequence of events per stream; a [`Cut`] says how it is cut into blocks and micro-batches. The blocks
//! are made by the same code that ingestion uses and the epochs are those of a running query; only time is missing.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::logical_expr::LogicalPlan;

use crate::batch::Epoch;
use crate::driver::{Driver, Summary};
use crate::error::{Error, Result};
use crate::ingest::{Block, Ingest, LogPlace, Recorder};
use crate::plan::StreamDefinition;
use crate::query::{PlannedQuery, QueryOptions};
use crate::side::SideTables;
use crate::sink::{Guarantee, Sink, SinkWriter};
use crate::source::{BadRow, Decoded, InputIndex, Offset, PartitionId, PartitionReader, Source};
use crate::time::SystemClock;

/// Something that happens to a stream.
#[derive(Debug, Clone)]
pub enum LogEvent {
    /// Rows of a partition, in the stream's declared columns.
    Rows(PartitionId, RecordBatch),
    /// A row of a partition that could not be used.
    Bad(PartitionId, BadRow),
    /// The partition is silent; it no longer holds the watermark back until it has rows again.
    Idle(PartitionId),
}

/// The log of one stream; every partition ends with it.
#[derive(Debug, Clone)]
pub struct StreamLogScript {
    /// The stream.
    pub definition: Arc<StreamDefinition>,
    /// How many partitions it has.
    pub partitions: u32,
    /// What happens, in order.
    pub events: Vec<LogEvent>,
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

/// Runs `logical` over `scripts` to their end.
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
    let known: HashMap<_, _> = scripts.iter().map(|script| (script.definition.name.as_str(), script)).collect();
    let mut feeds = Vec::new();
    for stream in planned.streams() {
        let script = known.get(stream.name.as_str());
        let script = script.ok_or_else(|| Error::internal(format!("no script for stream {}", stream.name)))?;
        feeds.push(Feed::new(script)?);
    }
    let ingests: Vec<_> = feeds.iter().map(|feed| Arc::clone(&feed.ingest)).collect();
    let mut driver = planned.start(ingests.clone())?.into_driver();
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

/// A script on its way into an ingest's log.
struct Feed {
    ingest: Arc<Ingest>,
    recorder: Recorder,
    events: std::collections::VecDeque<LogEvent>,
    next_offsets: Vec<u64>,
    open: Vec<PartitionId>,
}

impl Feed {
    fn new(script: &StreamLogScript) -> Result<Self> {
        let definition = Arc::clone(&script.definition);
        let partitions = usize::try_from(script.partitions).unwrap_or_default();
        let side = SideTables::new(&definition.schema);
        let ingest = Ingest::new(Arc::clone(&definition), Arc::new(NoSource), Arc::new(SystemClock), side);
        Ok(Self {
            recorder: Recorder::new(&LogPlace::default(), &definition, partitions)?,
            ingest: Arc::new(ingest),
            events: script.events.iter().cloned().collect(),
            next_offsets: vec![0; partitions],
            open: (0..script.partitions).rev().map(PartitionId).collect(),
        })
    }

    /// Appends the next records; whether any are left.
    async fn feed(&mut self, records: usize, cut: &mut dyn Cut, tamper: Option<Tamper<'_>>) -> Result<bool> {
        for _ in 0..records {
            let Some(event) = self.next_event(cut.block_rows().max(1)) else { break };
            self.ingest.append_event(event, &mut self.recorder, tamper).await?;
        }
        Ok(!self.events.is_empty() || !self.open.is_empty())
    }

    fn next_event(&mut self, rows: usize) -> Option<crate::ingest::Event> {
        use crate::ingest::Event;
        match self.events.pop_front() {
            None => self.open.pop().map(Event::End),
            Some(LogEvent::Idle(partition)) => Some(Event::Idle(partition)),
            Some(LogEvent::Bad(partition, row)) => {
                let batch = RecordBatch::new_empty(Arc::clone(&self.ingest.definition().schema));
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

    fn rows_event(&mut self, partition: PartitionId, decoded: Decoded) -> crate::ingest::Event {
        let index = usize::try_from(partition.0).unwrap_or_default();
        let start = self.next_offsets.get(index).copied().unwrap_or_default();
        let end = start + decoded.batch.num_rows() as u64 + decoded.bad.len() as u64;
        if let Some(next) = self.next_offsets.get_mut(index) {
            *next = end;
        }
        crate::ingest::Event::Rows { partition, offsets: Offset(start)..Offset(end), decoded, arrival: None }
    }
}

/// The scripts take its place.
#[derive(Debug)]
struct NoSource;

#[async_trait]
impl Source for NoSource {
    async fn open(&self, _: &[Offset], _: Arc<dyn InputIndex>) -> Result<Vec<Box<dyn PartitionReader>>> {
        Ok(Vec::new())
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        "script".to_owned()
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
            if taken == 0 {
                return Ok(());
            }
        }
    }
}
