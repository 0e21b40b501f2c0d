//! DataFusion's planning errors in the user's words.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::{Column, DataFusionError, Diagnostic, SchemaError};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_engine::plan::{Location, WINDOW_END, WINDOW_START};

use crate::catalog::Catalog;
use crate::error::{Error, location};
use crate::group_window::WINDOW_TIME;
use crate::statement::ParsedQuery;
use crate::suggest::{list, nearest};
use crate::token::lower_first;

/// The error of planning `query`, with its place and what to type instead.
pub(crate) fn planning_error(error: DataFusionError, query: &ParsedQuery, catalog: &Catalog) -> Error {
    let diagnostic = error.diagnostic().cloned();
    let place = diagnostic.as_ref().and_then(diagnostic_place);
    let own = own(&error).or_else(|| match error.find_root() {
        DataFusionError::SchemaError(schema_error, _) => Some(schema(schema_error, place, &diagnostic, query, catalog)),
        _ => None,
    });
    match own {
        Some(own) => own.at(place),
        None => other(error, diagnostic.as_ref(), place, query).at(place),
    }
}

/// The error of ours that the planner handed on, the outermost if one is the cause of another.
fn own(error: &DataFusionError) -> Option<Error> {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(own) = error.downcast_ref::<Error>() {
            return Some(own.clone());
        }
        next = error.source();
    }
    None
}

fn schema(
    error: &SchemaError,
    place: Option<Location>,
    diagnostic: &Option<Diagnostic>,
    query: &ParsedQuery,
    catalog: &Catalog,
) -> Error {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let place = place.or_else(|| find(query, field));
            let typed = typed(query, place).unwrap_or_else(|| (field.flat_name(), false));
            unknown_column(field, valid_fields, typed, catalog).at(place)
        }
        SchemaError::AmbiguousReference { field } => {
            let place = place.or_else(|| find(query, field));
            let (typed, _) = typed(query, place).unwrap_or_else(|| (field.flat_name(), false));
            ambiguous(&typed, diagnostic.as_ref()).at(place)
        }
        SchemaError::DuplicateQualifiedField { qualifier, .. } => {
            Error::new(format!("two relations are called \"{qualifier}\""))
                .hint("give each a name of its own: t AS a")
                .at(query.find_last(&[qualifier.table()]))
        }
        SchemaError::DuplicateUnqualifiedField { name } => {
            Error::new(format!("two columns are called \"{name}\"")).hint("give one of them a name of its own: x AS a")
        }
    }
}

/// `c.userID` without a `c`, `p.user` without a `user` in `p`, or `user` nowhere.
fn unknown_column(field: &Column, valid: &[Column], (typed, is_quoted): (String, bool), catalog: &Catalog) -> Error {
    let relations = relations(valid.iter());
    if let Some(relation) = &field.relation {
        let relation = relation.to_string();
        if !relations.contains(&relation) {
            return undefined_alias(&relation, field, valid, &typed);
        }
        let inside = valid.iter().filter(|column| column.relation.as_ref().is_some_and(|r| r.to_string() == relation));
        let names: Vec<&str> = inside.map(|column| catalog.spelling(&column.name)).collect();
        return Error::new(format!("\"{relation}\" has no column of that name: {typed}")).hint(offer(field, &names));
    }
    let error = Error::new(format!("unknown column \"{typed}\""));
    if [WINDOW_START, WINDOW_END, WINDOW_TIME].contains(&field.name.as_str()) {
        return error.hint("only a stream with a window has it: t [Range 5 minutes, Slide 1 minute]");
    }
    if is_quoted {
        return error.hint(format!("double quotes are for names: write text as '{typed}'"));
    }
    let names: BTreeSet<&str> = valid.iter().map(|column| catalog.spelling(&column.name)).collect();
    let names: Vec<&str> = names.into_iter().collect();
    if names.is_empty() { error } else { error.hint(offer(field, &names)) }
}

