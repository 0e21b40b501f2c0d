//! What a process takes of its machine while it runs.

use anyhow::Context;

use super::growth::Growth;
use crate::process::{kibibytes, open_handles, status};

/// Something of a machine that a process takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Resource {
    pub(super) name: &'static str,
    /// The share by which a process may take more of it in the end and still be called flat.
    pub(super) tolerance: f64,
    /// How much of it the process with this id takes now.
    read: fn(u32) -> anyhow::Result<f64>,
}

/// All that is looked at.
pub(super) const RESOURCES: [Resource; 3] = [
    Resource { name: "memory MiB", tolerance: 0.10, read: |pid| Ok(kibibytes(pid, "VmRSS")? as f64 / 1024.0) },
    Resource { name: "handles", tolerance: 0.05, read: |pid| Ok(open_handles(pid)? as f64) },
    // A pool keeps one thread more after a burst, and there are nine at the least.
    Resource { name: "threads", tolerance: 0.12, read: |pid| Ok(status(pid, "Threads")?.parse()?) },
];

/// A process, and what it took each time that it was looked at.
#[derive(Debug)]
pub(super) struct Usage {
    pub(super) title: String,
    pid: u32,
    /// Of each of [`RESOURCES`], in the order in which it was measured.
    values: [Vec<f64>; RESOURCES.len()],
}

impl Usage {
    /// That of a process which nobody has looked at.
    pub(super) fn new(title: String, pid: u32) -> Self {
        Self { title, pid, values: Default::default() }
    }

    /// Looks at the process.
    ///
    /// # Errors
    /// Fails if it has ended.
    pub(super) fn sample(&mut self) -> anyhow::Result<()> {
        for (resource, values) in RESOURCES.iter().zip(&mut self.values) {
            let value = (resource.read)(self.pid);
            values.push(value.with_context(|| format!("cannot look at {}, process {}", self.title, self.pid))?);
        }
        Ok(())
    }

    /// What it took last of each of [`RESOURCES`], in whole numbers.
    pub(super) fn last(&self) -> String {
        let last = self.values.iter().filter_map(|values| values.last());
        last.map(|value| format!("{value:.0}")).collect::<Vec<_>>().join(" / ")
    }

    /// By how much more it took of each of [`RESOURCES`] in the end.
    ///
    /// # Errors
    /// Fails if it was looked at less than five times.
    pub(super) fn growths(&self) -> anyhow::Result<Vec<(Resource, Growth)>> {
        let mut growths = Vec::new();
        for (resource, values) in RESOURCES.into_iter().zip(&self.values) {
            growths.push((resource, Growth::of(values)?));
        }
        Ok(growths)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn a_process_can_look_at_itself() {
        let mut usage = Usage::new("this one".to_owned(), std::process::id());
        (0..5).for_each(|_| usage.sample().unwrap());
        let growths = usage.growths().unwrap();
        assert!(growths.iter().all(|(_, growth)| growth.from > 0.0 && growth.to > 0.0), "{growths:?}");
        assert_eq!(usage.last().split(" / ").count(), RESOURCES.len());
    }
}
