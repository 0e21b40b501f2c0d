//! Parquet and Arrow IPC files as batches of at most [`MAX_BATCH_ROWS`] rows.

use std::fmt;
use std::fs::File;
use std::io::{BufReader, Read, Seek};
use std::sync::Arc;

use datafusion::arrow::error::ArrowError;
use datafusion::arrow::ipc::reader::{FileReader, StreamReader};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::parquet::arrow::ProjectionMask;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use millstream_engine::source::{Offset, Split};
use millstream_engine::{Error, Result};

use super::Format;
use super::conform::{ColumnarPiece, find_columns};
use super::rows::RowShape;

/// The most rows of one split.
const MAX_BATCH_ROWS: usize = 64 * 1024;
/// What an Arrow file begins with; a stream does not.
const ARROW_MAGIC: &[u8; 6] = b"ARROW1";

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

/// One file, read from front to back.
pub(crate) struct ColumnarInput {
    shape: Arc<RowShape>,
    place: Arc<str>,
    batches: Batches,
    columns: Vec<usize>,
    /// What is left of a batch larger than a split.
    rest: Option<RecordBatch>,
    rows: u64,
}

impl fmt::Debug for ColumnarInput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ColumnarInput").field("place", &self.place).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl ColumnarInput {
    /// Opens `file`, which messages call `place`, and goes to its row `skip`, counted from 0.
    ///
    /// # Errors
    /// Fails if the file is not of the format or lacks a declared column.
    pub(crate) fn open(shape: &Arc<RowShape>, format: Format, file: File, place: &str, skip: u64) -> Result<Self> {
        let (batches, columns) = match format {
            Format::Parquet => open_parquet(shape, file, place, skip)?,
            _ => open_arrow(shape, file, place)?,
        };
        let mut input =
            Self { shape: Arc::clone(shape), place: place.into(), batches, columns, rest: None, rows: skip };
        if format != Format::Parquet {
            input.pass(skip)?;
        }
        Ok(input)
    }

    /// Drops the first rows of the file.
    fn pass(&mut self, rows: u64) -> Result<()> {
        let mut left = rows;
        while left > 0
            && let Some(batch) = self.next_batch(Some(left))?
        {
            left -= batch.num_rows() as u64;
        }
        Ok(())
    }

    /// The next split, which begins at `start` and has at most `limit` rows; `None` at the end of the file.
    pub(crate) fn next(&mut self, start: Offset, limit: Option<u64>) -> Result<Option<Split>> {
        let Some(batch) = self.next_batch(limit)? else { return Ok(None) };
        let arrays = self.columns.iter().map(|index| Arc::clone(batch.column(*index))).collect();
        let place = (Arc::clone(&self.place), self.rows);
        let rows = batch.num_rows();
        self.rows += rows as u64;
        let piece = ColumnarPiece { shape: Arc::clone(&self.shape), arrays, rows, start, place };
        let offsets = start..Offset(start.0 + rows as u64);
        Ok(Some(Split { offsets, bytes: batch.get_array_memory_size(), decode: Box::new(piece) }))
    }

    fn next_batch(&mut self, limit: Option<u64>) -> Result<Option<RecordBatch>> {
        let limit =
            limit.and_then(|limit| usize::try_from(limit).ok()).map_or(MAX_BATCH_ROWS, |n| n.min(MAX_BATCH_ROWS));
        loop {
            let batch = match self.rest.take() {
                Some(batch) => batch,
                None => match self.batches.next() {
                    None => return Ok(None),
                    Some(batch) => batch.map_err(|error| broken(&self.place, error))?,
                },
            };
            let rows = batch.num_rows();
            if rows > limit {
                self.rest = Some(batch.slice(limit, rows - limit));
                return Ok(Some(batch.slice(0, limit)));
            }
            if rows > 0 {
                return Ok(Some(batch));
            }
        }
    }
}

fn open_parquet(shape: &RowShape, file: File, place: &str, skip: u64) -> Result<(Batches, Vec<usize>)> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(file).map_err(|error| broken(place, error))?;
    let found = find_columns(shape, builder.schema(), place)?;
    // The reader gives the chosen columns in the file's order.
    let mut in_file = found.clone();
    in_file.sort_unstable();
    in_file.dedup();
    let columns = found.iter().filter_map(|index| in_file.iter().position(|other| other == index)).collect();
    let mask = ProjectionMask::roots(builder.parquet_schema(), in_file);
    let skip = usize::try_from(skip).unwrap_or(usize::MAX);
    let reader = builder.with_projection(mask).with_batch_size(MAX_BATCH_ROWS).with_offset(skip).build();
    Ok((Box::new(reader.map_err(|error| broken(place, error))?), columns))
}

fn open_arrow(shape: &RowShape, mut file: File, place: &str) -> Result<(Batches, Vec<usize>)> {
    let mut magic = [0; ARROW_MAGIC.len()];
    let is_file = file.read_exact(&mut magic).is_ok() && magic == *ARROW_MAGIC;
    file.rewind().map_err(|error| broken(place, error))?;
    let reader = BufReader::new(file);
    if is_file {
        let reader = FileReader::try_new(reader, None).map_err(|error| broken(place, error))?;
        let columns = find_columns(shape, &reader.schema(), place)?;
        return Ok((Box::new(reader), columns));
    }
    let reader = StreamReader::try_new(reader, None).map_err(|error| broken(place, error))?;
    let columns = find_columns(shape, &reader.schema(), place)?;
    Ok((Box::new(reader), columns))
}

fn broken(place: &str, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::external(format!("reading {place}"), error)
}
