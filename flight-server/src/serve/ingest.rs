//! Rows of clients into streams: acknowledged when they are durable, taken once however often they are sent.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;

use arrow_flight::decode::{DecodedFlightData, DecodedPayload, FlightDataDecoder};
use arrow_flight::error::FlightError;
use arrow_flight::sql::{CommandStatementIngest, TableExistsOption, TableNotExistOption};
use arrow_flight::{FlightData, PutResult};
use datafusion::arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use futures::stream::BoxStream;
use futures::{FutureExt, Stream, StreamExt};
use millstream_connectors::push::LoggedPush;
use millstream_engine::durable::{Appended, Producer, ReceivedRows};
use millstream_engine::ipc::check_message;
use millstream_engine::plan::StreamDefinition;
use serde::{Deserialize, Serialize};
use tonic::Status;

use super::Server;
use super::metadata::{CATALOG, SCHEMA};
use super::results::becomes_true;
use super::roles::Right;
use super::sessions::Session;
use super::status::status;
use crate::error::Error;

/// What a client sends to a stream: its first message is in it.
pub(super) type Incoming = Pin<Box<dyn Stream<Item = Result<FlightData, Status>> + Send>>;

/// What a producer that may send a batch again says with it, as JSON in its metadata.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sent {
    producer: String,
    sequence: u64,
}

/// What is answered to each batch, as JSON in the metadata.
#[derive(Debug, Serialize)]
struct Acknowledged {
    rows: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    repeated: bool,
}

impl Server {
    /// Takes the rows of a bulk ingest; how many there were.
    ///
    /// # Errors
    /// Fails at the first batch that cannot be taken; those before it are in the stream.
    pub(super) async fn ingest(
        &self,
        session: &Session,
        command: &CommandStatementIngest,
        incoming: Incoming,
    ) -> Result<i64, Status> {
        check_place(command)?;
        let mut decoder = decoder(incoming);
        let mut stream = None;
        let mut rows = 0_i64;
        while let Some(message) = next_message(&mut decoder).await? {
            match message.payload {
                DecodedPayload::None => {}
                DecodedPayload::Schema(schema) => {
                    if stream.is_none() {
                        stream = Some(self.destination(session, command, &schema).await?);
                    }
                }
                DecodedPayload::RecordBatch(batch) => {
                    let stream = stream.as_ref().ok_or_else(|| Status::invalid_argument("rows came before columns"))?;
                    append_received(stream, &batch, message.inner, None).await?;
                    rows += i64::try_from(batch.num_rows()).unwrap_or(i64::MAX);
                }
            }
        }
        Ok(rows)
    }

    /// The stream that a bulk ingest goes to, made if it asks for that.
    async fn destination(
        &self,
        session: &Session,
        command: &CommandStatementIngest,
        schema: &Schema,
    ) -> Result<LoggedPush, Status> {
        let options = command.table_definition_options.unwrap_or_default();
        let name = &command.table;
        // Whoever may not send rows there does not hear whether it is there.
        session.user.check(&Right::Append(name.clone()))?;
        let exists = self.engine.relations().iter().any(|(known, _)| known == name);
        if exists {
            match options.if_exists() {
                TableExistsOption::Fail => {
                    return Err(Status::already_exists(format!(
                        "there is a relation \"{name}\" already: append to it"
                    )));
                }
                TableExistsOption::Replace => {
                    let message = format!("stream \"{name}\" is not replaced by an ingest: drop it first");
                    return Err(Status::unimplemented(message));
                }
                TableExistsOption::Unspecified | TableExistsOption::Append => {}
            }
        } else if options.if_not_exist() == TableNotExistOption::Create {
            self.update(session, &create_stream(name, schema)?).await?;
        } else {
            return Err(Status::not_found(format!("there is no stream \"{name}\": CREATE STREAM makes one")));
        }
        self.pushed(session, name).map(|(_, pushed)| pushed)
    }

    /// The pushed stream of that name, which the user may send rows to.
    pub(super) fn pushed(&self, session: &Session, name: &str) -> Result<(Arc<StreamDefinition>, LoggedPush), Status> {
        let found = self.engine.pushed(name);
        // Whoever may not send rows there does not hear whether it is there.
        let known = found.as_ref().map_or(name, |(definition, _)| definition.name.as_str());
        session.user.check(&Right::Append(known.to_owned()))?;
        found.map_err(|error| status(&error))
    }

