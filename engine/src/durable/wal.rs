//! The write-ahead log of a stream that cannot be read again: every record with its rows, before any query sees it.
//!
//! A segment begins with `MSWAL001` and holds groups of frames, each group appended and synced as one:
//!
//! ```text
//! group: '[' | length of body u32 | CRC-32 of that length u32 | CRC-32 of body u32 | body | ']'
//! body:  seq of its first frame u64 | number of frames u32 | frames
//! frame: length of JSON u32 | length of rows u32 | event as JSON | rows as an Arrow IPC stream, or nothing
//! ```
//!
//! Integers are little endian. Frames follow each other by sequence number; segments are named after their first one
//! and dropped once no checkpoint needs them. Only the last group of the last segment can be torn: it is broken off, or
//! has a sector of zeroes. The length has a checksum of its own and the brackets are no zeroes, so that a damaged group
//! is not taken for a torn one, unless its rows fill a sector with zeroes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use tokio::sync::Notify;

use super::files::{AppendFile, Files, SECTOR_BYTES, has_lost_sector};
use super::journal::{cut_back, failed, sync};
use super::record::corrupt;
use super::room::FullDisk;
use crate::error::{Error, Result};
use crate::ingest::{LoggedEvent, Record};

const MAGIC: &[u8; 8] = b"MSWAL001";
/// The bytes of a group before its body.
const GROUP_HEAD: usize = 13;
/// The bytes of a group behind its body.
const GROUP_FOOT: usize = 1;
/// The bytes of a group's body before its frames.
const GROUP_BODY_HEAD: usize = 12;
/// A segment is closed once it has this many bytes.
const SEGMENT_BYTES: u64 = 64 << 20;
/// What a log may keep before the input waits for checkpoints to release it, in bytes.
pub const WAL_LIMIT_BYTES: u64 = 4 << 30;

/// A record with its rows.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) seq: u64,
    pub(crate) event: LoggedEvent,
    pub(crate) rows: Option<RecordBatch>,
}

impl Frame {
    /// What has to be kept of a record.
    pub(crate) fn of(record: &Record) -> Self {
        let rows = record.block.as_ref().map(|block| block.rows.clone());
        Self { seq: record.seq, event: record.event.clone(), rows }
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<()> {
        let json = serde_json::to_vec(&self.event)
            .map_err(|error| Error::internal(format!("an event is no JSON: {error}")))?;
        let mut ipc = Vec::new();
        if let Some(rows) = &self.rows {
            let mut writer = StreamWriter::try_new(&mut ipc, &rows.schema())?;
            writer.write(rows)?;
            writer.finish()?;
        }
        out.extend_from_slice(&length(json.len())?);
        out.extend_from_slice(&length(ipc.len())?);
        out.extend_from_slice(&json);
        out.extend_from_slice(&ipc);
        Ok(())
    }
}

/// The bytes of a group.
fn write_group(frames: &[Frame]) -> Result<Vec<u8>> {
    let mut body = frames.first().map_or(0, |frame| frame.seq).to_le_bytes().to_vec();
    body.extend_from_slice(&length(frames.len())?);
    for frame in frames {
        frame.write(&mut body)?;
    }
    let size = length(body.len())?;
    let mut group = vec![b'['];
    group.extend_from_slice(&size);
    group.extend_from_slice(&crc32fast::hash(&size).to_le_bytes());
    group.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    group.extend_from_slice(&body);
    group.push(b']');
    Ok(group)
}

/// The frames of a group's body; `None` if it is not made as it should be.
fn read_group(body: &[u8]) -> Option<Result<Vec<Frame>>> {
    let (mut seq, count) = group_head(body)?;
    let mut at = GROUP_BODY_HEAD;
    let mut frames = Vec::new();
    for _ in 0..count {
        let json_end = at + 8 + number_at(body, at)?;
        let rows_end = json_end + number_at(body, at + 4)?;
        let event = serde_json::from_slice(body.get(at + 8..json_end)?).ok()?;
        let rows = body.get(json_end..rows_end)?;
        let rows = match (!rows.is_empty()).then(|| read_rows(rows)).transpose() {
            Ok(rows) => rows,
            Err(error) => return Some(Err(error)),
        };
        frames.push(Frame { seq, event, rows });
        seq += 1;
        at = rows_end;
    }
    Some(Ok(frames))
}

/// The first sequence number of a group, and how many frames it has.
fn group_head(body: &[u8]) -> Option<(u64, u64)> {
    let seq = u64::from_le_bytes(body.get(..8)?.try_into().ok()?);
    Some((seq, u64::try_from(number_at(body, 8)?).ok()?))
}

fn number_at(bytes: &[u8], at: usize) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?)).ok()
}

