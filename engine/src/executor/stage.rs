//! One windowed query, or the view that feeds one: rows go in, results of crossed instants come out.
//!
//! A stage's leaves read streams or other stages. A view's results of instant `e` enter the stage above with the
//! event time `e − 1` tick, so that windows over windows are a chain of stages and nothing else.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt, TryStreamExt};

use crate::durable::{FullDisk, ROOM_PAUSE};
use crate::error::{Error, Result};
use crate::executor::held::{State, blocking};
use crate::executor::leaf::LeafState;
use crate::executor::update::{Delta, Missed, RowCounts, Unit, head_rows, update};
use crate::executor::view::view_block;
use crate::ingest::Block;
use crate::nodes::{Bindings, SlotId};
use crate::plan::Input;
use crate::program::{Explanation, Program, Shape};
use crate::state::{Calendar, MemoryShare, StateMemory};
use crate::time::{EventTime, Span, Watermark};
use crate::window::{Contents, WindowSpec};

/// Instants evaluated together; bounds the results held in memory when many windows close at once.
const INSTANTS_AT_ONCE: usize = 32;
/// The same where state is on disk: windows share what is in memory, but read copies of their own of what is not.
const INSTANTS_AT_ONCE_ON_DISK: usize = 1;

/// The same for sessions: each has few rows, and all open ones are read for the ends of some.
const SESSION_ENDS_AT_ONCE: usize = 4096;

/// How a stage is run.
#[derive(Debug, Clone)]
pub(crate) struct StageOptions {
    /// Plans run at once, and shards of aggregate state.
    pub(crate) tasks: usize,
    /// T, the number of key partitions.
    pub(crate) key_partitions: u32,
    /// State rows in a window from which its key partitions are spread over all tasks.
    pub(crate) shared_rows: u64,
    /// The limit on state, shared with other queries.
    pub(crate) memory: Arc<StateMemory>,
    /// Where plans run: their memory pool and temporary files.
    pub(crate) runtime: Arc<RuntimeEnv>,
}

/// Where a leaf's rows come from.
#[derive(Debug, Clone, Copy)]
pub(crate) enum StageInput {
    /// The query's stream with this index.
    Stream(usize),
    /// The stage's view with this index.
    View(usize),
}

/// Result rows, and the instant they belong to if the query is windowed.
#[derive(Debug)]
pub(crate) struct Emission {
    pub(crate) instant: Option<EventTime>,
    pub(crate) rows: Vec<RecordBatch>,
}

/// Rows of a stream that were too late for every window.
#[derive(Debug)]
pub(crate) struct LateRows {
    pub(crate) stream: usize,
    pub(crate) block: Arc<Block>,
    pub(crate) missed: Missed,
}

/// What a stage has done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StageCounts {
    /// For each leaf, its scan name and where its rows went.
    pub inputs: Vec<(String, RowCounts)>,
    /// State rows read by merges and evaluations.
    pub state_rows_read: u64,
    /// Instants evaluated.
    pub instants: u64,
    /// Memory of the state.
    pub state_bytes: u64,
    /// Plans made, at the start and since.
    pub plans_made: u64,
    /// Plans the query has.
    pub plan_count: u64,
}

/// A stage.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(super) program: Arc<Program>,
    inputs: Vec<StageInput>,
    pub(super) views: Vec<View>,
    pub(super) windows: Vec<WindowSpec>,
    pub(super) calendars: Vec<Calendar>,
    pub(super) state: State,
    share: MemoryShare,
    pub(super) options: StageOptions,
    /// All instants up to here have been evaluated.
    pub(super) evaluated: EventTime,
    pub(super) counts: Vec<RowCounts>,
    instants: u64,
}

#[derive(Debug)]
pub(super) struct View {
    name: String,
    pub(super) stage: Stage,
    pub(super) rows: u64,
}

