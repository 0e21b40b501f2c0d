//! Which life of an executor is spoken of: a process that is started again, or was given up, is not the one before.

use std::fmt;
use std::str::FromStr;

use millstream_engine::time::{EventTime, Span};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One life of an executor. Those of one name are ordered: a later one makes all earlier ones dead.
///
/// In JSON and in logs it is `nanoseconds:id`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct Incarnation {
    // The order of the fields is the order of incarnations.
    started_at: EventTime,
    /// Tells two that were started at once apart.
    id: Uuid,
}

/// A text that is no incarnation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no incarnation of an executor")]
pub(crate) struct NoIncarnation(String);

impl Incarnation {
    /// A life that begins at this time, by the machine's own clock.
    pub(crate) fn new(started_at: EventTime) -> Self {
        Self { started_at, id: Uuid::new_v4() }
    }

    /// The next life of the same process, after this one is over.
    ///
    /// It is later than this one whatever the clock says, by `jump` at least: the clock of a machine may have been set
    /// back since an earlier process of this name was started.
    pub(crate) fn renewed(self, now: EventTime, jump: Span) -> Self {
        Self::new(now.max(self.started_at.plus(Span(1))).plus(jump))
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.started_at.0, self.id.simple())
    }
}

impl FromStr for Incarnation {
    type Err = NoIncarnation;

    fn from_str(text: &str) -> Result<Self, NoIncarnation> {
        let parsed = text.split_once(':').and_then(|(started_at, id)| {
            Some(Self { started_at: EventTime(started_at.parse().ok()?), id: Uuid::parse_str(id).ok()? })
        });
        parsed.ok_or_else(|| NoIncarnation(text.to_owned()))
    }
}

impl From<Incarnation> for String {
    fn from(incarnation: Incarnation) -> Self {
        incarnation.to_string()
    }
}

impl TryFrom<String> for Incarnation {
    type Error = NoIncarnation;

    fn try_from(text: String) -> Result<Self, NoIncarnation> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let incarnation = Incarnation::new(EventTime(1_700_000_000_000_000_001));
        let written = serde_json::to_string(&incarnation).unwrap();
        assert_eq!(serde_json::from_str::<Incarnation>(&written).unwrap(), incarnation, "{written}");
        assert!("1:2".parse::<Incarnation>().is_err());
    }

    #[test]
    fn the_time_decides_before_the_id() {
        let at = |nanos, id| Incarnation { started_at: EventTime(nanos), id: Uuid::from_u128(id) };
        assert!(at(1, 9) < at(2, 1));
        assert!(at(1, 1) < at(1, 2));
    }

    #[test]
    fn a_renewed_one_is_later_even_if_the_clock_was_set_back() {
        let incarnation = Incarnation::new(EventTime(1_000));
        assert!(incarnation.renewed(EventTime(5), Span(0)) > incarnation);
        assert_eq!(incarnation.renewed(EventTime(2_000), Span(0)).started_at, EventTime(2_000));
        assert_eq!(incarnation.renewed(EventTime(2_000), Span(7)).started_at, EventTime(2_007));
    }
}
