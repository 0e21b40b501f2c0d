//! The grammar of `CREATE FUNCTION` and `CREATE AGGREGATE` behind the name.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location as TokenLocation, Token, TokenWithSpan};

use crate::error::{Error, Result, location};
use crate::function::{AggregateBody, Body, FunctionDefinition, ParsedExpressions};
use crate::parse::{Context, parse_expressions, slice};
use crate::parse_error::syntax_error;
use crate::statement::{Body as StatementBody, Create};
use crate::token::{Cursor, fold, is_word, tokenize};
use crate::types::arrow_type;

const CLAUSES: [&str; 5] = ["state", "update", "merge", "inverse", "finish"];
const AGGREGATE_FORM: &str = "write (STATE (column TYPE = value, …), UPDATE (expression, …), MERGE (expression, …), \
                              INVERSE (expression, …), FINISH expression); INVERSE may be left out";

/// `(arg TYPE, …) RETURNS TYPE [LANGUAGE SQL] AS expression`; the expression may also stand behind RETURN, or in a
/// string in dollars, or in quotes if the language is said.
///
/// # Errors
/// It is malformed; the message says what should be next.
pub(crate) fn parse_function(
    context: Context<'_>,
    cursor: &mut Cursor<'_>,
    name: String,
    create: Create,
) -> Result<StatementBody> {
    let (arguments, returns) = parse_signature(cursor, &name, create)?;
    let language = parse_language(cursor)?;
    let (text, body) = if cursor.eat_word("return") {
        expression(context, cursor)?
    } else if cursor.eat_word("as") {
        match quoted_body(cursor, language)? {
            Some(inner) => {
                let inner_context = Context { text: &inner.text, ..context };
                let body = parse_expressions(inner_context, without_select(&inner.tokens))?;
                (inner.text.trim().to_owned(), body)
            }
            None => expression(context, cursor)?,
        }
    } else {
        return Err(cursor.expected("AS or RETURN and an expression"));
    };
    single(&body)?;
    let definition = FunctionDefinition { name, arguments, returns, text, body: Body::Function(body) };
    Ok(StatementBody::CreateFunction { definition: Arc::new(definition), create })
}

/// `(arg TYPE, …) RETURNS TYPE (STATE (…), UPDATE (…), MERGE (…), INVERSE (…), FINISH …)`.
///
/// # Errors
/// It is malformed; the message says what should be next.
pub(crate) fn parse_aggregate(
    context: Context<'_>,
    cursor: &mut Cursor<'_>,
    name: String,
    create: Create,
) -> Result<StatementBody> {
    let (arguments, returns) = parse_signature(cursor, &name, create)?;
    if arguments.is_empty() {
        let error = Error::new("an aggregate has at least one argument");
        return Err(error.hint("give it one that UPDATE does not use, as in COUNT").at(create.name_location));
    }
    let text = slice(context.text, cursor.rest()).to_owned();
    let body = parse_clauses(context, cursor)?;
    cursor.expect_end()?;
    check_columns(&body, &arguments, create)?;
    let definition = FunctionDefinition { name, arguments, returns, text, body: Body::Aggregate(Box::new(body)) };
    Ok(StatementBody::CreateFunction { definition: Arc::new(definition), create })
}

fn parse_signature(cursor: &mut Cursor<'_>, name: &str, create: Create) -> Result<(Vec<FieldRef>, DataType)> {
    if name.contains('.') {
        return Err(Error::unsupported("a dot in the name of a function", "leave it out").at(create.name_location));
    }
    cursor.expect(&Token::LParen).map_err(|error| error.hint("write the arguments: name(a TYPE, …) RETURNS TYPE"))?;
    let mut arguments: Vec<FieldRef> = Vec::new();
    while !cursor.eat(&Token::RParen) {
        let place = cursor.location();
        let argument = fold(cursor.expect_name("an argument, name TYPE")?);
        if arguments.iter().any(|other| *other.name() == argument) {
            return Err(Error::new(format!("two arguments are called \"{argument}\"")).at(place));
        }
        let data_type = parse_type(cursor, &[])?;
        arguments.push(Arc::new(Field::new(argument, data_type, true)));
        if !cursor.eat(&Token::Comma) && *cursor.peek() != Token::RParen {
            return Err(cursor.expected("\",\" or \")\""));
        }
    }
    cursor.expect_word("returns")?;
    Ok((arguments, parse_type(cursor, &["as", "return", "language"])?))
}

