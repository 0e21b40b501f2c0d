//! Durations as users write them: `5 minutes`, `10s`, `'500 ms'`, `INTERVAL '5' MINUTE`, `30`, or a parameter.
//!
//! All are read exactly, in integers: `0.1 seconds` is 100,000,000 nanoseconds and not nearly so.

use std::collections::BTreeMap;

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_engine::plan::Location;
use millstream_engine::time::{NANOS_PER_SECOND, Span};

use crate::error::{Error, Result};
use crate::suggest::nearest;
use crate::token::{Cursor, tokenize};

/// The values bound to parameter names, which are in lower case.
pub(crate) type Parameters = BTreeMap<String, String>;

/// The names of each unit and its nanoseconds.
const UNITS: [(&[&str], i64); 8] = [
    (&["nanosecond", "nanoseconds", "ns"], 1),
    (&["microsecond", "microseconds", "us", "µs", "μs"], 1_000),
    (&["millisecond", "milliseconds", "milli", "millis", "ms"], 1_000_000),
    (&["second", "seconds", "sec", "secs", "s"], NANOS_PER_SECOND),
    (&["minute", "minutes", "min", "mins", "m"], 60 * NANOS_PER_SECOND),
    (&["hour", "hours", "hr", "hrs", "h"], 3_600 * NANOS_PER_SECOND),
    (&["day", "days", "d"], 86_400 * NANOS_PER_SECOND),
    (&["week", "weeks", "w"], 7 * 86_400 * NANOS_PER_SECOND),
];

/// Units without a fixed length, and what to write instead.
const CALENDAR_UNITS: [(&[&str], &str, &str); 3] = [
    (&["month", "months", "mon", "mons"], "month", "30 days"),
    (&["quarter", "quarters"], "quarter", "90 days"),
    (&["year", "years", "yr", "yrs", "y"], "year", "365 days"),
];

/// Words that may follow a number of seconds without being its unit.
const FOLLOWERS: [&str; 10] = ["range", "slide", "offset", "closed", "on", "rows", "partition", "idle", "max", "time"];

/// Reads a duration as it stands in a setting or on a command line: `100 ms`, `5 minutes`; a bare number is seconds.
///
/// # Errors
/// The value is not a duration.
pub fn parse_span(value: &str) -> Result<Span> {
    let tokens = tokenize(value)?;
    let mut cursor = Cursor::new(&tokens);
    let span = parse_duration(&mut cursor, None)?;
    cursor.expect_end()?;
    Ok(span)
}

/// Whether the next tokens can only be a duration: a number, a text or `INTERVAL …`, but not a name.
pub(crate) fn starts_duration(cursor: &Cursor<'_>) -> bool {
    let is_value = |token: &Token| {
        matches!(token, Token::Number(..) | Token::SingleQuotedString(_) | Token::Minus | Token::Placeholder(_))
    };
    let is_interval = cursor.at_word("interval");
    let next = cursor.peek_nth(1);
    is_value(cursor.peek()) || (is_interval && (is_value(next) || matches!(next, Token::Word(_))))
}

/// Reads a duration at the cursor; a name is looked up in `parameters`, where they are allowed.
///
/// # Errors
/// No duration is there, a parameter is not bound, or the unit is a month or longer.
pub(crate) fn parse_duration(cursor: &mut Cursor<'_>, parameters: Option<&Parameters>) -> Result<Span> {
    let place = cursor.location();
    let negative = cursor.eat(&Token::Minus);
    cursor.eat_word("interval");
    let nanos = match cursor.peek() {
        Token::Number(..) => parse_terms(cursor)?,
        Token::SingleQuotedString(text) => parse_string(cursor, text)?,
        Token::Word(word) => parse_parameter(cursor, &word.value, parameters)?,
        Token::Placeholder(name) => parse_parameter(cursor, name.trim_start_matches('$'), parameters)?,
        _ => return Err(expected(cursor)),
    };
    let nanos = if negative { nanos.checked_neg() } else { Some(nanos) };
    let nanos = nanos.and_then(|nanos| i64::try_from(nanos).ok());
    nanos.map(Span).ok_or_else(|| Error::new("the duration is longer than 292 years").at(place))
}

