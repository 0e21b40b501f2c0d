//! A GROUP BY over endless rows: one open pane, of which each micro-batch shows the groups it changed, or waits to.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::executor::new_rows::NewRows;
use crate::nodes::{Bindings, SlotId};
use crate::program::{AggregatePlans, Template};
use crate::state::{KeyRouter, MemoryShare, PaneStore, StateMemory, byte_size};
use crate::time::EventTime;
use crate::window::{Pane, Window};

/// State is turned into results once there is so much of it: key partitions that are small are worth a plan together
/// only, and large ones must not be in memory together.
const BYTES_AT_ONCE: usize = 16 << 20;

/// The state of every group seen, by key partition so that an epoch reads only the partitions it touches.
#[derive(Debug)]
pub(crate) struct Unbounded {
    plans: Arc<AggregatePlans>,
    /// The plan above the groups, if there is anything.
    post: Option<Template>,
    router: KeyRouter,
    /// A pane for each key partition.
    partitions: PaneStore,
    memory: Arc<StateMemory>,
}

/// There is no window here, and no plan asks for its bounds.
const NO_WINDOW: Window = Window { start: EventTime(0), end: EventTime(0) };
/// The entry of a key partition whose results have been given.
const TAG: EventTime = EventTime(0);
/// The entry of what came to it since, where results wait for their time.
const WAITING: EventTime = EventTime(1);
/// What waits is merged once there are so many batches of it.
const UNMERGED_BATCHES: usize = 16;

impl Unbounded {
    /// No state; what memory has no room for goes to the files of `memory`.
    pub(crate) fn new(
        plans: Arc<AggregatePlans>,
        post: Option<Template>,
        partitions: u32,
        memory: Arc<StateMemory>,
    ) -> Self {
        // One shard for each key partition.
        let router = KeyRouter { key_columns: plans.key_columns, partitions, shards: partitions };
        Self { plans, post, router, partitions: PaneStore::default(), memory }
    }

    /// Takes in state rows and gives the result rows that are new or changed.
    pub(crate) fn update(&mut self, state: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let parts = self.by_partition(state)?;
        self.changed_by(parts.into_iter().map(|(partition, rows)| (pane_of(partition), rows)))
    }

    /// Takes in state rows of key partitions and gives the result rows that are new or changed.
    fn changed_by(&mut self, parts: impl IntoIterator<Item = (Pane, Vec<RecordBatch>)>) -> Result<Vec<RecordBatch>> {
        let mut results = NewRows::default();
        let mut touched = Touched::default();
        let mut growth = self.growth();
        for (pane, rows) in parts {
            touched.append(self.merge(pane, rows, &mut growth)?);
            if touched.bytes >= BYTES_AT_ONCE {
                self.compare(std::mem::take(&mut touched), &mut results)?;
            }
        }
        self.compare(touched, &mut results)?;
        results.finish()
    }

    /// Takes in state rows whose results wait for their time.
    pub(crate) fn hold(&mut self, state: Vec<RecordBatch>) -> Result<()> {
        let mut growth = self.growth();
        for (partition, rows) in self.by_partition(state)? {
            let pane = pane_of(partition);
            self.partitions.add(pane, WAITING, rows);
            if self.partitions.recent(pane, WAITING).len() >= UNMERGED_BATCHES {
                let merged = self.plans.merge(self.partitions.take_recent(pane, WAITING))?;
                self.partitions.put(pane, WAITING, merged.into());
            }
            growth.bound(&mut self.partitions)?;
        }
        Ok(())
    }

    /// Whether results wait for their time.
    pub(crate) fn is_waiting(&self) -> bool {
        self.partitions.all_tags().any(|(_, tag)| tag == WAITING)
    }

    /// Gives the result rows that are new or changed since the last time.
    pub(crate) fn give(&mut self) -> Result<Vec<RecordBatch>> {
        let waiting: Vec<_> = self.partitions.all_tags().filter(|(_, tag)| *tag == WAITING).collect();
        let mut parts = Vec::with_capacity(waiting.len());
        for (pane, tag) in waiting {
            parts.push((pane, self.partitions.take(pane, tag)?));
        }
        self.changed_by(parts)
    }

