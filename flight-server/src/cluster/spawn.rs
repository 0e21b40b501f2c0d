//! The executors of `millstream serve --executors N`: processes of this binary, on this machine, that come back.
//!
//! They end with the driver whatever becomes of it: each reads its stdin, a pipe that nobody writes to, and ends when
//! it is closed, which the system does for a process that was killed.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::backoff::Backoff;
use crate::error::{Error, Result};

/// The pauses before an executor that has died is started again.
const SHORTEST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// One that has lived for so long is started again after the shortest pause.
const HEALTHY_AFTER: Duration = Duration::from_secs(10);
/// How long an executor has to end by itself.
const GRACE: Duration = Duration::from_secs(5);

/// The executors that run here; they are killed when it is dropped.
#[derive(Debug)]
pub(crate) struct LocalExecutors {
    stop: watch::Sender<bool>,
    keepers: JoinSet<()>,
    /// One for each executor, in their order.
    processes: Vec<watch::Receiver<Option<u32>>>,
}

/// What is started, as often as it takes.
#[derive(Debug, Clone)]
struct Launch {
    name: String,
    program: PathBuf,
    arguments: Vec<OsString>,
    /// How long it has to end by itself.
    grace: Duration,
}

/// A process, and the pipe that it would see the end of if this one died.
#[derive(Debug)]
struct Process {
    child: Child,
    started_at: Instant,
    // Waiting for a child closes the pipe if the child has it.
    _stdin: Option<ChildStdin>,
}

impl LocalExecutors {
    /// Starts `executor-1` to `executor-N`, which look for their driver at `driver`.
    ///
    /// Each has a folder of its name in `spill`, and its part of the memory for state, `memory_bytes`; `extra` are arguments that all of them get, such as certificates.
    ///
    /// # Errors
    /// Fails if one cannot be started at all; one that dies later is started again. Needs a tokio runtime around it.
    pub(crate) fn spawn(
        count: usize,
        driver: &str,
        spill: &Path,
        memory_bytes: u64,
        extra: &[OsString],
    ) -> Result<Self> {
        let program = std::env::current_exe().map_err(|source| Error::Io {
            context: "cannot find this program to start executors".to_owned(),
            source,
        })?;
        let launch = |number| {
            let name = format!("executor-{number}");
            let mut arguments = arguments(&name, driver, &spill.join(&name), memory_bytes);
            arguments.extend_from_slice(extra);
            Launch { name, program: program.clone(), arguments, grace: GRACE }
        };
        Self::start((1..=count).map(launch).collect())
    }

    fn start(launches: Vec<Launch>) -> Result<Self> {
        let (stop, stopped) = watch::channel(false);
        let (mut keepers, mut processes) = (JoinSet::new(), Vec::new());
        for launch in launches {
            let process = launch.start()?;
            let (sender, receiver) = watch::channel(process.child.id());
            processes.push(receiver);
            keepers.spawn(keep(launch, process, sender, stopped.clone()));
        }
        Ok(Self { stop, keepers, processes })
    }

    /// The ids of the processes, `executor-1` first; none for one that is to be started again.
    pub(crate) fn process_ids(&self) -> Vec<Option<u32>> {
        self.processes.iter().map(|id| *id.borrow()).collect()
    }

    /// Asks all to end, and kills those that have not after five seconds.
    pub(crate) async fn stop(mut self) {
        self.stop.send_replace(true);
        while self.keepers.join_next().await.is_some() {}
    }
}

/// The command line of an executor.
fn arguments(name: &str, driver: &str, spill: &Path, memory_bytes: u64) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["executor", "--name", name, "--driver", driver, "--listen", "127.0.0.1:0"]
        .into_iter()
        .chain(["--end-with-parent", "--spill-dir"])
        .map(OsString::from)
        .collect();
    arguments.push(spill.into());
    arguments.extend([OsString::from("--memory-limit"), OsString::from(memory_bytes.to_string())]);
    arguments
}

/// Keeps one executor running until it is told to stop; `id` tells its process.
async fn keep(launch: Launch, first: Process, id: watch::Sender<Option<u32>>, mut stop: watch::Receiver<bool>) {
    let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
    let mut running = Some(first);
    loop {
        if let Some(mut process) = running.take() {
            id.send_replace(process.child.id());
            let status = tokio::select! {
                status = process.child.wait() => status,
                () = becomes_true(&mut stop) => {
                    process.end(&launch).await;
                    id.send_replace(None);
                    return;
                }
            };
            id.send_replace(None);
            if process.started_at.elapsed() >= HEALTHY_AFTER {
                backoff.reset();
            }
            log_death(&launch.name, status);
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.pause()) => {}
            () = becomes_true(&mut stop) => return,
        }
        match launch.start() {
            Ok(process) => running = Some(process),
            Err(error) => tracing::warn!(error = error.render(), "an executor cannot be started again"),
        }
    }
}

