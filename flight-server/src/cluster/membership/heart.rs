//! The executor's side: it registers, says again and again that it is there, and says goodbye.
//!
//! ```text
//!   register ── welcome ──► beat ── leaving, and nothing needs it ──► leave
//!      ▲                     │
//!      └────── stale ────────┘     (a driver that is away is asked again, in either, for ever)
//! ```
//!
//! An executor outlives its driver: it keeps what it holds, and tells the next driver of whose term that is.

use std::time::Duration;

use millstream_engine::time::{Clock, NANOS_PER_SECOND, Span, SystemClock};
use tokio::sync::watch;

use super::incarnation::Incarnation;
use super::messages::{Figures, HEARTBEAT, Heartbeat, LEAVE, Leave, REGISTER, Registration, Welcome};
use crate::cluster::backoff::Backoff;
use crate::cluster::control::{CallError, ControlClient};

/// How long the driver has to answer before it has told how often it wants to hear of executors.
const REGISTER_DEADLINE: Duration = Duration::from_secs(2);
/// The pauses between two attempts to reach a driver that is away.
const SHORTEST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// Keeps an executor registered until `leaving` has become true and nothing needs it any more: it holds no key
/// partition and runs no plan. Whoever cannot wait for that drops the future.
///
/// `on_term` is told of each registration: the term of the driver, and the incarnation that it knows this process by. A
/// process that was given up goes on as another incarnation; what it holds may still be of use, as its drivers find out.
/// What `me` says of a term that it holds is for the first registration; later ones tell of the last term if it has key
/// partitions.
pub(crate) async fn keep_registered<F, T>(
    driver: ControlClient,
    me: Registration,
    figures: F,
    leaving: watch::Receiver<bool>,
    on_term: T,
) where
    F: Fn() -> Figures + Send + Sync,
    T: Fn(u64, Incarnation) + Send + Sync,
{
    let mut heart = Heart { driver, me, figures, leaving, on_term };
    while let Some(welcome) = heart.register().await {
        if matches!(heart.beat(welcome).await, Ended::Left) {
            return;
        }
    }
}

/// Why there are no more heartbeats.
enum Ended {
    /// The driver does not know this executor, or gave it up.
    Unknown,
    Left,
}

struct Heart<F, T> {
    driver: ControlClient,
    me: Registration,
    figures: F,
    leaving: watch::Receiver<bool>,
    on_term: T,
}

impl<F: Fn() -> Figures + Send + Sync, T: Fn(u64, Incarnation) + Send + Sync> Heart<F, T> {
    /// Registers, however long the driver is away; none if the executor is to leave before.
    async fn register(&mut self) -> Option<Welcome> {
        let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        let mut jump = Span(0);
        let mut is_told = false;
        loop {
            match self.driver.call(REGISTER, &self.me, REGISTER_DEADLINE).await {
                Ok(welcome) => return Some(self.welcomed(welcome)),
                Err(CallError::Stale(reason)) => {
                    tracing::debug!(reason, "this incarnation is over");
                    self.me.incarnation = self.me.incarnation.renewed(SystemClock.now(), jump);
                    jump = Span(jump.0.saturating_mul(2).max(NANOS_PER_SECOND));
                }
                Err(error) if !is_told => {
                    tracing::warn!(%error, driver = self.driver.url(), "cannot register; trying again and again");
                    is_told = true;
                }
                Err(error) => tracing::debug!(%error, "cannot register"),
            }
            if self.leaves_within(backoff.pause()).await {
                return None;
            }
        }
    }

