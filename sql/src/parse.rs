//! The grammar of statements.
//!
//! Statements of the dialect's own are read here token by token; a query is rewritten and then read by the SQL parser.

use std::sync::Arc;

use datafusion::sql::planner::IdentNormalizer;
use datafusion::sql::sqlparser::ast::{Query, SelectItem, SetExpr};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location as TokenLocation, Span, Token, TokenWithSpan};
use millstream_engine::plan::{Emission, Location};
use millstream_engine::secret::Secret;

use crate::ddl::{parse_definition, parse_value, parse_with};
use crate::duration::Parameters;
use crate::emission::{Tail, take_emission};
use crate::error::{Error, Result, location};
use crate::function::{ParsedExpressions, parse_aggregate, parse_function};
use crate::json_operators::call_json_functions;
use crate::materialized::parse_materialized_view;
use crate::parse_error::syntax_error;
use crate::rewrite::rewrite;
use crate::statement::{Body, Control, Create, ParsedQuery, ParsedStatement, RelationKind, Running, SecretSource};
use crate::suggest::nearest;
use crate::token::{Cursor, tokenize};

/// The longest text in bytes that is read.
const MAX_TEXT_BYTES: usize = 1 << 20;

const STATEMENTS: [&str; 13] = [
    "SELECT",
    "CREATE",
    "INSERT",
    "DROP",
    "SHOW",
    "DESCRIBE",
    "EXPLAIN",
    "SET",
    "WITH",
    "PAUSE",
    "RESUME",
    "STOP",
    "SUBSCRIBE",
];

const KINDS: &str = "STREAM, TABLE, VIEW, MATERIALIZED VIEW, SINK, SECRET, FUNCTION or AGGREGATE";
const KINDS_SHOWN: &str =
    "STREAMS, TABLES, VIEWS, MATERIALIZED VIEWS, SINKS, SECRETS, FUNCTIONS, AGGREGATES, QUERIES, WATERMARKS or STATE";

/// What parsing needs besides the tokens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) text: &'a str,
    pub(crate) parameters: &'a Parameters,
}

/// Splits `text` at its semicolons and reads each statement.
///
/// # Errors
/// The first statement that cannot be read.
pub(crate) fn parse(text: &str, parameters: &Parameters) -> Result<Vec<ParsedStatement>> {
    check_length(text)?;
    let tokens = tokenize(text)?;
    let context = Context { text, parameters };
    tokens
        .split(|token| token.token == Token::SemiColon)
        .filter(|tokens| !tokens.is_empty())
        .map(|tokens| parse_statement(context, tokens))
        .collect()
}

/// Refuses a text that is too long to be read.
pub(crate) fn check_length(text: &str) -> Result<()> {
    if text.len() > MAX_TEXT_BYTES {
        return Err(Error::new(format!("the text is longer than {MAX_TEXT_BYTES} bytes")).hint("run it in parts"));
    }
    Ok(())
}

/// Reads the tokens of one statement.
pub(crate) fn parse_statement(context: Context<'_>, tokens: &[TokenWithSpan]) -> Result<ParsedStatement> {
    let mut cursor = Cursor::new(tokens);
    let location = cursor.location().unwrap_or(Location { line: 1, column: 1 });
    let body = parse_body(context, &mut cursor)?;
    Ok(ParsedStatement { text: slice(context.text, tokens).to_owned(), location, body })
}

fn parse_body(context: Context<'_>, cursor: &mut Cursor<'_>) -> Result<Body> {
    if cursor.eat_word("create") {
        parse_create(context, cursor)
    } else if cursor.at_words(&["insert", "into"]) {
        parse_insert(context, cursor)
    } else if cursor.eat_word("drop") {
        parse_drop(cursor)
    } else if cursor.eat_word("show") {
        parse_show(cursor)
    } else if cursor.eat_word("describe") || cursor.eat_word("desc") {
        parse_describe(cursor)
    } else if cursor.eat_word("explain") {
        parse_explain(context, cursor)
    } else if cursor.eat_word("set") {
        parse_set(cursor)
    } else if cursor.eat_word("subscribe") {
        parse_subscribe(cursor)
    } else if let Some(action) = Control::ALL.into_iter().find(|action| cursor.eat_word(action.word())) {
        parse_control(action, cursor)
    } else if starts_query(cursor) {
        Ok(Body::Select(parse_query(context, cursor)?))
    } else {
        Err(unknown_statement(cursor))
    }
}

fn starts_query(cursor: &Cursor<'_>) -> bool {
    let words = ["select", "with", "values", "istream", "dstream", "rstream"];
    *cursor.peek() == Token::LParen || words.iter().any(|word| cursor.at_word(word))
}

