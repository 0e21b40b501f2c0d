//! Following a materialized view.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use millstream_engine::batch::Epoch;
use millstream_engine::results::{Changes, MaterializedRows};
use tokio::sync::watch;

use crate::error::Result;

/// The rows of a materialized view as they come, each once.
///
/// It holds no rows: whoever takes them slowly holds nobody up, and is told when rows were missed.
#[derive(Debug)]
pub struct Subscription {
    rows: Arc<dyn MaterializedRows>,
    commits: watch::Receiver<Option<Epoch>>,
    after: Option<Epoch>,
}

impl Subscription {
    /// Follows rows from after an epoch on.
    pub(crate) fn new(rows: Arc<dyn MaterializedRows>, after: Option<u64>) -> Self {
        let commits = rows.commits();
        Self { rows, commits, after: after.map(Epoch) }
    }

    /// The columns of the view.
    pub fn schema(&self) -> SchemaRef {
        self.rows.schema()
    }

    /// Waits for the next rows, with the epoch to go on after another time; none once the view's query has ended.
    /// Cancel safe.
    ///
    /// # Errors
    /// Fails if rows were missed that are no longer kept.
    pub async fn next(&mut self) -> Option<Result<Changes>> {
        loop {
            // Before the look at what there is, so that nothing comes unseen in between.
            self.commits.borrow_and_update();
            match self.rows.since(self.after) {
                Ok(Some(changes)) => {
                    self.after = Some(changes.epoch);
                    return Some(Ok(changes));
                }
                Ok(None) => self.commits.changed().await.ok()?,
                Err(error) => return Some(Err(error.into())),
            }
        }
    }
}
