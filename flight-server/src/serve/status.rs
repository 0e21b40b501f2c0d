//! Failures as clients get them: a gRPC code and the words that a person would see in the shell.

use datafusion::arrow::error::ArrowError;
use millstream_engine::Error as EngineError;
use millstream_engine::secret::redacted;
use tonic::{Code, Status};

use crate::error::Error;

/// The status for a failure.
pub(super) fn status(error: &Error) -> Status {
    let code = match error {
        Error::Sql { .. } | Error::Usage(_) | Error::Tests { .. } => Code::InvalidArgument,
        Error::Engine(error) => code(error),
        Error::Io { .. } | Error::Server(_) => Code::Unavailable,
    };
    let text = error.render();
    let text = redacted(&text);
    Status::new(code, text.strip_prefix("error: ").unwrap_or(&text))
}

fn code(error: &EngineError) -> Code {
    match error {
        EngineError::Query { .. } | EngineError::Data { .. } => Code::InvalidArgument,
        EngineError::External { .. } if error.is_disk_full() => Code::ResourceExhausted,
        EngineError::External { .. } | EngineError::Lost { .. } => Code::Unavailable,
        EngineError::State { .. } | EngineError::InUse { .. } => Code::FailedPrecondition,
        // Out of memory has a hint; anything else a plan fails of is in the values.
        EngineError::Plan(_) if error.hint().is_some() => Code::ResourceExhausted,
        EngineError::Plan(_) => Code::InvalidArgument,
        EngineError::Shared(error) => code(error),
        EngineError::Internal(_) => Code::Internal,
    }
}

/// The status for Arrow data of a client that cannot be used.
pub(super) fn bad_arrow(error: &ArrowError) -> Status {
    Status::invalid_argument(format!("the Arrow data cannot be used: {error}"))
}

/// The status for what a client cannot have here.
pub(super) fn unimplemented(what: &str, instead: &str) -> Status {
    Status::unimplemented(format!("{what} is not supported; {instead}"))
}
