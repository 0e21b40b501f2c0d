//! Syntax errors of the SQL parser, whose place is a part of their text.

use datafusion::sql::sqlparser::parser::ParserError;
use datafusion::sql::sqlparser::tokenizer::TokenWithSpan;
use millstream_engine::plan::Location;

use crate::error::{Error, location};
use crate::token::lower_first;

/// The parser's error over `tokens`, with its place.
pub(crate) fn syntax_error(error: &ParserError, tokens: &[TokenWithSpan]) -> Error {
    let end = tokens.last().and_then(|token| location(token.span.end));
    let start = tokens.first().and_then(|token| location(token.span.start));
    match error {
        ParserError::RecursionLimitExceeded => {
            Error::new("nesting too deep").hint("split the query into views").at(start)
        }
        ParserError::TokenizerError(message) | ParserError::ParserError(message) => {
            let (message, place) = split_place(message);
            let message = message.replace("found: EOF", "found the end of the statement").replace(": ", " ");
            Error::new(format!("syntax error: {}", lower_first(&message))).at(place.or(end))
        }
    }
}

/// The message without ` at Line: 1, Column: 8`, and that place.
fn split_place(message: &str) -> (&str, Option<Location>) {
    let Some((head, place)) = message.rsplit_once(" at Line: ") else { return (message, None) };
    let Some((line, column)) = place.split_once(", Column: ") else { return (message, None) };
    let location = line.trim().parse().ok().zip(column.trim().parse().ok());
    (head, location.map(|(line, column)| Location { line, column }))
}
