//! The two halves of taking rows in: `map` makes of a micro-batch what it adds to the state of a stage and its views,
//! and needs none of that state; `absorb` adds it.
//!
//! Whoever has the rows maps them, whoever owns the state absorbs what came of it: in one process both are the same.

use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};
use serde::{Deserialize, Serialize};

use crate::checkpoint::PaneTag;
use crate::error::{Error, Result};
use crate::executor::held::{State, blocking};
use crate::executor::instants::makes_instants;
use crate::executor::stage::{LateRows, Stage, StageInput};
use crate::executor::update::{Delta, RowCounts, Unit, head_rows, update};
use crate::executor::view::view_block;
use crate::nodes::{Bindings, SlotId};
use crate::plan::{Emission, EmissionMode};
use crate::program::{Program, Shape};
use crate::time::{Span, Watermark};
use crate::window::WindowSpec;

/// What a micro-batch adds to a stage and its views.
#[derive(Debug, Clone, Default)]
pub(crate) struct StageDelta {
    /// For each leaf of the stage; nothing for those that read a view.
    pub(crate) leaves: Vec<LeafDelta>,
    /// For each view.
    pub(crate) views: Vec<Self>,
}

/// What a micro-batch adds to a leaf.
#[derive(Debug, Clone, Default)]
pub(crate) struct LeafDelta {
    /// Where its rows went.
    pub(crate) counts: RowCounts,
    pub(crate) added: Added,
}

/// Where the rows of a micro-batch went, by leaf and view.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct DeltaCounts {
    pub(crate) leaves: Vec<RowCounts>,
    pub(crate) views: Vec<Self>,
}

impl From<&StageDelta> for DeltaCounts {
    fn from(delta: &StageDelta) -> Self {
        let leaves = delta.leaves.iter().map(|leaf| leaf.counts).collect();
        Self { leaves, views: delta.views.iter().map(Self::from).collect() }
    }
}

/// State of a micro-batch.
#[derive(Debug, Clone, Default)]
pub(crate) enum Added {
    /// There were no rows.
    #[default]
    Nothing,
    /// State by pane and tag; of rows that were all filtered out the pane alone, without state.
    Panes(Vec<(PaneTag, Vec<RecordBatch>)>),
    /// State, or result rows, of a query without windows.
    Rows(Vec<RecordBatch>),
}

impl StageDelta {
    /// How many rows of state, or of results, it has.
    pub(crate) fn row_count(&self) -> usize {
        self.batches().iter().map(|batch| batch.num_rows()).sum()
    }

    /// The memory that these take.
    pub(crate) fn bytes(&self) -> usize {
        self.batches().iter().map(|batch| batch.get_array_memory_size()).sum()
    }

    fn batches(&self) -> Vec<&RecordBatch> {
        let own = self.leaves.iter().flat_map(|leaf| match &leaf.added {
            Added::Nothing => Vec::new(),
            Added::Panes(panes) => panes.iter().flat_map(|(_, batches)| batches).collect(),
            Added::Rows(batches) => batches.iter().collect(),
        });
        own.chain(self.views.iter().flat_map(Self::batches)).collect()
    }

    /// Takes in what a later micro-batch adds.
    pub(crate) fn append(&mut self, later: Self) {
        if self.leaves.is_empty() && self.views.is_empty() {
            *self = later;
            return;
        }
        for (leaf, more) in self.leaves.iter_mut().zip(later.leaves) {
            leaf.counts.add(&more.counts);
            match (&mut leaf.added, more.added) {
                (_, Added::Nothing) => {}
                (Added::Panes(panes), Added::Panes(more)) => panes.extend(more),
                (Added::Rows(rows), Added::Rows(more)) => rows.extend(more),
                // A leaf adds either panes or rows, or nothing.
                (added, more) => *added = more,
            }
        }
        self.views.iter_mut().zip(later.views).for_each(|(view, more)| view.append(more));
    }
}

/// A delta, and the rows that were too late for every window.
type Mapped = (StageDelta, Vec<LateRows>);

