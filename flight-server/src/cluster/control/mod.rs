//! Questions and answers between the processes of a cluster: JSON in the bodies of Flight's `DoAction`.
//!
//! ```text
//!   ControlClient::call(action, query) ── DoAction {action, JSON} ──► control_service ──► Actions::act
//!                 answer or CallError  ◄── JSON, or a status ────────     answer or ActionError
//! ```
//!
//! No messages of our own in protobuf: both ends are one version of one binary, and JSON can be read in a trace.

mod client;
mod service;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use client::{CallError, ControlClient};
pub(crate) use service::control_service;

use async_trait::async_trait;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

/// The longest body of a question or an answer, in bytes.
const MAX_BODY_BYTES: usize = 64 << 20;
/// How much of a message is sent: it travels in a header, where all of 16 KiB have to hold it, three bytes for one.
const MAX_MESSAGE_BYTES: usize = 4 << 10;
/// The header that tells what a peer has answered from what the transport says by the same codes.
const ANSWERED: &str = "millstream-answered";

/// What a process does when it is asked.
///
/// # Contract
/// The future of `act` is dropped when the one who asked gives up; what must not be left half done belongs in a task.
#[async_trait]
pub(crate) trait Actions: Send + Sync + 'static {
    /// Carries out an action, and gives the JSON of its answer.
    ///
    /// # Errors
    /// [`ErrorKind::Unknown`] for an action that it does not have, so that several can be asked in turn.
    async fn act(&self, action: &str, body: &[u8]) -> Result<Vec<u8>, ActionError>;
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ActionError {
    pub(crate) kind: ErrorKind,
    /// For a person; only its beginning is sent if it is very long.
    pub(crate) message: String,
}

/// What the one who asked should do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    /// It spoke of a past that is over: a dead incarnation, an old term. It must find out where it stands.
    Stale,
    /// It may not have that; asking again gives the same.
    Refused,
    /// It was tried and went wrong.
    Failed,
    /// There is no such action.
    Unknown,
}

impl ActionError {
    pub(crate) fn stale(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Stale, message: message.into() }
    }

    pub(crate) fn refused(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Refused, message: message.into() }
    }

    pub(crate) fn failed(message: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Failed, message: message.into() }
    }

    /// There is no action of this name.
    pub(crate) fn unknown(action: &str) -> Self {
        Self { kind: ErrorKind::Unknown, message: format!("there is no action {action:?}") }
    }
}

impl ErrorKind {
    const ALL: [Self; 4] = [Self::Stale, Self::Refused, Self::Failed, Self::Unknown];

    const fn code(self) -> Code {
        match self {
            Self::Stale => Code::Aborted,
            Self::Refused => Code::FailedPrecondition,
            Self::Failed => Code::Internal,
            Self::Unknown => Code::Unimplemented,
        }
    }
}

impl From<ActionError> for Status {
    fn from(error: ActionError) -> Self {
        let mut status = Self::new(error.kind.code(), beginning(&error.message));
        status.metadata_mut().insert(ANSWERED, MetadataValue::from_static("error"));
        status
    }
}

/// What a peer has answered; none if the status comes from somewhere between.
fn answered(status: &Status) -> Option<ActionError> {
    status.metadata().get(ANSWERED)?;
    let kind = ErrorKind::ALL.into_iter().find(|kind| kind.code() == status.code())?;
    Some(ActionError { kind, message: status.message().to_owned() })
}

/// As much of a message as can be sent.
fn beginning(message: &str) -> &str {
    message.get(..message.floor_char_boundary(MAX_MESSAGE_BYTES)).unwrap_or_default()
}

/// Reads the body of a question.
///
/// # Errors
/// Refuses what is not the JSON of a `Q`.
pub(crate) fn query<Q: DeserializeOwned>(action: &str, body: &[u8]) -> Result<Q, ActionError> {
    serde_json::from_slice(body)
        .map_err(|error| ActionError::refused(format!("the body of {action:?} cannot be read: {error}")))
}

