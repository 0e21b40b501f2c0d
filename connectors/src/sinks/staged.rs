//! What waits in memory for the commit of its epoch.

use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::batch::Epoch;

/// The rows, or what else there is, of the epoch that was staged last.
#[derive(Debug)]
pub(super) struct Staged<T = RecordBatch>(Option<(Epoch, Vec<T>)>);

impl<T> Default for Staged<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Clone> Staged<T> {
    /// Adds rows; those of another epoch, which was never committed, go.
    pub(super) fn add(&mut self, epoch: Epoch, rows: &[T]) {
        match &mut self.0 {
            Some((staged, batches)) if *staged == epoch => batches.extend_from_slice(rows),
            other => *other = Some((epoch, rows.to_vec())),
        }
    }

    /// Takes the rows of an epoch; none if it was not staged.
    pub(super) fn take(&mut self, epoch: Epoch) -> Option<Vec<T>> {
        self.0.take_if(|(staged, _)| *staged == epoch).map(|(_, rows)| rows)
    }
}
