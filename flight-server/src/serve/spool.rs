//! The rows of an endless SELECT between its query and the client that takes them.
//!
//! ```text
//!   query ── an epoch at a time ──► [ sent │ to be sent ] ──► DoGet, one at a time
//!                                    KEPT_BYTES at the most
//! ```
//!
//! What was sent is kept while there is room, as a client that loses its connection has not got all of it: it says
//! `SUBSCRIBE QUERY 'id' AS OF EPOCH n` and goes on behind the last epoch that it has whole, without gap or repetition.
//! Where the client is slow the query waits, leaves out rows or ends, as `slow_reader` says; other queries go on.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::batch::Epoch;
use millstream_engine::sink::{Guarantee, Sink, SinkWriter};
use millstream_engine::size::used_bytes;
use tokio::sync::watch;
use tonic::Status;

/// The rows of one query that are kept, in bytes of memory: what is on its way to a client, and as much again.
const KEPT_BYTES: usize = 16 << 20;
/// What a batch takes besides its rows.
const BATCH_BYTES: usize = 512;

/// What is done about a client that takes rows slowly, when there is no more room for those it has not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum SlowReader {
    /// The query waits.
    #[default]
    Block,
    /// The oldest rows are left out, and the client is told how many.
    Latest,
    /// The query ends.
    Disconnect,
}

impl SlowReader {
    /// By the word of the setting.
    pub(super) fn of(word: &str) -> Self {
        match word.to_lowercase().as_str() {
            "latest" => Self::Latest,
            "disconnect" => Self::Disconnect,
            _ => Self::Block,
        }
    }
}

/// The rows of a query.
#[derive(Debug)]
pub(super) struct Spool {
    kept: Mutex<Kept>,
    /// Changes whenever rows come or go.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Kept {
    /// By epoch.
    entries: VecDeque<Entry>,
    /// How many of them were sent to the reader that there is.
    sent: usize,
    bytes: usize,
    /// The newest epoch that was sent and is no longer there.
    gone: Option<Epoch>,
    /// The number of the reader that came last; those before it end.
    reader: u64,
    /// Since when that one is gone.
    left: Option<Instant>,
    /// How the query has ended, once it has.
    end: Option<Result<(), Status>>,
}

/// The rows of an epoch.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) epoch: Epoch,
    pub(super) rows: Vec<RecordBatch>,
    /// How many rows were left out before it.
    pub(super) left_out: u64,
    bytes: usize,
}

/// What a reader finds.
#[derive(Debug)]
pub(super) enum Found {
    Rows(Entry),
    /// Nothing yet.
    Nothing,
    /// No more will come.
    End(Result<(), Status>),
}

impl Spool {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { kept: Mutex::default(), changed: watch::channel(()).0 })
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Every change of it is whole before the lock is let go.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What changes whenever rows come or go.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Takes the place of the reader before; the number of the new one.
    ///
    /// # Errors
    /// Rows behind the epoch are no longer there.
    pub(super) fn attach(&self, after: Option<Epoch>) -> Result<u64, Status> {
        let mut kept = self.kept();
        kept.check_reaches(after)?;
        // What is behind that has to be sent again, and is kept until it is.
        kept.sent = kept.first_after(after);
        (kept.reader, kept.left) = (kept.reader + 1, None);
        let reader = kept.reader;
        drop(kept);
        self.changed.send_replace(());
        Ok(reader)
    }

    /// Notes that a reader is gone; whether it was the one that came last.
    pub(super) fn leave(&self, reader: u64) -> bool {
        let mut kept = self.kept();
        let is_last = kept.reader == reader;
        if is_last {
            kept.left = Some(Instant::now());
        }
        is_last
    }

    /// Since when no reader is there.
    pub(super) fn left(&self) -> Option<Instant> {
        self.kept().left
    }

    /// The next rows of a reader, behind an epoch.
    pub(super) fn next(&self, reader: u64, after: Option<Epoch>) -> Found {
        let mut kept = self.kept();
        if kept.reader != reader {
            return Found::End(Err(Status::aborted("another connection goes on with the rows of this query")));
        }
        if let Err(status) = kept.check_reaches(after) {
            return Found::End(Err(status));
        }
        let index = kept.first_after(after);
        let Some(entry) = kept.entries.get(index).cloned() else {
            return kept.end.clone().map_or(Found::Nothing, Found::End);
        };
        kept.sent = kept.sent.max(index + 1);
        drop(kept);
        self.changed.send_replace(());
        Found::Rows(entry)
    }

    /// Says that no more rows will come.
    pub(super) fn end(&self, ended: Result<(), Status>) {
        self.kept().end.get_or_insert(ended);
        self.changed.send_replace(());
    }

    /// Takes the rows of an epoch in; whether there was room, or was made.
    fn offer(&self, entry: &Entry, slow_reader: SlowReader) -> bool {
        let mut kept = self.kept();
        kept.forget_sent(entry.bytes);
        let is_full = kept.bytes + entry.bytes > KEPT_BYTES && kept.entries.len() > kept.sent;
        let mut left_out = 0;
        match slow_reader {
            _ if kept.end.is_some() => return true,
            _ if !is_full => {}
            SlowReader::Block => return false,
            SlowReader::Latest => left_out = kept.leave_out(entry.bytes),
            SlowReader::Disconnect => {
                let message =
                    format!("the client is more than {KEPT_BYTES} bytes behind, and slow_reader = disconnect");
                kept.end = Some(Err(Status::resource_exhausted(message)));
                drop(kept);
                self.changed.send_replace(());
                return true;
            }
        }
        kept.bytes += entry.bytes;
        kept.entries.push_back(Entry { left_out, ..entry.clone() });
        drop(kept);
        self.changed.send_replace(());
        true
    }

    fn has_ended(&self) -> bool {
        self.kept().end.is_some()
    }
}

