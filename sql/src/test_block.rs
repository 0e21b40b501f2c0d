//! Tests in SQL files: `TEST name BEGIN … END` between ordinary statements, read but not run.
//!
//! ```text
//! INCLUDE 'schema.sql';
//! TEST name BEGIN
//!   INSERT INTO relation [(columns)] VALUES (…), (…);
//!   ADVANCE WATERMARK [FOR stream] TO TIMESTAMP '…' | milliseconds | END;
//!   ASSERT <query> RETURNS (…), (…);
//!   ASSERT FILE 'query.sql' [WITH (n = '5 minutes')] RETURNS (…), (…);
//!   ASSERT NO ROWS <query>;
//!   ASSERT ERROR <statement> LIKE '…';
//! END;
//! ```

use datafusion::arrow::compute::kernels::cast_utils::string_to_timestamp_nanos;
use datafusion::sql::sqlparser::ast::{SetExpr, Spanned, Values};
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};
use millstream_engine::plan::{Location, WithOption};
use millstream_engine::time::{EventTime, Span};

use crate::ddl::parse_with;
use crate::duration::Parameters;
use crate::error::{Error, Result, location};
use crate::parse::{Context, check_length, parse_query, parse_statement};
use crate::statement::{Body, ParsedQuery, ParsedStatement};
use crate::token::{Cursor, fold, is_word, tokenize};

/// A part of a file of tests, in the order of the text.
#[derive(Debug, Clone)]
pub enum TestItem {
    /// A statement as in any other file.
    Statement(ParsedStatement),
    /// Another file, whose statements stand in for it.
    Include(FileName),
    /// A test.
    Test(TestBlock),
}

/// A file that is named in a text, as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileName {
    /// The path, relative to the folder of the file that names it.
    pub path: String,
    /// Where the name stands.
    pub location: Option<Location>,
}

/// One test.
#[derive(Debug, Clone)]
pub struct TestBlock {
    /// Its name, as typed.
    pub name: String,
    /// Where it starts.
    pub location: Option<Location>,
    /// What it does, in order.
    pub steps: Vec<TestStep>,
}

/// A step of a test.
#[derive(Debug, Clone)]
pub struct TestStep {
    /// Where it starts.
    pub location: Option<Location>,
    /// What it does.
    pub action: TestAction,
}

/// What a step does.
#[derive(Debug, Clone)]
pub enum TestAction {
    /// Appends rows to a stream or table.
    Insert {
        /// The stream or table, folded.
        relation: String,
        /// The columns that have values, folded, with their places; all of them in their order if none are named.
        columns: Vec<(String, Option<Location>)>,
        /// The values, a column for each of `columns`.
        rows: RowList,
    },
    /// Moves the watermark.
    Advance {
        /// The stream, folded; all streams if none is named.
        stream: Option<(String, Option<Location>)>,
        /// Where to.
        to: Moment,
    },
    /// Compares the answer to a query.
    Assert {
        /// The query.
        query: AssertedQuery,
        /// Its rows; none if it is to have none.
        rows: Option<RowList>,
    },
    /// Wants a statement to fail.
    AssertError {
        /// The statement, or why it is none.
        statement: Result<ParsedStatement>,
        /// What its message is like, in the sense of SQL.
        pattern: String,
    },
}

/// A point to which a test moves the watermark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// An event time.
    Time(EventTime),
    /// The end of the input.
    End,
}

/// The query of an assertion.
#[derive(Debug, Clone)]
pub enum AssertedQuery {
    /// It stands there.
    Here(ParsedStatement),
    /// It is the only statement of a file.
    File {
        /// The file.
        name: FileName,
        /// What the names of its windows stand for.
        parameters: Vec<WithOption>,
    },
}

/// Rows that are written down: a list of VALUES.
#[derive(Debug, Clone)]
pub struct RowList {
    /// Where the list starts.
    pub location: Option<Location>,
    pub(crate) query: ParsedQuery,
}

