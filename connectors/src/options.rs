//! Typed reading of `WITH` options: every key is read once, and what nobody read is an error that suggests a key.
//!
//! A connector asks for its options by name; the questions themselves are the list of what it takes, so that the
//! list in the error message cannot fall behind the code.

use std::str::FromStr;
use std::time::Duration;

use millstream_engine::plan::WithOption;
use millstream_engine::size::parse_size;
use millstream_engine::{Error, Result};

/// Keys that every connector accepts and that are read elsewhere.
const COMMON_KEYS: [&str; 5] = ["connector", "bad_data", "durability", "rate_limit", "refresh_interval"];
/// How unlike a key may be to one that is known and still be taken for a slip of the keyboard.
const MIN_SIMILARITY: f64 = 0.6;

/// The options of one connector, and which of them have been asked for.
#[derive(Debug)]
pub(crate) struct Options<'a> {
    connector: &'static str,
    given: &'a [WithOption],
    asked: Vec<&'static str>,
}

impl<'a> Options<'a> {
    /// The options `given` to `connector`.
    ///
    /// # Errors
    /// Fails if a key is given twice.
    pub(crate) fn new(connector: &'static str, given: &'a [WithOption]) -> Result<Self> {
        for (index, option) in given.iter().enumerate() {
            if given.iter().take(index).any(|earlier| earlier.key == option.key) {
                let message = format!("option {:?} is given twice", option.key);
                return Err(Error::query(message, "keep one of the two").at(option.location));
            }
        }
        Ok(Self { connector, given, asked: Vec::new() })
    }

    /// The text of an option that may be absent.
    pub(crate) fn string(&mut self, key: &'static str) -> Option<&'a str> {
        self.find(key).map(|option| option.value.as_str())
    }

    /// The text of an option that must be there; `example` goes into the hint.
    pub(crate) fn required(&mut self, key: &'static str, example: &str) -> Result<&'a str> {
        self.string(key).ok_or_else(|| {
            if let Some(option) = misspelt(self.given, key) {
                let message = format!("unknown option {:?} for connector {}", option.key, self.connector);
                return Error::query(message, format!("did you mean {key:?}?")).at(option.location);
            }
            let message = format!("connector {} needs the option {key:?}", self.connector);
            Error::query(message, format!("add {key} = '{example}'"))
        })
    }

    /// A number; `what` says what is expected: `a whole number of rows`.
    pub(crate) fn number<T: FromStr>(&mut self, key: &'static str, what: &str) -> Result<Option<T>> {
        self.parse(key, what, |text| text.trim().replace('_', "").parse().ok())
    }

    /// A length of time: `100ms`, `10s`, `5 minutes`; a bare number counts seconds.
    pub(crate) fn duration(&mut self, key: &'static str) -> Result<Option<Duration>> {
        self.parse(key, "a duration such as '100ms' or '5 minutes'", parse_duration)
    }

    /// A size in bytes: `64 KiB`, `32 MB`, `1 GiB`; a bare number counts bytes.
    pub(crate) fn size(&mut self, key: &'static str) -> Result<Option<u64>> {
        self.parse(key, "a size such as '64 KiB' or '32 MiB'", parse_size)
    }

    /// Yes or no.
    pub(crate) fn boolean(&mut self, key: &'static str) -> Result<Option<bool>> {
        self.parse(key, "'true' or 'false'", parse_boolean)
    }

    /// One of a few words, each standing for a value.
    pub(crate) fn choice<T: Copy>(&mut self, key: &'static str, choices: &[(&str, T)]) -> Result<Option<T>> {
        let words: Vec<_> = choices.iter().map(|(word, _)| format!("'{word}'")).collect();
        self.parse(key, &format!("one of {}", words.join(", ")), |text| {
            choices.iter().find(|(word, _)| word.eq_ignore_ascii_case(text.trim())).map(|(_, value)| *value)
        })
    }

    /// An option read by `parse`, which gives `None` for what is not `what`.
    pub(crate) fn parse<T>(
        &mut self,
        key: &'static str,
        what: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<Option<T>> {
        let Some(option) = self.find(key) else { return Ok(None) };
        match parse(&option.value) {
            Some(value) => Ok(Some(value)),
            None => {
                let message = format!("option {key} = '{}' is not {what}", option.shown());
                Err(Error::query(message, format!("set {key} to {what}")).at(option.location))
            }
        }
    }

    /// Refuses the keys that nobody asked for; call it last.
    pub(crate) fn finish(self) -> Result<()> {
        let unknown = self.given.iter().find(|option| !self.knows(&option.key));
        let Some(option) = unknown else { return Ok(()) };
        let message = format!("unknown option {:?} for connector {}", option.key, self.connector);
        let takes = format!("{} takes: {}", self.connector, self.asked.join(", "));
        let hint = match nearest(&option.key, self.asked.iter().copied()) {
            Some(known) => format!("did you mean {known:?}? {takes}"),
            None => takes,
        };
        Err(Error::query(message, hint).at(option.location))
    }

    fn find(&mut self, key: &'static str) -> Option<&'a WithOption> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        self.given.iter().find(|option| option.key == key)
    }

    fn knows(&self, key: &str) -> bool {
        COMMON_KEYS.contains(&key) || self.asked.contains(&key)
    }
}

/// The option that was probably meant to be `key`, which is not among those given.
pub(crate) fn misspelt<'a>(given: &'a [WithOption], key: &str) -> Option<&'a WithOption> {
    const MIN_LIKENESS: f64 = 0.85;
    given.iter().find(|option| strsim::jaro_winkler(&option.key, key) >= MIN_LIKENESS)
}

/// The known word most like `word`, if any is like it at all.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(similarity, _)| *similarity >= MIN_SIMILARITY)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, candidate)| candidate)
}

