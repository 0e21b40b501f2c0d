//! The write-ahead log of a stream that cannot be read again: every record with its rows, before any query sees it.
//!
//! Segments are named after their first record and dropped once no checkpoint needs them; `group` says what is in them.

mod group;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::common::runtime::SpawnedTask;
use tokio::sync::{Notify, watch};

use super::files::{AppendFile, Files};
use super::journal::{check_length, cut_back, failed, sync};
use super::record::corrupt;
use super::room::FullDisk;
use crate::error::{Error, Result};
pub(crate) use group::Frame;
use group::{MAGIC, frames_from, whole_part, write_group};

/// A segment is closed once it has this many bytes, or a part of what the log may keep.
const SEGMENT_BYTES: u64 = 64 << 20;
const SEGMENT_SHARES: u64 = 16;
/// What a log may keep before the input waits for checkpoints to release it, in bytes, unless told otherwise.
pub const WAL_LIMIT_BYTES: u64 = 4 << 30;

/// The log of one stream.
#[derive(Debug)]
struct Wal {
    files: Arc<dyn Files>,
    folder: String,
    /// The first sequence number and the bytes of each segment, ascending; the last one is open.
    segments: Vec<(u64, u64)>,
    open: Option<Box<dyn AppendFile>>,
    /// Whether nobody knows how the open segment ends.
    is_broken: bool,
    next: u64,
    /// The bytes appended since it was opened.
    appended: u64,
    /// What each query that reads the log needs, by id.
    needed: BTreeMap<String, Need>,
    /// Frames read ahead of the one asked for.
    read: VecDeque<Frame>,
    segment_bytes: u64,
}

/// What a query needs of a log.
#[derive(Debug, Clone)]
pub(crate) struct Need {
    /// The query's name.
    pub(crate) name: String,
    /// The first frame.
    pub(crate) from: u64,
    /// Whether it runs, so that it will need less one day.
    pub(crate) is_running: bool,
}

/// The log, shared by who appends and who releases.
#[derive(Debug, Clone)]
pub(crate) struct SharedWal {
    wal: Arc<Mutex<Wal>>,
    released: Arc<Notify>,
    size: Arc<watch::Sender<Size>>,
    limit_bytes: u64,
}

/// How large a log is, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Size {
    /// What was appended since it was opened.
    appended: u64,
    /// What is kept.
    kept: u64,
}

impl SharedWal {
    /// Opens the log in `folder`, or makes it; a torn end is cut off. It keeps `limit_bytes` before its input waits.
    ///
    /// # Errors
    /// Fails if it is damaged or the disk fails.
    pub(crate) fn open(files: &Arc<dyn Files>, folder: &str, limit_bytes: u64) -> Result<Self> {
        let mut wal = Wal::open(files, folder)?;
        wal.segment_bytes = SEGMENT_BYTES.min(limit_bytes / SEGMENT_SHARES);
        let (size, _) = watch::channel(wal.size());
        Ok(Self { wal: Arc::new(Mutex::new(wal)), released: Arc::default(), size: Arc::new(size), limit_bytes })
    }

    /// What a query notes that reads it.
    pub(crate) fn note(&self) -> String {
        format!("write-ahead log {}", self.wal.lock().unwrap_or_else(PoisonError::into_inner).folder)
    }

    /// What it keeps before its input waits, in bytes.
    pub(crate) const fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// The bytes appended since it was opened.
    pub(crate) fn appended(&self) -> u64 {
        self.size.borrow().appended
    }

    /// Whether so many bytes have been appended since it was opened, or its input waits.
    pub(crate) fn has_reached(&self, bytes: u64) -> bool {
        self.is_pressed(*self.size.borrow(), bytes)
    }

    const fn is_pressed(&self, size: Size, bytes: u64) -> bool {
        size.appended >= bytes || size.kept > self.limit_bytes
    }

    /// Completes when that is so.
    pub(crate) async fn reaches(&self, bytes: u64) {
        // The sender is here, so it is not gone.
        let _ = self.size.subscribe().wait_for(|size| self.is_pressed(*size, bytes)).await;
    }