impl Kept {
    /// Makes room by what was sent.
    fn forget_sent(&mut self, wanted: usize) {
        while self.sent > 0 && self.bytes + wanted > KEPT_BYTES {
            let Some(entry) = self.entries.pop_front() else { return };
            self.sent -= 1;
            self.bytes -= entry.bytes;
            self.gone = Some(entry.epoch);
        }
    }

    /// Makes room by what was not sent, the oldest first. The entry behind them tells how many rows that were: one that
    /// is there already, or else the one that is to come, for which the number is given.
    fn leave_out(&mut self, wanted: usize) -> u64 {
        let mut left_out = 0;
        while self.bytes + wanted > KEPT_BYTES
            && let Some(entry) = self.entries.pop_front()
        {
            self.bytes -= entry.bytes;
            left_out += entry.left_out + entry.rows.iter().map(|rows| rows.num_rows() as u64).sum::<u64>();
        }
        match self.entries.front_mut() {
            Some(next) => {
                next.left_out += left_out;
                0
            }
            None => left_out,
        }
    }

    /// The index of the first entry behind an epoch.
    fn first_after(&self, after: Option<Epoch>) -> usize {
        self.entries.partition_point(|entry| after.is_some_and(|after| entry.epoch <= after))
    }

    fn check_reaches(&self, after: Option<Epoch>) -> Result<(), Status> {
        match self.gone.filter(|gone| after.is_none_or(|after| *gone > after)) {
            Some(gone) => {
                let message = format!("the rows up to epoch {} are no longer kept: run the query again", gone.0);
                Err(Status::failed_precondition(message))
            }
            None => Ok(()),
        }
    }
}

/// Puts the rows of a query into its spool.
#[derive(Debug)]
pub(super) struct SpoolSink {
    spool: Arc<Spool>,
    staged: Vec<RecordBatch>,
    slow_reader: SlowReader,
    stop: watch::Sender<bool>,
}

impl SpoolSink {
    /// A sink into `spool`; `stop` stops the query.
    pub(super) const fn new(spool: Arc<Spool>, slow_reader: SlowReader, stop: watch::Sender<bool>) -> Self {
        Self { spool, staged: Vec::new(), slow_reader, stop }
    }
}

