//! Timestamps and dates from text: ISO 8601 with a `T` or a space, with or without a zone.
//!
//! The usual form is read by hand with the last date remembered, since neighbouring rows share it;
//! other forms go to Arrow's parser. Numbers are points of time only if the stream names their unit.

use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::compute::kernels::cast_utils::string_to_datetime;
use datafusion::arrow::datatypes::TimeUnit;
use millstream_engine::time::NANOS_PER_SECOND;

use super::number::{digit, parse_integer};

const SECONDS_PER_DAY: i64 = 86_400;

/// Reads the timestamps of one column.
#[derive(Debug)]
pub(crate) struct TimestampParser {
    unit: TimeUnit,
    zone: Tz,
    zone_is_utc: bool,
    number_unit: Option<TimeUnit>,
    last_date: ([u8; 10], i64),
}

impl TimestampParser {
    /// Texts without a zone are read in `zone`, numbers in `number_unit` if there is one; results are in `unit`.
    ///
    /// `None` if `zone` is not known.
    pub(crate) fn new(unit: TimeUnit, zone: Option<&str>, number_unit: Option<TimeUnit>) -> Option<Self> {
        let zone_is_utc = matches!(zone, None | Some("UTC" | "Z" | "+00:00" | "Etc/UTC"));
        let zone = if zone_is_utc { "+00:00" } else { zone.unwrap_or("+00:00") };
        Some(Self { unit, zone: zone.parse().ok()?, zone_is_utc, number_unit, last_date: ([0; 10], 0) })
    }

    /// The timestamp in the parser's unit; finer digits are cut off. `None` if the text is not one or does not fit.
    pub(crate) fn parse(&mut self, text: &str) -> Option<i64> {
        let usual = if self.zone_is_utc { self.parse_usual(text.as_bytes()) } else { None };
        match usual {
            Some((seconds, nanos)) => in_unit(self.unit, seconds, nanos),
            None => self.parse_other(text),
        }
    }

    fn parse_usual(&mut self, text: &[u8]) -> Option<(i64, u32)> {
        let (date, rest) = text.split_first_chunk::<10>()?;
        let (time, rest) = rest.split_first_chunk::<9>()?;
        let [b'T' | b' ', h0, h1, b':', m0, m1, b':', s0, s1] = *time else { return None };
        let (hours, minutes, seconds) = (two_digits(h0, h1)?, two_digits(m0, m1)?, two_digits(s0, s1)?);
        if hours > 23 || minutes > 59 || seconds > 59 {
            return None;
        }
        let nanos = parse_fraction(rest.strip_suffix(b"Z").unwrap_or(rest))?;
        if self.last_date.0 != *date {
            self.last_date = (*date, parse_days(*date)? * SECONDS_PER_DAY);
        }
        Some((self.last_date.1 + i64::from(hours * 3_600 + minutes * 60 + seconds), nanos))
    }

    fn parse_other(&self, text: &str) -> Option<i64> {
        if let Some(number) = parse_integer(text) {
            return in_unit_from(self.number_unit?, number, self.unit);
        }
        let time = string_to_datetime(&self.zone, text).ok()?;
        in_unit(self.unit, time.timestamp(), time.timestamp_subsec_nanos())
    }
}

/// Days since 1970-01-01 of `YYYY-MM-DD`.
pub(crate) fn parse_date(text: &str) -> Option<i32> {
    let date = <[u8; 10]>::try_from(text.as_bytes()).ok()?;
    i32::try_from(parse_days(date)?).ok()
}

fn parse_days(date: [u8; 10]) -> Option<i64> {
    let [y0, y1, y2, y3, b'-', m0, m1, b'-', d0, d1] = date else { return None };
    let year = i64::from(two_digits(y0, y1)? * 100 + two_digits(y2, y3)?);
    let (month, day) = (i64::from(two_digits(m0, m1)?), i64::from(two_digits(d0, d1)?));
    let is_date = (1..=12).contains(&month) && (1..=days_in_month(year, month)).contains(&day);
    is_date.then(|| days_from_civil(year, month, day))
}

const fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar.
///
/// The arithmetic of Howard Hinnant's paper "chrono-compatible low-level date algorithms": years begin in March.
const fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// Nanoseconds from nothing or `.` and one to nine digits.
fn parse_fraction(text: &[u8]) -> Option<u32> {
    let Some((point, digits)) = text.split_first() else { return Some(0) };
    if *point != b'.' || digits.is_empty() || digits.len() > 9 {
        return None;
    }
    let mut nanos = 0_u32;
    for byte in digits {
        nanos = nanos * 10 + u32::from(digit(*byte)?);
    }
    for _ in digits.len()..9 {
        nanos *= 10;
    }
    Some(nanos)
}

fn two_digits(tens: u8, ones: u8) -> Option<u32> {
    Some(u32::from(digit(tens)?) * 10 + u32::from(digit(ones)?))
}

/// How many of the unit make a second.
pub(crate) const fn per_second(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond => 1_000_000,
        TimeUnit::Nanosecond => NANOS_PER_SECOND,
    }
}

fn in_unit(unit: TimeUnit, seconds: i64, nanos: u32) -> Option<i64> {
    let scale = per_second(unit);
    let part = i64::from(nanos) / (NANOS_PER_SECOND / scale);
    seconds.checked_mul(scale)?.checked_add(part)
}

fn in_unit_from(from: TimeUnit, number: i64, to: TimeUnit) -> Option<i64> {
    let (from, to) = (per_second(from), per_second(to));
    if to >= from { number.checked_mul(to / from) } else { Some(number.div_euclid(from / to)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_read_in_every_form() {
        let mut parser = TimestampParser::new(TimeUnit::Millisecond, None, None).unwrap();
        let noon = 1_381_138_200_123;
        let cases = [
            ("2013-10-07T09:30:00.123", Some(noon)),
            ("2013-10-07 09:30:00.123", Some(noon)),
            ("2013-10-07T09:30:00.123Z", Some(noon)),
            ("2013-10-07T11:30:00.123+02:00", Some(noon)),
            ("2013-10-07 09:30:00.123456789", Some(noon)),
            ("2013-10-07 09:30:00", Some(noon - 123)),
            ("1969-12-31T23:59:59.999", Some(-1)),
            ("2013-02-29T00:00:00", None),
            ("2013-10-07T24:00:00", None),
            ("2013-10-07T09:30:00.", None),
            ("1381138200123", None),
            ("yesterday", None),
            ("", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parser.parse(text), expected, "{text:?}");
        }
    }

    #[test]
    fn numbers_are_timestamps_only_in_a_unit_that_is_named() {
        let mut parser = TimestampParser::new(TimeUnit::Nanosecond, None, Some(TimeUnit::Millisecond)).unwrap();
        assert_eq!(parser.parse("1500"), Some(1_500_000_000));
        assert_eq!(parser.parse("2013-10-07 00:00:00"), Some(1_381_104_000_000_000_000));
        assert_eq!(parser.parse("99999999999999999"), None);
    }

    #[test]
    fn dates_agree_with_known_days() {
        for (text, days) in [("1970-01-01", 0), ("1969-12-31", -1), ("2000-02-29", 11_016), ("2024-01-02", 19_724)] {
            assert_eq!(parse_date(text), Some(days), "{text}");
        }
        assert_eq!(parse_date("2023-02-29"), None);
    }
}
