//! Which cores a process may run on.

use std::process::{Command, Stdio};

use anyhow::ensure;

use crate::process::status;

/// Cores as `taskset` writes them: `0-3,6`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cores(String);

impl Cores {
    /// Those that the process may run on.
    pub(super) fn of(pid: u32) -> anyhow::Result<Self> {
        Ok(Self(status(pid, "Cpus_allowed_list")?))
    }

    /// The last of them alone.
    pub(super) fn last(&self) -> Self {
        Self(self.0.rsplit([',', '-']).next().unwrap_or(&self.0).to_owned())
    }

    /// Confines all threads of a process to these.
    pub(super) fn confine(&self, pid: u32) -> anyhow::Result<()> {
        let mut command = taskset();
        let status = command.args(["-a", "-c", "-p", self.0.as_str()]).arg(pid.to_string()).status()?;
        ensure!(status.success(), "taskset cannot confine process {pid} to {self:?}: {status}");
        Ok(())
    }

    /// A command that is confined to these from its beginning.
    pub(super) fn command(&self) -> Command {
        let mut command = taskset();
        command.args(["-c", self.0.as_str()]);
        command
    }
}

/// Whether processes can be confined here.
pub(super) fn can_confine() -> bool {
    taskset().arg("--version").status().is_ok_and(|status| status.success())
}

fn taskset() -> Command {
    let mut command = Command::new("taskset");
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_core_stands_at_the_end_of_the_list() {
        for (list, last) in [("0", "0"), ("0-3", "3"), ("0-1,6", "6"), ("0,2-11", "11")] {
            assert_eq!(Cores(list.to_owned()).last(), Cores(last.to_owned()));
        }
    }
}
