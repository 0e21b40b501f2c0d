//! Windows that go by the number of rows: `[Rows n, Slide m]`.
//!
//! Rows stand in the order of their event time, then of partition and offset. Whenever m more have come, the last n of
//! them are a window, at the time of its last row. Windows whose last rows have one time are one: it holds the rows of
//! all of them, so that with n = m every row is in exactly one window. A row that is behind the watermark has no place
//! in the order any more.
//!
//! State is the rows of the last window, those since, fewer than m, and the panes that no instant has passed yet.

use datafusion::arrow::array::{BooleanArray, RecordBatch};
use datafusion::arrow::compute::filter_record_batch;

use crate::arrays::{concat_rows, without_waste};
use crate::checkpoint::PaneTag;
use crate::error::{Error, Result};
use crate::executor::latest::{in_order, times_of};
use crate::program::Selection;
use crate::state::{Batches, PaneStore};
use crate::time::EventTime;
use crate::window::{Pane, Window, WindowSpec};

/// The entry of the rows of the last window.
const SHOWN: PaneTag = (Pane(i64::MIN), EventTime(i64::MIN));
/// The entry of the rows since then, in order.
const PENDING: PaneTag = (Pane(i64::MIN), EventTime(i64::MIN + 1));
/// The first pane of rows that no instant has passed.
const FIRST: Pane = Pane(i64::MIN + 1);

/// The state of a window that goes by the number of rows.
#[derive(Debug)]
pub(crate) struct Counted {
    panes: PaneStore,
    selection: Selection,
    /// How many rows a window has.
    rows: usize,
    /// How many rows lie from one to the next.
    slide: usize,
}

impl Counted {
    /// Windows of `rows` rows, one every `slide` rows.
    pub(crate) fn new(selection: Selection, rows: u64, slide: u64) -> Result<Self> {
        let count = |count: u64| usize::try_from(count).map_err(|_| Error::internal("a window of more rows than fit"));
        Ok(Self { panes: PaneStore::default(), selection, rows: count(rows)?, slide: count(slide)?.max(1) })
    }

    /// The first instant after `time` at which a window ends, of the rows that are known.
    pub(crate) fn next_end(&self, window: &WindowSpec, time: EventTime) -> Option<EventTime> {
        self.ends(window).find(|end| *end > time)
    }

    /// The last instant at which a window ends, of the rows that are known.
    pub(crate) fn last_end(&self, window: &WindowSpec) -> Option<EventTime> {
        self.ends(window).last()
    }

    fn ends(&self, window: &WindowSpec) -> impl Iterator<Item = EventTime> {
        let mut pending = self.row_count(PENDING);
        self.panes.tags(FIRST, Pane(i64::MAX)).filter_map(move |pair| {
            pending += self.row_count(pair);
            let ends = pending >= self.slide;
            pending %= self.slide;
            ends.then(|| window.first_instant(pair.0))
        })
    }

    fn row_count(&self, (pane, tag): PaneTag) -> usize {
        self.panes.entry(pane, tag).map_or(0, Batches::row_count)
    }

    /// Whether some window has ended.
    pub(crate) fn has_shown(&self) -> bool {
        self.row_count(SHOWN) > 0
    }

    /// The rows of the last window that ends up to `instant`, and its extent; instants must ascend, and all of its own
    /// be among them.
    pub(crate) fn at(&mut self, window: &WindowSpec, instant: EventTime) -> Result<(Vec<RecordBatch>, Window)> {
        self.settle(window.panes_of(instant).1)?;
        if self.row_count(PENDING) >= self.slide {
            self.show()?;
        }
        let shown = self.panes.read(SHOWN.0, SHOWN.1)?;
        let end = self.last_time(&shown)?.unwrap_or(instant);
        Ok((shown, window.window(end)))
    }

    /// Puts the rows of the panes before `end` behind those that wait for a window.
    ///
    /// No more rows come to these panes, so that rows are put there in order.
    pub(crate) fn settle(&mut self, end: Pane) -> Result<()> {
        let due: Vec<PaneTag> = self.panes.tags(FIRST, end.max(FIRST)).collect();
        let mut batches = Vec::new();
        for (pane, tag) in due {
            batches.extend(self.panes.take(pane, tag)?);
        }
        let Some(schema) = batches.first().map(RecordBatch::schema) else { return Ok(()) };
        let rows = in_order(&concat_rows(&schema, &batches)?, &self.selection)?;
        self.panes.add(PENDING.0, PENDING.1, vec![without_waste(rows)?]);
        Ok(())
    }

    /// Makes the windows that have ended one, and shows it.
    fn show(&mut self) -> Result<()> {
        let pending = self.panes.take(PENDING.0, PENDING.1)?;
        let before = self.panes.take(SHOWN.0, SHOWN.1)?;
        let Some(schema) = pending.first().map(RecordBatch::schema) else { return Ok(()) };
        let (pending, before) = (concat_rows(&schema, &pending)?, concat_rows(&schema, &before)?);
        let ended = pending.num_rows() - pending.num_rows() % self.slide;
        // Of each slide the last rows are in its window, and as many rows before as the window is longer.
        let is_held = |row: usize| row % self.slide + self.rows >= self.slide;
        let held: BooleanArray = (0..ended).map(|row| Some(is_held(row))).collect();
        let held = filter_record_batch(&pending.slice(0, ended), &held)?;
        let kept = self.rows.saturating_sub(self.slide).min(before.num_rows());
        let before = before.slice(before.num_rows() - kept, kept);
        self.panes.add(SHOWN.0, SHOWN.1, vec![without_waste(concat_rows(&schema, &[before, held])?)?]);
        if ended < pending.num_rows() {
            let rest = pending.slice(ended, pending.num_rows() - ended);
            self.panes.add(PENDING.0, PENDING.1, vec![without_waste(rest)?]);
        }
        Ok(())
    }

    /// The event time of the last row.
    fn last_time(&self, rows: &[RecordBatch]) -> Result<Option<EventTime>> {
        let Some(last) = rows.iter().rfind(|batch| batch.num_rows() > 0) else { return Ok(None) };
        Ok(times_of(last, &self.selection)?.last().map(|time| EventTime(*time)))
    }

    /// Passes the windows that end up to `limit`, whose results were made before.
    pub(crate) fn pass(&mut self, window: &WindowSpec, limit: EventTime) -> Result<()> {
        while let Some(end) = self.next_end(window, EventTime(i64::MIN)).filter(|end| *end <= limit) {
            self.at(window, end)?;
        }
        Ok(())
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
