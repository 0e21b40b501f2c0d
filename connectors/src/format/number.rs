//! Numbers from text: the short plain forms by hand, everything else by the standard library.
//!
//! Most of the time of reading CSV goes here; `17.25` or `-300` needs no general parser.

use datafusion::arrow::compute::kernels::cast_utils::parse_decimal;
use datafusion::arrow::datatypes::Decimal128Type;

/// Powers of ten that a double holds exactly.
const POWERS_OF_TEN: [f64; 23] = [
    1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20,
    1e21, 1e22,
];
/// Up to this many digits a `u64` cannot overflow.
const MAX_SAFE_DIGITS: usize = 19;

/// A whole number in `i64`; a sign is allowed, a point or exponent is not.
pub(crate) fn parse_integer(text: &str) -> Option<i64> {
    let (negative, digits) = split_sign(text.as_bytes());
    if digits.is_empty() || digits.len() >= MAX_SAFE_DIGITS {
        return text.parse().ok();
    }
    let mut value = 0_i64;
    for byte in digits {
        value = value * 10 + i64::from(digit(*byte)?);
    }
    Some(if negative { -value } else { value })
}

/// A double, rounded as the standard library rounds it.
///
/// A mantissa below 2^53 divided by an exact power of ten is correctly rounded (Clinger 1990, the fast case).
pub(crate) fn parse_double(text: &str) -> Option<f64> {
    match parse_short_double(text.as_bytes()) {
        Some(value) => Some(value),
        None => text.parse().ok(),
    }
}

fn parse_short_double(text: &[u8]) -> Option<f64> {
    const MAX_EXACT: u64 = 1 << 53;
    let (negative, digits) = split_sign(text);
    if digits.len() > MAX_SAFE_DIGITS {
        return None;
    }
    let mut mantissa = 0_u64;
    let mut point = None;
    for (index, byte) in digits.iter().enumerate() {
        match digit(*byte) {
            Some(value) => mantissa = mantissa * 10 + u64::from(value),
            None if *byte == b'.' && point.is_none() => point = Some(index),
            None => return None,
        }
    }
    let decimals = point.map_or(0, |index| digits.len() - index - 1);
    let digit_count = digits.len() - usize::from(point.is_some());
    if digit_count == 0 || mantissa > MAX_EXACT {
        return None;
    }
    #[expect(clippy::cast_precision_loss, reason = "the mantissa is at most 2^53")]
    let value = mantissa as f64 / POWERS_OF_TEN.get(decimals)?;
    Some(if negative { -value } else { value })
}

/// The unscaled value of a decimal of this precision and scale.
///
/// Digits beyond the scale must be zeros: a price that does not fit its type is refused, not rounded.
pub(crate) fn parse_exact_decimal(text: &str, precision: u8, scale: i8) -> Option<i128> {
    let limit = 10_i128.checked_pow(u32::from(precision))?;
    let (negative, digits) = split_sign(text.as_bytes());
    let Ok(scale_digits) = usize::try_from(scale) else {
        return parse_decimal::<Decimal128Type>(text, precision, scale).ok();
    };
    if digits.iter().any(|byte| matches!(byte, b'e' | b'E')) {
        return parse_decimal::<Decimal128Type>(text, precision, scale).ok();
    }
    let value = scaled_digits(digits, scale_digits, limit)?;
    Some(if negative { -value } else { value })
}

fn scaled_digits(digits: &[u8], scale: usize, limit: i128) -> Option<i128> {
    let mut value = 0_i128;
    let mut decimals = None::<usize>;
    let mut any = false;
    for byte in digits {
        match (digit(*byte), decimals) {
            (None, None) if *byte == b'.' => decimals = Some(0),
            (None, _) => return None,
            (Some(0), Some(count)) if count >= scale => any = true,
            (Some(_), Some(count)) if count >= scale => return None,
            (Some(next), _) => {
                any = true;
                decimals = decimals.map(|count| count + 1);
                value = value * 10 + i128::from(next);
                if value >= limit {
                    return None;
                }
            }
        }
    }
    let missing = u32::try_from(scale - decimals.unwrap_or(0)).ok()?;
    let value = value.checked_mul(10_i128.checked_pow(missing)?)?;
    (any && value < limit).then_some(value)
}

/// The value of an ASCII digit.
pub(crate) const fn digit(byte: u8) -> Option<u8> {
    let value = byte.wrapping_sub(b'0');
    if value <= 9 { Some(value) } else { None }
}

fn split_sign(text: &[u8]) -> (bool, &[u8]) {
    match text {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        _ => (false, text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_agree_with_the_standard_library() {
        let cases = ["0", "7", "-300", "+5", "9223372036854775807", "-9223372036854775808", "9223372036854775808"];
        for text in cases.into_iter().chain(["", "-", "1.0", "1e3", " 1", "abc", "00012"]) {
            assert_eq!(parse_integer(text), text.parse::<i64>().ok(), "{text:?}");
        }
    }

    #[test]
    fn doubles_agree_with_the_standard_library_to_the_last_bit() {
        let cases = ["0", "17.25", "-0.1", "123456.789", "9007199254740993", "1e-7", "0.30000000000000004", ".5", "5."];
        for text in cases.into_iter().chain(["", ".", "-", "1.2.3", "abc", "1e400", "NaN", "12345678901234567890.5"]) {
            let (own, standard) = (parse_double(text), text.parse::<f64>().ok());
            assert_eq!(own.map(f64::to_bits), standard.map(f64::to_bits), "{text:?}");
        }
    }

    #[test]
    fn decimals_are_exact_or_refused() {
        let cases = [
            ("167.41", Some(16_741)),
            ("-0.5", Some(-50)),
            ("3", Some(300)),
            ("1.100", Some(110)),
            ("1e1", Some(1_000)),
            ("999.99", Some(99_999)),
            ("1000", None),
            ("1.005", None),
            ("", None),
            (".", None),
            ("1.2.3", None),
            ("1a", None),
        ];
        for (text, expected) in cases {
            assert_eq!(parse_exact_decimal(text, 5, 2), expected, "{text:?}");
        }
    }
}