fn parse_boolean(text: &str) -> Option<bool> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" => Some(true),
        "false" | "no" | "off" | "0" => Some(false),
        _ => None,
    }
}

/// A duration from its text; `None` if it is not one.
fn parse_duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (count, unit) = text.split_at_checked(digits)?;
    let seconds = match unit.trim().to_ascii_lowercase().as_str() {
        "ns" | "nanosecond" | "nanoseconds" => 1e-9,
        "us" | "µs" | "microsecond" | "microseconds" => 1e-6,
        "ms" | "millisecond" | "milliseconds" => 1e-3,
        "" | "s" | "sec" | "second" | "seconds" => 1.0,
        "m" | "min" | "minute" | "minutes" => 60.0,
        "h" | "hour" | "hours" => 3_600.0,
        "d" | "day" | "days" => 86_400.0,
        _ => return None,
    };
    Duration::try_from_secs_f64(count.parse::<f64>().ok()? * seconds).ok()
}

#[cfg(test)]
mod tests {
    use millstream_engine::plan::Location;

    use super::*;

    fn option(key: &str, value: &str) -> WithOption {
        WithOption::new(key, value, Some(Location { line: 3, column: 7 }))
    }

    #[test]
    fn durations_are_read_in_every_form() {
        let cases = [("100ms", 100), ("10s", 10_000), ("5 minutes", 300_000), ("2", 2_000), ("0.5 s", 500)];
        for (text, millis) in cases {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "ms", "10 parsecs", "-1s", "1 month"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn an_unknown_key_is_refused_with_the_nearest_one() {
        let given = [option("connector", "files"), option("pth", "x")];
        let mut options = Options::new("files", &given).unwrap();
        options.string("path");
        options.string("format");
        let error = options.finish().unwrap_err();
        assert_eq!(error.to_string(), "unknown option \"pth\" for connector files");
        assert_eq!(error.hint(), Some("did you mean \"path\"? files takes: path, format"));
    }

    #[test]
    fn a_key_given_twice_is_refused() {
        let given = [option("path", "x"), option("path", "y")];
        let error = Options::new("files", &given).unwrap_err();
        assert_eq!(error.to_string(), "option \"path\" is given twice");
    }

    #[test]
    fn a_wrong_value_names_key_value_and_what_is_expected() {
        let given = [option("rows", "many")];
        let mut options = Options::new("generate", &given).unwrap();
        let error = options.number::<u64>("rows", "a whole number").unwrap_err();
        assert_eq!(error.to_string(), "option rows = 'many' is not a whole number");
    }
}
