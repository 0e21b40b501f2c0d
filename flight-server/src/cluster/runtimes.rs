//! The threads of a process of a cluster: connections and control apart from the work on rows.

use std::sync::OnceLock;

use tokio::runtime::{Builder, Handle, Runtime};

use super::plane::Runtimes;
use crate::error::{Error, Result};

/// Threads that take and make connections, beat the heart and answer questions: none of that takes long.
const IO_THREADS: usize = 2;

/// The runtimes of this process, which are there until it ends.
///
/// # Errors
/// Fails if threads cannot be started.
pub(super) fn runtimes() -> Result<Runtimes> {
    static RUNTIMES: OnceLock<(Runtime, Runtime)> = OnceLock::new();
    let (io, cpu) = match RUNTIMES.get() {
        Some(started) => started,
        None => {
            let failed = |source| Error::Io { context: "cannot start threads".to_owned(), source };
            let io = Builder::new_multi_thread().worker_threads(IO_THREADS).thread_name("io").enable_all().build();
            let cpu = Builder::new_multi_thread().thread_name("plans").enable_all().build();
            let started = (io.map_err(failed)?, cpu.map_err(failed)?);
            // Of two that were started at once the first stays.
            RUNTIMES.get_or_init(|| started)
        }
    };
    Ok(Runtimes { io: Handle::clone(io.handle()), cpu: Handle::clone(cpu.handle()) })
}
