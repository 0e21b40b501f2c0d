//! `CREATE STREAM`, `CREATE TABLE` and `WITH (…)`: columns, watermarks and options.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use millstream_engine::plan::{
    BadData, EventTimeRule, Location, StreamDefinition, StreamDurability, WINDOW_END, WINDOW_START, WithOption,
};
use millstream_engine::time::Span;

use crate::duration::{parse_duration, parse_span};
use crate::error::{Error, Result, location};
use crate::parse_error::syntax_error;
use crate::suggest::{list, nearest};
use crate::token::{Cursor, fold};
use crate::types::{arrow_type, sql_name};

/// The option of a table that is read again.
pub(crate) const REFRESH_INTERVAL: &str = "refresh_interval";

/// The elements between the parentheses of a declaration, as far as read.
#[derive(Debug, Default)]
struct Elements {
    fields: Vec<FieldRef>,
    declared: Vec<String>,
    watermark: Option<Watermark>,
}

/// A watermark as written.
#[derive(Debug)]
struct Watermark {
    column: String,
    column_location: Option<Location>,
    delay: Span,
    max_future_skew: Option<Span>,
    idle_timeout: Option<Span>,
}

/// Reads `(columns, WATERMARK …) WITH (…)` after the name of a stream or table.
///
/// # Errors
/// A column, the watermark or an option is wrong; the message says which and why.
pub(crate) fn parse_definition(cursor: &mut Cursor<'_>, name: String) -> Result<StreamDefinition> {
    if cursor.at_word("as") {
        let hint = "write CREATE VIEW name AS SELECT …";
        return Err(Error::unsupported("CREATE … AS SELECT", hint).at(cursor.location()));
    }
    let elements = parse_elements(cursor)?;
    let event_time = elements.watermark.as_ref().map(|watermark| event_time_rule(watermark, &elements)).transpose()?;
    let options = parse_with(cursor)?;
    let (bad_data, durability, rate_limit) = (bad_data(&options)?, durability(&options)?, rate_limit(&options)?);
    let refresh = refresh_interval(&options)?;
    let schema = Arc::new(Schema::new(elements.fields));
    Ok(StreamDefinition {
        name,
        schema,
        declared: elements.declared,
        event_time,
        bad_data,
        durability,
        rate_limit,
        refresh,
        options,
    })
}

/// Reads `WITH (key = value, …)`, if it is there, to the end of the statement.
///
/// # Errors
/// It is malformed, or says a key twice.
pub(crate) fn parse_with(cursor: &mut Cursor<'_>) -> Result<Vec<WithOption>> {
    let mut options: Vec<WithOption> = Vec::new();
    if cursor.is_done() {
        return Ok(options);
    }
    cursor.expect_word("with")?;
    cursor.expect(&Token::LParen)?;
    while !cursor.eat(&Token::RParen) {
        let option = parse_option(cursor)?;
        if options.iter().any(|other| other.key == option.key) {
            return Err(Error::new(format!("the option {} is given twice", option.key)).at(option.location));
        }
        options.push(option);
        if !cursor.eat(&Token::Comma) && *cursor.peek() != Token::RParen {
            return Err(cursor.expected("\",\" or \")\""));
        }
    }
    cursor.expect_end()?;
    Ok(options)
}

/// `key = 'value'`; the key may be quoted or dotted, the value a bare number or word, or `SECRET name`.
fn parse_option(cursor: &mut Cursor<'_>) -> Result<WithOption> {
    let location = cursor.location();
    let key = match cursor.peek() {
        Token::SingleQuotedString(key) => {
            cursor.next();
            key.to_lowercase()
        }
        _ => {
            let mut key = cursor.expect_name("an option, key = 'value'")?.value.to_lowercase();
            while cursor.eat(&Token::Period) {
                key = format!("{key}.{}", cursor.expect_name("an option, key = 'value'")?.value.to_lowercase());
            }
            key
        }
    };
    cursor.expect(&Token::Eq)?;
    if cursor.at_word("secret") && matches!(cursor.peek_nth(1), Token::Word(_)) {
        cursor.next();
        let secret = Some(cursor.expect_object_name("the name of a secret")?);
        return Ok(WithOption { key, value: String::new(), secret, location });
    }
    let value = parse_value(cursor).map_err(|error| error.hint(format!("write {key} = 'value'")))?;
    Ok(WithOption { key, value, secret: None, location })
}

/// A string, number or word, as text.
///
/// # Errors
/// Something else is next.
pub(crate) fn parse_value(cursor: &mut Cursor<'_>) -> Result<String> {
    let sign = if cursor.eat(&Token::Minus) { "-" } else { "" };
    let value = match cursor.peek() {
        Token::SingleQuotedString(text) if sign.is_empty() => text.clone(),
        Token::Number(digits, _) => format!("{sign}{digits}"),
        Token::Word(word) if sign.is_empty() => word.value.clone(),
        _ => return Err(cursor.expected("a value")),
    };
    cursor.next();
    Ok(value)
}

