//! The sink that counts rows and drops them, for measurements.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::Result;
use millstream_engine::batch::Epoch;
use millstream_engine::sink::{Guarantee, Sink, SinkWriter};

/// Counts the rows of committed epochs and keeps nothing of them.
#[derive(Debug, Default)]
pub struct BlackholeSink {
    staged: Option<(Epoch, u64)>,
    committed: Arc<AtomicU64>,
}

impl BlackholeSink {
    /// A sink that has counted nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The number of rows committed, which goes on counting while the sink runs elsewhere.
    pub fn rows(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.committed)
    }
}

#[async_trait]
impl Sink for BlackholeSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn begin(&mut self, _: &SinkWriter) -> Result<Option<Epoch>> {
        Ok(None)
    }

    async fn stage(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<()> {
        let earlier = self.staged.filter(|(staged, _)| *staged == epoch).map_or(0, |(_, rows)| rows);
        let rows: u64 = rows.iter().map(|batch| batch.num_rows() as u64).sum();
        self.staged = Some((epoch, earlier + rows));
        Ok(())
    }

    async fn commit(&mut self, epoch: Epoch) -> Result<()> {
        if let Some((_, rows)) = self.staged.take_if(|(staged, _)| *staged == epoch) {
            self.committed.fetch_add(rows, Ordering::Relaxed);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::tests::numbers;
    use super::*;

    #[tokio::test]
    async fn only_committed_rows_are_counted_and_once() {
        let mut sink = BlackholeSink::new();
        let rows = sink.rows();
        sink.stage(Epoch(3), &[numbers(&[1, 2]), numbers(&[3])]).await.unwrap();
        sink.stage(Epoch(3), &[numbers(&[4])]).await.unwrap();
        assert_eq!(rows.load(Ordering::Relaxed), 0);
        sink.commit(Epoch(3)).await.unwrap();
        sink.commit(Epoch(3)).await.unwrap();
        assert_eq!(rows.load(Ordering::Relaxed), 4);
        sink.stage(Epoch(4), &[numbers(&[4])]).await.unwrap();
        sink.stage(Epoch(5), &[numbers(&[5])]).await.unwrap();
        sink.commit(Epoch(5)).await.unwrap();
        assert_eq!(rows.load(Ordering::Relaxed), 5);
    }
}
