//! What sources noted about their input, kept with each query that reads it.

use std::sync::{Arc, Mutex, PoisonError};

use super::files::Files;
use super::journal::Journal;
use super::room::FullDisk;
use super::terms::taking_over;
use crate::error::Result;
use crate::source::InputIndex;

/// The notes of one stream for one query.
#[derive(Debug)]
pub(crate) struct DurableIndex {
    files: Arc<dyn Files>,
    state: Mutex<(Journal, Vec<String>)>,
}

impl DurableIndex {
    /// Opens the notes in `folder`, or makes them.
    pub(crate) fn open(files: &Arc<dyn Files>, folder: &str, id: &str) -> Result<Self> {
        let (journal, entries) = taking_over(files.as_ref(), || Journal::open::<String>(files, folder, id))?;
        let notes = entries.into_iter().map(|entry| entry.value).collect();
        Ok(Self { files: Arc::clone(files), state: Mutex::new((journal, notes)) })
    }

    fn try_push(&self, note: &str) -> Result<()> {
        let mut guard = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (journal, notes) = &mut *guard;
        journal.append(&note)?;
        journal.sync()?;
        notes.push(note.to_owned());
        Ok(())
    }
}

impl InputIndex for DurableIndex {
    fn notes(&self) -> Vec<String> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    /// Waits on its thread, which may block for the sync anyway, while the disk has no room.
    fn push(&self, note: &str) -> Result<()> {
        let mut full_disk = FullDisk::new("the input");
        loop {
            match self.try_push(note) {
                Err(error) if error.is_disk_full() => {
                    full_disk.say(&error);
                    std::thread::sleep(self.files.room_pause());
                }
                other => return other,
            }
        }
    }
}

/// The notes of one stream for several queries that read it together.
#[derive(Debug)]
pub(crate) struct SharedIndex(pub(crate) Vec<Arc<DurableIndex>>);

impl SharedIndex {
    /// Brings all up to the one that knows most.
    ///
    /// # Errors
    /// As the disk fails.
    pub(crate) fn level(&self) -> Result<()> {
        let notes = self.notes();
        for index in &self.0 {
            for note in notes.iter().skip(index.notes().len()) {
                index.push(note)?;
            }
        }
        Ok(())
    }
}

impl InputIndex for SharedIndex {
    fn notes(&self) -> Vec<String> {
        self.0.iter().map(|index| index.notes()).max_by_key(Vec::len).unwrap_or_default()
    }

    fn push(&self, note: &str) -> Result<()> {
        self.0.iter().try_for_each(|index| index.push(note))
    }
}
