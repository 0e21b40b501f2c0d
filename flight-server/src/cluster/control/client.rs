//! The side that asks.

use std::error::Error as _;
use std::time::Duration;

use arrow_flight::Action;
use arrow_flight::flight_service_client::FlightServiceClient;
use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::{ActionError, ErrorKind, MAX_BODY_BYTES, answered};
use crate::cluster::link::Links;
use crate::error::Result;
use crate::queries::short_duration;

/// Asks one process; clones share the connection, which is made when it is needed, and again when it was lost.
#[derive(Debug, Clone)]
pub(crate) struct ControlClient {
    url: String,
    client: FlightServiceClient<Channel>,
}

/// Why a call gave nothing.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    /// There is no answer, and nobody knows whether it was done: the peer is away, or slower than the deadline.
    #[error("{url} cannot be reached: {reason}")]
    Unreachable {
        /// Who was asked.
        url: String,
        /// What the transport says.
        reason: String,
    },
    /// The one who asked speaks of a past that is over.
    #[error("{0}")]
    Stale(String),
    /// It may not be; asking again gives the same.
    #[error("{0}")]
    Refused(String),
    /// It was tried and went wrong, or is no action of the peer.
    #[error("{0}")]
    Failed(String),
}

impl ControlClient {
    /// Asks the process at `url`, which need not be there yet. Needs a tokio runtime around it.
    ///
    /// # Errors
    /// Fails for what is no URL of such a process.
    pub(crate) fn new(links: &Links, url: &str) -> Result<Self> {
        let channel = links.endpoint(url)?.connect_lazy();
        let client = FlightServiceClient::new(channel)
            .max_decoding_message_size(MAX_BODY_BYTES)
            .max_encoding_message_size(MAX_BODY_BYTES);
        Ok(Self { url: url.to_owned(), client })
    }

    /// Whom it asks.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Asks once, and gives up at the deadline.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn call<Q: Serialize + ?Sized, A: DeserializeOwned>(
        &self,
        action: &str,
        query: &Q,
        deadline: Duration,
    ) -> Result<A, CallError> {
        let body = serde_json::to_vec(query)
            .map_err(|error| CallError::Failed(format!("the body of {action:?} cannot be written: {error}")))?;
        let answer = self.call_with(action, body.into(), deadline).await?;
        serde_json::from_slice(&answer)
            .map_err(|error| CallError::Failed(format!("the answer to {action:?} cannot be read: {error}")))
    }

    /// The same with bodies that are JSON already, both ways.
    ///
    /// # Errors
    /// See [`CallError`].
    pub(crate) async fn call_with(&self, action: &str, body: Bytes, deadline: Duration) -> Result<Bytes, CallError> {
        let asked = Action { r#type: action.to_owned(), body };
        let answered = tokio::time::timeout(deadline, self.ask(asked)).await;
        answered
            .map_err(|_| self.unreachable(format!("no answer within {}", short_duration(deadline))))?
            .map_err(|status| self.error(&status))
    }

    async fn ask(&self, action: Action) -> Result<Bytes, Status> {
        // The call takes the client for itself; a clone is a handle to the same connection.
        let mut answers = self.client.clone().do_action(action).await?.into_inner();
        let answer = answers.message().await?;
        answer.map(|answer| answer.body).ok_or_else(|| Status::unavailable("the connection ended before the answer"))
    }

    fn error(&self, status: &Status) -> CallError {
        if let Some(ActionError { kind, message }) = answered(status) {
            return match kind {
                ErrorKind::Stale => CallError::Stale(message),
                ErrorKind::Refused => CallError::Refused(message),
                ErrorKind::Failed | ErrorKind::Unknown => CallError::Failed(message),
            };
        }
        let url = &self.url;
        let reason = reason(status);
        match status.code() {
            // Somebody is there, and will say the same again.
            Code::Unauthenticated | Code::PermissionDenied => CallError::Refused(format!("{url} refuses: {reason}")),
            Code::Unimplemented => CallError::Failed(format!("{url} is no process of a cluster: {reason}")),
            Code::OutOfRange => CallError::Failed(format!("too much for one call to {url}: {reason}")),
            _ => self.unreachable(reason),
        }
    }

    fn unreachable(&self, reason: String) -> CallError {
        CallError::Unreachable { url: self.url.clone(), reason }
    }
}

/// The last cause of a status: those above it say no more than that there was a transport error.
fn reason(status: &Status) -> String {
    let mut cause = status.source();
    let mut said = status.message().to_owned();
    while let Some(error) = cause {
        said = error.to_string();
        cause = error.source();
    }
    said
}
