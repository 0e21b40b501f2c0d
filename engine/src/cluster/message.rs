//! What the messages between driver and executors say.

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::error::SentError;
use super::slots::KeyRange;
use crate::batch::Epoch;
use crate::checkpoint::{Saved, StageRecord};
use crate::durable::Durability;
use crate::executor::{DeltaCounts, StageCounts};
use crate::ingest::{Behind, Found, Lateness, Stretch};
use crate::source::{Offset, PartitionId};
use crate::time::{EventTime, Watermark};

/// Kinds of frames.
pub(super) const DELTA: u8 = 1;
pub(super) const EMITTED: u8 = 2;
pub(super) const RECEIPT: u8 = 3;
pub(super) const FAILED: u8 = 4;
pub(super) const MAPPED: u8 = 5;
pub(super) const REPLY: u8 = 6;

/// The number of the driver among those that send; executors are counted from 1.
pub(super) const DRIVER: usize = 0;

/// A term of a query: whoever asks in an earlier one is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reign {
    pub(super) query: String,
    pub(super) term: u64,
}

/// The work of an executor in an epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct ApplySpec {
    pub(super) reign: Reign,
    /// The first and the last epoch whose rows these are.
    pub(super) first: Epoch,
    pub(super) last: Epoch,
    /// The term in which the last one was decided.
    pub(super) decided: u64,
    pub(super) watermark: Watermark,
    /// Whether results are given, or passed because they were given before.
    pub(super) gives: bool,
    pub(super) slots: Vec<KeyRange>,
    /// How many frames there are of the driver.
    pub(super) frames: usize,
    /// How many executors send others.
    pub(super) senders: usize,
}

/// What all executors have to know that send in an exchange.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Routing {
    pub(super) reign: Reign,
    /// Epochs before this one are in the checkpoint that slots begin with.
    pub(super) saved: Epoch,
    /// All slots of the query.
    pub(super) ranges: Vec<KeyRange>,
    /// Where what is for a slot goes; what is for others is wanted by nobody.
    pub(super) routes: Vec<Route>,
    pub(super) tasks: usize,
}

/// What an executor maps of rows that it holds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct MapSpec {
    /// Its number among those that send.
    pub(super) number: usize,
    pub(super) parts: Vec<MapPart>,
}

/// A part of an epoch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct MapPart {
    /// The last epoch that it is of.
    pub(super) epoch: Epoch,
    pub(super) mappings: Vec<Mapping>,
}

/// Rows to be mapped.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Mapping {
    /// The number of their stream in the query.
    pub(super) stream: usize,
    /// What the driver calls the stream.
    pub(super) source: String,
    pub(super) stretch: Stretch,
    /// Rows that are mapped by the driver.
    pub(super) without: Vec<u32>,
}

/// The way to a slot.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Route {
    /// The number of the slot among all.
    pub(super) slot: usize,
    pub(super) task: usize,
    /// Its number among those of the task.
    pub(super) place: usize,
}

/// The end of what an executor sends to a task.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct MappedHead {
    /// The number of the sender.
    pub(super) sender: usize,
    /// How many frames came before.
    pub(super) frames: usize,
    /// How long it took to make them.
    pub(super) took: Duration,
    /// Where the rows went; said once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) counts: Option<DeltaCounts>,
}

/// Which rows of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct BlockKey {
    partition: PartitionId,
    start: Offset,
    end: Offset,
}

impl BlockKey {
    pub(super) fn of(stretch: &Stretch) -> Self {
        let offsets = stretch.offsets();
        Self { partition: stretch.partition, start: offsets.start, end: offsets.end }
    }
}

/// The head of a frame of deltas.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct DeltaHead {
    /// The number of the sender: what is sent is taken in by it, whatever comes first.
    pub(super) sender: usize,
    /// The number of the slot among those of the task.
    pub(super) slot: usize,
    /// The way to the stage: the number of a view of the query, then of a view of that.
    pub(super) path: Vec<usize>,
    pub(super) leaf: usize,
    /// How many rows each pane and tag has, in their order; none where rows have no panes.
    pub(super) panes: Option<Vec<(i64, i64, usize)>>,
}

/// The head of a frame of results.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct EmittedHead {
    pub(super) slot: usize,
    /// The number of the result among those of the slot, as those of one may come in several frames.
    pub(super) number: usize,
    pub(super) instant: Option<EventTime>,
}

