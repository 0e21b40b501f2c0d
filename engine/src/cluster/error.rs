//! Errors on their way from an executor to the driver, where they are what they were.

use datafusion::error::DataFusionError;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// An error in words that travel.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct SentError {
    kind: Kind,
    message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Query,
    Data,
    State,
    Lost,
    Plan,
    Memory,
    Full,
    Other,
}

impl From<&Error> for SentError {
    fn from(error: &Error) -> Self {
        let kind = match error {
            Error::Query { .. } => Kind::Query,
            Error::Data { .. } => Kind::Data,
            Error::State { .. } => Kind::State,
            Error::Lost { .. } => Kind::Lost,
            _ if error.is_disk_full() => Kind::Full,
            Error::Shared(inner) => return Self::from(inner.as_ref()),
            Error::Plan(inner) => return Self::of_plan(inner),
            _ => Kind::Other,
        };
        Self { kind, message: with_causes(error), hint: error.hint().map(str::to_owned) }
    }
}

impl SentError {
    fn of_plan(error: &DataFusionError) -> Self {
        let (kind, message) = match error.find_root() {
            DataFusionError::ResourcesExhausted(message) => (Kind::Memory, message.clone()),
            _ => (Kind::Plan, error.to_string()),
        };
        Self { kind, message, hint: None }
    }
}

impl From<SentError> for Error {
    fn from(SentError { kind, message, hint }: SentError) -> Self {
        match kind {
            Kind::Query => Self::Query { message, hint, location: None },
            Kind::Data => Self::Data { message, hint },
            Kind::State => Self::State { message, hint },
            Kind::Lost => Self::Lost { message },
            Kind::Plan => Self::Plan(Box::new(DataFusionError::External(message.into()))),
            Kind::Memory => Self::Plan(Box::new(DataFusionError::ResourcesExhausted(message))),
            Kind::Full => {
                let full = std::io::Error::new(std::io::ErrorKind::StorageFull, message);
                Self::External { context: "an executor has no room".to_owned(), source: full.into() }
            }
            Kind::Other => Self::External { context: "an executor failed".to_owned(), source: message.into() },
        }
    }
}

/// An error with what lies beneath it, in a line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_arrives_as_what_it_was() {
        let sent = |error: &Error| {
            let json = serde_json::to_vec(&SentError::from(error)).unwrap();
            Error::from(serde_json::from_slice::<SentError>(&json).unwrap())
        };
        let error = sent(&Error::query("no such thing", "name another"));
        assert!(matches!(&error, Error::Query { message, .. } if message == "no such thing"), "{error:?}");
        assert_eq!(error.hint(), Some("name another"));
        assert!(sent(&Error::Lost { message: "gone".to_owned() }).is_lost());
        let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
        assert!(sent(&Error::external("writing", full)).is_disk_full());
        let plan = Error::from(DataFusionError::Execution("too large".to_owned()));
        let error = sent(&plan);
        assert!(matches!(error, Error::Plan(_)) && with_causes(&error).contains("too large"), "{error:?}");
        let full = Error::from(DataFusionError::ResourcesExhausted("no room".to_owned()));
        assert_eq!(sent(&full).hint(), full.hint());
    }
}
