//! Windows that other systems write outside of a relation's brackets, read token by token.
//!
//! | system | text |
//! |---|---|
//! | Flink, Calcite | `TUMBLE(ts, size)`, `HOP(ts, slide, size)`, `SESSION(ts, gap)` in GROUP BY; `TUMBLE_START(…)`, `…_END`, `…_ROWTIME` |
//! | Arroyo | the same without the time column, as `tumble(size)`, and with a struct as its value |
//! | Spark | `window(ts, size, slide, start)`, `session_window(ts, gap)` |
//!
//! [`ksql_window`](crate::ksql_window) reads ksqlDB's clause. Which SELECT such a call belongs to is not known here: it is replaced by a marker, which
//! [`group_window`](crate::group_window) finds in the parsed query.

use datafusion::sql::sqlparser::ast::Expr as SqlExpr;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_engine::plan::{Location, WINDOW_END, WINDOW_START};
use millstream_engine::time::Span;
use millstream_engine::window::WindowSpec;

use crate::duration::{Parameters, parse_duration, starts_duration};
use crate::error::{Error, Result};
use crate::time_zone::{TimeZone, parse_time_zone};
use crate::token::{Cursor, fold, is_word};
use crate::window::{WindowClause, session_keys, session_window, window_spec};

/// The name that stands for a call starts with this; its number follows.
pub(crate) const CALL_MARKER: &str = "$call ";

/// A window as one call describes it.
#[derive(Debug, Clone)]
pub(crate) struct WindowCall {
    /// The function or clause as typed.
    pub(crate) name: String,
    /// The window.
    pub(crate) shape: Shape,
    /// What the call stands for.
    pub(crate) part: Part,
    /// The relation that the time column is qualified by.
    pub(crate) qualifier: Option<String>,
    /// The column that it names as the time and its place.
    pub(crate) time_column: Option<(String, Option<Location>)>,
    /// Where it starts.
    pub(crate) location: Option<Location>,
}

/// The extent of the windows of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Of one length, at regular instants.
    Sliding(WindowSpec),
    /// As long as rows follow each other within this gap.
    Session(Span),
}

/// What a call stands for in an expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// The window as a struct, under this name if it is given none.
    Whole(&'static str),
    /// One bound of it: the column `window_start` or `window_end`.
    Bound(&'static str),
    /// The last point of time inside it.
    Time,
}

/// A window function: its name before `_START` and the like, and what it takes.
#[derive(Debug)]
struct Function {
    stem: &'static str,
    /// The names of its arguments in order.
    parameters: &'static [&'static str],
    example: &'static str,
    whole: Part,
    /// Whether its windows start, and not end, at multiples of the slide; it matters where the slide does not
    /// divide the size.
    counts_starts: bool,
}

const FUNCTIONS: [Function; 5] = [
    Function {
        stem: "tumble",
        parameters: &["timecol", "size", "offset"],
        example: "write TUMBLE(ts, INTERVAL '5' MINUTE)",
        whole: Part::Whole("window"),
        counts_starts: false,
    },
    Function {
        stem: "hop",
        parameters: &["timecol", "slide", "size", "offset"],
        example: "write HOP(ts, INTERVAL '1' MINUTE, INTERVAL '5' MINUTE): slide, then size",
        whole: Part::Whole("window"),
        counts_starts: false,
    },
    Function {
        stem: "session",
        parameters: &["timecol", "gap"],
        example: "write SESSION(ts, INTERVAL '5' MINUTE)",
        whole: Part::Whole("window"),
        counts_starts: false,
    },
    Function {
        stem: "window",
        parameters: &["timecol", "size", "slide", "offset"],
        example: "write window(ts, '5 minutes', '1 minute'): size, then slide",
        whole: Part::Whole("window"),
        counts_starts: true,
    },
    Function {
        stem: "session_window",
        parameters: &["timecol", "gap"],
        example: "write session_window(ts, '5 minutes')",
        whole: Part::Whole("session_window"),
        counts_starts: false,
    },
];

/// What a call has said so far.
#[derive(Debug, Default)]
struct Arguments {
    qualifier: Option<String>,
    time_column: Option<(String, Option<Location>)>,
    lengths: Lengths,
    zone: Option<TimeZone>,
    names_lengths: bool,
}

