//! A disk in memory that loses what a real one may lose: what the proofs of durability are made with.
//!
//! It does no more than [`Files`] promises. After a power cut a file has what was synced and any first part of what
//! was appended since, in which whole sectors may be zeroes; the operation that was cut off may have happened or not;
//! removals of a folder that nothing was made in since may be undone, the last ones first.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, ErrorKind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::files::{AppendFile, Files, SECTOR_BYTES};

/// A simulated disk; clones are the same disk.
#[derive(Debug, Clone)]
pub struct SimFiles(Arc<Mutex<Disk>>);

#[derive(Debug)]
struct Disk {
    files: BTreeMap<String, SimFile>,
    /// What was removed and may come back, in order.
    removed: Vec<(String, SimFile)>,
    /// Operations that change something, so far.
    operations: u64,
    /// The operation at which the power goes off.
    cut_at: Option<u64>,
    /// The operation from which there is no room, and how many attempts fail before there is some again.
    full_at: Option<(u64, u64)>,
    is_off: bool,
    random: Random,
}

#[derive(Debug, Clone, Default)]
struct SimFile {
    bytes: Vec<u8>,
    /// How many of the bytes a power cut leaves.
    durable: usize,
    /// How many of them were there when the machine or the process started.
    first: usize,
}

/// What becomes of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Done,
    /// The power goes off meanwhile, just after it or just before.
    CutOff {
        is_done: bool,
    },
    NoRoom,
}

impl SimFiles {
    /// An empty disk; the seed decides what becomes of operations that are cut off.
    pub fn new(seed: u64) -> Self {
        Self::of(BTreeMap::new(), seed)
    }

    fn of(files: BTreeMap<String, SimFile>, seed: u64) -> Self {
        let random = Random(seed);
        let removed = Vec::new();
        let disk = Disk { files, removed, operations: 0, cut_at: None, full_at: None, is_off: false, random };
        Self(Arc::new(Mutex::new(disk)))
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk, if there is power.
    fn running(&self) -> io::Result<MutexGuard<'_, Disk>> {
        let disk = self.disk();
        if disk.is_off { Err(power_cut()) } else { Ok(disk) }
    }

    /// Has the power go off in the `operation`-th change from the disk's beginning, counted from 1.
    pub fn cut_power_at(&self, operation: u64) {
        self.disk().cut_at = Some(operation);
    }

    /// Has the disk be full from the `operation`-th change on, until `attempts` of them have failed.
    pub fn fill_at(&self, operation: u64, attempts: u64) {
        self.disk().full_at = Some((operation, attempts));
    }

    /// How many changes there were.
    pub fn operations(&self) -> u64 {
        self.disk().operations
    }

    /// Whether the power is on.
    pub fn has_power(&self) -> bool {
        !self.disk().is_off
    }

    /// Whether the disk was full at least once and is so no more.
    pub fn was_full(&self) -> bool {
        matches!(self.disk().full_at, Some((_, 0)))
    }

    /// What is left after a power cut; this disk is off from now on.
    #[must_use]
    pub fn crash(&self, seed: u64) -> Self {
        let mut disk = self.disk();
        disk.is_off = true;
        let mut random = Random(seed);
        let mut files = disk.files.clone();
        restore_removed(&mut files, &disk.removed, &mut random);
        for file in files.values_mut() {
            file.lose_power(&mut random);
        }
        Self::of(files, random.next())
    }

    /// What the next process finds when this one dies and the machine does not; this disk is off from now on.
    ///
    /// Nothing is lost, and nothing becomes durable by it.
    #[must_use]
    pub fn kill(&self, seed: u64) -> Self {
        let mut disk = self.disk();
        disk.is_off = true;
        let mut files = disk.files.clone();
        files.values_mut().for_each(|file| file.first = file.durable);
        let next = Self::of(files, seed);
        next.disk().removed.clone_from(&disk.removed);
        next
    }

    /// What was made durable by syncs of this disk in files whose name ends in `suffix`.
    pub fn synced(&self, suffix: &str) -> Vec<u8> {
        let disk = self.disk();
        let files = disk.files.iter().filter(|(path, _)| path.ends_with(suffix));
        files.flat_map(|(_, file)| file.bytes.get(file.first..file.durable).unwrap_or_default()).copied().collect()
    }
}