fn undefined_alias(relation: &str, field: &Column, valid: &[Column], typed: &str) -> Error {
    let error = Error::new(format!("undefined alias \"{relation}\" in {typed}"));
    let all: Vec<String> = relations(valid.iter()).into_iter().collect();
    let having: Vec<String> = relations(valid.iter().filter(|column| column.name == field.name)).into_iter().collect();
    let column = typed.rsplit_once('.').map_or(typed, |(_, column)| column);
    match (all.as_slice(), having.as_slice()) {
        ([], _) => error,
        (_, [only]) => error.hint(format!("the query has {}: write {only}.{column}", list(&all, "and"))),
        _ => error.hint(format!("the query has {}", list(&all, "and"))),
    }
}

fn ambiguous(typed: &str, diagnostic: Option<&Diagnostic>) -> Error {
    let error = Error::new(format!("ambiguous column \"{typed}\""));
    let notes = diagnostic.map(|diagnostic| diagnostic.notes.as_slice()).unwrap_or_default();
    let having = notes.iter().filter_map(|note| note.message.strip_prefix("possible column "));
    let having: Vec<&str> = having.filter_map(|column| column.rsplit_once('.')).map(|(relation, _)| relation).collect();
    if having.len() < 2 {
        return error.hint("give each column a name of its own: x AS a");
    }
    let choices: Vec<String> = having.iter().map(|relation| format!("{relation}.{typed}")).collect();
    error.hint(format!("{} have it: write {}", list(&having, "and"), list(&choices, "or")))
}

/// Errors that are a sentence of DataFusion's already.
fn other(
    error: DataFusionError,
    diagnostic: Option<&Diagnostic>,
    place: Option<Location>,
    query: &ParsedQuery,
) -> Error {
    let root = error.find_root();
    let text = root.message().into_owned();
    let known = not_grouped(&text, place, query).or_else(|| no_list(&text, query));
    let known = known.or_else(|| wrong_argument(&text, query));
    let is_missing = matches!(root, DataFusionError::NotImplemented(_));
    let own = known.unwrap_or_else(|| sentence(&text, is_missing, diagnostic));
    Error { source: Some(Arc::new(error)), ..own }
}

/// DataFusion's first sentence as the message; the second, if there is one, is advice.
fn sentence(text: &str, is_missing: bool, diagnostic: Option<&Diagnostic>) -> Error {
    let text = match diagnostic {
        Some(diagnostic) if !diagnostic.message.contains("incompatible types") => &diagnostic.message,
        _ => text,
    };
    let line = text.lines().next().unwrap_or_default();
    let (message, advice) = line.split_once(". ").unwrap_or((line, ""));
    let message = lower_first(message.trim_end_matches('.'));
    let message = if is_missing { format!("unsupported yet: {message}") } else { message };
    let advice = Some(lower_first(advice)).filter(|advice| !advice.is_empty());
    Error { hint: hint(&message, diagnostic).or(advice), ..Error::new(message) }
}

/// A column beside aggregates that is not in GROUP BY.
fn not_grouped(text: &str, place: Option<Location>, query: &ParsedQuery) -> Option<Error> {
    if !text.contains("must appear in the GROUP BY") {
        return None;
    }
    let (column, _) = typed(query, place)?;
    let error = Error::new(format!("the column {column} is neither in GROUP BY nor inside an aggregate"));
    Some(error.hint(format!("add {column} to GROUP BY, or write an aggregate such as MAX({column})")))
}

/// UNNEST of something that is no list.
fn no_list(text: &str, query: &ParsedQuery) -> Option<Error> {
    let is_it = text.contains("unnest() can only be applied to");
    let error = || Error::new("unnest takes a list").hint("make one: string_to_array(x, ' '), or ARRAY[x]");
    is_it.then(|| error().at(query.find(&["unnest"])))
}

