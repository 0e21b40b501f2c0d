//! Reads one flat JSON object (RFC 8259) without building a tree: values stay slices of the line.

use std::borrow::Cow;

/// How deep values that are skipped may nest.
const MAX_DEPTH: usize = 128;

/// A value of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum JsonValue<'a> {
    /// `null`.
    Null,
    /// `true` or `false`.
    Boolean(bool),
    /// A number as it is written.
    Number(&'a str),
    /// A string without its escapes.
    String(Cow<'a, str>),
    /// An object or array as it is written.
    Nested(&'a str),
}

/// Calls `take` with every key and value of the object that `text` is; else says what is wrong.
pub(super) fn scan_object<'a>(
    text: &'a str,
    mut take: impl FnMut(Cow<'a, str>, JsonValue<'a>),
) -> Result<(), &'static str> {
    let mut scanner = Scanner { rest: text };
    scanner.expect('{', "no '{' at the beginning")?;
    if !scanner.skip('}') {
        loop {
            scanner.expect('"', "a key is not a string")?;
            let key = scanner.string()?;
            scanner.expect(':', "no ':' behind a key")?;
            take(key, scanner.value()?);
            if scanner.skip('}') {
                break;
            }
            scanner.expect(',', "no ',' or '}' behind a value")?;
        }
    }
    scanner.skip_space();
    if scanner.rest.is_empty() { Ok(()) } else { Err("something follows the object") }
}

struct Scanner<'a> {
    rest: &'a str,
}

impl<'a> Scanner<'a> {
    fn skip_space(&mut self) {
        self.rest = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
    }

    fn skip(&mut self, symbol: char) -> bool {
        self.skip_space();
        let behind = self.rest.strip_prefix(symbol);
        self.rest = behind.unwrap_or(self.rest);
        behind.is_some()
    }

    fn expect(&mut self, symbol: char, fault: &'static str) -> Result<(), &'static str> {
        if self.skip(symbol) { Ok(()) } else { Err(fault) }
    }

    fn value(&mut self) -> Result<JsonValue<'a>, &'static str> {
        self.skip_space();
        match self.rest.as_bytes().first() {
            Some(b'"') => {
                self.skip('"');
                Ok(JsonValue::String(self.string()?))
            }
            Some(b'{' | b'[') => self.nested(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Result<JsonValue<'a>, &'static str> {
        let words =
            [("null", JsonValue::Null), ("true", JsonValue::Boolean(true)), ("false", JsonValue::Boolean(false))];
        for (word, value) in words {
            if let Some(rest) = self.rest.strip_prefix(word) {
                self.rest = rest;
                return Ok(value);
            }
        }
        Err("a value is missing or unquoted")
    }

    fn number(&mut self) -> Result<JsonValue<'a>, &'static str> {
        let is_part = |c: char| c.is_ascii_digit() || matches!(c, '-' | '+' | '.' | 'e' | 'E');
        let end = self.rest.find(|c| !is_part(c)).unwrap_or(self.rest.len());
        let (number, rest) = self.rest.split_at(end);
        self.rest = rest;
        if is_number(number) { Ok(JsonValue::Number(number)) } else { Err("a number is malformed") }
    }

    /// The string whose opening quote has been read.
    fn string(&mut self) -> Result<Cow<'a, str>, &'static str> {
        let mut value = Cow::Borrowed("");
        loop {
            let at = self.rest.find(['"', '\\']).ok_or("a string is not closed")?;
            let (part, rest) = self.rest.split_at(at);
            value += part;
            if let Some(rest) = rest.strip_prefix('"') {
                self.rest = rest;
                return Ok(value);
            }
            self.rest = rest.get(1..).unwrap_or_default();
            value.to_mut().push(self.escape()?);
        }
    }

    /// The character behind a backslash.
    fn escape(&mut self) -> Result<char, &'static str> {
        const FAULT: &str = "a string holds an unknown escape";
        let mut chars = self.rest.chars();
        let symbol = chars.next().ok_or(FAULT)?;
        self.rest = chars.as_str();
        Ok(match symbol {
            '"' | '\\' | '/' => symbol,
            'b' => '\u{8}',
            'f' => '\u{c}',
            'n' => '\n',
            'r' => '\r',
            't' => '\t',
            'u' => return self.code_point(),
            _ => return Err(FAULT),
        })
    }

    /// The character of `\uXXXX`, or of two of them where they are a surrogate pair.
    fn code_point(&mut self) -> Result<char, &'static str> {
        const FAULT: &str = "a string holds half a surrogate pair";
        let first = self.hex()?;
        if !(0xd800..0xdc00).contains(&first) {
            return char::from_u32(first).ok_or(FAULT);
        }
        self.rest = self.rest.strip_prefix("\\u").ok_or(FAULT)?;
        let second = self.hex()?.checked_sub(0xdc00).filter(|low| *low < 0x400).ok_or(FAULT)?;
        char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + second).ok_or(FAULT)
    }

    fn hex(&mut self) -> Result<u32, &'static str> {
        const FAULT: &str = "\\u is not followed by four digits";
        let (digits, rest) = self.rest.split_at_checked(4).ok_or(FAULT)?;
        self.rest = rest;
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(FAULT);
        }
        u32::from_str_radix(digits, 16).map_err(|_| FAULT)
    }

    /// Skips an object or array; its brackets are counted, the rest of its inside is not looked at.
    fn nested(&mut self) -> Result<JsonValue<'a>, &'static str> {
        let whole = self.rest;
        let mut depth = 0_usize;
        loop {
            let at = self.rest.find(['"', '{', '[', '}', ']']).ok_or("an object or array is not closed")?;
            let symbol = self.rest.as_bytes().get(at).copied();
            self.rest = self.rest.get(at + 1..).unwrap_or_default();
            match symbol {
                Some(b'"') => drop(self.string()?),
                Some(b'{' | b'[') => depth += 1,
                _ => depth -= 1,
            }
            if depth > MAX_DEPTH {
                return Err("objects nest too deep");
            }
            if depth == 0 {
                let length = whole.len() - self.rest.len();
                return Ok(JsonValue::Nested(whole.get(..length).unwrap_or(whole)));
            }
        }
    }
}

