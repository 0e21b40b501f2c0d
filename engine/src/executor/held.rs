//! What a stage keeps between micro-batches, by the shape of its plan, and how windows are made of it.

use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use futures::{StreamExt, TryStreamExt};

use crate::arrays::{concat_rows, without_waste};
use crate::durable::{FullDisk, ROOM_PAUSE};
use crate::error::{Error, Result};
use crate::executor::assign::PaneTag;
use crate::executor::shard::Shard;
use crate::executor::stage::StageOptions;
use crate::executor::unbounded::Unbounded;
use crate::nodes::{Bindings, SlotId};
use crate::program::{AggregatePlans, Program, Shape, Template};
use crate::state::{Batches, KeyRouter, PaneStore, StateMemory};
use crate::time::EventTime;
use crate::window::{Pane, WindowSpec};

/// Row state of one pane is made one batch once it has this many.
const UNMERGED_ROW_BATCHES: usize = 64;

/// The state of a stage.
#[derive(Debug)]
pub(crate) enum State {
    Aggregate { plans: Arc<AggregatePlans>, router: KeyRouter, shards: Vec<Shard> },
    Rows { plan: Template, stores: Vec<PaneStore> },
    Unbounded { state: Unbounded, ready: Vec<RecordBatch> },
    Stateless { ready: Vec<RecordBatch> },
    Finite { plan: Option<Template> },
}

impl State {
    pub(super) fn new(program: &Program, windows: &[WindowSpec], options: &StageOptions) -> Result<Self> {
        Ok(match &program.shape {
            Shape::Finite(plan) => Self::Finite { plan: Some(plan.clone()) },
            Shape::Stateless(_) => Self::Stateless { ready: Vec::new() },
            Shape::Unbounded(plans) => {
                let state =
                    Unbounded::new(Arc::new(plans.clone()), options.key_partitions, Arc::clone(&options.memory));
                Self::Unbounded { state, ready: Vec::new() }
            }
            Shape::Rows(plan) => {
                Self::Rows { plan: plan.clone(), stores: windows.iter().map(|_| PaneStore::default()).collect() }
            }
            Shape::Aggregate(plans) => {
                let [window] = windows else { return Err(Error::internal("an aggregate over several windows")) };
                let plans = Arc::new(plans.clone());
                // Small state stays in one piece: sending each of its rows to a task would cost more than it saves.
                let router =
                    KeyRouter { key_columns: plans.key_columns, partitions: options.key_partitions.max(1), shards: 1 };
                let shards = vec![Shard::new(Arc::clone(&plans), *window, Arc::clone(&options.memory))];
                Self::Aggregate { plans, router, shards }
            }
        })
    }

    pub(super) async fn add(&mut self, leaf: usize, states: Vec<(PaneTag, Vec<RecordBatch>)>) -> Result<()> {
        match self {
            Self::Rows { stores, .. } => {
                let Some(store) = stores.get_mut(leaf) else { return Err(Error::internal("no such leaf")) };
                states.into_iter().try_for_each(|(pair, rows)| add_rows(store, pair, rows))
            }
            Self::Aggregate { router, shards, .. } => {
                let mut parts: Vec<Vec<(PaneTag, RecordBatch)>> = shards.iter().map(|_| Vec::new()).collect();
                for (pair, batches) in states {
                    for batch in batches {
                        for (shard, rows) in router.split(batch)? {
                            if let Some(part) = parts.get_mut(shard) {
                                part.push((pair, rows));
                            }
                        }
                    }
                }
                let mut parts = parts.into_iter();
                for_each(shards, move |_| {
                    let part = parts.next().unwrap_or_default();
                    move |shard: &mut Shard| shard.add(part)
                })
                .await?;
                Ok(())
            }
            _ => Err(Error::internal("a query without windows was given panes")),
        }
    }

