//! What a roster holds to, told case by case, and looked for in random orders of messages.

use std::collections::BTreeSet;

use millstream_engine::time::{EventTime, Span};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::cluster::control::ErrorKind;
use crate::cluster::membership::messages::Figures;

const TIMEOUT: Duration = Duration::from_secs(1);

/// A roster whose time is set by hand.
struct Trial {
    roster: Roster,
    now: Moment,
}

impl Trial {
    fn new() -> Self {
        let now = Moment { instant: Instant::now(), time: EventTime(0) };
        Self { roster: Roster::new(now.instant), now }
    }

    /// Lets time pass, and looks for silent executors as often as the driver does.
    fn pass(&mut self, time: Duration) {
        for _ in 0..time.as_millis().div_ceil(100) {
            self.skip(Duration::from_millis(100));
            self.roster.expire(TIMEOUT, self.now);
        }
    }

    /// Lets time pass without a look.
    fn skip(&mut self, time: Duration) {
        let nanos = i64::try_from(time.as_nanos()).unwrap();
        self.now = Moment { instant: self.now.instant + time, time: EventTime(self.now.time.0 + nanos) };
    }

    fn register(&mut self, name: &str, incarnation: Incarnation) -> Result<(), ActionError> {
        self.roster.register(registration(name, incarnation), self.now)
    }

    fn heartbeat(&mut self, name: &str, incarnation: Incarnation, is_leaving: bool) -> Result<(), ActionError> {
        let figures = Figures { rows: 7, ..Figures::default() };
        self.roster.heartbeat(&Heartbeat { name: name.to_owned(), incarnation, figures, is_leaving }, self.now)
    }

    fn leave(&mut self, name: &str, incarnation: Incarnation) -> Result<(), ActionError> {
        self.roster.leave(&Leave { name: name.to_owned(), incarnation }, self.now)
    }

    #[track_caller]
    fn check(&self, expected: &[(&str, Incarnation, MemberState)]) {
        let members = self.roster.members();
        let found: Vec<_> = members.executors.iter().map(|m| (m.name.as_str(), m.incarnation, m.state)).collect();
        assert_eq!(found, expected);
    }

    fn only(&self) -> Member {
        let [member]: [Member; 1] = self.roster.members().executors.try_into().unwrap();
        member
    }
}

fn registration(name: &str, incarnation: Incarnation) -> Registration {
    Registration {
        name: name.to_owned(),
        data: format!("http://{name}:1"),
        control: format!("http://{name}:2"),
        incarnation,
        process: uuid::Uuid::nil(),
        version: RELEASE.to_owned(),
        cores: 2,
        memory_bytes: 1 << 30,
        pid: 7,
    }
}

fn incarnation(number: i64) -> Incarnation {
    Incarnation::new(EventTime(number))
}

#[track_caller]
fn check_error(result: Result<(), ActionError>, kind: ErrorKind, part: &str) {
    let error = result.unwrap_err();
    assert!(error.kind == kind && error.message.contains(part), "{error:?}");
}

#[test]
fn an_executor_registers_beats_wants_to_go_and_leaves() {
    let (mut trial, first) = (Trial::new(), incarnation(1));
    trial.register("a", first).unwrap();
    trial.check(&[("a", first, MemberState::Live)]);
    trial.heartbeat("a", first, false).unwrap();
    assert_eq!((trial.only().figures.rows, trial.roster.version), (7, 1), "figures are no change");
    trial.heartbeat("a", first, true).unwrap();
    trial.heartbeat("a", first, false).unwrap();
    trial.check(&[("a", first, MemberState::Leaving)]);
    trial.leave("a", first).unwrap();
    trial.leave("a", first).unwrap();
    trial.check(&[("a", first, MemberState::Lost)]);
    assert_eq!((trial.only().lost_reason.as_deref(), trial.only().times_lost), (Some(LEFT), 0));
    assert_eq!(trial.roster.version, 3);
}

#[test]
fn registering_twice_changes_nothing() {
    let (mut trial, first) = (Trial::new(), incarnation(1));
    trial.register("a", first).unwrap();
    trial.register("a", first).unwrap();
    assert_eq!(trial.roster.version, 1);
}

#[test]
fn silence_loses_an_executor_and_a_heartbeat_keeps_it() {
    let (mut trial, first) = (Trial::new(), incarnation(1));
    trial.register("a", first).unwrap();
    trial.pass(TIMEOUT);
    trial.heartbeat("a", first, false).unwrap();
    trial.pass(TIMEOUT);
    trial.check(&[("a", first, MemberState::Live)]);
    trial.pass(Duration::from_millis(100));
    trial.check(&[("a", first, MemberState::Lost)]);
    assert_eq!(trial.only().lost_reason.as_deref(), Some("no heartbeat for 1.0 s"));
    check_error(trial.heartbeat("a", first, false), ErrorKind::Stale, "not registered");
}

#[test]
fn a_driver_that_stood_still_gives_everybody_the_whole_timeout_again() {
    let (mut trial, first) = (Trial::new(), incarnation(1));
    trial.register("a", first).unwrap();
    trial.skip(10 * TIMEOUT);
    trial.pass(TIMEOUT);
    trial.check(&[("a", first, MemberState::Live)]);
    trial.pass(TIMEOUT);
    trial.check(&[("a", first, MemberState::Lost)]);
}