    /// Whether its input waits.
    pub(crate) fn is_full(&self) -> bool {
        self.size.borrow().kept > self.limit_bytes
    }

    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Wal) -> Result<T> + Send + 'static) -> Result<T> {
        let (wal, size) = (Arc::clone(&self.wal), Arc::clone(&self.size));
        let task = SpawnedTask::spawn_blocking(move || {
            let mut wal = wal.lock().unwrap_or_else(PoisonError::into_inner);
            let done = work(&mut wal);
            let now = wal.size();
            size.send_if_modified(|size| std::mem::replace(size, now) != now);
            done
        });
        task.join().await.map_err(|error| Error::internal(format!("a write-ahead log stopped: {error}")))?
    }

    /// The number of the next frame.
    pub(crate) fn next(&self) -> u64 {
        self.wal.lock().unwrap_or_else(PoisonError::into_inner).next
    }

    /// Refuses a log that ends before `seq`, up to where a query has used it.
    ///
    /// # Errors
    /// Names the last file and its end.
    pub(crate) fn check_reaches(&self, seq: u64) -> Result<()> {
        let wal = self.wal.lock().unwrap_or_else(PoisonError::into_inner);
        if seq <= wal.next {
            return Ok(());
        }
        let (first, bytes) = wal.segments.last().copied().unwrap_or_default();
        let reason = format!("records {} to {seq}, which a query has used, are missing", wal.next);
        Err(corrupt(&wal.files.describe(&wal.path(first)), bytes, &reason))
    }

    /// The number of the first frame that is kept.
    pub(crate) fn first(&self) -> u64 {
        let wal = self.wal.lock().unwrap_or_else(PoisonError::into_inner);
        wal.segments.first().map_or(wal.next, |(first, _)| *first)
    }

    /// The frame `seq`; `None` at the end.
    pub(crate) async fn read(&self, seq: u64) -> Result<Option<Frame>> {
        self.with(move |wal| wal.frame(seq)).await
    }

    /// Appends frames, durable when this returns; waits while the log is at its limit.
    pub(crate) async fn write(&self, frames: Vec<Frame>) -> Result<()> {
        loop {
            let room = self.released.notified();
            if !self.is_full() {
                break;
            }
            // Queries that have nothing to do release nothing, though they may need nothing either.
            self.with(Wal::make_room).await?;
            if !self.is_full() {
                break;
            }
            let (Size { kept, .. }, reason) = self.with(|wal| Ok((wal.size(), wal.held_by()))).await?;
            tracing::warn!(kept, "the write-ahead log is at its limit: the input waits for {reason}");
            room.await;
        }
        let frames = Arc::new(frames);
        let pause = self.with(|wal| Ok(wal.files.room_pause())).await?;
        let mut full_disk = FullDisk::new("the input");
        loop {
            let frames = Arc::clone(&frames);
            match self.with(move |wal| wal.append(&frames)).await {
                Err(error) if error.is_disk_full() => {
                    full_disk.say(&error);
                    tokio::time::sleep(pause).await;
                }
                other => return other,
            }
        }
    }

    /// Says what the query with this id needs of the log.
    pub(crate) fn hold(&self, query: &str, need: Need) {
        let mut wal = self.wal.lock().unwrap_or_else(PoisonError::into_inner);
        wal.needed.insert(query.to_owned(), need);
    }

    /// Says that a query needs nothing before `seq` any more, and drops what no query needs.
    pub(crate) async fn release(&self, query: &str, seq: u64) -> Result<()> {
        let query = query.to_owned();
        self.with(move |wal| {
            if let Some(need) = wal.needed.get_mut(&query) {
                need.from = need.from.max(seq);
            }
            wal.trim(wal.needed())
        })
        .await?;
        self.released.notify_waiters();
        Ok(())
    }
}

