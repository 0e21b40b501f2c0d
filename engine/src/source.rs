//! Where rows come from: a partitioned log that hands out splits to decode.
//!
//! Reading and decoding are apart, because reading is sequential and decoding is where the time goes:
//! a [`PartitionReader`] cuts its partition into [`Split`]s in order, the engine decodes several at once.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;

use crate::error::{Error, Result};
use crate::time::EventTime;

/// A position in one source partition.
///
/// Text sources count bytes, columnar ones rows; the row at index `i` of a block that starts at `o` has an
/// offset in `[o + i, end)`, so that offsets order the rows of a partition however it is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Offset(pub u64);

/// The number of a partition within its stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct PartitionId(pub u32);

/// A partitioned log of rows.
///
/// # Contract
/// - The partitions belong to the input and do not depend on how many tasks read it.
/// - If it is replayable, reading a range of offsets again gives the same rows in the same order, in another process
///   too, or fails with an error that names what has changed.
#[async_trait]
pub trait Source: Debug + Send + Sync {
    /// Whether a range that was read can be read again after a restart.
    ///
    /// What cannot is logged by the engine before it is used, when a query has a state directory.
    fn is_replayable(&self) -> bool;

    /// Opens every partition, in the order of their numbers from 0.
    ///
    /// A replayable source begins each partition at its offset in `from`, which is where a split of an earlier run
    /// ended, and at its beginning where `from` has none. Others always begin at offset 0 with what comes next.
    /// `index` holds what earlier runs noted about the input.
    ///
    /// # Errors
    /// Fails if the input cannot be found or reached, or is no longer what `index` says; the error names it.
    async fn open(&self, from: &[Offset], index: Arc<dyn InputIndex>) -> Result<Vec<Box<dyn PartitionReader>>>;

    /// What is read, in a few words for progress and errors: `socket 127.0.0.1:9999`.
    fn describe(&self) -> String;

    /// The work that a split of this source was described as by [`Decode::recipe`], perhaps in another process.
    ///
    /// # Errors
    /// Fails if it is no such recipe, and if what it was made of is gone or has changed.
    fn decoder(&self, recipe: &str) -> Result<Box<dyn Decode>> {
        Err(Error::internal(format!("{} makes nothing of {recipe:?}", self.describe())))
    }
}

/// Reads one partition from front to back.
#[async_trait]
pub trait PartitionReader: Debug + Send {
    /// Waits for the next split; `None` when a bounded partition is at its end, and ever after.
    ///
    /// With a `limit`, which is where a split of an earlier run ended, the split ends there at the latest; the
    /// limit is behind the reader's place and stays the same until it is reached. Sources that are not replayable
    /// get none.
    ///
    /// Must be cancel safe: a call dropped while waiting loses no input.
    async fn next(&mut self, limit: Option<Offset>) -> Result<Option<Split>>;
}

/// What a source notes about its input so that offsets mean the same in a later run: for files, which file begins at
/// which offset, and what it looked like.
///
/// # Contract
/// A note is durable when [`InputIndex::push`] returns, and stays in its place.
pub trait InputIndex: Debug + Send + Sync {
    /// The notes so far, in order.
    fn notes(&self) -> Vec<String>;

    /// Adds a note: one line of text.
    ///
    /// # Errors
    /// Fails if the note cannot be made durable.
    fn push(&self, note: &str) -> Result<()>;
}

/// An index for a run that nothing outlives.
#[derive(Debug, Default)]
pub struct MemoryIndex(Mutex<Vec<String>>);

impl InputIndex for MemoryIndex {
    fn notes(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn push(&self, note: &str) -> Result<()> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(note.to_owned());
        Ok(())
    }
}

/// A stretch of a partition that has been read but not decoded.
#[derive(Debug)]
pub struct Split {
    /// The offsets it covers; consecutive splits of a partition touch.
    pub offsets: Range<Offset>,
    /// The bytes it takes in memory now, for back pressure.
    pub bytes: usize,
    /// The work that makes rows of it.
    pub decode: Box<dyn Decode>,
}

/// The deferred work of making rows of a split; runs on a thread that may be kept busy.
pub trait Decode: Debug + Send {
    /// Makes one batch in the stream's declared schema, and sets aside what could not be used.
    ///
    /// Rows whose event-time column is null count as bad rows and are not in the batch.
    ///
    /// # Errors
    /// Fails only where the split as a whole cannot be used (a broken file), never for one row.
    fn decode(self: Box<Self>) -> Result<Decoded>;

    /// The source's own promise, which stands behind these rows: no row of the stream that comes later has an earlier
    /// event time.
    ///
    /// It is logged beside the rows; of a source that is replayable none is expected.
    fn promise(&self) -> Option<EventTime> {
        None
    }

    /// What [`Source::decoder`] makes the same work of in any process that can reach the input; none if only this one
    /// can do it.
    fn recipe(&self) -> Option<String> {
        None
    }
}

/// The rows of a split.
#[derive(Debug)]
pub struct Decoded {
    /// The good rows, in order.
    pub batch: RecordBatch,
    /// The rows that could not be used, in order.
    pub bad: Vec<BadRow>,
}

/// A row that could not be used, with all that is needed to find and mend it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct BadRow {
    /// Where the row begins in its partition.
    pub offset: Offset,
    /// The place in the words of the source: `trades.csv line 17`.
    pub place: String,
    /// The column at fault, where it is a single one.
    pub column: Option<String>,
    /// The row as it came; invalid UTF-8 replaced, cut off after 4 KiB.
    pub raw: String,
    /// What is wrong, in the user's words.
    pub reason: String,
}
