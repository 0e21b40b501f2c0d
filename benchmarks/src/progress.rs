//! How far a query has come, as SHOW QUERIES tells.

use anyhow::ensure;
use datafusion::arrow::array::Array;
use datafusion::arrow::datatypes::{Float64Type, UInt64Type};
use datafusion::arrow::record_batch::RecordBatch;

use crate::answer::{numbers, texts};
use crate::client::{Client, ask};

/// How far a query has come.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Progress {
    /// Rows of the epochs that are committed.
    pub(crate) rows_read: u64,
    /// Epochs that are committed.
    pub(crate) epochs: u64,
    /// How long the last one took; none before the first.
    pub(crate) epoch_ms: Option<f64>,
}

impl Progress {
    /// That of the query with this name; none if it has ended, or never was.
    ///
    /// # Errors
    /// Fails if the query has failed.
    pub(crate) async fn of(client: &mut Client, query: &str) -> anyhow::Result<Option<Self>> {
        for batch in ask(client, "SHOW QUERIES").await? {
            if let Some(row) = texts(&batch, "query")?.iter().position(|name| name == Some(query)) {
                return Self::read(&batch, row).map(Some);
            }
        }
        Ok(None)
    }

    fn read(batch: &RecordBatch, row: usize) -> anyhow::Result<Self> {
        let (state, error) = (texts(batch, "state")?.value(row), texts(batch, "error")?.value(row));
        ensure!(state != "failed", "the query has failed: {error}");
        let epoch_ms = numbers::<Float64Type>(batch, "epoch_ms")?;
        Ok(Self {
            rows_read: numbers::<UInt64Type>(batch, "rows_read")?.value(row),
            epochs: numbers::<UInt64Type>(batch, "epochs")?.value(row),
            epoch_ms: epoch_ms.is_valid(row).then(|| epoch_ms.value(row)),
        })
    }
}
