//! A journal: records in the order they were appended, in segments that can be dropped from the front.
//!
//! A segment is named after the number of its first record, and its first line says to which journal it belongs and
//! which checksum came before. Only the end of the last segment may be torn: what was appended after the last sync
//! is dropped when a journal is opened. Damage anywhere else is an error, and so is damage at the end that no crash
//! does: a torn end breaks off within a line or has a sector of zeroes, of which JSON has not even one.
//!
//! On a disk that is shared, a writer that was thought dead may go on. So whoever opens a journal there puts a mark
//! behind the last record, and another one before the next segment is begun: each is a put that only one of two writers
//! can win, and the other one stops at its own.

use std::sync::Arc;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::files::{AppendFile, Files, has_lost_sector};
use super::record::{Chain, FIRST, check_line, corrupt, write_record};
use crate::error::{Error, Result};

/// How many records may be appended between two syncs, and so be torn by one crash.
const UNSYNCED_RECORDS: usize = 2;

/// The first line of a segment.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: String,
    version: u32,
    journal: String,
    first: u64,
    before: Chain,
}

const FORMAT: &str = "millstream-journal";
const VERSION: u32 = 1;

/// A line that is no record: it is for the journal itself.
#[derive(Debug, Serialize, Deserialize)]
struct Marked {
    journal: Mark,
}

/// How the text of a mark begins; that of no record does.
const MARKED: &[u8] = b"{\"journal\":";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mark {
    /// Another writer goes on from here.
    TakenOver,
    /// The next segment goes on from here, and nothing follows in this one.
    Closed,
}

/// A journal open for appending.
#[derive(Debug)]
pub(crate) struct Journal {
    files: Arc<dyn Files>,
    folder: String,
    id: String,
    /// The first record of each segment, ascending; the last one is open.
    segments: Vec<u64>,
    open: Option<Box<dyn AppendFile>>,
    length: u64,
    chain: Chain,
    next: u64,
    unsynced: usize,
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry<T> {
    /// Its number, from 0 at the journal's beginning.
    pub(crate) number: u64,
    /// What it says.
    pub(crate) value: T,
}

impl Journal {
    /// Opens the journal `id` in `folder`, makes it if there is none, and gives what it holds.
    ///
    /// # Errors
    /// Fails if it is damaged, belongs to another id, or the disk fails.
    pub(crate) fn open<T: DeserializeOwned>(
        files: &Arc<dyn Files>,
        folder: &str,
        id: &str,
    ) -> Result<(Self, Vec<Entry<T>>)> {
        Self::open_from(files, folder, id, 0)
    }

    /// Opens a journal of which nothing before the record `from` is needed: segments that lie before it are removed,
    /// whatever is in them.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub(crate) fn open_from<T: DeserializeOwned>(
        files: &Arc<dyn Files>,
        folder: &str,
        id: &str,
        from: u64,
    ) -> Result<(Self, Vec<Entry<T>>)> {
        files.create_folder(folder).map_err(|error| failed(files.as_ref(), folder, error))?;
        let mut journal = Self {
            files: Arc::clone(files),
            folder: folder.to_owned(),
            id: id.to_owned(),
            segments: Vec::new(),
            open: None,
            length: 0,
            chain: FIRST,
            next: 0,
            unsynced: 0,
        };
        let entries = journal.load(from)?;
        Ok((journal, entries))
    }

    /// What a journal holds, which is left as it is; how many bytes at its end are torn.
    ///
    /// # Errors
    /// As [`Journal::open`].
    pub(crate) fn inspect<T: DeserializeOwned>(
        files: &Arc<dyn Files>,
        folder: &str,
        id: &str,
    ) -> Result<(Vec<Entry<T>>, u64)> {
        let mut reading = Reading::new(id);
        let segments = segments_of(files.as_ref(), folder)?;
        let mut torn = 0;
        for (index, first) in segments.iter().enumerate() {
            let path = segment_path(folder, *first);
            let bytes = files.read(&path).map_err(|error| failed(files.as_ref(), &path, error))?;
            let is_last = index + 1 == segments.len();
            let whole = reading.read(&files.describe(&path), *first, &bytes, is_last)?;
            torn = bytes.len() as u64 - whole;
        }
        Ok((reading.entries, torn))
    }