/// Reads a file of tests.
///
/// # Errors
/// The first part that cannot be read.
pub(crate) fn parse_tests(text: &str, parameters: &Parameters) -> Result<Vec<TestItem>> {
    check_length(text)?;
    let tokens = tokenize(text)?;
    let context = Context { text, parameters };
    let mut items: Vec<TestItem> = Vec::new();
    let mut rest = tokens.as_slice();
    while let Some((statement, behind)) = next_statement(rest) {
        let mut cursor = Cursor::new(statement);
        if cursor.at_word("test") {
            let (block, behind) = parse_block(context, rest)?;
            check_name(&block, &items)?;
            items.push(TestItem::Test(block));
            rest = behind;
            continue;
        }
        items.push(if cursor.eat_word("include") {
            let name = parse_file_name(&mut cursor)?;
            cursor.expect_end()?;
            TestItem::Include(name)
        } else {
            TestItem::Statement(parse_statement(context, statement)?)
        });
        rest = behind;
    }
    Ok(items)
}

/// The tokens up to the next semicolon, and those behind it; none once there is no statement left.
fn next_statement(tokens: &[TokenWithSpan]) -> Option<(&[TokenWithSpan], &[TokenWithSpan])> {
    let tokens = without_semicolons(tokens);
    if tokens.is_empty() {
        return None;
    }
    let end = tokens.iter().position(|token| token.token == Token::SemiColon).unwrap_or(tokens.len());
    tokens.split_at_checked(end)
}

fn without_semicolons(tokens: &[TokenWithSpan]) -> &[TokenWithSpan] {
    let start = tokens.iter().position(|token| token.token != Token::SemiColon).unwrap_or(tokens.len());
    tokens.get(start..).unwrap_or_default()
}

fn check_name(block: &TestBlock, items: &[TestItem]) -> Result<()> {
    let is_taken = items.iter().any(|item| matches!(item, TestItem::Test(other) if other.name == block.name));
    if is_taken {
        let error = Error::new(format!("there are two tests called {}", block.name));
        return Err(error.hint("give one of them another name").at(block.location));
    }
    Ok(())
}

/// A test, from its first word on, and the tokens behind its END.
fn parse_block<'a>(context: Context<'_>, tokens: &'a [TokenWithSpan]) -> Result<(TestBlock, &'a [TokenWithSpan])> {
    let mut cursor = Cursor::new(without_semicolons(tokens));
    let place = cursor.location();
    cursor.expect_word("test")?;
    let name = parse_test_name(&mut cursor)?;
    cursor.expect_word("begin").map_err(|error| error.hint(format!("write TEST {name} BEGIN … END")))?;
    let mut steps = Vec::new();
    let mut rest = cursor.rest();
    loop {
        let Some((statement, behind)) = next_statement(rest) else {
            let error = Error::new(format!("the test {name} has no END"));
            return Err(error.hint("write END behind its last step").at(place));
        };
        if let [end, ..] = statement
            && is_word(&end.token, "end")
        {
            let behind = without_semicolons(rest).get(1..).unwrap_or_default();
            return Ok((TestBlock { name, location: place, steps }, behind));
        }
        if behind.is_empty() {
            let error = Error::new(format!("the last step of the test {name} does not end"));
            return Err(error.hint("write a semicolon behind every step, then END").at(first_place(statement)));
        }
        steps.push(TestStep { location: first_place(statement), action: parse_step(context, statement)? });
        rest = behind;
    }
}

fn parse_test_name(cursor: &mut Cursor<'_>) -> Result<String> {
    if let Token::SingleQuotedString(name) = cursor.peek() {
        cursor.next();
        return Ok(name.clone());
    }
    if cursor.at_word("begin") && !is_word(cursor.peek_nth(1), "begin") {
        return Err(Error::new("the test has no name").hint("write TEST name BEGIN … END").at(cursor.location()));
    }
    Ok(cursor.expect_name("the name of the test")?.value.clone())
}

fn first_place(tokens: &[TokenWithSpan]) -> Option<Location> {
    tokens.first().and_then(|token| location(token.span.start))
}

