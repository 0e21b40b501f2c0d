//! Crash points: every durable step is counted, and a test can have the process killed at any of them.
//!
//! With `MILLSTREAM_CRASH_AT=n` in its environment the process sends itself `SIGKILL` as it comes to its `n`-th durable
//! step, counted from 1. No destructor runs and nothing is flushed, as when somebody types `kill -9`. A test starts
//! with 1 and counts up until a run ends by itself; so no list of points is kept by hand.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that names the step to die at.
pub const CRASH_AT: &str = "MILLSTREAM_CRASH_AT";

static STEPS: AtomicU64 = AtomicU64::new(0);
static CRASH_STEP: OnceLock<Option<u64>> = OnceLock::new();

/// Counts a durable step that is about to be taken; `name` says which in the log.
///
/// Sinks call it before every statement or file operation that outlives the process, and once after the last.
pub fn durable_step(name: &'static str) {
    let Some(target) = CRASH_STEP.get_or_init(|| std::env::var(CRASH_AT).ok()?.parse().ok()) else { return };
    let step = STEPS.fetch_add(1, Ordering::SeqCst) + 1;
    if step == *target {
        tracing::warn!(step, name, "killed by {CRASH_AT}");
        kill();
    }
}

/// Ends the process as `kill -9` does.
fn kill() {
    let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    if let Err(error) = killed {
        tracing::error!(%error, "cannot send SIGKILL to this process");
    }
    std::process::abort();
}