/// Writes the body of an answer.
///
/// # Errors
/// Fails for what has no JSON, such as a map whose keys are no texts.
pub(crate) fn answer<A: Serialize>(action: &str, answer: &A) -> Result<Vec<u8>, ActionError> {
    serde_json::to_vec(answer)
        .map_err(|error| ActionError::failed(format!("the answer to {action:?} cannot be written: {error}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use tokio::net::TcpListener;

    use super::testing::{serve, serve_at};
    use super::*;
    use crate::cluster::link::Links;

    const DEADLINE: Duration = Duration::from_secs(60);

    /// Doubles numbers, fails in every way, and never comes to an end.
    struct Doubling;

    #[async_trait]
    impl Actions for Doubling {
        async fn act(&self, action: &str, body: &[u8]) -> Result<Vec<u8>, ActionError> {
            match action {
                "double" => answer(action, &(2 * query::<u64>(action, body)?)),
                "stale" => Err(ActionError::stale("an old term")),
                "refuse" => Err(ActionError::refused("not here — never")),
                "fail" => Err(ActionError::failed("x".repeat(100_000))),
                "wait" => std::future::pending().await,
                _ => Err(ActionError::unknown(action)),
            }
        }
    }

    async fn ask(action: &str, deadline: Duration) -> Result<u64, CallError> {
        let (url, _server) = serve(Arc::new(Doubling)).await;
        ControlClient::new(&Links::plain(), &url).unwrap().call(action, &21_u64, deadline).await
    }

    #[tokio::test]
    async fn a_question_gets_its_answer() {
        assert_eq!(ask("double", DEADLINE).await.unwrap(), 42);
    }

    #[tokio::test]
    async fn large_bodies_pass_both_ways() {
        struct Echo;
        #[async_trait]
        impl Actions for Echo {
            async fn act(&self, _: &str, body: &[u8]) -> Result<Vec<u8>, ActionError> {
                Ok(body.to_vec())
            }
        }
        let (url, _server) = serve(Arc::new(Echo)).await;
        let client = ControlClient::new(&Links::plain(), &url).unwrap();
        let sent = "x".repeat(20 << 20);
        let back: String = client.call("echo", &sent, DEADLINE).await.unwrap();
        assert!(back == sent, "{} bytes of {}", back.len(), sent.len());
    }

    #[tokio::test]
    async fn each_kind_of_error_arrives_as_what_it_is() {
        let stale = ask("stale", DEADLINE).await.unwrap_err();
        assert!(matches!(&stale, CallError::Stale(said) if said == "an old term"), "{stale:?}");
        let refused = ask("refuse", DEADLINE).await.unwrap_err();
        assert!(matches!(&refused, CallError::Refused(said) if said == "not here — never"), "{refused:?}");
        let failed = ask("fail", DEADLINE).await.unwrap_err();
        assert!(matches!(&failed, CallError::Failed(said) if said.starts_with("xxx")), "{failed:?}");
    }

    #[tokio::test]
    async fn an_unknown_action_and_a_body_that_cannot_be_read_are_told() {
        let unknown = ask("treble", DEADLINE).await.unwrap_err();
        assert!(matches!(&unknown, CallError::Failed(said) if said.contains("no action \"treble\"")), "{unknown:?}");
        let (url, _server) = serve(Arc::new(Doubling)).await;
        let client = ControlClient::new(&Links::plain(), &url).unwrap();
        let unreadable = client.call::<_, u64>("double", "a text", DEADLINE).await.unwrap_err();
        assert!(matches!(&unreadable, CallError::Refused(said) if said.contains("cannot be read")), "{unreadable:?}");
    }

    #[tokio::test]
    async fn nobody_listening_is_unreachable_within_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let client = ControlClient::new(&Links::plain(), &url).unwrap();
        let begin = Instant::now();
        let gone = client.call::<_, u64>("double", &1, DEADLINE).await.unwrap_err();
        assert!(matches!(&gone, CallError::Unreachable { url: named, .. } if *named == url), "{gone:?}");
        assert!(begin.elapsed() < DEADLINE);
    }

    #[tokio::test]
    async fn whoever_does_not_answer_is_unreachable_at_the_deadline() {
        let silent = ask("wait", Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(&silent, CallError::Unreachable { reason, .. } if reason.contains("20 ms")), "{silent:?}");
    }

    #[tokio::test]
    async fn a_client_may_be_there_before_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let client = ControlClient::new(&Links::plain(), &format!("http://{address}")).unwrap();
        assert!(client.call::<_, u64>("double", &1, DEADLINE).await.is_err());
        let _server = serve_at(&address, Arc::new(Doubling)).await;
        assert_eq!(client.call::<_, u64>("double", &1, DEADLINE).await.unwrap(), 2);
    }

    #[test]
    fn codes_of_the_transport_are_no_answers() {
        for kind in ErrorKind::ALL {
            let error = ActionError { kind, message: "said".to_owned() };
            assert_eq!(answered(&Status::from(error.clone())), Some(error));
            assert_eq!(answered(&Status::new(kind.code(), "said")), None);
        }
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let cut = beginning(&"é".repeat(MAX_MESSAGE_BYTES)).to_owned();
        assert_eq!(cut.len(), MAX_MESSAGE_BYTES);
        let odd = format!("x{}", "é".repeat(MAX_MESSAGE_BYTES));
        assert_eq!(beginning(&odd).len(), MAX_MESSAGE_BYTES - 1);
    }
}
