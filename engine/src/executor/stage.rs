//! One windowed query, or the view that feeds one: rows go in, results of crossed instants come out.
//!
//! A stage's leaves read streams or other stages. A view's results of instant `e` enter the stage above with the
//! event time `e − 1` tick, or `e` where its windows hold the row at `e` that they are made for, so that windows over windows are a chain of stages and nothing else.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::execution::runtime_env::RuntimeEnv;
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::checkpoint::{PaneTag, StageRecord};
use crate::durable::{FullDisk, ROOM_PAUSE};
use crate::error::Result;
use crate::executor::analysis::StageAnalysis;
use crate::executor::delta::DeltaCounts;
use crate::executor::held::{State, blocking};
use crate::executor::instants::check_emission;
use crate::executor::output::Output;
use crate::executor::update::{Missed, RowCounts};
use crate::ingest::Block;
use crate::plan::{Emission, EmissionMode, Input};
use crate::program::{Explanation, Planner, Program, Shape};
use crate::query::InputProgress;
use crate::refreshed::Versions;
use crate::state::{Calendar, MemoryShare, StateMemory};
use crate::time::{EventTime, Span, Watermark};
use crate::window::WindowSpec;

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
    /// How long after its instant a window of the stage may be looked at again; nothing unless the stage says so.
    pub(crate) lateness: Span,
    /// Where plans run: their memory pool and temporary files.
    pub(crate) runtime: Arc<RuntimeEnv>,
    /// Whether the work of operators is summed.
    pub(crate) analyze: bool,
    /// The refreshed tables as the query sees them.
    pub(crate) tables: Arc<Versions>,
}

impl StageOptions {
    /// A planner for one of its programs.
    pub(crate) fn planner(&self) -> Planner {
        let planner = Planner::new(&self.runtime, &self.tables);
        if self.analyze { planner.measuring() } else { planner }
    }
}

