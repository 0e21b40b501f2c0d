//! What a stage keeps between micro-batches, by the shape of its plan, and how results are made of it.

use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use futures::{StreamExt, TryStreamExt};

use crate::error::{Error, Result};
use crate::executor::assign::PaneTag;
use crate::executor::leaf::{LeafState, Seen};
use crate::executor::stage::StageOptions;
use crate::executor::unbounded::Unbounded;
use crate::nodes::{Bindings, SlotId};
use crate::program::{InputPlan, Kept, Program, Shape, Template};
use crate::state::StateMemory;
use crate::time::EventTime;
use crate::window::{Pane, WindowSpec};

/// How a window is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// As it closes, once.
    Final,
    /// Before, or after that.
    Again,
}

/// The state of a stage.
#[derive(Debug)]
pub(crate) enum State {
    Windows { post: Option<Template>, leaves: Vec<LeafState> },
    Unbounded { state: Unbounded, ready: Vec<RecordBatch> },
    Stateless { ready: Vec<RecordBatch> },
    Finite { plan: Option<Template> },
}

impl State {
    pub(super) fn new(program: &Program, options: &StageOptions) -> Result<Self> {
        Ok(match &program.shape {
            Shape::Finite(plan) => Self::Finite { plan: Some(plan.clone()) },
            Shape::Stateless(_) => Self::Stateless { ready: Vec::new() },
            Shape::Unbounded(plans, post) => {
                let state = Unbounded::new(
                    Arc::clone(plans),
                    post.clone(),
                    options.key_partitions,
                    Arc::clone(&options.memory),
                );
                Self::Unbounded { state, ready: Vec::new() }
            }
            Shape::Windows(post) => {
                let leaves = program.inputs.iter().map(|input| LeafState::new(input, options));
                Self::Windows { post: post.clone(), leaves: leaves.collect::<Result<_>>()? }
            }
        })
    }

    /// What the windows of each leaf hold; none where there are none.
    pub(super) fn leaves(&self) -> &[LeafState] {
        match self {
            Self::Windows { leaves, .. } => leaves,
            _ => &[],
        }
    }

    /// The same, to be changed.
    pub(super) fn leaves_mut(&mut self) -> &mut [LeafState] {
        match self {
            Self::Windows { leaves, .. } => leaves,
            _ => &mut [],
        }
    }

    pub(super) async fn add(&mut self, leaf: usize, states: Vec<(PaneTag, Vec<RecordBatch>)>) -> Result<()> {
        match self.leaves_mut().get_mut(leaf) {
            Some(leaf) => leaf.add(states).await,
            None => Err(Error::internal("a query without windows was given panes")),
        }
    }

    /// The results of each of `instants`, which ascend; those of windows that close there, or as far as windows have
    /// come.
    pub(super) async fn evaluate(
        &mut self,
        program: &Arc<Program>,
        windows: &[WindowSpec],
        instants: &[EventTime],
        look: Look,
        tasks: usize,
    ) -> Result<Vec<Vec<RecordBatch>>> {
        let Self::Windows { post, leaves } = self else {
            return Err(Error::internal("a query without windows was asked for one"));
        };
        let mut seen = Vec::with_capacity(leaves.len());
        for (leaf, window) in leaves.iter_mut().zip(windows) {
            // Between its own instants a leaf shows what it last did.
            let own: Vec<_> = instants.iter().map(|instant| window.instant_at_or_before(*instant)).collect();
            let of_leaf = match look {
                Look::Final => leaf.at(window, own).await?,
                Look::Again => leaf.again(window, &own)?,
            };
            seen.push(of_leaf.into_iter());
        }
        let jobs: Vec<_> = instants
            .iter()
            .map(|_| {
                let of_leaves: Vec<Seen> = seen.iter_mut().filter_map(Iterator::next).collect();
                let (program, post) = (Arc::clone(program), post.clone());
                blocking(move || results(&program.inputs, post.as_ref(), of_leaves))
            })
            .collect();
        futures::stream::iter(jobs).buffered(tasks.max(1)).try_collect().await
    }