/// A type up to a comma, a closing parenthesis, `=`, the clauses of an aggregate or one of `ends`.
fn parse_type(cursor: &mut Cursor<'_>, ends: &[&str]) -> Result<DataType> {
    let place = cursor.location();
    let mut tokens = Vec::new();
    let mut depth = 0_usize;
    loop {
        let at_clauses =
            *cursor.peek() == Token::LParen && CLAUSES.iter().any(|clause| is_word(cursor.peek_nth(1), clause));
        match cursor.peek() {
            Token::EOF => break,
            Token::Comma | Token::RParen | Token::Eq if depth == 0 => break,
            _ if at_clauses || ends.iter().any(|end| cursor.at_word(end)) => break,
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        tokens.extend(cursor.next().cloned());
    }
    if tokens.is_empty() {
        return Err(cursor.expected("a type"));
    }
    let mut parser = Parser::new(&GenericDialect).with_tokens_with_locations(tokens.clone());
    let sql_type = parser.parse_data_type().map_err(|error| syntax_error(&error, &tokens))?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        let error = Error::unsupported(format!("\"{}\" after a type", next.token), "leave it out");
        return Err(error.at(location(next.span.start)));
    }
    arrow_type(&sql_type).map_err(|error| error.at(place))
}

/// `LANGUAGE SQL`; whether it is there.
fn parse_language(cursor: &mut Cursor<'_>) -> Result<bool> {
    if !cursor.eat_word("language") {
        return Ok(false);
    }
    let place = cursor.location();
    let language = cursor.expect_name("SQL")?;
    if language.value.eq_ignore_ascii_case("sql") {
        return Ok(true);
    }
    let error = Error::unsupported(format!("the language {}", language.value), "write LANGUAGE SQL, or leave it out");
    Err(error.at(place))
}

/// The rest of the statement.
fn expression(context: Context<'_>, cursor: &mut Cursor<'_>) -> Result<(String, ParsedExpressions)> {
    let tokens = cursor.rest();
    if tokens.is_empty() {
        return Err(cursor.expected("an expression"));
    }
    Ok((slice(context.text, tokens).to_owned(), parse_expressions(context, tokens)?))
}

/// A body in a string.
#[derive(Debug)]
struct Inner {
    text: String,
    tokens: Vec<TokenWithSpan>,
}

/// The body in a string that is next, up to the end of the statement; `None` if an expression is next.
fn quoted_body(cursor: &mut Cursor<'_>, mut is_sql: bool) -> Result<Option<Inner>> {
    let (text, opening) = match cursor.peek() {
        Token::DollarQuotedString(quoted) => {
            (quoted.value.clone(), quoted.tag.as_ref().map_or(2, |tag| tag.chars().count() + 2))
        }
        Token::SingleQuotedString(text) if is_sql || is_word(cursor.peek_nth(1), "language") => (text.clone(), 1),
        _ => return Ok(None),
    };
    let start = cursor.span().start;
    cursor.next();
    is_sql = is_sql || parse_language(cursor)?;
    cursor.expect_end()?;
    debug_assert!(is_sql || opening > 1, "a string without a language is an expression");
    let tokens = tokenize(&text).map_err(|error| Error { location: location(start), ..error })?;
    let tokens = tokens.into_iter().map(|token| moved(token, start, opening as u64)).collect();
    Ok(Some(Inner { text, tokens }))
}

/// The token with its place in the text around the string that starts at `start` with `opening` letters.
fn moved(mut token: TokenWithSpan, start: TokenLocation, opening: u64) -> TokenWithSpan {
    for place in [&mut token.span.start, &mut token.span.end] {
        if place.line == 1 {
            place.column += start.column + opening - 1;
        }
        place.line += start.line - 1;
    }
    token
}

/// PostgreSQL's bodies are queries: `SELECT expression;`.
fn without_select(tokens: &[TokenWithSpan]) -> &[TokenWithSpan] {
    let tokens = match tokens {
        [rest @ .., last] if last.token == Token::SemiColon => rest,
        all => all,
    };
    match tokens {
        [first, rest @ ..] if is_word(&first.token, "select") => rest,
        all => all,
    }
}

fn single(body: &ParsedExpressions) -> Result<()> {
    if body.list.len() == 1 {
        return Ok(());
    }
    let place = body.query.tokens.first().and_then(|token| location(token.span.start));
    Err(Error::new(format!("there are {} expressions where one should be", body.list.len())).at(place))
}

/// The clauses as far as read.
#[derive(Debug, Default)]
struct Clauses {
    state: Vec<(FieldRef, Option<ParsedExpressions>)>,
    update: Option<ParsedExpressions>,
    merge: Option<ParsedExpressions>,
    inverse: Option<ParsedExpressions>,
    finish: Option<ParsedExpressions>,
}

fn parse_clauses(context: Context<'_>, cursor: &mut Cursor<'_>) -> Result<AggregateBody> {
    let start = cursor.location();
    cursor.expect(&Token::LParen).map_err(|error| error.hint(AGGREGATE_FORM))?;
    let mut clauses = Clauses::default();
    loop {
        clauses.parse(context, cursor)?;
        if cursor.eat(&Token::RParen) {
            break;
        }
        cursor.expect(&Token::Comma).map_err(|_| cursor.expected("\",\" or \")\""))?;
    }
    let missing = |clause: &str| Error::new(format!("the aggregate has no {clause}")).hint(AGGREGATE_FORM).at(start);
    if clauses.state.is_empty() {
        return Err(missing("STATE"));
    }
    let finish = clauses.finish.ok_or_else(|| missing("FINISH"))?;
    single(&finish)?;
    Ok(AggregateBody {
        state: clauses.state,
        update: clauses.update.ok_or_else(|| missing("UPDATE"))?,
        merge: clauses.merge.ok_or_else(|| missing("MERGE"))?,
        inverse: clauses.inverse,
        finish,
    })
}

