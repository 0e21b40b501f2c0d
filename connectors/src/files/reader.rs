//! The one partition of a file set: files in order, read on a thread that may block.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::common::runtime::SpawnedTask;
use millstream_engine::source::{Offset, PartitionReader, Split};
use millstream_engine::{Error, Result};
use tokio::time::Instant;

use super::Rows;
use super::input::FileInput;
use super::list::FileSet;

/// Reads a file set from front to back.
///
/// The files move to a blocking thread for each split and come back with it. The task that has them is kept here, so
/// that a call of `next` that is dropped finds its result at the next call.
#[derive(Debug)]
pub(super) struct FilesReader {
    turn: Turn,
    watch_interval: Option<Duration>,
    look_again: Option<Instant>,
}

#[derive(Debug)]
enum Turn {
    Idle(Box<Files>),
    Reading(SpawnedTask<(Box<Files>, Result<Option<Split>>)>),
    /// After an error, and for the moment of a change.
    Over,
}

impl FilesReader {
    /// Lists the files.
    ///
    /// # Errors
    /// Fails if there are none and none are waited for.
    pub(super) async fn open(set: FileSet, rows: Rows, watch_interval: Option<Duration>) -> Result<Self> {
        let is_watching = watch_interval.is_some();
        let files = SpawnedTask::spawn_blocking(move || {
            let mut files = Files::new(set, rows);
            files.look()?;
            if files.waiting.is_empty() && !is_watching { Err(files.set.nothing_found()) } else { Ok(files) }
        });
        let files = files.join().await.map_err(|error| Error::external("listing files", error))??;
        let look_again = watch_interval.map(|interval| Instant::now() + interval);
        Ok(Self { turn: Turn::Idle(Box::new(files)), watch_interval, look_again })
    }

    /// The next split of the files known so far.
    async fn read(&mut self) -> Result<Option<Split>> {
        if let Turn::Idle(_) = &self.turn
            && let Turn::Idle(mut files) = std::mem::replace(&mut self.turn, Turn::Over)
        {
            self.turn = Turn::Reading(SpawnedTask::spawn_blocking(move || {
                let split = files.next();
                (files, split)
            }));
        }
        let Turn::Reading(task) = &mut self.turn else { return Ok(None) };
        let done = task.await;
        self.turn = Turn::Over;
        let (files, split) = done.map_err(|error| Error::external("reading files", error))?;
        if split.is_ok() {
            self.turn = Turn::Idle(files);
        }
        split
    }

    /// Waits until it is time and looks for new files.
    async fn look(&mut self, interval: Duration) -> Result<()> {
        let time = *self.look_again.get_or_insert_with(|| Instant::now() + interval);
        tokio::time::sleep_until(time).await;
        self.look_again = None;
        if let Turn::Idle(files) = &mut self.turn {
            files.has_looked = false;
        }
        Ok(())
    }
}

#[async_trait]
impl PartitionReader for FilesReader {
    async fn next(&mut self, _: Option<Offset>) -> Result<Option<Split>> {
        loop {
            if let Some(split) = self.read().await? {
                return Ok(Some(split));
            }
            match (&self.turn, self.watch_interval) {
                (Turn::Idle(_), Some(interval)) => self.look(interval).await?,
                _ => return Ok(None),
            }
        }
    }
}

/// The files, and how far they have been read.
#[derive(Debug)]
struct Files {
    set: FileSet,
    rows: Rows,
    /// Every file ever listed.
    known: HashSet<PathBuf>,
    waiting: VecDeque<PathBuf>,
    current: Option<FileInput>,
    offset: Offset,
    /// False when new files may have come since the last look.
    has_looked: bool,
}

impl Files {
    fn new(set: FileSet, rows: Rows) -> Self {
        let (known, waiting) = (HashSet::new(), VecDeque::new());
        Self { set, rows, known, waiting, current: None, offset: Offset(0), has_looked: true }
    }

    /// Queues the files that were not there before.
    fn look(&mut self) -> Result<()> {
        for file in self.set.list()? {
            if self.known.insert(file.clone()) {
                tracing::debug!(file = %file.display(), "new file");
                self.waiting.push_back(file);
            }
        }
        self.has_looked = true;
        Ok(())
    }

    /// The next split; `None` when every known file is read.
    fn next(&mut self) -> Result<Option<Split>> {
        if !self.has_looked {
            self.look()?;
        }
        loop {
            if self.current.is_none() {
                let Some(path) = self.waiting.pop_front() else { return Ok(None) };
                self.current = Some(FileInput::open(&path, &self.rows)?);
            }
            if let Some(file) = &mut self.current
                && let Some(split) = file.next(self.offset)?
            {
                self.offset = split.offsets.end;
                return Ok(Some(split));
            }
            self.current = None;
        }
    }
}