fn parse_elements(cursor: &mut Cursor<'_>) -> Result<Elements> {
    let mut elements = Elements::default();
    cursor.expect(&Token::LParen).map_err(|error| error.hint("write the columns: name (column TYPE, …) WITH (…)"))?;
    loop {
        if cursor.at_word("watermark") && cursor.at_words(&["watermark", "for"]) {
            parse_watermark_element(cursor, &mut elements)?;
        } else {
            parse_column(cursor, &mut elements)?;
        }
        if cursor.eat(&Token::RParen) {
            break;
        }
        cursor.expect(&Token::Comma).map_err(|_| cursor.expected("\",\" or \")\""))?;
    }
    if elements.fields.is_empty() {
        return Err(Error::new("there are no columns").at(cursor.location()));
    }
    Ok(elements)
}

/// `name TYPE [NOT NULL]`.
fn parse_column(cursor: &mut Cursor<'_>, elements: &mut Elements) -> Result<()> {
    refuse_constraint(cursor)?;
    let place = cursor.location();
    let word = cursor.expect_name("a column, name TYPE")?;
    let name = fold(word);
    if [WINDOW_START, WINDOW_END].contains(&name.as_str()) {
        let error =
            Error::new(format!("a column cannot be named {name}")).hint("every window has a column of that name");
        return Err(error.at(place));
    }
    if elements.fields.iter().any(|field| *field.name() == name) {
        return Err(Error::new(format!("the column \"{}\" is declared twice", word.value)).at(place));
    }
    let (data_type, nullable) = parse_type(cursor, &word.value)?;
    elements.fields.push(Arc::new(Field::new(name, data_type, nullable)));
    elements.declared.push(word.value.clone());
    Ok(())
}

/// A type and `NOT NULL`, which are all that is left of the element.
fn parse_type(cursor: &mut Cursor<'_>, column: &str) -> Result<(DataType, bool)> {
    let place = cursor.location();
    let tokens = take_element(cursor);
    if tokens.is_empty() {
        return Err(cursor.expected(&format!("the type of the column \"{column}\"")));
    }
    let mut parser = Parser::new(&GenericDialect).with_tokens_with_locations(tokens.clone());
    let sql_type = parser.parse_data_type().map_err(|error| syntax_error(&error, &tokens))?;
    let nullable = parser.parse_keyword(Keyword::NULL) || !parser.parse_keywords(&[Keyword::NOT, Keyword::NULL]);
    let next = parser.peek_token();
    if next.token != Token::EOF {
        let error = Error::unsupported(format!("\"{}\" after the type of a column", next.token), "leave it out");
        return Err(error.at(location(next.span.start)));
    }
    let data_type = arrow_type(&sql_type).map_err(|error| error.at(place))?;
    Ok((data_type, nullable))
}

/// The tokens up to the comma or parenthesis that ends the element.
fn take_element(cursor: &mut Cursor<'_>) -> Vec<TokenWithSpan> {
    let mut tokens = Vec::new();
    let mut depth = 0_usize;
    loop {
        match cursor.peek() {
            Token::EOF => break,
            Token::Comma | Token::RParen if depth == 0 => break,
            Token::LParen | Token::Lt => depth += 1,
            Token::RParen | Token::Gt => depth = depth.saturating_sub(1),
            _ => {}
        }
        tokens.extend(cursor.next().cloned());
    }
    tokens
}

/// Table constraints, which would promise what nothing checks.
fn refuse_constraint(cursor: &Cursor<'_>) -> Result<()> {
    let constraint = [&["primary", "key"][..], &["foreign", "key"], &["constraint"], &["unique"], &["check"]]
        .into_iter()
        .find(|words| cursor.at_words(words));
    let Some(words) = constraint else { return Ok(()) };
    let is_column = words.len() == 1 && *words != ["constraint"] && *cursor.peek_nth(1) != Token::LParen;
    if is_column {
        return Ok(());
    }
    Err(Error::unsupported(words.join(" ").to_uppercase(), "leave it out").at(cursor.location()))
}

fn parse_watermark_element(cursor: &mut Cursor<'_>, elements: &mut Elements) -> Result<()> {
    let place = cursor.location();
    let watermark = parse_watermark(cursor)?;
    if elements.watermark.replace(watermark).is_some() {
        return Err(Error::new("a stream has one watermark").hint("leave the second one out").at(place));
    }
    Ok(())
}

/// `WATERMARK FOR col [AS col [- duration]] [IDLE TIMEOUT d] [MAX FUTURE SKEW d]`.
fn parse_watermark(cursor: &mut Cursor<'_>) -> Result<Watermark> {
    cursor.eat_words(&["watermark", "for"]);
    let column_location = cursor.location();
    let word = cursor.expect_name("the event-time column")?;
    let column = fold(word);
    let mut delay = Span(0);
    if cursor.eat_word("as") {
        delay = parse_delay(cursor, &column).map_err(|error| watermark_error(error, &word.value))?;
    }
    let (mut idle_timeout, mut max_future_skew) = (None, None);
    loop {
        if cursor.eat_words(&["idle", "timeout"]) {
            idle_timeout = Some(positive(cursor)?);
        } else if cursor.eat_words(&["max", "future", "skew"]) {
            max_future_skew = Some(positive(cursor)?);
        } else {
            break;
        }
    }
    if !matches!(cursor.peek(), Token::Comma | Token::RParen) {
        return Err(watermark_error(cursor.expected("the end of the watermark"), &word.value));
    }
    Ok(Watermark { column, column_location, delay, max_future_skew, idle_timeout })
}

