//! The settings that `SET key = value` changes.

use millstream_engine::size::parse_size;

use crate::duration::parse_span;
use crate::error::{Error, Result};
use crate::suggest::{list, nearest};

/// The least memory that a setting may give.
const LEAST_BYTES: u64 = 1 << 20;

/// What values a setting takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettingKind {
    /// A positive duration, `100 ms`.
    Duration,
    /// A whole number from 1.
    Count,
    /// A size in bytes from 1 MiB, `512 MiB`.
    Size,
    /// One of these words.
    Word(&'static [&'static str]),
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
pub const SETTINGS: [Setting; 8] = [
    Setting { key: "batch_interval", kind: SettingKind::Duration, description: "the longest a micro-batch waits" },
    Setting { key: "batch_rows", kind: SettingKind::Count, description: "the most rows in a micro-batch" },
    Setting {
        key: "executors",
        kind: SettingKind::Word(&["on", "off"]),
        description: "whether a server with executors has the state of queries there",
    },
    Setting { key: "max_wait", kind: SettingKind::Duration, description: "the longest that rows wait for their turn" },
    Setting { key: "plan_memory", kind: SettingKind::Size, description: "the memory of all running plans" },
    Setting {
        key: "slow_reader",
        kind: SettingKind::Word(&["block", "latest", "disconnect"]),
        description: "what a server does about a client that takes rows slowly",
    },
    Setting { key: "state_memory", kind: SettingKind::Size, description: "the memory of all state, the rest on disk" },
    Setting { key: "tasks", kind: SettingKind::Count, description: "how many tasks run a query side by side" },
];

/// The settings of a connection to a server, which mean nothing elsewhere.
pub const SERVER_SETTINGS: [&str; 2] = ["executors", "slow_reader"];

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
        SettingKind::Size if parse_size(value).is_some_and(|bytes| bytes >= LEAST_BYTES) => Ok(()),
        SettingKind::Size => Err(Error::new(format!("{key} is '{value}', not a size from 1 MiB"))
            .hint(format!("write SET {key} = '512 MiB'"))),
        SettingKind::Word(words) if words.contains(&value.to_lowercase().as_str()) => Ok(()),
        SettingKind::Word(words) => Err(Error::new(format!("{key} is '{value}', not {}", list(words, "or")))),
    }
}
