//! What a query gives of its results, and where its late rows go: `ISTREAM`, `DSTREAM` and `RSTREAM` in front, `EMIT …`
//! and what follows it at the end of a statement.
//!
//! ```text
//! SELECT ISTREAM …          ISTREAM (SELECT …)
//! … EMIT FINAL | ON WINDOW CLOSE | AFTER WINDOW CLOSE | AFTER WATERMARK
//! … EMIT CHANGES | ON UPDATE
//! … EMIT EVERY d | PERIODIC d
//! … ALLOW LATENESS d
//! … WITH EMPTY WINDOWS
//! … LATE DATA TO sink
//! ```
//!
//! They are taken off the tokens before the parser sees them.

use std::sync::Arc;
use std::time::Duration;

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use millstream_engine::plan::{Emission, EmissionMode, Location};

use crate::duration::{Parameters, parse_duration};
use crate::error::{Error, Result, location};
use crate::quoting::is_operator;
use crate::token::{Cursor, is_word};

/// What a query says besides what its rows are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tail {
    /// What it gives of its results.
    pub(crate) emission: Emission,
    /// The sink for rows that are too late.
    pub(crate) late_sink: Option<Arc<NamedSink>>,
}

/// A sink that a query names, and where.
#[derive(Debug)]
pub(crate) struct NamedSink {
    pub(crate) name: String,
    pub(crate) location: Option<Location>,
}

/// Takes what is said about emission and late rows off the tokens of a query.
///
/// # Errors
/// It is said twice, or contradicts itself.
pub(crate) fn take_emission(tokens: &[TokenWithSpan], parameters: &Parameters) -> Result<(Vec<TokenWithSpan>, Tail)> {
    let end = tail_start(tokens);
    let (query, clauses) = tokens.split_at(end);
    let mut tail = Tail::default();
    let (query, relation) = take_relation_to_stream(query)?;
    if let Some(mode) = relation {
        tail.emission.mode = mode;
    }
    let mut cursor = Cursor::new(clauses);
    let mut has_mode = relation.is_some();
    while !cursor.is_done() {
        parse_clause(&mut cursor, parameters, &mut tail, &mut has_mode)?;
    }
    Ok((query, tail))
}

/// The place of EMIT at the end of a query, if it is there.
pub(crate) fn place_of_emit(tokens: &[TokenWithSpan]) -> Option<Location> {
    let tail = tokens.get(tail_start(tokens)..)?;
    tail.iter().find(|token| is_word(&token.token, "emit")).and_then(|token| location(token.span.start))
}

/// Where the clauses about emission begin, outside all parentheses.
fn tail_start(tokens: &[TokenWithSpan]) -> usize {
    let mut depth = 0_usize;
    let mut before = &Token::EOF;
    for (index, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => depth += 1,
            Token::RParen | Token::RBracket | Token::RBrace => depth = depth.saturating_sub(1),
            _ if depth == 0 && ends_operand(before) && starts_clause(tokens.get(index..).unwrap_or_default()) => {
                return index;
            }
            _ => {}
        }
        before = &token.token;
    }
    tokens.len()
}

/// Whether a clause may follow a token: none does where a name or a value is still to come.
fn ends_operand(token: &Token) -> bool {
    let opens = [Token::EOF, Token::Comma, Token::LParen, Token::Period];
    let words = ["select", "as", "from", "where", "by", "on", "and", "or", "not", "join", "having", "limit"];
    !is_operator(token) && !opens.contains(token) && !words.iter().any(|word| is_word(token, word))
}

/// Whether the tokens start with a clause about emission.
pub(crate) fn starts_clause(tokens: &[TokenWithSpan]) -> bool {
    let at = |words: &[&str]| {
        words.iter().enumerate().all(|(index, word)| tokens.get(index).is_some_and(|t| is_word(&t.token, word)))
    };
    let emits = ["changes", "final", "on", "after", "every", "periodic"];
    emits.iter().any(|word| at(&["emit", word]))
        || at(&["with", "empty", "windows"])
        || at(&["allow", "lateness"])
        || at(&["late", "data", "to"])
}