    /// The combinations of rows of which the last was seen after the first of the instants, and up to the second.
    ///
    /// Each comes from one run of the plan, that of the first leaf which has a new row of it: leaves before that one
    /// give their old rows, those behind it all.
    pub(super) async fn pairs(
        &mut self,
        program: &Arc<Program>,
        windows: &[WindowSpec],
        (before, until): (EventTime, EventTime),
        tasks: usize,
    ) -> Result<Vec<RecordBatch>> {
        let Self::Windows { post: Some(post), leaves } = self else {
            return Err(Error::internal("a query without windows was asked for combinations of rows"));
        };
        let mut parts = Vec::with_capacity(leaves.len());
        for (leaf, window) in leaves.iter_mut().zip(windows) {
            let store = leaf.store().ok_or_else(|| Error::internal("combinations are of rows"))?;
            let of = |from, to| store.seen_between(from, to).into_iter().map(|(_, rows)| rows).collect::<Vec<_>>();
            let extent = window.window(until);
            parts.push((of(EventTime(i64::MIN), before), of(before, until), extent));
        }
        let jobs = (0..parts.len()).filter(|new| parts.get(*new).is_some_and(|(_, rows, _)| !rows.is_empty()));
        let jobs = jobs.map(|new| {
            let seen: Vec<Seen> = parts
                .iter()
                .enumerate()
                .map(|(leaf, (old, fresh, extent))| {
                    let rows = match leaf.cmp(&new) {
                        std::cmp::Ordering::Less => old.clone(),
                        std::cmp::Ordering::Equal => fresh.clone(),
                        std::cmp::Ordering::Greater => old.iter().chain(fresh).cloned().collect(),
                    };
                    Seen::Stored(rows, *extent)
                })
                .collect();
            let (program, post) = (Arc::clone(program), post.clone());
            blocking(move || results(&program.inputs, Some(&post), seen))
        });
        let jobs: Vec<_> = jobs.collect();
        let results: Vec<_> = futures::stream::iter(jobs).buffered(tasks.max(1)).try_collect().await?;
        Ok(results.into_iter().flatten().collect())
    }

    /// Spreads the key partitions over all tasks once windows have grown large; waits where state on disk finds no room
    /// there.
    pub(super) async fn spread(&mut self, options: &StageOptions) -> Result<()> {
        for leaf in self.leaves_mut() {
            leaf.spread(options).await?;
        }
        Ok(())
    }

    pub(super) fn settle(&mut self, leaf: usize, end: Pane) -> Result<()> {
        self.leaves_mut().get_mut(leaf).map_or(Ok(()), |leaf| leaf.settle(end))
    }

    pub(super) fn evict(&mut self, leaf: usize, first: Pane) {
        if let Some(leaf) = self.leaves_mut().get_mut(leaf) {
            leaf.evict(first);
        }
    }

    /// Writes state to disk until at least `bytes` of memory are free or nothing is left in it.
    ///
    /// # Errors
    /// As the disk fails; nothing is lost then.
    pub(super) async fn spill(&mut self, bytes: usize, memory: &Arc<StateMemory>) -> Result<()> {
        match self {
            Self::Windows { leaves, .. } => {
                let share = bytes.div_ceil(leaves.len().max(1));
                for leaf in leaves {
                    leaf.spill(share, memory).await?;
                }
            }
            Self::Unbounded { state, .. } => state.partitions().spill(bytes, memory)?,
            Self::Stateless { .. } | Self::Finite { .. } => {}
        }
        Ok(())
    }

    /// Whether some of the state of windows is on disk, so that what is made of it are copies in memory.
    pub(super) fn is_on_disk(&self) -> bool {
        self.leaves().iter().any(LeafState::is_on_disk)
    }

    pub(super) fn rows_read(&self) -> u64 {
        self.leaves().iter().map(LeafState::rows_read).sum()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes_by_input().into_iter().sum()
    }

    /// The memory that the state of each input takes; of inputs that hold none nothing is said.
    pub(super) fn bytes_by_input(&self) -> Vec<usize> {
        match self {
            Self::Windows { leaves, .. } => leaves.iter().map(LeafState::bytes).collect(),
            Self::Unbounded { state, .. } => vec![state.bytes()],
            Self::Stateless { .. } | Self::Finite { .. } => Vec::new(),
        }
    }
}

/// The result rows of one instant.
fn results(inputs: &[InputPlan], post: Option<&Template>, seen: Vec<Seen>) -> Result<Vec<RecordBatch>> {
    let is_single = seen.len() == 1;
    let mut bindings = Bindings::default();
    for (leaf, (seen, input)) in seen.into_iter().zip(inputs).enumerate() {
        let mut rows = seen.rows(input)?;
        if let (true, false, Kept::Aggregate(plans)) = (rows.is_empty(), is_single, &input.keeps) {
            // Another leaf has rows: grouping sets of nothing have a row of their own.
            rows = plans.finish(plans.empty_state.clone(), Seen::NO_WINDOW)?;
        }
        if post.is_none() {
            return Ok(rows);
        }
        bindings.bind(SlotId(leaf), rows);
    }
    post.map_or_else(|| Ok(Vec::new()), |post| post.run(bindings))
}

/// Runs work on a thread that may be kept busy.
pub(super) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = SpawnedTask::spawn_blocking(work);
    task.join().await.map_err(|error| Error::internal(format!("a task ended early: {error}")))?
}

/// Runs the work made for each part on all parts at once; results in their order.
pub(super) async fn for_each<P, T, W>(parts: &mut Vec<P>, mut work: impl FnMut(usize) -> W) -> Result<Vec<T>>
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
