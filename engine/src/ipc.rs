//! Reading the Arrow IPC format where nobody vouches for the bytes.
//!
//! The readers of the Arrow crate trust what a message says about its buffers: one that lies beyond the body, or is said
//! to be huge once it is unpacked, would end the task or the process. So messages are checked before they are read, and
//! a reader that gives up on what is left of it is heard.

use std::panic::catch_unwind;

use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::{CompressionType, Message, RecordBatch as BatchHeader, root_as_message};
use datafusion::arrow::record_batch::RecordBatch;

/// The most rows of a message whose body has fewer bits: only columns of nulls have rows without bytes.
const MAX_ROWS: u64 = 1 << 20;
/// The most that the buffers of one message may have once they are unpacked, in bytes.
const MAX_UNPACKED_BYTES: u64 = 1 << 30;
/// What begins a message of a stream, before its length.
const CONTINUATION: u32 = u32::MAX;
/// The bytes before a packed buffer, which say how long it is unpacked.
const PACKED_HEAD: usize = 8;

/// Checks what a message says about its body.
///
/// # Errors
/// Fails if it is no message, or says something that its body is not.
pub fn check_message(header: &[u8], body: &[u8]) -> Result<(), ArrowError> {
    let message = root_as_message(header).map_err(|error| wrong(&error.to_string()))?;
    match batch_of(&message) {
        Some(batch) => check_batch(&batch, body),
        None => Ok(()),
    }
}

/// The batches of a stream, which is all there.
///
/// # Errors
/// Fails at the first message that cannot be read.
pub fn read_stream(bytes: &[u8]) -> Result<Vec<RecordBatch>, ArrowError> {
    check_stream(bytes)?;
    let read = || StreamReader::try_new(bytes, None)?.collect();
    // Types that no array can have are found while arrays are made.
    catch_unwind(read).unwrap_or_else(|_| Err(wrong("its columns cannot be made")))
}

fn check_stream(mut rest: &[u8]) -> Result<(), ArrowError> {
    let cut_off = || wrong("it is cut off");
    while !rest.is_empty() {
        let mut length = take_u32(&mut rest).ok_or_else(cut_off)?;
        // Streams from before version 0.15 have the length alone.
        if length == CONTINUATION {
            length = take_u32(&mut rest).ok_or_else(cut_off)?;
        }
        if length == 0 {
            return Ok(());
        }
        let header = take(&mut rest, u64::from(length)).ok_or_else(cut_off)?;
        let message = root_as_message(header).map_err(|error| wrong(&error.to_string()))?;
        let size = u64::try_from(message.bodyLength()).map_err(|_| wrong("the length of a body is negative"))?;
        let body = take(&mut rest, size).ok_or_else(cut_off)?;
        if let Some(batch) = batch_of(&message) {
            check_batch(&batch, body)?;
        }
    }
    Ok(())
}

fn batch_of<'a>(message: &Message<'a>) -> Option<BatchHeader<'a>> {
    message.header_as_record_batch().or_else(|| message.header_as_dictionary_batch()?.data())
}

fn check_batch(batch: &BatchHeader<'_>, body: &[u8]) -> Result<(), ArrowError> {
    let unpacked = check_buffers(batch, body)?;
    let most = MAX_ROWS.max(unpacked.saturating_mul(8));
    let is_counted = |rows: i64| u64::try_from(rows).is_ok_and(|rows| rows <= most);
    let mut nodes = batch.nodes().into_iter().flatten();
    if !is_counted(batch.length()) || !nodes.all(|node| is_counted(node.length()) && is_counted(node.null_count())) {
        return Err(wrong("a number of rows does not fit the body"));
    }
    if batch.variadicBufferCounts().into_iter().flatten().any(|count| count < 0) {
        return Err(wrong("a number of buffers is negative"));
    }
    Ok(())
}