    /// Takes batches into a stream and acknowledges each when it is durable.
    pub(super) fn put(
        &self,
        session: &Session,
        stream: &str,
        incoming: Incoming,
    ) -> Result<BoxStream<'static, Result<PutResult, Status>>, Status> {
        let (_, pushed) = self.pushed(session, stream)?;
        let state = Some((pushed, decoder(incoming), self.stop.clone()));
        let acknowledged = futures::stream::unfold(state, async |state| {
            let (stream, mut decoder, stop) = state?;
            let next = tokio::select! {
                next = next_acknowledged(&stream, &mut decoder) => next,
                () = becomes_true(stop.clone()) => Err(Status::unavailable("the server stops")),
            };
            match next {
                Ok(Some(result)) => Some((Ok(result), Some((stream, decoder, stop)))),
                Ok(None) => None,
                Err(status) => Some((Err(status), None)),
            }
        });
        Ok(acknowledged.boxed())
    }
}

/// The next message as it is decoded.
///
/// # Errors
/// Fails if it cannot be; also where the decoder gives up on types that no array can have.
pub(super) async fn next_message(decoder: &mut FlightDataDecoder) -> Result<Option<DecodedFlightData>, Status> {
    let decoded = AssertUnwindSafe(decoder.next()).catch_unwind().await;
    let decoded =
        decoded.map_err(|_| Status::invalid_argument("the rows cannot be read: their columns cannot be made"))?;
    decoded.transpose().map_err(|error| broken(&error))
}

async fn next_acknowledged(stream: &LoggedPush, decoder: &mut FlightDataDecoder) -> Result<Option<PutResult>, Status> {
    while let Some(message) = next_message(decoder).await? {
        let metadata = message.app_metadata();
        let DecodedPayload::RecordBatch(batch) = message.payload else { continue };
        let by = if metadata.is_empty() { None } else { Some(producer(&metadata)?) };
        let sequence = by.as_ref().map(|by| by.sequence);
        let appended = append_received(stream, &batch, message.inner, by).await?;
        let acknowledged = Acknowledged { rows: batch.num_rows(), sequence, repeated: appended == Appended::Repeated };
        let json = serde_json::to_vec(&acknowledged).map_err(|error| Status::internal(error.to_string()))?;
        return Ok(Some(PutResult { app_metadata: json.into() }));
    }
    Ok(None)
}

fn producer(metadata: &[u8]) -> Result<Producer, Status> {
    let sent: Sent = serde_json::from_slice(metadata).map_err(|error| {
        let expected = r#"{"producer":"NAME","sequence":N}"#;
        Status::invalid_argument(format!("the metadata of a batch is not {expected}: {error}"))
    })?;
    Ok(Producer { id: sent.producer, sequence: sent.sequence })
}

pub(super) async fn append(stream: &LoggedPush, batch: &RecordBatch, by: Option<Producer>) -> Result<Appended, Status> {
    stream.append(batch, by).await.map_err(|error| status(&Error::Engine(error)))
}

/// Appends rows as the message has them; where dictionaries came before it the rows are not in it alone.
async fn append_received(
    stream: &LoggedPush,
    batch: &RecordBatch,
    message: FlightData,
    by: Option<Producer>,
) -> Result<Appended, Status> {
    if batch.schema().fields().iter().any(|field| has_dictionary(field.data_type())) {
        return append(stream, batch, by).await;
    }
    let received = ReceivedRows { header: message.data_header, body: message.data_body };
    stream.append_received(batch, received, by).await.map_err(|error| status(&Error::Engine(error)))
}

