//! What executors say to their driver, and what it answers.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::incarnation::Incarnation;

/// The action by which an executor says who it is: a [`Registration`], answered by a [`Welcome`].
pub(super) const REGISTER: &str = "register";
/// The action by which it says that it is there: a [`Heartbeat`], answered by a [`Welcome`].
pub(super) const HEARTBEAT: &str = "heartbeat";
/// The action by which it says that it goes: a [`Leave`], answered by a [`Welcome`].
pub(super) const LEAVE: &str = "leave";

/// The version of this binary: all processes of a cluster have the same one.
pub(crate) const RELEASE: &str = env!("CARGO_PKG_VERSION");

/// Who an executor is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Registration {
    /// What it is called in this cluster, from one life to the next.
    pub(crate) name: String,
    /// Where it takes and gives rows, as a URL.
    pub(crate) data: String,
    /// Where it is asked to do something, as a URL.
    pub(crate) control: String,
    /// Which life of it this is.
    pub(crate) incarnation: Incarnation,
    /// The process that lives it, and perhaps others after it: what it holds it holds in all of them.
    pub(crate) process: Uuid,
    /// The version of its binary: [`RELEASE`].
    pub(crate) version: String,
    /// The number of that process on its machine.
    pub(crate) pid: u32,
    /// How many threads it runs plans on.
    pub(crate) cores: u32,
    /// How much memory its plans may take.
    pub(crate) memory_bytes: u64,
}

/// An executor is there, and what it has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Heartbeat {
    pub(crate) name: String,
    pub(crate) incarnation: Incarnation,
    #[serde(flatten)]
    pub(crate) figures: Figures,
    /// Whether it would like to go as soon as nothing needs it.
    pub(crate) is_leaving: bool,
}

/// How much an executor has.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// The memory of the pane state that it holds.
    pub(crate) state_bytes: u64,
    /// State rows that it has taken in since its start.
    pub(crate) rows: u64,
    /// Rows of streams that it has read since its start.
    pub(crate) rows_read: u64,
    /// The key partitions that it holds.
    pub(crate) slots: u32,
    /// The plans that it runs at this moment.
    pub(crate) jobs: u32,
}

/// An executor goes, in good order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Leave {
    pub(crate) name: String,
    pub(crate) incarnation: Incarnation,
}

/// What a driver answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Welcome {
    /// The driver's reign.
    pub(crate) term: u64,
    /// An executor that is silent for longer is given up.
    pub(crate) timeout_ms: u64,
    /// How often it should say that it is there.
    pub(crate) interval_ms: u64,
}

impl Figures {
    /// Whether nothing needs the executor.
    pub(crate) const fn is_idle(self) -> bool {
        self.slots == 0 && self.jobs == 0
    }
}

impl Welcome {
    pub(super) const fn timeout(self) -> Duration {
        Duration::from_millis(self.timeout_ms)
    }

    pub(super) const fn interval(self) -> Duration {
        Duration::from_millis(self.interval_ms)
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::time::EventTime;

    use super::*;

    #[test]
    fn the_figures_of_a_heartbeat_stand_beside_its_name() {
        let figures = Figures { state_bytes: u64::MAX, rows: 2, rows_read: 5, slots: 3, jobs: 4 };
        let incarnation = Incarnation::new(EventTime(5));
        let heartbeat = Heartbeat { name: "a".to_owned(), incarnation, figures, is_leaving: true };
        let written = serde_json::to_value(&heartbeat).unwrap();
        assert_eq!(written["slots"], 3);
        assert_eq!(serde_json::from_value::<Heartbeat>(written).unwrap(), heartbeat);
    }
}
