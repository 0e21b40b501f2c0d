//! What is exchanged: rows of one schema, whose bodies mean nothing here.
//!
//! A share is what one process sends to one task: its frames in batches of limited size, and a marker that says how
//! many they were. Only the marker is the end; streams also end when something breaks.

use std::sync::{Arc, LazyLock};

use datafusion::arrow::array::{Array, ArrayRef, AsArray, BinaryArray, UInt8Array, UInt32Array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, UInt8Type, UInt32Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::internal_datafusion_err;
use datafusion::error::{DataFusionError, Result as DataFusionResult};

use super::problem::failed;

/// The column that decides which task a frame goes to; in answers, the task that it comes from.
pub(crate) const ROUTE: &str = "route";
const KIND: &str = "kind";
const BODY: &str = "body";

/// The kind of markers: frames that say how many frames their sender has sent before them.
pub(crate) const END: u8 = 255;

/// The most bytes that one body may have.
///
/// Nothing on the way limits a message: both ends of a connection are set to take any size, and a batch is never split
/// into several. What does limit a body is that Arrow's offsets count up to 2 GiB, and memory: a batch with a body is
/// held about four times on its way, and a receiver reads on until it has this much that nobody has taken.
pub(crate) const MAX_BODY: usize = 64 << 20;

/// The bytes of bodies in one batch, unless its only body has more. A batch is a message.
const BATCH_BYTES: usize = 1 << 20;
/// What a row takes besides its body, about.
const ROW_BYTES: usize = 16;

static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    Arc::new(Schema::new(vec![
        Field::new(ROUTE, DataType::UInt32, false),
        Field::new(KIND, DataType::UInt8, false),
        Field::new(BODY, DataType::Binary, false),
    ]))
});

/// The columns of what is exchanged: route, which the plane sets, kind, and the opaque body.
pub(crate) fn frame_schema() -> SchemaRef {
    Arc::clone(&SCHEMA)
}

/// A batch of frames, each a kind and a body, that have no route yet.
///
/// # Errors
/// Fails if the bodies together have more than 2 GiB.
pub(crate) fn frames<'a>(rows: impl IntoIterator<Item = (u8, &'a [u8])>) -> DataFusionResult<RecordBatch> {
    let (kinds, bodies): (Vec<u8>, Vec<&[u8]>) = rows.into_iter().unzip();
    let bytes: usize = bodies.iter().map(|body| body.len()).sum();
    if i32::try_from(bytes).is_err() {
        return Err(failed(&format!("{bytes} bytes are too many for one batch of frames")));
    }
    assembled(0, Arc::new(UInt8Array::from(kinds)), Arc::new(BinaryArray::from_iter_values(bodies)))
}

/// What is sent to the task of `route`: the frames of `batches`, in batches of limited size, and the marker.
///
/// # Errors
/// Fails for batches without the columns of frames, a body of more than [`MAX_BODY`] bytes, and the kind [`END`].
pub(crate) fn share(batches: &[RecordBatch], route: u32) -> DataFusionResult<Vec<RecordBatch>> {
    let (mut share, mut count) = (Vec::new(), 0);
    for batch in batches {
        let batch = routed(batch, route)?;
        check(&batch)?;
        count += batch.num_rows() as u64;
        share.extend(cut(&batch)?);
    }
    share.push(marker(route, count)?);
    Ok(share)
}

/// Which task each frame goes to, or comes from.
pub(crate) fn routes(batch: &RecordBatch) -> DataFusionResult<&UInt32Array> {
    let column = batch.column_by_name(ROUTE);
    column.and_then(|column| column.as_primitive_opt::<UInt32Type>()).ok_or_else(|| no_column(ROUTE))
}

/// What each frame is.
pub(crate) fn kinds(batch: &RecordBatch) -> DataFusionResult<&UInt8Array> {
    let column = batch.column_by_name(KIND);
    column.and_then(|column| column.as_primitive_opt::<UInt8Type>()).ok_or_else(|| no_column(KIND))
}