fn parse_step(context: Context<'_>, tokens: &[TokenWithSpan]) -> Result<TestAction> {
    let mut cursor = Cursor::new(tokens);
    if cursor.eat_words(&["insert", "into"]) {
        parse_insert(context, &mut cursor)
    } else if cursor.eat_words(&["advance", "watermark"]) {
        parse_advance(&mut cursor)
    } else if cursor.eat_words(&["assert", "no", "rows"]) {
        Ok(TestAction::Assert { query: asserted_query(context, cursor.rest())?, rows: None })
    } else if cursor.eat_words(&["assert", "error"]) {
        parse_assert_error(context, &cursor)
    } else if cursor.eat_word("assert") {
        parse_assert(context, &cursor)
    } else {
        let error = cursor.expected("a step of the test");
        Err(error.hint("a step is INSERT INTO … VALUES, ADVANCE WATERMARK or ASSERT; END ends the test"))
    }
}

/// `relation [(columns)] VALUES (…), (…)`.
fn parse_insert(context: Context<'_>, cursor: &mut Cursor<'_>) -> Result<TestAction> {
    let relation = cursor.expect_object_name("a stream or table")?;
    let mut columns = Vec::new();
    if cursor.eat(&Token::LParen) {
        while !cursor.eat(&Token::RParen) {
            let place = cursor.location();
            columns.push((fold(cursor.expect_name("a column")?), place));
            if !cursor.eat(&Token::Comma) && *cursor.peek() != Token::RParen {
                return Err(cursor.expected("\",\" or \")\""));
            }
        }
    }
    if !cursor.at_word("values") {
        let hint = format!("write INSERT INTO {relation} VALUES (…), (…)");
        return Err(cursor.expected("VALUES").hint(hint));
    }
    Ok(TestAction::Insert { relation, columns, rows: row_list(context, cursor.rest())? })
}

/// `[FOR stream] TO TIMESTAMP '…' | '…' | milliseconds | END`.
fn parse_advance(cursor: &mut Cursor<'_>) -> Result<TestAction> {
    let mut stream = None;
    if cursor.eat_word("for") {
        let place = cursor.location();
        stream = Some((cursor.expect_object_name("a stream")?, place));
    }
    cursor.expect_word("to")?;
    let to = parse_moment(cursor)?;
    cursor.expect_end()?;
    Ok(TestAction::Advance { stream, to })
}

fn parse_moment(cursor: &mut Cursor<'_>) -> Result<Moment> {
    let hint = "write TIMESTAMP '2024-01-01 00:00:00', milliseconds since 1970, or END";
    if cursor.eat_word("end") {
        return Ok(Moment::End);
    }
    let place = cursor.location();
    cursor.eat_word("timestamp");
    let sign = if cursor.eat(&Token::Minus) { -1 } else { 1 };
    let time = match cursor.peek() {
        Token::SingleQuotedString(text) => string_to_timestamp_nanos(text).ok(),
        Token::Number(digits, _) => digits.parse::<i64>().ok().map(|millis| Span::millis(millis * sign).0),
        _ => return Err(cursor.expected("a time").hint(hint)),
    };
    let text = cursor.peek().to_string();
    cursor.next();
    match time {
        Some(nanos) => Ok(Moment::Time(EventTime(nanos))),
        None => Err(Error::new(format!("{text} is not a time")).hint(hint).at(place)),
    }
}

/// `<query> RETURNS (…), (…)`.
fn parse_assert(context: Context<'_>, cursor: &Cursor<'_>) -> Result<TestAction> {
    let tokens = cursor.rest();
    let Some(at) = last_at_top(tokens, "returns") else {
        let error = Error::new("the assertion does not say what the query RETURNS");
        let hint = "write ASSERT SELECT … RETURNS (…), (…), or ASSERT NO ROWS SELECT …";
        return Err(error.hint(hint).at(cursor.location()));
    };
    let (query, rows) = tokens.split_at(at);
    let rows = rows.get(1..).unwrap_or_default();
    if rows.is_empty() {
        let error = Error::new("RETURNS has no rows").hint("write ASSERT NO ROWS <query> for an empty answer");
        return Err(error.at(tokens.get(at).and_then(|token| location(token.span.start))));
    }
    Ok(TestAction::Assert { query: asserted_query(context, query)?, rows: Some(row_list(context, rows)?) })
}