/// Whether `text` is a number by the grammar, which is stricter than what Rust parses.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).map_or((text, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_whole = is_digits(whole) && (whole == "0" || !whole.starts_with('0'));
    let is_exponent = |text: &str| is_digits(text.strip_prefix(['+', '-']).unwrap_or(text));
    is_whole && fraction.is_none_or(is_digits) && exponent.is_none_or(is_exponent)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scan(text: &str) -> Result<Vec<(String, JsonValue<'_>)>, &'static str> {
        let mut found = Vec::new();
        scan_object(text, |key, value| found.push((key.into_owned(), value)))?;
        Ok(found)
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let text = r#" {"a": 1.5e3, "b":"x\"\u00e9\ud83d\ude00\n", "c":null,"d":true, "e":{"f":["]"]}, "g":-0} "#;
        let expected = [
            ("a", JsonValue::Number("1.5e3")),
            ("b", JsonValue::String("x\"é😀\n".into())),
            ("c", JsonValue::Null),
            ("d", JsonValue::Boolean(true)),
            ("e", JsonValue::Nested(r#"{"f":["]"]}"#)),
            ("g", JsonValue::Number("-0")),
        ];
        let expected: Vec<_> = expected.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        assert_eq!(scan(text), Ok(expected));
        assert_eq!(scan("{}"), Ok(vec![]));
    }

    #[test]
    fn what_is_no_object_is_refused() {
        let cases = [
            "",
            "[1]",
            "{",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":01}",
            "{\"a\":1.}",
            "{\"a\":x}",
            "{\"a\":\"x}",
            "{\"a\":1} 2",
            "{\"a\":[1}",
            "{\"a\":\"\\q\"}",
            "{\"a\":\"\\ud800\"}",
            "{a:1}",
        ];
        for text in cases.iter().filter(|text| **text != "{\"a\":[1}") {
            assert!(scan(text).is_err(), "{text:?}");
        }
    }
}
