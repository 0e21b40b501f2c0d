//! The engine's error: whose fault it is, what to do about it, and the cause underneath.

use std::io;

use datafusion::error::DataFusionError;

use crate::plan::Location;

/// The result of the engine's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, sorted by who can mend it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The query cannot be run as it stands; the user changes the text.
    #[error("{message}")]
    Query {
        /// What is wrong, in the user's words.
        message: String,
        /// What to type instead.
        hint: Option<String>,
        /// Where in the text, if it is known more exactly than the statement.
        location: Option<Location>,
    },
    /// The input holds something that cannot be used, and the stream is told to fail on it.
    #[error("{message}")]
    Data {
        /// Source, place, column and value.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Something outside the process failed: a file, a socket, a server.
    #[error("{context}")]
    External {
        /// What was being done, and to what.
        context: String,
        /// The failure itself.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The state directory holds something that cannot be used: damage, another format, another query.
    #[error("{message}")]
    State {
        /// What is wrong, with file and place.
        message: String,
        /// What to do about it.
        hint: Option<String>,
    },
    /// Another process has the state directory.
    #[error("{message}")]
    InUse {
        /// Which directory and process.
        message: String,
        /// What to do about it.
        hint: String,
    },
    /// An executor is gone, or holds no longer what it was asked about: the query goes on from its lineage.
    #[error("{message}")]
    Lost {
        /// Which one, and how that was noticed.
        message: String,
    },
    /// A plan failed while it was built or run: a division by zero, an overflow, a bad cast.
    #[error("the plan failed")]
    Plan(#[source] Box<DataFusionError>),
    /// The failure of an input that several queries share.
    #[error(transparent)]
    Shared(std::sync::Arc<Self>),
    /// One of the engine's invariants does not hold: a bug.
    #[error("internal error: {0}")]
    Internal(String),
}

impl Error {
    /// A fault of the query, with what to type instead.
    pub fn query(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Query { message: message.into(), hint: Some(hint.into()), location: None }
    }

    /// The same fault of the query, at a place in its text.
    #[must_use]
    pub fn at(mut self, place: Option<Location>) -> Self {
        if let Self::Query { location, .. } = &mut self {
            *location = location.or(place);
        }
        self
    }

    /// A fault of the input data.
    pub fn data(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::Data { message: message.into(), hint: Some(hint.into()) }
    }

    /// A state directory that cannot be used as it stands.
    pub fn state(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self::State { message: message.into(), hint: Some(hint.into()) }
    }

    /// A failure outside the process.
    pub fn external(context: impl Into<String>, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self::External { context: context.into(), source: source.into() }
    }

    /// A broken invariant.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::Internal(message.into())
    }

    /// Whether a write failed for want of room, so that it may be tried again.
    pub fn is_disk_full(&self) -> bool {
        match self {
            Self::External { source, .. } => {
                let kind = source.downcast_ref::<io::Error>().map(io::Error::kind);
                matches!(kind, Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
            }
            Self::Shared(error) => error.is_disk_full(),
            _ => false,
        }
    }

    /// Whether another process has what this one needs, which may end.
    pub const fn is_in_use(&self) -> bool {
        matches!(self, Self::InUse { .. })
    }

    /// An executor that is gone, or has forgotten.
    pub fn lost(message: impl Into<String>) -> Self {
        Self::Lost { message: message.into() }
    }

    /// Whether executors were lost, so that the query is to go on with those that are left.
    pub fn is_lost(&self) -> bool {
        match self {
            Self::Lost { .. } => true,
            Self::Shared(error) => error.is_lost(),
            _ => false,
        }
    }

    /// What the user may do, where that is known.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Query { hint, .. } | Self::Data { hint, .. } | Self::State { hint, .. } => hint.as_deref(),
            Self::InUse { hint, .. } => Some(hint),
            Self::Shared(error) => error.hint(),
            Self::Plan(error) if is_out_of_memory(error) => Some(
                "the plan needs more memory than plan_memory allows: SET plan_memory = '4 GiB' or more, shorten the \
                 window, or drop columns and rows before the window",
            ),
            _ => None,
        }
    }
}

fn is_out_of_memory(error: &DataFusionError) -> bool {
    matches!(error.find_root(), DataFusionError::ResourcesExhausted(_))
}

impl From<DataFusionError> for Error {
    /// An engine error that travelled through a plan comes out as itself.
    fn from(error: DataFusionError) -> Self {
        match error {
            DataFusionError::External(inner) => match inner.downcast::<Self>() {
                Ok(own) => *own,
                Err(other) => Self::Plan(Box::new(DataFusionError::External(other))),
            },
            DataFusionError::Shared(shared) => Self::Plan(Box::new(DataFusionError::Shared(shared))),
            other => Self::Plan(Box::new(other)),
        }
    }
}

impl From<datafusion::arrow::error::ArrowError> for Error {
    fn from(error: datafusion::arrow::error::ArrowError) -> Self {
        Self::from(DataFusionError::from(error))
    }
}

impl From<Error> for DataFusionError {
    fn from(error: Error) -> Self {
        match error {
            Error::Plan(inner) => *inner,
            other => Self::External(Box::new(other)),
        }
    }
}
