//! Where results go: a destination that takes an epoch's rows whole or not at all.

use std::fmt::Debug;

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;

use crate::batch::Epoch;
use crate::error::Result;

/// A destination with two steps an epoch.
///
/// # Contract
/// - Epochs come in order; nothing of an epoch is visible before `commit`.
/// - `commit` of an epoch that is already there does nothing.
/// - An epoch without rows is not staged.
#[async_trait]
pub trait Sink: Debug + Send {
    /// Takes the rows of an epoch; the batches share the schema the sink was opened with.
    ///
    /// # Errors
    /// Fails if the destination does not take them; nothing of the epoch is visible then.
    async fn stage(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<()>;

    /// Makes the staged rows of the epoch visible.
    ///
    /// # Errors
    /// Fails if the destination cannot make them visible.
    async fn commit(&mut self, epoch: Epoch) -> Result<()>;

    /// Says that no epoch follows: what is buffered is written out, a footer closed.
    ///
    /// # Errors
    /// Fails if what is buffered cannot be written.
    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}
