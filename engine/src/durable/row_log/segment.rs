//! What a segment of a row log holds.
//!
//! A segment is named after its first row, begins with `MSROWS01` and holds groups of appends, each group one body as
//! `framing` has it, and synced as one:
//!
//! ```text
//! body:   appends
//! append: length of the rest u32 | length of JSON u32 | JSON | rows as an Arrow IPC stream, or nothing
//! JSON:   {"rows":3,"producer":{"id":"a","sequence":7}}
//! ```
//!
//! The first body of a segment has no rows: it says what the producers had sent before, so that only the last segment
//! is read when the log is opened. It and the eight bytes before it are synced on their own, so that what is torn is
//! always the end.

use std::ops::Range;

use bytes::Bytes;
use datafusion::arrow::ipc::root_as_message;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::super::files::Files;
use super::super::framing::{FOOT, HEAD, body_at, framed, is_torn, length, number_at};
use super::super::journal::failed;
use super::super::record::corrupt;
use super::{Producer, ReceivedRows, Sequences};
use crate::error::{Error, Result};
use crate::ipc::read_stream;

pub(super) const MAGIC: &[u8; 8] = b"MSROWS01";
/// A segment is closed once it has this many bytes.
pub(super) const SEGMENT_BYTES: u64 = 64 << 20;
/// The bytes of the size of an append.
const SIZE: usize = 4;
/// How the parts of a message of an Arrow IPC stream begin, what they begin at, and what ends a stream.
const CONTINUATION: [u8; 4] = [0xff; 4];
const IPC_ALIGNMENT: usize = 8;
const END_OF_STREAM: [u8; 8] = [0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0];
/// So many producers are remembered, those that have sent something last.
const MAX_PRODUCERS: usize = 10_000;

/// What a body says besides its rows.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Said {
    rows: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    producer: Option<Producer>,
    #[serde(default, skip_serializing_if = "Sequences::is_empty")]
    sequences: Sequences,
}

/// A segment that is being read.
#[derive(Debug)]
pub(super) struct Segment {
    /// In the user's words.
    pub(super) place: String,
    bytes: Vec<u8>,
    /// The number of the row behind those that were read.
    row: u64,
    /// Where the next body begins, and the appends of the last one that were not read.
    at: usize,
    rest: Range<usize>,
}

/// An append of a segment.
pub(super) struct Body<'a> {
    /// The number of its first row.
    pub(super) start: u64,
    said: Said,
    ipc: &'a [u8],
}

/// What a log is when it is opened.
#[derive(Debug, Default)]
pub(super) struct Recovered {
    /// The first row of the last segment, and its bytes; none if there is no segment yet.
    pub(super) last: Option<(u64, u64)>,
    /// The number of the next row.
    pub(super) end: u64,
    pub(super) sequences: Sequences,
}

pub(super) fn path(folder: &str, first: u64) -> String {
    format!("{folder}/{first:020}.rows")
}

/// The first rows of all segments, ascending.
pub(super) fn firsts(files: &dyn Files, folder: &str) -> Result<Vec<u64>> {
    let names = files.list(folder).map_err(|error| failed(files, folder, error))?;
    Ok(names.iter().filter_map(|name| name.strip_suffix(".rows")?.parse().ok()).collect())
}

/// The bytes of an append: all of them, or those around a body as it was received.
#[derive(Debug)]
pub(super) struct AppendBytes([Bytes; 3]);

impl AppendBytes {
    /// The parts, which follow each other.
    pub(super) fn parts(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(AsRef::as_ref)
    }

    pub(super) fn len(&self) -> usize {
        self.parts().map(<[u8]>::len).sum()
    }
}

/// The bytes of an append; its rows are written, or taken as they were received.
pub(super) fn write_append(
    rows: &RecordBatch,
    received: Option<ReceivedRows>,
    producer: Option<&Producer>,
) -> Result<AppendBytes> {
    let said = Said { rows: rows.num_rows() as u64, producer: producer.cloned(), ..Said::default() };
    let mut start = write_said(&said)?;
    let mut writer = StreamWriter::try_new(&mut start, &rows.schema())?;
    let Some(received) = received.filter(ReceivedRows::is_whole) else {
        writer.write(rows)?;
        writer.finish()?;
        drop(writer);
        return sized([start.into(), Bytes::new(), Bytes::new()]);
    };
    drop(writer);
    // The message as a stream has it: its head is padded, so that the body is aligned.
    let padding = received.header.len().next_multiple_of(IPC_ALIGNMENT) - received.header.len();
    start.extend_from_slice(&CONTINUATION);
    start.extend_from_slice(&length(received.header.len() + padding)?);
    start.extend_from_slice(&received.header);
    start.resize(start.len() + padding, 0);
    sized([start.into(), received.body, Bytes::from_static(&END_OF_STREAM)])
}

/// Writes into the place that was left for it how long the rest of an append is.
fn sized([start, body, end]: [Bytes; 3]) -> Result<AppendBytes> {
    let mut start = Vec::from(start);
    let size = length((start.len() + body.len() + end.len()).saturating_sub(SIZE))?;
    if let Some(place) = start.get_mut(..SIZE) {
        place.copy_from_slice(&size);
    }
    Ok(AppendBytes([start.into(), body, end]))
}

impl ReceivedRows {
    /// Whether the body is as long as the header says, so that a reader finds what is behind it.
    fn is_whole(&self) -> bool {
        let message = root_as_message(&self.header).ok();
        let said = message.and_then(|message| usize::try_from(message.bodyLength()).ok());
        said == Some(self.body.len()) && self.body.len().is_multiple_of(IPC_ALIGNMENT)
    }
}

