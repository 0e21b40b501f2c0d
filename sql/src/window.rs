//! The window of a relation in a query: `T [Range 5 minutes, Slide 1 minute]`, `TUMBLE(…)` and `HOP(…)`.
//!
//! The spellings differ, the meaning does not: each becomes a [`WindowClause`].
//!
//! ```text
//! [Range R, Slide S]  [Range R]  [Range Unbounded]  [Now]
//! [Rows n]  [Rows n, Slide S]  [Rows n, Slide m]  [Partition By k, … Rows n]  [Partition By k, … Rows n, Slide S]
//! [Session Gap g]  [Session Gap g Partition By k, …]
//! ```

use datafusion::sql::planner::IdentNormalizer;
use datafusion::sql::sqlparser::ast::Expr as SqlExpr;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_engine::plan::Location;
use millstream_engine::time::Span;
use millstream_engine::window::WindowSpec;

use crate::duration::{Parameters, is_unit, parse_duration};
use crate::error::{Error, Result};
use crate::time_zone::{TimeZone, parse_time_zone};
use crate::token::{Cursor, fold, is_word};

const EXAMPLE: &str = "write for example [Range 5 minutes, Slide 1 minute]";
const LATEST_EXAMPLE: &str = "write for example [Partition By szcode Rows 1, Slide 1 minute]";
const SESSION_EXAMPLE: &str = "write for example [Session Gap 5 minutes Partition By user]";

/// A column as named in a window, and its place.
pub(crate) type ColumnName = (String, Option<Location>);

/// A window as written, with the column it names as its time, if it names one.
#[derive(Debug, Clone)]
pub(crate) struct WindowClause {
    /// The window itself; none for all rows of an endless stream.
    pub(crate) spec: Option<WindowSpec>,
    /// The columns whose values it keeps apart.
    pub(crate) keys: Vec<ColumnName>,
    /// The column of `DESCRIPTOR(…)` or `ON …` and its place.
    pub(crate) time_column: Option<ColumnName>,
    /// Where the clause starts.
    pub(crate) location: Option<Location>,
}

/// What a bracket has said so far.
#[derive(Debug, Default)]
struct Bracket {
    range: Option<Span>,
    slide: Option<Slide>,
    gap: Option<Span>,
    rows: Option<u64>,
    offset: Option<Span>,
    time_zone: Option<TimeZone>,
    closed_right: Option<bool>,
    is_now: bool,
    is_unbounded: bool,
    keys: Vec<ColumnName>,
    time_column: Option<ColumnName>,
}

/// How far one window is from the next, as written.
#[derive(Debug, Clone, Copy)]
struct Slide {
    /// A bare number, which is one of rows where a window has so many of them.
    count: Option<u64>,
    time: Span,
}

/// Reads a window in brackets at the cursor.
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
    let spec = bracket.spec().map_err(|error| error.at(location))?;
    Ok(WindowClause { spec, keys: bracket.keys, time_column: bracket.time_column, location })
}

impl Bracket {
    /// The window that was described.
    fn spec(&self) -> Result<Option<WindowSpec>> {
        let kinds = [
            (self.range.is_some(), "Range"),
            (self.is_unbounded, "Range Unbounded"),
            (self.is_now, "Now"),
            (self.rows.is_some(), "Rows"),
            (self.gap.is_some(), "Session"),
        ];
        let mut given = kinds.into_iter().filter(|(is_given, _)| *is_given).map(|(_, name)| name);
        let Some(kind) = given.next() else {
            let hint = if self.keys.is_empty() { EXAMPLE } else { LATEST_EXAMPLE };
            let what = if self.keys.is_empty() { "Range" } else { "Rows" };
            return Err(Error::new(format!("the window has no {what}")).hint(hint));
        };
        if let Some(other) = given.next() {
            return Err(Error::new(format!("the window says both {kind} and {other}")).hint(EXAMPLE));
        }
        self.refuse_parts(kind)?;
        let spec = match kind {
            "Range Unbounded" => return Ok(None),
            "Now" => WindowSpec::now(),
            "Rows" => {
                let rows = self.rows.unwrap_or_default();
                match self.slide {
                    Some(Slide { count: Some(slide), .. }) => checked(WindowSpec::counted(rows, slide))?,
                    slide => checked(WindowSpec::latest(rows, slide.map(|slide| slide.time)))?,
                }
            }
            "Session" => return Ok(Some(session_spec(self.gap.unwrap_or(Span(0)))?)),
            _ => {
                let range = self.range.unwrap_or(Span(0));
                match self.slide {
                    Some(slide) => checked(WindowSpec::new(range, slide.time))?,
                    None => checked(WindowSpec::by_row(range))?,
                }
            }
        };
        let zone = self.time_zone.as_ref().map(|zone| zone.offset(spec.slide())).transpose()?;
        let spec = spec.with_offset(total_offset(self.offset, zone).unwrap_or(Span(0)));
        Ok(Some(if self.closed_right == Some(true) { spec.closed_right() } else { spec }))
    }

