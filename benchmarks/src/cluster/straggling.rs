//! Making one executor slow.
//!
//! What is simulated is a machine that others take from its executor: it answers, heartbeats included, but gets a
//! small part of the time that it needs. Its threads share one core with busy threads of another process, as far as
//! `taskset` is there; and it is stopped for most of every tenth of a second, as no process without privileges can take
//! a core from another one whole. On a machine with few cores the busy threads slow the others too, the driver among
//! them, and without `taskset` they do so on every machine.

use std::process::{Child, Command, Stdio};

use super::cores::{Cores, can_confine};
use super::executors::{Executor, signal};

/// How slow the executor is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Load {
    /// Busy threads beside it.
    pub(super) threads: usize,
    /// The part of each tenth of a second in which it is stopped, in percent.
    pub(super) stopped_percent: u32,
}

/// An executor that is slow.
#[derive(Debug)]
pub(super) struct Straggling {
    executor: Executor,
    /// Where it ran before, if it was confined.
    cores: Option<Cores>,
    busy: Child,
    /// Stops the executor and lets it go on, in turn; ends with it.
    stopping: Child,
}

impl Straggling {
    /// Makes an executor slow.
    pub(super) fn begin(executor: Executor, load: Load) -> anyhow::Result<Self> {
        let cores = if can_confine() { Some(Cores::of(executor.pid)?) } else { None };
        let last = cores.as_ref().map(Cores::last);
        if let Some(last) = &last {
            last.confine(executor.pid)?;
        }
        let busy = busy(load.threads, last.as_ref())?;
        let stopping = stopping(executor.pid, load.stopped_percent)?;
        Ok(Self { executor, cores, busy, stopping })
    }

    /// Lets it be as fast as before.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        for child in [&mut self.stopping, &mut self.busy] {
            child.kill()?;
            child.wait()?;
        }
        signal("CONT", &[self.executor])?;
        self.cores.map_or(Ok(()), |cores| cores.confine(self.executor.pid))
    }
}

/// Busy threads, which end with this process.
fn busy(threads: usize, cores: Option<&Cores>) -> anyhow::Result<Child> {
    let program = std::env::current_exe()?;
    let mut command = match cores {
        Some(cores) => {
            let mut command = cores.command();
            command.arg(program);
            command
        }
        None => Command::new(program),
    };
    command.args(["cluster", "busy", "--threads", &threads.to_string()]);
    Ok(command.stdin(Stdio::piped()).spawn()?)
}

/// A shell that stops the process and lets it go on until it has ended.
fn stopping(pid: u32, percent: u32) -> anyhow::Result<Child> {
    let (stopped, going) = (f64::from(percent) / 1e3, f64::from(100 - percent) / 1e3);
    let script =
        format!("while kill -STOP {pid}; do sleep {stopped:.3}; kill -CONT {pid}; sleep {going:.3}; done 2>/dev/null");
    Ok(Command::new("sh").args(["-c", &script]).spawn()?)
}
