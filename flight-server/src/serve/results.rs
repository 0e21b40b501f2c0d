//! Rows on their way to a client: types that every client reads, messages of a size that every client takes.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use arrow_flight::encode::{FlightDataEncoder, FlightDataEncoderBuilder};
use arrow_flight::error::FlightError;
use arrow_flight::utils::batches_to_flight_data;
use arrow_flight::{FlightData, IpcMessage, SchemaAsIpc};
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Fields, Schema, SchemaRef};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::writer::IpcWriteOptions;
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::Status;

use super::status::{bad_arrow, status};
use crate::embed::Rows;

/// The messages of a result.
pub(super) type Messages = BoxStream<'static, Result<FlightData, Status>>;

/// How long nothing is sent before an empty batch says that the query is alive.
pub(super) const HEARTBEAT: Duration = Duration::from_secs(10);

/// The columns as clients get them: without the types that some cannot read, and every column may be null, as plans do
/// not always know better.
pub(super) fn client_schema(schema: &Schema) -> SchemaRef {
    let fields = schema.fields().iter().map(|field| client_field(field).as_ref().clone().with_nullable(true));
    Arc::new(Schema::new(fields.collect::<Vec<Field>>()))
}

fn client_type(kind: &DataType) -> DataType {
    match kind {
        DataType::Utf8View => DataType::Utf8,
        DataType::BinaryView => DataType::Binary,
        DataType::Dictionary(_, values) => client_type(values),
        DataType::RunEndEncoded(_, values) => client_type(values.data_type()),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            DataType::Decimal128(*precision, *scale)
        }
        DataType::List(item) | DataType::ListView(item) => DataType::List(client_field(item)),
        DataType::LargeList(item) | DataType::LargeListView(item) => DataType::LargeList(client_field(item)),
        DataType::FixedSizeList(item, size) => DataType::FixedSizeList(client_field(item), *size),
        DataType::Struct(fields) => DataType::Struct(fields.iter().map(client_field).collect::<Fields>()),
        DataType::Map(entries, sorted) => DataType::Map(client_field(entries), *sorted),
        other => other.clone(),
    }
}

fn client_field(field: &FieldRef) -> FieldRef {
    Arc::new(field.as_ref().clone().with_data_type(client_type(field.data_type())))
}

/// The rows with the columns of their client schema.
///
/// # Errors
/// Fails for types that cannot be converted.
pub(super) fn client_batch(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
    let columns = batch.columns().iter().zip(schema.fields());
    let columns: Vec<ArrayRef> = columns
        .map(|(column, field)| match column.data_type() == field.data_type() {
            true => Ok(Arc::clone(column)),
            false => cast(column, field.data_type()),
        })
        .collect::<Result<_, ArrowError>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns, &options)
}

/// A schema as an encapsulated IPC message.
///
/// # Errors
/// Fails for schemas that cannot be written.
pub(super) fn schema_bytes(schema: &Schema) -> Result<bytes::Bytes, Status> {
    let options = IpcWriteOptions::default();
    let message: Result<IpcMessage, ArrowError> = SchemaAsIpc::new(schema, &options).try_into();
    message.map(|message| message.0).map_err(|error| bad_arrow(&error))
}

/// The messages of rows that are all there.
pub(super) fn fixed(batch: &RecordBatch) -> Messages {
    encoded(batch.schema(), futures::stream::iter([Ok(batch.clone())]))
        .map(|message| message.map_err(to_status))
        .boxed()
}

/// The messages of a query that comes to its end by itself; it is stopped when nobody takes them any more, and fails
/// when they are more than `limit` bytes. Where nothing comes for a while an empty batch does.
///
/// # Errors
/// Fails for columns that cannot be written.
pub(super) fn running(
    rows: Rows,
    schema: SchemaRef,
    place: OwnedSemaphorePermit,
    limit: u64,
) -> Result<Messages, Status> {
    let (_, heartbeat) = empty_message(&schema)?;
    let columns = Arc::clone(&schema);
    let batches = rows.map(move |batch| {
        let batch = batch.map_err(|error| FlightError::Tonic(Box::new(status(&error))))?;
        client_batch(&batch, &columns).map_err(FlightError::Arrow)
    });
    let sent = Sent { encoder: encoded(schema, batches), heartbeat, bytes: 0, limit, is_over: false, _place: place };
    let messages = futures::stream::unfold(sent, Sent::next);
    Ok(messages.boxed())
}

/// A result that is being sent.
struct Sent {
    encoder: FlightDataEncoder,
    /// An empty batch.
    heartbeat: FlightData,
    bytes: u64,
    limit: u64,
    is_over: bool,
    /// Its place among the queries that run at once, until its client has all rows or has left.
    _place: OwnedSemaphorePermit,
}

