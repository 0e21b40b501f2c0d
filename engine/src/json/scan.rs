//! Finding a value in JSON text (RFC 8259) without building the document.

use std::borrow::Cow;
use std::ops::Range;

/// How deep arrays and objects may nest; a deeper text counts as no JSON.
const MAX_DEPTH: usize = 128;

/// One step of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step<'a> {
    /// The member of an object; of several with the key the last.
    Key(&'a str),
    /// The element of an array, from 0; from the end if negative, -1 the last.
    Index(i64),
}

/// What a text has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found<'a> {
    /// The text of the value.
    Value(&'a str),
    /// The text is JSON without a value there.
    Nothing,
    /// The text is no JSON.
    Invalid,
}

/// The value at `path`.
pub(super) fn find<'a>(text: &'a str, path: &[Step<'_>]) -> Found<'a> {
    let mut scanner = Scanner { bytes: text.as_bytes(), position: 0, depth: 0 };
    let found = scanner.value(Some(path));
    scanner.skip_space();
    match found {
        Some(found) if scanner.position == text.len() => {
            found.and_then(|range| text.get(range)).map_or(Found::Nothing, Found::Value)
        }
        _ => Found::Invalid,
    }
}

/// The texts of an array's elements, or of an object's members with their keys before them; `None` for other values.
///
/// `value` is a whole value as [`find`] gives it.
pub(super) fn parts(value: &str) -> Option<Vec<&str>> {
    let mut scanner = Scanner { bytes: value.as_bytes(), position: 0, depth: 0 };
    let mut parts = Vec::new();
    let is_object = match scanner.next()? {
        b'[' => false,
        b'{' => true,
        _ => return None,
    };
    let end = if is_object { b'}' } else { b']' };
    if scanner.skip_space() == Some(end) {
        return Some(parts);
    }
    loop {
        if is_object {
            scanner.skip_space();
            let key = scanner.string()?;
            parts.push(value.get(key)?);
            scanner.expect(b':')?;
        }
        let element = scanner.value(Some(&[]))??;
        parts.push(value.get(element)?);
        scanner.skip_space();
        if scanner.next()? == end {
            return Some(parts);
        }
    }
}

/// The text that a JSON string stands for; `None` if `value` is another value.
pub(super) fn unquoted(value: &str) -> Option<Cow<'_, str>> {
    let inner = value.strip_prefix('"')?.strip_suffix('"')?;
    if !inner.contains('\\') {
        return Some(Cow::Borrowed(inner));
    }
    // Half of a surrogate pair is JSON but no text.
    serde_json::from_str(value).ok().map(Cow::Owned)
}

#[derive(Debug)]
struct Scanner<'a> {
    bytes: &'a [u8],
    position: usize,
    depth: usize,
}

