//! Who is in the cluster: executors register with their driver, and are lost when they fall silent.
//!
//! ```text
//!   executor: keep_registered ── register, heartbeat, leave ──► Membership ─► Roster: who is there
//!                             ◄── welcome: term, how often ──       └─► watch: Members, for placement and SHOW
//! ```
//!
//! Reading order: `messages` has what is said, `incarnation` which life of an executor says it, `roster` the decisions,
//! `heart` the executor's side.
//! Nothing is kept over a restart of the driver: executors register again with what they hold.

mod heart;
mod incarnation;
mod members;
mod messages;
mod roster;
mod table;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::control::{ActionError, Actions, answer, query};
pub(crate) use heart::keep_registered;
pub(crate) use incarnation::Incarnation;
pub(crate) use members::{Member, MemberState, Members};
pub(crate) use messages::{Figures, RELEASE, Registration};
pub(crate) use table::executors_table;

use members::Moment;
use messages::{HEARTBEAT, Heartbeat, LEAVE, Leave, REGISTER, Welcome};
use roster::{LEFT, Roster};

/// How many times in each timeout silent executors are looked for: a loss is noticed so much later at the most.
const LOOKS_PER_TIMEOUT: u32 = 10;

/// How often executors say that they are there, and how long they may be silent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    /// From one heartbeat to the next; 250 ms by default.
    pub(crate) interval: Duration,
    /// Who is silent for longer is lost; 1 s by default.
    pub(crate) timeout: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self { interval: Duration::from_millis(250), timeout: Duration::from_secs(1) }
    }
}

/// Who is in the cluster, as its driver knows; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Membership(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    term: u64,
    pace: Pace,
    roster: Mutex<Roster>,
    members: watch::Sender<Arc<Members>>,
}

impl Membership {
    /// A cluster without executors, of the driver that reigns in `term`.
    pub(crate) fn new(term: u64, pace: Pace) -> Self {
        let roster = Mutex::new(Roster::new(Moment::now().instant));
        Self(Arc::new(Shared { term, pace, roster, members: watch::Sender::default() }))
    }

    /// The members; a change is told when their version grows, not with their figures.
    pub(crate) fn watch(&self) -> watch::Receiver<Arc<Members>> {
        self.0.members.subscribe()
    }

    /// The members at this moment, with figures as they were when the last of them came or went.
    pub(crate) fn members(&self) -> Arc<Members> {
        Arc::clone(&self.0.members.borrow())
    }

    /// The members at this moment with their newest figures.
    pub(crate) fn newest(&self) -> Members {
        self.0.roster.lock().unwrap_or_else(PoisonError::into_inner).members()
    }

    /// Waits until there are `count` live executors; none if that takes longer than `deadline`.
    pub(crate) async fn wait_for(&self, count: usize, deadline: Duration) -> Option<Arc<Members>> {
        let mut members = self.watch();
        let enough = members.wait_for(|members| members.live().count() >= count);
        let found = tokio::time::timeout(deadline, enough).await.ok()?.ok()?;
        Some(Arc::clone(&found))
    }

    /// Gives an executor up that somebody could not reach; `who` is its name or one of its URLs.
    ///
    /// If it lives, its next heartbeat is answered that it is not known, and it comes back as another incarnation.
    pub(crate) fn report_lost(&self, who: &str, reason: &str) {
        self.decide(|roster, at| roster.report_lost(who, reason, at));
    }

