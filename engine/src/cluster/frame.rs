//! Frames: what driver and executors send each other in an exchange.
//!
//! A body is the length of its head in 4 bytes, little endian, the head in JSON, and rows as an Arrow IPC stream, or
//! nothing behind the head. Frames are small enough for any transport, so rows of one head may come in several.

use bytes::{BufMut, Bytes, BytesMut};
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::StreamWriter;
use datafusion::arrow::record_batch::RecordBatch;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::arrays::{compact_views, used_bytes};
use crate::error::{Error, Result};

/// The largest body that is aimed at, in bytes; a single row may make a larger one.
pub const LARGEST_BODY: usize = 1 << 20;

/// A message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What kind it is, below 128.
    pub kind: u8,
    /// What it says.
    pub body: Bytes,
}

impl Frame {
    /// A frame of a head and perhaps rows.
    pub(super) fn of(kind: u8, head: &impl Serialize, rows: Option<&RecordBatch>) -> Result<Self> {
        let json = to_json(head)?;
        let mut body = BytesMut::with_capacity(json.len() + 4);
        body.put_u32_le(u32::try_from(json.len()).map_err(|_| Error::internal("a frame's head is too long"))?);
        body.put_slice(&json);
        if let Some(rows) = rows {
            let mut writer = StreamWriter::try_new((&mut body).writer(), &rows.schema())?;
            // Rows that were taken from others, or cut off, share buffers with those.
            writer.write(&compact_views(rows)?)?;
            writer.finish()?;
        }
        Ok(Self { kind, body: body.freeze() })
    }

    /// The head and the rows of a frame.
    pub(super) fn read<H: DeserializeOwned>(&self) -> Result<(H, Option<RecordBatch>)> {
        let cut_short = || Error::internal("a frame is cut short");
        let (length, rest) = self.body.split_first_chunk::<4>().ok_or_else(cut_short)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).map_err(|_| cut_short())?;
        let (head, rows) = rest.split_at_checked(length).ok_or_else(cut_short)?;
        let head = from_json(head)?;
        if rows.is_empty() {
            return Ok((head, None));
        }
        let rows = StreamReader::try_new(rows, None)?.next().transpose()?;
        Ok((head, Some(rows.ok_or_else(cut_short)?)))
    }
}

/// `rows` in parts that make bodies of about [`LARGEST_BODY`].
pub(super) fn in_parts(rows: &RecordBatch) -> Result<Vec<RecordBatch>> {
    let (bytes, count) = (used_bytes(rows)?, rows.num_rows());
    let parts = bytes.div_ceil(LARGEST_BODY).clamp(1, count.max(1));
    let each = count.div_ceil(parts).max(1);
    Ok((0..parts)
        .map(|part| part * each)
        .take_while(|from| *from < count.max(1))
        .map(|from| rows.slice(from, each.min(count - from)))
        .collect())
}

pub(super) fn to_json(value: &impl Serialize) -> Result<Vec<u8>> {
    serde_json::to_vec(value).map_err(|error| Error::internal(format!("a message is no JSON: {error}")))
}

pub(super) fn from_json<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    serde_json::from_slice(json).map_err(|error| Error::internal(format!("a message cannot be read: {error}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, StringViewArray};
    use datafusion::arrow::datatypes::Schema;

    use super::*;
    use crate::arrays::batch_of;

    fn texts(count: usize) -> RecordBatch {
        let texts: ArrayRef = Arc::new(StringViewArray::from_iter_values((0..count).map(|row| format!("{row:0200}"))));
        RecordBatch::try_from_iter([("text", texts)]).unwrap()
    }

    #[test]
    fn a_frame_is_read_as_it_was_made() {
        let frame = Frame::of(3, &("head", 7), Some(&texts(5))).unwrap();
        assert_eq!(frame.read::<(String, u32)>().unwrap(), (("head".to_owned(), 7), Some(texts(5))));
        let bare = Frame::of(3, &1, None).unwrap();
        assert_eq!(bare.read::<u32>().unwrap(), (1, None));
        let cut = Frame { body: frame.body.slice(..frame.body.len() / 4), ..frame };
        cut.read::<(String, u32)>().unwrap_err();
    }

    #[test]
    fn rows_without_columns_are_counted() {
        let rows = batch_of(&Arc::new(Schema::empty()), Vec::new(), 12).unwrap();
        let (_, read) = Frame::of(1, &(), Some(&rows)).unwrap().read::<()>().unwrap();
        assert_eq!(read.unwrap().num_rows(), 12);
    }

    #[test]
    fn many_rows_go_in_several_frames() {
        let rows = texts(20_000);
        let parts = in_parts(&rows).unwrap();
        assert!(parts.len() > 3);
        assert_eq!(parts.iter().map(RecordBatch::num_rows).sum::<usize>(), 20_000);
        for part in &parts {
            let frame = Frame::of(1, &(), Some(part)).unwrap();
            assert!(frame.body.len() < 2 * LARGEST_BODY, "{}", frame.body.len());
        }
        assert_eq!(in_parts(&texts(0)).unwrap().len(), 1);
    }
}