fn unknown_statement(cursor: &Cursor<'_>) -> Error {
    let word = cursor.peek().to_string();
    if cursor.at_word("test") {
        let error = Error::new("a TEST is not run with other statements");
        return error.hint("run the file with millstream test").at(cursor.location());
    }
    let hint = match nearest(&word, STATEMENTS) {
        Some(known) => format!("did you mean {known}?"),
        None => "a statement starts with SELECT, CREATE, INSERT INTO, DROP, SHOW, DESCRIBE, EXPLAIN or SET".into(),
    };
    Error::new(format!("\"{word}\" starts no statement")).hint(hint).at(cursor.location())
}

fn parse_create(context: Context<'_>, cursor: &mut Cursor<'_>) -> Result<Body> {
    let or_replace = cursor.eat_words(&["or", "replace"]);
    let Some(kind) = parse_kind(cursor, "") else {
        return Err(cursor.expected("what to create").hint(format!("write CREATE {KINDS}")));
    };
    let if_not_exists = cursor.eat_words(&["if", "not", "exists"]);
    let create = Create { if_not_exists, or_replace, name_location: cursor.location() };
    if if_not_exists && or_replace {
        return Err(Error::new("OR REPLACE and IF NOT EXISTS exclude each other").at(create.name_location));
    }
    let name = cursor.expect_object_name("a name")?;
    match kind {
        RelationKind::MaterializedView => parse_materialized_view(context, cursor, name, create),
        RelationKind::View => parse_view(context, cursor, name, create),
        RelationKind::Sink => parse_sink(cursor, name, create),
        RelationKind::Secret => {
            let source = parse_secret(cursor)?;
            Ok(Body::CreateSecret { name, source, create })
        }
        RelationKind::Function => parse_function(context, cursor, name, create),
        RelationKind::Aggregate => parse_aggregate(context, cursor, name, create),
        RelationKind::Stream | RelationKind::Table => {
            let definition = Arc::new(parse_definition(cursor, name)?);
            // Flink has one word for both; a watermark tells an endless table.
            let kind = if definition.event_time.is_some() { RelationKind::Stream } else { kind };
            Ok(Body::CreateRelation { kind, definition, create })
        }
    }
}

fn parse_view(context: Context<'_>, cursor: &mut Cursor<'_>, name: String, create: Create) -> Result<Body> {
    if *cursor.peek() == Token::LParen {
        let hint = "name the columns in the query: SELECT x AS name";
        return Err(Error::unsupported("a list of columns after the view's name", hint).at(cursor.location()));
    }
    cursor.expect_word("as")?;
    let query = parse_query(context, cursor)?;
    Ok(Body::CreateView { name, query, create })
}

fn parse_sink(cursor: &mut Cursor<'_>, name: String, create: Create) -> Result<Body> {
    if cursor.at_word("as") || cursor.at_word("from") || cursor.at_word("into") {
        let hint = format!("write CREATE SINK {name} WITH (…); INSERT INTO {name} SELECT …");
        return Err(Error::unsupported("a query in CREATE SINK", hint).at(cursor.location()));
    }
    Ok(Body::CreateSink { name, options: parse_with(cursor)?, create })
}

/// `AS 'text'`, `FROM FILE 'path'`, `FROM ENV 'NAME'`.
fn parse_secret(cursor: &mut Cursor<'_>) -> Result<SecretSource> {
    let source: fn(&str) -> SecretSource = if cursor.eat_word("as") {
        |text| SecretSource::Text(Secret::new(text))
    } else if cursor.eat_words(&["from", "file"]) {
        |path| SecretSource::File(path.to_owned())
    } else if cursor.eat_words(&["from", "env"]) {
        |name| SecretSource::Env(name.to_owned())
    } else {
        return Err(cursor.expected("AS 'text', FROM FILE 'path' or FROM ENV 'NAME'"));
    };
    let Token::SingleQuotedString(text) = cursor.peek() else { return Err(cursor.expected("a text in quotes")) };
    if text.is_empty() {
        return Err(Error::new("a secret cannot be empty").at(cursor.location()));
    }
    let source = source(text);
    cursor.next();
    cursor.expect_end()?;
    Ok(source)
}

fn parse_insert(context: Context<'_>, cursor: &mut Cursor<'_>) -> Result<Body> {
    cursor.eat_words(&["insert", "into"]);
    let sink_location = cursor.location();
    let sink = cursor.expect_object_name("a sink")?;
    if *cursor.peek() == Token::LParen && !cursor.peek_nth(1).to_string().eq_ignore_ascii_case("select") {
        let hint = "leave it out: the query's columns are written as they are named";
        return Err(Error::unsupported("a list of columns after the sink's name", hint).at(cursor.location()));
    }
    if !starts_query(cursor) {
        return Err(cursor.expected("SELECT").hint(format!("write INSERT INTO {sink} SELECT …")));
    }
    Ok(Body::Insert { sink, sink_location, query: parse_query(context, cursor)? })
}

