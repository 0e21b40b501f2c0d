//! The standard's window table functions: `TUMBLE(TABLE t, DESCRIPTOR(ts), size)`,
//! `HOP(TABLE t, DESCRIPTOR(ts), slide, size)` and `CUMULATE(TABLE t, DESCRIPTOR(ts), step, size)`, each with an
//! optional offset and `TIMEZONE => '…'`, and `SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), gap)`.
//!
//! Arguments may be named, `TABLE` and `DESCRIPTOR` left out as RisingWave has it, and the time column too as Proton.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};
use millstream_engine::plan::Location;
use millstream_engine::time::Span;

use crate::duration::{Parameters, parse_duration, starts_duration};
use crate::error::{Error, Result};
use crate::time_zone::{TimeZone, parse_time_zone};
use crate::token::{Cursor, fold, is_word};
use crate::window::{ColumnName, WindowClause, cumulating_window, session_window, total_offset, window_spec};

/// A window table function that was called.
#[derive(Debug)]
pub(crate) struct TableFunction {
    /// The tokens of the relation's name.
    pub(crate) relation: Vec<TokenWithSpan>,
    /// The window over it.
    pub(crate) clause: WindowClause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tumble,
    Hop,
    Cumulate,
    Session,
}

#[derive(Debug, Default)]
struct Arguments {
    relation: Vec<TokenWithSpan>,
    keys: Vec<ColumnName>,
    time_column: Option<ColumnName>,
    slide: Option<(Span, Option<Location>)>,
    size: Option<Span>,
    offset: Option<Span>,
    time_zone: Option<TimeZone>,
    names_lengths: bool,
}

impl Kind {
    const fn parameters(self) -> &'static [&'static str] {
        match self {
            Self::Tumble => &["data", "timecol", "size", "offset"],
            Self::Hop => &["data", "timecol", "slide", "size", "offset"],
            Self::Cumulate => &["data", "timecol", "step", "size", "offset"],
            Self::Session => &["data", "timecol", "gap"],
        }
    }

    const fn example(self) -> &'static str {
        match self {
            Self::Tumble => "write TUMBLE(TABLE t, DESCRIPTOR(ts), INTERVAL '5' MINUTE)",
            Self::Hop => {
                "write HOP(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '5' MINUTE): slide, then size"
            }
            Self::Cumulate => {
                "write CUMULATE(TABLE t, DESCRIPTOR(ts), INTERVAL '1' MINUTE, INTERVAL '1' HOUR): step, then size"
            }
            Self::Session => "write SESSION(TABLE t PARTITION BY k, DESCRIPTOR(ts), INTERVAL '5' MINUTE)",
        }
    }
}

/// Whether a call of a window table function is next.
pub(crate) fn at_table_function(cursor: &Cursor<'_>) -> bool {
    let names = ["tumble", "hop", "session", "cumulate"];
    names.into_iter().any(|name| cursor.at_word(name)) && *cursor.peek_nth(1) == Token::LParen
}

/// Reads a call of a window table function.
///
/// # Errors
/// The function does nothing yet, or its arguments are not those of a window.
pub(crate) fn parse_table_function(cursor: &mut Cursor<'_>, parameters: &Parameters) -> Result<TableFunction> {
    let location = cursor.location();
    let kind = if cursor.eat_word("tumble") {
        Kind::Tumble
    } else if cursor.eat_word("hop") {
        Kind::Hop
    } else if cursor.eat_word("cumulate") {
        Kind::Cumulate
    } else {
        cursor.expect_word("session")?;
        Kind::Session
    };
    cursor.expect(&Token::LParen)?;
    let mut arguments = Arguments::default();
    for number in 0_usize.. {
        let has_time = number == 0 || arguments.time_column.is_some() || (number == 1 && !starts_duration(cursor));
        let position = number + usize::from(!has_time);
        parse_argument(cursor, parameters, kind, position, &mut arguments)?;
        if !cursor.eat(&Token::Comma) {
            break;
        }
    }
    cursor.expect(&Token::RParen).map_err(|error| error.hint(kind.example()))?;
    arguments.into_function(kind, location)
}

fn parse_argument(
    cursor: &mut Cursor<'_>,
    parameters: &Parameters,
    kind: Kind,
    position: usize,
    arguments: &mut Arguments,
) -> Result<()> {
    match argument_name(cursor, kind, position, arguments)? {
        "data" => (arguments.relation, arguments.keys) = parse_relation(cursor, kind)?,
        "timecol" => arguments.time_column = Some(parse_time_column(cursor)?),
        // A key in its place, as some have it: SESSION(TABLE t, DESCRIPTOR(ts), DESCRIPTOR(k), gap).
        "gap" if arguments.keys.is_empty() && cursor.at_word("descriptor") => {
            arguments.keys = vec![parse_time_column(cursor)?];
            cursor.expect(&Token::Comma)?;
            arguments.size = Some(parse_duration(cursor, Some(parameters))?);
        }
        "slide" | "step" => {
            let place = cursor.location();
            arguments.slide = Some((parse_duration(cursor, Some(parameters))?, place));
        }
        "size" | "gap" => arguments.size = Some(parse_duration(cursor, Some(parameters))?),
        "timezone" => arguments.time_zone = Some(parse_time_zone(cursor)?),
        _ => arguments.offset = Some(parse_duration(cursor, Some(parameters))?),
    }
    Ok(())
}

