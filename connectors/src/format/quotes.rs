//! Where CSV records end when fields may be quoted: RFC 4180, read leniently.
//!
//! A quote opens a quoted field only at the field's beginning; elsewhere it is text. Inside, `""` is a quote.
//! The reader that cuts and the decoder that splits both use this, so that they agree on every odd input.

use std::borrow::Cow;

use memchr::{memchr, memchr2};

/// How far a search for the end of a record has come within its quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Quoting {
    /// Not inside a quoted field.
    #[default]
    Outside,
    /// Inside a quoted field.
    Inside,
    /// Just behind a quote that may have ended the field or be the first of two.
    Behind,
}

/// Searches `bytes`, which begin with a record, from `from` on for the first end of a record.
///
/// Gives the position behind the newline, and else how far and in which state the search may go on.
pub(crate) fn find_record_end(
    bytes: &[u8],
    from: usize,
    mut quoting: Quoting,
    delimiter: u8,
) -> Result<usize, (usize, Quoting)> {
    let mut at = from;
    while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
        match quoting {
            Quoting::Inside => match memchr(b'"', rest) {
                Some(index) => (at, quoting) = (at + index + 1, Quoting::Behind),
                None => at = bytes.len(),
            },
            Quoting::Behind if rest.first() == Some(&b'"') => (at, quoting) = (at + 1, Quoting::Inside),
            Quoting::Behind => quoting = Quoting::Outside,
            Quoting::Outside => match memchr2(b'"', b'\n', rest) {
                None => at = bytes.len(),
                Some(index) => {
                    let found = at + index;
                    if bytes.get(found) == Some(&b'\n') {
                        return Ok(found + 1);
                    }
                    if begins_field(bytes, found, delimiter) {
                        quoting = Quoting::Inside;
                    }
                    at = found + 1;
                }
            },
        }
    }
    Err((at, quoting))
}

/// The fields of one record without its newline, each with whether it was quoted.
pub(crate) fn split_record<'a>(record: &'a str, delimiter: u8, fields: &mut Vec<(Cow<'a, str>, bool)>) {
    fields.clear();
    let mut rest = record;
    loop {
        let (field, quoted, behind) = split_field(rest, delimiter);
        fields.push((field, quoted));
        match behind {
            Some(next) => rest = next,
            None => return,
        }
    }
}

/// The first field, whether it was quoted, and what follows its delimiter.
fn split_field(text: &str, delimiter: u8) -> (Cow<'_, str>, bool, Option<&str>) {
    let delimiter = char::from(delimiter);
    let Some(mut inside) = text.strip_prefix('"') else {
        return match text.split_once(delimiter) {
            Some((field, rest)) => (Cow::Borrowed(field), false, Some(rest)),
            None => (Cow::Borrowed(text), false, None),
        };
    };
    let mut value = Cow::Borrowed("");
    while let Some((part, behind)) = inside.split_once('"') {
        value += part;
        match behind.strip_prefix('"') {
            Some(rest) => {
                value += "\"";
                inside = rest;
            }
            None => {
                return match behind.split_once(delimiter) {
                    Some((tail, rest)) => (value + tail, true, Some(rest)),
                    None => (value + behind, true, None),
                };
            }
        }
    }
    (value + inside, true, None)
}

fn begins_field(bytes: &[u8], at: usize, delimiter: u8) -> bool {
    let before = at.checked_sub(1).and_then(|index| bytes.get(index));
    before.is_none_or(|byte| *byte == delimiter || *byte == b'\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ends(text: &str) -> Vec<usize> {
        let mut ends = Vec::new();
        let mut start = 0;
        while let Ok(end) = find_record_end(&text.as_bytes()[start..], 0, Quoting::Outside, b',') {
            start += end;
            ends.push(start);
        }
        ends
    }

    #[test]
    fn a_newline_inside_quotes_ends_no_record() {
        assert_eq!(ends("a,b\nc,d\n"), [4, 8]);
        assert_eq!(ends("\"a\nb\",c\nd\n"), [8, 10]);
        assert_eq!(ends("\"a\"\"\n\",c\nd\n"), [9, 11]);
        assert_eq!(ends("5\" pipe,c\nd\n"), [10, 12]);
        assert_eq!(ends("\"open\n"), [] as [usize; 0]);
    }

    #[test]
    fn fields_are_unquoted() {
        let cases: [(&str, &[(&str, bool)]); 6] = [
            ("a,b", &[("a", false), ("b", false)]),
            ("\"a,b\",c", &[("a,b", true), ("c", false)]),
            ("\"say \"\"hi\"\"\",", &[("say \"hi\"", true), ("", false)]),
            ("\"\",x", &[("", true), ("x", false)]),
            ("5\" pipe,x", &[("5\" pipe", false), ("x", false)]),
            ("\"a\"b,c", &[("ab", true), ("c", false)]),
        ];
        for (record, expected) in cases {
            let mut fields = Vec::new();
            split_record(record, b',', &mut fields);
            let fields: Vec<_> = fields.iter().map(|(text, quoted)| (text.as_ref(), *quoted)).collect();
            assert_eq!(fields, expected, "{record}");
        }
    }

    #[test]
    fn a_search_may_stop_anywhere_and_go_on() {
        let text = b"\"a\"\"\n\",\"b\nc\"x,d\nrest";
        let whole = find_record_end(text, 0, Quoting::Outside, b',').unwrap();
        for cut in 0..whole {
            let (at, quoting) = find_record_end(&text[..cut], 0, Quoting::Outside, b',').unwrap_err();
            assert_eq!(find_record_end(text, at, quoting, b','), Ok(whole), "cut at {cut}");
        }
    }
}
