//! The calls of Arrow Flight, and the commands of Flight SQL in them.
//!
//! ```text
//! GetFlightInfo  statement, prepared statement: carried out as far as its columns need; metadata: its columns
//! DoGet          the rows of either; a query over streams goes on until its client leaves
//! DoPut          updates, parameters, rows into streams
//! DoAction       prepared statements, sessions, cancelling
//! ```
//!
//! The commands are told apart here and not by the Arrow crate's own dispatch, which leaves out PollFlightInfo,
//! GetSchema, sessions and acknowledgements of single batches.

use std::sync::Arc;

use arrow_flight::decode::DecodedPayload;
use arrow_flight::flight_descriptor::DescriptorType;
use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, ActionCreatePreparedStatementResult, Any, Command,
    DoPutPreparedStatementResult, DoPutUpdateResult, ProstMessageExt, TicketStatementQuery,
};
use arrow_flight::{
    Action, ActionType, BasicAuth, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus, Criteria, Empty,
    FlightData, FlightDescriptor, FlightEndpoint, FlightInfo, HandshakeRequest, HandshakeResponse, PollInfo, PutResult,
    RenewFlightEndpointRequest, SchemaResult, Ticket,
};
use bytes::Bytes;
use datafusion::arrow::datatypes::{Schema, SchemaRef};
use futures::StreamExt;
use futures::stream::BoxStream;
use prost::Message;
use tonic::{Request, Response, Status, Streaming};

use super::ingest::{Incoming, decoder, next_message};
use super::listen::Connection;
use super::options::{Closed, OptionValue, Refusal, Refused, SessionOptions};
use super::parameters::{Template, literals};
use super::results::{Messages, fixed, schema_bytes};
use super::sessions::Session;
use super::status::{bad_arrow, unimplemented};
use super::{MAX_MESSAGE_BYTES, Server};

/// The actions besides those of Flight SQL.
const ACTIONS: [(&str, &str); 10] = [
    ("CreatePreparedStatement", "prepares a statement"),
    ("ClosePreparedStatement", "forgets a prepared statement"),
    ("CancelQuery", "stops a query, by its FlightInfo"),
    ("CancelFlightInfo", "stops a query, by its FlightInfo"),
    ("RenewFlightEndpoint", "keeps a result"),
    ("SetSessionOptions", "sets something for the session"),
    ("GetSessionOptions", "tells what is set in the session"),
    ("CloseSession", "ends the session"),
    ("BeginTransaction", "is refused: there are no transactions"),
    ("EndTransaction", "is refused: there are no transactions"),
];