impl Clauses {
    /// Reads one clause.
    fn parse(&mut self, context: Context<'_>, cursor: &mut Cursor<'_>) -> Result<()> {
        let place = cursor.location();
        let Some(clause) = CLAUSES.into_iter().find(|clause| cursor.eat_word(clause)) else {
            return Err(cursor.expected("STATE, UPDATE, MERGE, INVERSE or FINISH").hint(AGGREGATE_FORM));
        };
        if clause == "state" {
            if !self.state.is_empty() {
                return Err(twice(clause).at(place));
            }
            self.state = parse_state(context, cursor)?;
            return Ok(());
        }
        let tokens = if clause == "finish" { take_until_end(cursor) } else { take_list(cursor)? };
        if tokens.is_empty() {
            return Err(cursor.expected("an expression"));
        }
        let slot = match clause {
            "update" => &mut self.update,
            "merge" => &mut self.merge,
            "inverse" => &mut self.inverse,
            _ => &mut self.finish,
        };
        if slot.replace(parse_expressions(context, &tokens)?).is_some() {
            return Err(twice(clause).at(place));
        }
        Ok(())
    }
}

fn twice(clause: &str) -> Error {
    Error::new(format!("{} is given twice", clause.to_uppercase()))
}

/// `(column TYPE = value, …)`.
fn parse_state(context: Context<'_>, cursor: &mut Cursor<'_>) -> Result<Vec<(FieldRef, Option<ParsedExpressions>)>> {
    cursor.expect(&Token::LParen)?;
    let mut state: Vec<(FieldRef, Option<ParsedExpressions>)> = Vec::new();
    loop {
        let place = cursor.location();
        let name = fold(cursor.expect_name("a column of the state, name TYPE = value")?);
        if state.iter().any(|(other, _)| *other.name() == name) {
            return Err(Error::new(format!("two columns of the state are called \"{name}\"")).at(place));
        }
        let data_type = parse_type(cursor, &["default"])?;
        let has_initial = cursor.eat(&Token::Eq) || cursor.eat_word("default");
        let initial = if has_initial {
            let tokens = take_until_end(cursor);
            if tokens.is_empty() {
                return Err(cursor.expected("a value"));
            }
            Some(parse_expressions(context, &tokens)?)
        } else {
            None
        };
        state.push((Arc::new(Field::new(name, data_type, true)), initial));
        if cursor.eat(&Token::RParen) {
            return Ok(state);
        }
        cursor.expect(&Token::Comma).map_err(|_| cursor.expected("\",\" or \")\""))?;
    }
}

/// The tokens between the parentheses that are next.
fn take_list(cursor: &mut Cursor<'_>) -> Result<Vec<TokenWithSpan>> {
    cursor.expect(&Token::LParen)?;
    let mut tokens = Vec::new();
    loop {
        tokens.append(&mut take_until_end(cursor));
        if cursor.eat(&Token::RParen) {
            return Ok(tokens);
        }
        if cursor.is_done() {
            return Err(cursor.expected("\")\""));
        }
        tokens.extend(cursor.next().cloned());
    }
}

/// The tokens up to a comma or parenthesis that ends the element.
fn take_until_end(cursor: &mut Cursor<'_>) -> Vec<TokenWithSpan> {
    let mut tokens = Vec::new();
    let mut depth = 0_usize;
    loop {
        match cursor.peek() {
            Token::EOF => break,
            Token::Comma | Token::RParen if depth == 0 => break,
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
            _ => {}
        }
        tokens.extend(cursor.next().cloned());
    }
    tokens
}

/// Checks that arguments and state have names of their own, and that each clause gives the whole state.
fn check_columns(body: &AggregateBody, arguments: &[FieldRef], create: Create) -> Result<()> {
    let state = || body.state.iter().map(|(field, _)| field.name());
    if let Some(both) = state().find(|name| arguments.iter().any(|argument| argument.name() == *name)) {
        let error = Error::new(format!("\"{both}\" is an argument and a column of the state"));
        return Err(error.hint("give one of them another name").at(create.name_location));
    }
    let clauses = [("UPDATE", Some(&body.update)), ("MERGE", Some(&body.merge)), ("INVERSE", body.inverse.as_ref())];
    for (clause, expressions) in clauses {
        let Some(expressions) = expressions else { continue };
        let (count, expected) = (expressions.list.len(), body.state.len());
        if count != expected {
            let place = expressions.query.tokens.first().and_then(|token| location(token.span.start));
            let plural = |count: usize| if count == 1 { "" } else { "s" };
            let (of_clause, of_state) = (plural(count), plural(expected));
            let message =
                format!("{clause} has {count} expression{of_clause}, the state has {expected} column{of_state}");
            let error = Error::new(message);
            return Err(error.hint("give each column of the state its new value, in their order").at(place));
        }
    }
    Ok(())
}
