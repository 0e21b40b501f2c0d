//! The stage of a query as its driver sees it: in this process, or spread over executors.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::watch;

use super::mapping::AwayRows;
use super::spread::{Seat, Spread};
use crate::batch::Epoch;
use crate::error::Result;
use crate::executor::{Emitted, LateRows, Stage, StageAnalysis, StageCounts, Unit};
use crate::query::InputProgress;
use crate::time::{EventTime, Span, Watermark};
use crate::window::WindowSpec;

/// Where a query's state is.
#[derive(Debug)]
pub(crate) enum Stages {
    /// In this process.
    Here(Box<Stage>),
    /// At executors.
    Spread(Box<Spread>),
}

impl Stages {
    /// The stage of a query, spread if it has a seat.
    pub(crate) fn new(stage: Stage, seat: Option<Seat>) -> Self {
        match seat {
            None => Self::Here(Box::new(stage)),
            Some(seat) => Spread::new(stage, seat).map_or_else(Self::Here, |spread| Self::Spread(Box::new(spread))),
        }
    }

    /// The same if it is spread.
    pub(crate) const fn spread(&mut self) -> Option<&mut Spread> {
        match self {
            Self::Here(_) => None,
            Self::Spread(spread) => Some(spread),
        }
    }

    /// The stage with the query's plans; its state, if that is here.
    pub(crate) const fn plan(&self) -> &Stage {
        match self {
            Self::Here(stage) => stage,
            Self::Spread(spread) => spread.plan(),
        }
    }

    /// The same, to be changed.
    pub(crate) const fn plan_mut(&mut self) -> &mut Stage {
        match self {
            Self::Here(stage) => stage,
            Self::Spread(spread) => spread.plan_mut(),
        }
    }

    pub(crate) fn stop_with(&mut self, stop: watch::Receiver<bool>) {
        self.plan_mut().stop_with(stop);
    }

    pub(crate) fn longest_slide(&self) -> Span {
        self.plan().longest_slide()
    }

    pub(crate) fn windows_on(&self, stream: usize) -> Vec<WindowSpec> {
        self.plan().windows_on(stream)
    }

    pub(crate) fn analysis(&self) -> Vec<StageAnalysis> {
        self.plan().analysis()
    }

    pub(crate) const fn gives_by_epoch(&self) -> bool {
        self.plan().gives_by_epoch()
    }

    /// What it has done, views included.
    pub(crate) fn counts(&self) -> StageCounts {
        match self {
            Self::Here(stage) => stage.counts(),
            Self::Spread(spread) => spread.counts(),
        }
    }

    /// Its inputs, and then its views'.
    pub(crate) fn inputs(&self) -> Vec<InputProgress> {
        match self {
            Self::Here(stage) => stage.inputs(),
            Self::Spread(spread) => spread.inputs(),
        }
    }

    /// The instant up to which all have been evaluated.
    pub(crate) fn evaluated(&self) -> EventTime {
        match self {
            Self::Here(stage) => stage.evaluated(),
            Self::Spread(spread) => spread.evaluated(),
        }
    }

    /// When early results that wait for their time are due.
    pub(crate) fn early_due(&self) -> Option<Instant> {
        match self {
            Self::Here(stage) => stage.early_due(),
            Self::Spread(spread) => spread.early_due(),
        }
    }

    /// Takes in the rows of a micro-batch, those that executors hold included; gives those that were too late.
    pub(crate) async fn update(
        &mut self,
        units: &[Vec<Unit>],
        away: &AwayRows,
        watermark: Watermark,
    ) -> Result<Vec<LateRows>> {
        match self {
            Self::Here(stage) if away.is_empty() => stage.update(units, watermark).await,
            Self::Here(stage) => stage.update(&with_brought(units, away).await?, watermark).await,
            Self::Spread(spread) => spread.update(units, away).await,
        }
    }

    /// The next results up to `watermark`, those of one epoch; empty once all are given.
    pub(crate) async fn evaluate(&mut self, watermark: Watermark) -> Result<Vec<Emitted>> {
        match self {
            Self::Here(stage) => stage.evaluate(watermark).await,
            Self::Spread(spread) => spread.evaluate(watermark).await,
        }
    }

    /// Passes what `watermark` crosses without results, which were given before, through this epoch.
    pub(crate) async fn pass(&mut self, watermark: Watermark, through: Epoch) -> Result<()> {
        match self {
            Self::Here(stage) => stage.pass(watermark).await,
            Self::Spread(spread) => spread.pass(watermark, through).await,
        }
    }
}

/// The units of each stream with those of rows that executors hold, which are decoded here once more.
async fn with_brought(units: &[Vec<Unit>], away: &AwayRows) -> Result<Vec<Vec<Unit>>> {
    let mut units = units.to_vec();
    for (stream, rows) in away {
        if let (Some(units), Some(block)) = (units.get_mut(*stream), rows.bring().await?) {
            units.push(vec![Arc::new(block)]);
        }
    }
    Ok(units)
}