/// `5 minutes`, `1 minute 30 seconds`, `30`.
fn parse_terms(cursor: &mut Cursor<'_>) -> Result<i128> {
    let mut total = 0_i128;
    let mut first = true;
    while let Token::Number(digits, _) = cursor.peek() {
        let place = cursor.location();
        cursor.next();
        let unit = parse_unit(cursor)?;
        if unit.is_none() && !first {
            return Err(cursor.expected("a unit of time"));
        }
        total = total.saturating_add(scale(digits, unit.unwrap_or(NANOS_PER_SECOND), place)?);
        first = false;
        if unit.is_none() {
            break;
        }
    }
    Ok(total)
}

/// `'10 minutes'`, or `'10'` with the unit outside.
fn parse_string(cursor: &mut Cursor<'_>, text: &str) -> Result<i128> {
    let place = cursor.location();
    cursor.next();
    let (sign, digits) = match text.trim().strip_prefix('-') {
        Some(rest) => (-1, rest.trim()),
        None => (1, text.trim()),
    };
    if !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.') {
        let unit = parse_unit(cursor)?.unwrap_or(NANOS_PER_SECOND);
        return Ok(scale(digits, unit, place)?.saturating_mul(sign));
    }
    // Places inside the string would point at its start as if it were a text of its own.
    let span = parse_span(text).map_err(|error| Error { location: place, ..error })?;
    Ok(i128::from(span.0))
}

/// A name that `-p` has bound to a duration.
fn parse_parameter(cursor: &mut Cursor<'_>, name: &str, parameters: Option<&Parameters>) -> Result<i128> {
    let Some(parameters) = parameters else { return Err(expected(cursor)) };
    let place = cursor.location();
    let Some(value) = parameters.get(&name.to_lowercase()) else {
        let message = format!("parameter \"{}\" is not bound", name);
        return Err(Error::new(message).hint(format!("pass -p {}='5 minutes'", name)).at(place));
    };
    cursor.next();
    let span = parse_span(value).map_err(|error| Error {
        message: format!("parameter \"{}\" is '{value}': {}", name, error.message),
        location: place,
        ..error
    })?;
    Ok(i128::from(span.0))
}

/// Whether a token is a unit of time.
pub(crate) fn is_unit(token: &Token) -> bool {
    let Token::Word(word) = token else { return false };
    let name = word.value.to_lowercase();
    let fixed = UNITS.iter().any(|(names, _)| names.contains(&name.as_str()));
    fixed || CALENDAR_UNITS.iter().any(|(names, ..)| names.contains(&name.as_str()))
}

/// The nanoseconds of the unit at the cursor, if one is there.
fn parse_unit(cursor: &mut Cursor<'_>) -> Result<Option<i64>> {
    let Token::Word(word) = cursor.peek() else { return Ok(None) };
    let name = word.value.to_lowercase();
    for (names, unit, instead) in CALENDAR_UNITS {
        if names.contains(&name.as_str()) {
            let error = Error::new(format!("a {unit} has no fixed length")).hint(format!("write {instead}"));
            return Err(error.at(cursor.location()));
        }
    }
    if let Some((_, nanos)) = UNITS.into_iter().find(|(names, _)| names.contains(&name.as_str())) {
        cursor.next();
        return Ok(Some(nanos));
    }
    if FOLLOWERS.contains(&name.as_str()) {
        return Ok(None);
    }
    let names = UNITS.into_iter().flat_map(|(names, _)| names).copied();
    let hint = match nearest(&name, names.filter(|name| name.len() > 2)) {
        Some(near) => format!("did you mean {near}?"),
        None => "the units are ns, us, ms, seconds, minutes, hours, days and weeks".into(),
    };
    Err(Error::new(format!("unknown unit of time \"{}\"", word.value)).hint(hint).at(cursor.location()))
}

/// `digits`, which may have a fraction, times `unit`.
fn scale(digits: &str, unit: i64, place: Option<Location>) -> Result<i128> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let joined = format!("{whole}{fraction}");
    let places = u32::try_from(fraction.len()).unwrap_or(u32::MAX);
    let nanos = joined
        .parse::<i128>()
        .ok()
        .and_then(|number| number.checked_mul(i128::from(unit)))
        .zip(10_i128.checked_pow(places));
    match nanos {
        Some((nanos, divisor)) if nanos % divisor == 0 => Ok(nanos / divisor),
        Some(_) => Err(Error::new(format!("{digits} is finer than a nanosecond")).at(place)),
        None => Err(Error::new(format!("{digits} is not a number a duration can have")).at(place)),
    }
}

fn expected(cursor: &Cursor<'_>) -> Error {
    cursor.expected("a duration").hint("write for example 5 minutes, 10s, 500 ms or INTERVAL '5' MINUTE")
}