    /// Refuses parts that a window of this kind cannot have.
    fn refuse_parts(&self, kind: &str) -> Result<()> {
        let counts = kind == "Rows" && self.slide.is_some_and(|slide| slide.count.is_some());
        let has_slide = matches!(kind, "Range" | "Rows") && self.slide.is_some() && !counts;
        let (part, hint) = if kind == "Range Unbounded" && self.slide.is_some() {
            ("Slide", "leave it out: the results change with every row; or give the window a range")
        } else if self.slide.is_some() && !matches!(kind, "Range" | "Rows") {
            ("Slide", EXAMPLE)
        } else if counts && !self.keys.is_empty() {
            ("Partition By", "the rows of all keys are counted together; give the slide a unit of time: Slide 10 s")
        } else if self.offset.is_some() && !has_slide {
            ("Offset", "only a window with a Slide of time has one")
        } else if self.time_zone.is_some() && !has_slide {
            ("Time Zone", "only a window with a Slide of time has one")
        } else if self.closed_right == Some(false) && !has_slide {
            ("Closed Left", "a window at each row holds that row: it is closed on the right")
        } else if self.closed_right.is_some() && !matches!(kind, "Range" | "Rows") {
            ("Closed", EXAMPLE)
        } else if !self.keys.is_empty() && !matches!(kind, "Rows" | "Session") {
            ("Partition By", "groups come from GROUP BY")
        } else {
            return Ok(());
        };
        let what = match kind {
            "Rows" if counts => "[Rows …, Slide …] of rows".to_owned(),
            "Range" if !has_slide => "[Range …] without Slide".to_owned(),
            _ => format!("[{kind} …]"),
        };
        Err(Error::new(format!("a window {what} has no {part}")).hint(hint))
    }
}

fn checked(spec: millstream_engine::Result<WindowSpec>) -> Result<WindowSpec> {
    spec.map_err(|error| Error { hint: error.hint().map(str::to_owned), ..Error::new(error.to_string()) })
}

fn session_spec(gap: Span) -> Result<WindowSpec> {
    WindowSpec::session(gap).map_err(|_| Error::new(format!("a session with a gap of {gap}")).hint(SESSION_EXAMPLE))
}

/// A session window of the rows of each of `keys`.
///
/// # Errors
/// The gap is not positive.
pub(crate) fn session_window(
    gap: Span,
    keys: Vec<ColumnName>,
    time_column: Option<ColumnName>,
    location: Option<Location>,
) -> Result<WindowClause> {
    let spec = session_spec(gap).map_err(|error| error.at(location))?;
    Ok(WindowClause { spec: Some(spec), keys, time_column, location })
}

/// A window that grows by `step` up to `size` and then begins anew.
///
/// # Errors
/// A length is not positive, or the size no multiple of the step.
pub(crate) fn cumulating_window(
    step: Span,
    size: Span,
    offset: Option<Span>,
    location: Option<Location>,
) -> Result<WindowSpec> {
    let spec = checked(WindowSpec::cumulating(step, size)).map_err(|error| error.at(location))?;
    Ok(spec.with_offset(offset.unwrap_or(Span(0))))
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
    let spec = checked(WindowSpec::new(range, slide)).map_err(|error| error.at(location))?;
    Ok(spec.with_offset(offset.unwrap_or(Span(0))))
}

/// The names of the columns that GROUP BY has besides a session.
///
/// # Errors
/// One of them is no column.
pub(crate) fn session_keys(keys: &[SqlExpr], location: Option<Location>) -> Result<Vec<ColumnName>> {
    let key = |expression: &SqlExpr| {
        let name = match expression {
            SqlExpr::Identifier(name) => Some(name),
            SqlExpr::CompoundIdentifier(names) => names.last(),
            _ => None,
        };
        match name {
            Some(name) => {
                Ok((IdentNormalizer::default().normalize(name.clone()), crate::error::location(name.span.start)))
            }
            None => {
                let error = Error::unsupported(format!("a session for each value of {expression}"), "");
                Err(error.hint("group by columns of the stream; compute in a query around it").at(location))
            }
        }
    };
    keys.iter().map(key).collect()
}