    /// Where the last segment of a journal ends: its path and length.
    ///
    /// # Errors
    /// As the disk fails.
    pub(crate) fn last_place(files: &dyn Files, folder: &str) -> Result<(String, u64)> {
        let path = segment_path(folder, segments_of(files, folder)?.last().copied().unwrap_or_default());
        match files.read(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed(files, &path, error)),
            read => Ok((path, read.map_or(0, |bytes| bytes.len() as u64))),
        }
    }

    fn load<T: DeserializeOwned>(&mut self, from: u64) -> Result<Vec<Entry<T>>> {
        self.segments = segments_of(self.files.as_ref(), &self.folder)?;
        self.trim(from)?;
        let mut reading = Reading::new(&self.id);
        for (index, first) in self.segments.clone().into_iter().enumerate() {
            let path = segment_path(&self.folder, first);
            let bytes = self.files.read(&path).map_err(|error| failed(self.files.as_ref(), &path, error))?;
            let is_last = index + 1 == self.segments.len();
            let whole = reading.read(&self.files.describe(&path), first, &bytes, is_last)?;
            if is_last {
                self.reopen(&path, whole, bytes.len() as u64)?;
            }
        }
        (self.chain, self.next) = (reading.chain, reading.next);
        match (self.open.is_none() || reading.is_closed, self.files.is_shared()) {
            (true, _) => self.begin_segment()?,
            (false, true) => {
                self.append(&Marked { journal: Mark::TakenOver })?;
                self.sync()?;
            }
            (false, false) => {}
        }
        Ok(reading.entries)
    }

    /// Opens the last segment and cuts off what a crash left half written.
    ///
    /// One without a header is emptied, to be begun again. It is not removed: its removal may be undone by a crash
    /// after the segment before it has grown, and it would then stand in the middle.
    fn reopen(&mut self, path: &str, whole: u64, length: u64) -> Result<()> {
        let fail = |error| failed(self.files.as_ref(), path, error);
        let mut file = self.files.append(path).map_err(fail)?;
        check_length(file.as_ref(), length, &self.files.describe(path))?;
        if whole == 0 {
            self.segments.pop();
            return file.truncate(0).map_err(fail);
        }
        if whole < length {
            tracing::warn!(path, torn = length - whole, "cut off what a crash left half written");
            file.truncate(whole).map_err(fail)?;
        }
        // A process that died may have left records that the disk does not have yet.
        file.sync().map_err(fail)?;
        self.length = whole;
        self.open = Some(file);
        Ok(())
    }

    /// The number of the first record that is kept.
    pub(crate) fn first(&self) -> u64 {
        self.segments.first().copied().unwrap_or_default()
    }

    /// The number of the next record.
    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    /// Begins a new segment, so that what is before it can be dropped one day.
    ///
    /// # Errors
    /// As the disk fails.
    pub(crate) fn roll(&mut self) -> Result<()> {
        if self.segments.last() == Some(&self.next) {
            return Ok(());
        }
        if self.files.is_shared() {
            self.append(&Marked { journal: Mark::Closed })?;
        }
        self.sync()?;
        self.begin_segment()
    }

    fn begin_segment(&mut self) -> Result<()> {
        let header = Header {
            format: FORMAT.to_owned(),
            version: VERSION,
            journal: self.id.clone(),
            first: self.next,
            before: self.chain,
        };
        // The header begins a chain of its own: what comes before may be dropped.
        let (line, chain) = write_record(FIRST, &header)?;
        let path = segment_path(&self.folder, self.next);
        let fail = |error| failed(self.files.as_ref(), &path, error);
        let mut file = self.files.append(&path).map_err(fail)?;
        check_length(file.as_ref(), 0, &self.files.describe(&path))?;
        let written = file.append(&line).and_then(|()| file.sync());
        if let Err(error) = written {
            cut_back(file.as_mut(), 0, &self.files.describe(&path))?;
            return Err(fail(error));
        }
        self.segments.push(self.next);
        (self.open, self.length, self.chain) = (Some(file), line.len() as u64, chain);
        Ok(())
    }

    /// Appends a record, durable with the next [`Journal::sync`].
    ///
    /// # Errors
    /// As the disk fails; the journal is as it was then.
    pub(crate) fn append(&mut self, value: &impl Serialize) -> Result<()> {
        if self.unsynced >= UNSYNCED_RECORDS {
            self.sync()?;
        }
        let (line, chain) = write_record(self.chain, value)?;
        let path = self.current_path();
        let Some(file) = &mut self.open else { return Err(Error::internal("a journal has no open segment")) };
        if let Err(error) = file.append(&line) {
            // What was written of the line must not stand before the next one.
            cut_back(file.as_mut(), self.length, &self.files.describe(&path))?;
            return Err(failed(self.files.as_ref(), &path, error));
        }
        self.length += line.len() as u64;
        self.chain = chain;
        self.next += 1;
        self.unsynced += 1;
        Ok(())
    }

    /// Makes every record durable.
    ///
    /// # Errors
    /// As the disk fails; the journal must not be used any more then.
    pub(crate) fn sync(&mut self) -> Result<()> {
        let path = self.current_path();
        if let (Some(file), 1..) = (&mut self.open, self.unsynced) {
            sync(file.as_mut(), &self.files.describe(&path))?;
            self.unsynced = 0;
        }
        Ok(())
    }

    /// Drops the segments whose every record comes before `number`.
    ///
    /// # Errors
    /// As the disk fails.
    pub(crate) fn trim(&mut self, number: u64) -> Result<()> {
        while let [first, second, ..] = self.segments.as_slice()
            && *second <= number
        {
            let path = segment_path(&self.folder, *first);
            self.files.remove(&path).map_err(|error| failed(self.files.as_ref(), &path, error))?;
            self.segments.remove(0);
        }
        Ok(())
    }

    fn current_path(&self) -> String {
        segment_path(&self.folder, self.segments.last().copied().unwrap_or_default())
    }
}

