//! Crash points: every durable step is counted, and a test can have the process killed at any of them.
//!
//! With `MILLSTREAM_CRASH_AT=n` in its environment the process sends itself `SIGKILL` as it comes to its `n`-th durable
//! step, counted from 1; with `n:name` as it comes to the `n`-th of that name. No destructor runs and nothing is
//! flushed, as when somebody types `kill -9`. A test starts with 1 and counts up until a run ends by itself; so no list
//! of points is kept by hand. `MILLSTREAM_CRASH_LOG=file` lists the names of the steps in a file that is made anew, one
//! a line, so that a test can see what it has killed a run at.

use std::fs::File;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// The variable that names the step to die at.
pub const CRASH_AT: &str = "MILLSTREAM_CRASH_AT";
/// The variable that names the file to list the steps in.
const CRASH_LOG: &str = "MILLSTREAM_CRASH_LOG";

static WATCH: OnceLock<Option<Watch>> = OnceLock::new();

/// Counts a durable step that is about to be taken; `name` says which in the log.
///
/// Sinks call it before every statement or file operation that outlives the process, and once after the last.
pub fn durable_step(name: &'static str) {
    if let Some(watch) = WATCH.get_or_init(Watch::of_environment) {
        watch.pass(name);
    }
}

/// What a test wants to happen at the steps.
#[derive(Debug)]
struct Watch {
    target: Option<Target>,
    log: Option<File>,
}

impl Watch {
    /// What the environment asks for; none if that is nothing, as it is outside of tests.
    fn of_environment() -> Option<Self> {
        let target = std::env::var(CRASH_AT).ok().and_then(|text| Target::parse(&text));
        let log = std::env::var(CRASH_LOG).ok().and_then(|path| kept(&path, File::create(&path)));
        (target.is_some() || log.is_some()).then_some(Self { target, log })
    }

    fn pass(&self, name: &'static str) {
        if let Some(mut log) = self.log.as_ref() {
            kept(name, log.write_all(format!("{name}\n").as_bytes()));
        }
        let Some(target) = &self.target else { return };
        if let Some(step) = target.count(name).filter(|step| *step == target.number) {
            tracing::warn!(step, name, "killed by {CRASH_AT}");
            kill();
        }
    }
}

/// The step to die at.
#[derive(Debug)]
struct Target {
    number: u64,
    /// The name of those that are counted; all of them are if there is none.
    name: Option<String>,
    passed: AtomicU64,
}

impl Target {
    /// Reads `n` or `n:name`.
    fn parse(text: &str) -> Option<Self> {
        let (number, name) = match text.split_once(':') {
            Some((number, name)) => (number, Some(name.to_owned())),
            None => (text, None),
        };
        let number = kept(CRASH_AT, number.parse::<u64>())?;
        Some(Self { number, name, passed: AtomicU64::new(0) })
    }

    /// The number of a step among those that are counted; none if it is not one of them.
    fn count(&self, name: &str) -> Option<u64> {
        let is_counted = self.name.as_deref().is_none_or(|counted| counted == name);
        is_counted.then(|| self.passed.fetch_add(1, Ordering::SeqCst) + 1)
    }
}

/// What a test asked for, if it could be had; that it could not is logged, and the test will miss it.
fn kept<T, E: std::error::Error>(what: &str, result: Result<T, E>) -> Option<T> {
    result.inspect_err(|error| tracing::error!(%error, what, "no crash point")).ok()
}

/// Ends the process as `kill -9` does.
fn kill() {
    let killed = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    if let Err(error) = killed {
        tracing::error!(%error, "cannot send SIGKILL to this process");
    }
    std::process::abort();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_steps_count_unless_a_name_is_given() {
        let numbers = |text: &str| {
            let target = Target::parse(text).unwrap();
            (target.number, ["a", "b", "a"].map(|name| target.count(name)))
        };
        assert_eq!(numbers("7"), (7, [Some(1), Some(2), Some(3)]));
        assert_eq!(numbers("2:a"), (2, [Some(1), None, Some(2)]));
        assert!(Target::parse("a:2").is_none());
    }
}
