//! The durable file layer: whole files that appear at once, and files that only grow.
//!
//! `object_store`'s local store never calls `fsync`, so it cannot be used for what must survive a power cut. Paths are
//! relative to the state directory and use `/`, so that tests can put a simulated disk in its place.

use std::fmt::Debug;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, IoSlice, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::crash::durable_step;
use super::room::ROOM_PAUSE;

/// What a disk writes whole or not at all.
pub(crate) const SECTOR_BYTES: usize = 512;

/// What an acknowledged write survives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Durability {
    /// The power going off: files and folders are synced before a write counts.
    #[default]
    PowerLoss,
    /// The death of the process, not that of the machine: nothing is synced.
    ProcessCrash,
}

impl Durability {
    /// The names users write.
    pub const NAMES: [(&'static str, Self); 2] =
        [("power_loss", Self::PowerLoss), ("process_crash", Self::ProcessCrash)];
}

/// A disk, as far as durable state needs one.
///
/// # Contract
/// - `create` is atomic: after a crash the file is there with all its bytes or not at all, and if it returned `true`
///   it is there.
/// - What was appended before a `sync` that returned is there after a crash; of what was appended later any first part
///   may be there, and whole sectors of it may be zeroes.
/// - What was removed may come back after a crash until something new is made in its folder; removals of one folder
///   last in their order.
pub trait Files: Debug + Send + Sync {
    /// Makes a folder and those above it.
    ///
    /// # Errors
    /// As the disk fails.
    fn create_folder(&self, path: &str) -> io::Result<()>;

    /// Writes a whole new file; false if there is one of that name already, which stays.
    ///
    /// # Errors
    /// As the disk fails; nothing is there under that name then.
    fn create(&self, path: &str, bytes: &[u8]) -> io::Result<bool>;

    /// The bytes of a file.
    ///
    /// # Errors
    /// Fails if it is not there.
    fn read(&self, path: &str) -> io::Result<Vec<u8>>;

    /// The names in a folder, in order; none if there is no such folder.
    ///
    /// # Errors
    /// As the disk fails.
    fn list(&self, folder: &str) -> io::Result<Vec<String>>;

    /// Removes a file; one that is not there is no error.
    ///
    /// # Errors
    /// As the disk fails.
    fn remove(&self, path: &str) -> io::Result<()>;

    /// Opens a file to append to, and makes it if need be.
    ///
    /// # Errors
    /// As the disk fails.
    fn append(&self, path: &str) -> io::Result<Box<dyn AppendFile>>;

    /// Where a path is, in the user's words.
    fn describe(&self, path: &str) -> String;

    /// How long ago a file was written last.
    ///
    /// # Errors
    /// There is none, or the place does not tell.
    fn age(&self, _path: &str) -> io::Result<Duration> {
        Err(ErrorKind::Unsupported.into())
    }

    /// The same disk with writes that survive something else; none where that cannot be chosen.
    fn surviving(&self, _durability: Durability) -> Option<Arc<dyn Files>> {
        None
    }

    /// Whether another process may be using the disk, to be fenced off by terms; a local one is locked.
    fn is_shared(&self) -> bool {
        false
    }

    /// How long to wait for room on a full disk before trying again.
    fn room_pause(&self) -> Duration {
        ROOM_PAUSE
    }
}

/// A file that only grows, or is cut back to where it was whole.
pub trait AppendFile: Debug + Send {
    /// Adds bytes at its end.
    ///
    /// # Errors
    /// As the disk fails; some of the bytes may be there then.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Adds bytes that lie in several places, one after the other.
    ///
    /// # Errors
    /// As the disk fails; some of the bytes may be there then.
    fn append_parts(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        self.append(&parts.concat())
    }

    /// Makes what was appended durable.
    ///
    /// # Errors
    /// As the disk fails; what was appended since the last sync must then be taken as lost.
    fn sync(&mut self) -> io::Result<()>;

    /// How many bytes there are, those that were not synced included.
    ///
    /// # Errors
    /// As the disk fails.
    fn length(&self) -> io::Result<u64>;

    /// Cuts the file back to `length` bytes.
    ///
    /// # Errors
    /// As the disk fails.
    fn truncate(&mut self, length: u64) -> io::Result<()>;
}

/// The local disk under one folder.
#[derive(Debug, Clone)]
pub struct LocalFiles {
    root: PathBuf,
    durability: Durability,
}

impl LocalFiles {
    /// The disk under `root`, which is made if need be.
    ///
    /// # Errors
    /// Fails if the folder cannot be made.
    pub fn open(root: impl Into<PathBuf>, durability: Durability) -> io::Result<Self> {
        let files = Self { root: root.into(), durability };
        files.create_folder("")?;
        Ok(files)
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    fn sync_file(&self, file: &File) -> io::Result<()> {
        if self.durability == Durability::PowerLoss {
            durable_step("file.sync");
            file.sync_data()?;
        }
        Ok(())
    }

    fn sync_folder_of(&self, path: &Path) -> io::Result<()> {
        if let (Durability::PowerLoss, Some(folder)) = (self.durability, path.parent()) {
            durable_step("folder.sync");
            // The parent of a bare name is the empty path.
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            File::open(folder)?.sync_all()?;
        }
        Ok(())
    }
}

impl Files for LocalFiles {
    fn create_folder(&self, path: &str) -> io::Result<()> {
        let path = self.path(path);
        if path.is_dir() {
            return Ok(());
        }
        durable_step("folder.create");
        fs::create_dir_all(&path)?;
        for folder in path.ancestors().take_while(|folder| folder.starts_with(&self.root)) {
            self.sync_folder_of(folder)?;
        }
        Ok(())
    }

    fn create(&self, path: &str, bytes: &[u8]) -> io::Result<bool> {
        let target = self.path(path);
        // Unique, so that two writers never share a temporary file.
        let temporary = target.with_extension(format!("{}.tmp", uuid::Uuid::new_v4().simple()));
        let written = (|| {
            durable_step("file.write");
            let mut file = OpenOptions::new().write(true).create_new(true).open(&temporary)?;
            file.write_all(bytes)?;
            self.sync_file(&file)?;
            durable_step("file.link");
            // A rename would replace a file that another writer has made meanwhile; a link does not.
            match fs::hard_link(&temporary, &target) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
                other => other.map(|()| true),
            }
        })();
        let removed = fs::remove_file(&temporary);
        let is_new = written?;
        removed?;
        self.sync_folder_of(&target)?;
        Ok(is_new)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.path(path))
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let entries = match fs::read_dir(self.path(folder)) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            other => other?,
        };
        let mut names = Vec::new();
        for entry in entries {
            names.push(entry?.file_name().to_string_lossy().into_owned());
        }
        names.sort();
        Ok(names)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        durable_step("file.remove");
        match fs::remove_file(self.path(path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    fn append(&self, path: &str) -> io::Result<Box<dyn AppendFile>> {
        let path = self.path(path);
        let is_new = !path.exists();
        durable_step("file.open");
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        if is_new {
            self.sync_folder_of(&path)?;
        }
        Ok(Box::new(LocalAppend { file, files: self.clone() }))
    }

    fn age(&self, path: &str) -> io::Result<Duration> {
        let written = fs::metadata(self.path(path))?.modified()?;
        // A clock that was set back makes no file younger than new.
        Ok(written.elapsed().unwrap_or_default())
    }

    fn describe(&self, path: &str) -> String {
        self.path(path).display().to_string()
    }

    fn surviving(&self, durability: Durability) -> Option<Arc<dyn Files>> {
        Some(Arc::new(Self { root: self.root.clone(), durability }))
    }
}

#[derive(Debug)]
struct LocalAppend {
    file: File,
    files: LocalFiles,
}

impl AppendFile for LocalAppend {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        durable_step("file.append");
        self.file.write_all(bytes)
    }

    fn append_parts(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        durable_step("file.append");
        let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
        let mut left = slices.as_mut_slice();
        // Empty ones in front would look like a disk that takes nothing.
        IoSlice::advance_slices(&mut left, 0);
        while !left.is_empty() {
            match self.file.write_vectored(left) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => IoSlice::advance_slices(&mut left, written),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.files.sync_file(&self.file)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn truncate(&mut self, length: u64) -> io::Result<()> {
        durable_step("file.truncate");
        self.file.set_len(length)?;
        self.files.sync_file(&self.file)
    }
}

/// Whether some sector of a file has nothing but zeroes from `start` on, as one does that was never written.
pub(crate) fn has_lost_sector(bytes: &[u8], start: usize) -> bool {
    let sectors = start / SECTOR_BYTES..bytes.len().div_ceil(SECTOR_BYTES);
    sectors.into_iter().any(|sector| {
        let end = bytes.len().min((sector + 1) * SECTOR_BYTES);
        let part = bytes.get(start.max(sector * SECTOR_BYTES)..end).unwrap_or_default();
        !part.is_empty() && part.iter().all(|byte| *byte == 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_created_once() {
        let folder = tempfile::tempdir().unwrap();
        let files = LocalFiles::open(folder.path(), Durability::PowerLoss).unwrap();
        files.create_folder("a/b").unwrap();
        assert!(files.create("a/b/c", b"first").unwrap());
        assert!(!files.create("a/b/c", b"second").unwrap());
        assert_eq!(files.read("a/b/c").unwrap(), b"first");
        assert_eq!(files.list("a/b").unwrap(), ["c"]);
        assert_eq!(files.list("nowhere").unwrap(), [""; 0]);
        files.remove("a/b/c").unwrap();
        files.remove("a/b/c").unwrap();
    }

    #[test]
    fn an_append_file_grows_and_is_cut_back() {
        let folder = tempfile::tempdir().unwrap();
        let files = LocalFiles::open(folder.path(), Durability::ProcessCrash).unwrap();
        let mut file = files.append("log").unwrap();
        file.append(b"one").unwrap();
        file.append(b"two").unwrap();
        file.truncate(3).unwrap();
        drop(file);
        files.append("log").unwrap().append(b"!").unwrap();
        assert_eq!(files.read("log").unwrap(), b"one!");
    }
}