fn segments_of(files: &dyn Files, folder: &str) -> Result<Vec<u64>> {
    let names = files.list(folder).map_err(|error| failed(files, folder, error))?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".log")?.parse().ok()).collect())
}

fn segment_path(folder: &str, first: u64) -> String {
    format!("{folder}/{first:020}.log")
}

/// The failure of a disk at a place.
pub(crate) fn failed(files: &dyn Files, path: &str, error: std::io::Error) -> Error {
    Error::external(format!("writing {}", files.describe(path)), error)
}

/// Refuses a file that another writer has changed since it was looked at.
pub(crate) fn check_length(file: &dyn AppendFile, length: u64, place: &str) -> Result<()> {
    let context = || format!("opening {place}");
    match file.length() {
        Ok(found) if found == length => Ok(()),
        Ok(_) => Err(Error::external(context(), "another process has written to it meanwhile")),
        Err(error) => Err(Error::external(context(), error)),
    }
}

/// Makes what was appended durable.
///
/// # Errors
/// One that is never tried again, not even for want of room: after a failed sync nobody knows what is on the disk.
pub(crate) fn sync(file: &mut dyn AppendFile, place: &str) -> Result<()> {
    file.sync().map_err(|error| Error::external(format!("syncing {place}"), error.to_string()))
}

/// Cuts off what was appended in part.
///
/// # Errors
/// One that is never tried again: what comes next would stand behind a part.
pub(crate) fn cut_back(file: &mut dyn AppendFile, length: u64, place: &str) -> Result<()> {
    file.truncate(length).map_err(|error| Error::external(format!("cutting back {place}"), error.to_string()))
}