#[async_trait]
impl Sink for SpoolSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn begin(&mut self, _: &SinkWriter) -> millstream_engine::Result<Option<Epoch>> {
        // An epoch that did not come to its end is run again.
        self.staged.clear();
        Ok(None)
    }

    async fn stage(&mut self, _: Epoch, rows: &[RecordBatch]) -> millstream_engine::Result<()> {
        self.staged.extend(rows.iter().filter(|batch| batch.num_rows() > 0).cloned());
        Ok(())
    }

    async fn commit(&mut self, epoch: Epoch) -> millstream_engine::Result<()> {
        let rows = std::mem::take(&mut self.staged);
        if rows.is_empty() {
            return Ok(());
        }
        let bytes = rows.iter().map(used_bytes).sum::<millstream_engine::Result<usize>>()?;
        let bytes = bytes + rows.len() * BATCH_BYTES;
        let entry = Entry { epoch, rows, left_out: 0, bytes };
        let (mut changes, mut stopped) = (self.spool.changes(), self.stop.subscribe());
        loop {
            // Before the look, so that no change comes unseen.
            changes.borrow_and_update();
            if self.spool.offer(&entry, self.slow_reader) {
                break;
            }
            tokio::select! {
                // The spool is held here: it changes until it is not.
                _ = changes.changed() => {}
                _ = stopped.wait_for(|stop| *stop) => return Ok(()),
            }
        }
        if self.spool.has_ended() {
            self.stop.send_replace(true);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int64Array};

    use super::*;

    fn rows(count: i64) -> RecordBatch {
        let values: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
        RecordBatch::try_from_iter([("n", values)]).unwrap()
    }

    /// A fifth of what is kept.
    fn entry(epoch: u64) -> Entry {
        Entry { epoch: Epoch(epoch), rows: vec![rows(3)], left_out: 0, bytes: KEPT_BYTES / 5 }
    }

    fn taken(spool: &Spool, reader: u64, after: Option<u64>) -> Option<(u64, u64)> {
        match spool.next(reader, after.map(Epoch)) {
            Found::Rows(entry) => Some((entry.epoch.0, entry.left_out)),
            Found::Nothing => None,
            Found::End(ended) => panic!("{ended:?}"),
        }
    }

    #[test]
    fn a_reader_that_comes_again_goes_on_behind_what_it_has() {
        let spool = Spool::new();
        (1..=3).for_each(|epoch| assert!(spool.offer(&entry(epoch), SlowReader::Block)));
        let first = spool.attach(None).unwrap();
        assert_eq!(taken(&spool, first, None), Some((1, 0)));
        assert_eq!(taken(&spool, first, Some(1)), Some((2, 0)));
        // The second epoch did not arrive.
        let second = spool.attach(Some(Epoch(1))).unwrap();
        assert!(matches!(spool.next(first, Some(Epoch(2))), Found::End(Err(_))));
        assert_eq!(taken(&spool, second, Some(1)), Some((2, 0)));
        assert_eq!(taken(&spool, second, Some(2)), Some((3, 0)));
        assert_eq!(taken(&spool, second, Some(3)), None);
        spool.end(Ok(()));
        assert!(matches!(spool.next(second, Some(Epoch(3))), Found::End(Ok(()))));
    }

    #[test]
    fn what_is_no_longer_kept_is_a_gap_that_is_told() {
        let spool = Spool::new();
        let reader = spool.attach(None).unwrap();
        for epoch in 1..=9 {
            assert!(spool.offer(&entry(epoch), SlowReader::Block));
            assert_eq!(taken(&spool, reader, Some(epoch - 1)), Some((epoch, 0)));
        }
        assert!(spool.attach(None).is_err());
        assert!(spool.attach(Some(Epoch(3))).is_err());
        let reader = spool.attach(Some(Epoch(4))).unwrap();
        assert_eq!(taken(&spool, reader, Some(4)), Some((5, 0)));
    }

    #[test]
    fn what_a_reader_comes_back_for_is_kept_until_it_has_it() {
        let spool = Spool::new();
        let first = spool.attach(None).unwrap();
        for epoch in 1..=5 {
            assert!(spool.offer(&entry(epoch), SlowReader::Block));
            assert_eq!(taken(&spool, first, Some(epoch - 1)), Some((epoch, 0)));
        }
        let second = spool.attach(Some(Epoch(2))).unwrap();
        // There is room for two more: that of what it has.
        assert!(spool.offer(&entry(6), SlowReader::Block) && spool.offer(&entry(7), SlowReader::Block));
        assert!(!spool.offer(&entry(8), SlowReader::Block));
        for epoch in 3..=7 {
            assert_eq!(taken(&spool, second, Some(epoch - 1)), Some((epoch, 0)));
        }
        assert!(spool.offer(&entry(8), SlowReader::Block));
    }

    #[test]
    fn rows_that_were_left_out_are_told_again_to_a_reader_that_comes_back() {
        let spool = Spool::new();
        (1..=7).for_each(|epoch| assert!(spool.offer(&entry(epoch), SlowReader::Latest)));
        let first = spool.attach(None).unwrap();
        assert_eq!(taken(&spool, first, None), Some((3, 6)));
        let second = spool.attach(None).unwrap();
        assert_eq!(taken(&spool, second, None), Some((3, 6)));
    }

    #[test]
    fn a_slow_reader_is_waited_for_or_misses_rows_or_is_sent_away() {
        let full = || {
            let spool = Spool::new();
            (1..=5).for_each(|epoch| assert!(spool.offer(&entry(epoch), SlowReader::Block)));
            let reader = spool.attach(None).unwrap();
            (spool, reader)
        };
        let (spool, reader) = full();
        assert!(!spool.offer(&entry(6), SlowReader::Block));
        assert_eq!(taken(&spool, reader, None), Some((1, 0)));
        assert!(spool.offer(&entry(6), SlowReader::Block));

        let (spool, reader) = full();
        assert!(spool.offer(&entry(6), SlowReader::Latest) && spool.offer(&entry(7), SlowReader::Latest));
        assert_eq!(taken(&spool, reader, None), Some((3, 6)));
        assert_eq!(taken(&spool, reader, Some(3)), Some((4, 0)));

        let (spool, reader) = full();
        assert!(spool.offer(&entry(6), SlowReader::Disconnect) && spool.has_ended());
        assert_eq!(taken(&spool, reader, Some(4)), Some((5, 0)));
        assert!(matches!(spool.next(reader, Some(Epoch(5))), Found::End(Err(_))));
    }
}
