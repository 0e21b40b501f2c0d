//! The steps on the disk that the ledger is made of.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::Path;

use millstream_engine::{Error, Result};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::when_there_is_room;
use super::failed;

/// Makes a folder's entries safe.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    sync_entries(folder).map_err(|e| failed(folder, e))
}

fn sync_entries(folder: &Path) -> io::Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all())
}

/// Makes `folder` and those above it that are missing, and makes their entries safe.
///
/// The entries of the folder and of the one above it are made safe even if they are there: a process that made them
/// may have been killed before it came to that.
pub(super) fn make_folder(folder: &Path) -> Result<()> {
    let folder = std::path::absolute(folder).map_err(|e| failed(folder, e))?;
    let made = folder.ancestors().take_while(|folder| !folder.exists()).count();
    when_there_is_room(|| fs::create_dir_all(&folder).map_err(|e| failed(&folder, e)))?;
    for (above, holder) in folder.ancestors().skip(1).take(made.max(2)).enumerate() {
        match sync_entries(holder) {
            // A folder that may not be opened is not ours, and neither is its entry that was there already.
            Err(error) if above >= made && error.kind() == ErrorKind::PermissionDenied => {}
            synced => synced.map_err(|e| failed(holder, e))?,
        }
    }
    Ok(())
}

/// Writes a file anew and makes its bytes safe.
pub(super) fn write_synced(path: &Path, content: &impl Serialize) -> Result<()> {
    let text = serde_json::to_vec(content).map_err(|e| Error::internal(format!("a manifest has no JSON: {e}")))?;
    let write = || {
        let mut file = File::create(path)?;
        file.write_all(&text)?;
        file.sync_all()
    };
    when_there_is_room(|| write().map_err(|e| failed(path, e)))
}

/// Reads a file; `None` if there is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    let text = match fs::read(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|e| Error::external(format!("reading {}", path.display()), e))?,
    };
    let content = serde_json::from_slice(&text).map_err(|error| {
        let message = format!("{} is not a manifest of this program: {error}", path.display());
        Error::state(message, "name another path for the sink")
    });
    content.map(Some)
}

/// Removes a file, if it is there.
pub(super) fn remove(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed(path, error)),
        _ => Ok(()),
    }
}

/// The names in a folder, in no order.
pub(super) fn names(folder: &Path) -> Result<Vec<String>> {
    let list = || -> io::Result<Vec<String>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    list().map_err(|e| Error::external(format!("listing folder {}", folder.display()), e))
}

/// The length of a file in bytes; `None` if there is none.
pub(super) fn size(path: &Path) -> Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::external(format!("looking at {}", path.display()), error)),
    }
}
