//! A stream's log in memory: appended once, read by every query at its own pace, bounded.
//!
//! A record stays until the slowest reader has taken it; while what is kept exceeds the limit, appending waits, and
//! with it the source.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, watch};

use crate::error::{Error, Result};
use crate::ingest::block::Record;

/// What an input may keep in memory before it waits for its readers, in bytes.
pub const LOG_LIMIT_BYTES: usize = 64 << 20;

/// The log.
#[derive(Debug)]
pub(crate) struct StreamLog {
    state: Mutex<State>,
    appended: watch::Sender<u64>,
    taken: Notify,
    limit_bytes: usize,
}

#[derive(Debug, Default)]
struct State {
    /// The sequence number of the first record that is kept.
    first: u64,
    records: VecDeque<Arc<Record>>,
    bytes: usize,
    readers: Vec<Option<Place>>,
    end: Option<End>,
}

/// Where a reader is; `None` in its stead once it is gone.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// The number of the next record.
    next: u64,
    /// How much may wait for it, in bytes.
    may_wait: usize,
}

#[derive(Debug, Clone)]
enum End {
    Complete,
    Failed(Arc<Error>),
}

/// A place in the log that moves forward.
#[derive(Debug)]
pub(crate) struct LogReader {
    log: Arc<StreamLog>,
    index: usize,
    appended: watch::Receiver<u64>,
}

impl StreamLog {
    /// An empty log that keeps about this much and whose first record will be `first`.
    pub(crate) fn new(limit_bytes: usize, first: u64) -> Arc<Self> {
        let (appended, _) = watch::channel(0);
        let state = Mutex::new(State { first, ..State::default() });
        Arc::new(Self { state, appended, taken: Notify::new(), limit_bytes })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // The state is whole after every statement that changes it, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader from `seq` on, or from where the log is now if that is later.
    ///
    /// Records before its place are kept for nobody's sake: readers are made before the first append.
    pub(crate) fn reader(self: &Arc<Self>, seq: u64) -> LogReader {
        let mut state = self.state();
        let next = seq.max(state.first + state.records.len() as u64);
        state.readers.push(Some(Place { next, may_wait: self.limit_bytes }));
        LogReader { log: Arc::clone(self), index: state.readers.len() - 1, appended: self.appended.subscribe() }
    }

    /// Appends a record once there is room.
    pub(crate) async fn append(&self, record: Record) {
        loop {
            let room = self.taken.notified();
            if !self.is_full() {
                break;
            }
            room.await;
        }
        {
            let mut state = self.state();
            state.bytes += record.bytes();
            state.records.push_back(Arc::new(record));
            state.drop_taken();
        }
        self.appended.send_modify(|count| *count += 1);
    }

    fn is_full(&self) -> bool {
        let state = self.state();
        let limit = state.readers.iter().flatten().map(|place| place.may_wait).min();
        state.bytes > limit.unwrap_or(self.limit_bytes)
    }

    /// Says that nothing follows.
    pub(crate) fn complete(&self) {
        self.finish(End::Complete);
    }

    /// Says that the input failed.
    pub(crate) fn fail(&self, error: Error) {
        self.finish(End::Failed(Arc::new(error)));
    }

    fn finish(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.appended.send_modify(|count| *count += 1);
    }
}

impl State {
    /// The number of the next record that a reader takes.
    fn place_of(&self, reader: usize) -> Option<u64> {
        self.readers.get(reader).copied().flatten().map(|place| place.next)
    }

    fn drop_taken(&mut self) {
        let end = self.first + self.records.len() as u64;
        let needed = self.readers.iter().flatten().map(|place| place.next).min().unwrap_or(end).min(end);
        while self.first < needed {
            if let Some(record) = self.records.pop_front() {
                self.bytes = self.bytes.saturating_sub(record.bytes());
            }
            self.first += 1;
        }
    }
}

impl LogReader {
    /// Takes the next records, in order, as long as they have fewer than `max_rows` rows together (at least one) and
    /// come before the record `end`.
    pub(crate) fn take(&mut self, max_rows: usize, end: u64) -> Vec<Arc<Record>> {
        let mut state = self.log.state();
        let Some(next) = state.place_of(self.index) else { return Vec::new() };
        let skip = usize::try_from(next.saturating_sub(state.first)).unwrap_or(usize::MAX);
        let mut rows = 0;
        let mut taken = Vec::new();
        for record in state.records.iter().skip(skip).take_while(|record| record.seq < end) {
            rows += record.row_count();
            if rows > max_rows && !taken.is_empty() {
                break;
            }
            taken.push(Arc::clone(record));
        }
        if let Some(place) = state.readers.get_mut(self.index).and_then(Option::as_mut) {
            place.next = next + taken.len() as u64;
        }
        state.drop_taken();
        drop(state);
        self.log.taken.notify_one();
        taken
    }

    /// Says how much may wait for it, in bytes; the reader for which the least may decides.
    pub(crate) fn let_wait(&self, bytes: usize) {
        if let Some(place) = self.log.state().readers.get_mut(self.index).and_then(Option::as_mut) {
            place.may_wait = bytes.min(self.log.limit_bytes);
        }
        self.log.taken.notify_one();
    }

    /// The rows that could be taken now.
    pub(crate) fn waiting_rows(&self) -> usize {
        let state = self.log.state();
        let Some(next) = state.place_of(self.index) else { return 0 };
        let skip = usize::try_from(next.saturating_sub(state.first)).unwrap_or(usize::MAX);
        state.records.iter().skip(skip).map(|record| record.row_count()).sum()
    }

    /// The number of the next record it takes.
    pub(crate) fn place(&self) -> u64 {
        self.log.state().place_of(self.index).unwrap_or(u64::MAX)
    }

    /// Whether a record can be taken now.
    pub(crate) fn has_record(&self) -> bool {
        let state = self.log.state();
        let end = state.first + state.records.len() as u64;
        state.place_of(self.index).is_some_and(|next| next < end)
    }

    /// Whether everything was taken and nothing follows.
    ///
    /// # Errors
    /// The failure of the input, once all that came before it was taken.
    pub(crate) fn is_at_end(&self) -> Result<bool> {
        if self.has_record() {
            return Ok(false);
        }
        match &self.log.state().end {
            None => Ok(false),
            Some(End::Complete) => Ok(true),
            Some(End::Failed(error)) => Err(Error::Shared(Arc::clone(error))),
        }
    }

    /// Whether nothing more will be appended.
    pub(crate) fn is_closed(&self) -> bool {
        self.log.state().end.is_some()
    }

    /// Whether what is kept has reached its limit, so that waiting for more is in vain.
    pub(crate) fn is_full(&self) -> bool {
        self.log.is_full()
    }

    /// Waits for a change since the last call: a record, the end, a failure.
    pub(crate) async fn changed(&mut self) {
        if self.appended.changed().await.is_err() {
            // The log lives as long as this reader holds it; its sender cannot be gone.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for LogReader {
    fn drop(&mut self) {
        let mut state = self.log.state();
        if let Some(place) = state.readers.get_mut(self.index) {
            *place = None;
        }
        state.drop_taken();
        drop(state);
        self.log.taken.notify_one();
    }
}