    pub(super) async fn evaluate(
        &mut self,
        program: &Arc<Program>,
        windows: &[WindowSpec],
        instants: &[EventTime],
        tasks: usize,
    ) -> Result<Vec<Vec<RecordBatch>>> {
        match self {
            Self::Rows { plan, stores } => {
                let jobs = instants.iter().map(|instant| {
                    let seen: Vec<_> = stores
                        .iter()
                        .zip(windows)
                        .map(|(store, window)| {
                            let own = window.instant_at_or_before(*instant);
                            (window.window(own), store.visible(window, own))
                        })
                        .collect();
                    let (program, plan) = (Arc::clone(program), plan.clone());
                    blocking(move || {
                        let mut bindings = Bindings::default();
                        for (leaf, ((window, entries), input)) in seen.into_iter().zip(&program.inputs).enumerate() {
                            let mut rows = Vec::new();
                            for batch in entries.iter().map(Batches::read).collect::<Result<Vec<_>>>()?.iter().flatten()
                            {
                                rows.push(input.with_bounds(batch, window)?);
                            }
                            bindings.bind(SlotId(leaf), rows);
                        }
                        plan.run(bindings)
                    })
                });
                futures::stream::iter(jobs.collect::<Vec<_>>()).buffered(tasks.max(1)).try_collect().await
            }
            Self::Aggregate { plans, shards, .. } => {
                let [window] = windows else { return Err(Error::internal("an aggregate over several windows")) };
                let of_shards = for_each(shards, |_| {
                    let instants = instants.to_vec();
                    move |shard: &mut Shard| {
                        instants.iter().map(|instant| shard.window_state(*instant)).collect::<Result<Vec<_>>>()
                    }
                })
                .await?;
                let mut of_shards: Vec<_> = of_shards.into_iter().map(Vec::into_iter).collect();
                let jobs = instants.iter().map(|instant| {
                    let states: Vec<_> = of_shards.iter_mut().filter_map(Iterator::next).collect();
                    let (window, plans) = (window.window(*instant), Arc::clone(plans));
                    blocking(move || {
                        let mut rows = Vec::new();
                        for state in states {
                            rows.extend(plans.finish(state, window)?);
                        }
                        plans.post(rows)
                    })
                });
                futures::stream::iter(jobs.collect::<Vec<_>>()).buffered(tasks.max(1)).try_collect().await
            }
            _ => Err(Error::internal("a query without windows was asked for one")),
        }
    }

    /// Spreads the key partitions over all tasks once windows have grown large; waits where state on disk finds no room
    /// there.
    pub(super) async fn spread(&mut self, options: &StageOptions) -> Result<()> {
        let Self::Aggregate { router, shards, .. } = self else { return Ok(()) };
        if shards.len() > 1 || options.tasks <= 1 || router.key_columns == 0 {
            return Ok(());
        }
        if !shards.iter().any(|shard| shard.is_large(options.shared_rows)) {
            return Ok(());
        }
        router.shards = u32::try_from(options.tasks).unwrap_or(1);
        if let Some(whole) = shards.pop() {
            *shards = split(whole, *router).await?;
        }
        Ok(())
    }

    pub(super) fn evict(&mut self, leaf: usize, first: Pane) {
        match self {
            Self::Rows { stores, .. } => {
                if let Some(store) = stores.get_mut(leaf) {
                    store.evict(first);
                }
            }
            Self::Aggregate { shards, .. } => shards.iter_mut().for_each(|shard| shard.evict(first)),
            _ => {}
        }
    }

    /// Writes state to disk until at least `bytes` of memory are free or nothing is left in it.
    ///
    /// # Errors
    /// As the disk fails; nothing is lost then.
    pub(super) async fn spill(&mut self, bytes: usize, memory: &Arc<StateMemory>) -> Result<()> {
        match self {
            Self::Aggregate { shards, .. } => {
                let share = bytes.div_ceil(shards.len().max(1));
                for_each(shards, |_| move |shard: &mut Shard| shard.spill(share)).await?;
            }
            Self::Rows { stores, .. } => {
                let share = bytes.div_ceil(stores.len().max(1));
                for_each(stores, |_| {
                    let memory = Arc::clone(memory);
                    move |store: &mut PaneStore| store.spill(share, &memory)
                })
                .await?;
            }
            Self::Unbounded { state, .. } => state.partitions().spill(bytes, memory)?,
            Self::Stateless { .. } | Self::Finite { .. } => {}
        }
        Ok(())
    }

