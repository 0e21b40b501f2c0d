//! The window of a relation in a query: `T [Range 5 minutes, Slide 1 minute]`, `TUMBLE(…)` and `HOP(…)`.
//!
//! The spellings differ, the meaning does not: each becomes a [`WindowClause`].

use datafusion::sql::sqlparser::ast::Expr as SqlExpr;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_engine::plan::Location;
use millstream_engine::time::Span;
use millstream_engine::window::WindowSpec;

use crate::duration::{Parameters, parse_duration};
use crate::error::{Error, Result};
use crate::suggest::list;
use crate::time_zone::{TimeZone, parse_time_zone};
use crate::token::{Cursor, fold};

const EXAMPLE: &str = "write for example [Range 5 minutes, Slide 1 minute]";

/// A window as written, with the column it names as its time, if it names one.
#[derive(Debug, Clone)]
pub(crate) struct WindowClause {
    /// The window itself.
    pub(crate) spec: WindowSpec,
    /// The column of `DESCRIPTOR(…)` or `ON …` and its place.
    pub(crate) time_column: Option<(String, Option<Location>)>,
    /// Where the clause starts.
    pub(crate) location: Option<Location>,
}

/// What a bracket has said so far.
#[derive(Debug, Default)]
struct Bracket {
    range: Option<Span>,
    slide: Option<Span>,
    offset: Option<Span>,
    time_zone: Option<TimeZone>,
    closed_right: Option<bool>,
    time_column: Option<(String, Option<Location>)>,
}

/// Reads `[Range R, Slide S]` at the cursor.
///
/// # Errors
/// The bracket is not a window, or one that does nothing yet.
pub(crate) fn parse_bracket(cursor: &mut Cursor<'_>, parameters: &Parameters) -> Result<WindowClause> {
    let location = cursor.location();
    cursor.expect(&Token::LBracket)?;
    let mut bracket = Bracket::default();
    while !cursor.eat(&Token::RBracket) {
        if !cursor.eat(&Token::Comma) {
            parse_part(cursor, parameters, &mut bracket)?;
        }
    }
    let Some(range) = bracket.range else {
        return Err(Error::new("the window has no Range").hint(EXAMPLE).at(location));
    };
    let Some(slide) = bracket.slide else {
        let error = Error::unsupported(format!("[Range {range}] without Slide"), EXAMPLE);
        return Err(error.at(location));
    };
    let zone = bracket.time_zone.map(|zone| zone.offset(slide)).transpose()?;
    let spec = window_spec(range, slide, total_offset(bracket.offset, zone), location)?;
    let spec = if bracket.closed_right == Some(true) { spec.closed_right() } else { spec };
    Ok(WindowClause { spec, time_column: bracket.time_column, location })
}

/// The window of checked lengths.
///
/// # Errors
/// A length is not positive.
pub(crate) fn window_spec(
    range: Span,
    slide: Span,
    offset: Option<Span>,
    location: Option<Location>,
) -> Result<WindowSpec> {
    let spec = WindowSpec::new(range, slide).map_err(|error| Error {
        hint: error.hint().map(str::to_owned),
        ..Error::new(error.to_string()).at(location)
    })?;
    Ok(spec.with_offset(offset.unwrap_or(Span(0))))
}

/// The session window of rows that agree in `keys` and follow each other within `gap`.
///
/// Every spelling of a session in GROUP BY and of ksqlDB's clause ends here; `keys` are the other elements of
/// GROUP BY, with the expressions that its numbers stand for.
///
/// # Errors
/// Session windows do nothing yet.
pub(crate) fn session_window(
    gap: Span,
    keys: &[SqlExpr],
    _time_column: Option<(String, Option<Location>)>,
    location: Option<Location>,
) -> Result<WindowClause> {
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    let by = if keys.is_empty() { String::new() } else { format!(" by {}", list(&keys, "and")) };
    let error = Error::unsupported(format!("a session window{by} with a gap of {gap}"), "TUMBLE and HOP work");
    Err(error.at(location))
}

/// An offset as written and that of a time zone.
pub(crate) fn total_offset(offset: Option<Span>, zone: Option<Span>) -> Option<Span> {
    let Some(zone) = zone else { return offset };
    Some(Span(offset.unwrap_or(Span(0)).0.saturating_add(zone.0)))
}

/// One of `Range R`, `Slide S`, `Offset O`, `Time Zone 'Z'`, `Closed Left|Right`, `On column`.
fn parse_part(cursor: &mut Cursor<'_>, parameters: &Parameters, bracket: &mut Bracket) -> Result<()> {
    refuse_other_windows(cursor)?;
    let place = cursor.location();
    let (part, twice) = if cursor.eat_word("range") {
        if cursor.at_word("unbounded") {
            let hint = "leave the bracket out to read the whole stream";
            return Err(Error::unsupported("[Range Unbounded]", hint).at(cursor.location()));
        }
        ("Range", bracket.range.replace(parse_duration(cursor, Some(parameters))?).is_some())
    } else if cursor.eat_word("slide") {
        ("Slide", bracket.slide.replace(parse_duration(cursor, Some(parameters))?).is_some())
    } else if cursor.eat_word("offset") {
        ("Offset", bracket.offset.replace(parse_duration(cursor, Some(parameters))?).is_some())
    } else if cursor.eat_words(&["time", "zone"]) {
        ("Time Zone", bracket.time_zone.replace(parse_time_zone(cursor)?).is_some())
    } else if cursor.eat_word("closed") {
        ("Closed", bracket.closed_right.replace(parse_side(cursor)?).is_some())
    } else if cursor.eat_word("on") {
        let place = cursor.location();
        let column = fold(cursor.expect_name("the stream's watermark column")?);
        ("On", bracket.time_column.replace((column, place)).is_some())
    } else {
        return Err(cursor.expected("Range, Slide, Offset, Time Zone, Closed or \"]\"").hint(EXAMPLE));
    };
    if twice {
        return Err(Error::new(format!("the window says {part} twice")).hint(EXAMPLE).at(place));
    }
    Ok(())
}

/// Whether `Closed` is followed by `Right`.
fn parse_side(cursor: &mut Cursor<'_>) -> Result<bool> {
    if cursor.eat_word("right") {
        Ok(true)
    } else if cursor.eat_word("left") {
        Ok(false)
    } else {
        Err(cursor.expected("LEFT or RIGHT"))
    }
}

/// Windows of the wider dialect that do nothing yet.
fn refuse_other_windows(cursor: &Cursor<'_>) -> Result<()> {
    let others = [
        ("rows", "[Rows n]"),
        ("now", "[Now]"),
        ("unbounded", "[Unbounded]"),
        ("partition", "[Partition By …]"),
        ("session", "[Session …]"),
    ];
    match others.into_iter().find(|(word, _)| cursor.at_word(word)) {
        Some((_, name)) => Err(Error::unsupported(format!("the window {name}"), EXAMPLE).at(cursor.location())),
        None => Ok(()),
    }
}