/// The Flight service of a server.
#[derive(Debug, Clone)]
pub(super) struct Service(pub(super) Arc<Server>);

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl FlightService for Service {
    type HandshakeStream = Answers<HandshakeResponse>;
    type ListFlightsStream = Answers<FlightInfo>;
    type DoGetStream = Messages;
    type DoPutStream = Answers<PutResult>;
    type DoActionStream = Answers<arrow_flight::Result>;
    type ListActionsStream = Answers<ActionType>;
    type DoExchangeStream = Answers<FlightData>;

    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Result<Response<Self::HandshakeStream>, Status> {
        let (metadata, _, mut incoming) = request.into_parts();
        let given = metadata.get("authorization").map(|value| value.to_str().unwrap_or_default().to_owned());
        let token = match given {
            Some(authorization) => self.0.token_for(&authorization).await?,
            None => {
                let payload = incoming.message().await?.map(|message| message.payload).unwrap_or_default();
                let BasicAuth { username, password } = BasicAuth::decode(payload).unwrap_or_default();
                self.0.token_of(&username, &password).await?
            }
        };
        let answer = HandshakeResponse { protocol_version: 0, payload: Bytes::from(token.clone()) };
        let mut response = Response::new(one(answer));
        let bearer = format!("Bearer {token}").parse().map_err(|_| Status::internal("a token is no header"))?;
        response.metadata_mut().insert("authorization", bearer);
        Ok(response)
    }

    async fn list_flights(&self, _: Request<Criteria>) -> Result<Response<Self::ListFlightsStream>, Status> {
        Err(unimplemented("ListFlights", "ask for the tables by Flight SQL"))
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<FlightInfo>, Status> {
        let session = self.session(&request).await?;
        self.info(&session, request.into_inner()).await.map(Response::new)
    }

    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Result<Response<PollInfo>, Status> {
        let session = self.session(&request).await?;
        let info = self.info(&session, request.into_inner()).await?;
        // All that there is to know is known at once: there is nothing to poll for.
        let poll = PollInfo { info: Some(info), flight_descriptor: None, progress: Some(1.0), expiration_time: None };
        Ok(Response::new(poll))
    }

    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Result<Response<SchemaResult>, Status> {
        let session = self.session(&request).await?;
        let schema = match command_of(&request.get_ref().cmd)? {
            Command::CommandStatementQuery(command) => {
                self.0.describe(&session, &Template::new(&command.query)?).await?
            }
            Command::CommandPreparedStatementQuery(command) => {
                let prepared = session.prepared(&command.prepared_statement_handle)?;
                self.0.describe(&session, &prepared.template).await?
            }
            other => match self.0.metadata(&session.user, &other)? {
                Some(batch) => batch.schema(),
                None => return Err(unimplemented(other.type_url(), "ask for the columns of a query")),
            },
        };
        Ok(Response::new(SchemaResult { schema: schema_bytes(&schema)? }))
    }

    async fn do_get(&self, request: Request<Ticket>) -> Result<Response<Self::DoGetStream>, Status> {
        let session = self.session(&request).await?;
        let connection = Connection::of(request.extensions());
        let messages = match command_of(&request.get_ref().ticket)? {
            Command::TicketStatementQuery(ticket) => {
                self.0.fetch(&session, &session.result(&ticket.statement_handle)?, connection).await?
            }
            Command::CommandStatementQuery(command) => self.fetch_text(&session, &command.query, connection).await?,
            Command::CommandPreparedStatementQuery(command) => {
                let text = single_text(&session, &command.prepared_statement_handle)?;
                self.fetch_text(&session, &text, connection).await?
            }
            other => match self.0.metadata(&session.user, &other)? {
                Some(batch) => fixed(&batch),
                None => return Err(unimplemented(other.type_url(), "fetch a ticket of GetFlightInfo")),
            },
        };
        Ok(Response::new(messages))
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Result<Response<Self::DoPutStream>, Status> {
        let session = self.session(&request).await?;
        let mut incoming = request.into_inner();
        let Some(first) = incoming.message().await? else {
            return Err(Status::invalid_argument("nothing was sent"));
        };
        let descriptor = first.flight_descriptor.clone();
        let descriptor =
            descriptor.ok_or_else(|| Status::invalid_argument("the first message does not say where the rows go"))?;
        let rest: Incoming = Box::pin(futures::stream::iter([Ok(first)]).chain(incoming));
        if descriptor.r#type == DescriptorType::Path as i32 {
            let [stream] = descriptor.path.as_slice() else {
                return Err(Status::invalid_argument("the path of rows is the name of a stream alone"));
            };
            return self.0.put(&session, stream, rest).map(Response::new);
        }
        let answer = self.put_command(&session, &descriptor.cmd, rest).await?;
        Ok(Response::new(one(PutResult { app_metadata: answer })))
    }

    async fn list_actions(&self, _: Request<Empty>) -> Result<Response<Self::ListActionsStream>, Status> {
        let actions = ACTIONS
            .map(|(name, description)| Ok(ActionType { r#type: name.to_owned(), description: description.to_owned() }));
        Ok(Response::new(futures::stream::iter(actions).boxed()))
    }

    async fn do_action(&self, request: Request<Action>) -> Result<Response<Self::DoActionStream>, Status> {
        let session = self.session(&request).await?;
        let (metadata, connection) = (request.metadata().clone(), Connection::of(request.extensions()));
        let Action { r#type: name, body } = request.into_inner();
        let answer = match name.as_str() {
            "CreatePreparedStatement" => Some(self.prepare(&session, &unpacked(&body)?).await?),
            "ClosePreparedStatement" => {
                let request: ActionClosePreparedStatementRequest = unpacked(&body)?;
                session.unprepare(&request.prepared_statement_handle);
                None
            }
            "CancelQuery" => {
                let request: ActionCancelQueryRequest = unpacked(&body)?;
                let info = FlightInfo::decode(request.info).map_err(|error| unreadable(&error))?;
                cancel(&session, &info)?;
                Some(ActionCancelQueryResult { result: CancelStatus::Cancelled as i32 }.as_any().encode_to_vec())
            }
            "CancelFlightInfo" => {
                let request = CancelFlightInfoRequest::decode(body).map_err(|error| unreadable(&error))?;
                cancel(&session, &request.info.unwrap_or_default())?;
                Some(CancelFlightInfoResult { status: CancelStatus::Cancelled as i32 }.encode_to_vec())
            }
            "RenewFlightEndpoint" => {
                // Results have no time at which they end.
                let request = RenewFlightEndpointRequest::decode(body).map_err(|error| unreadable(&error))?;
                Some(request.endpoint.unwrap_or_default().encode_to_vec())
            }
            "SetSessionOptions" => Some(self.set_options(&session, body)?),
            "GetSessionOptions" => {
                let options = session.settings().into_iter().map(|(key, value)| (key, OptionValue::text(&value)));
                Some(SessionOptions { options: options.collect() }.encode_to_vec())
            }
            "CloseSession" => {
                self.0.close(&metadata, connection);
                Some(Closed { status: 1 }.encode_to_vec())
            }
            "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => {
                return Err(unimplemented("a transaction", "each statement counts by itself"));
            }
            _ => return Err(unimplemented(&format!("the action {name:?}"), "ListActions tells which ones are")),
        };
        let answers = answer.map(|body| Ok(arrow_flight::Result { body: body.into() }));
        Ok(Response::new(futures::stream::iter(answers).boxed()))
    }

    async fn do_exchange(&self, _: Request<Streaming<FlightData>>) -> Result<Response<Self::DoExchangeStream>, Status> {
        Err(unimplemented("DoExchange", "put rows with DoPut and get them with DoGet"))
    }
}

impl Service {
    async fn session<T>(&self, request: &Request<T>) -> Result<Arc<Session>, Status> {
        self.0.session(request.metadata(), Connection::of(request.extensions())).await
    }

    /// What a command gives: its columns, and the ticket for its rows.
    async fn info(&self, session: &Session, descriptor: FlightDescriptor) -> Result<FlightInfo, Status> {
        let (schema, ticket) = match command_of(&descriptor.cmd)? {
            Command::CommandStatementQuery(command) => self.asked(session, &command.query).await?,
            Command::CommandPreparedStatementQuery(command) => {
                let text = single_text(session, &command.prepared_statement_handle)?;
                self.asked(session, &text).await?
            }
            Command::CommandStatementSubstraitPlan(_) => return Err(unimplemented("Substrait", "send SQL")),
            other => match self.0.metadata(&session.user, &other)? {
                Some(batch) => (batch.schema(), descriptor.cmd.clone()),
                None => return Err(unimplemented(other.type_url(), "send a statement or ask for metadata")),
            },
        };
        // No location: the rows are where the question was asked.
        let endpoint = FlightEndpoint::new().with_ticket(Ticket::new(ticket));
        let info = FlightInfo::new().try_with_schema(&schema).map_err(|error| bad_arrow(&error))?;
        Ok(info.with_endpoint(endpoint).with_descriptor(descriptor))
    }

    async fn asked(&self, session: &Session, text: &str) -> Result<(SchemaRef, Bytes), Status> {
        let (schema, pending) = self.0.ask(session, text).await?;
        let ticket = TicketStatementQuery { statement_handle: session.keep(pending) };
        Ok((schema, ticket.as_any().encode_to_vec().into()))
    }

    async fn fetch_text(
        &self,
        session: &Session,
        text: &str,
        connection: Option<Connection>,
    ) -> Result<Messages, Status> {
        let (_, pending) = self.0.ask(session, text).await?;
        let handle = session.keep(pending);
        self.0.fetch(session, &session.result(&handle)?, connection).await
    }

    async fn prepare(
        &self,
        session: &Session,
        request: &ActionCreatePreparedStatementRequest,
    ) -> Result<Vec<u8>, Status> {
        let template = Template::new(&request.query)?;
        let columns = self.0.describe(session, &template).await?;
        // Clients take a statement without columns for an update.
        let dataset_schema = if columns.fields().is_empty() { Bytes::new() } else { schema_bytes(&columns)? };
        let parameters: Schema = self.0.parameter_schema(session, &template);
        let parameter_schema = schema_bytes(&parameters)?;
        let prepared_statement_handle = session.prepare(template);
        let result =
            ActionCreatePreparedStatementResult { prepared_statement_handle, dataset_schema, parameter_schema };
        Ok(result.as_any().encode_to_vec())
    }

    /// Carries out a command that brings data along, and gives what is answered.
    async fn put_command(&self, session: &Session, command: &Bytes, incoming: Incoming) -> Result<Bytes, Status> {
        let record_count = match command_of(command)? {
            Command::CommandStatementUpdate(command) => self.0.update(session, &command.query).await?,
            Command::CommandStatementIngest(command) => self.0.ingest(session, &command, incoming).await?,
            Command::CommandPreparedStatementUpdate(command) => {
                let prepared = session.prepared(&command.prepared_statement_handle)?;
                let rows = parameter_rows(incoming).await?;
                if !rows.is_empty() {
                    prepared.bind(rows);
                }
                let mut count = 0;
                for text in prepared.texts()? {
                    count += self.0.update(session, &text).await?;
                }
                count
            }
            Command::CommandPreparedStatementQuery(command) => {
                let handle = command.prepared_statement_handle;
                session.prepared(&handle)?.bind(parameter_rows(incoming).await?);
                let result = DoPutPreparedStatementResult { prepared_statement_handle: Some(handle) };
                return Ok(result.encode_to_vec().into());
            }
            other => return Err(unimplemented(other.type_url(), "put rows into a stream, or send an update")),
        };
        Ok(DoPutUpdateResult { record_count }.encode_to_vec().into())
    }

    fn set_options(&self, session: &Session, body: Bytes) -> Result<Vec<u8>, Status> {
        let request = SessionOptions::decode(body).map_err(|error| unreadable(&error))?;
        let mut refused = Refused::default();
        for (key, value) in request.options {
            // There is one catalog with one schema, which clients may name.
            if let ("catalog" | "schema", Some("millstream" | "public")) = (key.as_str(), value.to_text().as_deref()) {
                continue;
            }
            let set = value.to_text().is_some_and(|text| self.0.set(session, &key, &text).is_ok());
            if !set {
                refused.errors.insert(key, Refusal { reason: 2 });
            }
        }
        Ok(refused.encode_to_vec())
    }
}

/// The only text of a prepared statement with its values.
fn single_text(session: &Session, handle: &Bytes) -> Result<String, Status> {
    let mut texts = session.prepared(handle)?.texts()?;
    match (texts.pop(), texts.is_empty()) {
        (Some(text), true) => Ok(text),
        _ => Err(Status::invalid_argument("a query takes one row of parameters at a time")),
    }
}

/// The rows of parameters that come with a command, as literals.
async fn parameter_rows(incoming: Incoming) -> Result<Vec<Vec<String>>, Status> {
    let mut decoder = decoder(incoming);
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while let Some(message) = next_message(&mut decoder).await? {
        bytes += message.inner.data_body.len();
        if bytes > MAX_MESSAGE_BYTES {
            return Err(Status::invalid_argument(format!("the parameters have more than {MAX_MESSAGE_BYTES} bytes")));
        }
        if let DecodedPayload::RecordBatch(batch) = message.payload {
            rows.extend(literals(&batch)?);
        }
    }
    Ok(rows)
}

fn cancel(session: &Session, info: &FlightInfo) -> Result<(), Status> {
    let tickets = info.endpoint.iter().filter_map(|endpoint| endpoint.ticket.as_ref());
    for ticket in tickets {
        if let Command::TicketStatementQuery(ticket) = command_of(&ticket.ticket)? {
            session.result(&ticket.statement_handle)?.cancelled.send_replace(true);
        }
    }
    Ok(())
}

fn command_of(bytes: &Bytes) -> Result<Command, Status> {
    let message = Any::decode(bytes.clone()).map_err(|error| unreadable(&error))?;
    Command::try_from(message).map_err(|error| Status::invalid_argument(error.to_string()))
}

fn unpacked<M: ProstMessageExt>(body: &Bytes) -> Result<M, Status> {
    let message = Any::decode(body.clone()).map_err(|error| unreadable(&error))?;
    let message: Option<M> = message.unpack().map_err(|error| Status::invalid_argument(error.to_string()))?;
    message.ok_or_else(|| Status::invalid_argument("the body of the action is another message"))
}

fn unreadable(error: &prost::DecodeError) -> Status {
    Status::invalid_argument(format!("the command cannot be read: {error}"))
}

fn one<T: Send + 'static>(answer: T) -> Answers<T> {
    futures::stream::iter([Ok(answer)]).boxed()
}

#[cfg(test)]
mod tests {
    use arrow_flight::sql::CommandStatementQuery;
    use millstream_engine::testing::damaged;

    use super::*;

    #[test]
    fn fuzz_commands_and_tickets() {
        let whole =
            CommandStatementQuery { query: "SELECT 1".to_owned(), transaction_id: None }.as_any().encode_to_vec();
        let read = command_of(&Bytes::from(whole.clone()));
        assert!(matches!(read, Ok(Command::CommandStatementQuery(command)) if command.query == "SELECT 1"));
        bolero::check!().with_type::<(Vec<(u16, u8)>, u16)>().for_each(|(edits, length)| {
            // Whatever it is, it is a command or an error.
            drop(command_of(&Bytes::from(damaged(&whole, edits, *length))));
        });
        bolero::check!().for_each(|bytes: &[u8]| drop(command_of(&Bytes::copy_from_slice(bytes))));
    }
}
