//! What a stream's log says happened, without the rows: enough to make every record again.

use serde::{Deserialize, Serialize};

use crate::ingest::{Progress, Record};
use crate::source::{Offset, PartitionId};
use crate::time::EventTime;

/// An entry of a stream's log as it is written down.
///
/// Where the rows can be read again the offsets say which; where they cannot, they are in the write-ahead log under
/// the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LoggedEvent {
    /// Rows of a partition.
    Rows {
        /// The partition.
        #[serde(rename = "p")]
        partition: PartitionId,
        /// Where they begin.
        #[serde(rename = "from")]
        start: Offset,
        /// Where they end.
        #[serde(rename = "to")]
        end: Offset,
        /// The event time of all of them, on a stream whose event time is arrival time.
        #[serde(rename = "at", default, skip_serializing_if = "Option::is_none")]
        arrival: Option<EventTime>,
    },
    /// A partition fell silent.
    Idle(PartitionId),
    /// A partition ended.
    End(PartitionId),
    /// Time passed, on a stream whose event time is arrival time, or the source promised that it has.
    Tick(EventTime),
    /// The stream ended.
    Closed,
}

/// A place in a stream's log, and all that the log needs to go on from there.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogPlace {
    /// The number of the next record.
    pub(crate) seq: u64,
    /// The next offset of each partition.
    pub(crate) offsets: Vec<Offset>,
    /// The watermarks; `None` at the beginning, when the number of partitions is not known.
    pub(crate) progress: Option<Progress>,
    /// What became of the rows before it.
    #[serde(default)]
    pub(crate) tally: Tally,
}

/// Rows of a stream, counted as they come in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Tally {
    /// Rows logged.
    pub(crate) rows: u64,
    /// Rows that could not be used.
    pub(crate) bad: u64,
    /// Rows logged that were below the watermark of their partition.
    pub(crate) behind: u64,
}

impl LogPlace {
    /// Moves behind a record.
    pub(crate) fn pass(&mut self, record: &Record) {
        let Record { seq, event, progress, bad, block, .. } = record;
        self.seq = seq + 1;
        self.tally.bad += bad;
        self.tally.rows += record.row_count() as u64;
        self.tally.behind += block.as_ref().map_or(0, |block| block.behind.len() as u64);
        if let LoggedEvent::Rows { partition, end, .. } = event {
            let index = usize::try_from(partition.0).unwrap_or(usize::MAX);
            if index < progress.partitions() {
                self.offsets.resize(self.offsets.len().max(progress.partitions()), Offset(0));
            }
            if let Some(offset) = self.offsets.get_mut(index) {
                *offset = *end;
            }
        }
        self.progress = Some(progress.clone());
    }
}