impl Stage {
    /// Takes in the rows of a micro-batch, a list of units for each stream; gives the rows that were too late.
    ///
    /// Views evaluate the instants that `watermark` crosses on the way.
    pub(crate) async fn update(&mut self, streams: &[Vec<Unit>], watermark: Watermark) -> Result<Vec<LateRows>> {
        let (delta, late) = self.map(streams).await?;
        self.absorb(delta, watermark).await?;
        Ok(late)
    }

    /// A delta that adds nothing.
    pub(crate) fn empty_delta(&self) -> StageDelta {
        let leaves = self.inputs.iter().map(|_| LeafDelta::default()).collect();
        StageDelta { leaves, views: self.views.iter().map(|view| view.stage.empty_delta()).collect() }
    }

    /// What the rows of a micro-batch, a list of units for each stream, add to its state.
    pub(crate) fn map<'a>(&'a self, streams: &'a [Vec<Unit>]) -> BoxFuture<'a, Result<Mapped>> {
        async move {
            let (mut delta, mut late) = (StageDelta::default(), Vec::new());
            for (leaf, input) in self.inputs.iter().enumerate() {
                let units = match input {
                    StageInput::Stream(stream) => streams.get(*stream).map_or(&[][..], Vec::as_slice),
                    StageInput::View(_) => &[],
                };
                let stream = if let StageInput::Stream(stream) = input { *stream } else { usize::MAX };
                let (of_leaf, missed) = self.map_leaf(leaf, stream, units).await?;
                delta.leaves.push(of_leaf);
                late.extend(missed);
            }
            for view in &self.views {
                let (of_view, missed) = view.stage.map(streams).await?;
                delta.views.push(of_view);
                late.extend(missed);
            }
            Ok((delta, late))
        }
        .boxed()
    }

    async fn map_leaf(&self, leaf: usize, stream: usize, units: &[Unit]) -> Result<(LeafDelta, Vec<LateRows>)> {
        if units.is_empty() {
            return Ok((LeafDelta::default(), Vec::new()));
        }
        match &self.state {
            State::Windows { .. } => self.map_windows(leaf, stream, units).await,
            State::Unbounded { .. } | State::Stateless { .. } => Ok((self.map_endless(leaf, units).await?, Vec::new())),
            State::Finite { .. } => Ok((LeafDelta::default(), Vec::new())),
        }
    }

    async fn map_windows(&self, leaf: usize, stream: usize, units: &[Unit]) -> Result<(LeafDelta, Vec<LateRows>)> {
        let lateness = match self.output.emission {
            // Whatever is behind is late: which rows it would have met is forgotten.
            Emission { mode: EmissionMode::Pairs, .. } => Span(-i64::MAX),
            emission => emission.lateness.unwrap_or(Span(0)),
        };
        let deltas = self.in_parallel(units, move |program, unit| update(program.input(leaf)?, &unit, lateness));
        let deltas: Vec<Delta> = deltas.await?;
        let (mut counts, mut panes, mut late) = (RowCounts::default(), Vec::new(), Vec::new());
        for delta in deltas {
            counts.add(&delta.counts);
            late.extend(delta.late.into_iter().map(|(block, missed)| LateRows { stream, block, missed }));
            panes.extend(delta.state);
        }
        Ok((LeafDelta { counts, added: Added::Panes(panes) }, late))
    }

    async fn map_endless(&self, leaf: usize, units: &[Unit]) -> Result<LeafDelta> {
        let heads = self.in_parallel(units, move |program, unit| {
            let mut counts = RowCounts::default();
            let rows = head_rows(program.input(leaf)?, &unit, &mut counts)?;
            let rows = match &program.shape {
                Shape::Unbounded(plans, _) => plans.update(rows)?,
                Shape::Stateless(plan) => plan.run(stateless_bindings(program.inputs.len(), leaf, rows))?,
                _ => return Err(Error::internal("a windowed plan was given endless rows")),
            };
            Ok((counts, rows))
        });
        let (mut counts, mut rows) = (RowCounts::default(), Vec::new());
        for (of_unit, more) in heads.await? {
            counts.add(&of_unit);
            rows.extend(more);
        }
        Ok(LeafDelta { counts, added: Added::Rows(rows) })
    }

