//! Queries that run: what a program holds of them, and their rows.

use std::pin::Pin;
use std::task::{Context, Poll};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use futures::{FutureExt, Stream, StreamExt};
use millstream_engine::batch::Epoch;
use millstream_engine::query::QueryProgress;
use millstream_engine::sink::{Guarantee, Sink, SinkWriter};
use millstream_engine::{Error as EngineError, Summary};
use tokio::sync::{mpsc, oneshot, watch};

use super::Engine;
use crate::error::{Error, Result};

/// How many batches wait for whoever takes them.
const WAITING_BATCHES: usize = 4;

/// A query that runs, as the program holds it; it runs on if this is dropped.
#[derive(Debug)]
pub struct RunningQuery {
    pub(super) name: String,
    pub(super) stop: watch::Sender<bool>,
    pub(super) progress: watch::Receiver<QueryProgress>,
    pub(super) ended: oneshot::Receiver<Result<Summary, EngineError>>,
    /// The engine ends with all of its queries.
    pub(super) _engine: Engine,
}

impl RunningQuery {
    /// Its name: that of its sink, or its number.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it has done so far.
    pub fn progress(&self) -> QueryProgress {
        self.progress.borrow().clone()
    }

    /// What it has done, as it does it; changes after every epoch.
    pub fn watch(&self) -> watch::Receiver<QueryProgress> {
        self.progress.clone()
    }

    /// Whether it has ended, by itself or by a failure.
    pub fn has_ended(&self) -> bool {
        self.ended.is_terminated() || !self.ended.is_empty()
    }

    /// What stops it when it is dropped.
    pub(crate) fn stopping(&self) -> Stopping {
        Stopping(self.stop.clone())
    }

    /// Waits until its streams are at their ends.
    ///
    /// # Errors
    /// Fails as a stream, a plan or the sink does.
    pub async fn wait(mut self) -> Result<Summary> {
        self.end().await
    }

    /// Stops it after the epoch in hand, and waits for that.
    ///
    /// # Errors
    /// Fails as a stream, a plan or the sink does.
    pub async fn stop(mut self) -> Result<Summary> {
        self.stop.send_replace(true);
        self.end().await
    }

    async fn end(&mut self) -> Result<Summary> {
        flattened((&mut self.ended).await)
    }
}

/// Stops a query when it is dropped.
#[derive(Debug)]
pub(crate) struct Stopping(watch::Sender<bool>);

impl Drop for Stopping {
    fn drop(&mut self) {
        self.0.send_replace(true);
    }
}

fn flattened(ended: Result<Result<Summary, EngineError>, oneshot::error::RecvError>) -> Result<Summary> {
    match ended {
        Ok(ended) => Ok(ended?),
        Err(_) => {
            let message = "a query ended without a word: it panicked, or its runtime was shut down";
            Err(EngineError::internal(message).into())
        }
    }
}

/// The rows of a query as they come: a stream of batches that ends with its input, or with an error.
///
/// Dropping it stops the query.
#[derive(Debug)]
pub struct Rows {
    schema: SchemaRef,
    batches: mpsc::Receiver<RecordBatch>,
    query: RunningQuery,
    /// How the query has ended, once it has.
    summary: Option<Summary>,
    is_over: bool,
}

impl Rows {
    pub(super) fn new(schema: SchemaRef, batches: mpsc::Receiver<RecordBatch>, query: RunningQuery) -> Self {
        Self { schema, batches, query, summary: None, is_over: false }
    }

    /// The columns.
    pub fn schema(&self) -> SchemaRef {
        SchemaRef::clone(&self.schema)
    }

    /// What the query has done so far.
    pub fn progress(&self) -> QueryProgress {
        self.query.progress()
    }

    /// What the query has done, as it does it; changes after every epoch.
    pub fn watch(&self) -> watch::Receiver<QueryProgress> {
        self.query.watch()
    }

    /// Waits for the next batch; none once the query has ended. Rows of one window or micro-batch come together,
    /// perhaps in several batches.
    ///
    /// # Errors
    /// Fails once, as a stream or the plan does; then the query has ended.
    pub async fn next(&mut self) -> Option<Result<RecordBatch>> {
        StreamExt::next(self).await
    }

