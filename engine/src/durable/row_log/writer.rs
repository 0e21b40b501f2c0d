//! The thread that writes a row log: appends that wait go to the disk together.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use tokio::sync::{mpsc, oneshot};

use super::super::files::AppendFile;
use super::super::framing::{FOOT_BYTES, head};
use super::super::journal::{cut_back, failed, sync};
use super::segment::{AppendBytes, MAGIC, Recovered, note, path, write_start};
use super::{Appended, LoggedRows, Producer, Sequences, Shared};
use crate::error::{Error, Result};

/// Appends that share a sync have no more bytes than this.
const GROUP_BYTES: usize = 16 << 20;

/// Rows on their way into the log.
#[derive(Debug)]
pub(super) struct Append {
    pub(super) bytes: AppendBytes,
    pub(super) rows: RecordBatch,
    pub(super) rows_bytes: usize,
    pub(super) by: Option<Producer>,
    pub(super) done: oneshot::Sender<Result<Appended>>,
}

#[derive(Debug)]
pub(super) struct Writer {
    shared: Arc<Shared>,
    open: Option<Box<dyn AppendFile>>,
    /// The first row of the open segment, and its bytes.
    segment: (u64, u64),
    sequences: Sequences,
    end: u64,
    segment_bytes: u64,
    /// Whether nobody knows how the open segment ends.
    is_broken: bool,
}

impl Writer {
    pub(super) fn new(shared: Arc<Shared>, recovered: Recovered, segment_bytes: u64) -> Self {
        let Recovered { last, end, sequences } = recovered;
        // A segment of which nothing was whole, or none: the first append begins it.
        let segment = last.unwrap_or((end, 0));
        Self { shared, open: None, segment, sequences, end, segment_bytes, is_broken: false }
    }

    /// Writes until nobody can append any more.
    pub(super) fn run(mut self, mut queue: mpsc::Receiver<Append>) {
        while let Some(first) = queue.blocking_recv() {
            let mut bytes = first.bytes.len();
            let mut group = vec![first];
            while bytes < GROUP_BYTES
                && let Ok(next) = queue.try_recv()
            {
                bytes += next.bytes.len();
                group.push(next);
            }
            self.write(group);
        }
    }

    fn write(&mut self, group: Vec<Append>) {
        let fresh = self.fresh(&group);
        let bytes = group.iter().zip(&fresh).filter(|(_, fresh)| **fresh);
        let bytes: Vec<&[u8]> = bytes.flat_map(|(append, _)| append.bytes.parts()).collect();
        match self.write_bytes(&bytes) {
            Ok(()) => self.publish(group, &fresh),
            Err(error) => {
                let error = Arc::new(error);
                for Append { done, .. } in group {
                    // Whoever waits no longer does not learn it.
                    let _ = done.send(Err(Error::Shared(Arc::clone(&error))));
                }
            }
        }
    }

    /// Which appends of a group were not sent before, in an earlier group or in this one.
    fn fresh(&self, group: &[Append]) -> Vec<bool> {
        // Only what this group brings: all that is known may be much.
        let mut newest: BTreeMap<&str, u64> = BTreeMap::new();
        let mut fresh = Vec::with_capacity(group.len());
        for append in group {
            let Some(by) = &append.by else {
                fresh.push(true);
                continue;
            };
            let before = self.sequences.get(&by.id).map(|(sequence, _)| *sequence);
            let is_fresh = newest.get(by.id.as_str()).copied().or(before).is_none_or(|known| by.sequence > known);
            if is_fresh {
                newest.insert(&by.id, by.sequence);
            }
            fresh.push(is_fresh);
        }
        fresh
    }

    fn publish(&mut self, group: Vec<Append>, fresh: &[bool]) {
        let mut answers = Vec::with_capacity(group.len());
        let mut tail = self.shared.tail();
        for (Append { rows, rows_bytes, by, done, .. }, is_fresh) in group.into_iter().zip(fresh) {
            if *is_fresh {
                let start = self.end;
                self.end += rows.num_rows() as u64;
                if let Some(by) = &by {
                    note(&mut self.sequences, by, self.end);
                }
                if rows.num_rows() > 0 {
                    tail.push(LoggedRows { start, rows }, rows_bytes);
                }
            }
            answers.push((done, if *is_fresh { Appended::Logged } else { Appended::Repeated }));
        }
        drop(tail);
        self.shared.end.send_replace(self.end);
        for (done, appended) in answers {
            let _ = done.send(Ok(appended));
        }
    }

    /// Writes whole appends, given in parts, durable when this returns.
    fn write_bytes(&mut self, parts: &[&[u8]]) -> Result<()> {
        if parts.is_empty() {
            return Ok(());
        }
        if self.shared.is_closed() {
            return Err(Error::query("the stream was dropped", "declare it again"));
        }
        if self.is_broken {
            let context = format!("appending to {}", self.shared.files.describe(&self.shared.folder));
            return Err(Error::external(context, "a write failed before: start the process again"));
        }
        let (first, length) = self.segment;
        if length >= self.segment_bytes && self.end > first {
            self.segment = (self.end, 0);
            self.open = None;
        }
        // Each on its own, so that what a power cut tears is always the end.
        if self.segment.1 == 0 {
            self.append(&[MAGIC])?;
        }
        if self.segment.1 == MAGIC.len() as u64 {
            self.append(&[&write_start(&self.sequences)?])?;
        }
        let head = head(parts)?;
        self.append(&[&[head.as_slice()], parts, &[FOOT_BYTES]].concat())
    }

    /// Writes bytes behind the open segment, durable when this returns.
    fn append(&mut self, parts: &[&[u8]]) -> Result<()> {
        let (first, length) = self.segment;
        let path = path(&self.shared.folder, first);
        let place = self.shared.files.describe(&path);
        let file = match &mut self.open {
            Some(file) => file,
            closed => closed.insert(
                self.shared.files.append(&path).map_err(|error| failed(self.shared.files.as_ref(), &path, error))?,
            ),
        };
        if let Err(error) = file.append_parts(parts) {
            cut_back(file.as_mut(), length, &place).inspect_err(|_| self.is_broken = true)?;
            return Err(failed(self.shared.files.as_ref(), &path, error));
        }
        sync(file.as_mut(), &place).inspect_err(|_| self.is_broken = true)?;
        self.segment = (first, length + parts.iter().map(|part| part.len() as u64).sum::<u64>());
        Ok(())
    }
}
