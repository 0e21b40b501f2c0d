//! A pushed stream whose rows are logged: acknowledged when they are durable, and read again as often as need be.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::compute::can_cast_types;
use datafusion::arrow::datatypes::{DataType, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::durable::{Appended, LoggedRows, Producer, ReceivedRows, RowLog, RowLogReader};
use millstream_engine::plan::StreamDefinition;
use millstream_engine::size::{used_bytes, without_waste};
use millstream_engine::source::{InputIndex, Offset, PartitionReader, Source, Split};
use millstream_engine::{Error, Result};

use super::{MAX_SPLIT_ROWS, name_of, retention, shape_of};
use crate::format::column::sql_name;
use crate::format::conform::{ColumnarPiece, find_columns};
use crate::format::rows::RowShape;

/// The stream: a source for the engine, and where rows are appended; clones are the same one.
#[derive(Debug, Clone)]
pub struct LoggedPush {
    shape: Arc<RowShape>,
    name: Arc<str>,
    log: RowLog,
    /// What no other log is called.
    id: Arc<str>,
    /// How long rows are kept that no query needs.
    retention: Option<Duration>,
}

impl LoggedPush {
    /// The stream that `definition` declares, over its log; `id` is what no other log is called.
    ///
    /// # Errors
    /// Fails for options that are unknown or wrong.
    pub fn new(definition: &StreamDefinition, log: RowLog, id: &str) -> Result<Self> {
        let retention = retention(definition)?;
        Ok(Self { shape: shape_of(definition)?, name: name_of(definition), log, id: id.into(), retention })
    }

    /// Drops rows that are older than the stream's retention, if it has one, and that no kept query needs: `needed_from`
    /// tells the first row that one does.
    ///
    /// # Errors
    /// As the disk fails.
    pub fn trim(&self, needed_from: impl FnOnce() -> Result<Offset>) -> Result<()> {
        match self.retention {
            Some(retention) => self.log.trim(needed_from()?.0, retention),
            None => Ok(()),
        }
    }

    /// Takes no rows any more.
    pub fn close(&self) {
        self.log.close();
    }

    /// The declared columns.
    pub fn schema(&self) -> &Schema {
        &self.shape.schema
    }

    /// The number of the oldest row that is kept.
    pub fn first_row(&self) -> u64 {
        self.log.start()
    }

    /// How many rows have come.
    pub fn rows(&self) -> u64 {
        self.log.end()
    }

    /// Appends rows; they are durable when this returns, all of them or none.
    ///
    /// Columns are found by their names, whatever their order. A value that does not fit its declared type makes its
    /// row a bad row of the queries that read it, which is treated as the stream's `bad_data` says.
    ///
    /// # Errors
    /// Fails if a declared column is missing or of a type that cannot be converted, and as the disk does.
    pub async fn append(&self, batch: &RecordBatch, by: Option<Producer>) -> Result<Appended> {
        self.log.append(self.conformed(batch)?, None, by).await
    }

    /// Appends rows that were received so; if they have the declared columns and no others they are logged as they are.
    ///
    /// # Errors
    /// Fails as [`LoggedPush::append`] does.
    pub async fn append_received(
        &self,
        batch: &RecordBatch,
        received: ReceivedRows,
        by: Option<Producer>,
    ) -> Result<Appended> {
        let rows = self.conformed(batch)?;
        let is_same = rows.schema().fields() == batch.schema().fields();
        self.log.append(rows, is_same.then_some(received), by).await
    }

    /// The declared columns of a batch, in their order and in its types.
    fn conformed(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let place = format!("a batch for {}", self.name);
        let columns = find_columns(&self.shape, &batch.schema(), &place)?;
        // Columns that are left out are not to be held by those that share their buffer.
        let rows = batch.project(&columns)?;
        let rows = if rows.num_columns() < batch.num_columns() { without_waste(rows)? } else { rows };
        for (index, (found, declared)) in rows.schema().fields().iter().zip(self.shape.schema.fields()).enumerate() {
            if !can_convert(found.data_type(), declared.data_type()) {
                let message = format!(
                    "column {:?} of {place} is a {}, and {} is declared",
                    self.shape.name(index),
                    found.data_type(),
                    sql_name(declared.data_type())
                );
                return Err(Error::data(message, "convert the column before it is sent"));
            }
        }
        Ok(rows)
    }
}

/// Whether values of a type are converted one by one; whole numbers become timestamps by the unit of the stream.
fn can_convert(found: &DataType, declared: &DataType) -> bool {
    found == declared || can_cast_types(found, declared)
}

#[async_trait]
impl Source for LoggedPush {
    fn is_replayable(&self) -> bool {
        true
    }

    async fn open(&self, from: &[Offset], index: Arc<dyn InputIndex>) -> Result<Vec<Box<dyn PartitionReader>>> {
        match index.notes().first() {
            // The offset of a query is a place in one log only.
            Some(known) if **known != *self.id => {
                let message = format!("{} was dropped and made anew since this query has read it", self.name);
                return Err(Error::state(message, "write into another sink, or let the state of the query go"));
            }
            Some(_) => {}
            None => index.push(&self.id)?,
        }
        // A query that has read nothing begins with the oldest row there is.
        let from = from.first().map_or(0, |offset| offset.0);
        let from = if from == 0 { self.log.start() } else { from };
        if from > self.log.end() {
            let message = format!("{} has {} rows, and a query has read {from} of them", self.name, self.log.end());
            return Err(Error::state(message, "restore the data directory from a copy"));
        }
        let (shape, name) = (Arc::clone(&self.shape), Arc::clone(&self.name));
        Ok(vec![Box::new(LoggedReader { reader: self.log.reader(from), waiting: None, shape, name })])
    }

    fn describe(&self) -> String {
        "push".to_owned()
    }
}

#[derive(Debug)]
struct LoggedReader {
    reader: RowLogReader,
    /// The rest of an append.
    waiting: Option<LoggedRows>,
    shape: Arc<RowShape>,
    name: Arc<str>,
}

#[async_trait]
impl PartitionReader for LoggedReader {
    async fn next(&mut self, limit: Option<Offset>) -> Result<Option<Split>> {
        let LoggedRows { start, rows } = match self.waiting.take() {
            Some(waiting) => waiting,
            None => self.reader.next().await?,
        };
        let room = limit.and_then(|limit| usize::try_from(limit.0.saturating_sub(start)).ok()).unwrap_or(usize::MAX);
        let taken = rows.num_rows().min(MAX_SPLIT_ROWS).min(room.max(1));
        let end = start + taken as u64;
        if taken < rows.num_rows() {
            self.waiting = Some(LoggedRows { start: end, rows: rows.slice(taken, rows.num_rows() - taken) });
        }
        let part = rows.slice(0, taken);
        let arrays: Vec<ArrayRef> = part.columns().to_vec();
        let bytes = used_bytes(&part)?;
        let place = (Arc::clone(&self.name), start);
        let piece = ColumnarPiece { shape: Arc::clone(&self.shape), arrays, rows: taken, start: Offset(start), place };
        Ok(Some(Split { offsets: Offset(start)..Offset(end), bytes, decode: Box::new(piece) }))
    }
}
