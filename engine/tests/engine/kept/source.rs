//! Sources over a log written down by hand: one that can be read again, and one that cannot.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::source::{Decode, Decoded, InputIndex, Offset, PartitionReader, Source, Split};
use millstream_engine::{Error, Result};

use crate::oracle::{Event, Log, Row};

/// The rows of each partition of a log, in their order.
pub(crate) fn partitions_of(log: &Log) -> Vec<Arc<Vec<Row>>> {
    let mut partitions = vec![Vec::new(); log.partitions as usize];
    for event in &log.events {
        if let Event::Rows(partition, rows) = event {
            partitions[*partition as usize].extend(rows.iter().cloned());
        }
    }
    partitions.into_iter().map(Arc::new).collect()
}

/// Can be read from any offset, and notes how many rows each partition has.
#[derive(Debug)]
pub(crate) struct Replayable {
    pub(crate) log: Arc<Log>,
    /// The most rows of a split; another number in another run.
    pub(crate) split_rows: usize,
}

#[async_trait]
impl Source for Replayable {
    fn is_replayable(&self) -> bool {
        true
    }

    async fn open(&self, from: &[Offset], index: Arc<dyn InputIndex>) -> Result<Vec<Box<dyn PartitionReader>>> {
        let partitions = partitions_of(&self.log);
        let expected: Vec<_> = partitions.iter().map(|rows| format!("{} rows", rows.len())).collect();
        let known = index.notes();
        if !expected.starts_with(&known) {
            return Err(Error::internal(format!("the notes are {known:?}, not the first of {expected:?}")));
        }
        expected.iter().skip(known.len()).try_for_each(|note| index.push(note))?;
        let mut readers: Vec<Box<dyn PartitionReader>> = Vec::new();
        for (number, rows) in partitions.into_iter().enumerate() {
            let next = from.get(number).map_or(0, |offset| offset.0 as usize);
            let log = Arc::clone(&self.log);
            readers.push(Box::new(Reader { log, partition: number, rows, next, split_rows: self.split_rows }));
        }
        Ok(readers)
    }

    fn describe(&self) -> String {
        "a log".to_owned()
    }

    fn decoder(&self, recipe: &str) -> Result<Box<dyn Decode>> {
        let parts: Vec<usize> = recipe.split(' ').map(|part| part.parse().unwrap()).collect();
        let rows = &partitions_of(&self.log)[parts[0]][parts[1]..parts[2]];
        Ok(Box::new(Ready { rows: self.log.batch(rows.iter()), recipe: None }))
    }
}

#[derive(Debug)]
struct Reader {
    log: Arc<Log>,
    partition: usize,
    rows: Arc<Vec<Row>>,
    next: usize,
    split_rows: usize,
}

#[async_trait]
impl PartitionReader for Reader {
    async fn next(&mut self, limit: Option<Offset>) -> Result<Option<Split>> {
        let limit = limit.map_or(usize::MAX, |limit| limit.0 as usize);
        let end = (self.next + self.split_rows).min(limit).min(self.rows.len());
        if self.next >= end {
            return Ok(None);
        }
        let recipe = format!("{} {} {end}", self.partition, self.next);
        let split = split_of(&self.log, &self.rows[self.next..end], self.next as u64, Some(recipe));
        self.next = end;
        Ok(Some(split))
    }
}

/// Gives each row once, whatever becomes of it: a run goes on behind the last row that any run before it was given.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) log: Arc<Log>,
    pub(crate) split_rows: usize,
    /// Rows that were given so far, in all runs.
    pub(crate) given: Arc<AtomicUsize>,
}

#[async_trait]
impl Source for Live {
    fn is_replayable(&self) -> bool {
        false
    }

    async fn open(&self, _: &[Offset], _: Arc<dyn InputIndex>) -> Result<Vec<Box<dyn PartitionReader>>> {
        let rows = partitions_of(&self.log).remove(0);
        let (log, given) = (Arc::clone(&self.log), Arc::clone(&self.given));
        Ok(vec![Box::new(LiveReader { log, rows, given, split_rows: self.split_rows, offset: 0 })])
    }

    fn describe(&self) -> String {
        "a live log".to_owned()
    }
}

#[derive(Debug)]
struct LiveReader {
    log: Arc<Log>,
    rows: Arc<Vec<Row>>,
    given: Arc<AtomicUsize>,
    split_rows: usize,
    offset: u64,
}

#[async_trait]
impl PartitionReader for LiveReader {
    async fn next(&mut self, _: Option<Offset>) -> Result<Option<Split>> {
        // Others get on meanwhile, so that not all rows are given before the first ones are used.
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
        let start = self.given.load(Ordering::SeqCst);
        let end = (start + self.split_rows).min(self.rows.len());
        if start >= end {
            return Ok(None);
        }
        self.given.store(end, Ordering::SeqCst);
        let split = split_of(&self.log, &self.rows[start..end], self.offset, None);
        self.offset += (end - start) as u64;
        Ok(Some(split))
    }
}

fn split_of(log: &Log, rows: &[Row], offset: u64, recipe: Option<String>) -> Split {
    let offsets = Offset(offset)..Offset(offset + rows.len() as u64);
    Split { offsets, bytes: rows.len(), decode: Box::new(Ready { rows: log.batch(rows.iter()), recipe }) }
}

/// Rows that need no decoding.
#[derive(Debug)]
struct Ready {
    rows: RecordBatch,
    recipe: Option<String>,
}

impl Decode for Ready {
    fn decode(self: Box<Self>) -> Result<Decoded> {
        Ok(Decoded { batch: self.rows, bad: Vec::new() })
    }

    fn recipe(&self) -> Option<String> {
        self.recipe.clone()
    }
}