/// Arguments of a type that the function does not take.
fn wrong_argument(text: &str, query: &ParsedQuery) -> Option<Error> {
    if !text.contains("failed to match any signature") && !text.contains("No function matches the given name") {
        return None;
    }
    let name = text.split('\'').nth(1)?.split('(').next()?;
    if let Some((_, refusal)) = text.split_once("user-defined coercion failed with: Error during planning: ") {
        let refusal = refusal.split("No function matches").next().unwrap_or(refusal);
        return Some(Error::new(refusal.trim_end_matches(['.', ' '])).at(query.find(&[name])));
    }
    if let Some((expected, received)) = text.split_once(" arguments but received ") {
        let expected = expected.rsplit(' ').next().unwrap_or_default();
        let received: String = received.chars().take_while(char::is_ascii_digit).collect();
        let message = format!("{name} takes {expected} {}, not {received}", plural("argument", expected));
        return Some(Error::new(message).at(query.find(&[name])));
    }
    let received = text.split("received ").nth(1).and_then(|rest| rest.split([' ', '.', ',']).next());
    let message = match received {
        Some(received) => format!("{name} does not take a {received}"),
        None => format!("{name} does not take these arguments"),
    };
    Some(Error::new(message).hint("convert the argument: CAST(x AS DOUBLE)").at(query.find(&[name])))
}

fn plural(noun: &str, count: &str) -> String {
    if count == "1" { noun.to_owned() } else { format!("{noun}s") }
}

fn hint(message: &str, diagnostic: Option<&Diagnostic>) -> Option<String> {
    if ["'tumble'", "'hop'"].iter().any(|function| message.contains(function)) {
        return Some("windows stand in FROM: FROM TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE)".into());
    }
    if message.contains("common argument type") {
        return Some("convert one side: CAST(x AS DOUBLE)".into());
    }
    if message.contains("#>") {
        return Some("write the path as arguments: json_as_text(document, 'a', 'b')".into());
    }
    let diagnostic = diagnostic?;
    let note = diagnostic.notes.iter().find_map(|note| note.message.strip_prefix("Possible function "));
    match (note, diagnostic.helps.first()) {
        (Some(function), _) => Some(format!("did you mean {}?", function.trim_matches('\''))),
        (None, Some(help)) => Some(lower_first(&help.message)),
        (None, None) => None,
    }
}

fn offer(field: &Column, names: &[&str]) -> String {
    match nearest(&field.name, names.iter().copied()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("the columns are {}", list(names, "and")),
    }
}

fn relations<'a>(columns: impl Iterator<Item = &'a Column>) -> BTreeSet<String> {
    columns.filter_map(|column| column.relation.as_ref()).map(ToString::to_string).collect()
}

fn diagnostic_place(diagnostic: &Diagnostic) -> Option<Location> {
    let span = diagnostic.span.or_else(|| diagnostic.notes.iter().find_map(|note| note.span))?;
    (span.start.line > 0).then_some(Location { line: span.start.line, column: span.start.column })
}

/// The first place where the query says the column's name as the planner reports it.
fn find(query: &ParsedQuery, field: &Column) -> Option<Location> {
    let is_it =
        |token: &Token| matches!(token, Token::Word(word) if word.value.to_lowercase() == field.name.to_lowercase());
    let index = query.tokens.iter().position(|token| is_it(&token.token))?;
    // A qualified name starts at its qualifier.
    let qualified = index.checked_sub(2).filter(|_| field.relation.is_some());
    let start = qualified.and_then(|start| query.tokens.get(start)).or_else(|| query.tokens.get(index))?;
    location(start.span.start)
}

/// The name at a place as typed, and whether it is one word in double quotes.
fn typed(query: &ParsedQuery, place: Option<Location>) -> Option<(String, bool)> {
    let place = place?;
    let index = query.tokens.iter().position(|token| location(token.span.start) == Some(place))?;
    let mut name = String::new();
    let mut is_quoted = false;
    for token in query.tokens.iter().skip(index) {
        match &token.token {
            Token::Word(word) if name.is_empty() || name.ends_with('.') => {
                is_quoted = name.is_empty() && word.quote_style.is_some();
                name.push_str(&word.value);
            }
            Token::Period if !name.is_empty() && !name.ends_with('.') => name.push('.'),
            _ => break,
        }
    }
    (!name.is_empty()).then_some((name, is_quoted))
}