/// An offset as written and that of a time zone.
pub(crate) fn total_offset(offset: Option<Span>, zone: Option<Span>) -> Option<Span> {
    let Some(zone) = zone else { return offset };
    Some(Span(offset.unwrap_or(Span(0)).0.saturating_add(zone.0)))
}

/// One part of a bracket: `Range R`, `Slide S`, `Rows n`, `Partition By k, …`, `Time Zone 'Z'` and so on.
fn parse_part(cursor: &mut Cursor<'_>, parameters: &Parameters, bracket: &mut Bracket) -> Result<()> {
    let place = cursor.location();
    let (part, twice) = if cursor.eat_word("range") {
        if cursor.eat_word("unbounded") {
            ("Range", std::mem::replace(&mut bracket.is_unbounded, true))
        } else {
            ("Range", bracket.range.replace(parse_duration(cursor, Some(parameters))?).is_some())
        }
    } else if cursor.eat_word("slide") {
        let count = bare_number(cursor, parameters);
        let slide = Slide { count, time: parse_duration(cursor, Some(parameters))? };
        ("Slide", bracket.slide.replace(slide).is_some())
    } else if cursor.eat_word("rows") {
        ("Rows", bracket.rows.replace(parse_rows(cursor, parameters)?).is_some())
    } else if cursor.eat_word("now") {
        ("Now", std::mem::replace(&mut bracket.is_now, true))
    } else if cursor.eat_word("session") {
        cursor.eat_word("gap");
        ("Session", bracket.gap.replace(parse_duration(cursor, Some(parameters))?).is_some())
    } else if cursor.eat_words(&["partition", "by"]) {
        ("Partition By", !std::mem::replace(&mut bracket.keys, parse_columns(cursor)?).is_empty())
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
        let expected = "Range, Rows, Partition By, Now, Session, Slide, Offset, Time Zone, Closed, On or \"]\"";
        return Err(cursor.expected(expected).hint(EXAMPLE));
    };
    if twice {
        return Err(Error::new(format!("the window says {part} twice")).hint(EXAMPLE).at(place));
    }
    Ok(())
}

/// The number that is next, or the parameter that is bound to one, if it has no unit of time.
fn bare_number(cursor: &Cursor<'_>, parameters: &Parameters) -> Option<u64> {
    let text = match cursor.peek() {
        Token::Number(..) if is_unit(cursor.peek_nth(1)) => return None,
        Token::Number(digits, _) => digits,
        Token::Word(word) => parameters.get(&word.value.to_lowercase())?,
        Token::Placeholder(name) => parameters.get(&name.trim_start_matches('$').to_lowercase())?,
        _ => return None,
    };
    text.trim().parse().ok()
}

/// The number of rows; also the name of a parameter that is bound to one.
fn parse_rows(cursor: &mut Cursor<'_>, parameters: &Parameters) -> Result<u64> {
    let place = cursor.location();
    let text = match cursor.peek() {
        Token::Number(digits, _) => digits.clone(),
        Token::Word(word) => match parameters.get(&word.value.to_lowercase()) {
            Some(value) => value.clone(),
            None => return Err(cursor.expected("a number of rows").hint("write for example [Rows 100]")),
        },
        _ => return Err(cursor.expected("a number of rows").hint("write for example [Rows 100]")),
    };
    cursor.next();
    match text.trim().parse() {
        Ok(rows) if rows > 0 => Ok(rows),
        _ => Err(Error::new(format!("a window of {text} rows")).hint("write for example [Rows 100]").at(place)),
    }
}

/// Names separated by commas.
pub(crate) fn parse_columns(cursor: &mut Cursor<'_>) -> Result<Vec<ColumnName>> {
    let mut columns = Vec::new();
    loop {
        let place = cursor.location();
        columns.push((fold(cursor.expect_name("a column")?), place));
        let next = cursor.peek_nth(1);
        let names_part = ["rows", "slide", "offset", "on", "closed"].iter().any(|word| is_word(next, word));
        // A comma may also stand before the next part: `Partition By k, Rows 1`.
        if *cursor.peek() != Token::Comma || names_part || !matches!(next, Token::Word(_)) {
            return Ok(columns);
        }
        cursor.next();
    }
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
