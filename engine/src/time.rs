//! Event time, spans of it, and the watermark: three integers that must not be confused.
//!
//! All are nanoseconds since the Unix epoch in UTC, or differences of such; a bare integer never means time elsewhere.

use std::fmt;

/// Nanoseconds in a second.
pub const NANOS_PER_SECOND: i64 = 1_000_000_000;

/// A point of event time: nanoseconds since 1970-01-01T00:00:00 UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct EventTime(pub i64);

/// A length of event time in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Span(pub i64);

impl Span {
    /// A span of whole seconds.
    pub const fn seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(NANOS_PER_SECOND))
    }

    /// A span of whole milliseconds.
    pub const fn millis(millis: i64) -> Self {
        Self(millis.saturating_mul(1_000_000))
    }
}

impl EventTime {
    /// The point `span` later; stays at the end of time rather than wrap.
    pub const fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// The point `span` earlier; stays at the start of time rather than wrap.
    pub const fn minus(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

/// The promise that rows with an event time below it are late; it never decreases.
///
/// A row whose event time equals the watermark is on time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Watermark(pub i64);

impl Watermark {
    /// Nothing has been promised yet.
    pub const START: Self = Self(i64::MIN);
    /// The input is complete: every window closes.
    pub const END: Self = Self(i64::MAX);

    /// Whether the window that ends (exclusively) at `instant` is complete.
    pub const fn crosses(self, instant: EventTime) -> bool {
        self.0 >= instant.0
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match chrono::DateTime::from_timestamp(
            self.0.div_euclid(NANOS_PER_SECOND),
            u32::try_from(self.0.rem_euclid(NANOS_PER_SECOND)).unwrap_or_default(),
        ) {
            Some(time) => write!(f, "{}", time.format("%Y-%m-%dT%H:%M:%S%.f")),
            None => write!(f, "{} ns", self.0),
        }
    }
}

impl fmt::Display for Watermark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::START => f.write_str("none"),
            Self::END => f.write_str("end of input"),
            Self(nanos) => EventTime(nanos).fmt(f),
        }
    }
}

impl fmt::Display for Span {
    /// The largest unit that divides the span: `5 minutes`, `1 second`, `1500 milliseconds`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [(i64, &str); 6] = [
            (86_400 * NANOS_PER_SECOND, "day"),
            (3_600 * NANOS_PER_SECOND, "hour"),
            (60 * NANOS_PER_SECOND, "minute"),
            (NANOS_PER_SECOND, "second"),
            (1_000_000, "millisecond"),
            (1_000, "microsecond"),
        ];
        let (size, unit) =
            UNITS.into_iter().find(|(size, _)| self.0 != 0 && self.0 % size == 0).unwrap_or((1, "nanosecond"));
        let count = self.0 / size;
        write!(f, "{count} {unit}{}", if count == 1 { "" } else { "s" })
    }
}

/// Where "now" comes from: the machine in production, a hand-set value in tests.
pub trait Clock: fmt::Debug + Send + Sync {
    /// The present, as an event time.
    fn now(&self) -> EventTime;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> EventTime {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        EventTime(since.map_or(0, |d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)))
    }
}
