//! A log of rows that many append to at once and many read, each at a place of its own: a stream that the engine keeps.
//!
//! An append is acknowledged when it is durable; whatever waits meanwhile shares one sync. A producer that numbers its
//! appends may send one again when it does not know whether it arrived: it is taken once. The newest rows are kept in
//! memory for readers that keep up; others read the disk.
//!
//! Rows are counted from 0 and never change. Segments are named after their first row, and the oldest may be dropped; see
//! `segment`.

mod reader;
mod segment;
mod writer;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use datafusion::arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot, watch};

use super::files::Files;
use super::journal::failed;
use crate::error::{Error, Result};
use crate::size::used_bytes;
pub use reader::RowLogReader;
use writer::{Append, Writer};

/// How many appends wait for the one that is being written.
const WAITING_APPENDS: usize = 256;
/// How much of the newest rows stays in memory, in bytes.
const TAIL_BYTES: usize = 32 << 20;

/// The longest name of a producer, in bytes: many of them are remembered.
const MAX_ID_BYTES: usize = 256;

/// Who appends, and the number of the append among theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Producer {
    /// A name that nobody else has.
    pub id: String,
    /// A number above those of all appends before.
    pub sequence: u64,
}

/// What became of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// Its rows are in the log.
    Logged,
    /// The producer has sent it before: nothing was added.
    Repeated,
}

/// Rows of the log, and the number of the first.
#[derive(Debug, Clone)]
pub struct LoggedRows {
    /// The number of the first row.
    pub start: u64,
    /// The rows of one append, or the rest of them.
    pub rows: RecordBatch,
}

/// Rows as a client has sent them: a record batch message of the Arrow IPC format, not of a dictionary.
#[derive(Debug, Clone)]
pub struct ReceivedRows {
    /// The message without its length.
    pub header: Bytes,
    /// The buffers.
    pub body: Bytes,
}

/// The newest number of each producer, and the end of the log behind it.
type Sequences = BTreeMap<String, (u64, u64)>;

/// The log; clones are the same one.
#[derive(Debug, Clone)]
pub struct RowLog {
    shared: Arc<Shared>,
    appends: mpsc::Sender<Append>,
}

/// What appending and reading share.
#[derive(Debug)]
struct Shared {
    files: Arc<dyn Files>,
    folder: String,
    tail: Mutex<Tail>,
    /// The number of the oldest row that is kept.
    start: AtomicU64,
    /// The number of the next row.
    end: watch::Sender<u64>,
    /// Whether it takes no rows any more.
    is_closed: AtomicBool,
}

/// The newest rows.
#[derive(Debug, Default)]
struct Tail {
    /// Each with its bytes.
    appends: VecDeque<(LoggedRows, usize)>,
    bytes: usize,
}

impl RowLog {
    /// Opens the log in `folder`, or makes it; what a crash left half written is cut off. The disk must be this
    /// process's alone.
    ///
    /// # Errors
    /// Fails if its end is damaged, and as the disk fails.
    pub fn open(files: &Arc<dyn Files>, folder: &str) -> Result<Self> {
        Self::with_segments(files, folder, segment::SEGMENT_BYTES)
    }

    fn with_segments(files: &Arc<dyn Files>, folder: &str, segment_bytes: u64) -> Result<Self> {
        files.create_folder(folder).map_err(|error| failed(files.as_ref(), folder, error))?;
        let recovered = segment::recover(files.as_ref(), folder)?;
        let (end, _) = watch::channel(recovered.end);
        let start = segment::firsts(files.as_ref(), folder)?.first().copied().unwrap_or(recovered.end);
        let shared = Arc::new(Shared {
            files: Arc::clone(files),
            folder: folder.to_owned(),
            tail: Mutex::default(),
            start: AtomicU64::new(start),
            end,
            is_closed: AtomicBool::new(false),
        });
        let (appends, queue) = mpsc::channel(WAITING_APPENDS);
        let writer = Writer::new(Arc::clone(&shared), recovered, segment_bytes);
        std::thread::Builder::new()
            .name("row log".to_owned())
            .spawn(move || writer.run(queue))
            .map_err(|error| Error::external("starting a thread", error))?;
        Ok(Self { shared, appends })
    }