/// Checks that the buffers are in the body; how many bytes they have once they are unpacked.
fn check_buffers(batch: &BatchHeader<'_>, body: &[u8]) -> Result<u64, ArrowError> {
    let Some(compression) = batch.compression() else {
        for buffer in batch.buffers().into_iter().flatten() {
            part(body, buffer.offset(), buffer.length()).ok_or_else(|| wrong("a buffer is beyond the body"))?;
        }
        return Ok(body.len() as u64);
    };
    if compression.codec() == CompressionType::LZ4_FRAME {
        // Its reader goes on unpacking beyond what was announced.
        return Err(wrong("it is packed by LZ4: send it unpacked, or packed by ZSTD"));
    }
    let mut unpacked = 0_u64;
    for buffer in batch.buffers().into_iter().flatten() {
        let bytes = part(body, buffer.offset(), buffer.length()).ok_or_else(|| wrong("a buffer is beyond the body"))?;
        if bytes.is_empty() {
            continue;
        }
        let size = bytes.first_chunk::<PACKED_HEAD>().map(|size| i64::from_le_bytes(*size));
        // -1 says that it is not packed.
        let size = size.filter(|size| *size >= -1).ok_or_else(|| wrong("a packed buffer has no length"))?;
        unpacked = unpacked.saturating_add(u64::try_from(size).unwrap_or(bytes.len() as u64));
    }
    if unpacked > MAX_UNPACKED_BYTES {
        return Err(wrong(&format!("it has {unpacked} bytes unpacked, and {MAX_UNPACKED_BYTES} are allowed")));
    }
    Ok(unpacked)
}

/// The part of a body that a buffer is said to be.
fn part(body: &[u8], offset: i64, length: i64) -> Option<&[u8]> {
    let (offset, length) = (usize::try_from(offset).ok()?, usize::try_from(length).ok()?);
    body.get(offset..offset.checked_add(length)?)
}

fn take<'a>(rest: &mut &'a [u8], count: u64) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(usize::try_from(count).ok()?)?;
    *rest = left;
    Some(taken)
}

fn take_u32(rest: &mut &[u8]) -> Option<u32> {
    take(rest, 4).and_then(|bytes| bytes.first_chunk()).map(|bytes| u32::from_le_bytes(*bytes))
}

fn wrong(what: &str) -> ArrowError {
    ArrowError::IpcError(format!("a message is wrong: {what}"))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int64Array, ListArray, NullArray, StringArray, StringViewArray};
    use datafusion::arrow::datatypes::Int32Type;
    use datafusion::arrow::ipc::writer::{IpcWriteOptions, StreamWriter};

    use super::*;
    use crate::testing::damaged;

    fn rows() -> RecordBatch {
        let list = ListArray::from_iter_primitive::<Int32Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
        let long = StringViewArray::from(vec![Some("short"), Some("longer than what is kept in a view"), None]);
        let columns: [(&str, ArrayRef); 4] = [
            ("n", Arc::new(Int64Array::from(vec![Some(1), None, Some(3)]))),
            ("s", Arc::new(StringArray::from(vec!["a", "", "längere"]))),
            ("l", Arc::new(list)),
            ("v", Arc::new(long)),
        ];
        RecordBatch::try_from_iter(columns).unwrap()
    }

    fn stream(compression: Option<CompressionType>) -> Vec<u8> {
        let mut bytes = Vec::new();
        let options = IpcWriteOptions::default().try_with_compression(compression).unwrap();
        let mut writer = StreamWriter::try_new_with_options(&mut bytes, &rows().schema(), options).unwrap();
        writer.write(&rows()).unwrap();
        writer.finish().unwrap();
        drop(writer);
        bytes
    }

    #[test]
    fn what_is_whole_is_read() {
        for compression in [None, Some(CompressionType::ZSTD)] {
            assert_eq!(read_stream(&stream(compression)).unwrap(), [rows()]);
        }
        let packed = read_stream(&stream(Some(CompressionType::LZ4_FRAME)));
        assert!(packed.unwrap_err().to_string().contains("LZ4"));
        assert!(read_stream(&[]).is_err());
        let whole = stream(None);
        assert!(read_stream(&whole[..whole.len() / 2]).unwrap_err().to_string().contains("cut off"));
    }

    #[test]
    fn rows_without_bytes_are_few() {
        let nulls = |count| {
            let column: ArrayRef = Arc::new(NullArray::new(count));
            let rows = RecordBatch::try_from_iter([("n", column)]).unwrap();
            let mut bytes = Vec::new();
            let mut writer = StreamWriter::try_new(&mut bytes, &rows.schema()).unwrap();
            writer.write(&rows).unwrap();
            writer.finish().unwrap();
            drop(writer);
            bytes
        };
        assert_eq!(read_stream(&nulls(1_000)).unwrap()[0].num_rows(), 1_000);
        assert!(read_stream(&nulls(1 << 40)).is_err());
    }

    #[test]
    fn fuzz_streams_that_are_damaged() {
        let streams = [None, Some(CompressionType::ZSTD)].map(stream);
        bolero::check!().with_type::<(u8, Vec<(u16, u8)>, u16)>().for_each(|(which, edits, length)| {
            drop(read_stream(&damaged(&streams[usize::from(*which) % streams.len()], edits, *length)));
        });
    }
}
