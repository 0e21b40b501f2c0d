//! CSV: which field is which column, and rows from chunks.
//!
//! One pass finds delimiters and newlines together and hands each field to its column, whose parsers are made for the
//! short plain values of real files. There is no second way for odd rows: whatever a column refuses makes exactly its
//! row a bad row. Only a chunk that holds a quote character is split by the slower, quote-aware scan.

use std::borrow::Cow;

use memchr::{memchr, memchr_iter, memchr2_iter};
use millstream_engine::source::{Decoded, Offset};
use millstream_engine::{Error, Result};

use super::cutter::{Chunk, LINE_TOO_LONG, MAX_LINE_BYTES};
use super::quotes::{Quoting, find_record_end, split_record};
use super::rows::{Refusal, RowShape, RowsBuilder};
use crate::options::Options;

/// A guess at the length of a row that costs little when wrong.
const GUESSED_ROW_BYTES: usize = 40;
const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// How a CSV input is written.
#[derive(Debug, Clone)]
pub(crate) struct CsvFormat {
    /// Whether the first line names the columns; `None` to look.
    pub(crate) header: Option<bool>,
    /// The byte between fields.
    pub(crate) delimiter: u8,
    /// The unquoted text that stands for null.
    pub(crate) null: String,
}

impl CsvFormat {
    /// Reads `header`, `delimiter` and `null`.
    pub(crate) fn from_options(options: &mut Options<'_>, header: Option<bool>) -> Result<Self> {
        let choices = [("auto", None), ("true", Some(true)), ("false", Some(false))];
        let header = options.choice("header", &choices)?.unwrap_or(header);
        let delimiter = options.parse("delimiter", "a single ASCII character other than a quote", parse_delimiter);
        let delimiter = delimiter?.unwrap_or(b',');
        Ok(Self { header, delimiter, null: options.string("null").unwrap_or_default().to_owned() })
    }

    /// Finds the columns of one input by its first record; gives how many bytes the header takes.
    ///
    /// # Errors
    /// Fails if there is a header and a declared column is not in it.
    pub(crate) fn layout(&self, shape: &RowShape, chunk: &[u8], place: &str) -> Result<(CsvLayout, usize)> {
        let bom = if chunk.starts_with(UTF8_BOM) { UTF8_BOM.len() } else { 0 };
        let body = chunk.get(bom..).unwrap_or_default();
        let end = find_record_end(body, 0, Quoting::Outside, self.delimiter).unwrap_or(body.len());
        let first = String::from_utf8_lossy(body.get(..end).unwrap_or_default());
        let mut fields = Vec::new();
        split_record(first.trim_end_matches(['\n', '\r']), self.delimiter, &mut fields);
        let names: Vec<&str> = fields.iter().map(|(name, _)| name.trim()).collect();
        let positional = CsvLayout { positions: (0..shape.declared.len()).collect(), fields: shape.declared.len() };
        if !self.header.unwrap_or_else(|| looks_like_header(shape, &names)) {
            return Ok((positional, bom));
        }
        let positions = shape.declared.iter().map(|name| position_of(name, &names, place));
        Ok((CsvLayout { positions: positions.collect::<Result<_>>()?, fields: names.len() }, bom + end))
    }
}

/// Which field of a record is which column.
#[derive(Debug, Clone)]
pub(crate) struct CsvLayout {
    positions: Vec<usize>,
    fields: usize,
}

/// Makes rows of the chunk behind its first `skip` bytes, which are a header.
pub(crate) fn decode_csv(
    format: &CsvFormat,
    layout: &CsvLayout,
    shape: &RowShape,
    chunk: &Chunk,
    skip: usize,
    start: Offset,
    place: &str,
) -> Result<Decoded> {
    let bytes = &chunk.bytes;
    let rows = RowsBuilder::new(shape, bytes.len() / GUESSED_ROW_BYTES + 1)?;
    let whole = std::str::from_utf8(bytes).ok();
    let lines = LineCounter { at: 0, line: chunk.first_line };
    let mut decoder = CsvDecoder { format, layout, bytes, whole, rows, start, place, lines };
    if memchr(b'"', bytes).is_none() {
        decoder.decode_plain(skip)
    } else {
        decoder.decode_quoted(skip)
    }
    decoder.rows.finish()
}

struct CsvDecoder<'a> {
    format: &'a CsvFormat,
    layout: &'a CsvLayout,
    bytes: &'a [u8],
    /// The bytes as text, unless there is something else among them.
    whole: Option<&'a str>,
    rows: RowsBuilder<'a>,
    start: Offset,
    place: &'a str,
    lines: LineCounter,
}

impl<'a> CsvDecoder<'a> {
    fn decode_plain(&mut self, skip: usize) {
        let mut ends = Vec::with_capacity(self.layout.fields);
        let mut start = skip;
        for found in memchr2_iter(self.format.delimiter, b'\n', self.bytes.get(skip..).unwrap_or_default()) {
            let at = skip + found;
            ends.push(at - start);
            if self.bytes.get(at) == Some(&b'\n') {
                self.plain_record(start, at, &mut ends);
                ends.clear();
                start = at + 1;
            }
        }
        if start < self.bytes.len() {
            ends.push(self.bytes.len() - start);
            self.plain_record(start, self.bytes.len(), &mut ends);
        }
    }

