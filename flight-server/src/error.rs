//! What can end a command, and how it is shown.

use std::fmt::Write as _;

/// The result of the binary's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure, with the text it is about where there is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The SQL was refused.
    #[error("{error}")]
    Sql {
        /// The refusal.
        error: Box<millstream_sql::Error>,
        /// The whole text.
        text: String,
        /// The file it came from.
        origin: String,
    },
    /// A query, a source or a sink failed.
    #[error(transparent)]
    Engine(#[from] millstream_engine::Error),
    /// The command was not used as it should be.
    #[error("{0}")]
    Usage(String),
    /// Tests failed, which have said why.
    #[error("{failed} of {all} tests failed")]
    Tests {
        /// How many failed.
        failed: usize,
        /// How many there were.
        all: usize,
    },
    /// A server has refused something, in its own words.
    #[error("{0}")]
    Server(String),
    /// Something the binary itself did failed.
    #[error("{context}")]
    Io {
        /// What was being done.
        context: String,
        /// The failure.
        #[source]
        source: std::io::Error,
    },
}

impl Error {
    /// The message with its place, its causes and what to do, for a person to read.
    pub fn render(&self) -> String {
        match self {
            Self::Sql { error, text, origin } => format!("{origin}: {}", error.render(text)),
            // It has said what kind of error it is.
            Self::Server(said) if said.contains("error: ") => said.clone(),
            other => {
                let mut shown = format!("error: {other}");
                let mut cause = std::error::Error::source(other);
                while let Some(error) = cause {
                    // A shared failure shows itself as its own cause.
                    let line = error.to_string();
                    if !shown.ends_with(&line) {
                        let _ = write!(shown, "\n  because: {line}");
                    }
                    cause = error.source();
                }
                if let Self::Engine(error) = other
                    && let Some(hint) = error.hint()
                {
                    let _ = write!(shown, "\nhint: {hint}");
                }
                shown
            }
        }
    }

    /// Whether it says no more than that nobody reads the output any longer, as behind `| head`.
    pub fn is_output_closed(&self) -> bool {
        match self {
            Self::Engine(error) => millstream_connectors::sinks::is_output_closed(error),
            Self::Io { source, .. } => source.kind() == std::io::ErrorKind::BrokenPipe,
            _ => false,
        }
    }

    /// The exit code that says what kind of failure it is.
    pub const fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            _ => 1,
        }
    }
}