impl Stage {
    /// Sets the stage of `program` up; `stream_of` gives the index of a stream by its name.
    pub(crate) fn build<'a>(
        program: Program,
        options: StageOptions,
        stream_of: &'a (dyn Fn(&str) -> Result<usize> + Sync),
    ) -> BoxFuture<'a, Result<Self>> {
        async move {
            let mut views: Vec<View> = Vec::new();
            let mut inputs = Vec::new();
            for leaf in &program.inputs {
                inputs.push(match leaf.table().input() {
                    Input::Stream(stream) => StageInput::Stream(stream_of(&stream.name)?),
                    Input::View(view) => match views.iter().position(|known| known.name == view.name) {
                        Some(index) => StageInput::View(index),
                        None => {
                            let program = Program::compile(view.query.clone(), &options.runtime).await?;
                            let stage = Self::build(program, options.clone(), stream_of).await?;
                            views.push(View { name: view.name.clone(), stage, rows: 0 });
                            StageInput::View(views.len() - 1)
                        }
                    },
                });
            }
            let windows = program.inputs.iter().filter_map(|leaf| leaf.table().window().copied()).collect::<Vec<_>>();
            let state = State::new(&program, &options)?;
            let leaves = program.inputs.len();
            Ok(Self {
                program: Arc::new(program),
                inputs,
                views,
                windows,
                calendars: vec![Calendar::default(); leaves],
                state,
                share: MemoryShare::new(Arc::clone(&options.memory)),
                options,
                evaluated: EventTime(i64::MIN),
                counts: vec![RowCounts::default(); leaves],
                instants: 0,
            })
        }
        .boxed()
    }

    /// The columns of its results.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.program.schema)
    }

    /// Its plans and its views' in words, views first.
    pub(crate) fn explain(&self) -> Vec<(Option<String>, Explanation)> {
        let views = self.views.iter().flat_map(|view| {
            let mut parts = view.stage.explain();
            if let Some((name, _)) = parts.last_mut() {
                *name = Some(view.name.clone());
            }
            parts
        });
        views.chain(std::iter::once((None, self.program.explain()))).collect()
    }

    /// The longest slide of its windows and its views'.
    pub(crate) fn longest_slide(&self) -> Span {
        let own = self.windows.iter().map(WindowSpec::slide);
        own.chain(self.views.iter().map(|view| view.stage.longest_slide())).max().unwrap_or(Span(0))
    }

    /// What it has done, views included.
    pub(crate) fn counts(&self) -> StageCounts {
        let names = self.program.inputs.iter().map(|leaf| leaf.table().scan_name());
        let mut counts = StageCounts {
            inputs: names.zip(self.counts.iter().copied()).collect(),
            state_rows_read: self.state.rows_read(),
            instants: self.instants,
            state_bytes: self.state.bytes() as u64,
            plans_made: self.program.plans_made(),
            plan_count: self.program.plan_count(),
        };
        for view in self.views.iter().map(|view| view.stage.counts()) {
            counts.state_rows_read += view.state_rows_read;
            counts.state_bytes += view.state_bytes;
            counts.plans_made += view.plans_made;
            counts.plan_count += view.plan_count;
            counts.inputs.extend(view.inputs);
        }
        counts
    }

    /// Takes in the rows of a micro-batch, a list of units for each stream; gives the rows that were too late.
    ///
    /// Views evaluate the instants that `watermark` crosses on the way.
    pub(crate) fn update<'a>(
        &'a mut self,
        streams: &'a [Vec<Unit>],
        watermark: Watermark,
    ) -> BoxFuture<'a, Result<Vec<LateRows>>> {
        async move {
            let mut late = Vec::new();
            for (leaf, input) in self.inputs.clone().into_iter().enumerate() {
                if let StageInput::Stream(stream) = input {
                    let units = streams.get(stream).cloned().unwrap_or_default();
                    late.extend(self.update_leaf(leaf, stream, units).await?);
                }
            }
            for index in 0..self.views.len() {
                late.extend(self.update_view(index, streams, watermark).await?);
            }
            Ok(late)
        }
        .boxed()
    }

    async fn update_view(
        &mut self,
        index: usize,
        streams: &[Vec<Unit>],
        watermark: Watermark,
    ) -> Result<Vec<LateRows>> {
        let no_view = || Error::internal("a leaf reads a view that is not there");
        let late = self.views.get_mut(index).ok_or_else(no_view)?.stage.update(streams, watermark).await?;
        loop {
            let view = self.views.get_mut(index).ok_or_else(no_view)?;
            let emissions = view.stage.evaluate(watermark).await?;
            if emissions.is_empty() {
                return Ok(late);
            }
            let schema = view.stage.schema();
            let mut unit = Unit::new();
            for emission in emissions {
                if let Some(block) = view_block(emission, &schema, view.rows)? {
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
                self.update_leaf(leaf, usize::MAX, vec![unit.clone()]).await?;
            }
        }
    }

    async fn update_leaf(&mut self, leaf: usize, stream: usize, units: Vec<Unit>) -> Result<Vec<LateRows>> {
        if units.is_empty() {
            return Ok(Vec::new());
        }
        match &self.state {
            State::Windows { .. } => self.update_windows(leaf, stream, units).await,
            State::Unbounded { .. } | State::Stateless { .. } => {
                self.update_endless(leaf, units).await?;
                Ok(Vec::new())
            }
            State::Finite { .. } => Ok(Vec::new()),
        }
    }

    async fn update_windows(&mut self, leaf: usize, stream: usize, units: Vec<Unit>) -> Result<Vec<LateRows>> {
        let deltas = self.in_parallel(units, move |program, unit| {
            let input = program.inputs.get(leaf).ok_or_else(|| Error::internal("no such leaf"))?;
            update(input, &unit)
        });
        let deltas: Vec<Delta> = deltas.await?;
        let mut late = Vec::new();
        let mut states = Vec::new();
        for delta in deltas {
            if let Some(counts) = self.counts.get_mut(leaf) {
                counts.add(&delta.counts);
            }
            late.extend(delta.late.into_iter().map(|(block, missed)| LateRows { stream, block, missed }));
            let notes_panes = self.windows.get(leaf).is_some_and(|window| window.contents() != Contents::Session);
            if let (true, Some(calendar)) = (notes_panes, self.calendars.get_mut(leaf)) {
                delta.state.iter().for_each(|((pane, tag), _)| calendar.note(*pane, *tag));
            }
            states.extend(delta.state);
        }
        self.state.add(leaf, states).await?;
        // Not only with a window: what is replayed evaluates none.
        self.state.spread(&self.options).await?;
        self.stay_within_memory().await?;
        Ok(late)
    }

    /// Counts its state and that of its views, which were put back, in the memory that queries share.
    pub(crate) fn count_memory(&mut self) {
        self.share.set(self.state.bytes());
        self.views.iter_mut().for_each(|view| view.stage.count_memory());
    }

    /// Writes state to disk while all state together exceeds its limit; waits while the disk has no room either.
    async fn stay_within_memory(&mut self) -> Result<()> {
        let mut full_disk = FullDisk::new("the query, whose state exceeds its memory,");
        let mut excess = self.share.set(self.state.bytes());
        while excess > 0 {
            let before = self.state.bytes();
            match self.state.spill(excess, self.share.memory()).await {
                Err(error) if error.is_disk_full() => {
                    full_disk.say(&error);
                    tokio::time::sleep(ROOM_PAUSE).await;
                }
                // What is left is derived from panes and cannot go.
                Ok(()) if self.state.bytes() >= before => break,
                ended => ended?,
            }
            excess = self.share.set(self.state.bytes());
        }
        Ok(())
    }

    async fn update_endless(&mut self, leaf: usize, units: Vec<Unit>) -> Result<()> {
        let heads = self.in_parallel(units, move |program, unit| {
            let input = program.inputs.get(leaf).ok_or_else(|| Error::internal("no such leaf"))?;
            let mut counts = RowCounts::default();
            let rows = head_rows(input, &unit, &mut counts)?;
            let rows = match &program.shape {
                Shape::Unbounded(plans, _) => plans.update(rows)?,
                Shape::Stateless(plan) => plan.run(stateless_bindings(program.inputs.len(), leaf, rows))?,
                _ => return Err(Error::internal("a windowed plan was given endless rows")),
            };
            Ok((counts, rows))
        });
        let heads: Vec<(RowCounts, Vec<RecordBatch>)> = heads.await?;
        for (counts, rows) in heads {
            if let Some(known) = self.counts.get_mut(leaf) {
                known.add(&counts);
            }
            if let State::Unbounded { ready, .. } | State::Stateless { ready } = &mut self.state {
                ready.extend(rows);
            }
        }
        Ok(())
    }

    /// Runs `work` on every unit on threads of its own, `tasks` at a time; results come in the order of the units.
    async fn in_parallel<T: Send + 'static>(
        &self,
        units: Vec<Unit>,
        work: impl Fn(&Program, Unit) -> Result<T> + Clone + Send + 'static,
    ) -> Result<Vec<T>> {
        let jobs = units.into_iter().map(|unit| {
            let (program, work) = (Arc::clone(&self.program), work.clone());
            blocking(move || work(&program, unit))
        });
        futures::stream::iter(jobs).buffered(self.options.tasks.max(1)).try_collect().await
    }

    /// Evaluates the next instants that `watermark` crosses, a bounded number of them; empty once all are done.
    pub(crate) async fn evaluate(&mut self, watermark: Watermark) -> Result<Vec<Emission>> {
        match &mut self.state {
            State::Finite { plan } => match plan.take() {
                None => Ok(Vec::new()),
                Some(plan) => {
                    let rows = blocking(move || plan.run(Bindings::default())).await?;
                    Ok(vec![Emission { instant: None, rows }])
                }
            },
            State::Stateless { ready } => {
                let rows = std::mem::take(ready);
                Ok(if rows.is_empty() { Vec::new() } else { vec![Emission { instant: None, rows }] })
            }
            State::Unbounded { state, ready } => {
                if ready.is_empty() {
                    return Ok(Vec::new());
                }
                let rows = state.update(std::mem::take(ready))?;
                self.stay_within_memory().await?;
                Ok(vec![Emission { instant: None, rows }])
            }
            State::Windows { .. } => self.evaluate_windows(watermark).await,
        }
    }

    /// Passes the instants that `watermark` crosses without making their results, which were made before.
    ///
    /// # Errors
    /// Fails if state cannot be merged.
    pub(crate) async fn pass(&mut self, watermark: Watermark) -> Result<()> {
        match &mut self.state {
            State::Finite { plan } => *plan = None,
            State::Stateless { ready } => ready.clear(),
            State::Unbounded { state, ready } => {
                state.absorb(std::mem::take(ready))?;
                self.stay_within_memory().await?;
            }
            State::Windows { .. } => {
                let limit = EventTime(self.output_watermark(watermark).0);
                self.state.leaves_mut().iter_mut().try_for_each(|leaf| leaf.pass(limit))?;
                self.evaluated = self.evaluated.max(limit);
                self.evict();
            }
        }
        Ok(())
    }

    async fn evaluate_windows(&mut self, watermark: Watermark) -> Result<Vec<Emission>> {
        let limit = EventTime(self.output_watermark(watermark).0);
        let mut instants = Vec::new();
        let is_session = self.windows.iter().any(|window| window.contents() == Contents::Session);
        let at_once = match (is_session, self.state.is_on_disk()) {
            (true, _) => SESSION_ENDS_AT_ONCE,
            (false, true) => INSTANTS_AT_ONCE_ON_DISK,
            (false, false) => INSTANTS_AT_ONCE,
        };
        while instants.len() < at_once {
            let Some(instant) = self.next_instant(limit) else { break };
            self.evaluated = instant;
            instants.push(instant);
        }
        if instants.is_empty() {
            self.evaluated = self.evaluated.max(limit);
            self.evict();
            return Ok(Vec::new());
        }
        self.instants += instants.len() as u64;
        let results = self.state.evaluate(&self.program, &self.windows, &instants, self.options.tasks).await?;
        self.state.spread(&self.options).await?;
        self.evict();
        self.stay_within_memory().await?;
        let emissions = instants.into_iter().zip(results);
        Ok(emissions.map(|(instant, rows)| Emission { instant: Some(instant), rows }).collect())
    }

    /// The last instant that may be evaluated when the query's streams have come to `watermark`; no result to come
    /// will have an event time below it.
    ///
    /// Windows that are closed on the right wait for one tick more, and so do all windows above them.
    fn output_watermark(&self, watermark: Watermark) -> Watermark {
        if watermark == Watermark::END {
            return watermark;
        }
        let inputs = self.inputs.iter().filter_map(|input| match input {
            StageInput::Stream(_) => Some(watermark),
            StageInput::View(index) => Some(self.views.get(*index)?.stage.output_watermark(watermark)),
        });
        let reached = EventTime(inputs.min().unwrap_or(watermark).0);
        let shift = self.windows.iter().map(WindowSpec::shift).max().unwrap_or(Span(0));
        Watermark(reached.minus(shift).0)
    }

    /// The next instant after the evaluated ones, up to `limit`, at which some window has rows.
    fn next_instant(&self, limit: EventTime) -> Option<EventTime> {
        let limit = if limit == EventTime(i64::MAX) { self.last_change()? } else { limit };
        let mut after = self.evaluated;
        loop {
            let instant = self.leaves().filter_map(|leaf| leaf.next_own_instant(after)).min()?;
            if instant > limit {
                return None;
            }
            let present = self.leaves().filter_map(|leaf| leaf.next_presence(instant)).min()?;
            if present <= instant {
                return Some(instant);
            }
            after = EventTime(present.0.saturating_sub(1));
        }
    }

    /// The last time worth evaluating when no more rows come: windows that rows never leave go on for ever.
    fn last_change(&self) -> Option<EventTime> {
        self.leaves().filter_map(|leaf| leaf.last_change()).max()
    }

    fn leaves(&self) -> impl Iterator<Item = LeafClock<'_>> {
        let held = self.state.leaves();
        let parts = self.windows.iter().zip(&self.calendars).zip(held);
        parts.map(|((window, calendar), state)| LeafClock { window, calendar, state })
    }

    /// Drops the panes that no instant to come can see.
    fn evict(&mut self) {
        let is_single = self.windows.len() == 1;
        for (leaf, (window, calendar)) in self.windows.iter().zip(&mut self.calendars).enumerate() {
            if self.evaluated.0 == i64::MIN || self.evaluated.0 >= i64::MAX - 1 {
                return;
            }
            if window.is_latest() {
                calendar.unite(window.panes_of(window.instant_at_or_before(self.evaluated)).1);
                continue;
            }
            // A side of a join keeps its last contents until its own next instant.
            let needed = if is_single {
                window.instant_after(self.evaluated)
            } else {
                window.instant_at_or_before(EventTime(self.evaluated.0 + 1))
            };
            let (first, _) = window.panes_of(needed);
            calendar.evict(first);
            self.state.evict(leaf, first);
        }
    }
}

/// When a leaf has something to show.
struct LeafClock<'a> {
    window: &'a WindowSpec,
    calendar: &'a Calendar,
    state: &'a LeafState,
}

impl LeafClock<'_> {
    /// The first instant of its window after `time`.
    fn next_own_instant(&self, time: EventTime) -> Option<EventTime> {
        match self.window.contents() {
            Contents::Session => self.state.next_session_end(time),
            _ if self.window.is_by_row() => self.calendar.next_natural(self.window, time),
            _ => Some(self.window.instant_after(time)),
        }
    }

    /// The first time at or after `time` at which it has rows.
    fn next_presence(&self, time: EventTime) -> Option<EventTime> {
        match self.window.contents() {
            Contents::Session => self.state.next_session_end(time.minus(Span(1))),
            _ => self.calendar.next_presence(self.window, time),
        }
    }

    /// The last time at which what it has changes by itself.
    fn last_change(&self) -> Option<EventTime> {
        match self.window.contents() {
            Contents::Session => self.state.last_session_end(),
            _ => self.calendar.last_change(self.window),
        }
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