impl SimFile {
    fn whole(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), durable: bytes.len(), first: 0 }
    }

    /// Leaves what was synced and a part of the rest.
    fn lose_power(&mut self, random: &mut Random) {
        let kept = self.durable + random.up_to(self.bytes.len() - self.durable);
        self.bytes.truncate(kept);
        if kept > self.durable && random.up_to(2) == 0 {
            let sectors = self.durable / SECTOR_BYTES..=(kept - 1) / SECTOR_BYTES;
            let first = sectors.start() + random.up_to(sectors.end() - sectors.start());
            let last = first + random.up_to(sectors.end() - first);
            let (start, end) = (self.durable.max(first * SECTOR_BYTES), kept.min((last + 1) * SECTOR_BYTES));
            self.bytes.get_mut(start..end).unwrap_or_default().fill(0);
        }
        (self.durable, self.first) = (kept, kept);
    }
}

/// Brings back the last removals of each folder.
fn restore_removed(files: &mut BTreeMap<String, SimFile>, removed: &[(String, SimFile)], random: &mut Random) {
    let folders: BTreeSet<&str> = removed.iter().map(|(path, _)| folder_of(path)).collect();
    for folder in folders {
        let of_folder: Vec<_> = removed.iter().filter(|(path, _)| folder_of(path) == folder).collect();
        for (path, file) in of_folder.iter().skip(random.up_to(of_folder.len())) {
            files.insert(path.clone(), file.clone());
        }
    }
}

impl Disk {
    /// Counts an operation; what becomes of it.
    fn begin(&mut self, needs_room: bool) -> Fate {
        self.operations += 1;
        if self.cut_at.is_some_and(|at| self.operations >= at) {
            self.is_off = true;
            return Fate::CutOff { is_done: self.random.up_to(1) == 1 };
        }
        match &mut self.full_at {
            Some((at, attempts)) if needs_room && *attempts > 0 && self.operations >= *at => {
                *attempts -= 1;
                Fate::NoRoom
            }
            _ => Fate::Done,
        }
    }

    fn file(&mut self, path: &str) -> io::Result<&mut SimFile> {
        self.files.get_mut(path).ok_or_else(|| io::Error::new(ErrorKind::NotFound, format!("no file {path}")))
    }

    /// Puts a new file into a folder, which is synced by that.
    fn make(&mut self, path: &str, file: SimFile) {
        self.removed.retain(|(removed, _)| folder_of(removed) != folder_of(path));
        self.files.insert(path.to_owned(), file);
    }
}

impl Fate {
    const fn is_done(self) -> bool {
        matches!(self, Self::Done | Self::CutOff { is_done: true })
    }

    fn answer<T>(self, value: T) -> io::Result<T> {
        match self {
            Self::Done => Ok(value),
            Self::CutOff { .. } => Err(power_cut()),
            Self::NoRoom => Err(io::Error::new(ErrorKind::StorageFull, "no space left on the simulated disk")),
        }
    }
}

fn power_cut() -> io::Error {
    io::Error::other("the power is off")
}

fn folder_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(folder, _)| folder)
}

impl Files for SimFiles {
    fn create_folder(&self, _: &str) -> io::Result<()> {
        self.running()?.begin(true).answer(())
    }

    fn create(&self, path: &str, bytes: &[u8]) -> io::Result<bool> {
        let mut disk = self.running()?;
        let fate = disk.begin(true);
        let is_new = !disk.files.contains_key(path);
        if is_new && fate.is_done() {
            disk.make(path, SimFile::whole(bytes));
        } else if let Fate::CutOff { .. } = fate {
            // Where the real disk writes before the file gets its name.
            disk.files.insert(format!("{path}.tmp"), SimFile { bytes: bytes.to_vec(), ..SimFile::default() });
        }
        fate.answer(is_new)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        Ok(self.running()?.file(path)?.bytes.clone())
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let disk = self.running()?;
        let prefix = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let below = disk.files.keys().filter_map(|path| path.strip_prefix(&prefix));
        let names: BTreeSet<&str> = below.filter_map(|rest| rest.split('/').next()).collect();
        Ok(names.into_iter().map(str::to_owned).collect())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let mut disk = self.running()?;
        let fate = disk.begin(false);
        if fate.is_done()
            && let Some(file) = disk.files.remove(path)
        {
            disk.removed.push((path.to_owned(), file));
        }
        fate.answer(())
    }

