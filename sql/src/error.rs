//! The crate's error: what is wrong in the user's words, what to type instead, and where.
//!
//! Everything here is the fault of the text; a failure that is not carries its cause as its source.

use std::fmt;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::sql::sqlparser::tokenizer::Location as TokenLocation;
use millstream_engine::plan::Location;

/// The result of the crate's fallible functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A refusal of a statement.
#[derive(Debug, Clone, thiserror::Error)]
pub struct Error {
    /// What is wrong, in the user's words.
    pub message: String,
    /// What to type instead.
    pub hint: Option<String>,
    /// The place in the text, where it is known.
    pub location: Option<Location>,
    /// The planner's error underneath, if it is one.
    #[source]
    pub source: Option<Arc<DataFusionError>>,
}

impl Error {
    /// A refusal without a hint or a place.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None, location: None, source: None }
    }

    /// A part of the wider dialect that does nothing yet, with what works instead.
    pub fn unsupported(what: impl fmt::Display, hint: impl Into<String>) -> Self {
        Self::new(format!("unsupported yet: {what}")).hint(hint)
    }

    /// Says what to type instead.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Says where, unless that is known already.
    #[must_use]
    pub fn at(mut self, location: Option<Location>) -> Self {
        self.location = self.location.or(location);
        self
    }

    /// The message with the line of `text` it is about and a caret under the place.
    ///
    /// `text` is the whole text that was parsed.
    pub fn render(&self, text: &str) -> String {
        let mut rendered = format!("error: {}", self.message);
        if let Some(location) = self.location {
            rendered.push_str(&excerpt(text, location));
        }
        if let Some(hint) = &self.hint {
            rendered.push_str(&format!("\nhint: {hint}"));
        }
        rendered
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Location { line, column }) = self.location {
            write!(f, "line {line}, column {column}: ")?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\nhint: {hint}"),
            None => Ok(()),
        }
    }
}

impl From<Error> for millstream_engine::Error {
    fn from(error: Error) -> Self {
        Self::Query { message: error.message, hint: error.hint, location: error.location }
    }
}

/// The place of a token; the tokenizer marks "unknown" by line 0.
pub(crate) fn location(place: TokenLocation) -> Option<Location> {
    (place.line > 0).then_some(Location { line: place.line, column: place.column })
}

/// The line of `text` at `location`, numbered, with a caret; nothing if the text has no such line.
fn excerpt(text: &str, location: Location) -> String {
    let index = usize::try_from(location.line.saturating_sub(1)).unwrap_or(usize::MAX);
    let Some(line) = text.lines().nth(index) else { return String::new() };
    let number = location.line.to_string();
    let gutter = " ".repeat(number.len());
    let before = usize::try_from(location.column.saturating_sub(1)).unwrap_or(0).min(line.chars().count());
    // Tabs are kept so that the caret stands under its character whatever their width.
    let indent: String = line.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
    format!(
        "\n{gutter}--> line {number}, column {}\n{gutter} |\n{number} | {line}\n{gutter} | {indent}^",
        location.column
    )
}