/// `<statement> LIKE '…'`.
fn parse_assert_error(context: Context<'_>, cursor: &Cursor<'_>) -> Result<TestAction> {
    let tokens = cursor.rest();
    let hint = "write ASSERT ERROR <statement> LIKE '%part of the message%'";
    let [statement @ .., like, pattern] = tokens else { return Err(cursor.expected("a statement").hint(hint)) };
    let Token::SingleQuotedString(text) = &pattern.token else {
        return Err(Error::new("ASSERT ERROR does not say what the message is like").hint(hint).at(cursor.location()));
    };
    if !is_word(&like.token, "like") || statement.is_empty() {
        return Err(Error::new("ASSERT ERROR has no LIKE").hint(hint).at(cursor.location()));
    }
    Ok(TestAction::AssertError { statement: parse_statement(context, statement), pattern: text.clone() })
}

/// The last place of an unquoted word outside of all parentheses.
fn last_at_top(tokens: &[TokenWithSpan], word: &str) -> Option<usize> {
    let mut depth = 0_usize;
    let mut found = None;
    for (index, token) in tokens.iter().enumerate() {
        match &token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
            token if depth == 0 && is_word(token, word) => found = Some(index),
            _ => {}
        }
    }
    found
}

/// `SELECT …`, or `FILE 'query.sql' [WITH (…)]`.
fn asserted_query(context: Context<'_>, tokens: &[TokenWithSpan]) -> Result<AssertedQuery> {
    let mut cursor = Cursor::new(tokens);
    if cursor.at_word("file") && matches!(cursor.peek_nth(1), Token::SingleQuotedString(_)) {
        cursor.next();
        let name = parse_file_name(&mut cursor)?;
        return Ok(AssertedQuery::File { name, parameters: parse_with(&mut cursor)? });
    }
    let statement = parse_statement(context, tokens)?;
    match &statement.body {
        Body::Select(_) => Ok(AssertedQuery::Here(statement)),
        _ => Err(Error::new("ASSERT takes a query").hint("write ASSERT SELECT …").at(Some(statement.location))),
    }
}

fn parse_file_name(cursor: &mut Cursor<'_>) -> Result<FileName> {
    let location = cursor.location();
    let Token::SingleQuotedString(path) = cursor.peek() else {
        return Err(cursor.expected("a file in quotes, 'schema.sql'"));
    };
    cursor.next();
    Ok(FileName { path: path.clone(), location })
}

/// `[VALUES] (…), (…)`.
fn row_list(context: Context<'_>, tokens: &[TokenWithSpan]) -> Result<RowList> {
    let place = first_place(tokens);
    let mut list = Vec::with_capacity(tokens.len() + 1);
    if let [first, ..] = tokens
        && !is_word(&first.token, "values")
    {
        let values = Word { value: "VALUES".to_owned(), quote_style: None, keyword: Keyword::VALUES };
        list.push(TokenWithSpan { token: Token::Word(values), span: first.span });
    }
    list.extend_from_slice(tokens);
    let hint = "write each row in parentheses: (1, 'a'), (2, 'b')";
    let query = parse_query(context, &mut Cursor::new(&list)).map_err(|mut error| {
        error.hint.get_or_insert_with(|| hint.to_owned());
        error
    })?;
    let SetExpr::Values(values) = query.query.body.as_ref() else {
        return Err(Error::new("the rows are not a list of values").hint(hint).at(place));
    };
    check_lengths(values, place)?;
    Ok(RowList { location: place, query })
}

/// Checks that every row has as many values as the first.
fn check_lengths(values: &Values, place: Option<Location>) -> Result<()> {
    let mut lengths = values.rows.iter().map(|row| row.len());
    let wanted = lengths.next().unwrap_or_default();
    if let Some(index) = lengths.position(|length| length != wanted) {
        let row = values.rows.get(index + 1);
        let row_place = row.and_then(|row| row.first()).and_then(|value| location(value.span().start));
        let found = row.map_or(0, |row| row.len());
        let message = format!("row {} has {}, the first row {wanted}", index + 2, counted(found, "value"));
        return Err(Error::new(message).hint("give every row a value for each column").at(row_place.or(place)));
    }
    Ok(())
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}