fn parse_drop(cursor: &mut Cursor<'_>) -> Result<Body> {
    let Some(kind) = parse_kind(cursor, "") else { return Err(cursor.expected(KINDS)) };
    let if_exists = cursor.eat_words(&["if", "exists"]);
    let name_location = cursor.location();
    let name = cursor.expect_object_name("a name")?;
    cursor.expect_end()?;
    Ok(Body::Drop { kind, name, name_location, if_exists })
}

fn parse_show(cursor: &mut Cursor<'_>) -> Result<Body> {
    let body = if cursor.eat_word("queries") {
        Body::ShowRunning(Running::Queries)
    } else if cursor.eat_word("watermarks") {
        Body::ShowRunning(Running::Watermarks)
    } else if cursor.eat_word("state") {
        Body::ShowRunning(Running::State)
    } else if cursor.eat_word("executors") {
        Body::ShowRunning(Running::Executors)
    } else {
        Body::Show(parse_kind(cursor, "s").ok_or_else(|| cursor.expected(KINDS_SHOWN))?)
    };
    cursor.expect_end()?;
    Ok(body)
}

/// `QUERY name`; a name that is no word is quoted.
fn parse_control(action: Control, cursor: &mut Cursor<'_>) -> Result<Body> {
    cursor.expect_word("query")?;
    let query_location = cursor.location();
    let query = match cursor.peek() {
        Token::SingleQuotedString(name) => {
            cursor.next();
            name.clone()
        }
        _ => cursor.expect_object_name("the name of a query, as SHOW QUERIES tells it")?,
    };
    cursor.expect_end()?;
    Ok(Body::Control { action, query, query_location })
}

/// One of the [`KINDS`], followed by `ending`.
fn parse_kind(cursor: &mut Cursor<'_>, ending: &str) -> Option<RelationKind> {
    RelationKind::ALL.into_iter().find(|kind| {
        let words = format!("{}{ending}", kind.noun());
        cursor.eat_words(&words.split(' ').collect::<Vec<_>>())
    })
}

/// `SUBSCRIBE [TO] view [AS OF EPOCH n]`, `SUBSCRIBE [TO] QUERY 'id' [AS OF EPOCH n]`.
fn parse_subscribe(cursor: &mut Cursor<'_>) -> Result<Body> {
    cursor.eat_word("to");
    if let (true, Token::SingleQuotedString(query)) = (cursor.at_word("query"), cursor.peek_nth(1)) {
        let query = query.clone();
        cursor.next();
        cursor.next();
        return Ok(Body::SubscribeQuery { query, after: parse_epoch(cursor)? });
    }
    let view_location = cursor.location();
    let view = cursor.expect_object_name("a materialized view")?;
    Ok(Body::Subscribe { view, view_location, after: parse_epoch(cursor)? })
}

/// `[AS OF EPOCH n]` at the end of a statement.
fn parse_epoch(cursor: &mut Cursor<'_>) -> Result<Option<u64>> {
    let mut after = None;
    if cursor.eat_words(&["as", "of", "epoch"]) {
        let place = cursor.location();
        let number = if let Token::Number(digits, _) = cursor.peek() { digits.parse().ok() } else { None };
        let wrong = || Error::new("an epoch is a whole number from 0 on").at(place);
        after = Some(number.ok_or_else(wrong)?);
        cursor.next();
    }
    cursor.expect_end()?;
    Ok(after)
}

fn parse_describe(cursor: &mut Cursor<'_>) -> Result<Body> {
    let name_location = cursor.location();
    let name = cursor.expect_object_name("a stream, table or view")?;
    cursor.expect_end()?;
    Ok(Body::Describe { name, name_location })
}

/// `EXPLAIN query`, `EXPLAIN ANALYZE query`.
fn parse_explain(context: Context<'_>, cursor: &mut Cursor<'_>) -> Result<Body> {
    if !cursor.eat_word("analyze") {
        return Ok(Body::Explain(parse_query(context, cursor)?));
    }
    if !starts_query(cursor) {
        let hint = "write EXPLAIN ANALYZE SELECT …; the query runs, and its rows are counted and dropped";
        return Err(cursor.expected("a query").hint(hint));
    }
    Ok(Body::ExplainAnalyze(parse_query(context, cursor)?))
}

/// `SET key = value`, also `SET key TO value`.
fn parse_set(cursor: &mut Cursor<'_>) -> Result<Body> {
    let mut key = cursor.expect_object_name("a setting")?;
    key.make_ascii_lowercase();
    if !cursor.eat_word("to") {
        cursor.expect(&Token::Eq)?;
    }
    let mut value = parse_value(cursor)?;
    while !cursor.is_done() {
        value = format!("{value} {}", parse_value(cursor)?);
    }
    Ok(Body::Set { key, value })
}

