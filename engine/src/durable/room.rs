//! What is said of a full disk while something waits for room on it: at once, and then now and again.

use std::fmt;
use std::time::{Duration, Instant};

/// How long to wait for room on a full disk before trying again.
pub const ROOM_PAUSE: Duration = Duration::from_secs(1);

/// How often it is said again that there is still no room.
const SAY_AGAIN: Duration = Duration::from_secs(30);

/// A wait for room on a full disk.
#[derive(Debug)]
pub struct FullDisk {
    who: String,
    said: Option<Instant>,
}

impl FullDisk {
    /// A wait of `who`, a noun.
    pub fn new(who: impl Into<String>) -> Self {
        Self { who: who.into(), said: None }
    }

    /// Says that there is no room, unless it was said a moment ago.
    pub fn say(&mut self, error: &dyn fmt::Display) {
        if self.said.is_none_or(|said| said.elapsed() >= SAY_AGAIN) {
            self.said = Some(Instant::now());
            tracing::error!(%error, "the disk is full, {} waits for room", self.who);
        }
    }
}
