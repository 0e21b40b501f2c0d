//! The limit on the memory that state takes, shared by queries.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::state::spill::SpillFiles;

/// What is assumed of a machine that does not say how much memory it has.
const UNKNOWN_MACHINE_BYTES: usize = 4 << 30;

/// How much memory the state of all queries that share this may take together.
///
/// A query that finds the limit exceeded writes state of its own to disk, the oldest first, until four fifths of the
/// limit are enough. The limit is on what is kept between micro-batches; what evaluating a window needs besides is
/// limited by the memory pool of plans.
#[derive(Debug)]
pub struct StateMemory {
    limit: usize,
    used: AtomicUsize,
    files: SpillFiles,
}

impl StateMemory {
    /// A limit in bytes; what does not fit goes to files without names in `folder`.
    pub fn new(limit: usize, folder: impl Into<PathBuf>) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), files: SpillFiles::new(folder.into()) })
    }

    /// Half of the machine's memory, then the folder for temporary files.
    pub fn of_machine() -> Arc<Self> {
        Self::new(machine_bytes() / 2, std::env::temp_dir())
    }

    /// The disk that state takes for want of memory.
    pub fn disk_bytes(&self) -> u64 {
        self.files.bytes()
    }

    pub(crate) const fn files(&self) -> &SpillFiles {
        &self.files
    }
}

/// The memory of this machine, or of the control group that the process runs in.
pub fn machine_bytes() -> usize {
    let group = std::fs::read_to_string("/sys/fs/cgroup/memory.max").ok();
    let group = group.and_then(|text| text.trim().parse().ok());
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| total_of(&text));
    group.into_iter().chain(machine).min().unwrap_or(UNKNOWN_MACHINE_BYTES)
}

/// The bytes of `MemTotal:  24588132 kB`.
fn total_of(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<usize>().ok()?.checked_mul(1024)
}

/// What one state takes of the memory; given back when it is dropped.
#[derive(Debug)]
pub(crate) struct MemoryShare {
    memory: Arc<StateMemory>,
    bytes: usize,
}

impl MemoryShare {
    pub(crate) const fn new(memory: Arc<StateMemory>) -> Self {
        Self { memory, bytes: 0 }
    }

    pub(crate) const fn memory(&self) -> &Arc<StateMemory> {
        &self.memory
    }

    /// Says how much the state takes now; gives how much of that has to go.
    pub(crate) fn set(&mut self, bytes: usize) -> usize {
        let used = &self.memory.used;
        used.fetch_add(bytes, Ordering::Relaxed);
        let before = used.fetch_sub(self.bytes, Ordering::Relaxed);
        let used = before.saturating_sub(self.bytes);
        self.bytes = bytes;
        let limit = self.memory.limit;
        if used <= limit { 0 } else { bytes.min(used - limit / 5 * 4) }
    }
}

impl Drop for MemoryShare {
    fn drop(&mut self) {
        self.memory.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_exceeds_the_limit_gives_up_its_own_share() {
        let memory = StateMemory::new(100, "unused");
        let (mut first, mut second) = (MemoryShare::new(Arc::clone(&memory)), MemoryShare::new(Arc::clone(&memory)));
        assert_eq!(first.set(60), 0);
        assert_eq!(second.set(40), 0);
        assert_eq!(second.set(50), 30, "80 are left");
        assert_eq!(second.set(20), 0);
        assert_eq!(first.set(90), 30);
        assert_eq!(second.set(1000), 1000, "never more than its own");
        drop(second);
        assert_eq!(first.set(90), 0);
    }

    #[test]
    fn the_machine_says_how_much_it_has() {
        assert_eq!(total_of("MemTotal:       24588132 kB\nMemFree: 1 kB\n"), Some(24_588_132 * 1024));
        assert_eq!(total_of("nothing"), None);
        assert!(machine_bytes() > 1 << 20);
    }
}