/// Durations and their places, by the name of their parameter.
#[derive(Debug, Default)]
pub(crate) struct Lengths(Vec<(&'static str, Span, Option<Location>)>);

/// Whether a call of a window function is next, and not a name of the WITH clause with its columns.
pub(crate) fn at_window_call(cursor: &Cursor<'_>) -> bool {
    let Token::Word(word) = cursor.peek() else { return false };
    if word.quote_style.is_some() || *cursor.peek_nth(1) != Token::LParen || function(&word.value).is_none() {
        return false;
    }
    let is_name = |token: &Token| matches!(token, Token::Word(_) | Token::Comma);
    let end = (2..).find(|distance| !is_name(cursor.peek_nth(*distance))).unwrap_or(2);
    let names_columns = *cursor.peek_nth(end) == Token::RParen
        && is_word(cursor.peek_nth(end + 1), "as")
        && *cursor.peek_nth(end + 2) == Token::LParen;
    !names_columns
}

/// Reads a call of a window function.
///
/// # Errors
/// Its arguments are not those of a window.
pub(crate) fn parse_window_call(cursor: &mut Cursor<'_>, parameters: &Parameters) -> Result<WindowCall> {
    let location = cursor.location();
    let name = cursor.expect_name("a window function")?.value.clone();
    let Some((function, part)) = function(&name) else { return Err(cursor.expected("a window function")) };
    let Some(part) = part else {
        let hint = format!("write {}_ROWTIME: all times are event times", function.stem.to_uppercase());
        return Err(Error::unsupported(name, hint).at(location));
    };
    cursor.expect(&Token::LParen)?;
    let mut arguments = Arguments::default();
    let first = usize::from(leaves_time_out(cursor, function, parameters));
    for position in first.. {
        parse_argument(cursor, parameters, function, position, &mut arguments)?;
        if !cursor.eat(&Token::Comma) {
            break;
        }
    }
    cursor.expect(&Token::RParen).map_err(|error| error.hint(function.example))?;
    let shape = arguments.shape(function, &name, location)?;
    let Arguments { qualifier, time_column, .. } = arguments;
    Ok(WindowCall { name, shape, part, qualifier, time_column, location })
}

/// The function of that name and its part of the window, or no part if there is no such time here.
fn function(name: &str) -> Option<(&'static Function, Option<Part>)> {
    let name = name.to_lowercase();
    FUNCTIONS.iter().find_map(|function| {
        let has_parts = ["tumble", "hop", "session"].contains(&function.stem);
        let part = match name.strip_prefix(function.stem)? {
            "" => Some(function.whole),
            "_start" if has_parts => Some(Part::Bound(WINDOW_START)),
            "_end" if has_parts => Some(Part::Bound(WINDOW_END)),
            "_rowtime" if has_parts => Some(Part::Time),
            "_proctime" if has_parts => None,
            _ => return None,
        };
        Some((function, part))
    })
}

/// Whether the first argument is a length already: the time column may be left out.
fn leaves_time_out(cursor: &Cursor<'_>, function: &Function, parameters: &Parameters) -> bool {
    if starts_duration(cursor) {
        return true;
    }
    // `hop(s, n)` has the names of two lengths, `hop(ts, s, n)` a column before them.
    let needed = function.parameters.iter().filter(|name| ["slide", "size", "gap"].contains(name)).count();
    let needed = if function.stem == "window" { 1 } else { needed };
    match cursor.peek() {
        Token::Word(word) => parameters.contains_key(&word.value.to_lowercase()) && count_arguments(cursor) <= needed,
        _ => false,
    }
}

/// The number of arguments before the parenthesis that closes the call.
fn count_arguments(cursor: &Cursor<'_>) -> usize {
    let (mut depth, mut count) = (0_usize, 1);
    for token in cursor.rest() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen if depth == 0 => break,
            Token::RParen => depth -= 1,
            Token::Comma if depth == 0 => count += 1,
            _ => {}
        }
    }
    count
}

fn parse_argument(
    cursor: &mut Cursor<'_>,
    parameters: &Parameters,
    function: &Function,
    position: usize,
    arguments: &mut Arguments,
) -> Result<()> {
    let place = cursor.location();
    match argument_name(cursor, function, position, arguments)? {
        "timecol" => {
            let mut place = cursor.location();
            let mut column = fold(cursor.expect_name("the stream's watermark column")?);
            if cursor.eat(&Token::Period) {
                arguments.qualifier = Some(column);
                place = cursor.location();
                column = fold(cursor.expect_name("the stream's watermark column")?);
            }
            arguments.time_column = Some((column, place));
        }
        "timezone" => arguments.zone = Some(parse_time_zone(cursor)?),
        name if arguments.lengths.get(name).is_some() => {
            let message = format!("the window says {} twice", name.to_uppercase());
            return Err(Error::new(message).hint(function.example).at(place));
        }
        name => {
            let place = cursor.location();
            arguments.lengths.push(name, parse_duration(cursor, Some(parameters))?, place);
        }
    }
    Ok(())
}