fn read_rows(bytes: &[u8]) -> Result<RecordBatch> {
    let mut reader = StreamReader::try_new(bytes, None)?;
    let batch = reader.next().transpose()?;
    batch.ok_or_else(|| Error::internal("a frame has a schema and no rows"))
}

fn length(bytes: usize) -> Result<[u8; 4]> {
    let length = u32::try_from(bytes).map_err(|_| Error::internal(format!("a frame of {bytes} bytes")))?;
    Ok(length.to_le_bytes())
}

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
    /// What each query that reads the log needs, by id: the first frame.
    needed: BTreeMap<String, u64>,
    /// Frames read ahead of the one asked for.
    read: VecDeque<Frame>,
    segment_bytes: u64,
}

/// The log, shared by who appends and who releases.
#[derive(Debug, Clone)]
pub(crate) struct SharedWal {
    wal: Arc<Mutex<Wal>>,
    released: Arc<Notify>,
    limit_bytes: u64,
}

impl SharedWal {
    /// Opens the log in `folder`, or makes it; a torn end is cut off.
    ///
    /// # Errors
    /// Fails if it is damaged or the disk fails.
    pub(crate) fn open(files: &Arc<dyn Files>, folder: &str) -> Result<Self> {
        let wal = Wal::open(files, folder)?;
        Ok(Self { wal: Arc::new(Mutex::new(wal)), released: Arc::default(), limit_bytes: WAL_LIMIT_BYTES })
    }

    async fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Wal) -> Result<T> + Send + 'static) -> Result<T> {
        let wal = Arc::clone(&self.wal);
        let task = SpawnedTask::spawn_blocking(move || work(&mut wal.lock().unwrap_or_else(PoisonError::into_inner)));
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
            let kept = self.with(|wal| Ok(wal.segments.iter().map(|(_, bytes)| bytes).sum::<u64>())).await?;
            if kept <= self.limit_bytes {
                break;
            }
            tracing::warn!(kept, "the write-ahead log is at its limit: the input waits for a checkpoint");
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

    /// Says that the query with this id reads the log and needs it from `seq` on.
    pub(crate) fn hold(&self, query: &str, seq: u64) {
        let mut wal = self.wal.lock().unwrap_or_else(PoisonError::into_inner);
        wal.needed.insert(query.to_owned(), seq);
    }

    /// Says that a query needs nothing before `seq` any more, and drops what no query needs.
    pub(crate) async fn release(&self, query: &str, seq: u64) -> Result<()> {
        self.hold(query, seq);
        self.with(|wal| {
            let needed = wal.needed.values().copied().min().unwrap_or_default();
            wal.trim(needed)
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

fn firsts_of(files: &dyn Files, folder: &str) -> Result<Vec<u64>> {
    let names = files.list(folder).map_err(|error| failed(files, folder, error))?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".wal")?.parse().ok()).collect())
}

/// The number after the last whole frame of a segment, and where its group ends.
fn whole_part(place: &str, bytes: &[u8], (first, mut next): (u64, u64), is_last: bool) -> Result<(u64, usize)> {
    if first != next {
        return Err(corrupt(place, 0, "a segment before it is missing"));
    }
    let mut whole = if bytes.starts_with(MAGIC) { MAGIC.len() } else { 0 };
    while whole > 0
        && let Some(body) = body_at(bytes, whole)
    {
        match group_head(body) {
            Some((seq, count)) if seq == next => next += count,
            _ => return Err(corrupt(place, whole as u64, "a group is out of order")),
        }
        whole += GROUP_HEAD + body.len() + GROUP_FOOT;
    }
    if whole < bytes.len() && !(is_last && is_torn(bytes, whole)) {
        return Err(corrupt(place, whole as u64, "a checksum does not fit"));
    }
    Ok((next, whole))
}