/// `None` where the text is no JSON; inside of it, where the value that was asked for is, if it is there.
type Scanned = Option<Option<Range<usize>>>;

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.position).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.position += 1;
        Some(byte)
    }

    /// Skips white space; the byte behind it.
    fn skip_space(&mut self) -> Option<u8> {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.position += 1;
        }
        self.peek()
    }

    /// Takes `byte` behind white space.
    fn expect(&mut self, byte: u8) -> Option<()> {
        self.skip_space();
        (self.next()? == byte).then_some(())
    }

    /// Takes a value and finds what `path` leads to in it; nothing is asked for without one.
    fn value(&mut self, path: Option<&[Step<'_>]>) -> Scanned {
        let first = self.skip_space()?;
        let start = self.position;
        let within = match first {
            b'{' => self.nested(|scanner| scanner.object(path))?,
            b'[' => self.nested(|scanner| scanner.array(path))?,
            b'"' => self.string().map(|_| None)?,
            b't' => self.word(b"true")?,
            b'f' => self.word(b"false")?,
            b'n' => self.word(b"null")?,
            _ => self.number()?,
        };
        let is_it = path.is_some_and(<[_]>::is_empty);
        Some(if is_it { Some(start..self.position) } else { within })
    }

    fn nested(&mut self, scan: impl FnOnce(&mut Self) -> Scanned) -> Scanned {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return None;
        }
        let scanned = scan(self);
        self.depth -= 1;
        scanned
    }

    fn object(&mut self, path: Option<&[Step<'_>]>) -> Scanned {
        let (wanted, rest) = match path.and_then(<[_]>::split_first) {
            Some((Step::Key(key), rest)) => (Some(*key), rest),
            _ => (None, [].as_slice()),
        };
        self.position += 1;
        if self.skip_space()? == b'}' {
            self.position += 1;
            return Some(None);
        }
        let mut found = None;
        loop {
            self.skip_space();
            let key = self.string()?;
            let is_it = wanted.is_some_and(|wanted| self.is_key(&key, wanted));
            self.expect(b':')?;
            let within = self.value(is_it.then_some(rest))?;
            if is_it {
                found = within;
            }
            self.skip_space();
            match self.next()? {
                b',' => {}
                b'}' => return Some(found),
                _ => return None,
            }
        }
    }

    fn is_key(&self, range: &Range<usize>, wanted: &str) -> bool {
        let text = self.bytes.get(range.clone()).and_then(|bytes| std::str::from_utf8(bytes).ok());
        text.and_then(unquoted).is_some_and(|key| key == wanted)
    }

    fn array(&mut self, path: Option<&[Step<'_>]>) -> Scanned {
        let (wanted, rest) = match path.and_then(<[_]>::split_first) {
            Some((Step::Index(index), rest)) => (self.counted(*index)?, rest),
            _ => (None, [].as_slice()),
        };
        self.position += 1;
        if self.skip_space()? == b']' {
            self.position += 1;
            return Some(None);
        }
        let mut found = None;
        for index in 0_u64.. {
            let is_it = wanted == Some(index);
            let within = self.value(is_it.then_some(rest))?;
            if is_it {
                found = within;
            }
            self.skip_space();
            match self.next()? {
                b',' => {}
                b']' => break,
                _ => return None,
            }
        }
        Some(found)
    }

    /// An index from the start of the array that is next; inside `None` if that has too few elements.
    fn counted(&self, index: i64) -> Option<Option<u64>> {
        if let Ok(index) = u64::try_from(index) {
            return Some(Some(index));
        }
        let mut ahead = Scanner { bytes: self.bytes, position: self.position + 1, depth: self.depth };
        let mut count = 0_u64;
        if ahead.skip_space()? != b']' {
            loop {
                ahead.value(None)?;
                count += 1;
                ahead.skip_space();
                match ahead.next()? {
                    b',' => {}
                    b']' => break,
                    _ => return None,
                }
            }
        }
        Some(count.checked_sub(index.unsigned_abs()))
    }

    /// Takes a string; where it is, quotes included.
    fn string(&mut self) -> Option<Range<usize>> {
        let start = self.position;
        if self.next()? != b'"' {
            return None;
        }
        loop {
            match self.next()? {
                b'"' => return Some(start..self.position),
                b'\\' => match self.next()? {
                    b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => {}
                    b'u' => {
                        for _ in 0..4 {
                            self.next().filter(u8::is_ascii_hexdigit)?;
                        }
                    }
                    _ => return None,
                },
                0..=0x1f => return None,
                _ => {}
            }
        }
    }

    fn word(&mut self, word: &[u8]) -> Scanned {
        let end = self.position + word.len();
        (self.bytes.get(self.position..end)? == word).then(|| self.position = end)?;
        Some(None)
    }

    fn number(&mut self) -> Scanned {
        if self.peek() == Some(b'-') {
            self.position += 1;
        }
        if self.peek() == Some(b'0') {
            self.position += 1;
        } else {
            self.digits()?;
        }
        if self.peek() == Some(b'.') {
            self.position += 1;
            self.digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.position += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.position += 1;
            }
            self.digits()?;
        }
        Some(None)
    }

    /// Takes one digit or more.
    fn digits(&mut self) -> Option<()> {
        let start = self.position;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.position += 1;
        }
        (self.position > start).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#" { "a" : [1, -2.50e3, {"b": "x\"y\u00e9"}, null, true], "c d":{}, "e":"",
                            "a\u0062": [ ], "k": 1, "k": 2 } "#;

    #[test]
    fn paths_lead_to_the_text_of_values() {
        use Step::{Index, Key};
        let cases: [(&[Step<'_>], Option<&str>); 14] = [
            (&[Key("a"), Index(0)], Some("1")),
            (&[Key("a"), Index(1)], Some("-2.50e3")),
            (&[Key("a"), Index(2), Key("b")], Some(r#""x\"y\u00e9""#)),
            (&[Key("a"), Index(-1)], Some("true")),
            (&[Key("a"), Index(-5)], Some("1")),
            (&[Key("a"), Index(-6)], None),
            (&[Key("a"), Index(5)], None),
            (&[Key("a"), Key("0")], None),
            (&[Index(0)], None),
            (&[Key("c d")], Some("{}")),
            (&[Key("e")], Some("\"\"")),
            (&[Key("ab")], Some("[ ]")),
            (&[Key("k")], Some("2")),
            (&[Key("e"), Key("a")], None),
        ];
        for (path, expected) in cases {
            assert_eq!(find(TEXT, path), expected.map_or(Found::Nothing, Found::Value), "{path:?}");
        }
        assert_eq!(find(TEXT, &[]), Found::Value(TEXT.trim()));
    }

    #[test]
    fn what_serde_json_refuses_is_invalid_and_nothing_else() {
        let texts = [
            "",
            " ",
            "1",
            "-",
            "-0",
            "01",
            "1.",
            ".5",
            "1e",
            "1e+5",
            "+1",
            "nul",
            "null",
            "nulll",
            "true",
            "tru e",
            "\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "\"\\u1234\"",
            "\"\u{1}\"",
            "\"\t\"",
            "[",
            "]",
            "[]",
            "[,]",
            "[1,]",
            "[1 2]",
            "[1,2]",
            "[[],{}]",
            "{}",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{a:1}",
            "{\"a\":1 \"b\":2}",
            "{\"a\":1,\"b\":[{}]}",
            "{} {}",
            "1 1",
            "'a'",
            "NaN",
            "\u{feff}1",
            "[1]x",
            "{\"a\":[1,{\"b\":null}]}",
            "\"é\"",
        ];
        for text in texts {
            let is_valid = serde_json::from_str::<serde_json::Value>(text).is_ok();
            assert_eq!(find(text, &[]) != Found::Invalid, is_valid, "{text:?}");
        }
        let deep = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert_ne!(find(&deep(MAX_DEPTH), &[]), Found::Invalid);
        assert_eq!(find(&deep(MAX_DEPTH + 1), &[]), Found::Invalid);
        assert_eq!(find(&"[".repeat(1_000_000), &[]), Found::Invalid);
    }

    #[test]
    fn a_fault_behind_what_is_looked_for_counts() {
        assert_eq!(find(r#"{"a": 1, "b": }"#, &[Step::Key("a")]), Found::Invalid);
        assert_eq!(find(r#"{"a": 1"#, &[Step::Key("a")]), Found::Invalid);
    }

    #[test]
    fn strings_are_unquoted() {
        assert_eq!(unquoted("\"a\"").as_deref(), Some("a"));
        assert_eq!(unquoted(r#""\u00e9\n\ud83d\ude00""#).as_deref(), Some("é\n😀"));
        assert_eq!(unquoted(r#""\ud83d""#), None);
        assert_eq!(unquoted("1"), None);
    }

    #[test]
    fn arrays_and_objects_have_parts() {
        assert_eq!(parts("[ 1, [2] ,\"x\" ]"), Some(vec!["1", "[2]", "\"x\""]));
        assert_eq!(parts("{ \"a\" :1, \"b\": {} }"), Some(vec!["\"a\"", "1", "\"b\"", "{}"]));
        assert_eq!((parts("[ ]"), parts("{}"), parts("1")), (Some(vec![]), Some(vec![]), None));
    }
}