/// What each frame says.
pub(crate) fn bodies(batch: &RecordBatch) -> DataFusionResult<&BinaryArray> {
    let column = batch.column_by_name(BODY);
    column.and_then(|column| column.as_binary_opt::<i32>()).ok_or_else(|| no_column(BODY))
}

/// How many frames a marker says were sent before it.
pub(crate) fn announced(body: &[u8]) -> DataFusionResult<u64> {
    let count = <[u8; 8]>::try_from(body).map_err(|_| internal_datafusion_err!("a marker has no count of frames"))?;
    Ok(u64::from_le_bytes(count))
}

fn marker(route: u32, count: u64) -> DataFusionResult<RecordBatch> {
    let body = BinaryArray::from_iter_values([count.to_le_bytes()]);
    assembled(route, Arc::new(UInt8Array::from(vec![END])), Arc::new(body))
}

fn routed(batch: &RecordBatch, route: u32) -> DataFusionResult<RecordBatch> {
    let column = |name| batch.column_by_name(name).cloned().ok_or_else(|| no_column(name));
    assembled(route, column(KIND)?, column(BODY)?)
}

fn assembled(route: u32, kinds: ArrayRef, bodies: ArrayRef) -> DataFusionResult<RecordBatch> {
    let routes = UInt32Array::from_value(route, kinds.len());
    Ok(RecordBatch::try_new(frame_schema(), vec![Arc::new(routes), kinds, bodies])?)
}

fn check(batch: &RecordBatch) -> DataFusionResult<()> {
    if kinds(batch)?.values().contains(&END) {
        return Err(failed(&format!("a frame has the kind {END}, which is that of markers")));
    }
    let bodies = bodies(batch)?;
    match (0..batch.num_rows()).map(|row| bodies.value(row).len()).max() {
        Some(bytes) if bytes > MAX_BODY => {
            Err(failed(&format!("a frame has a body of {bytes} bytes, which may be {MAX_BODY}")))
        }
        _ => Ok(()),
    }
}

/// The same rows in batches of about [`BATCH_BYTES`]; nothing is copied.
fn cut(batch: &RecordBatch) -> DataFusionResult<Vec<RecordBatch>> {
    let bodies = bodies(batch)?;
    let (mut parts, mut start, mut bytes) = (Vec::new(), 0, 0);
    for row in 0..batch.num_rows() {
        let more = bodies.value(row).len() + ROW_BYTES;
        if row > start && bytes + more > BATCH_BYTES {
            parts.push(batch.slice(start, row - start));
            (start, bytes) = (row, 0);
        }
        bytes += more;
    }
    if start < batch.num_rows() {
        parts.push(batch.slice(start, batch.num_rows() - start));
    }
    Ok(parts)
}

fn no_column(name: &str) -> DataFusionError {
    failed(&format!("a batch of frames has no column {name}, or one of another type"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_cut_where_its_bodies_reach_the_limit() {
        let body = vec![0; BATCH_BYTES / 4];
        let batch = frames((0..7).map(|_| (1, body.as_slice()))).unwrap();
        let rows: Vec<_> = share(&[batch], 9).unwrap().iter().map(RecordBatch::num_rows).collect();
        assert_eq!(rows, [3, 3, 1, 1]);
    }

    #[test]
    fn a_body_above_the_limit_of_a_batch_travels_alone() {
        let (small, large) = ([0; 1], vec![0; BATCH_BYTES + 1]);
        let batch = frames([(1, small.as_slice()), (1, large.as_slice()), (1, small.as_slice())]).unwrap();
        let rows: Vec<_> = share(&[batch], 9).unwrap().iter().map(RecordBatch::num_rows).collect();
        assert_eq!(rows, [1, 1, 1, 1]);
    }

    #[test]
    fn bodies_that_are_too_large_and_the_kind_of_markers_are_refused() {
        let large = vec![0; MAX_BODY + 1];
        let refused = share(&[frames([(1, large.as_slice())]).unwrap()], 0).unwrap_err().to_string();
        assert!(refused.contains("67108865 bytes"), "{refused}");
        let refused = share(&[frames([(END, [0].as_slice())]).unwrap()], 0).unwrap_err().to_string();
        assert!(refused.contains("markers"), "{refused}");
    }
}