    /// Takes the record at `[start, end)`, whose fields end at `ends`, counted from its beginning.
    fn plain_record(&mut self, start: usize, end: usize, ends: &mut [usize]) {
        let Some(text) = self.text(start, end) else { return };
        if let Some(last) = ends.last_mut() {
            *last = text.len();
        }
        let ends = &*ends;
        let field = |index: usize| {
            let from = index.checked_sub(1).and_then(|before| ends.get(before)).map_or(0, |before| before + 1);
            text.get(from..*ends.get(index)?).map(|field| (field, false))
        };
        self.record(start, end, ends.len(), field);
    }

    fn decode_quoted(&mut self, skip: usize) {
        let mut start = skip;
        let mut fields: Vec<(Cow<'a, str>, bool)> = Vec::with_capacity(self.layout.fields);
        while let Some(rest) = self.bytes.get(start..).filter(|rest| !rest.is_empty()) {
            let found = find_record_end(rest, 0, Quoting::Outside, self.format.delimiter);
            let (end, next) = found.map_or((rest.len(), rest.len()), |end| (end - 1, end));
            if let Some(text) = self.text(start, start + end) {
                split_record(text, self.format.delimiter, &mut fields);
                let field = |index: usize| fields.get(index).map(|(text, quoted)| (text.as_ref(), *quoted));
                self.record(start, start + end, fields.len(), field);
            }
            start += next;
        }
    }

    /// The text of a record without its line end; `None` if it is blank or has been refused.
    fn text(&mut self, start: usize, end: usize) -> Option<&'a str> {
        let bytes = self.bytes.get(start..end)?;
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        if bytes.is_empty() {
            return None;
        }
        if bytes.len() > MAX_LINE_BYTES {
            self.refuse(start, end, Refusal::row(LINE_TOO_LONG));
            return None;
        }
        let text = match self.whole {
            Some(whole) => whole.get(start..start + bytes.len()),
            None => std::str::from_utf8(bytes).ok(),
        };
        if text.is_none() {
            self.refuse(start, end, Refusal::row("invalid UTF-8"));
        }
        text
    }

    fn record<'f>(&mut self, start: usize, end: usize, count: usize, field: impl Fn(usize) -> Option<(&'f str, bool)>) {
        let layout = self.layout;
        if count != layout.fields {
            let reason = format!("expected {} fields, found {count}", layout.fields);
            self.refuse(start, end, Refusal::row(reason));
            return;
        }
        let null = self.format.null.as_str();
        let appended = self.rows.append_row(|index, column, shape| {
            let (text, quoted) = layout.positions.get(index).and_then(|at| field(*at)).unwrap_or_default();
            let refusal = if text == null && !quoted {
                shape.refuse_null(index)
            } else if column.append(text) {
                return Ok(());
            } else {
                Some(shape.refuse_value(index, text))
            };
            match refusal {
                Some(reason) => Err(Refusal { column: Some(index), reason }),
                None => {
                    column.append_null();
                    Ok(())
                }
            }
        });
        if let Err(refusal) = appended {
            self.refuse(start, end, refusal);
        }
    }

    fn refuse(&mut self, start: usize, end: usize, refusal: Refusal) {
        let place = format!("{} line {}", self.place, self.lines.line_at(self.bytes, start));
        let raw = self.bytes.get(start..end).unwrap_or_default();
        let raw = raw.strip_suffix(b"\r").unwrap_or(raw);
        self.rows.refuse(refusal, Offset(self.start.0 + start as u64), place, raw);
    }
}

/// Counts lines up to places that only ever move forward.
#[derive(Debug)]
pub(crate) struct LineCounter {
    /// The byte up to which lines are counted.
    pub(crate) at: usize,
    /// The number of the line there.
    pub(crate) line: u64,
}

impl LineCounter {
    /// The number of the line that holds the byte at `at`.
    pub(crate) fn line_at(&mut self, bytes: &[u8], at: usize) -> u64 {
        self.line += memchr_iter(b'\n', bytes.get(self.at..at).unwrap_or_default()).count() as u64;
        self.at = at;
        self.line
    }
}

/// Whether more than half of the declared columns are named: a header with a column missing is still a header, and
/// is refused as such rather than read as a row.
fn looks_like_header(shape: &RowShape, names: &[&str]) -> bool {
    let named = |name: &&String| names.iter().any(|other| other.eq_ignore_ascii_case(name));
    shape.declared.iter().filter(named).count() * 2 > shape.declared.len()
}

fn position_of(column: &str, names: &[&str], place: &str) -> Result<usize> {
    let exact = names.iter().position(|name| *name == column);
    let found = exact.or_else(|| names.iter().position(|name| name.eq_ignore_ascii_case(column)));
    found.ok_or_else(|| {
        let message = format!("{place} has no column {column:?}; its header has: {}", names.join(", "));
        Error::data(message, "declare the columns as the header names them, or set header = 'false' if it is none")
    })
}

fn parse_delimiter(text: &str) -> Option<u8> {
    match text.as_bytes() {
        b"\\t" | b"tab" => Some(b'\t'),
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Some(*byte),
        _ => None,
    }
}