fn log_death(name: &str, status: std::io::Result<ExitStatus>) {
    match status {
        Ok(status) => tracing::warn!(executor = name, %status, "an executor has ended; starting it again"),
        Err(error) => tracing::warn!(executor = name, %error, "an executor is gone; starting it again"),
    }
}

impl Launch {
    fn start(&self) -> Result<Process> {
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::piped())
            // What the driver writes to stdout is for those who started it.
            .stdout(Stdio::null())
            .kill_on_drop(true)
            // Ctrl-C in a terminal goes to whole groups; executors have to outlive the driver's last epoch.
            .process_group(0)
            .spawn()
            .map_err(|source| {
                let (name, program) = (&self.name, self.program.display());
                Error::Io { context: format!("cannot start {program} as {name}"), source }
            })?;
        let stdin = child.stdin.take();
        Ok(Process { child, started_at: Instant::now(), _stdin: stdin })
    }
}

impl Process {
    /// Asks it to end, and kills it if it does not.
    async fn end(&mut self, launch: &Launch) {
        self.terminate();
        let ended = tokio::time::timeout(launch.grace, self.child.wait()).await;
        if ended.is_err() {
            tracing::warn!(executor = launch.name, "an executor does not end, and is killed");
            if let Err(error) = self.child.kill().await {
                tracing::warn!(executor = launch.name, %error, "an executor cannot be killed");
            }
        }
    }

    fn terminate(&self) {
        // It has no id once it was waited for, so that no other process can be meant.
        let id = self.child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(Err(error)) = id.map(|id| kill_process(id, Signal::TERM)) {
            tracing::debug!(%error, "cannot send SIGTERM to an executor");
        }
    }
}

/// Completes when a flag is set, or when nobody is there any more to set it.
async fn becomes_true(flag: &mut watch::Receiver<bool>) {
    // Both mean that the executors are not wanted any more.
    let _ = flag.wait_for(|is_set| *is_set).await;
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    /// A process that ends when its stdin does, as executors do.
    fn shell(script: &str) -> Launch {
        Launch {
            name: "executor-1".to_owned(),
            program: PathBuf::from("/bin/sh"),
            arguments: vec!["-c".into(), script.into()],
            grace: DEADLINE,
        }
    }

    /// Waits until a process is there that is not `other`.
    async fn next(executors: &LocalExecutors, other: Option<u32>) -> u32 {
        let mut id = executors.processes[0].clone();
        let next = tokio::time::timeout(DEADLINE, id.wait_for(|id| id.is_some() && *id != other)).await;
        next.unwrap().unwrap().unwrap()
    }

    fn kill(id: u32) {
        kill_process(Pid::from_raw(i32::try_from(id).unwrap()).unwrap(), Signal::KILL).unwrap();
    }

    #[tokio::test]
    async fn an_executor_that_was_killed_is_started_again() {
        let executors = LocalExecutors::start(vec![shell("exec cat")]).unwrap();
        let first = next(&executors, None).await;
        kill(first);
        let second = next(&executors, Some(first)).await;
        assert_eq!(executors.process_ids(), [Some(second)]);
        executors.stop().await;
    }

    #[tokio::test]
    async fn an_executor_that_ends_at_once_is_started_again() {
        let executors = LocalExecutors::start(vec![shell("exit 3")]).unwrap();
        let first = next(&executors, None).await;
        next(&executors, Some(first)).await;
        executors.stop().await;
    }

    #[tokio::test]
    async fn stop_ends_all() {
        let executors = LocalExecutors::start(vec![shell("exec cat"), shell("exec cat")]).unwrap();
        let ids = executors.processes.clone();
        executors.stop().await;
        assert!(ids.iter().all(|id| id.borrow().is_none()));
    }

    #[tokio::test]
    async fn an_executor_that_does_not_end_is_killed() {
        let stubborn = Launch { grace: Duration::from_millis(50), ..shell("trap '' TERM; read line") };
        let executors = LocalExecutors::start(vec![stubborn]).unwrap();
        let id = executors.processes[0].clone();
        tokio::time::timeout(DEADLINE, executors.stop()).await.unwrap();
        assert_eq!(*id.borrow(), None);
    }

    #[tokio::test]
    async fn an_executor_sees_the_end_of_its_driver() {
        let mut process = shell("exec cat").start().unwrap();
        process._stdin = None;
        let status = tokio::time::timeout(DEADLINE, process.child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{status}");
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_named() {
        let missing = Launch { program: PathBuf::from("/no/such/program"), ..shell("") };
        let error = LocalExecutors::start(vec![missing]).unwrap_err();
        assert_eq!(error.to_string(), "cannot start /no/such/program as executor-1");
    }

    #[test]
    fn an_executor_is_told_its_driver_its_folder_and_its_memory() {
        let arguments = arguments("executor-2", "http://127.0.0.1:1", Path::new("/spill/executor-2"), 1_024);
        assert_eq!(
            arguments.join(OsStr::new(" ")),
            "executor --name executor-2 --driver http://127.0.0.1:1 \
             --listen 127.0.0.1:0 --end-with-parent --spill-dir /spill/executor-2 --memory-limit 1024"
        );
    }
}
