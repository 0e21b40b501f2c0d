//! Sizes: as people write them, and of rows.

pub use crate::arrays::{used_bytes, without_waste};

/// The bytes that a size such as `512 MiB`, `2GB` or `100_000_000` means; `None` if it is none.
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_' && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at_checked(digits)?;
    let unit: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "kb" => 1_000,
        "kib" | "k" => 1 << 10,
        "mb" => 1_000_000,
        "mib" | "m" => 1 << 20,
        "gb" => 1_000_000_000,
        "gib" | "g" => 1 << 30,
        "tb" => 1_000_000_000_000,
        "tib" | "t" => 1 << 40,
        _ => return None,
    };
    let bytes = number.replace('_', "").parse::<f64>().ok()? * unit as f64;
    (bytes >= 1.0 && bytes <= i64::MAX as f64).then_some(bytes as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_form() {
        let cases = [
            ("1", 1),
            ("512MB", 512_000_000),
            ("1.5 GiB", 3 << 29),
            ("100_000_000", 100_000_000),
            ("2g", 2 << 30),
            (" 64 kib ", 64 << 10),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "GiB", "0", "-1 GiB", "2 parsecs", "1e300 GiB", "."] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
