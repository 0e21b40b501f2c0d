//! What a segment of a write-ahead log holds.
//!
//! A segment begins with `MSWAL001` and holds groups of frames, each group appended and synced as one:
//!
//! ```text
//! group: a body as `framing` has it
//! body:  seq of its first frame u64 | number of frames u32 | frames
//! frame: length of JSON u32 | length of rows u32 | event as JSON | rows as an Arrow IPC stream, or nothing
//! ```
//!
//! Integers are little endian. Frames follow each other by sequence number; segments are named after their first one
//! and dropped once no checkpoint needs them. Only the last group of the last segment can be torn.

use std::collections::VecDeque;

use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use super::super::framing::{self, FOOT, HEAD, framed, is_torn, length, number_at};
use super::super::record::corrupt;
use crate::error::{Error, Result};
use crate::ingest::{LoggedEvent, Record};
use crate::ipc::read_stream;

pub(super) const MAGIC: &[u8; 8] = b"MSWAL001";
/// The bytes of a group's body before its frames.
const GROUP_BODY_HEAD: usize = 12;
/// A record with its rows.
#[derive(Debug)]
pub(crate) struct Frame {
    pub(crate) seq: u64,
    pub(crate) event: LoggedEvent,
    /// How many rows could not be used.
    pub(crate) bad: u64,
    pub(crate) rows: Option<RecordBatch>,
}

/// What a frame says besides its rows.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
enum Said {
    Event(LoggedEvent),
    WithBad(LoggedEvent, u64),
}

impl Frame {
    /// What has to be kept of a record.
    pub(crate) fn of(record: &Record) -> Self {
        let rows = record.block.as_ref().map(|block| block.rows.clone());
        Self { seq: record.seq, event: record.event.clone(), bad: record.bad, rows }
    }

    fn write(&self, out: &mut Vec<u8>) -> Result<()> {
        let event = self.event.clone();
        let said = if self.bad == 0 { Said::Event(event) } else { Said::WithBad(event, self.bad) };
        let json =
            serde_json::to_vec(&said).map_err(|error| Error::internal(format!("an event is no JSON: {error}")))?;
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

/// The bytes of a group, whose first frame has or would have the number `seq`.
pub(super) fn write_group(seq: u64, frames: &[Frame]) -> Result<Vec<u8>> {
    let mut body = seq.to_le_bytes().to_vec();
    body.extend_from_slice(&length(frames.len())?);
    for frame in frames {
        frame.write(&mut body)?;
    }
    framed(&[&body])
}

/// The frames of a group's body; `None` if it is not made as it should be.
fn read_group(body: &[u8]) -> Option<Result<Vec<Frame>>> {
    let (mut seq, count) = group_head(body)?;
    let mut at = GROUP_BODY_HEAD;
    let mut frames = Vec::new();
    for _ in 0..count {
        let json_end = at + 8 + number_at(body, at)?;
        let rows_end = json_end + number_at(body, at + 4)?;
        let (event, bad) = match serde_json::from_slice(body.get(at + 8..json_end)?).ok()? {
            Said::Event(event) => (event, 0),
            Said::WithBad(event, bad) => (event, bad),
        };
        let rows = body.get(json_end..rows_end)?;
        let rows = match (!rows.is_empty()).then(|| read_rows(rows)).transpose() {
            Ok(rows) => rows,
            Err(error) => return Some(Err(error)),
        };
        frames.push(Frame { seq, event, bad, rows });
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

fn read_rows(bytes: &[u8]) -> Result<RecordBatch> {
    read_stream(bytes)?.pop().ok_or_else(|| Error::internal("a frame has a schema and no rows"))
}

/// The frames of a segment from the number `from` on.
///
/// # Errors
/// Names the place of a group that cannot be read.
pub(super) fn frames_from(place: &str, bytes: &[u8], from: u64) -> Result<VecDeque<Frame>> {
    let (mut frames, mut at) = (VecDeque::new(), MAGIC.len());
    while let Some(body) = body_at(bytes, at) {
        let group = read_group(body).ok_or_else(|| corrupt(place, at as u64, "a group cannot be read"))??;
        frames.extend(group.into_iter().filter(|frame| frame.seq >= from));
        at += HEAD + body.len() + FOOT;
    }
    Ok(frames)
}

/// The number after the last whole frame of a segment, and where its group ends.
pub(super) fn whole_part(
    place: &str,
    bytes: &[u8],
    (first, mut next): (u64, u64),
    is_last: bool,
) -> Result<(u64, usize)> {
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
        whole += HEAD + body.len() + FOOT;
    }
    if whole < bytes.len() && !(is_last && is_torn(MAGIC, bytes, whole)) {
        return Err(corrupt(place, whole as u64, "a checksum does not fit"));
    }
    Ok((next, whole))
}

/// The body of the group at `at`, if it is whole.
fn body_at(bytes: &[u8], at: usize) -> Option<&[u8]> {
    framing::body_at(bytes, at).filter(|body| body.len() >= GROUP_BODY_HEAD)
}