    /// Says that it is there until the driver does not know it, or nothing needs it and it leaves.
    async fn beat(&mut self, mut welcome: Welcome) -> Ended {
        let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        let (mut pause, mut is_leaving, mut is_away) = (welcome.interval(), false, false);
        loop {
            is_leaving = if is_leaving { self.rest(pause).await } else { self.leaves_within(pause).await };
            let figures = (self.figures)();
            if is_leaving && figures.is_idle() {
                self.leave(welcome).await;
                return Ended::Left;
            }
            match self.send(figures, is_leaving, welcome).await {
                Ok(answer) => {
                    if is_away {
                        tracing::info!(driver = self.driver.url(), "the driver is there again");
                    }
                    if answer.term != welcome.term {
                        self.welcomed(answer);
                    }
                    welcome = answer;
                    backoff.reset();
                    (pause, is_away) = (welcome.interval(), false);
                }
                Err(CallError::Stale(reason)) => {
                    tracing::info!(reason, "registering again");
                    return Ended::Unknown;
                }
                Err(error) => {
                    if !is_away {
                        tracing::warn!(%error, "the driver does not hear this executor");
                    }
                    (pause, is_away) = (backoff.pause(), true);
                }
            }
        }
    }

    fn welcomed(&self, welcome: Welcome) -> Welcome {
        tracing::info!(term = welcome.term, incarnation = %self.me.incarnation, "registered");
        (self.on_term)(welcome.term, self.me.incarnation);
        welcome
    }

    async fn send(&self, figures: Figures, is_leaving: bool, welcome: Welcome) -> Result<Welcome, CallError> {
        let Registration { name, incarnation, .. } = &self.me;
        let heartbeat = Heartbeat { name: name.clone(), incarnation: *incarnation, figures, is_leaving };
        // One that hangs must leave time for another one.
        self.driver.call(HEARTBEAT, &heartbeat, welcome.timeout() / 2).await
    }

    /// Says goodbye; a driver that does not hear it notices the silence.
    async fn leave(&self, welcome: Welcome) {
        let leave = Leave { name: self.me.name.clone(), incarnation: self.me.incarnation };
        let left: Result<Welcome, CallError> = self.driver.call(LEAVE, &leave, welcome.timeout()).await;
        match left {
            Ok(_) => tracing::info!("left the cluster"),
            Err(error) => tracing::info!(%error, "the driver was not told that this executor leaves"),
        }
    }

    /// Waits; whether the executor is to leave, which ends the wait.
    async fn leaves_within(&mut self, pause: Duration) -> bool {
        tokio::select! {
            () = becomes_true(&mut self.leaving) => true,
            () = tokio::time::sleep(pause) => false,
        }
    }

    /// Waits while the executor is leaving already.
    async fn rest(&self, pause: Duration) -> bool {
        tokio::time::sleep(pause).await;
        true
    }
}

