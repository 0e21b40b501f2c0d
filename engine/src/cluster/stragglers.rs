//! Executors that are slow again and again, and so lose their slots for a while.
//!
//! All executors have about as many key partitions, so that one whose answers take many times as long as those of most
//! others has a trouble of its own. A single slow answer is nobody's fault; seconds of them are acted upon.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use super::Member;

/// An answer is slow if it takes so many times the median of all …
const SLOW_TIMES: u32 = 4;
/// … and so much longer: less is not worth moving state for.
const SLOW_BY: Duration = Duration::from_millis(20);
/// How far back is looked …
const LOOKED_BACK: Duration = Duration::from_secs(10);
/// … for how long somebody must have been slow at the least …
const SLOW_FOR: Duration = Duration::from_secs(2);
/// … in at least so many answers …
const FEWEST_ANSWERS: usize = 8;
/// … of which so many in a hundred were slow.
const SLOW_PERCENT: usize = 75;
/// The most answers that are kept of each.
const MOST_ANSWERS: usize = 512;
/// How long one that is slow is left without slots the first time; twice as long each time that it is slow again.
const FIRST_REST: Duration = Duration::from_secs(60);
/// The longest that it is.
const LONGEST_REST: Duration = Duration::from_secs(3600);

/// What is known of how long executors take.
#[derive(Debug, Default)]
pub(super) struct Stragglers {
    answers: BTreeMap<Member, VecDeque<(Instant, bool)>>,
    resting: BTreeMap<Member, Rest>,
}

#[derive(Debug, Clone, Copy)]
struct Rest {
    until: Instant,
    length: Duration,
}

impl Stragglers {
    /// Notes how long each executor took in an exchange.
    pub(super) fn note(&mut self, took: &[(&Member, Duration)], now: Instant) {
        let mut times: Vec<Duration> = took.iter().map(|(_, time)| *time).collect();
        times.sort_unstable();
        // Of two the faster one counts as the median: half of all is not slow.
        let Some(median) = times.get(times.len().saturating_sub(1) / 2).copied().filter(|_| times.len() > 1) else {
            return;
        };
        for (member, time) in took {
            let is_slow = *time > median * SLOW_TIMES && *time > median + SLOW_BY;
            let answers = self.answers.entry((*member).clone()).or_default();
            answers.push_back((now, is_slow));
            while answers.len() > MOST_ANSWERS
                || answers.front().is_some_and(|(at, _)| now.duration_since(*at) > LOOKED_BACK)
            {
                answers.pop_front();
            }
            if is_straggling(answers, now) {
                answers.clear();
                self.rest(member, now);
            }
        }
        // Those that are gone answer no more, and who has been well for long begins anew.
        self.answers.retain(|_, answers| answers.back().is_some_and(|(at, _)| now.duration_since(*at) <= LOOKED_BACK));
        self.resting.retain(|_, rest| now < rest.until + 10 * rest.length);
    }

    fn rest(&mut self, member: &Member, now: Instant) {
        let before = self.resting.get(member).map(|rest| rest.length);
        let length = before.map_or(FIRST_REST, |before| (before * 2).min(LONGEST_REST));
        self.resting.insert(member.clone(), Rest { until: now + length, length });
    }

    /// Whether an executor is to have no slots now.
    fn rests(&self, member: &Member, now: Instant) -> bool {
        self.resting.get(member).is_some_and(|rest| now < rest.until)
    }

    /// Those of `members` that may have slots; all of them if none may.
    pub(super) fn without_resting(&self, members: Vec<Member>, now: Instant) -> Vec<Member> {
        let able: Vec<Member> = members.iter().filter(|member| !self.rests(member, now)).cloned().collect();
        if able.is_empty() { members } else { able }
    }
}

fn is_straggling(answers: &VecDeque<(Instant, bool)>, now: Instant) -> bool {
    let slow = answers.iter().filter(|(_, is_slow)| *is_slow).count();
    let first_slow = answers.iter().find(|(_, is_slow)| *is_slow);
    answers.len() >= FEWEST_ANSWERS
        && slow * 100 >= answers.len() * SLOW_PERCENT
        && first_slow.is_some_and(|(at, _)| now.duration_since(*at) >= SLOW_FOR)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members() -> Vec<Member> {
        let member = |name: &str| Member { name: name.to_owned(), incarnation: uuid::Uuid::new_v4() };
        ["a", "b", "c"].map(member).to_vec()
    }

    /// Exchanges every 250 ms from `now` on, in milliseconds of each member; when the last one was.
    fn note(stragglers: &mut Stragglers, members: &[Member], times: [u64; 3], count: u32, now: Instant) -> Instant {
        for number in 0..count {
            let took: Vec<_> = members.iter().zip(times.map(Duration::from_millis)).collect();
            stragglers.note(&took, now + Duration::from_millis(250) * number);
        }
        now + Duration::from_millis(250) * count
    }

    #[test]
    fn one_that_is_slow_for_seconds_rests_and_comes_back() {
        let members = members();
        let mut stragglers = Stragglers::default();
        let now = note(&mut stragglers, &members, [5, 6, 90], 8, Instant::now());
        assert!(!stragglers.rests(&members[2], now), "it was not slow for long");
        let now = note(&mut stragglers, &members, [5, 6, 90], 1, now);
        assert_eq!(stragglers.without_resting(members.clone(), now), members[..2]);
        let now = now + FIRST_REST;
        assert_eq!(stragglers.without_resting(members.clone(), now), members);
        let now = note(&mut stragglers, &members, [5, 6, 90], 9, now);
        assert!(stragglers.rests(&members[2], now + FIRST_REST), "it rests longer the second time");
        assert!(!stragglers.rests(&members[2], now + 2 * FIRST_REST));
        let now = note(&mut stragglers, &members, [5, 6, 7], 1, now + 30 * FIRST_REST);
        let now = note(&mut stragglers, &members, [5, 6, 90], 9, now);
        assert!(!stragglers.rests(&members[2], now + FIRST_REST), "it was well for long");
    }

    #[test]
    fn a_slow_answer_now_and_then_and_slowness_of_all_are_nobodys_fault() {
        let (members, mut now) = (members(), Instant::now());
        let mut stragglers = Stragglers::default();
        for number in 0..100 {
            now = note(&mut stragglers, &members, if number % 2 == 0 { [5, 6, 90] } else { [90, 80, 100] }, 1, now);
            now = note(&mut stragglers, &members, [1, 1, 15], 1, now);
        }
        assert_eq!(stragglers.without_resting(members.clone(), now), members);
    }

    #[test]
    fn of_two_one_may_be_slow_and_one_alone_is_not() {
        let (members, now) = (members(), Instant::now());
        let mut stragglers = Stragglers::default();
        for number in 0..20 {
            let now = now + Duration::from_millis(250) * number;
            let took = [(&members[0], Duration::from_millis(5)), (&members[1], Duration::from_millis(500))];
            stragglers.note(&took, now);
            stragglers.note(&[(&members[2], Duration::from_secs(5))], now);
        }
        let now = now + Duration::from_secs(5);
        assert!(stragglers.rests(&members[1], now) && !stragglers.rests(&members[2], now));
        assert_eq!(stragglers.without_resting(vec![members[1].clone()], now), members[1..2], "somebody must");
    }
}
