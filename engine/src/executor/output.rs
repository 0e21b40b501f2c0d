//! From the results of instants to what a query gives: all of them, or how they differ from what it gave before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::array::Int64Array;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;

use crate::arrays::batch_of;
use crate::checkpoint::{LeafImage, PaneEntry};
use crate::error::Result;
use crate::executor::new_rows::NewRows;
use crate::plan::{Emission, EmissionMode, REVISION};
use crate::state::byte_size;
use crate::time::EventTime;
use crate::window::Pane;

/// The place of what the last instant gave, where instants are compared with the one before.
const BEFORE: EventTime = EventTime(i64::MIN);
/// The mark in an image that some instant has been evaluated.
const BEGUN: (Pane, EventTime) = (Pane(-1), EventTime(i64::MIN));

/// What a query has given, so far as what it gives next depends on it.
#[derive(Debug)]
pub(super) struct Output {
    pub(super) emission: Emission,
    /// The rows given for an instant that may be given again.
    shown: BTreeMap<EventTime, Vec<RecordBatch>>,
    /// How often the rows of a closed instant have been corrected.
    revisions: BTreeMap<EventTime, i64>,
    /// Whether some instant has been evaluated.
    has_begun: bool,
    /// When early results were given last.
    early_at: Option<Instant>,
}

impl Output {
    pub(super) fn new(emission: Emission) -> Self {
        let (shown, revisions) = (BTreeMap::new(), BTreeMap::new());
        Self { emission, shown, revisions, has_begun: false, early_at: None }
    }

    /// The columns of what is given, of results with the columns of `schema`.
    pub(super) fn schema(&self, schema: &SchemaRef) -> SchemaRef {
        if self.emission.lateness.is_none() {
            return Arc::clone(schema);
        }
        let mut fields = schema.fields().to_vec();
        fields.push(Arc::new(Field::new(REVISION, DataType::Int64, false)));
        Arc::new(Schema::new(fields))
    }

    /// Whether what is given next depends on results that were given before.
    pub(super) fn has_history(&self) -> bool {
        self.emission != Emission::default() && self.emission.mode != EmissionMode::Pairs
    }

    /// Whether an instant at which no window has rows is to be evaluated.
    pub(super) fn wants_absent(&self) -> bool {
        (self.emission.empty_windows && self.has_begun) || self.shown.contains_key(&BEFORE)
    }

    /// Whether which instant comes next depends on the result of the one before.
    pub(super) fn decides_one_by_one(&self) -> bool {
        self.emission.mode != EmissionMode::Results || (self.emission.empty_windows && !self.has_begun)
    }

    /// What to give of the result of an instant that has closed.
    pub(super) fn close(&mut self, instant: EventTime, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        self.has_begun = true;
        if self.emission.lateness.is_some() {
            self.revisions.insert(instant, 0);
        }
        let given = match self.emission.mode {
            EmissionMode::Results | EmissionMode::Pairs => rows,
            EmissionMode::Insertions => {
                let before = self.replace(BEFORE, rows.clone());
                new_rows(&before, &rows)?
            }
            EmissionMode::Deletions => {
                let before = self.replace(BEFORE, rows.clone());
                new_rows(&rows, &before)?
            }
            EmissionMode::Changes { .. } => {
                let before = self.shown.remove(&instant).unwrap_or_default();
                new_rows(&before, &rows)?
            }
        };
        self.with_revision(given, 0)
    }

    /// What to give of the result of an instant that is open still.
    pub(super) fn early(&mut self, instant: EventTime, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let before = self.replace(instant, rows.clone());
        let given = new_rows(&before, &rows)?;
        self.with_revision(given, 0)
    }

    /// What to give of the result of a closed instant to which rows have come since.
    pub(super) fn correct(&mut self, instant: EventTime, rows: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        // An instant that had no rows was not given before.
        let revision = self.revisions.get(&instant).map_or(0, |revision| revision + 1);
        self.revisions.insert(instant, revision);
        self.with_revision(rows, revision)
    }

    /// Forgets closed instants before `instant`, which no row can come to any more.
    pub(super) fn forget_before(&mut self, instant: EventTime) {
        self.revisions = self.revisions.split_off(&instant);
    }

    /// Whether what changes waits for its time.
    pub(super) const fn holds_changes(&self) -> bool {
        matches!(self.emission.mode, EmissionMode::Changes { every: Some(_) })
    }

    /// When early results may be given next; none if they may at once.
    pub(super) fn early_due(&self) -> Option<Instant> {
        let EmissionMode::Changes { every: Some(every) } = self.emission.mode else { return None };
        Some(self.early_at? + every)
    }

    /// Notes that early results are given now.
    pub(super) fn note_early(&mut self) {
        self.early_at = Some(Instant::now());
    }

    fn replace(&mut self, place: EventTime, rows: Vec<RecordBatch>) -> Vec<RecordBatch> {
        if rows.is_empty() {
            return self.shown.remove(&place).unwrap_or_default();
        }
        self.shown.insert(place, rows).unwrap_or_default()
    }

    fn with_revision(&self, rows: Vec<RecordBatch>, revision: i64) -> Result<Vec<RecordBatch>> {
        if self.emission.lateness.is_none() {
            return Ok(rows);
        }
        let with = |batch: RecordBatch| {
            let schema = self.schema(&batch.schema());
            let mut columns = batch.columns().to_vec();
            columns.push(Arc::new(Int64Array::from_value(revision, batch.num_rows())));
            batch_of(&schema, columns, batch.num_rows())
        };
        rows.into_iter().map(with).collect()
    }

    /// The memory of what it remembers.
    pub(super) fn bytes(&self) -> usize {
        self.shown.values().map(|rows| byte_size(rows)).sum()
    }

    /// What it remembers, for a checkpoint; none where it never remembers anything.
    pub(super) fn image(&self) -> Option<LeafImage> {
        if !self.has_history() {
            return None;
        }
        let begun = self.has_begun.then_some(BEGUN);
        let revisions = self.revisions.iter().map(|(instant, revision)| (Pane(*revision), *instant));
        let entries: Vec<_> = self
            .shown
            .iter()
            .map(|(instant, rows)| PaneEntry { pane: Pane(0), tag: *instant, state: rows.clone().into() })
            .collect();
        Some(LeafImage {
            calendar: begun.into_iter().chain(revisions).collect(),
            live: entries.iter().map(|entry| (entry.pane, entry.tag)).collect(),
            entries,
            ..LeafImage::default()
        })
    }

    /// Puts back what [`Output::image`] gave.
    ///
    /// # Errors
    /// As the disk fails.
    pub(super) fn put_back(&mut self, image: LeafImage) -> Result<()> {
        for pair in image.calendar {
            if pair == BEGUN {
                self.has_begun = true;
            } else {
                self.revisions.insert(pair.1, pair.0.0);
            }
        }
        for entry in image.entries {
            self.shown.insert(entry.tag, entry.state.read()?);
        }
        Ok(())
    }
}

/// The rows of `after` that are not in `before`, as often as they are more.
fn new_rows(before: &[RecordBatch], after: &[RecordBatch]) -> Result<Vec<RecordBatch>> {
    let mut rows = NewRows::default();
    rows.compare(before, after)?;
    rows.finish()
}