/// How the state of a stage may be spread over executors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spreading {
    /// There is none.
    Nowhere,
    /// It is of use in one piece only.
    Whole(u32),
    /// By so many key partitions: what a key gives depends on no other.
    ByKey(u32),
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
pub(crate) struct Emitted {
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
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageCounts {
    /// For each leaf, its scan name and where its rows went.
    pub inputs: Vec<(String, RowCounts)>,
    /// State rows read by merges and evaluations.
    pub state_rows_read: u64,
    /// Instants evaluated.
    pub instants: u64,
    /// Memory of the state.
    pub state_bytes: u64,
    /// The most memory that the state has had after some rows.
    pub most_state_bytes: u64,
    /// Plans made, at the start and since.
    pub plans_made: u64,
    /// Plans the query has.
    pub plan_count: u64,
}

/// A stage.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(super) program: Arc<Program>,
    pub(super) inputs: Vec<StageInput>,
    pub(super) views: Vec<View>,
    pub(super) windows: Vec<WindowSpec>,
    pub(super) calendars: Vec<Calendar>,
    pub(super) state: State,
    pub(super) output: Output,
    /// The panes and tags that came since early results and corrections were given last, where there are such.
    pub(super) touched: BTreeSet<(usize, PaneTag)>,
    share: MemoryShare,
    pub(super) options: StageOptions,
    /// All instants up to here have been evaluated.
    pub(super) evaluated: EventTime,
    pub(super) counts: Vec<RowCounts>,
    pub(super) instants: u64,
    most_state_bytes: usize,
    /// Becomes true when the query is stopped.
    stop: watch::Receiver<bool>,
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
        emission: Emission,
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
                            let program = Program::compile(view.query.clone(), options.planner()).await?;
                            let stage = Self::build(program, Emission::default(), options.clone(), stream_of).await?;
                            views.push(View { name: view.name.clone(), stage, rows: 0 });
                            StageInput::View(views.len() - 1)
                        }
                    },
                });
            }
            let program = if emission.mode == EmissionMode::Pairs { program.giving_pairs()? } else { program };
            check_emission(&program, emission)?;
            // Rows that pass, and groups without a window, are given as they change unless they are to wait.
            let is_given_at_once = match program.shape {
                Shape::Windows(_) => false,
                _ => !matches!(emission.mode, EmissionMode::Changes { every: Some(_) }),
            };
            let emission = if is_given_at_once { Emission::default() } else { emission };
            let windows = program.inputs.iter().filter_map(|leaf| leaf.table().window().copied()).collect::<Vec<_>>();
            let options = StageOptions { lateness: emission.lateness.unwrap_or(Span(0)), ..options };
            let state = State::new(&program, &options)?;
            let leaves = program.inputs.len();
            Ok(Self {
                program: Arc::new(program),
                inputs,
                views,
                windows,
                calendars: vec![Calendar::default(); leaves],
                state,
                output: Output::new(emission),
                touched: BTreeSet::new(),
                share: MemoryShare::new(Arc::clone(&options.memory)),
                options,
                evaluated: EventTime(i64::MIN),
                counts: vec![RowCounts::default(); leaves],
                instants: 0,
                most_state_bytes: 0,
                stop: watch::channel(false).1,
            })
        }
        .boxed()
    }

    /// The same stage and views with nothing in them.
    pub(crate) fn sibling(&self) -> Result<Self> {
        let view = |view: &View| Ok(View { name: view.name.clone(), stage: view.stage.sibling()?, rows: 0 });
        Ok(Self {
            program: Arc::clone(&self.program),
            inputs: self.inputs.clone(),
            views: self.views.iter().map(view).collect::<Result<_>>()?,
            windows: self.windows.clone(),
            calendars: vec![Calendar::default(); self.inputs.len()],
            state: State::new(&self.program, &self.options)?,
            output: Output::new(self.output.emission),
            touched: BTreeSet::new(),
            share: MemoryShare::new(Arc::clone(&self.options.memory)),
            options: self.options.clone(),
            evaluated: EventTime(i64::MIN),
            counts: vec![RowCounts::default(); self.inputs.len()],
            instants: 0,
            most_state_bytes: 0,
            stop: self.stop.clone(),
        })
    }

    /// Becomes true when the query is stopped.
    pub(crate) fn stop(&self) -> watch::Receiver<bool> {
        self.stop.clone()
    }

    /// T.
    pub(crate) const fn key_partitions(&self) -> u32 {
        self.options.key_partitions
    }

    /// The limit on its state.
    pub(crate) const fn memory(&self) -> &Arc<StateMemory> {
        &self.options.memory
    }

    /// Whether it reads views.
    pub(crate) const fn has_views(&self) -> bool {
        !self.views.is_empty()
    }

    /// How many columns of its state are keys, from the first, where it is by key.
    pub(crate) fn key_columns(&self) -> usize {
        self.program.key_columns()
    }

    /// Counts the rows of a delta, which another one absorbs.
    pub(crate) fn count(&mut self, rows: &DeltaCounts) {
        self.counts.iter_mut().zip(&rows.leaves).for_each(|(counts, more)| counts.add(more));
        self.views.iter_mut().zip(&rows.views).for_each(|(view, rows)| view.stage.count(rows));
    }

    /// Where the rows of each leaf went, for each view's stage and then its own.
    pub(crate) fn counts_by_stage(&self) -> Vec<Vec<RowCounts>> {
        let views = self.views.iter().flat_map(|view| view.stage.counts_by_stage());
        views.chain([self.counts.clone()]).collect()
    }

    /// Goes on counting where a checkpoint has left off.
    pub(crate) fn count_on(&mut self, stages: &mut std::slice::Iter<'_, StageRecord>) {
        self.views.iter_mut().for_each(|view| view.stage.count_on(stages));
        if let Some(stage) = stages.next() {
            self.counts.iter_mut().zip(&stage.leaves).for_each(|(counts, leaf)| *counts = leaf.counts);
        }
    }

    /// Counts no rows as its own: another one does.
    pub(crate) fn forget_counts(&mut self) {
        self.counts.iter_mut().for_each(|counts| *counts = RowCounts::default());
        self.views.iter_mut().for_each(|view| view.stage.forget_counts());
    }

    /// How its state may be spread.
    pub(crate) fn spreading(&self) -> Spreading {
        // A window at each row has its instants from the rows of all keys.
        let has_own_instants = self.windows.iter().any(WindowSpec::is_by_row);
        let is_plain = self.views.is_empty() && self.output.emission == Emission::default() && !has_own_instants;
        match &self.state {
            State::Stateless { .. } | State::Finite { .. } => Spreading::Nowhere,
            _ if is_plain && self.program.is_by_key() => Spreading::ByKey(self.options.key_partitions),
            _ => Spreading::Whole(self.options.key_partitions),
        }
    }

    /// The columns of its results.
    pub(crate) fn schema(&self) -> SchemaRef {
        self.output.schema(&self.program.schema)
    }

    /// Its plans and its views' in words, views first.
    pub(crate) fn explain(&self) -> Vec<(Option<String>, Explanation)> {
        self.analysis().into_iter().map(|stage| (stage.view, stage.explanation)).collect()
    }

    /// The longest slide of its windows and its views'.
    pub(crate) fn longest_slide(&self) -> Span {
        let own = self.windows.iter().map(WindowSpec::slide);
        own.chain(self.views.iter().map(|view| view.stage.longest_slide())).max().unwrap_or(Span(0))
    }

    /// The windows through which it and its views see a stream.
    pub(crate) fn windows_on(&self, stream: usize) -> Vec<WindowSpec> {
        let leaves = self.inputs.iter().zip(&self.windows);
        let own = leaves.filter(|(input, _)| matches!(input, StageInput::Stream(seen) if *seen == stream));
        let of_views = self.views.iter().flat_map(|view| view.stage.windows_on(stream));
        own.map(|(_, window)| *window).chain(of_views).collect()
    }

    /// What it has done, views included.
    pub(crate) fn counts(&self) -> StageCounts {
        let mut counts = self.own_counts();
        for view in self.views.iter().map(|view| view.stage.counts()) {
            counts.state_rows_read += view.state_rows_read;
            counts.state_bytes += view.state_bytes;
            counts.most_state_bytes += view.most_state_bytes;
            counts.plans_made += view.plans_made;
            counts.plan_count += view.plan_count;
            counts.inputs.extend(view.inputs);
        }
        counts
    }

    /// What it has done itself.
    fn own_counts(&self) -> StageCounts {
        let names = self.program.inputs.iter().map(|leaf| leaf.table().scan_name());
        StageCounts {
            inputs: names.zip(self.counts.iter().copied()).collect(),
            state_rows_read: self.state.rows_read(),
            instants: self.instants,
            state_bytes: (self.state.bytes() + self.output.bytes()) as u64,
            most_state_bytes: self.most_state_bytes as u64,
            plans_made: self.program.plans_made(),
            plan_count: self.program.plan_count(),
        }
    }

    /// Whether what it gives is not only that of instants, but what each micro-batch changes.
    pub(crate) const fn gives_by_epoch(&self) -> bool {
        self.output.emission.lateness.is_some() || matches!(self.output.emission.mode, EmissionMode::Changes { .. })
    }

    /// The instant up to which all have been evaluated.
    pub(crate) const fn evaluated(&self) -> EventTime {
        self.evaluated
    }

    /// Its inputs, and then its views'.
    pub(crate) fn inputs(&self) -> Vec<InputProgress> {
        let bytes = self.state.bytes_by_input().into_iter().map(Some).chain(std::iter::repeat(None));
        let own = self.program.inputs.iter().zip(&self.counts).zip(bytes).map(|((leaf, rows), bytes)| InputProgress {
            name: leaf.table().scan_name(),
            rows: *rows,
            state_bytes: bytes.unwrap_or_default() as u64,
        });
        own.chain(self.views.iter().flat_map(|view| view.stage.inputs())).collect()
    }

    /// Its plans and its views' with what they have done, views first.
    pub(crate) fn analysis(&self) -> Vec<StageAnalysis> {
        let views = self.views.iter().flat_map(|view| {
            let mut parts = view.stage.analysis();
            if let Some(own) = parts.last_mut() {
                own.view = Some(view.name.clone());
            }
            parts
        });
        let own = StageAnalysis { view: None, explanation: self.program.explain(), counts: self.own_counts() };
        views.chain(std::iter::once(own)).collect()
    }

    /// Counts its state and that of its views, which were put back, in the memory that queries share.
    pub(crate) fn count_memory(&mut self) {
        self.share.set(self.state.bytes());
        self.views.iter_mut().for_each(|view| view.stage.count_memory());
    }

    /// Writes state to disk while all state together exceeds its limit; waits while the disk has no room either.
    pub(super) async fn stay_within_memory(&mut self) -> Result<()> {
        let mut full_disk = FullDisk::new("the query, whose state exceeds its memory,");
        let bytes = self.state.bytes();
        self.most_state_bytes = self.most_state_bytes.max(bytes);
        let mut excess = self.share.set(bytes);
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

    /// Says what stops the query.
    pub(crate) fn stop_with(&mut self, stop: watch::Receiver<bool>) {
        self.stop = stop;
    }

    /// Evaluates the next instants that `watermark` crosses, a bounded number of them; empty once all are done.
    ///
    /// A plan that reads no stream ends without rows once the query is stopped; others come to their ends.
    pub(crate) async fn evaluate(&mut self, watermark: Watermark) -> Result<Vec<Emitted>> {
        match &mut self.state {
            State::Finite { plan } => match plan.take() {
                None => Ok(Vec::new()),
                Some(plan) => {
                    let stop = self.stop.clone();
                    let rows = blocking(move || plan.run_stoppable(&stop)).await?;
                    Ok(rows.into_iter().map(|rows| Emitted { instant: None, rows }).collect())
                }
            },
            State::Stateless { ready } => {
                let rows = std::mem::take(ready);
                Ok(if rows.is_empty() { Vec::new() } else { vec![Emitted { instant: None, rows }] })
            }
            State::Unbounded { state, ready } => {
                let ready = std::mem::take(ready);
                let rows = if self.output.holds_changes() {
                    state.hold(ready)?;
                    let is_early = self.output.early_due().is_some_and(|due| Instant::now() < due);
                    if !state.is_waiting() || (is_early && watermark != Watermark::END) {
                        self.stay_within_memory().await?;
                        return Ok(Vec::new());
                    }
                    self.output.note_early();
                    state.give()?
                } else if ready.is_empty() {
                    return Ok(Vec::new());
                } else {
                    state.update(ready)?
                };
                self.stay_within_memory().await?;
                Ok(vec![Emitted { instant: None, rows }])
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
                let ready = std::mem::take(ready);
                // Whether what waited was given is not known: it is given again.
                if self.output.holds_changes() {
                    state.hold(ready)?
                } else {
                    state.absorb(ready)?
                }
                self.stay_within_memory().await?;
            }
            State::Windows { .. } => self.pass_windows(watermark).await?,
        }
        Ok(())
    }
}
