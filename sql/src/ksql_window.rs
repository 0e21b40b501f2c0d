//! ksqlDB's window of a FROM clause: `FROM t WINDOW TUMBLING (SIZE …)`, `HOPPING (SIZE …, ADVANCE BY …)`, `SESSION (…)`.

use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_engine::plan::Location;

use crate::duration::{Parameters, parse_duration};
use crate::error::{Error, Result};
use crate::token::{Cursor, is_word};
use crate::window_call::{Lengths, Part, Shape, WindowCall, sliding};

const EXAMPLE: &str = "write WINDOW TUMBLING (SIZE 5 MINUTES) or WINDOW HOPPING (SIZE 5 MINUTES, ADVANCE BY 1 MINUTE)";

/// Whether the clause `WINDOW TUMBLING (` is next, and not the standard's `WINDOW name AS (`.
pub(crate) fn at_window_clause(cursor: &Cursor<'_>) -> bool {
    let kinds = ["tumbling", "hopping", "session"];
    cursor.at_word("window")
        && kinds.iter().any(|kind| is_word(cursor.peek_nth(1), kind))
        && *cursor.peek_nth(2) == Token::LParen
}

/// Reads the clause.
///
/// # Errors
/// Its parts are not those of a window, or a part does nothing yet.
pub(crate) fn parse_window_clause(cursor: &mut Cursor<'_>, parameters: &Parameters) -> Result<WindowCall> {
    let location = cursor.location();
    cursor.expect_word("window")?;
    let kind = cursor.expect_name("TUMBLING, HOPPING or SESSION")?.value.to_uppercase();
    let name = format!("WINDOW {kind}");
    cursor.expect(&Token::LParen)?;
    let mut lengths = Lengths::default();
    loop {
        parse_part(cursor, parameters, &kind, &mut lengths)?;
        if !cursor.eat(&Token::Comma) {
            break;
        }
    }
    cursor.expect(&Token::RParen).map_err(|error| error.hint(EXAMPLE))?;
    let shape = shape(&lengths, &kind, location)?;
    let part = Part::Whole("window");
    Ok(WindowCall { name, shape, part, qualifier: None, time_column: None, location })
}

fn parse_part(cursor: &mut Cursor<'_>, parameters: &Parameters, kind: &str, lengths: &mut Lengths) -> Result<()> {
    let place = cursor.location();
    let name = if cursor.eat_words(&["grace", "period"]) {
        let delay = parse_duration(cursor, Some(parameters))?;
        let hint = format!("let the stream's watermark wait instead: WATERMARK FOR ts AS ts - INTERVAL '{delay}'");
        return Err(Error::unsupported("GRACE PERIOD", hint).at(place));
    } else if cursor.at_word("retention") {
        let hint = "leave it out: rows are kept as long as a window needs them";
        return Err(Error::unsupported("RETENTION", hint).at(place));
    } else if kind == "SESSION" {
        "gap"
    } else if cursor.eat_word("size") {
        "size"
    } else if kind == "HOPPING" && cursor.eat_words(&["advance", "by"]) {
        "slide"
    } else {
        let parts = if kind == "HOPPING" { "SIZE or ADVANCE BY" } else { "SIZE" };
        return Err(cursor.expected(parts).hint(EXAMPLE));
    };
    if lengths.get(name).is_some() {
        return Err(Error::new(format!("{kind} says its {name} twice")).hint(EXAMPLE).at(place));
    }
    let value_place = cursor.location();
    lengths.push(name, parse_duration(cursor, Some(parameters))?, value_place);
    Ok(())
}

/// The window, which starts at multiples of the advance.
fn shape(lengths: &Lengths, kind: &str, location: Option<Location>) -> Result<Shape> {
    let missing = |what| Error::new(format!("the window has no {what}")).hint(EXAMPLE).at(location);
    if kind == "SESSION" {
        return Ok(Shape::Session(lengths.get("gap").ok_or_else(|| missing("gap"))?.0));
    }
    let (size, _) = lengths.get("size").ok_or_else(|| missing("SIZE"))?;
    let (slide, place) = match lengths.get("slide") {
        Some(slide) => slide,
        None if kind == "HOPPING" => return Err(missing("ADVANCE BY")),
        None => (size, location),
    };
    if slide > size {
        let message = format!("windows of {size} that advance by {slide} would leave rows out: did you swap them?");
        let hint = format!("for windows with gaps write t [Range {size}, Slide {slide}]");
        return Err(Error::new(message).hint(hint).at(place));
    }
    sliding(size, slide, &[size], location)
}
