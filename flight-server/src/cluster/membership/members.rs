//! Who is in a cluster, at one moment.

use std::time::Instant;

use millstream_engine::time::{Clock, EventTime, SystemClock};
use uuid::Uuid;

use super::incarnation::Incarnation;
use super::messages::{Figures, Registration};

/// Who is in a cluster, and who was.
#[derive(Debug, Clone, Default)]
pub(crate) struct Members {
    /// Grows whenever an executor comes, wants to go, or is gone; not with their figures.
    pub(crate) version: u64,
    /// One of each name, in the order of their names.
    pub(crate) executors: Vec<Member>,
}

/// An executor as its driver knows it.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    /// Where it takes and gives rows, as a URL.
    pub(crate) data: String,
    /// Where it is asked to do something, as a URL.
    pub(crate) control: String,
    /// Which life of it this is; none that is earlier will be taken any more.
    pub(crate) incarnation: Incarnation,
    /// The process that lives it.
    pub(crate) process: Uuid,
    /// The number of that process on its machine.
    pub(crate) pid: u32,
    pub(crate) cores: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) state: MemberState,
    /// When it came into this state.
    pub(crate) since: EventTime,
    /// What its last heartbeat told.
    pub(crate) figures: Figures,
    /// When it was last heard of; no one's clock can set it back.
    pub(crate) last_heartbeat: Instant,
    /// Why it is lost.
    pub(crate) lost_reason: Option<String>,
    /// How often executors of this name were lost, those that left in good order not counted.
    pub(crate) times_lost: u64,
}

/// What can be asked of an executor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MemberState {
    /// Everything.
    Live,
    /// To go on with what it has, and to hand that over.
    Leaving,
    /// Nothing; it is listed so that people can see what became of it.
    Lost,
}

/// A moment by both clocks: one that never goes back, and one that people read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) time: EventTime,
}

impl Moment {
    pub(super) fn now() -> Self {
        Self { instant: Instant::now(), time: SystemClock.now() }
    }
}

impl Members {
    /// Those that can be given work.
    pub(crate) fn live(&self) -> impl Iterator<Item = &Member> {
        self.executors.iter().filter(|member| member.state == MemberState::Live)
    }

    /// The executor of a name, lost ones too.
    pub(crate) fn find(&self, name: &str) -> Option<&Member> {
        let place = self.executors.binary_search_by(|member| member.name.as_str().cmp(name));
        place.ok().and_then(|place| self.executors.get(place))
    }
}

impl Member {
    pub(super) fn new(registration: Registration, at: Moment, times_lost: u64) -> Self {
        Self {
            name: registration.name,
            data: registration.data,
            control: registration.control,
            incarnation: registration.incarnation,
            process: registration.process,
            cores: registration.cores,
            memory_bytes: registration.memory_bytes,
            pid: registration.pid,
            state: MemberState::Live,
            since: at.time,
            figures: Figures::default(),
            last_heartbeat: at.instant,
            lost_reason: None,
            times_lost,
        }
    }

    /// Whether it is there: live, or leaving.
    pub(crate) fn is_present(&self) -> bool {
        self.state != MemberState::Lost
    }

    /// Whether this is its name or one of its URLs.
    pub(super) fn is_called(&self, who: &str) -> bool {
        let is_url = |url: &str| url.trim_end_matches('/') == who.trim_end_matches('/');
        self.name == who || is_url(&self.data) || is_url(&self.control)
    }

    pub(super) fn enter(&mut self, state: MemberState, at: Moment) {
        self.state = state;
        self.since = at.time;
    }

    pub(super) fn lose(&mut self, reason: &str, at: Moment) {
        self.enter(MemberState::Lost, at);
        self.lost_reason = Some(reason.to_owned());
    }
}