    fn append(&self, path: &str) -> io::Result<Box<dyn AppendFile>> {
        let mut disk = self.running()?;
        let is_new = !disk.files.contains_key(path);
        let fate = disk.begin(is_new);
        if is_new && fate.is_done() {
            disk.make(path, SimFile::default());
        }
        fate.answer(Box::new(SimAppend { files: self.clone(), path: path.to_owned() }))
    }

    fn describe(&self, path: &str) -> String {
        format!("simulated:{path}")
    }

    fn room_pause(&self) -> Duration {
        Duration::from_millis(1)
    }
}

#[derive(Debug)]
struct SimAppend {
    files: SimFiles,
    path: String,
}

impl AppendFile for SimAppend {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.files.running()?;
        let fate = disk.begin(true);
        let count = if fate == Fate::Done { bytes.len() } else { disk.random.up_to(bytes.len()) };
        disk.file(&self.path)?.bytes.extend_from_slice(bytes.get(..count).unwrap_or_default());
        fate.answer(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.files.running()?;
        let fate = disk.begin(false);
        let file = disk.file(&self.path)?;
        if fate.is_done() {
            file.durable = file.bytes.len();
        }
        fate.answer(())
    }

    fn length(&self) -> io::Result<u64> {
        let mut disk = self.files.running()?;
        Ok(disk.file(&self.path)?.bytes.len() as u64)
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let mut disk = self.files.running()?;
        let fate = disk.begin(false);
        let file = disk.file(&self.path)?;
        if fate.is_done() {
            file.bytes.truncate(usize::try_from(length).unwrap_or(usize::MAX));
            file.durable = file.bytes.len();
            file.first = file.first.min(file.durable);
        }
        fate.answer(())
    }
}

/// Numbers for a seed: SplitMix64 by Sebastiano Vigna, which needs no more state than one number.
#[derive(Debug, Clone)]
struct Random(u64);

impl Random {
    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number from 0 to `most`.
    fn up_to(&mut self, most: usize) -> usize {
        let count = (most as u64).saturating_add(1);
        usize::try_from(self.next() % count).unwrap_or(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_synced_survives_and_the_rest_in_part() {
        let mut lengths = BTreeSet::new();
        for seed in 0..50 {
            let files = SimFiles::new(seed);
            let mut file = files.append("log").unwrap();
            file.append(b"synced").unwrap();
            file.sync().unwrap();
            file.append(b"not synced").unwrap();
            let left = files.crash(seed).read("log").unwrap();
            assert!(left.starts_with(b"synced"), "seed {seed}: {left:?}");
            lengths.insert(left.len());
            assert!(files.read("log").is_err());
        }
        assert_eq!((lengths.first(), lengths.last()), (Some(&6), Some(&16)));
    }

    #[test]
    fn a_removal_may_be_undone_until_its_folder_is_synced() {
        let mut left = BTreeSet::new();
        for seed in 0..20 {
            let files = SimFiles::new(seed);
            for path in ["a/1", "a/2", "b/1"] {
                files.create(path, b"x").unwrap();
                files.remove(path).unwrap();
            }
            left.insert(files.crash(seed).list("a").unwrap());
            files.disk().is_off = false;
            files.create("a/3", b"x").unwrap();
            assert_eq!(files.crash(seed).list("a").unwrap(), ["3"]);
        }
        assert_eq!(left.into_iter().collect::<Vec<_>>(), [vec![], vec!["2".to_owned()]]);
    }

    #[test]
    fn a_dead_process_leaves_what_a_power_cut_takes() {
        let files = SimFiles::new(1);
        files.append("log").unwrap().append(b"not synced").unwrap();
        let files = files.kill(2);
        assert_eq!(files.read("log").unwrap(), b"not synced");
        assert!((0..20).any(|seed| files.crash(seed).read("log").unwrap().is_empty()));
    }

    #[test]
    fn a_full_disk_has_room_again() {
        let files = SimFiles::new(1);
        files.fill_at(2, 2);
        let mut file = files.append("log").unwrap();
        let kinds: Vec<_> = (0..3).map(|_| file.append(b"x").map_err(|error| error.kind())).collect();
        assert_eq!(kinds, [Err(ErrorKind::StorageFull), Err(ErrorKind::StorageFull), Ok(())]);
        assert!(files.was_full());
    }
}