/// Segments on their way into records.
struct Reading<T> {
    id: String,
    chain: Chain,
    next: u64,
    entries: Vec<Entry<T>>,
    /// Where the segment before ends.
    before: Option<(String, u64)>,
    /// Whether the last line says that another segment goes on.
    is_closed: bool,
}

impl<T: DeserializeOwned> Reading<T> {
    fn new(id: &str) -> Self {
        Self { id: id.to_owned(), chain: FIRST, next: 0, entries: Vec::new(), before: None, is_closed: false }
    }

    /// Reads a segment; how many of its bytes are whole records.
    fn read(&mut self, place: &str, first: u64, bytes: &[u8], is_last: bool) -> Result<u64> {
        let mut lines = Lines { bytes, at: 0 };
        let Some((_, header)) = lines.next().filter(|(_, line)| check_line(FIRST, line).is_some()) else {
            // The crash that tore the header came before any record.
            let is_torn = is_last && first == self.next && is_torn(bytes, 0, FIRST);
            return if is_torn { Ok(0) } else { Err(corrupt(place, 0, "it has no header")) };
        };
        self.enter(place, first, header)?;
        let mut whole = lines.at;
        while let Some((at, line)) = lines.next() {
            let Some((json, chain)) = check_line(self.chain, line) else { break };
            let fail = |error: serde_json::Error| corrupt(place, at, &error.to_string());
            if json.starts_with(MARKED) {
                let Marked { journal } = serde_json::from_slice(json).map_err(fail)?;
                self.is_closed = journal == Mark::Closed;
            } else {
                let value = serde_json::from_slice(json).map_err(fail)?;
                self.entries.push(Entry { number: self.next, value });
            }
            self.chain = chain;
            self.next += 1;
            whole = lines.at;
        }
        self.before = Some((place.to_owned(), whole as u64));
        let rest = bytes.get(whole..).unwrap_or_default();
        if rest.is_empty() || is_last && is_torn(bytes, whole, self.chain) {
            return Ok(whole as u64);
        }
        Err(corrupt(place, whole as u64, "a checksum does not fit"))
    }

    fn enter(&mut self, place: &str, first: u64, line: &[u8]) -> Result<()> {
        let Some((json, chain)) = check_line(FIRST, line) else { return Err(corrupt(place, 0, "it has no header")) };
        let header: Header = serde_json::from_slice(json).map_err(|error| corrupt(place, 0, &error.to_string()))?;
        if header.format != FORMAT || header.version > VERSION {
            let message = format!("{place} has format {} {}", header.format, header.version);
            return Err(Error::State { message, hint: Some("use a newer millstream".to_owned()) });
        }
        if header.journal != self.id || header.first != first {
            return Err(corrupt(place, 0, "it belongs to another journal"));
        }
        if let Some((before, end)) = &self.before
            && (first != self.next || header.before != self.chain)
        {
            let reason = format!("its end is missing: the next segment begins with record {first}");
            return Err(corrupt(before, *end, &reason));
        }
        (self.next, self.chain, self.is_closed) = (first, chain, false);
        Ok(())
    }
}

/// Whether what a segment holds from `at` on, behind `before`, is what a crash leaves of records that were not synced.
fn is_torn(bytes: &[u8], at: usize, before: Chain) -> bool {
    let rest = bytes.get(at..).unwrap_or_default();
    let lines = rest.split_inclusive(|byte| *byte == b'\n').count();
    lines <= UNSYNCED_RECORDS && (has_lost_sector(bytes, at) || is_broken_off(rest, before))
}

/// Whether records end within a line; one that has all but another last byte was whole and has been changed.
fn is_broken_off(rest: &[u8], before: Chain) -> bool {
    match rest {
        [line @ .., last] => *last != b'\n' && check_line(before, line).is_none(),
        [] => true,
    }
}

/// Whole lines and where they begin.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..)?;
        let length = rest.iter().position(|byte| *byte == b'\n')?;
        let at = self.at as u64;
        self.at += length + 1;
        Some((at, rest.get(..length)?))
    }
}

#[cfg(test)]
mod tests;
