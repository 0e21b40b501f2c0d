//! Where results go: a destination that takes an epoch's rows whole or not at all.

use std::fmt::Debug;

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;

use crate::batch::Epoch;
use crate::error::Result;
use crate::time::EventTime;

/// What a crash may do to a sink's rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guarantee {
    /// Every epoch is there once: the sink keeps a ledger of epochs together with their rows.
    ExactlyOnce,
    /// The last epoch before a crash may be there twice.
    AtLeastOnce,
}

/// Who writes: a query, and the reign of its driver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SinkWriter {
    /// The query's unique id; a query that is made anew under an old name has another one.
    pub query: String,
    /// The term; it grows with every start.
    pub term: u64,
}

/// A destination with two steps an epoch.
///
/// # Contract
/// - `begin` comes first and once; then epochs come in order. Nothing of an epoch is visible before `commit`.
/// - `commit` of an epoch makes its rows visible and enters it in the ledger in one atomic step; of an epoch that is
///   already in the ledger it does nothing.
/// - An epoch without rows is not staged; numbers may be left out for that reason.
/// - Whatever was staged and not committed before `begin` is gone with it.
#[async_trait]
pub trait Sink: Debug + Send {
    /// What a crash may do to its rows.
    fn guarantee(&self) -> Guarantee;

    /// Begins the writer's reign: writers of older terms are refused from now on.
    ///
    /// Gives the last epoch of the query that the ledger holds; `None` if there is none, or no ledger.
    ///
    /// # Errors
    /// Fails if the destination cannot be reached, holds the results of another query that would be mixed up with
    /// these, or has been begun with a greater term.
    async fn begin(&mut self, writer: &SinkWriter) -> Result<Option<Epoch>>;

    /// Takes the rows of an epoch; the batches share the schema the sink was opened with. May be called several
    /// times for an epoch.
    ///
    /// # Errors
    /// Fails if the destination does not take them; nothing of the epoch is visible then.
    async fn stage(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<()>;

    /// Takes rows of an epoch that are results of one instant, which a query with windows says of all its rows.
    ///
    /// # Errors
    /// Fails as [`Sink::stage`] does.
    async fn stage_instant(&mut self, epoch: Epoch, instant: EventTime, rows: &[RecordBatch]) -> Result<()> {
        let _ = instant;
        self.stage(epoch, rows).await
    }

    /// Makes the staged rows of the epoch visible.
    ///
    /// # Errors
    /// Fails if the destination cannot make them visible.
    async fn commit(&mut self, epoch: Epoch) -> Result<()>;

    /// Says that what was committed is on record, so that others may see it, and that the results of every instant up
    /// to here are among it.
    ///
    /// # Errors
    /// Fails if the rows cannot be shown.
    fn publish(&mut self, instant: EventTime) -> Result<()> {
        let _ = instant;
        Ok(())
    }

    /// Says that no epoch follows: what is buffered is written out, a footer closed.
    ///
    /// # Errors
    /// Fails if what is buffered cannot be written.
    async fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}