impl Wal {
    fn open(files: &Arc<dyn Files>, folder: &str) -> Result<Self> {
        files.create_folder(folder).map_err(|error| failed(files.as_ref(), folder, error))?;
        let firsts = firsts_of(files.as_ref(), folder)?;
        let mut wal = Self {
            files: Arc::clone(files),
            folder: folder.to_owned(),
            segments: Vec::new(),
            open: None,
            is_broken: false,
            next: firsts.first().copied().unwrap_or_default(),
            needed: BTreeMap::new(),
            read: VecDeque::new(),
            segment_bytes: SEGMENT_BYTES,
        };
        for (index, first) in firsts.iter().enumerate() {
            wal.check_segment(*first, index + 1 == firsts.len())?;
        }
        Ok(wal)
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
        let mut frames = VecDeque::new();
        let mut at = MAGIC.len();
        while let Some(body) = body_at(&bytes, at) {
            let group = read_group(body).ok_or_else(|| corrupt(&place, at as u64, "a group cannot be read"))??;
            frames.extend(group.into_iter().filter(|frame| frame.seq >= from));
            at += GROUP_HEAD + body.len() + GROUP_FOOT;
        }
        Ok(frames)
    }

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
        let bytes = write_group(frames)?;
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
        self.next += frames.len() as u64;
        Ok(())
    }

    fn roll(&mut self) -> Result<()> {
        let path = self.path(self.next);
        let fail = |error| failed(self.files.as_ref(), &path, error);
        let mut file = self.files.append(&path).map_err(fail)?;
        if let Err(error) = file.append(MAGIC).and_then(|()| file.sync()) {
            cut_back(file.as_mut(), 0, &self.files.describe(&path)).inspect_err(|_| self.is_broken = true)?;
            return Err(fail(error));
        }
        self.segments.push((self.next, MAGIC.len() as u64));
        self.open = Some(file);
        Ok(())
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

/// The body of the group at `at`, if it is whole.
fn body_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    let size = size_at(bytes, at)?;
    let claimed = number_at(bytes, at + 9)?;
    let (start, end) = (at + GROUP_HEAD, at.checked_add(GROUP_HEAD + size)?);
    let body = bytes.get(start..end)?;
    let is_whole = bytes.get(at) == Some(&b'[') && bytes.get(end) == Some(&b']');
    (is_whole && size >= GROUP_BODY_HEAD && crc32fast::hash(body) as usize == claimed).then_some(body)
}

/// The length of the body of the group at `at`, if it fits its checksum.
fn size_at(bytes: &[u8], at: usize) -> Option<usize> {
    let size = bytes.get(at + 1..at.checked_add(5)?)?;
    (crc32fast::hash(size) as usize == number_at(bytes, at + 5)?).then(|| number_at(bytes, at + 1)).flatten()
}

/// Whether the broken group at `at` is one that a crash left half written, with nothing behind it.
fn is_torn(bytes: &[u8], at: usize) -> bool {
    if at == 0 {
        // The segment's own first bytes: it has none of its groups yet.
        return MAGIC.starts_with(bytes) || bytes.len() <= MAGIC.len() && has_lost_sector(bytes, 0);
    }
    match size_at(bytes, at) {
        Some(size) => {
            let end = at + GROUP_HEAD + size + GROUP_FOOT;
            end > bytes.len() || end == bytes.len() && has_lost_sector(bytes, at)
        }
        None => {
            let end = (at + GROUP_HEAD).next_multiple_of(SECTOR_BYTES).min(bytes.len());
            at + GROUP_HEAD > bytes.len() || has_lost_sector(bytes.get(..end).unwrap_or_default(), at)
        }
    }
}

#[cfg(test)]
mod tests;
