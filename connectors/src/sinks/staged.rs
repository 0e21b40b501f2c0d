//! Rows of an epoch that wait in memory for its commit.

use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::batch::Epoch;

/// The rows of the epoch that was staged last.
#[derive(Debug, Default)]
pub(super) struct Staged(Option<(Epoch, Vec<RecordBatch>)>);

impl Staged {
    /// Adds rows; those of another epoch, which was never committed, go.
    pub(super) fn add(&mut self, epoch: Epoch, rows: &[RecordBatch]) {
        match &mut self.0 {
            Some((staged, batches)) if *staged == epoch => batches.extend_from_slice(rows),
            other => *other = Some((epoch, rows.to_vec())),
        }
    }

    /// Takes the rows of an epoch; none if it was not staged.
    pub(super) fn take(&mut self, epoch: Epoch) -> Option<Vec<RecordBatch>> {
        self.0.take_if(|(staged, _)| *staged == epoch).map(|(_, rows)| rows)
    }
}