/// The first body of a segment.
pub(super) fn write_start(sequences: &Sequences) -> Result<Vec<u8>> {
    let said = Said { sequences: sequences.clone(), ..Said::default() };
    let start = sized([write_said(&said)?.into(), Bytes::new(), Bytes::new()])?;
    framed(&start.parts().collect::<Vec<_>>())
}

/// An append so far, with a place for its size.
fn write_said(said: &Said) -> Result<Vec<u8>> {
    let json = serde_json::to_vec(said).map_err(|error| Error::internal(format!("an append is no JSON: {error}")))?;
    let mut append = vec![0; SIZE];
    append.extend_from_slice(&length(json.len())?);
    append.extend_from_slice(&json);
    Ok(append)
}

fn read_said(body: &[u8]) -> Option<(Said, &[u8])> {
    let end = 4 + number_at(body, 0)?;
    Some((serde_json::from_slice(body.get(4..end)?).ok()?, body.get(end..)?))
}

/// Remembers what a producer has sent; those that have sent nothing for longest are forgotten.
pub(super) fn note(sequences: &mut Sequences, producer: &Producer, end: u64) {
    sequences.insert(producer.id.clone(), (producer.sequence, end));
    if sequences.len() > MAX_PRODUCERS {
        let oldest = sequences.iter().min_by_key(|(_, (_, end))| *end).map(|(id, _)| id.clone());
        oldest.map(|id| sequences.remove(&id));
    }
}

impl Segment {
    pub(super) fn load(files: &dyn Files, folder: &str, first: u64) -> Result<Self> {
        let path = path(folder, first);
        let bytes = files.read(&path).map_err(|error| failed(files, &path, error))?;
        Ok(Self { place: files.describe(&path), bytes, row: first, at: MAGIC.len(), rest: 0..0 })
    }

    /// The next append; none at the end of the last whole body.
    pub(super) fn next(&mut self) -> Result<Option<Body<'_>>> {
        if !self.bytes.starts_with(MAGIC) {
            return Ok(None);
        }
        while self.rest.is_empty() {
            let Some(size) = body_at(&self.bytes, self.at).map(<[u8]>::len) else { return Ok(None) };
            self.rest = self.at + HEAD..self.at + HEAD + size;
            self.at += HEAD + size + FOOT;
        }
        let unreadable = || corrupt(&self.place, self.rest.start as u64, "an append cannot be read");
        let size = number_at(&self.bytes, self.rest.start).ok_or_else(unreadable)?;
        let (start, end) = (self.rest.start + SIZE, self.rest.start + SIZE + size);
        let append = self.bytes.get(start..end).filter(|_| end <= self.rest.end).ok_or_else(unreadable)?;
        let (said, ipc) = read_said(append).ok_or_else(unreadable)?;
        self.rest.start = end;
        let start = self.row;
        self.row += said.rows;
        Ok(Some(Body { start, said, ipc }))
    }

    /// The whole bytes of the last segment, of which a crash may have left a part behind them.
    ///
    /// # Errors
    /// Names the place of anything else.
    fn whole_bytes(&self) -> Result<usize> {
        let at = if self.bytes.starts_with(MAGIC) { self.at } else { 0 };
        if at < self.bytes.len() && !is_torn(MAGIC, &self.bytes, at) {
            return Err(self.damaged());
        }
        Ok(at)
    }

    /// The error for what cannot be read at its place.
    pub(super) fn damaged(&self) -> Error {
        let at = if self.bytes.starts_with(MAGIC) { self.at } else { 0 };
        corrupt(&self.place, at as u64, "a checksum does not fit")
    }
}

impl Body<'_> {
    /// The number behind its last row.
    pub(super) const fn end(&self) -> u64 {
        self.start + self.said.rows
    }

    /// Its rows; none for one that has none.
    pub(super) fn rows(&self) -> Result<Option<RecordBatch>> {
        if self.ipc.is_empty() {
            return Ok(None);
        }
        Ok(read_stream(self.ipc)?.pop())
    }
}

/// Finds the end of the log and cuts off what a crash left behind it.
pub(super) fn recover(files: &dyn Files, folder: &str) -> Result<Recovered> {
    let mut recovered = Recovered::default();
    for first in firsts(files, folder)?.into_iter().rev() {
        let is_last = recovered.last.is_none();
        let mut segment = Segment::load(files, folder, first)?;
        let (mut sequences, mut is_begun) = (Sequences::new(), false);
        while let Some(body) = segment.next()? {
            sequences.extend(body.said.sequences.clone());
            if let Some(producer) = &body.said.producer {
                note(&mut sequences, producer, body.end());
            }
            is_begun = true;
        }
        let whole = segment.whole_bytes()?;
        let whole = if is_begun { whole } else { 0 };
        if is_last {
            cut(files, folder, first, (segment.bytes.len(), whole))?;
            recovered.last = Some((first, whole as u64));
            recovered.end = segment.row;
        } else if segment.row != recovered.end || whole < segment.bytes.len() {
            return Err(segment.damaged());
        }
        if is_begun {
            // Of one of which nothing is whole the one before knows what the producers had sent.
            recovered.sequences = sequences;
            return Ok(recovered);
        }
    }
    Ok(recovered)
}

fn cut(files: &dyn Files, folder: &str, first: u64, (length, whole): (usize, usize)) -> Result<()> {
    let path = path(folder, first);
    let fail = |error| failed(files, &path, error);
    let mut file = files.append(&path).map_err(fail)?;
    if whole < length {
        tracing::warn!(path, torn = length - whole, "cut off what a crash left half written");
        file.truncate(whole as u64).map_err(fail)?;
    }
    // A process that died may have left appends that the disk does not have yet.
    file.sync().map_err(fail)
}
