//! `CREATE MATERIALIZED VIEW name AS query [RETAIN d]`.
//!
//! Behind a window such a view is its query, as any view is. Without one it is the rows that it keeps: those are read
//! by queries that read no stream.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use millstream_engine::plan::EmissionMode;
use millstream_engine::time::Span;

use crate::duration::{Parameters, parse_duration};
use crate::error::{Error, Result};
use crate::parse::{Context, parse_query};
use crate::reads::Reads;
use crate::session::{Session, view_definition};
use crate::statement::{Body, Create, ParsedQuery, RelationKind, Statement};
use crate::token::{Cursor, is_word};

/// What the name of a query's state as a relation begins with.
pub(crate) const STATE_OF: &str = "state('";

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
    let Some(start) = retain_start(tokens, parameters) else { return Ok((tokens, None)) };
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

/// Where the clause begins: the last word RETAIN outside all parentheses behind which a duration ends the statement.
fn retain_start(tokens: &[TokenWithSpan], parameters: &Parameters) -> Option<usize> {
    let mut depth = 0_usize;
    let mut found = None;
    for (index, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            word if depth == 0 && is_word(word, "retain") => {
                found = found.max(tokens.get(index + 1..).filter(|rest| is_duration(rest, parameters)).map(|_| index));
            }
            _ => {}
        }
    }
    found
}

/// Whether the tokens are a duration, or a number that is to be one.
fn is_duration(tokens: &[TokenWithSpan], parameters: &Parameters) -> bool {
    let mut cursor = Cursor::new(tokens);
    match cursor.peek() {
        Token::Number(..) | Token::Minus => true,
        _ => parse_duration(&mut cursor, Some(parameters)).is_ok() && cursor.is_done(),
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

/// Refuses a query over streams that reads rows that are kept: which ones would depend on when it runs.
pub(crate) fn check_reads(reads: &Reads, query: &ParsedQuery) -> Result<()> {
    let Some(name) = reads.first_name() else { return Ok(()) };
    let error = Error::new(format!("a query over streams cannot read the rows that \"{name}\" keeps: they change"));
    let hint = if name.starts_with(STATE_OF) {
        "INSERT what it holds into a sink, and read that as a table".to_owned()
    } else {
        format!("give it a window, as the streams have: {name} [Range 5 minutes, Slide 1 minute]")
    };
    Err(error.hint(hint).at(query.find(&[&name, "state"])))
}
