//! The manifest: all of a checkpoint but the rows, and where those are.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::batch::Epoch;
use crate::checkpoint::image::PaneTag;
use crate::cluster::KeyRange;
use crate::executor::RowCounts;
use crate::ingest::LogPlace;
use crate::time::{EventTime, Watermark};

/// The version of the manifest and of the files it names.
pub(crate) const MANIFEST_VERSION: u32 = 1;

/// What a query has done since it was first started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counters {
    /// Rows taken from its streams.
    pub(crate) rows_read: u64,
    /// Rows written to its sink.
    pub(crate) rows_written: u64,
    /// Rows too late for every window.
    pub(crate) rows_late: u64,
}

/// A checkpoint: the state before `epoch`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    /// The query's id.
    pub(crate) query: String,
    /// The version of DataFusion that made the state.
    pub(crate) datafusion: String,
    /// The first epoch that is not in it.
    pub(crate) epoch: Epoch,
    /// The first record of the journal that comes after it.
    pub(crate) journal: u64,
    /// The term it was written in.
    pub(crate) term: u64,
    /// When it was taken, by the wall clock.
    pub(crate) taken_at: EventTime,
    pub(crate) watermark: Watermark,
    /// The last epoch that had rows for the sink.
    pub(crate) sink_epoch: Option<Epoch>,
    /// The last epoch that had rows for the sink of late rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) late_epoch: Option<Epoch>,
    pub(crate) counters: Counters,
    /// How far each stream has been read.
    pub(crate) streams: BTreeMap<String, LogPlace>,
    /// The stages, views before what reads them, the query last.
    pub(crate) stages: Vec<StageRecord>,
    /// Every file that a stage names.
    pub(crate) files: Vec<FileRecord>,
}

/// The state of a query, or of one of its slots, and where its rows are.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Saved {
    /// The stages, views before what reads them, the query last.
    pub(crate) stages: Vec<StageRecord>,
    /// Every file that a stage names.
    pub(crate) files: Vec<FileRecord>,
}

impl Manifest {
    /// The state that it tells of.
    pub(crate) fn saved(&self) -> Saved {
        Saved { stages: self.stages.clone(), files: self.files.clone() }
    }
}

/// A stage of a checkpoint.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StageRecord {
    pub(crate) contract: String,
    pub(crate) evaluated: EventTime,
    pub(crate) rows: u64,
    pub(crate) is_done: bool,
    pub(crate) leaves: Vec<LeafRecord>,
}

/// A leaf of a stage.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct LeafRecord {
    pub(crate) calendar: Vec<PaneTag>,
    #[serde(default)]
    pub(crate) counts: RowCounts,
    pub(crate) parts: Vec<PartRecord>,
}

/// A file and which of its panes are current.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PartRecord {
    pub(crate) file: String,
    pub(crate) panes: Vec<PaneTag>,
}

/// A file of state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileRecord {
    pub(crate) name: String,
    pub(crate) bytes: u64,
    pub(crate) rows: u64,
    pub(crate) crc32: u32,
    /// The key partitions that its rows are of, if they are not of all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) range: Option<KeyRange>,
}