/// Checks every group of the log in `folder`, which is left as it is.
///
/// # Errors
/// Names the file and place of the first damage.
pub(crate) fn check_log(files: &Arc<dyn Files>, folder: &str) -> Result<()> {
    let firsts = firsts_of(files.as_ref(), folder)?;
    let mut next = firsts.first().copied().unwrap_or_default();
    for (index, first) in firsts.iter().enumerate() {
        let path = format!("{folder}/{first:020}.wal");
        let bytes = files.read(&path).map_err(|error| failed(files.as_ref(), &path, error))?;
        (next, _) = whole_part(&files.describe(&path), &bytes, (*first, next), index + 1 == firsts.len())?;
    }
    Ok(())
}

fn is_gone(files: &dyn Files, folder: &str, first: u64) -> bool {
    let read = files.read(&format!("{folder}/{first:020}.wal"));
    read.is_err_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn firsts_of(files: &dyn Files, folder: &str) -> Result<Vec<u64>> {
    let names = files.list(folder).map_err(|error| failed(files, folder, error))?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".wal")?.parse().ok()).collect())
}

impl Wal {
    fn open(files: &Arc<dyn Files>, folder: &str) -> Result<Self> {
        files.create_folder(folder).map_err(|error| failed(files.as_ref(), folder, error))?;
        let mut firsts = firsts_of(files.as_ref(), folder)?;
        while files.is_shared() && firsts.first().is_some_and(|first| is_gone(files.as_ref(), folder, *first)) {
            // Trimmed, and then appended to by a writer that had not heard of it.
            firsts.remove(0);
        }
        let mut wal = Self {
            files: Arc::clone(files),
            folder: folder.to_owned(),
            segments: Vec::new(),
            open: None,
            is_broken: false,
            next: firsts.first().copied().unwrap_or_default(),
            appended: 0,
            needed: BTreeMap::new(),
            read: VecDeque::new(),
            segment_bytes: SEGMENT_BYTES,
        };
        for (index, first) in firsts.iter().enumerate() {
            wal.check_segment(*first, index + 1 == firsts.len())?;
        }
        if wal.open.is_some() && files.is_shared() {
            // A writer that was thought dead finds this in the place of its next group, and stops.
            wal.append_group(&[])?;
        }
        Ok(wal)
    }

    fn size(&self) -> Size {
        Size { appended: self.appended, kept: self.segments.iter().map(|(_, bytes)| bytes).sum() }
    }

    /// What has to happen before it can be trimmed.
    fn held_by(&self) -> String {
        match self.needed.values().min_by_key(|need| (need.from, need.is_running)) {
            Some(Need { name, is_running: false, .. }) => format!(
                "query \"{name}\", which reads it and does not run: start it, or let it go with `millstream state forget`"
            ),
            Some(Need { name, .. }) => format!("a checkpoint of query \"{name}\""),
            None => "a query".to_owned(),
        }
    }

    fn path(&self, first: u64) -> String {
        format!("{}/{first:020}.wal", self.folder)
    }

    fn load(&self, first: u64) -> Result<Vec<u8>> {
        let path = self.path(first);
        self.files.read(&path).map_err(|error| failed(self.files.as_ref(), &path, error))
    }

    /// Checks every frame of a segment; the torn end of the last one is cut off.
    ///
    /// One of which nothing is whole is emptied, to be begun again; as a journal's, it is not removed.
    fn check_segment(&mut self, first: u64, is_last: bool) -> Result<()> {
        let bytes = self.load(first)?;
        let path = self.path(first);
        let place = self.files.describe(&path);
        let (next, whole) = whole_part(&place, &bytes, (first, self.next), is_last)?;
        self.next = next;
        if !is_last {
            self.segments.push((first, whole as u64));
            return Ok(());
        }
        let fail = |error| failed(self.files.as_ref(), &path, error);
        let mut file = self.files.append(&path).map_err(fail)?;
        check_length(file.as_ref(), bytes.len() as u64, &place)?;
        if whole == 0 {
            return file.truncate(0).map_err(fail);
        }
        if whole < bytes.len() {
            tracing::warn!(path, torn = bytes.len() - whole, "cut off what a crash left half written");
            file.truncate(whole as u64).map_err(fail)?;
        }
        // A process that died may have left groups that the disk does not have yet.
        file.sync().map_err(fail)?;
        self.segments.push((first, whole as u64));
        self.open = Some(file);
        Ok(())
    }

