//! Each row with the rows of its key before it: what `OVER (PARTITION BY k ORDER BY ts …)` looks at on an endless stream.
//!
//! What a row is given does not depend on which instants are told apart, so that all rows which the watermark has passed
//! since the last time are seen at one instant: they, and of each of their keys the rows before them that their frames
//! reach back to. Rows stand in the order of event time, then of partition and offset; one that is behind the watermark
//! is late. All rows that a frame to come may want are one entry of state, in their order, and an index in memory tells
//! which of them are of a key.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, RecordBatch, TimestampNanosecondArray};
use datafusion::arrow::compute::interleave_record_batch;
use datafusion::arrow::datatypes::Schema;

use crate::arrays::{concat_rows, without_waste};
use crate::checkpoint::PaneTag;
use crate::error::Result;
use crate::executor::latest::{in_order, times_of};
use crate::executor::leaf::BoundedRows;
use crate::executor::row_keys::RowKeys;
use crate::program::Selection;
use crate::state::PaneStore;
use crate::time::EventTime;
use crate::window::{Frame, Pane, WindowSpec};

/// The entry of the rows that instants have seen.
const SEEN: PaneTag = (Pane(i64::MIN), EventTime(i64::MIN));
/// The first pane of rows that no instant has seen.
const FIRST: Pane = Pane(i64::MIN + 1);
/// Rows that no frame wants any more are dropped once there are this many, and as many as there are others.
const LEAST_DROPPED: usize = 1024;
/// New rows are made one batch once they are this many batches.
const UNMERGED_BATCHES: usize = 64;

/// The state of a window of rows with those before them.
#[derive(Debug)]
pub(crate) struct Preceding {
    panes: PaneStore,
    selection: Selection,
    keys: RowKeys,
    frame: Frame,
    /// The rows of each key that a frame may want, ascending.
    index: HashMap<Box<[u8]>, VecDeque<Position>>,
    /// The rows in the entry, and how many of them were left when it was written anew.
    stored: usize,
    kept: usize,
    is_indexed: bool,
}

/// A row in the entry.
#[derive(Debug, Clone, Copy)]
struct Position {
    time: i64,
    row: usize,
}

impl Preceding {
    /// Rows with the columns of `schema`, each with those of its key in `frame` before it.
    pub(crate) fn new(selection: Selection, frame: Frame, schema: &Schema) -> Result<Self> {
        let keys = RowKeys::new(&selection, schema)?;
        let (panes, index) = (PaneStore::default(), HashMap::new());
        Ok(Self { panes, selection, keys, frame, index, stored: 0, kept: 0, is_indexed: false })
    }

    /// The rows that came up to `instant` since the instant before, and those in their frames; instants must ascend.
    ///
    /// The window of a row that came ends at its time, that of the others never.
    pub(crate) fn at(&mut self, window: &WindowSpec, instant: EventTime) -> Result<BoundedRows> {
        self.index_stored()?;
        let due: Vec<PaneTag> = self.panes.tags(FIRST, window.panes_of(instant).1.max(FIRST)).collect();
        let mut batches = Vec::new();
        for (pane, tag) in due {
            batches.extend(self.panes.take(pane, tag)?);
        }
        let Some(schema) = batches.first().map(RecordBatch::schema) else { return bounded(None, &[]) };
        let rows = without_waste(in_order(&concat_rows(&schema, &batches)?, &self.selection)?)?;
        let known = self.stored;
        let wanted = self.index_new(&rows, instant)?;
        self.append(rows)?;
        let held = self.rows(&wanted)?.pop();
        let times = held.as_ref().map_or(Ok(&[][..]), |rows| times_of(rows, &self.selection))?;
        let ends = times.iter().zip(&wanted).map(|(time, row)| if *row < known { i64::MIN } else { *time });
        let held = bounded(held.clone(), &ends.collect::<Vec<_>>())?;
        if self.stored - self.kept > self.kept + LEAST_DROPPED {
            self.drop_unwanted(instant)?;
        }
        Ok(held)
    }

