//! Connector `push`: rows that programs hand over as Arrow batches.
//!
//! A [`PushSource`] is opened by the engine, its [`PushSender`] stays with the program. Between them is room for a few
//! batches only, so that a sender waits when the queries on the stream are behind. The rows are one partition in the
//! order of sending; they cannot be read again. Where the stream has a log ([`LoggedPush`]) they can: rows are taken
//! whether or not queries read them. [`read_body`] makes rows of text.

mod body;
mod logged;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::source::{Decode, Decoded, InputIndex, Offset, PartitionReader, Source, Split};
use millstream_engine::time::EventTime;
use millstream_engine::{Error, Result};
use tokio::sync::mpsc;

use crate::format::conform::{ColumnarPiece, find_columns};
use crate::format::rows::RowShape;
use crate::format::timestamp_unit;
use crate::options::Options;

pub use body::{BodyFormat, read_body};
pub use logged::LoggedPush;

const RETENTION: &str = "retention";
/// How many batches wait for the engine.
const WAITING_BATCHES: usize = 2;
/// The most rows that go on together; larger batches are cut.
const MAX_SPLIT_ROWS: usize = 1 << 16;

/// The engine's end of a pushed stream.
#[derive(Debug)]
pub struct PushSource {
    shape: Arc<RowShape>,
    name: Arc<str>,
    /// Taken when the stream is opened.
    received: Mutex<Option<mpsc::Receiver<Pushed>>>,
}

/// The program's end of a pushed stream; once all of its clones are gone the stream is at its end.
#[derive(Debug, Clone)]
pub struct PushSender {
    shape: Arc<RowShape>,
    name: Arc<str>,
    pushed: mpsc::Sender<Pushed>,
}

#[derive(Debug)]
enum Pushed {
    /// The declared columns in their order, and how many rows they have.
    Rows(Vec<ArrayRef>, usize),
    Watermark(EventTime),
}

impl PushSource {
    /// Both ends of the stream that `definition` declares; its options are `timestamp_unit`, and `retention` where the
    /// stream has a log.
    ///
    /// # Errors
    /// Fails for options that are unknown or wrong.
    pub fn new(definition: &StreamDefinition) -> Result<(Self, PushSender)> {
        let shape = shape_of(definition)?;
        let name = name_of(definition);
        let (pushed, received) = mpsc::channel(WAITING_BATCHES);
        let sender = PushSender { shape: Arc::clone(&shape), name: Arc::clone(&name), pushed };
        Ok((Self { shape, name, received: Mutex::new(Some(received)) }, sender))
    }
}

/// What the rows of a pushed stream look like.
fn shape_of(definition: &StreamDefinition) -> Result<Arc<RowShape>> {
    let mut options = Options::new("push", &definition.options)?;
    let shape = Arc::new(RowShape::new(definition, timestamp_unit(&mut options)?)?);
    options.duration(RETENTION)?;
    options.finish()?;
    Ok(shape)
}

/// How long the log of a pushed stream keeps rows that no kept query needs; for ever unless the stream says it.
///
/// # Errors
/// Fails if it is no duration.
pub fn retention(definition: &StreamDefinition) -> Result<Option<Duration>> {
    Options::new("push", &definition.options)?.duration(RETENTION)
}

/// What messages call it.
fn name_of(definition: &StreamDefinition) -> Arc<str> {
    format!("stream {:?}", definition.name).into()
}

impl PushSender {
    /// Hands rows over; waits while the stream is behind.
    ///
    /// Columns are found by their names, whatever their order, and converted to the declared types. A value that does
    /// not fit makes its row a bad row, which is treated as the stream's `bad_data` says.
    ///
    /// # Errors
    /// Fails if a declared column is missing, and if nothing takes the rows any more.
    pub async fn push(&self, batch: &RecordBatch) -> Result<()> {
        let columns = find_columns(&self.shape, &batch.schema(), &format!("a batch for {}", self.name))?;
        for start in (0..batch.num_rows()).step_by(MAX_SPLIT_ROWS) {
            let part = batch.slice(start, MAX_SPLIT_ROWS.min(batch.num_rows() - start));
            let arrays = columns.iter().map(|index| Arc::clone(part.column(*index))).collect();
            self.send(Pushed::Rows(arrays, part.num_rows())).await?;
        }
        Ok(())
    }

    /// Promises that no row that is pushed later has an earlier event time; one that has is late.
    ///
    /// # Errors
    /// Fails if nothing takes it any more.
    pub async fn advance_watermark(&self, to: EventTime) -> Result<()> {
        self.send(Pushed::Watermark(to)).await
    }

    async fn send(&self, pushed: Pushed) -> Result<()> {
        self.pushed.send(pushed).await.map_err(|_| {
            let message = format!("{} takes no rows any more: its queries have ended", self.name);
            Error::data(message, "start a query on it before pushing")
        })
    }
}

#[async_trait]
impl Source for PushSource {
    fn is_replayable(&self) -> bool {
        false
    }

    async fn open(&self, _: &[Offset], _: Arc<dyn InputIndex>) -> Result<Vec<Box<dyn PartitionReader>>> {
        let received = self.received.lock().unwrap_or_else(PoisonError::into_inner).take();
        let received = received.ok_or_else(|| Error::internal(format!("{} was opened twice", self.name)))?;
        let (shape, name) = (Arc::clone(&self.shape), Arc::clone(&self.name));
        Ok(vec![Box::new(PushReader { received, shape, name, offset: 0 })])
    }

    fn describe(&self) -> String {
        "push".to_owned()
    }
}

#[derive(Debug)]
struct PushReader {
    received: mpsc::Receiver<Pushed>,
    shape: Arc<RowShape>,
    name: Arc<str>,
    offset: u64,
}

#[async_trait]
impl PartitionReader for PushReader {
    async fn next(&mut self, _: Option<Offset>) -> Result<Option<Split>> {
        let Some(pushed) = self.received.recv().await else { return Ok(None) };
        let start = self.offset;
        let (bytes, decode): (usize, Box<dyn Decode>) = match pushed {
            Pushed::Rows(arrays, rows) => {
                self.offset += rows as u64;
                let bytes = arrays.iter().map(|array| array.get_array_memory_size()).sum();
                let place = (Arc::clone(&self.name), start);
                let shape = Arc::clone(&self.shape);
                (bytes, Box::new(ColumnarPiece { shape, arrays, rows, start: Offset(start), place }))
            }
            Pushed::Watermark(time) => (0, Box::new(Promise { shape: Arc::clone(&self.shape), time })),
        };
        Ok(Some(Split { offsets: Offset(start)..Offset(self.offset), bytes, decode }))
    }
}

/// A watermark without rows.
#[derive(Debug)]
struct Promise {
    shape: Arc<RowShape>,
    time: EventTime,
}

impl Decode for Promise {
    fn decode(self: Box<Self>) -> Result<Decoded> {
        Ok(Decoded { batch: RecordBatch::new_empty(Arc::clone(&self.shape.schema)), bad: Vec::new() })
    }

    fn promise(&self) -> Option<EventTime> {
        Some(self.time)
    }
}