/// The name of the argument that is next, from `name =>` or from its position.
fn argument_name(
    cursor: &mut Cursor<'_>,
    function: &Function,
    position: usize,
    arguments: &mut Arguments,
) -> Result<&'static str> {
    if !matches!(cursor.peek_nth(1), Token::RArrow | Token::Assignment) {
        let name = function.parameters.get(position).copied();
        return name.ok_or_else(|| cursor.expected("\")\"").hint(function.example));
    }
    let mut names = function.parameters.iter().copied().chain(["timezone"]);
    let Some(name) = names.find(|name| cursor.at_word(name)) else {
        let known = format!("{}, TIMEZONE", function.parameters.join(", ").to_uppercase());
        return Err(cursor.expected(&known).hint(function.example));
    };
    cursor.next();
    cursor.next();
    arguments.names_lengths |= ["slide", "size"].contains(&name);
    Ok(name)
}

impl Lengths {
    pub(crate) fn get(&self, name: &str) -> Option<(Span, Option<Location>)> {
        self.0.iter().find(|(other, ..)| *other == name).map(|(_, span, place)| (*span, *place))
    }

    pub(crate) fn push(&mut self, name: &'static str, span: Span, place: Option<Location>) {
        self.0.push((name, span, place));
    }
}

impl Arguments {
    /// The window of a function.
    fn shape(&self, function: &Function, name: &str, location: Option<Location>) -> Result<Shape> {
        let missing =
            |what: &str| Error::new(format!("the window of {name} has no {what}")).hint(function.example).at(location);
        if function.parameters.contains(&"gap") {
            return Ok(Shape::Session(self.lengths.get("gap").ok_or_else(|| missing("GAP"))?.0));
        }
        let (size, _) = self.lengths.get("size").ok_or_else(|| missing("SIZE"))?;
        let (slide, place) = match self.lengths.get("slide") {
            Some(slide) => slide,
            None if function.stem == "hop" => return Err(missing("SLIDE")),
            None => (size, location),
        };
        if slide > size && !self.names_lengths {
            let message = format!("{name} slides by {slide} over windows of {size}: did you swap slide and size?");
            let (first, second) = if function.counts_starts { ("size", "slide") } else { ("slide", "size") };
            let hint = format!("the {first} comes first, then the {second}; or name them: SLIDE => …, SIZE => …");
            return Err(Error::new(message).hint(hint).at(place));
        }
        let offset = self.lengths.get("offset").map_or(Span(0), |(offset, _)| offset);
        let zone = self.zone.as_ref().map_or(Ok(Span(0)), |zone| zone.offset(slide))?;
        let start = if function.counts_starts { size } else { Span(0) };
        sliding(size, slide, &[offset, zone, start], location)
    }
}

/// The window of checked lengths, its instants moved by the sum of `offsets`.
pub(crate) fn sliding(size: Span, slide: Span, offsets: &[Span], location: Option<Location>) -> Result<Shape> {
    // The sum is needed modulo the slide only, so each addend is small and none overflows.
    let rest = |offset: &Span| if slide.0 > 0 { offset.0.rem_euclid(slide.0) } else { 0 };
    let mut offset = 0_i64;
    for addend in offsets {
        offset = rest(&Span(offset.saturating_add(rest(addend))));
    }
    window_spec(size, slide, Some(Span(offset)), location).map(Shape::Sliding)
}

impl WindowCall {
    /// Whether both calls mean the same window.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let columns = self.time_column.as_ref().zip(other.time_column.as_ref());
        self.shape == other.shape && columns.is_none_or(|((column, _), (other, _))| column == other)
    }

    /// The window of the relation it is over, when `keys` are the other elements of GROUP BY.
    ///
    /// # Errors
    /// The window does nothing yet.
    pub(crate) fn clause(&self, keys: &[SqlExpr]) -> Result<WindowClause> {
        let (time_column, location) = (self.time_column.clone(), self.location);
        match self.shape {
            Shape::Sliding(spec) => Ok(WindowClause { spec: Some(spec), keys: Vec::new(), time_column, location }),
            Shape::Session(gap) => session_window(gap, session_keys(keys, location)?, time_column, location),
        }
    }

    /// The error of a call over something in FROM that is no single relation.
    pub(crate) fn over(&self, what: &str) -> Error {
        let bracket = match self.shape {
            Shape::Sliding(spec) => format!("[Range {}, Slide {}]", spec.range(), spec.slide()),
            Shape::Session(gap) => format!("[Session Gap {gap}]"),
        };
        let error = Error::unsupported(format!("{} over {what}", self.name), "");
        error.hint(format!("write the window on each stream inside: t {bracket}")).at(self.location)
    }

    /// The error of a call that means another window than `other` of the same SELECT.
    pub(crate) fn differs_from(&self, other: &Self) -> Error {
        let error = Error::new(format!("{} and {} of one SELECT mean different windows", other.name, self.name));
        error.hint("give both the same time column and lengths").at(self.location)
    }

    /// The error of a call over a relation that has a window already.
    pub(crate) fn second_window(&self) -> Error {
        let error = Error::new(format!("{} stands beside another window of the same SELECT", self.name));
        error.hint("leave one of the two out").at(self.location)
    }
}
