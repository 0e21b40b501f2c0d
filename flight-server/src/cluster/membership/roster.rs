//! The decisions about who is in the cluster; they are pure, and time is given to them.
//!
//! ```text
//!   register ──► Live ── a heartbeat says so ──► Leaving
//!                  └── silence, a report, leave ──┴──► Lost ── register, of a later incarnation ──► Live
//! ```
//!
//! Invariants, whatever order messages arrive in: an incarnation that was lost, or that a later one has followed, never
//! comes back; there is one executor of a name at the most; the version grows with each change, and only then.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::incarnation::Incarnation;
use super::members::{Member, MemberState, Members, Moment};
use super::messages::{Heartbeat, Leave, RELEASE, Registration};
use crate::cluster::control::ActionError;
use crate::queries::short_duration;

/// How many executors that are lost are remembered; the one that was lost first is forgotten first.
const MAX_LOST: usize = 100;
/// How many executors a driver takes.
const MAX_PRESENT: usize = 1_000;
/// The longest name and the longest URL of an executor, in bytes.
const MAX_NAME_BYTES: usize = 200;
/// Why an executor is lost that has said goodbye.
pub(super) const LEFT: &str = "it left";

/// Who is in the cluster.
#[derive(Debug)]
pub(super) struct Roster {
    version: u64,
    members: BTreeMap<String, Member>,
    /// When silent executors were last looked for.
    looked_at: Instant,
}

impl Roster {
    pub(super) const fn new(now: Instant) -> Self {
        Self { version: 0, members: BTreeMap::new(), looked_at: now }
    }

    /// Grows with each change but those of figures.
    pub(super) const fn version(&self) -> u64 {
        self.version
    }

    /// The members as others may see them.
    pub(super) fn members(&self) -> Members {
        Members { version: self.version, executors: self.members.values().cloned().collect() }
    }

    /// Takes an executor in; nothing changes for one that is there already.
    ///
    /// # Errors
    /// Stale for a life that is over, and refused for one that another process has followed, or of another version.
    pub(super) fn register(&mut self, registration: Registration, at: Moment) -> Result<(), ActionError> {
        check(&registration)?;
        let times_lost = match self.members.get_mut(&registration.name) {
            Some(known) if registration.incarnation == known.incarnation && known.is_present() => {
                // The answer to it was lost, or it was sent twice.
                known.last_heartbeat = at.instant;
                return Ok(());
            }
            Some(known) if registration.incarnation <= known.incarnation => return Err(outdated(known)),
            // The process that had the name has died and was started again before anybody noticed.
            Some(known) => known.times_lost + u64::from(known.is_present()),
            None => 0,
        };
        if self.members.values().filter(|member| member.is_present()).count() >= MAX_PRESENT {
            return Err(ActionError::refused(format!("a driver takes {MAX_PRESENT} executors at the most")));
        }
        self.members.insert(registration.name.clone(), Member::new(registration, at, times_lost));
        self.version += 1;
        Ok(())
    }

    /// Hears of an executor.
    ///
    /// # Errors
    /// Stale for one that is not there: it has to register.
    pub(super) fn heartbeat(&mut self, heartbeat: &Heartbeat, at: Moment) -> Result<(), ActionError> {
        let member = self.present(&heartbeat.name, heartbeat.incarnation)?;
        member.figures = heartbeat.figures;
        member.last_heartbeat = at.instant;
        // Whoever wants to go does not change its mind: a heartbeat that says so may be followed by an earlier one.
        if heartbeat.is_leaving && member.state == MemberState::Live {
            member.enter(MemberState::Leaving, at);
            self.version += 1;
        }
        Ok(())
    }

    /// Lets an executor go; nothing changes if it has gone already.
    ///
    /// # Errors
    /// Stale for one that a later one has followed, or that nobody knows.
    pub(super) fn leave(&mut self, leave: &Leave, at: Moment) -> Result<(), ActionError> {
        let known = self.members.get(&leave.name);
        if known.is_some_and(|known| known.incarnation == leave.incarnation && !known.is_present()) {
            return Ok(());
        }
        self.present(&leave.name, leave.incarnation)?.lose(LEFT, at);
        self.version += 1;
        self.forget_lost();
        Ok(())
    }

    /// Gives up whoever was silent for longer than `timeout`.
    ///
    /// This has to be called several times in each timeout: where it was not, it is this process that has stood still,
    /// with the heartbeats of everybody waiting to be read, and everybody gets the whole timeout again.
    pub(super) fn expire(&mut self, timeout: Duration, at: Moment) {
        let gap = at.instant.saturating_duration_since(self.looked_at);
        self.looked_at = at.instant;
        if gap > timeout / 2 {
            for member in self.members.values_mut().filter(|member| member.is_present()) {
                member.last_heartbeat = at.instant;
            }
            return;
        }
        let reason = format!("no heartbeat for {}", short_duration(timeout));
        self.lose(|member| at.instant.saturating_duration_since(member.last_heartbeat) > timeout, &reason, at);
    }

    /// Gives up an executor that somebody could not reach, by its name or one of its URLs.
    pub(super) fn report_lost(&mut self, who: &str, reason: &str, at: Moment) {
        self.lose(|member| member.is_called(who), reason, at);
    }

    fn lose(&mut self, is_lost: impl Fn(&Member) -> bool, reason: &str, at: Moment) {
        for member in self.members.values_mut() {
            if member.is_present() && is_lost(member) {
                member.times_lost += 1;
                member.lose(reason, at);
                self.version += 1;
            }
        }
        self.forget_lost();
    }

    fn present(&mut self, name: &str, incarnation: Incarnation) -> Result<&mut Member, ActionError> {
        let known = self.members.get_mut(name);
        let known = known.filter(|known| known.incarnation == incarnation && known.is_present());
        known.ok_or_else(|| ActionError::stale(format!("{name} is not registered as {incarnation}")))
    }

    /// A cluster whose executors have a new name each time would fill the memory with lost ones.
    fn forget_lost(&mut self) {
        let mut lost: Vec<_> = self.members.values().filter(|member| !member.is_present()).collect();
        lost.sort_by_key(|member| member.since);
        let excess = lost.len().saturating_sub(MAX_LOST);
        let names: Vec<String> = lost.into_iter().take(excess).map(|member| member.name.clone()).collect();
        for name in names {
            self.members.remove(&name);
        }
    }
}

/// Whether an executor can be in this cluster at all.
fn check(registration: &Registration) -> Result<(), ActionError> {
    let Registration { name, data, control, version, .. } = registration;
    if version != RELEASE {
        return Err(ActionError::refused(format!(
            "{name} is version {version} and the driver is {RELEASE}: run one version on all machines of a cluster"
        )));
    }
    if name.is_empty() || [name, data, control].iter().any(|text| text.len() > MAX_NAME_BYTES) {
        return Err(ActionError::refused(format!(
            "an executor needs a name, and it and its URLs may have {MAX_NAME_BYTES} bytes"
        )));
    }
    Ok(())
}

/// Why an incarnation is not taken that is not later than the one that is known.
fn outdated(known: &Member) -> ActionError {
    let Member { name, incarnation, .. } = known;
    if known.is_present() {
        let at = &known.control;
        return ActionError::refused(format!("{name} runs at {at} already: give each executor a name of its own"));
    }
    ActionError::stale(format!("{name} was given up as {incarnation}: only a later incarnation can come"))
}

#[cfg(test)]
mod tests;