/// Takes ISTREAM, DSTREAM or RSTREAM off the start of a query.
fn take_relation_to_stream(tokens: &[TokenWithSpan]) -> Result<(Vec<TokenWithSpan>, Option<EmissionMode>)> {
    let token = |index: usize| tokens.get(index).map_or(&Token::EOF, |token| &token.token);
    if let (Some(mode), Token::LParen) = (mode_of(token(0)), token(1)) {
        let Some((last, inner)) = tokens.get(2..).and_then(<[_]>::split_last).filter(|(t, _)| t.token == Token::RParen)
        else {
            let error = Error::new(format!("{} (…) stands around a whole query", token(0)));
            return Err(error.hint("write ISTREAM (SELECT …)").at(tokens.first().and_then(|t| location(t.span.start))));
        };
        let _ = last;
        return Ok((inner.to_vec(), Some(mode)));
    }
    let follows = match token(2) {
        Token::Mul => is_word(token(3), "from") || *token(3) == Token::Comma,
        Token::Word(_) => !["from", "as"].iter().any(|word| is_word(token(2), word)),
        _ => false,
    };
    match mode_of(token(1)).filter(|_| is_word(token(0), "select") && follows) {
        Some(mode) => {
            let mut query = tokens.to_vec();
            query.remove(1);
            Ok((query, Some(mode)))
        }
        None => Ok((tokens.to_vec(), None)),
    }
}

fn mode_of(token: &Token) -> Option<EmissionMode> {
    let modes = [
        ("rstream", EmissionMode::Results),
        ("istream", EmissionMode::Insertions),
        ("dstream", EmissionMode::Deletions),
    ];
    modes.into_iter().find(|(word, _)| is_word(token, word)).map(|(_, mode)| mode)
}

fn parse_clause(cursor: &mut Cursor<'_>, parameters: &Parameters, tail: &mut Tail, has_mode: &mut bool) -> Result<()> {
    let emission = &mut tail.emission;
    let place = cursor.location();
    let twice = if cursor.eat_word("emit") {
        let mode = parse_mode(cursor, parameters)?;
        if *has_mode && emission.mode != mode {
            let error = Error::new("the query says twice what it gives of its results");
            return Err(error.hint("keep ISTREAM, DSTREAM or EMIT, one of them").at(place));
        }
        emission.mode = mode;
        std::mem::replace(has_mode, true)
    } else if cursor.eat_words(&["allow", "lateness"]) {
        let lateness = parse_duration(cursor, Some(parameters))?;
        if lateness.0 <= 0 {
            let error = Error::new(format!("ALLOW LATENESS {lateness}, which is not positive"));
            return Err(error.hint("write ALLOW LATENESS 1 minute, or leave it out").at(place));
        }
        emission.lateness.replace(lateness).is_some()
    } else if cursor.eat_words(&["with", "empty", "windows"]) {
        std::mem::replace(&mut emission.empty_windows, true)
    } else if cursor.eat_words(&["late", "data", "to"]) {
        let location = cursor.location();
        let name = cursor.expect_object_name("a sink")?;
        tail.late_sink.replace(Arc::new(NamedSink { name, location })).is_some()
    } else {
        let clauses = "EMIT, ALLOW LATENESS, WITH EMPTY WINDOWS, LATE DATA TO or the end of the statement";
        return Err(cursor.expected(clauses));
    };
    if twice {
        return Err(Error::new("the clause stands there twice").hint("leave one of them out").at(place));
    }
    Ok(())
}

fn parse_mode(cursor: &mut Cursor<'_>, parameters: &Parameters) -> Result<EmissionMode> {
    let finals: [&[&str]; 4] =
        [&["final"], &["on", "window", "close"], &["after", "window", "close"], &["after", "watermark"]];
    if finals.into_iter().any(|words| cursor.eat_words(words)) {
        refuse_delay(cursor)?;
        return Ok(EmissionMode::Results);
    }
    if cursor.eat_word("changes") || cursor.eat_words(&["on", "update"]) {
        refuse_delay(cursor)?;
        return Ok(EmissionMode::Changes { every: None });
    }
    if cursor.eat_word("every") || cursor.eat_word("periodic") {
        let place = cursor.location();
        let every = parse_duration(cursor, Some(parameters))?;
        refuse_delay(cursor)?;
        return match u64::try_from(every.0) {
            Ok(nanos) if nanos > 0 => Ok(EmissionMode::Changes { every: Some(Duration::from_nanos(nanos)) }),
            _ => Err(Error::new(format!("EMIT EVERY {every}, which is not positive")).at(place)),
        };
    }
    let expected = "FINAL, CHANGES, EVERY, ON WINDOW CLOSE, AFTER WINDOW CLOSE, AFTER WATERMARK or ON UPDATE";
    Err(cursor.expected(expected))
}

/// Refuses what others write behind EMIT and that has another place here.
fn refuse_delay(cursor: &Cursor<'_>) -> Result<()> {
    let place = cursor.location();
    if cursor.at_words(&["with", "delay"]) || cursor.at_words(&["with", "batch"]) || cursor.at_word("repeat") {
        let hint = "the delay is the stream's: WATERMARK FOR ts AS ts - INTERVAL '2' SECOND";
        return Err(Error::unsupported("a delay behind EMIT", hint).at(place));
    }
    Ok(())
}