    fn frame(&mut self, seq: u64) -> Result<Option<Frame>> {
        if seq >= self.next {
            return Ok(None);
        }
        while self.read.front().is_some_and(|frame| frame.seq < seq) {
            self.read.pop_front();
        }
        if self.read.front().is_none_or(|frame| frame.seq != seq) {
            let holding = self.segments.iter().rev().find(|(first, _)| *first <= seq);
            let (first, _) = *holding.ok_or_else(|| self.lost(seq))?;
            self.read = self.frames_of(first, seq)?;
        }
        Ok(self.read.pop_front())
    }

    fn lost(&self, seq: u64) -> Error {
        Error::state(
            format!("{} does not hold record {seq} any more", self.files.describe(&self.folder)),
            "restore the state directory from a copy, or start again with a new one",
        )
    }

    fn frames_of(&self, first: u64, from: u64) -> Result<VecDeque<Frame>> {
        let bytes = self.load(first)?;
        let place = self.files.describe(&self.path(first));
        frames_from(&place, &bytes, from)
    }

    /// Appends frames, durable when this returns.
    fn append(&mut self, frames: &[Frame]) -> Result<()> {
        let Some(first) = frames.first() else { return Ok(()) };
        if first.seq != self.next {
            return Err(Error::internal(format!("frame {} does not follow {}", first.seq, self.next)));
        }
        if self.is_broken {
            let context = format!("appending to {}", self.files.describe(&self.folder));
            return Err(Error::external(context, "a write failed before: start the process again"));
        }
        if self.open.is_none() || self.segments.last().is_some_and(|(_, bytes)| *bytes >= self.segment_bytes) {
            self.roll()?;
        }
        self.append_group(frames)
    }

    fn append_group(&mut self, frames: &[Frame]) -> Result<()> {
        let bytes = write_group(self.next, frames)?;
        let path = self.segments.last().map(|(first, _)| self.path(*first)).unwrap_or_default();
        let (Some(file), Some((_, length))) = (&mut self.open, self.segments.last_mut()) else {
            return Err(Error::internal("a write-ahead log has no open segment"));
        };
        let place = self.files.describe(&path);
        if let Err(error) = file.append(&bytes) {
            cut_back(file.as_mut(), *length, &place).inspect_err(|_| self.is_broken = true)?;
            return Err(failed(self.files.as_ref(), &path, error));
        }
        sync(file.as_mut(), &place).inspect_err(|_| self.is_broken = true)?;
        *length += bytes.len() as u64;
        self.appended += bytes.len() as u64;
        self.next += frames.len() as u64;
        Ok(())
    }

    fn roll(&mut self) -> Result<()> {
        let path = self.path(self.next);
        let fail = |error| failed(self.files.as_ref(), &path, error);
        let mut file = self.files.append(&path).map_err(fail)?;
        check_length(file.as_ref(), 0, &self.files.describe(&path))?;
        if let Err(error) = file.append(MAGIC).and_then(|()| file.sync()) {
            cut_back(file.as_mut(), 0, &self.files.describe(&path)).inspect_err(|_| self.is_broken = true)?;
            return Err(fail(error));
        }
        self.segments.push((self.next, MAGIC.len() as u64));
        self.open = Some(file);
        Ok(())
    }

    /// The first frame that some query needs.
    fn needed(&self) -> u64 {
        self.needed.values().map(|need| need.from).min().unwrap_or_default()
    }

    /// Drops all that no query needs, the open segment included.
    fn make_room(&mut self) -> Result<()> {
        let needed = self.needed();
        if needed >= self.next && self.segments.last().is_some_and(|(first, _)| *first < self.next) {
            self.roll()?;
        }
        self.trim(needed)
    }

    fn trim(&mut self, seq: u64) -> Result<()> {
        while let [(first, _), (second, _), ..] = self.segments.as_slice()
            && *second <= seq
        {
            let path = self.path(*first);
            self.files.remove(&path).map_err(|error| failed(self.files.as_ref(), &path, error))?;
            self.segments.remove(0);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
