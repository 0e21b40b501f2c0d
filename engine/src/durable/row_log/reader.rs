//! Reading a row log from any place on.

use std::sync::Arc;

use datafusion::common::runtime::SpawnedTask;
use tokio::sync::watch;

use super::segment::{Segment, firsts};
use super::{LoggedRows, Shared};
use crate::error::{Error, Result};

/// Reads the log from a place on, and waits for what comes.
#[derive(Debug)]
pub struct RowLogReader {
    shared: Arc<Shared>,
    /// The number of the next row.
    at: u64,
    end: watch::Receiver<u64>,
    /// What is read for want of the rows in memory.
    segment: Option<Segment>,
    /// The end of the log when that was loaded: what stands behind it may not have been acknowledged.
    loaded_to: u64,
}

impl RowLogReader {
    pub(super) fn new(shared: Arc<Shared>, at: u64) -> Self {
        let end = shared.end.subscribe();
        Self { shared, at, end, segment: None, loaded_to: 0 }
    }

    /// The number of the row that comes next.
    pub fn place(&self) -> u64 {
        self.at
    }

    /// Waits for the next rows. Cancel safe: a call that is dropped while it waits loses none.
    ///
    /// # Errors
    /// Fails if the log is damaged or shorter than its reader's place, and as the disk fails.
    pub async fn next(&mut self) -> Result<LoggedRows> {
        let at = self.at;
        // What was written but not acknowledged is not there yet.
        self.end.wait_for(|end| *end > at).await.map_err(|_| Error::internal("a row log has stopped"))?;
        let in_memory = self.shared.tail().from(at);
        let found = match in_memory {
            Some(found) => {
                self.segment = None;
                found
            }
            None => self.read_disk().await?,
        };
        self.at = found.end();
        Ok(found)
    }

    /// Goes on from another place.
    pub fn go_to(&mut self, at: u64) {
        if at < self.at {
            self.segment = None;
        }
        self.at = at;
    }

    async fn read_disk(&mut self) -> Result<LoggedRows> {
        if let Some(found) = self.read_segment()? {
            return Ok(found);
        }
        let (shared, at) = (Arc::clone(&self.shared), self.at);
        self.loaded_to = *self.end.borrow();
        let loading = SpawnedTask::spawn_blocking(move || {
            if at < shared.start() {
                let message = format!("row {at} of {} is no longer kept", shared.files.describe(&shared.folder));
                return Err(Error::state(message, "the retention of the stream has dropped it; begin a new query"));
            }
            let firsts = firsts(shared.files.as_ref(), &shared.folder)?;
            let holding = firsts.into_iter().rev().find(|first| *first <= at);
            let first = holding.ok_or_else(|| {
                let folder = shared.files.describe(&shared.folder);
                Error::state(format!("{folder} does not hold row {at}"), "restore the folder from a copy")
            })?;
            Segment::load(shared.files.as_ref(), &shared.folder, first)
        });
        let loaded = loading.join().await;
        self.segment = Some(loaded.map_err(|error| Error::internal(format!("reading a row log stopped: {error}")))??);
        match (self.read_segment()?, &self.segment) {
            (Some(found), _) => Ok(found),
            (None, Some(segment)) => Err(segment.damaged()),
            (None, None) => Err(Error::internal("a segment was lost")),
        }
    }

    /// The rows from its place on in the segment at hand.
    fn read_segment(&mut self) -> Result<Option<LoggedRows>> {
        let Some(segment) = &mut self.segment else { return Ok(None) };
        while let Some(body) = segment.next()? {
            if body.start >= self.loaded_to {
                return Ok(None);
            }
            if body.end() <= self.at {
                continue;
            }
            if let Some(rows) = body.rows()? {
                return Ok(LoggedRows { start: body.start, rows }.from(self.at));
            }
        }
        Ok(None)
    }
}
