//! Which files a path means, and in which order.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use millstream_engine::{Error, Result};

use crate::format::Format;

/// In which order files are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileOrder {
    /// By path.
    Name,
    /// Oldest first, then by path.
    Modified,
}

/// A path as the user gave it: a file, a folder, or a glob.
#[derive(Debug, Clone)]
pub(super) struct FileSet {
    /// The path.
    pub(super) path: PathBuf,
    /// The format, which chooses among the files of a folder.
    pub(super) format: Format,
    /// The order.
    pub(super) order: FileOrder,
}

impl FileSet {
    /// The files that are there now, in order, with absolute paths.
    ///
    /// # Errors
    /// Fails if a folder cannot be read; a path that is not there is an empty list.
    pub(super) fn list(&self) -> Result<Vec<PathBuf>> {
        let mut files = if self.path.is_file() {
            vec![self.path.clone()]
        } else if self.path.is_dir() {
            let mut files = list_folder(&self.path)?;
            files.retain(|file| format_of(file) == Some(self.format));
            files
        } else {
            list_glob(&self.path)?
        };
        files.sort();
        if self.order == FileOrder::Modified {
            let mut aged = Vec::with_capacity(files.len());
            for file in files {
                aged.push((modified(&file)?, file));
            }
            aged.sort();
            files = aged.into_iter().map(|(_, file)| file).collect();
        }
        files.iter().map(|file| absolute(file)).collect()
    }

    /// The error for a path that means no file.
    pub(super) fn nothing_found(&self) -> Error {
        let path = self.path.display().to_string();
        let message = if self.path.is_dir() {
            format!("folder {path:?} holds no {} file", self.format.name())
        } else {
            format!("path {path:?} matches no file")
        };
        let folder = std::env::current_dir().map_or_else(|_| ".".to_owned(), |folder| folder.display().to_string());
        Error::query(
            message,
            format!("correct path (it is taken from {folder}), or set watch_interval to wait for files"),
        )
    }
}

/// The format that the path's own name tells, or that all readable files of a folder share.
pub(super) fn guess_format(path: &Path) -> Option<Format> {
    if !path.is_dir() {
        return format_of(path);
    }
    let mut formats = list_folder(path).ok()?.into_iter().filter_map(|file| format_of(&file));
    let first = formats.next()?;
    formats.all(|format| format == first).then_some(first)
}

fn format_of(path: &Path) -> Option<Format> {
    Format::of_name(path.file_name()?.to_str()?)
}

fn list_folder(folder: &Path) -> Result<Vec<PathBuf>> {
    let fail = |error| Error::external(format!("listing folder {}", folder.display()), error);
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail)? {
        let path = entry.map_err(fail)?.path();
        if is_ready(&path) {
            files.push(path);
        }
    }
    Ok(files)
}

fn list_glob(pattern: &Path) -> Result<Vec<PathBuf>> {
    let text = pattern.to_string_lossy();
    let paths = glob::glob(&text)
        .map_err(|error| Error::query(format!("path {text:?} is not a pattern: {error}"), "use *, ? and [a-z]"))?;
    let mut files = Vec::new();
    for path in paths {
        let path = path.map_err(|error| Error::external(format!("listing {text}"), error))?;
        if is_ready(&path) {
            files.push(path);
        }
    }
    Ok(files)
}

/// Whether a path is a file that its writer has finished, by its name.
fn is_ready(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    !name.starts_with(['.', '_']) && !name.ends_with(".tmp") && path.is_file()
}

/// Refuses a file that a `files` sink has put together of others, which a reader that watches has read already.
///
/// # Errors
/// Names the file.
pub(super) fn refuse_compacted(file: &Path) -> Result<()> {
    if is_compacted(file) { Err(read_before(file)) } else { Ok(()) }
}

/// Refuses a file that a `files` sink has put together of others, if some of its epochs are in files of `known`.
///
/// Others are taken: a run that goes on finds files that were put together before any run came to them.
///
/// # Errors
/// Names the file.
pub(super) fn refuse_repeated(file: &Path, known: &HashSet<PathBuf>) -> Result<()> {
    let Some((first, last)) = epochs(file).filter(|_| is_compacted(file)) else { return Ok(()) };
    let is_part = |other: &PathBuf| {
        other.parent() == file.parent() && epochs(other).is_some_and(|(from, to)| from <= last && first <= to)
    };
    if known.iter().any(is_part) { Err(read_before(file)) } else { Ok(()) }
}

fn is_compacted(file: &Path) -> bool {
    epochs(file).is_some_and(|(first, last)| {
        first < last && file.with_file_name("_manifest").join(format!("{first:010}-{last:010}.json")).is_file()
    })
}

/// The first and the last epoch of a file of a `files` sink, by its name: `part-0000000003-0000000012.csv`.
fn epochs(file: &Path) -> Option<(u64, u64)> {
    let epochs = file.file_stem()?.to_str()?.strip_prefix("part-")?;
    let (first, last) = epochs.split_once('-').unwrap_or((epochs, epochs));
    Some((first.parse().ok()?, last.parse().ok()?))
}

fn read_before(file: &Path) -> Error {
    let message = format!("file {} holds the rows of files that may have been read before", file.display());
    let hint = "leave watch_interval out and read the folder in one run, or leave compact out of the options of the \
                sink that writes it";
    Error::query(message, hint)
}

/// The same file under a path that does not depend on the working directory; links in it are kept.
fn absolute(file: &Path) -> Result<PathBuf> {
    std::path::absolute(file).map_err(|error| Error::external(format!("finding {}", file.display()), error))
}

fn modified(file: &Path) -> Result<SystemTime> {
    let time = fs::metadata(file).and_then(|metadata| metadata.modified());
    time.map_err(|error| Error::external(format!("asking for the age of {}", file.display()), error))
}