impl Sent {
    async fn next(mut self) -> Option<(Result<FlightData, Status>, Self)> {
        if self.is_over {
            return None;
        }
        let message = tokio::select! {
            message = self.encoder.next() => message?.map_err(to_status),
            () = tokio::time::sleep(HEARTBEAT) => Ok(self.heartbeat.clone()),
        };
        let message = message.and_then(|message| {
            self.bytes += message.data_body.len() as u64;
            let limit = self.limit;
            let too_many = || Status::resource_exhausted(format!("the result has more than {limit} bytes"));
            if self.bytes > limit { Err(too_many()) } else { Ok(message) }
        });
        self.is_over = message.is_err();
        Some((message, self))
    }
}

/// The message with the columns, and one of a batch without rows.
///
/// # Errors
/// Fails for columns that cannot be written.
pub(super) fn empty_message(schema: &SchemaRef) -> Result<(FlightData, FlightData), Status> {
    let empty = batches_to_flight_data(schema, vec![RecordBatch::new_empty(Arc::clone(schema))]);
    let messages: Result<[FlightData; 2], _> = empty.map_err(|error| bad_arrow(&error))?.try_into();
    let [columns, empty] = messages.map_err(|_| Status::internal("a batch is not one message"))?;
    Ok((columns, empty))
}

/// The messages of rows, without that of their columns.
///
/// # Errors
/// Fails for columns that cannot be written.
pub(super) async fn encoded_rows(schema: &SchemaRef, rows: Vec<RecordBatch>) -> Result<VecDeque<FlightData>, Status> {
    let batches = futures::stream::iter(rows.into_iter().map(Ok));
    let mut messages: VecDeque<FlightData> =
        encoded(Arc::clone(schema), batches).try_collect().await.map_err(to_status)?;
    messages.pop_front();
    Ok(messages)
}

fn encoded(
    schema: SchemaRef,
    batches: impl Stream<Item = Result<RecordBatch, FlightError>> + Send + 'static,
) -> FlightDataEncoder {
    FlightDataEncoderBuilder::new().with_schema(schema).build(batches)
}

/// The status that a failure to send rows is.
pub(super) fn to_status(error: FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => *status,
        FlightError::Arrow(error) => bad_arrow(&error),
        other => Status::internal(other.to_string()),
    }
}

/// The messages until something ends them before they do.
pub(super) fn until(messages: Messages, ended: impl Future<Output = Status> + Send + 'static) -> Messages {
    let ended = Box::pin(ended);
    futures::stream::unfold(Some((messages, ended)), async |state| {
        let (mut messages, mut ended) = state?;
        tokio::select! {
            biased;
            status = &mut ended => Some((Err(status), None)),
            message = messages.next() => message.map(|message| (message, Some((messages, ended)))),
        }
    })
    .boxed()
}

/// Completes when the client cancels by another call, or the server stops; says which.
pub(super) async fn ended(cancelled: watch::Receiver<bool>, stop: watch::Receiver<bool>) -> Status {
    tokio::select! {
        () = becomes_true(cancelled) => Status::cancelled("the query was cancelled"),
        () = becomes_true(stop) => Status::unavailable("the server stops"),
    }
}

/// Completes when a flag is set, and never if nobody is there to set it.
pub(super) async fn becomes_true(mut flag: watch::Receiver<bool>) {
    if flag.wait_for(|flag| *flag).await.is_err() {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{Array, AsArray, DictionaryArray, StringArray, StringViewArray};
    use datafusion::arrow::datatypes::Int32Type;

    use super::*;

    #[test]
    fn views_and_dictionaries_become_what_every_client_reads() {
        let views: ArrayRef = Arc::new(StringViewArray::from(vec![Some("a"), None]));
        let words: DictionaryArray<Int32Type> = vec!["x", "y"].into_iter().collect();
        let batch = RecordBatch::try_from_iter([("v", views), ("d", Arc::new(words) as ArrayRef)]).unwrap();
        let schema = client_schema(&batch.schema());
        assert!(schema.fields().iter().all(|field| field.data_type() == &DataType::Utf8 && field.is_nullable()));
        let sent = client_batch(&batch, &schema).unwrap();
        let texts: &StringArray = sent.column(0).as_string();
        assert_eq!((texts.value(0), texts.is_null(1)), ("a", true));
        assert_eq!(sent.column(1).as_string::<i32>().value(1), "y");
    }

    #[test]
    fn nested_types_are_looked_into() {
        let item = Arc::new(Field::new("item", DataType::Utf8View, true));
        let kind = client_type(&DataType::Struct(Fields::from(vec![Field::new("l", DataType::ListView(item), true)])));
        let item = Arc::new(Field::new("item", DataType::Utf8, true));
        assert_eq!(kind, DataType::Struct(Fields::from(vec![Field::new("l", DataType::List(item), true)])));
    }
}
