//! Where the plane runs: connections apart from work.
//!
//! A peer is taken for lost if it does not answer for a few seconds. Work can keep every thread of a runtime busy for
//! longer, so what answers has a runtime of its own.

use datafusion::common::runtime::SpawnedTask;
use tokio::runtime::Handle;

/// The two runtimes of a process, which whoever starts the process owns; both need their timers, `io` its I/O too.
#[derive(Debug, Clone)]
pub(crate) struct Runtimes {
    /// Takes and makes connections, and is never busy for long.
    pub(crate) io: Handle,
    /// Runs plans and the work of executors.
    pub(crate) cpu: Handle,
}

/// Runs `task` on `runtime`, from wherever this is called, until the returned value is dropped.
pub(crate) fn spawn_on<T: Send + 'static>(
    runtime: &Handle,
    task: impl Future<Output = T> + Send + 'static,
) -> SpawnedTask<T> {
    let _entered = runtime.enter();
    SpawnedTask::spawn(task)
}