    /// Whether some of the state of windows is on disk, so that what is made of it are copies in memory.
    pub(super) fn is_on_disk(&self) -> bool {
        match self {
            Self::Aggregate { shards, .. } => shards.iter().any(Shard::is_on_disk),
            Self::Rows { stores, .. } => stores.iter().any(PaneStore::is_on_disk),
            Self::Unbounded { .. } | Self::Stateless { .. } | Self::Finite { .. } => false,
        }
    }

    pub(super) fn rows_read(&self) -> u64 {
        match self {
            Self::Aggregate { shards, .. } => shards.iter().map(|shard| shard.rows_read).sum(),
            _ => 0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Aggregate { shards, .. } => shards.iter().map(Shard::bytes).sum(),
            Self::Rows { stores, .. } => stores.iter().map(PaneStore::bytes).sum(),
            Self::Unbounded { state, .. } => state.bytes(),
            Self::Stateless { .. } | Self::Finite { .. } => 0,
        }
    }
}

/// Adds rows to a pane and tag, alone in their buffers.
fn add_rows(store: &mut PaneStore, (pane, tag): PaneTag, rows: Vec<RecordBatch>) -> Result<()> {
    let rows = rows.into_iter().map(without_waste).collect::<Result<Vec<_>>>()?;
    store.add(pane, tag, rows);
    if store.recent(pane, tag).len() < UNMERGED_ROW_BATCHES {
        return Ok(());
    }
    let batches = store.take_recent(pane, tag);
    if let Some(schema) = batches.first().map(RecordBatch::schema) {
        let whole = without_waste(concat_rows(&schema, &batches)?)?;
        store.put(pane, tag, vec![whole].into());
    }
    Ok(())
}

/// The same state as several shards; waits for room on a full disk.
async fn split(mut whole: Shard, router: KeyRouter) -> Result<Vec<Shard>> {
    let mut full_disk = FullDisk::new("the query, whose state is spread over all tasks,");
    let mut parts = whole.empty_parts(&router);
    loop {
        let (rest, moved, ended) = blocking(move || {
            let ended = whole.move_into(&mut parts, &router);
            Ok((whole, parts, ended))
        })
        .await?;
        match ended {
            Err(error) if error.is_disk_full() => full_disk.say(&error),
            ended => return ended.map(|()| moved),
        }
        (whole, parts) = (rest, moved);
        tokio::time::sleep(ROOM_PAUSE).await;
    }
}

/// Runs work on a thread that may be kept busy.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = SpawnedTask::spawn_blocking(work);
    task.join().await.map_err(|error| Error::internal(format!("a task ended early: {error}")))?
}

/// Runs the work made for each part on all parts at once; results in their order.
async fn for_each<P, T, W>(parts: &mut Vec<P>, mut work: impl FnMut(usize) -> W) -> Result<Vec<T>>
where
    P: Send + 'static,
    T: Send + 'static,
    W: FnOnce(&mut P) -> Result<T> + Send + 'static,
{
    let running: Vec<_> = std::mem::take(parts)
        .into_iter()
        .enumerate()
        .map(|(index, mut part)| {
            let work = work(index);
            SpawnedTask::spawn_blocking(move || {
                let result = work(&mut part);
                (part, result)
            })
        })
        .collect();
    let mut results = Vec::with_capacity(running.len());
    for task in running {
        let (part, result) =
            task.join().await.map_err(|error| Error::internal(format!("a task ended early: {error}")))?;
        parts.push(part);
        results.push(result);
    }
    results.into_iter().collect()
}
