//! How far a stream has come and what holds it back, for people.

use std::time::{Duration, Instant};

use crate::ingest::Progress;
use crate::ingest::progress::PartitionState;
use crate::source::PartitionId;
use crate::time::Watermark;

/// How far a stream has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamStatus {
    /// Its watermark.
    pub watermark: Watermark,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionStatus>,
}

/// How far a partition has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionStatus {
    /// Its number.
    pub partition: PartitionId,
    /// Its watermark.
    pub watermark: Watermark,
    /// Whether it takes part in the watermark of the stream.
    pub state: PartitionState,
    /// How long ago its last row came; none if none has come in this run.
    pub silent_for: Option<Duration>,
    /// Whether the watermark of the stream waits for it.
    pub holds_back: bool,
}

/// What is noted of a stream as it is logged.
#[derive(Debug, Default)]
pub(super) struct Reached {
    progress: Option<Progress>,
    last_rows: Vec<Option<Instant>>,
}

impl Reached {
    /// Notes where the stream is now, and which partition had rows.
    pub(super) fn note(&mut self, progress: &Progress, rows_of: Option<PartitionId>) {
        self.progress = Some(progress.clone());
        self.last_rows.resize(progress.partitions(), None);
        let index = rows_of.and_then(|partition| usize::try_from(partition.0).ok());
        if let Some(last) = index.and_then(|index| self.last_rows.get_mut(index)) {
            *last = Some(Instant::now());
        }
    }

    /// What a person should know; none before anything has come.
    pub(super) fn status(&self) -> Option<StreamStatus> {
        let progress = self.progress.as_ref()?;
        let states = progress.states();
        let least = states.iter().filter(|(_, state)| *state == PartitionState::Active).map(|(mark, _)| *mark).min();
        let partitions = (0..).map(PartitionId).zip(states).zip(&self.last_rows);
        let partitions = partitions.map(|((partition, (watermark, state)), last)| PartitionStatus {
            partition,
            watermark,
            state,
            silent_for: last.map(|last| last.elapsed()),
            holds_back: state == PartitionState::Active && Some(watermark) == least,
        });
        Some(StreamStatus { watermark: progress.watermark(), partitions: partitions.collect() })
    }
}