fn has_dictionary(kind: &DataType) -> bool {
    match kind {
        DataType::Dictionary(..) => true,
        DataType::List(item)
        | DataType::ListView(item)
        | DataType::LargeList(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _)
        | DataType::Map(item, _) => has_dictionary(item.data_type()),
        DataType::RunEndEncoded(_, values) => has_dictionary(values.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_dictionary(field.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| has_dictionary(field.data_type())),
        _ => false,
    }
}

/// Reads messages, each of which is checked before.
pub(super) fn decoder(incoming: Incoming) -> FlightDataDecoder {
    // A message without a header has a command or metadata only.
    let messages = incoming.filter(|message| {
        let has_data = message.as_ref().map_or(true, |message| !message.data_header.is_empty());
        std::future::ready(has_data)
    });
    FlightDataDecoder::new(messages.map(|message| {
        let message = message.map_err(|status| FlightError::Tonic(Box::new(status)))?;
        check_message(&message.data_header, &message.data_body)?;
        Ok(message)
    }))
}

fn broken(error: &FlightError) -> Status {
    match error {
        FlightError::Tonic(status) => status.as_ref().clone(),
        other => Status::invalid_argument(format!("the rows cannot be read: {other}")),
    }
}

/// Refuses other places than the one there is.
fn check_place(command: &CommandStatementIngest) -> Result<(), Status> {
    let is_other =
        |given: &Option<String>, known| given.as_ref().is_some_and(|given| !given.is_empty() && given != known);
    if command.temporary {
        return Err(Status::unimplemented("there are no temporary streams: leave temporary out"));
    }
    if is_other(&command.catalog, CATALOG) || is_other(&command.schema, SCHEMA) {
        return Err(Status::not_found(format!("there is only the catalog {CATALOG} with the schema {SCHEMA}")));
    }
    Ok(())
}

/// The statement that makes a stream with these columns.
fn create_stream(name: &str, schema: &Schema) -> Result<String, Status> {
    let mut columns = Vec::new();
    for field in schema.fields() {
        let kind = sql_type(field.data_type()).ok_or_else(|| {
            let (name, kind) = (field.name(), field.data_type());
            Status::invalid_argument(format!("column {name:?} has the type {kind}, which no stream can have"))
        })?;
        columns.push(format!("{} {kind}", quoted(field.name())));
    }
    Ok(format!("CREATE STREAM {} ({}) WITH (connector = 'push')", quoted(name), columns.join(", ")))
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// The type that a stream has for a column of this type.
fn sql_type(kind: &DataType) -> Option<String> {
    Some(match kind {
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 | DataType::Int16 | DataType::UInt8 => "SMALLINT".to_owned(),
        DataType::Int32 | DataType::UInt16 => "INTEGER".to_owned(),
        DataType::Int64 | DataType::UInt32 => "BIGINT".to_owned(),
        DataType::UInt64 => "DECIMAL(20, 0)".to_owned(),
        DataType::Float16 | DataType::Float32 => "REAL".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "VARCHAR".to_owned(),
        DataType::Date32 | DataType::Date64 => "DATE".to_owned(),
        DataType::Timestamp(unit, _) => {
            let digits = match unit {
                TimeUnit::Second => 0,
                TimeUnit::Millisecond => 3,
                TimeUnit::Microsecond => 6,
                TimeUnit::Nanosecond => 9,
            };
            format!("TIMESTAMP({digits})")
        }
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        DataType::Dictionary(_, values) => return sql_type(values),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use arrow_flight::utils::batches_to_flight_data;
    use datafusion::arrow::array::{ArrayRef, Float64Array, StringArray};
    use millstream_engine::testing::damaged;

    use super::*;

    /// All that can be read of messages; whatever they are, it is rows or an error.
    async fn read(messages: Vec<FlightData>) {
        let mut decoder = decoder(Box::pin(futures::stream::iter(messages.into_iter().map(Ok))));
        while let Ok(Some(_)) = next_message(&mut decoder).await {}
    }

    #[test]
    fn fuzz_rows_that_are_damaged() {
        let columns: [(&str, ArrayRef); 2] = [
            ("szcode", Arc::new(StringArray::from(vec![Some("A"), None, Some("längere")]))),
            ("price", Arc::new(Float64Array::from(vec![1.5, f64::NAN, -0.0]))),
        ];
        let rows = RecordBatch::try_from_iter(columns).unwrap();
        let whole = batches_to_flight_data(&rows.schema(), vec![rows]).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        bolero::check!().with_type::<(bool, bool, Vec<(u16, u8)>, u16)>().for_each(|(first, body, edits, length)| {
            let mut messages = whole.clone();
            let message = &mut messages[usize::from(!first)];
            let part = if *body { &mut message.data_body } else { &mut message.data_header };
            *part = damaged(part, edits, *length).into();
            runtime.block_on(read(messages));
        });
    }

    #[test]
    fn fuzz_what_producers_say() {
        let whole = br#"{"producer":"a","sequence":7}"#;
        bolero::check!().with_type::<(Vec<(u16, u8)>, u16)>().for_each(|(edits, length)| {
            drop(producer(&damaged(whole, edits, *length)));
        });
    }
}