    /// Takes all batches until the query has ended.
    ///
    /// # Errors
    /// Fails as a stream or the plan does.
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await {
            batches.push(batch?);
        }
        Ok(batches)
    }

    /// Gives every batch to `take`, one after the other, until the query has ended: what other systems call a
    /// for-each-batch sink. The query waits while `take` is at work.
    ///
    /// # Errors
    /// Fails as a stream or the plan does, and with the first error of `take`, which stops the query.
    pub async fn for_each_batch<F, E>(mut self, mut take: impl FnMut(RecordBatch) -> F) -> Result<Summary>
    where
        F: Future<Output = Result<(), E>>,
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        while let Some(batch) = self.next().await {
            let taken = take(batch?).await;
            taken.map_err(|error| EngineError::external("taking a batch of rows", error))?;
        }
        self.summary.take().ok_or_else(|| Error::Engine(EngineError::internal("a query ended without a summary")))
    }

    /// Stops the query after the epoch in hand, and waits for that; rows that were not taken are dropped.
    ///
    /// # Errors
    /// Fails as a stream or the plan does.
    pub async fn stop(mut self) -> Result<Summary> {
        if let Some(summary) = self.summary.take() {
            return Ok(summary);
        }
        if self.is_over {
            return Err(EngineError::internal("the query has failed, as its rows have said").into());
        }
        self.query.stop.send_replace(true);
        self.query.end().await
    }

    /// Stops the query after the epoch in hand without waiting; the rows that it has given can still be taken.
    pub fn ask_to_stop(&self) {
        self.query.stop.send_replace(true);
    }
}

impl Stream for Rows {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_over {
            return Poll::Ready(None);
        }
        if let Some(batch) = std::task::ready!(self.batches.poll_recv(context)) {
            return Poll::Ready(Some(Ok(batch)));
        }
        let ended = std::task::ready!(self.query.ended.poll_unpin(context));
        self.is_over = true;
        match flattened(ended) {
            Ok(summary) => {
                self.summary = Some(summary);
                Poll::Ready(None)
            }
            Err(error) => Poll::Ready(Some(Err(error))),
        }
    }
}

impl Drop for Rows {
    fn drop(&mut self) {
        self.query.stop.send_replace(true);
    }
}

/// Hands the rows of a query to its [`Rows`]; waits while nobody takes them, unless the query is to stop.
#[derive(Debug)]
pub(super) struct RowsSink {
    staged: Vec<RecordBatch>,
    batches: mpsc::Sender<RecordBatch>,
    stop: watch::Receiver<bool>,
}

impl RowsSink {
    /// Where rows go in, and where they come out.
    pub(super) fn channel() -> (mpsc::Sender<RecordBatch>, mpsc::Receiver<RecordBatch>) {
        mpsc::channel(WAITING_BATCHES)
    }

    /// A sink whose rows go in there.
    pub(super) const fn new(batches: mpsc::Sender<RecordBatch>, stop: watch::Receiver<bool>) -> Self {
        Self { staged: Vec::new(), batches, stop }
    }
}

#[async_trait]
impl Sink for RowsSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn begin(&mut self, _: &SinkWriter) -> millstream_engine::Result<Option<Epoch>> {
        // An epoch that did not come to its end is run again.
        self.staged.clear();
        Ok(None)
    }

    async fn stage(&mut self, _: Epoch, rows: &[RecordBatch]) -> millstream_engine::Result<()> {
        self.staged.extend(rows.iter().filter(|batch| batch.num_rows() > 0).cloned());
        Ok(())
    }

    async fn commit(&mut self, _: Epoch) -> millstream_engine::Result<()> {
        for batch in self.staged.drain(..) {
            tokio::select! {
                biased;
                // Nobody is there to take it any more where this fails: the query is about to be stopped.
                _ = self.batches.send(batch) => {}
                _ = self.stop.wait_for(|stop| *stop) => {}
            }
        }
        Ok(())
    }
}