    /// Takes in state rows whose results were given before.
    pub(crate) fn absorb(&mut self, state: Vec<RecordBatch>) -> Result<()> {
        let mut growth = self.growth();
        for (partition, rows) in self.by_partition(state)? {
            self.merge(pane_of(partition), rows, &mut growth)?;
        }
        Ok(())
    }

    /// New state rows by key partition, each group once.
    fn by_partition(&self, state: Vec<RecordBatch>) -> Result<BTreeMap<usize, Vec<RecordBatch>>> {
        let mut added = BTreeMap::<usize, Vec<RecordBatch>>::new();
        if state.is_empty() {
            return Ok(added);
        }
        for batch in self.plans.merge(state)? {
            for (partition, rows) in self.router.split(batch)? {
                added.entry(partition).or_default().push(rows);
            }
        }
        Ok(added)
    }

    /// Takes in state rows of one key partition.
    fn merge(&mut self, pane: Pane, rows: Vec<RecordBatch>, growth: &mut Growth) -> Result<Touched> {
        let before = self.partitions.take(pane, TAG)?;
        let after = self.plans.merge(before.iter().cloned().chain(rows).collect())?;
        self.partitions.add(pane, TAG, after.clone());
        growth.bound(&mut self.partitions)?;
        Ok(Touched { bytes: byte_size(&before) + byte_size(&after), before, after })
    }

    fn growth(&self) -> Growth {
        Growth { share: MemoryShare::new(Arc::clone(&self.memory)), counted: self.partitions.bytes() }
    }

    /// Finds the results of `touched` that are new.
    fn compare(&self, touched: Touched, results: &mut NewRows) -> Result<()> {
        let before = if touched.before.is_empty() { Vec::new() } else { self.results(touched.before)? };
        let after = if touched.after.is_empty() { Vec::new() } else { self.results(touched.after)? };
        results.compare(&before, &after)
    }

    fn results(&self, state: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        let groups = self.plans.finish(state, NO_WINDOW)?;
        match &self.post {
            Some(post) => post.run(Bindings::single(SlotId(0), groups)),
            None => Ok(groups),
        }
    }

    /// The state, a pane for each key partition.
    pub(crate) const fn partitions(&mut self) -> &mut PaneStore {
        &mut self.partitions
    }

    /// The group keys and the partitions they are spread over.
    pub(crate) const fn router(&self) -> &KeyRouter {
        &self.router
    }

    /// The memory of the state.
    pub(crate) const fn bytes(&self) -> usize {
        self.partitions.bytes()
    }
}

/// The pane of a key partition.
fn pane_of(partition: usize) -> Pane {
    Pane(i64::try_from(partition).unwrap_or(i64::MAX))
}

/// What the state has grown by since its stage counted it, as partitions come from disk.
#[derive(Debug)]
struct Growth {
    share: MemoryShare,
    /// The bytes that the stage knows of.
    counted: usize,
}

impl Growth {
    /// Writes partitions to disk if memory has no room for what they have grown by.
    fn bound(&mut self, partitions: &mut PaneStore) -> Result<()> {
        let excess = self.share.set(partitions.bytes().saturating_sub(self.counted));
        if excess == 0 {
            return Ok(());
        }
        match partitions.spill(excess, self.share.memory()) {
            // The stage waits for room before it takes more rows in.
            Err(error) if error.is_disk_full() => {}
            ended => ended?,
        }
        self.share.set(partitions.bytes().saturating_sub(self.counted));
        Ok(())
    }
}

/// The state of some key partitions before and after rows were taken in.
#[derive(Debug, Default)]
struct Touched {
    before: Vec<RecordBatch>,
    after: Vec<RecordBatch>,
    bytes: usize,
}

impl Touched {
    fn append(&mut self, other: Self) {
        self.before.extend(other.before);
        self.after.extend(other.after);
        self.bytes += other.bytes;
    }
}