#[test]
fn a_lost_incarnation_stays_lost_and_a_later_one_comes() {
    let (mut trial, first, second) = (Trial::new(), incarnation(1), incarnation(2));
    trial.register("a", first).unwrap();
    trial.roster.report_lost("http://a:1/", "the shuffle broke", trial.now);
    check_error(trial.register("a", first), ErrorKind::Stale, "given up");
    check_error(trial.register("a", incarnation(0)), ErrorKind::Stale, "given up");
    trial.check(&[("a", first, MemberState::Lost)]);
    trial.register("a", second).unwrap();
    trial.check(&[("a", second, MemberState::Live)]);
    assert_eq!((trial.only().lost_reason, trial.only().times_lost), (None, 1));
}

#[test]
fn a_later_incarnation_follows_one_whose_death_nobody_noticed() {
    let (mut trial, first, second) = (Trial::new(), incarnation(1), incarnation(2));
    trial.register("a", first).unwrap();
    trial.register("a", second).unwrap();
    trial.check(&[("a", second, MemberState::Live)]);
    assert_eq!(trial.only().times_lost, 1);
    check_error(trial.heartbeat("a", first, false), ErrorKind::Stale, "not registered");
    check_error(trial.leave("a", first), ErrorKind::Stale, "not registered");
    check_error(trial.register("a", first), ErrorKind::Refused, "a name of its own");
}

#[test]
fn an_executor_whose_clock_was_set_back_comes_in_the_end() {
    let mut trial = Trial::new();
    let first = incarnation(3_600_000_000_000);
    trial.register("a", first).unwrap();
    trial.roster.report_lost("a", "killed", trial.now);
    let (mut again, mut jump) = (incarnation(0), Span::seconds(1));
    let mut refused = 0;
    while trial.register("a", again).is_err() {
        again = again.renewed(EventTime(refused), jump);
        jump.0 *= 2;
        refused += 1;
    }
    assert!(refused < 15, "{refused}");
}

#[test]
fn another_version_and_a_name_that_is_none_are_refused() {
    let mut trial = Trial::new();
    let other = Registration { version: "0.0.0".to_owned(), ..registration("a", incarnation(1)) };
    check_error(trial.roster.register(other, trial.now), ErrorKind::Refused, "one version on all machines");
    check_error(trial.register("", incarnation(1)), ErrorKind::Refused, "needs a name");
    check_error(trial.register(&"x".repeat(201), incarnation(1)), ErrorKind::Refused, "200 bytes");
    trial.check(&[]);
}

#[test]
fn the_executor_that_was_lost_first_is_forgotten_first() {
    let mut trial = Trial::new();
    for number in 0..=MAX_LOST {
        let name = format!("executor-{number:03}");
        trial.register(&name, incarnation(1)).unwrap();
        trial.roster.report_lost(&name, "killed", trial.now);
        trial.skip(Duration::from_millis(1));
    }
    let members = trial.roster.members();
    assert_eq!(members.executors.len(), MAX_LOST);
    assert!(members.find("executor-000").is_none() && members.find("executor-001").is_some());
}

/// A message or an event at random; incarnations come from a small pool, so that most are late or repeated.
fn step(trial: &mut Trial, random: &mut StdRng, pool: &[Incarnation]) {
    let name = ["a", "b", "c"][random.random_range(0..3)];
    let incarnation = pool[random.random_range(0..pool.len())];
    // Whether it was taken is told by the members.
    match random.random_range(0..12) {
        0..4 => drop(trial.register(name, incarnation)),
        4..8 => drop(trial.heartbeat(name, incarnation, random.random_bool(0.1))),
        8 => drop(trial.leave(name, incarnation)),
        9 => trial.roster.report_lost(name, "reported", trial.now),
        10 => trial.skip(Duration::from_millis(random.random_range(0..2_000))),
        _ => trial.pass(Duration::from_millis(random.random_range(0..2_000))),
    }
}

fn states(members: &Members) -> Vec<(String, Incarnation, MemberState)> {
    members.executors.iter().map(|member| (member.name.clone(), member.incarnation, member.state)).collect()
}

fn present(members: &Members) -> BTreeSet<(String, Incarnation)> {
    let present = members.executors.iter().filter(|member| member.is_present());
    present.map(|member| (member.name.clone(), member.incarnation)).collect()
}

#[test]
fn in_any_order_of_messages_the_dead_stay_dead_and_the_version_grows_with_each_change() {
    for seed in 0..100 {
        println!("seed {seed}");
        let mut random = StdRng::seed_from_u64(seed);
        let mut trial = Trial::new();
        let pool: Vec<_> = (0..8).map(|number| incarnation(number / 2)).collect();
        let mut dead = BTreeSet::new();
        for _ in 0..300 {
            let before = trial.roster.members();
            step(&mut trial, &mut random, &pool);
            let after = trial.roster.members();
            assert_eq!(after.version > before.version, states(&after) != states(&before), "{before:?} to {after:?}");
            dead.extend(present(&before).difference(&present(&after)).cloned());
            assert!(present(&after).is_disjoint(&dead), "{after:?} has one of {dead:?}");
            let names: BTreeSet<_> = after.executors.iter().map(|member| &member.name).collect();
            assert_eq!(names.len(), after.executors.len(), "{after:?}");
            for (old, new) in before.executors.iter().filter_map(|old| Some((old, after.find(&old.name)?))) {
                assert!(new.incarnation >= old.incarnation && new.times_lost >= old.times_lost, "{old:?} to {new:?}");
            }
        }
    }
}
