//! A GROUP BY over endless rows: one open pane, of which each micro-batch shows the groups it changed.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::arrow::array::BooleanArray;
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::row::{RowConverter, SortField};

use crate::arrays::concat_rows;
use crate::error::Result;
use crate::program::AggregatePlans;
use crate::state::{KeyRouter, PaneStore};
use crate::time::EventTime;
use crate::window::{Pane, Window};

/// The state of every group seen, by key partition so that an epoch reads only the partitions it touches.
#[derive(Debug)]
pub(crate) struct Unbounded {
    plans: Arc<AggregatePlans>,
    router: KeyRouter,
    /// A pane for each key partition.
    partitions: PaneStore,
}

/// There is no window here, and no plan asks for its bounds.
const NO_WINDOW: Window = Window { start: EventTime(0), end: EventTime(0) };
/// Every row may be seen at once.
const TAG: EventTime = EventTime(0);

impl Unbounded {
    pub(crate) fn new(plans: Arc<AggregatePlans>, partitions: u32) -> Self {
        // One shard for each key partition.
        let router = KeyRouter { key_columns: plans.key_columns, partitions, shards: partitions };
        Self { plans, router, partitions: PaneStore::default() }
    }

    /// Takes in state rows and gives the result rows that are new or changed.
    pub(crate) fn update(&mut self, state: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let (before, after) = self.merge(state)?;
        let before = if before.is_empty() { Vec::new() } else { self.results(before)? };
        let after = if after.is_empty() { Vec::new() } else { self.results(after)? };
        new_rows(&before, after)
    }

    /// Takes in state rows whose results were given before.
    pub(crate) fn absorb(&mut self, state: Vec<RecordBatch>) -> Result<()> {
        self.merge(state).map(|_| ())
    }

    /// The state of the partitions that `state` has rows of, before and after taking them in.
    fn merge(&mut self, state: Vec<RecordBatch>) -> Result<(Vec<RecordBatch>, Vec<RecordBatch>)> {
        let mut added = BTreeMap::<usize, Vec<RecordBatch>>::new();
        if state.is_empty() {
            return Ok((Vec::new(), Vec::new()));
        }
        for batch in self.plans.merge(state)? {
            for (partition, rows) in self.router.split(batch)? {
                added.entry(partition).or_default().push(rows);
            }
        }
        let mut before = Vec::new();
        let mut after = Vec::new();
        for (partition, rows) in added {
            let pane = Pane(i64::try_from(partition).unwrap_or(i64::MAX));
            let known = self.partitions.take(pane, TAG)?;
            before.extend(known.iter().cloned());
            let merged = self.plans.merge(known.into_iter().chain(rows).collect())?;
            after.extend(merged.iter().cloned());
            self.partitions.add(pane, TAG, merged);
        }
        Ok((before, after))
    }

    /// The state, a pane for each key partition.
    pub(crate) const fn partitions(&mut self) -> &mut PaneStore {
        &mut self.partitions
    }

    /// The group keys and the partitions they are spread over.
    pub(crate) const fn router(&self) -> &KeyRouter {
        &self.router
    }

    fn results(&self, state: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        self.plans.post(self.plans.finish(state, NO_WINDOW)?)
    }

    /// The memory of the state.
    pub(crate) const fn bytes(&self) -> usize {
        self.partitions.bytes()
    }
}

/// The rows of `after` that are not in `before`.
fn new_rows(before: &[RecordBatch], after: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let Some(schema) = after.first().map(RecordBatch::schema) else { return Ok(Vec::new()) };
    let fields = schema.fields().iter().map(|field| SortField::new(field.data_type().clone())).collect();
    let converter = RowConverter::new(fields)?;
    let mut known = HashMap::<Vec<u8>, usize>::new();
    for batch in before {
        for row in &converter.convert_columns(batch.columns())? {
            *known.entry(row.as_ref().to_vec()).or_default() += 1;
        }
    }
    let after = concat_rows(&schema, &after)?;
    let rows = converter.convert_columns(after.columns())?;
    let is_new: BooleanArray = rows
        .iter()
        .map(|row| match known.get_mut(row.as_ref()) {
            Some(count) if *count > 0 => {
                *count -= 1;
                Some(false)
            }
            _ => Some(true),
        })
        .collect();
    let changed = filter_record_batch(&after, &is_new)?;
    Ok(if changed.num_rows() == 0 { Vec::new() } else { vec![changed] })
}
