//! Why a test failed, for a person to read.

use millstream_engine::plan::Location;
use millstream_sql::Error as Refusal;

use crate::session::Script;

/// The message of a failed step, with its place in the text and the rows that differ.
#[derive(Debug)]
pub(super) struct Failure(pub(super) String);

impl Failure {
    /// A fault in the text of `script`.
    pub(super) fn new(error: &Refusal, script: &Script) -> Self {
        Self(error.render(&script.text))
    }

    /// A fault in the text of another file than that of the test.
    pub(super) fn elsewhere(error: &Refusal, script: &Script) -> Self {
        Self(format!("{}: {}", script.origin, error.render(&script.text)))
    }

    /// The same with a table behind it.
    pub(super) fn with_table(mut self, table: &str) -> Self {
        self.0 = format!("{}\n{table}", self.0);
        self
    }
}

/// A failure of the engine in the words of a refusal; the causes follow the message.
pub(super) fn refusal_of(error: &millstream_engine::Error, place: Option<Location>) -> Refusal {
    let mut message = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let line = error.to_string();
        // A shared failure shows itself as its own cause.
        if !message.ends_with(&line) {
            message = format!("{message}: {line}");
        }
        cause = error.source();
    }
    let location = match error {
        millstream_engine::Error::Query { location, .. } => location.or(place),
        _ => place,
    };
    let refusal = Refusal::new(message).at(location);
    match error.hint() {
        Some(hint) => refusal.hint(hint),
        None => refusal,
    }
}
