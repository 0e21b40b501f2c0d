//! The program's end of a pushed stream.

use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::time::EventTime;

use super::live::LiveStreams;
use crate::error::Result;

/// Takes the rows of a stream that is declared with connector `push`; clones are the same stream.
#[derive(Debug, Clone)]
pub struct PushStream {
    pub(super) name: String,
    pub(super) streams: LiveStreams,
}

impl PushStream {
    /// The stream's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Pushes rows in; waits while a query on the stream is behind.
    ///
    /// The batch has the stream's columns by name, in any order, and perhaps others. When this returns the rows are on
    /// their way, not yet in a result.
    ///
    /// # Errors
    /// Fails if a column is missing, no query reads the stream, or it is closed.
    pub async fn push(&self, batch: &RecordBatch) -> Result<()> {
        Ok(self.streams.sender(&self.name)?.push(batch).await?)
    }

    /// Promises that no row pushed later has an earlier event time; windows up to there close, and rows that break the
    /// promise are late.
    ///
    /// # Errors
    /// Fails if no query reads the stream, or it is closed.
    pub async fn advance_watermark(&self, to: EventTime) -> Result<()> {
        Ok(self.streams.sender(&self.name)?.advance_watermark(to).await?)
    }

    /// Ends the stream once what was pushed is through: all windows close, and queries that read nothing else end.
    ///
    /// A query that is started later reads a new stream of this name.
    pub fn close(&self) {
        self.streams.close(&self.name);
    }
}