    /// Adds what a micro-batch adds; views evaluate the instants that `watermark` crosses on the way.
    pub(crate) fn absorb<'a>(&'a mut self, delta: StageDelta, watermark: Watermark) -> BoxFuture<'a, Result<()>> {
        async move {
            for (leaf, of_leaf) in delta.leaves.into_iter().enumerate() {
                self.absorb_leaf(leaf, of_leaf).await?;
            }
            for (index, of_view) in delta.views.into_iter().enumerate() {
                self.absorb_view(index, of_view, watermark).await?;
            }
            Ok(())
        }
        .boxed()
    }

    async fn absorb_view(&mut self, index: usize, delta: StageDelta, watermark: Watermark) -> Result<()> {
        let no_view = || Error::internal("a leaf reads a view that is not there");
        self.views.get_mut(index).ok_or_else(no_view)?.stage.absorb(delta, watermark).await?;
        loop {
            let view = self.views.get_mut(index).ok_or_else(no_view)?;
            let emissions = view.stage.evaluate(watermark).await?;
            if emissions.is_empty() {
                return Ok(());
            }
            let schema = view.stage.schema();
            let by_row = view.stage.windows.iter().all(WindowSpec::is_by_row);
            let mut unit = Unit::new();
            for emission in emissions {
                if let Some(block) = view_block(emission, &schema, view.rows, by_row)? {
                    view.rows += block.rows.num_rows() as u64;
                    unit.push(Arc::new(block));
                }
            }
            let leaves = self.inputs.iter().enumerate();
            let leaves: Vec<_> = leaves
                .filter(|(_, input)| matches!(input, StageInput::View(view) if *view == index))
                .map(|(leaf, _)| leaf)
                .collect();
            for leaf in leaves {
                // Rows of a view come in order: none is late.
                let (delta, _) = self.map_leaf(leaf, usize::MAX, std::slice::from_ref(&unit)).await?;
                self.absorb_leaf(leaf, delta).await?;
            }
        }
    }

    async fn absorb_leaf(&mut self, leaf: usize, delta: LeafDelta) -> Result<()> {
        if let Some(counts) = self.counts.get_mut(leaf) {
            counts.add(&delta.counts);
        }
        match delta.added {
            Added::Nothing => Ok(()),
            Added::Panes(panes) => self.absorb_panes(leaf, panes).await,
            Added::Rows(rows) => {
                if let State::Unbounded { ready, .. } | State::Stateless { ready } = &mut self.state {
                    ready.extend(rows);
                }
                Ok(())
            }
        }
    }

    async fn absorb_panes(&mut self, leaf: usize, panes: Vec<(PaneTag, Vec<RecordBatch>)>) -> Result<()> {
        // Where rows make the instants, what is kept of them tells which.
        let notes_panes = self.windows.get(leaf).is_some_and(|window| !makes_instants(window.contents()));
        if let (true, Some(calendar)) = (notes_panes, self.calendars.get_mut(leaf)) {
            panes.iter().for_each(|((pane, tag), _)| calendar.note(*pane, *tag));
        }
        self.touch(leaf, panes.iter().map(|(pair, _)| *pair));
        self.state.add(leaf, panes).await?;
        // Not only with a window: what is replayed evaluates none.
        self.state.spread(&self.options).await?;
        self.stay_within_memory().await
    }

    /// Runs `work` on every unit on threads of its own, `tasks` at a time; results come in the order of the units.
    async fn in_parallel<T: Send + 'static>(
        &self,
        units: &[Unit],
        work: impl Fn(&Program, Unit) -> Result<T> + Clone + Send + 'static,
    ) -> Result<Vec<T>> {
        let jobs: Vec<_> = units
            .iter()
            .map(|unit| {
                let (program, work, unit) = (Arc::clone(&self.program), work.clone(), unit.clone());
                blocking(move || work(&program, unit))
            })
            .collect();
        futures::stream::iter(jobs).buffered(self.options.tasks.max(1)).try_collect().await
    }
}

/// Rows for one leaf, none for the others: the plan gives what these rows add.
fn stateless_bindings(leaves: usize, leaf: usize, rows: Vec<RecordBatch>) -> Bindings {
    let mut bindings = Bindings::default();
    for other in (0..leaves).filter(|other| *other != leaf) {
        bindings.bind(SlotId(other), Vec::new());
    }
    bindings.bind(SlotId(leaf), rows);
    bindings
}
