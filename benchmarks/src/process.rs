//! What Linux tells of a process under `/proc`.

use anyhow::Context;

/// What stands behind a name, such as `Threads`, in the status of a process.
///
/// # Errors
/// Fails if the process has ended.
pub(crate) fn status(pid: u32, name: &str) -> anyhow::Result<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.with_context(|| format!("the status of process {pid} has no {name}"))?.trim().to_owned())
}

/// Memory of a process in KiB: `VmRSS` is what it has, `VmHWM` the most that it has had.
///
/// # Errors
/// Fails if the process has ended.
pub(crate) fn kibibytes(pid: u32, name: &str) -> anyhow::Result<u64> {
    Ok(status(pid, name)?.trim_end_matches(" kB").parse()?)
}

/// How many files and sockets a process has open.
///
/// # Errors
/// Fails if the process has ended.
pub(crate) fn open_handles(pid: u32) -> anyhow::Result<usize> {
    Ok(std::fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}
