//! Making one executor slow.
//!
//! What is simulated is a machine that others take from its executor: it answers, heartbeats included, but gets a small
//! part of the time that it needs. No process without privileges can take a core from another one whole, so that it is
//! done in two ways:
//!
//! * the executor is stopped for most of every tenth of a second, and
//! * busy threads of another process run on the last of its cores, where `taskset` is there to keep them from others.
//!
//! If the executor is confined to that core it gets its share of it only: one of 61 beside 60 busy threads. Both at
//! once leave it so little that its heartbeats do not come for 10 s, and it is lost. On a machine with few cores the
//! busy threads slow the others too, the driver among them; without `taskset` they do so on every machine.

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
    /// Whether it has to stay on the core of the busy threads.
    pub(super) is_confined: bool,
}

/// An executor that is slow.
#[derive(Debug)]
pub(super) struct Straggling {
    executor: Executor,
    /// Where it ran before it was confined, if it is.
    cores: Option<Cores>,
    busy: Child,
    /// Stops the executor and lets it go on, in turn; ends with it.
    stopping: Option<Child>,
}

impl Straggling {
    /// Makes an executor slow.
    ///
    /// # Errors
    /// Fails if it is to be confined and cannot be.
    pub(super) fn begin(executor: Executor, load: Load) -> anyhow::Result<Self> {
        let cores = Cores::of(executor.pid)?;
        let last = cores.last();
        let busy = busy(load.threads, can_confine().then_some(&last))?;
        let stopping = (load.stopped_percent > 0).then(|| stopping(executor.pid, load.stopped_percent)).transpose()?;
        if load.is_confined {
            last.confine(executor.pid)?;
        }
        Ok(Self { executor, cores: load.is_confined.then_some(cores), busy, stopping })
    }

    /// Lets it be as fast as before.
    pub(super) fn end(mut self) -> anyhow::Result<()> {
        for child in self.stopping.iter_mut().chain([&mut self.busy]) {
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