    /// Takes up the entry that a checkpoint has put back.
    fn index_stored(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.is_indexed, true) {
            return Ok(());
        }
        for batch in self.panes.read(SEEN.0, SEEN.1)? {
            self.index_rows(&batch)?;
            self.stored += batch.num_rows();
        }
        Ok(())
    }

    /// Notes rows that stand behind those in the entry.
    fn index_rows(&mut self, rows: &RecordBatch) -> Result<()> {
        let keys = self.keys.of(rows)?;
        for (row, time) in times_of(rows, &self.selection)?.iter().enumerate() {
            let position = Position { time: *time, row: self.stored + row };
            match self.index.get_mut(keys.get(row)) {
                Some(positions) => positions.push_back(position),
                None => {
                    self.index.insert(keys.get(row).into(), VecDeque::from([position]));
                }
            }
        }
        Ok(())
    }

    /// Notes rows up to `instant` that stand behind those in the entry; where they are, and those in their frames.
    fn index_new(&mut self, rows: &RecordBatch, instant: EventTime) -> Result<Vec<usize>> {
        self.index_rows(rows)?;
        let (keys, mut wanted) = (self.keys.of(rows)?, Vec::new());
        for row in 0..rows.num_rows() {
            let Some(positions) = self.index.get_mut(keys.get(row)) else { continue };
            let first = positions.partition_point(|position| position.row < self.stored);
            // The first of a key finds the others.
            if positions.get(first).is_none_or(|position| position.row != self.stored + row) {
                continue;
            }
            let from = self.frame.first_before(positions, first);
            wanted.extend(positions.range(from..).map(|position| position.row));
        }
        for row in 0..rows.num_rows() {
            if let Some(positions) = self.index.get_mut(keys.get(row)) {
                let unwanted = self.frame.first_after(positions, instant);
                positions.drain(..unwanted);
            }
        }
        wanted.sort_unstable();
        Ok(wanted)
    }

    /// Puts rows at the end of the entry.
    fn append(&mut self, rows: RecordBatch) -> Result<()> {
        let schema = rows.schema();
        self.stored += rows.num_rows();
        self.panes.add(SEEN.0, SEEN.1, vec![rows]);
        if self.panes.recent(SEEN.0, SEEN.1).len() < UNMERGED_BATCHES {
            return Ok(());
        }
        let mut batches = self.panes.take_recent(SEEN.0, SEEN.1);
        let newer = concat_rows(&schema, &batches.split_off(1))?;
        batches.push(newer);
        self.panes.put(SEEN.0, SEEN.1, batches.into());
        Ok(())
    }

    /// The rows of the entry with these numbers, which ascend.
    fn rows(&self, numbers: &[usize]) -> Result<Vec<RecordBatch>> {
        let batches = self.panes.read(SEEN.0, SEEN.1)?;
        if numbers.is_empty() || batches.is_empty() {
            return Ok(Vec::new());
        }
        let (mut batch, mut first) = (0, 0);
        let mut places = Vec::with_capacity(numbers.len());
        for number in numbers {
            while let Some(rows) = batches.get(batch).map(RecordBatch::num_rows).filter(|rows| first + rows <= *number)
            {
                (batch, first) = (batch + 1, first + rows);
            }
            places.push((batch, number - first));
        }
        Ok(vec![interleave_record_batch(&batches.iter().collect::<Vec<_>>(), &places)?])
    }

    /// Writes the entry anew without the rows that no frame after `instant` wants.
    fn drop_unwanted(&mut self, instant: EventTime) -> Result<()> {
        for positions in self.index.values_mut() {
            let unwanted = self.frame.first_after(positions, instant);
            positions.drain(..unwanted);
        }
        self.index.retain(|_, positions| !positions.is_empty());
        let mut numbers: Vec<usize> = self.index.values().flatten().map(|position| position.row).collect();
        numbers.sort_unstable();
        let rows = self.rows(&numbers)?;
        for position in self.index.values_mut().flatten() {
            position.row = numbers.partition_point(|number| *number < position.row);
        }
        (self.stored, self.kept) = (numbers.len(), numbers.len());
        self.panes.remove(SEEN.0, SEEN.1);
        self.panes.add(SEEN.0, SEEN.1, rows);
        Ok(())
    }

    /// Its rows by pane.
    pub(crate) const fn panes(&mut self) -> &mut PaneStore {
        &mut self.panes
    }

    pub(crate) const fn is_on_disk(&self) -> bool {
        self.panes.is_on_disk()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.panes.bytes() + self.stored * size_of::<Position>()
    }
}

impl Frame {
    /// The first of a key's rows that is in the frame of the one at `index`.
    fn first_before(self, positions: &VecDeque<Position>, index: usize) -> usize {
        match self {
            Self::Rows(rows) => index.saturating_sub(usize::try_from(rows).unwrap_or(usize::MAX)),
            Self::Range(range) => {
                let time = positions.get(index).map_or(i64::MIN, |position| position.time);
                positions.partition_point(|position| position.time < time.saturating_sub(range.0))
            }
        }
    }

    /// The first of a key's rows that may be in the frame of one after `instant`.
    fn first_after(self, positions: &VecDeque<Position>, instant: EventTime) -> usize {
        match self {
            Self::Rows(rows) => positions.len().saturating_sub(usize::try_from(rows).unwrap_or(usize::MAX)),
            Self::Range(range) => {
                let from = EventTime(instant.0.saturating_add(1)).minus(range).0;
                positions.partition_point(|position| position.time < from)
            }
        }
    }
}

/// Rows whose windows end at these times.
fn bounded(rows: Option<RecordBatch>, ends: &[i64]) -> Result<BoundedRows> {
    let ends: ArrayRef = Arc::new(TimestampNanosecondArray::from(ends.to_vec()));
    Ok(BoundedRows { rows, starts: Arc::clone(&ends), ends })
}