/// What a slot says at the end of its work.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Receipt {
    pub(super) slot: usize,
    /// The epoch that it takes next.
    pub(super) next: Epoch,
    /// How many results it gave.
    pub(super) results: usize,
    /// How long its executor took once it had all frames.
    pub(super) took: Duration,
    /// All instants up to here have been evaluated.
    pub(super) evaluated: EventTime,
    pub(super) counts: StageCounts,
    /// The memory of the state of each input.
    pub(super) input_bytes: Vec<u64>,
    /// How long results of open windows may wait yet, if some do.
    pub(super) early_in_ms: Option<u64>,
}

/// What a driver asks of an executor.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Request {
    /// Begin a term; what is held of the query?
    Hold(Reign),
    /// Keep these slots and no others, and begin those.
    Assign(Box<Assign>),
    /// Take an image of the state before an epoch; with every entry, or those that have changed.
    Image { reign: Reign, epoch: Epoch, everything: bool },
    /// Write the image that was taken.
    Write { reign: Reign, epoch: Epoch },
    /// Forget the query.
    Release(Reign),
    /// Take a stream of a query, to read it.
    Open { source: String, program: String, stream: String },
    /// Read, decode and hold rows of a stream, and forget others.
    Read { source: String, stretch: Stretch, forget: Vec<BlockKey> },
    /// Which rows of a stretch are behind, and what is the watermark after it?
    Scan { source: String, stretch: Stretch, lateness: Lateness, from: Watermark },
    /// Forget a stream.
    Close { source: String },
}

/// Which slots of a query an executor is to have.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Assign {
    pub(super) reign: Reign,
    /// What the query is, in words that [`super::Programs`] understands.
    pub(super) program: String,
    /// The contracts of its stages, which the executor's must be.
    pub(super) contracts: Vec<String>,
    pub(super) store: Option<StoreAccess>,
    /// The slots to keep.
    pub(super) keep: Vec<KeyRange>,
    /// The slots to begin, and the epoch that they take next.
    pub(super) begin: Vec<KeyRange>,
    pub(super) next: Epoch,
    /// The term in which the epoch before that was decided, as far as it is known.
    pub(super) decided: u64,
    /// The checkpoint to begin with; none at the beginning of the input.
    pub(super) from: Option<Saved>,
}

/// Where checkpoints of a query are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct StoreAccess {
    pub(super) place: String,
    pub(super) folder: String,
    pub(super) durability: Durability,
}

/// What an executor answers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    Held(Vec<HeldSlot>),
    Done,
    Written(Vec<WrittenSlot>),
    Read(Found),
    /// Its rows come with the answer.
    Scanned {
        after: Watermark,
        behind: Vec<Behind>,
    },
    Failed(SentError),
}

/// A slot that is held.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct HeldSlot {
    pub(super) range: KeyRange,
    pub(super) next: Epoch,
    /// The term in which the epoch before that was decided.
    pub(super) decided: u64,
    /// The term in which it was found to be of use.
    pub(super) term: u64,
    /// Of what it is a slot.
    pub(super) program: String,
}

/// What a slot has written of a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct WrittenSlot {
    pub(super) range: KeyRange,
    pub(super) saved: Saved,
}

/// The part of a checkpoint that has rows of some ranges of key partitions.
pub(super) fn part_of(saved: &Saved, ranges: &[KeyRange]) -> Saved {
    let mut part = saved.clone();
    part.files.retain(|file| file.range.is_none_or(|range| ranges.iter().any(|wanted| wanted.overlaps(range))));
    let names: BTreeSet<String> = part.files.iter().map(|file| file.name.clone()).collect();
    for leaf in part.stages.iter_mut().flat_map(|stage| &mut stage.leaves) {
        leaf.parts.retain(|part| names.contains(&part.file));
    }
    part
}

/// The state of several slots as that of one query.
pub(super) fn united(slots: Vec<WrittenSlot>) -> Saved {
    let mut whole = Saved::default();
    for WrittenSlot { saved, .. } in slots {
        whole.files.extend(saved.files);
        for (number, stage) in saved.stages.into_iter().enumerate() {
            match whole.stages.get_mut(number) {
                None => whole.stages.push(stage),
                Some(known) => unite(known, stage),
            }
        }
    }
    whole
}

fn unite(known: &mut StageRecord, other: StageRecord) {
    known.evaluated = known.evaluated.max(other.evaluated);
    known.rows = known.rows.max(other.rows);
    for (leaf, more) in known.leaves.iter_mut().zip(other.leaves) {
        leaf.calendar.extend(more.calendar);
        leaf.calendar.sort_unstable();
        leaf.calendar.dedup();
        leaf.counts.add(&more.counts);
        leaf.parts.extend(more.parts);
    }
}
