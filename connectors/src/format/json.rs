//! JSON lines: one object per line, its keys mapped to columns by their declared names.
//!
//! Keys that are not declared are skipped, missing ones are null. A value must be of the column's kind: a number is
//! no VARCHAR and a string no DOUBLE; only times and exact decimals may come as strings.

mod scan;

use memchr::memchr;
use millstream_engine::Result;
use millstream_engine::source::{Decoded, Offset};

use super::column::Column;
use super::csv::LineCounter;
use super::cutter::{Chunk, LINE_TOO_LONG, MAX_LINE_BYTES};
use super::rows::{Refusal, RowShape, RowsBuilder};
use scan::{JsonValue, scan_object};

/// A guess at the length of a row that costs little when wrong.
const GUESSED_ROW_BYTES: usize = 100;

/// Makes rows of a chunk of JSON lines.
pub(crate) fn decode_json(shape: &RowShape, chunk: &Chunk, start: Offset, place: &str) -> Result<Decoded> {
    let bytes = &chunk.bytes;
    let mut rows = RowsBuilder::new(shape, bytes.len() / GUESSED_ROW_BYTES + 1)?;
    let mut lines = LineCounter { at: 0, line: chunk.first_line };
    let mut at = 0;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        let end = memchr(b'\n', rest).unwrap_or(rest.len());
        let line = rest.get(..end).unwrap_or(rest);
        if let Err(refusal) = append_line(&mut rows, shape, line) {
            let place = format!("{place} line {}", lines.line_at(bytes, at));
            rows.refuse(refusal, Offset(start.0 + at as u64), place, line.trim_ascii_end());
        }
        at += end + 1;
    }
    rows.finish()
}

fn append_line(rows: &mut RowsBuilder<'_>, shape: &RowShape, line: &[u8]) -> Result<(), Refusal> {
    if line.trim_ascii().is_empty() {
        return Ok(());
    }
    if line.len() > MAX_LINE_BYTES {
        return Err(Refusal::row(LINE_TOO_LONG));
    }
    let text = std::str::from_utf8(line).map_err(|_| Refusal::row("invalid UTF-8"))?;
    let values = read_values(shape, text)?;
    rows.append_row(|index, column, shape| {
        let value = values.get(index).unwrap_or(&JsonValue::Null);
        let refused = append_value(shape, index, column, value);
        refused.map_or(Ok(()), |reason| Err(Refusal { column: Some(index), reason }))
    })
}

/// The values of the declared columns, in their order.
fn read_values<'a>(shape: &RowShape, text: &'a str) -> Result<Vec<JsonValue<'a>>, Refusal> {
    let mut values = vec![JsonValue::Null; shape.declared.len()];
    let mut expected = 0;
    scan_object(text, |key, value| {
        if let Some(index) = find_column(shape, &key, expected) {
            expected = index + 1;
            if let Some(slot) = values.get_mut(index) {
                *slot = value;
            }
        }
    })
    .map_err(|fault| Refusal::row(format!("not a JSON object: {fault}")))?;
    Ok(values)
}

/// The column that a key names; keys mostly come in the order of the columns.
fn find_column(shape: &RowShape, key: &str, expected: usize) -> Option<usize> {
    if shape.declared.get(expected).is_some_and(|name| name == key) {
        return Some(expected);
    }
    let exact = shape.declared.iter().position(|name| name == key);
    exact.or_else(|| shape.declared.iter().position(|name| name.eq_ignore_ascii_case(key)))
}

/// Appends a value, or says why not.
fn append_value(shape: &RowShape, index: usize, column: &mut Column, value: &JsonValue<'_>) -> Option<String> {
    let (text, fits) = match value {
        JsonValue::Null => {
            let reason = shape.refuse_null(index);
            if reason.is_none() {
                column.append_null();
            }
            return reason;
        }
        JsonValue::String(text) => (text.as_ref(), column.takes_json_strings()),
        JsonValue::Number(text) => (*text, column.takes_json_numbers()),
        JsonValue::Boolean(value) => (if *value { "true" } else { "false" }, column.takes_json_booleans()),
        JsonValue::Nested(text) => (*text, false),
    };
    if fits && column.append(text) { None } else { Some(shape.refuse_value(index, text)) }
}