    /// Looks for silent executors until `stop` becomes true.
    pub(crate) async fn watch_over(&self, mut stop: watch::Receiver<bool>) {
        let timeout = self.0.pace.timeout.max(Duration::from_millis(1));
        let mut looks = tokio::time::interval(timeout / LOOKS_PER_TIMEOUT);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = stop.wait_for(|stop| *stop) => return,
                _ = looks.tick() => self.decide(|roster, at| roster.expire(timeout, at)),
            }
        }
    }

    /// Decides something at this moment, and tells those who watch what it changes.
    fn decide<T>(&self, decision: impl FnOnce(&mut Roster, Moment) -> T) -> T {
        // The lock is held while it is told: members are seen in the order in which they were decided on.
        let mut roster = self.0.roster.lock().unwrap_or_else(PoisonError::into_inner);
        let decided = decision(&mut roster, Moment::now());
        // Figures alone wake nobody up: there is a heartbeat of each executor four times a second.
        if roster.version() != self.0.members.borrow().version {
            let members = Arc::new(roster.members());
            self.0.members.send_modify(|told| {
                let before = std::mem::replace(told, members);
                log_changes(&before, told);
            });
        }
        decided
    }

    fn welcome(&self) -> Welcome {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let Pace { interval, timeout } = self.0.pace;
        Welcome { term: self.0.term, timeout_ms: millis(timeout), interval_ms: millis(interval) }
    }
}

#[async_trait]
impl Actions for Membership {
    async fn act(&self, action: &str, body: &[u8]) -> Result<Vec<u8>, ActionError> {
        match action {
            REGISTER => {
                let registration: Registration = query(action, body)?;
                self.decide(|roster, at| roster.register(registration, at))?;
            }
            HEARTBEAT => {
                let heartbeat: Heartbeat = query(action, body)?;
                self.decide(|roster, at| roster.heartbeat(&heartbeat, at))?;
            }
            LEAVE => {
                let leave: Leave = query(action, body)?;
                self.decide(|roster, at| roster.leave(&leave, at))?;
            }
            _ => return Err(ActionError::unknown(action)),
        }
        answer(action, &self.welcome())
    }
}

fn log_changes(before: &Members, after: &Members) {
    for Member { name, control, incarnation, state, lost_reason, .. } in &after.executors {
        if before.find(name).is_some_and(|known| (known.incarnation, known.state) == (*incarnation, *state)) {
            continue;
        }
        let reason = lost_reason.as_deref().unwrap_or_default();
        match state {
            MemberState::Live => tracing::info!(executor = name, control, %incarnation, "registered"),
            MemberState::Leaving => tracing::info!(executor = name, "wants to leave"),
            MemberState::Lost if reason == LEFT => tracing::info!(executor = name, "left"),
            MemberState::Lost => tracing::warn!(executor = name, control, reason, "an executor is lost"),
        }
    }
}

#[cfg(test)]
mod tests {
    use millstream_engine::time::EventTime;
    use tokio::task::JoinSet;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    async fn register(membership: &Membership, name: &str) {
        let registration = Registration {
            name: name.to_owned(),
            data: format!("http://{name}:1"),
            control: format!("http://{name}:2"),
            incarnation: Incarnation::new(EventTime(1)),
            process: uuid::Uuid::new_v4(),
            version: RELEASE.to_owned(),
            cores: 1,
            memory_bytes: 0,
            pid: 7,
        };
        membership.act(REGISTER, &serde_json::to_vec(&registration).unwrap()).await.unwrap();
    }

    #[tokio::test]
    async fn whoever_waits_for_executors_is_told_when_they_are_there() {
        let membership = Membership::new(1, Pace::default());
        assert!(membership.wait_for(1, Duration::ZERO).await.is_none());
        let (found, ()) = tokio::join!(membership.wait_for(2, DEADLINE), async {
            register(&membership, "a").await;
            register(&membership, "b").await;
        });
        assert_eq!(found.unwrap().live().count(), 2);
    }

    #[tokio::test]
    async fn a_silent_executor_is_lost() {
        let membership = Membership::new(1, Pace { timeout: Duration::from_millis(50), ..Pace::default() });
        register(&membership, "a").await;
        let (_stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        let watching = membership.clone();
        tasks.spawn(async move { watching.watch_over(stopped).await });
        let mut members = membership.watch();
        let lost = |members: &Arc<Members>| members.find("a").is_some_and(|member| !member.is_present());
        tokio::time::timeout(DEADLINE, members.wait_for(lost)).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn other_actions_are_for_others() {
        let membership = Membership::new(1, Pace::default());
        let error = membership.act("merge", b"{}").await.unwrap_err();
        assert_eq!(error, ActionError::unknown("merge"));
    }
}
