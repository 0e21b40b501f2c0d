//! The settings that `SET key = value` changes.

use crate::duration::parse_span;
use crate::error::{Error, Result};
use crate::suggest::{list, nearest};

/// What values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// A positive duration, `100 ms`.
    Duration,
    /// A whole number from 1.
    Count,
    /// A size in bytes from 1 MiB, `512 MiB`.
    Size,
}

/// A setting, its values and what it does.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key, in lower case.
    pub key: &'static str,
    /// Its values.
    pub kind: SettingKind,
    /// What it does.
    pub description: &'static str,
}

/// Every setting there is.
pub const SETTINGS: [Setting; 6] = [
    Setting { key: "batch_interval", kind: SettingKind::Duration, description: "the longest a micro-batch waits" },
    Setting { key: "batch_rows", kind: SettingKind::Count, description: "the most rows in a micro-batch" },
    Setting { key: "max_wait", kind: SettingKind::Duration, description: "the longest that rows wait for their turn" },
    Setting { key: "plan_memory", kind: SettingKind::Size, description: "the memory of all running plans" },
    Setting { key: "state_memory", kind: SettingKind::Size, description: "the memory of all state, the rest on disk" },
    Setting { key: "tasks", kind: SettingKind::Count, description: "how many tasks run a query side by side" },
];

/// The bytes that a size such as `512 MiB`, `2GB` or `100_000_000` means; `None` if it is none, or below 1 MiB.
pub fn parse_size(text: &str) -> Option<usize> {
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
    (bytes >= f64::from(1 << 20) && bytes <= i64::MAX as f64).then_some(bytes as usize)
}

/// Checks that `key` is a setting and accepts `value`.
///
/// # Errors
/// It is none, or does not.
pub(crate) fn check_setting(key: &str, value: &str) -> Result<()> {
    let Some(setting) = SETTINGS.iter().find(|setting| setting.key == key) else {
        let keys = SETTINGS.map(|setting| setting.key);
        let hint = match nearest(key, keys) {
            Some(known) => format!("did you mean {known}?"),
            None => format!("the settings are {}", list(&keys, "and")),
        };
        return Err(Error::new(format!("unknown setting \"{key}\"")).hint(hint));
    };
    match setting.kind {
        SettingKind::Duration if parse_span(value).is_ok_and(|span| span.0 > 0) => Ok(()),
        SettingKind::Duration => Err(Error::new(format!("{key} is '{value}', not a positive duration"))
            .hint(format!("write SET {key} = '100 ms'"))),
        SettingKind::Count if value.parse::<u32>().is_ok_and(|count| count > 0) => Ok(()),
        SettingKind::Count => {
            Err(Error::new(format!("{key} is '{value}', not a whole number from 1"))
                .hint(format!("write SET {key} = 4")))
        }
        SettingKind::Size => parse_size(value).map(|_| ()).ok_or_else(|| {
            Error::new(format!("{key} is '{value}', not a size from 1 MiB"))
                .hint(format!("write SET {key} = '512 MiB'"))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_every_form() {
        let cases = [
            ("1 MiB", 1 << 20),
            ("512MB", 512_000_000),
            ("1.5 GiB", 3 << 29),
            ("100_000_000", 100_000_000),
            ("2g", 2 << 30),
        ];
        for (text, bytes) in cases {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "GiB", "1023 KiB", "-1 GiB", "2 parsecs", "1e300 GiB", "."] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }
}