/// The name of the argument that is next, from `name =>` or from its position.
fn argument_name(
    cursor: &mut Cursor<'_>,
    kind: Kind,
    position: usize,
    arguments: &mut Arguments,
) -> Result<&'static str> {
    let names = kind.parameters();
    if matches!(cursor.peek_nth(1), Token::RArrow | Token::Assignment) {
        let name = names.iter().copied().chain(["timezone"]).find(|name| cursor.at_word(name));
        let known = || cursor.expected(&format!("{}, TIMEZONE", names.join(", ").to_uppercase()));
        let name = name.ok_or_else(|| known().hint(kind.example()))?;
        cursor.next();
        cursor.next();
        arguments.names_lengths |= ["slide", "size"].contains(&name);
        return Ok(name);
    }
    names.get(position).copied().ok_or_else(|| cursor.expected("\")\"").hint(kind.example()))
}

/// `TABLE t` or `t`, as tokens, and the columns of PARTITION BY.
fn parse_relation(cursor: &mut Cursor<'_>, kind: Kind) -> Result<(Vec<TokenWithSpan>, Vec<ColumnName>)> {
    if is_word(cursor.peek(), "table") && matches!(cursor.peek_nth(1), Token::Word(_)) {
        cursor.next();
    }
    let start = cursor.rest();
    let before = start.len();
    if *cursor.peek() == Token::LParen {
        let hint = "give the subquery a name by CREATE VIEW, or put the window on the stream inside it";
        return Err(Error::unsupported("a window over a subquery", hint).at(cursor.location()));
    }
    cursor.expect_object_name("a stream").map_err(|error| error.hint(kind.example()))?;
    let taken = before.saturating_sub(cursor.rest().len());
    let relation = start.get(..taken).unwrap_or_default().to_vec();
    let place = cursor.location();
    if !cursor.eat_words(&["partition", "by"]) {
        return Ok((relation, Vec::new()));
    }
    if kind != Kind::Session {
        let error = Error::new("only SESSION keeps the values of a PARTITION BY apart");
        return Err(error.hint("leave PARTITION BY out: groups come from GROUP BY").at(place));
    }
    let is_wrapped = cursor.eat(&Token::LParen);
    let mut keys = vec![parse_key(cursor)?];
    // Behind a comma stands the next argument, unless it is a column and another comma follows before it.
    while *cursor.peek() == Token::Comma && (is_wrapped || !starts_argument(cursor)) {
        cursor.next();
        keys.push(parse_key(cursor)?);
    }
    if is_wrapped {
        cursor.expect(&Token::RParen)?;
    }
    Ok((relation, keys))
}

fn parse_key(cursor: &mut Cursor<'_>) -> Result<ColumnName> {
    let place = cursor.location();
    Ok((fold(cursor.expect_name("a column")?), place))
}

/// Whether the comma that is next ends the keys: DESCRIPTOR or a named argument follows, or no DESCRIPTOR to come
/// would tell where keys end.
fn starts_argument(cursor: &Cursor<'_>) -> bool {
    let rest = cursor.rest();
    let comes = rest
        .windows(2)
        .any(|pair| matches!(pair, [comma, name] if comma.token == Token::Comma && is_word(&name.token, "descriptor")));
    !comes || is_word(cursor.peek_nth(1), "descriptor") || *cursor.peek_nth(2) == Token::RArrow
}

/// `DESCRIPTOR(ts)` or `ts`.
fn parse_time_column(cursor: &mut Cursor<'_>) -> Result<ColumnName> {
    let wrapped = *cursor.peek_nth(1) == Token::LParen && cursor.eat_word("descriptor");
    if wrapped {
        cursor.expect(&Token::LParen)?;
    }
    let place = cursor.location();
    let column = fold(cursor.expect_name("the stream's watermark column")?);
    if wrapped {
        cursor.expect(&Token::RParen)?;
    }
    Ok((column, place))
}

impl Arguments {
    fn into_function(self, kind: Kind, location: Option<Location>) -> Result<TableFunction> {
        let missing = |what: &str| Error::new(format!("the window has no {what}")).hint(kind.example()).at(location);
        if self.relation.is_empty() {
            return Err(missing("DATA"));
        }
        let size = self.size.ok_or_else(|| missing(if kind == Kind::Session { "GAP" } else { "SIZE" }))?;
        if kind == Kind::Session {
            let clause = session_window(size, self.keys, self.time_column, location)?;
            return Ok(TableFunction { relation: self.relation, clause });
        }
        let (slide, place) = match (kind, self.slide) {
            (Kind::Tumble | Kind::Session, _) => (size, location),
            (Kind::Hop | Kind::Cumulate, Some(slide)) => slide,
            (Kind::Hop, None) => return Err(missing("SLIDE")),
            (Kind::Cumulate, None) => return Err(missing("STEP")),
        };
        let zone = self.time_zone.map(|zone| zone.offset(slide)).transpose()?;
        let offset = total_offset(self.offset, zone);
        let time_column = self.time_column;
        if kind == Kind::Cumulate {
            let spec = Some(cumulating_window(slide, size, offset, place)?);
            let clause = WindowClause { spec, keys: Vec::new(), time_column, location };
            return Ok(TableFunction { relation: self.relation, clause });
        }
        if slide > size && !self.names_lengths {
            let message = format!("HOP slides by {slide} over windows of {size}: did you swap slide and size?");
            let hint = format!("the slide comes first: {size}, then {slide}; or name them: SLIDE => …, SIZE => …");
            return Err(Error::new(message).hint(hint).at(place));
        }
        let spec = Some(window_spec(size, slide, offset, location)?);
        let clause = WindowClause { spec, keys: Vec::new(), time_column, location };
        Ok(TableFunction { relation: self.relation, clause })
    }
}
