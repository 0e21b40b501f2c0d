//! The latest rows of each key: `[Partition By k Rows n]` and `[Rows n]`.
//!
//! Rows stand in the order of their event time, then of partition and offset. Whatever n later rows of its key have
//! superseded at one instant is superseded at all that follow, so that what an instant sees is kept in one entry and
//! all else of its panes is dropped: state is n rows a key and the panes that no instant has seen yet.

use std::collections::HashMap;

use datafusion::arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use datafusion::arrow::compute::{SortColumn, filter_record_batch, lexsort_to_indices};
use datafusion::arrow::datatypes::{Int64Type, Schema};

use crate::arrays::{concat_rows, take_rows, without_waste};
use crate::checkpoint::PaneTag;
use crate::error::{Error, Result};
use crate::executor::row_keys::RowKeys;
use crate::program::Selection;
use crate::state::PaneStore;
use crate::time::EventTime;
use crate::window::{Pane, WindowSpec};

/// The entry of the rows that the last instant saw.
const SEEN: PaneTag = (Pane(i64::MIN), EventTime(i64::MIN));

/// The state of a window of the latest rows.
#[derive(Debug)]
pub(crate) struct Latest {
    panes: PaneStore,
    selection: Selection,
    keys: RowKeys,
    /// How many rows of each key.
    rows: u64,
}

impl Latest {
    /// A window of the last `rows` rows of each key, of rows with the columns of `schema`.
    pub(crate) fn new(selection: Selection, rows: u64, schema: &Schema) -> Result<Self> {
        let keys = RowKeys::new(&selection, schema)?;
        Ok(Self { panes: PaneStore::default(), selection, keys, rows })
    }

    /// The rows that the window at `instant` holds; instants must ascend.
    pub(crate) fn at(&mut self, window: &WindowSpec, instant: EventTime) -> Result<Vec<RecordBatch>> {
        let (first, end) = window.panes_of(instant);
        let due: Vec<PaneTag> = self.panes.tags(first, end).filter(|(_, tag)| *tag <= instant).collect();
        if due.iter().all(|pair| *pair == SEEN) {
            return self.panes.read(SEEN.0, SEEN.1);
        }
        let mut batches = Vec::new();
        for (pane, tag) in due {
            batches.extend(self.panes.take(pane, tag)?);
        }
        let Some(schema) = batches.first().map(RecordBatch::schema) else { return Ok(Vec::new()) };
        let latest = vec![self.select(&concat_rows(&schema, &batches)?)?];
        self.panes.add(SEEN.0, SEEN.1, latest.clone());
        Ok(latest)
    }

    /// The last rows of each key, in order.
    fn select(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let sorted = in_order(rows, &self.selection)?;
        let keys = self.keys.of(&sorted)?;
        let mut counts = HashMap::<&[u8], u64>::new();
        let mut is_latest = vec![false; sorted.num_rows()];
        for (row, is_latest) in is_latest.iter_mut().enumerate().rev() {
            let count = counts.entry(keys.get(row)).or_default();
            *count += 1;
            *is_latest = *count <= self.rows;
        }
        without_waste(filter_record_batch(&sorted, &BooleanArray::from(is_latest))?)
    }

    /// Its rows by pane.
    pub(crate) const fn panes(&mut self) -> &mut PaneStore {
        &mut self.panes
    }

    pub(crate) const fn is_on_disk(&self) -> bool {
        self.panes.is_on_disk()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.panes.bytes()
    }
}

/// The event times of kept rows.
pub(super) fn times_of<'a>(rows: &'a RecordBatch, selection: &Selection) -> Result<&'a [i64]> {
    let times = rows.columns().get(selection.time).and_then(|times| times.as_primitive_opt::<Int64Type>());
    times.map(|times| times.values().as_ref()).ok_or_else(|| Error::internal("kept rows lack their time"))
}

/// `rows` by event time, then partition and offset.
pub(super) fn in_order(rows: &RecordBatch, selection: &Selection) -> Result<RecordBatch> {
    let columns = [selection.time, selection.partition, selection.offset].map(|index| {
        let values = rows.columns().get(index).cloned();
        values.map(|values| SortColumn { values, options: None })
    });
    let columns: Vec<_> = columns.into_iter().flatten().collect();
    if columns.len() < 3 {
        return Err(Error::internal("kept rows lack the columns of their order"));
    }
    let order = lexsort_to_indices(&columns, None)?;
    if order.values().iter().zip(0..).all(|(index, row)| *index == row) && order.null_count() == 0 {
        return Ok(rows.clone());
    }
    take_rows(rows, &order)
}