/// Completes when a flag is set, and never if nobody is there to set it.
async fn becomes_true(flag: &mut watch::Receiver<bool>) {
    let is_set = flag.wait_for(|is_set| *is_set).await.is_ok();
    if !is_set {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, Mutex};

    use async_trait::async_trait;
    use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
    use tokio::task::JoinSet;

    use super::super::{MemberState, Members, Membership, Pace, RELEASE};
    use super::*;
    use crate::cluster::control::testing::serve;
    use crate::cluster::control::{ActionError, Actions};
    use crate::cluster::link::Links;

    const DEADLINE: Duration = Duration::from_secs(60);

    /// A driver that another one can follow at the same place.
    struct Driver(Mutex<Membership>);

    #[async_trait]
    impl Actions for Driver {
        async fn act(&self, action: &str, body: &[u8]) -> Result<Vec<u8>, ActionError> {
            let membership = self.0.lock().unwrap().clone();
            membership.act(action, body).await
        }
    }

    /// An executor that beats.
    struct Beating {
        driver: Arc<Driver>,
        terms: UnboundedReceiver<(u64, Incarnation)>,
        slots: Arc<AtomicU32>,
        leaving: watch::Sender<bool>,
        heart: JoinSet<()>,
        _server: JoinSet<()>,
    }

    /// A driver that loses nobody by silence.
    fn membership(term: u64) -> Membership {
        let pace = Pace { interval: Duration::from_millis(5), timeout: DEADLINE };
        Membership::new(term, pace)
    }

    async fn beating(membership: &Membership) -> Beating {
        let driver = Arc::new(Driver(Mutex::new(membership.clone())));
        let actions = Arc::clone(&driver);
        let (url, server) = serve(actions).await;
        let me = Registration {
            name: "a".to_owned(),
            data: "http://a:1".to_owned(),
            control: "http://a:2".to_owned(),
            incarnation: Incarnation::new(SystemClock.now()),
            process: uuid::Uuid::new_v4(),
            version: RELEASE.to_owned(),
            cores: 1,
            memory_bytes: 0,
            pid: 7,
        };
        let slots = Arc::new(AtomicU32::new(3));
        let held = Arc::clone(&slots);
        let figures = move || Figures { slots: held.load(Ordering::SeqCst), ..Figures::default() };
        let (sender, terms) = unbounded_channel();
        let on_term = move |term: u64, incarnation: Incarnation| {
            // The test has ended if nobody receives it.
            let _ = sender.send((term, incarnation));
        };
        let (leaving, is_leaving) = watch::channel(false);
        let client = ControlClient::new(&Links::plain(), &url).unwrap();
        let mut heart = JoinSet::new();
        heart.spawn(keep_registered(client, me, figures, is_leaving, on_term));
        Beating { driver, terms, slots, leaving, heart, _server: server }
    }

    async fn wait(membership: &Membership, is_met: impl Fn(&Members) -> bool) -> Arc<Members> {
        let mut members = membership.watch();
        let met = tokio::time::timeout(DEADLINE, members.wait_for(|members| is_met(members))).await;
        Arc::clone(&met.unwrap().unwrap())
    }

    #[tokio::test]
    async fn an_executor_registers_with_the_next_driver_and_tells_what_it_holds() {
        let (first, second) = (membership(1), membership(2));
        let mut executor = beating(&first).await;
        let before = wait(&first, |members| members.live().count() == 1).await;
        *executor.driver.0.lock().unwrap() = second.clone();
        let after = wait(&second, |members| members.live().count() == 1).await;
        let incarnation = before.executors[0].incarnation;
        assert_eq!(after.executors[0].incarnation, incarnation, "it was not given up");
        let terms = [executor.terms.recv().await.unwrap(), executor.terms.recv().await.unwrap()];
        assert_eq!(terms, [(1, incarnation), (2, incarnation)]);
    }

    #[tokio::test]
    async fn an_executor_that_was_given_up_comes_back_as_another_incarnation() {
        let membership = membership(1);
        let mut executor = beating(&membership).await;
        let before = wait(&membership, |members| members.live().count() == 1).await.executors[0].incarnation;
        membership.report_lost("a", "a test says so");
        let after = wait(&membership, |members| members.live().any(|member| member.incarnation > before)).await;
        assert_eq!(after.executors[0].times_lost, 1);
        let terms = [executor.terms.recv().await.unwrap(), executor.terms.recv().await.unwrap()];
        assert_eq!(terms, [(1, before), (1, after.executors[0].incarnation)]);
    }

    #[tokio::test]
    async fn an_executor_leaves_when_nothing_needs_it() {
        let membership = membership(1);
        let mut executor = beating(&membership).await;
        wait(&membership, |members| members.live().count() == 1).await;
        executor.leaving.send_replace(true);
        wait(&membership, |members| members.executors[0].state == MemberState::Leaving).await;
        executor.slots.store(0, Ordering::SeqCst);
        tokio::time::timeout(DEADLINE, executor.heart.join_next()).await.unwrap().unwrap().unwrap();
        let members = membership.members();
        assert_eq!(members.executors[0].state, MemberState::Lost);
        assert_eq!(
            (members.executors[0].lost_reason.as_deref(), members.executors[0].times_lost),
            (Some("it left"), 0)
        );
    }
}
