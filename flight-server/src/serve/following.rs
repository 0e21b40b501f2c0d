//! A materialized view on its way to a client that follows it.
//!
//! The columns are those of the view and `_epoch`, the epoch that a row came with. The rows of an epoch are followed by
//! an empty batch with `{"epoch":n}` as its metadata: whoever has that may lose the connection and subscribe again
//! `AS OF EPOCH n`, without gap or repetition. Rows before it say the epoch to go on after as long as they are not all
//! there.

use std::collections::VecDeque;
use std::sync::Arc;

use arrow_flight::FlightData;
use datafusion::arrow::array::{ArrayRef, Int64Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use futures::StreamExt;
use millstream_engine::batch::Epoch;
use millstream_engine::results::Changes;
use serde_json::json;
use tonic::Status;

use super::results::{HEARTBEAT, Messages, client_batch, client_schema, empty_message, encoded_rows};
use super::status::{bad_arrow, status};
use crate::embed::Subscription;

/// The column with the epoch of a row.
const EPOCH: &str = "_epoch";

/// The columns that a client gets.
pub(super) fn followed_schema(view: &Schema) -> SchemaRef {
    let columns = client_schema(view);
    let epoch = Arc::new(Field::new(EPOCH, DataType::Int64, true));
    Arc::new(Schema::new(columns.fields().iter().cloned().chain([epoch]).collect::<Vec<_>>()))
}

/// The messages of a view, until its query ends.
///
/// # Errors
/// Fails for columns that cannot be written.
pub(super) fn following(subscription: Subscription, after: Option<u64>) -> Result<Messages, Status> {
    let schema = followed_schema(&subscription.schema());
    let (columns, marker) = empty_message(&schema)?;
    let waiting = VecDeque::from([columns]);
    let state = Following { subscription, schema, marker, waiting, after: after.map(Epoch) };
    Ok(futures::stream::unfold(Some(state), async |state| {
        let mut state = state?;
        match state.next().await {
            Ok(Some(message)) => Some((Ok(message), Some(state))),
            Ok(None) => None,
            Err(status) => Some((Err(status), None)),
        }
    })
    .boxed())
}

struct Following {
    subscription: Subscription,
    schema: SchemaRef,
    /// An empty batch.
    marker: FlightData,
    /// Messages to be sent.
    waiting: VecDeque<FlightData>,
    /// The last epoch that was sent whole.
    after: Option<Epoch>,
}

impl Following {
    async fn next(&mut self) -> Result<Option<FlightData>, Status> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Ok(Some(message));
            }
            let changes = tokio::select! {
                changes = self.subscription.next() => changes,
                () = tokio::time::sleep(HEARTBEAT) => return Ok(Some(marked(self.marker.clone(), self.after))),
            };
            let Some(changes) = changes else { return Ok(None) };
            self.take(changes.map_err(|error| status(&error))?).await?;
        }
    }

    /// Makes messages of rows.
    async fn take(&mut self, changes: Changes) -> Result<(), Status> {
        let rows = changes.rows.iter().map(|rows| self.with_epoch(rows, changes.epoch));
        let rows = rows.collect::<Result<Vec<_>, _>>().map_err(|error| bad_arrow(&error))?;
        let messages = encoded_rows(&self.schema, rows).await?;
        self.waiting.extend(messages.into_iter().map(|message| marked(message, self.after)));
        self.after = Some(changes.epoch);
        self.waiting.push_back(marked(self.marker.clone(), self.after));
        Ok(())
    }

    fn with_epoch(&self, rows: &RecordBatch, epoch: Epoch) -> Result<RecordBatch, ArrowError> {
        let of_view = self.schema.project(&(0..rows.num_columns()).collect::<Vec<_>>())?;
        let rows = client_batch(rows, &Arc::new(of_view))?;
        let epoch = Int64Array::from_value(i64::try_from(epoch.0).unwrap_or(i64::MAX), rows.num_rows());
        let columns = rows.columns().iter().cloned().chain([Arc::new(epoch) as ArrayRef]).collect();
        RecordBatch::try_new(Arc::clone(&self.schema), columns)
    }
}

/// A message that says after which epoch to go on.
fn marked(mut message: FlightData, after: Option<Epoch>) -> FlightData {
    message.app_metadata = json!({ "epoch": after.map(|epoch| epoch.0) }).to_string().into();
    message
}