/// Reads a query to the end of the statement.
pub(crate) fn parse_query(context: Context<'_>, cursor: &mut Cursor<'_>) -> Result<ParsedQuery> {
    let tokens = cursor.rest();
    if tokens.is_empty() {
        return Err(cursor.expected("a query, SELECT …"));
    }
    let (query_tokens, Tail { emission, late_sink }) = take_emission(tokens, context.parameters)?;
    let rewritten = rewrite(&query_tokens, context.parameters)?;
    let sql = call_json_functions(rewritten.tokens);
    let mut parser = Parser::new(&GenericDialect).with_tokens_with_locations(sql);
    let query = parser.parse_query().map_err(|error| syntax_error(&error, tokens))?;
    let next = parser.peek_token();
    if next.token != Token::EOF {
        let error = Error::new(format!("syntax error: expected the end of the statement, found \"{}\"", next.token));
        let error = error.at(location(next.span.start));
        return Err(match misspelt_keyword(tokens) {
            Some((typed, keyword)) => error.hint(format!("did you mean {keyword} where you wrote {typed}?")),
            None => error,
        });
    }
    let text = slice(context.text, tokens).to_owned();
    let with_names = with_names(&query);
    let (windows, calls, as_of) = (rewritten.windows.into(), rewritten.calls.into(), rewritten.as_of.into());
    Ok(ParsedQuery { query, with_names, windows, calls, as_of, emission, late_sink, tokens: tokens.into(), text })
}

/// Reads a list of expressions, which is all that `tokens` are.
///
/// # Errors
/// They are no expressions, or one has a name, or something follows.
pub(crate) fn parse_expressions(context: Context<'_>, tokens: &[TokenWithSpan]) -> Result<ParsedExpressions> {
    // As a query it is read with everything that a query may have.
    let span = tokens.first().map_or_else(Span::empty, |token| token.span);
    let select = TokenWithSpan::new(Token::make_keyword("SELECT"), span);
    let all: Vec<_> = std::iter::once(select).chain(tokens.iter().cloned()).collect();
    let query = ParsedQuery { tokens: tokens.into(), ..parse_query(context, &mut Cursor::new(&all))? };
    let place = location(span.start);
    let refuse = || Error::new("this is not an expression but a part of a query").at(place);
    let SetExpr::Select(select) = query.query.body.as_ref() else { return Err(refuse()) };
    let mut list = Vec::with_capacity(select.projection.len());
    for item in &select.projection {
        match item {
            SelectItem::UnnamedExpr(expression) => list.push(expression.clone()),
            _ => return Err(Error::new(format!("expected an expression, found \"{item}\"")).at(place)),
        }
    }
    // Whatever else a query has would be passed over in silence.
    let written = list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let has_tail = query.emission != Emission::default() || query.late_sink.is_some();
    if !has_tail && query.query.to_string() == format!("SELECT {written}") {
        Ok(ParsedExpressions { query, list })
    } else {
        Err(refuse())
    }
}

/// The first word that is almost, but not quite, a keyword of a query.
fn misspelt_keyword(tokens: &[TokenWithSpan]) -> Option<(String, &'static str)> {
    const KEYWORDS: [&str; 7] = ["FROM", "WHERE", "GROUP", "HAVING", "ORDER", "LIMIT", "UNION"];
    tokens.iter().find_map(|token| match &token.token {
        Token::Word(word) if word.quote_style.is_none() && word.value.len() > 3 => {
            let near = nearest(&word.value, KEYWORDS).filter(|keyword| {
                !keyword.eq_ignore_ascii_case(&word.value) && keyword.len().abs_diff(word.value.len()) <= 1
            })?;
            Some((word.value.clone(), near))
        }
        _ => None,
    })
}

fn with_names(query: &Query) -> Arc<[String]> {
    let normalizer = IdentNormalizer::default();
    let tables = query.with.iter().flat_map(|with| &with.cte_tables);
    tables.map(|table| normalizer.normalize(table.alias.name.clone())).collect()
}

/// The part of `text` that the tokens cover.
pub(crate) fn slice<'a>(text: &'a str, tokens: &[TokenWithSpan]) -> &'a str {
    let (Some(first), Some(last)) = (tokens.first(), tokens.last()) else { return "" };
    let (start, end) = (byte_offset(text, first.span.start), byte_offset(text, last.span.end));
    text.get(start..end).unwrap_or_default()
}

/// The byte at which the place of a token lies.
fn byte_offset(text: &str, place: TokenLocation) -> usize {
    let (mut line, mut column) = (1, 1);
    for (offset, letter) in text.char_indices() {
        if (line, column) == (place.line, place.column) {
            return offset;
        }
        (line, column) = if letter == '\n' { (line + 1, 1) } else { (line, column + 1) };
    }
    text.len()
}
