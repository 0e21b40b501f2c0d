//! `CREATE MATERIALIZED VIEW name AS query [RETAIN d]`, and reading such views at one commit.
//!
//! Behind a window such a view is its query, as any view is. Without one it is the rows that it keeps: those are read
//! by queries that read no stream, which see each view as it was when they began.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::catalog::TableProvider;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use millstream_engine::plan::EmissionMode;
use millstream_engine::results::MaterializedRows;
use millstream_engine::time::Span;

use crate::duration::{Parameters, parse_duration};
use crate::error::{Error, Result};
use crate::parse::{Context, parse_query};
use crate::session::{Session, view_definition};
use crate::statement::{Body, Create, ParsedQuery, RelationKind, Statement};
use crate::token::{Cursor, is_word};

/// The snapshots that a query reads, by the view's name: each view has one, however often it is read.
pub(crate) type Snapshots = Mutex<BTreeMap<String, Arc<dyn TableProvider>>>;

/// Reads what follows the name.
pub(crate) fn parse_materialized_view(
    context: Context<'_>,
    cursor: &mut Cursor<'_>,
    name: String,
    create: Create,
) -> Result<Body> {
    if create.or_replace {
        let hint = format!("write DROP MATERIALIZED VIEW {name} first: what it keeps goes with it");
        return Err(Error::unsupported("OR REPLACE of a materialized view", hint).at(create.name_location));
    }
    cursor.expect_word("as")?;
    let (query, retain) = take_retain(cursor.rest(), context.parameters)?;
    let query = parse_query(context, &mut Cursor::new(query))?;
    Ok(Body::CreateMaterializedView { name, query, retain, create })
}

/// Takes `RETAIN d` off the end of a query.
fn take_retain<'a>(
    tokens: &'a [TokenWithSpan],
    parameters: &Parameters,
) -> Result<(&'a [TokenWithSpan], Option<Span>)> {
    let Some(start) = retain_start(tokens) else { return Ok((tokens, None)) };
    let (query, clause) = tokens.split_at(start);
    let mut cursor = Cursor::new(clause);
    let place = cursor.location();
    cursor.eat_word("retain");
    let retain = parse_duration(&mut cursor, Some(parameters))?;
    cursor.expect_end()?;
    if retain.0 < 0 {
        let error = Error::new(format!("RETAIN {retain}, which is negative"));
        return Err(error.hint("write RETAIN 1 hour; with 0 seconds the last instant alone is kept").at(place));
    }
    Ok((query, Some(retain)))
}

/// Where the clause begins: the last word RETAIN outside all parentheses that a duration follows.
fn retain_start(tokens: &[TokenWithSpan]) -> Option<usize> {
    let mut depth = 0_usize;
    let mut found = None;
    for (index, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            word if depth == 0 && is_word(word, "retain") && starts_duration(tokens.get(index + 1)) => {
                found = Some(index);
            }
            _ => {}
        }
    }
    found
}

fn starts_duration(token: Option<&TokenWithSpan>) -> bool {
    let keywords = ["from", "as", "and", "or", "in", "is", "like", "between", "not", "asc", "desc", "nulls", "limit"];
    match token.map(|token| &token.token) {
        Some(Token::Number(..) | Token::SingleQuotedString(_) | Token::Placeholder(_) | Token::Minus) => true,
        Some(word @ Token::Word(_)) => !keywords.iter().any(|keyword| is_word(word, keyword)),
        _ => false,
    }
}

impl Session {
    pub(crate) fn create_materialized_view(
        &self,
        name: &str,
        query: &ParsedQuery,
        retain: Option<Span>,
        create: &Create,
    ) -> Result<Statement> {
        let emission = query.emission;
        if emission.mode != EmissionMode::Results || emission.lateness.is_some() || query.late_sink.is_some() {
            let message = "EMIT, ISTREAM, DSTREAM, ALLOW LATENESS or LATE DATA TO in a materialized view";
            let hint = "leave it out: the view keeps the results of windows that have closed";
            return Err(Error::unsupported(message, hint).at(create.name_location));
        }
        let planned = self.query(query)?;
        if !planned.is_streaming {
            let error = Error::new(format!("the materialized view \"{name}\" reads no stream"));
            return Err(error.hint("write CREATE VIEW: it is computed when it is read").at(create.name_location));
        }
        let definition = view_definition(name, query, &planned, create)?;
        let statement = Statement::CreateMaterializedView { definition, query: planned, retain };
        self.create(RelationKind::MaterializedView, name, create, statement)
    }
}

/// The snapshot of a view that the query reads.
///
/// # Errors
/// Fails if the rows cannot be read.
pub(crate) fn snapshot(
    snapshots: &Snapshots,
    name: &str,
    rows: &dyn MaterializedRows,
) -> Result<Arc<dyn TableProvider>> {
    let mut taken = snapshots.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(snapshot) = taken.get(name) {
        return Ok(Arc::clone(snapshot));
    }
    let snapshot = rows.snapshot().map_err(|error| Error::new(format!("\"{name}\" cannot be read: {error}")))?;
    Ok(Arc::clone(taken.entry(name.to_owned()).or_insert(snapshot)))
}

/// Notes rows that a query reads besides; gives those that it has noted under the name before.
pub(crate) fn keep_snapshot(snapshots: &Snapshots, name: &str, rows: Arc<dyn TableProvider>) -> Arc<dyn TableProvider> {
    let mut taken = snapshots.lock().unwrap_or_else(PoisonError::into_inner);
    Arc::clone(taken.entry(name.to_owned()).or_insert(rows))
}

/// Refuses a query over streams that reads the rows that a view keeps: which ones would depend on when it runs.
pub(crate) fn check_snapshots(snapshots: &Snapshots, query: &ParsedQuery) -> Result<()> {
    let taken = snapshots.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(name) = taken.keys().next() else { return Ok(()) };
    let error = Error::new(format!("a query over streams cannot read the rows that \"{name}\" keeps: they change"));
    let hint = format!("give it a window, as the streams have: {name} [Range 5 minutes, Slide 1 minute]");
    Err(error.hint(hint).at(query.find(&[name])))
}