/// `col` or `col - duration`.
fn parse_delay(cursor: &mut Cursor<'_>, column: &str) -> Result<Span> {
    let place = cursor.location();
    match cursor.peek() {
        Token::Word(word) if fold(word) == column => cursor.next(),
        _ => return Err(cursor.expected(&format!("\"{column}\""))),
    };
    if !cursor.eat(&Token::Minus) {
        return Ok(Span(0));
    }
    let delay = parse_duration(cursor, None)?;
    if delay.0 < 0 {
        return Err(Error::new("the watermark runs ahead of its column").at(place));
    }
    Ok(delay)
}

fn watermark_error(error: Error, column: &str) -> Error {
    let hint = format!("a watermark is the column less a fixed delay: {column} - INTERVAL '5 seconds'");
    Error { message: format!("the watermark cannot be read: {}", error.message), hint: Some(hint), ..error }
}

fn positive(cursor: &mut Cursor<'_>) -> Result<Span> {
    let place = cursor.location();
    let span = parse_duration(cursor, None)?;
    if span.0 <= 0 {
        return Err(Error::new(format!("the duration {span} is not positive")).at(place));
    }
    Ok(span)
}

/// The rule of a watermark over the declared columns.
fn event_time_rule(watermark: &Watermark, elements: &Elements) -> Result<EventTimeRule> {
    let names = elements.declared.iter().map(String::as_str);
    let Some((column, field)) = elements.fields.iter().enumerate().find(|(_, field)| *field.name() == watermark.column)
    else {
        let error = Error::new(format!("the watermark's column \"{}\" is not declared", watermark.column));
        let hint = match nearest(&watermark.column, names.clone()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("the columns are {}", list(&names.collect::<Vec<_>>(), "and")),
        };
        return Err(error.hint(hint).at(watermark.column_location));
    };
    if !matches!(field.data_type(), DataType::Timestamp(..)) {
        let name = elements.declared.get(column).map_or(field.name().as_str(), String::as_str);
        let message = format!("the event-time column \"{name}\" is a {}, not a TIMESTAMP", sql_name(field.data_type()));
        let hint = format!("declare it as {name} TIMESTAMP(3)");
        return Err(Error::new(message).hint(hint).at(watermark.column_location));
    }
    Ok(EventTimeRule {
        column,
        delay: watermark.delay,
        max_future_skew: watermark.max_future_skew,
        idle_timeout: watermark.idle_timeout,
    })
}

fn durability(options: &[WithOption]) -> Result<Option<StreamDurability>> {
    let Some(option) = options.iter().find(|option| option.key == "durability") else { return Ok(None) };
    match option.value.to_lowercase().as_str() {
        "power_loss" => Ok(Some(StreamDurability::PowerLoss)),
        "process_crash" => Ok(Some(StreamDurability::ProcessCrash)),
        "none" => Ok(Some(StreamDurability::None)),
        _ => Err(Error::new(format!("durability is '{}'", option.value))
            .hint("write durability = 'power_loss', 'process_crash' or 'none'")
            .at(option.location)),
    }
}

fn rate_limit(options: &[WithOption]) -> Result<Option<f64>> {
    let Some(option) = options.iter().find(|option| option.key == "rate_limit") else { return Ok(None) };
    match option.value.replace('_', "").parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate.is_finite() => Ok(Some(rate)),
        _ => Err(Error::new(format!("rate_limit is '{}', not a number of rows per second", option.value))
            .hint("write rate_limit = '10000'")
            .at(option.location)),
    }
}

fn refresh_interval(options: &[WithOption]) -> Result<Option<Span>> {
    let Some(option) = options.iter().find(|option| option.key == REFRESH_INTERVAL) else { return Ok(None) };
    match parse_span(&option.value) {
        Ok(interval) if interval.0 > 0 => Ok(Some(interval)),
        _ => Err(Error::new(format!("{REFRESH_INTERVAL} is '{}', not how long the table is good", option.value))
            .hint(format!("write {REFRESH_INTERVAL} = '10 s'"))
            .at(option.location)),
    }
}

fn bad_data(options: &[WithOption]) -> Result<BadData> {
    let Some(option) = options.iter().find(|option| option.key == "bad_data") else {
        return Ok(BadData::default());
    };
    match option.value.to_lowercase().as_str() {
        "fail" => Ok(BadData::Fail),
        "skip" => Ok(BadData::Skip),
        "dead_letter" => Ok(BadData::DeadLetter),
        _ => Err(Error::new(format!("bad_data is '{}'", option.value))
            .hint("write bad_data = 'fail', 'skip' or 'dead_letter'")
            .at(option.location)),
    }
}