    /// Appends rows; they are durable when this returns. Where they are given as they were received too, all columns in
    /// their order, that is what is written, so that they are not encoded again.
    ///
    /// # Errors
    /// Fails as the disk does; the rows are not in the log then.
    pub async fn append(
        &self,
        rows: RecordBatch,
        received: Option<ReceivedRows>,
        by: Option<Producer>,
    ) -> Result<Appended> {
        if rows.num_rows() == 0 && by.is_none() {
            return Ok(Appended::Logged);
        }
        if let Some(by) = by.as_ref().filter(|by| by.id.len() > MAX_ID_BYTES) {
            let message = format!("the name of a producer has {} bytes", by.id.len());
            return Err(Error::data(message, format!("{MAX_ID_BYTES} are allowed")));
        }
        let bytes = segment::write_append(&rows, received, by.as_ref())?;
        let (done, answer) = oneshot::channel();
        let gone = || Error::internal("a row log has stopped");
        let rows_bytes = used_bytes(&rows)?;
        self.appends.send(Append { bytes, rows, rows_bytes, by, done }).await.map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }

    /// The number of the oldest row that is kept.
    pub fn start(&self) -> u64 {
        self.shared.start()
    }

    /// Drops rows that nobody needs any more: whole segments with rows before the number `before` that were written
    /// longer than `age` ago.
    ///
    /// # Errors
    /// As the disk fails.
    pub fn trim(&self, before: u64, age: Duration) -> Result<()> {
        let (files, folder) = (self.shared.files.as_ref(), self.shared.folder.as_str());
        let firsts = segment::firsts(files, folder)?;
        // The last one is written to, and until it has rows the one before knows what the producers have sent.
        for (first, next) in firsts.iter().zip(firsts.iter().skip(1)) {
            let path = segment::path(folder, *first);
            let is_old = files.age(&path).map_err(|error| failed(files, &path, error))? >= age;
            if *next > before || *next >= self.end() || !is_old {
                break;
            }
            // Before it is gone, so that whoever looks for it hears why.
            self.shared.start.store(*next, Ordering::Release);
            files.remove(&path).map_err(|error| failed(files, &path, error))?;
        }
        Ok(())
    }

    /// The number of the next row.
    pub fn end(&self) -> u64 {
        *self.shared.end.borrow()
    }

    /// A reader from the row `from` on.
    pub fn reader(&self, from: u64) -> RowLogReader {
        RowLogReader::new(Arc::clone(&self.shared), from)
    }

    /// Takes no rows any more, so that none is acknowledged that is then removed.
    pub fn close(&self) {
        self.shared.is_closed.store(true, Ordering::Release);
    }

    /// Removes the log in `folder`, which is closed or was never opened.
    ///
    /// # Errors
    /// As the disk fails.
    pub fn erase(files: &dyn Files, folder: &str) -> Result<()> {
        for name in files.list(folder).map_err(|error| failed(files, folder, error))? {
            let path = format!("{folder}/{name}");
            files.remove(&path).map_err(|error| failed(files, &path, error))?;
        }
        Ok(())
    }
}

impl Shared {
    fn start(&self) -> u64 {
        self.start.load(Ordering::Acquire)
    }

    fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tail {
    /// Rows whose columns share a buffer count it once: `bytes` are those of the rows alone.
    fn push(&mut self, append: LoggedRows, bytes: usize) {
        self.bytes += bytes;
        self.appends.push_back((append, bytes));
        while self.bytes > TAIL_BYTES
            && self.appends.len() > 1
            && let Some((_, oldest)) = self.appends.pop_front()
        {
            self.bytes -= oldest;
        }
    }

    /// The rows of the append that holds the row `at`, from there on.
    fn from(&self, at: u64) -> Option<LoggedRows> {
        let index = self.appends.partition_point(|(append, _)| append.end() <= at);
        let (append, _) = self.appends.get(index)?;
        if append.start <= at { append.from(at) } else { None }
    }
}

impl LoggedRows {
    /// The number behind its last row.
    pub fn end(&self) -> u64 {
        self.start + self.rows.num_rows() as u64
    }

    /// The rows from the number `at` on, which is one of them.
    fn from(&self, at: u64) -> Option<Self> {
        let skip = usize::try_from(at.checked_sub(self.start)?).ok().filter(|skip| *skip < self.rows.num_rows())?;
        Some(Self { start: at, rows: self.rows.slice(skip, self.rows.num_rows() - skip) })
    }
}

#[cfg(test)]
mod tests;
