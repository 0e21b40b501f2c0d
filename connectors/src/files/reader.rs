//! The one partition of a file set: files in order, read on a thread that may block.

use std::collections::{HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::common::runtime::SpawnedTask;
use millstream_engine::source::{InputIndex, Offset, PartitionReader, Split};
use millstream_engine::{Error, Result};
use tokio::time::Instant;

use super::Rows;
use super::input::FileInput;
use super::list::{FileSet, refuse_compacted, refuse_repeated};
use super::record::{FileRecord, Opened, note_end, note_file};

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
    /// Lists the files, and goes on at `from` with those that `index` says earlier runs opened.
    ///
    /// # Errors
    /// Fails if there are none and none are waited for, and if one that is not read to its end has changed.
    pub(super) async fn open(
        set: FileSet,
        rows: Rows,
        watch_interval: Option<Duration>,
        from: Offset,
        index: Arc<dyn InputIndex>,
    ) -> Result<Self> {
        let is_watching = watch_interval.is_some();
        let files = SpawnedTask::spawn_blocking(move || {
            let mut files = Files::resume(set, rows, from, index)?;
            files.is_watching = is_watching;
            files.look()?;
            if files.known.is_empty() && !is_watching { Err(files.set.nothing_found()) } else { Ok(files) }
        });
        let files = files.join().await.map_err(|error| Error::external("listing files", error))??;
        let look_again = watch_interval.map(|interval| Instant::now() + interval);
        Ok(Self { turn: Turn::Idle(Box::new(files)), watch_interval, look_again })
    }

    /// The next split of the files known so far.
    async fn read(&mut self, limit: Option<Offset>) -> Result<Option<Split>> {
        if let Turn::Idle(_) = &self.turn
            && let Turn::Idle(mut files) = std::mem::replace(&mut self.turn, Turn::Over)
        {
            self.turn = Turn::Reading(SpawnedTask::spawn_blocking(move || {
                let split = files.next(limit);
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
    async fn next(&mut self, limit: Option<Offset>) -> Result<Option<Split>> {
        loop {
            if let Some(split) = self.read(limit).await? {
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
    index: Arc<dyn InputIndex>,
    /// Every file ever listed.
    known: HashSet<PathBuf>,
    /// Files that earlier runs opened and this one has still to read.
    noted: VecDeque<FileRecord>,
    waiting: VecDeque<PathBuf>,
    current: Option<FileInput>,
    offset: Offset,
    /// Whether the index says where the file that was opened last ends.
    end_is_noted: bool,
    /// False when new files may have come since the last look.
    has_looked: bool,
    /// Whether new files are looked for, and so must not hold what was read before.
    is_watching: bool,
}

impl Files {
    /// The files as earlier runs left them.
    fn resume(set: FileSet, rows: Rows, from: Offset, index: Arc<dyn InputIndex>) -> Result<Self> {
        let opened = Opened::read(index.as_ref())?;
        let known = opened.records.iter().map(|record| record.path.clone()).collect();
        let noted: VecDeque<_> = opened.unread(from).to_vec().into();
        noted.iter().try_for_each(FileRecord::check)?;
        Ok(Self {
            set,
            rows,
            index,
            known,
            noted,
            waiting: VecDeque::new(),
            current: None,
            offset: from,
            end_is_noted: opened.end.is_some(),
            has_looked: true,
            is_watching: false,
        })
    }

    /// Queues the files that were not there before.
    fn look(&mut self) -> Result<()> {
        let mut files = self.set.list()?;
        files.retain(|file| !self.known.contains(file));
        for file in &files {
            // Without watching, what is known was opened by earlier runs.
            if self.is_watching { refuse_compacted(file)? } else { refuse_repeated(file, &self.known)? }
        }
        for file in files {
            if self.known.insert(file.clone()) {
                tracing::debug!(file = %file.display(), "new file");
                self.waiting.push_back(file);
            }
        }
        self.has_looked = true;
        Ok(())
    }

    /// The next split; `None` when every known file is read.
    fn next(&mut self, limit: Option<Offset>) -> Result<Option<Split>> {
        if !self.has_looked {
            self.look()?;
        }
        loop {
            if self.current.is_none() && !self.open_next()? {
                return Ok(None);
            }
            if let Some(file) = &mut self.current
                && let Some(split) = file.next(self.offset, limit)?
            {
                self.offset = split.offsets.end;
                return Ok(Some(split));
            }
            self.close_current()?;
        }
    }

    /// Opens the next file, if there is one.
    fn open_next(&mut self) -> Result<bool> {
        let (record, file) = if let Some(record) = self.noted.pop_front() {
            // It may have changed since the check at the begin.
            let file = record.open()?;
            (record, file)
        } else {
            let Some(path) = self.waiting.pop_front() else { return Ok(false) };
            let (record, file) = FileRecord::open_new(&path, self.offset)?;
            note_file(self.index.as_ref(), &record)?;
            self.end_is_noted = false;
            (record, file)
        };
        let Some(skip) = self.offset.0.checked_sub(record.start.0) else {
            return Err(Error::internal(format!("{} begins behind offset {}", record.path.display(), self.offset.0)));
        };
        self.current = Some(FileInput::open(record, file, &self.rows, skip)?);
        Ok(true)
    }

    fn close_current(&mut self) -> Result<()> {
        self.current = None;
        match self.noted.front() {
            Some(next) if next.start != self.offset => Err(Error::state(
                format!(
                    "the file before {} ends at offset {}, and ended at {} when it was read first",
                    next.path.display(),
                    self.offset.0,
                    next.start.0
                ),
                "put the file back as it was, or begin anew with another state directory",
            )),
            None if !self.end_is_noted => {
                self.end_is_noted = true;
                note_end(self.index.as_ref(), self.offset)
            }
            _ => Ok(()),
        }
    }
}
