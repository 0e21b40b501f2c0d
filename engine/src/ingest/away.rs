//! Rows that executors read, decode and hold: what the log has to know of them without having them.
//!
//! What moves watermarks are event times, and of those the bounds are enough as long as no row lies below the watermark
//! of its partition. Where one may, whoever holds the rows scans them from that watermark, and the rows that were
//! behind come here, since whether they are late is decided where the log is.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use datafusion::arrow::array::{Int64Array, UInt32Array, UInt64Array};
use datafusion::arrow::record_batch::RecordBatch;
use serde::{Deserialize, Serialize};

use crate::arrays::{concat_rows, take_rows};
use crate::cluster::{Member, Readers};
use crate::error::{Error, Result};
use crate::ingest::block::{Block, Timed, event_times, timed};
use crate::ingest::progress::{Behind, Lateness};
use crate::plan::StreamDefinition;
use crate::source::{BadRow, Offset, PartitionId, Source};
use crate::time::{EventTime, Watermark};

/// Consecutive splits of a partition, in words that [`Source::decoder`] makes the same rows of in any process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Stretch {
    pub(crate) partition: PartitionId,
    pub(crate) pieces: Vec<Piece>,
}

/// One split.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Piece {
    pub(crate) start: Offset,
    pub(crate) end: Offset,
    pub(crate) recipe: String,
}

impl Stretch {
    /// The offsets it covers.
    pub(crate) fn offsets(&self) -> Range<Offset> {
        let start = self.pieces.first().map_or(Offset(0), |piece| piece.start);
        start..self.pieces.last().map_or(start, |piece| piece.end)
    }

    /// Reads and decodes it here; keeps a thread busy.
    ///
    /// # Errors
    /// Fails if the input is not what it was, and on a stream without event times.
    pub(crate) fn decode(&self, definition: &StreamDefinition, source: &dyn Source) -> Result<Timed> {
        let column = definition.event_time.as_ref().map(|rule| rule.column);
        let column = column.ok_or_else(|| Error::internal("arrival times are told where rows arrive"))?;
        let parts =
            self.pieces.iter().map(|piece| timed(source.decoder(&piece.recipe)?.decode()?, piece.start, column));
        let mut parts = parts.collect::<Result<Vec<Timed>>>()?;
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return Ok(only);
        }
        let rows = concat_rows(&definition.schema, &parts.iter().map(|part| part.rows.clone()).collect::<Vec<_>>())?;
        let times: Int64Array = parts.iter().flat_map(|part| part.times.values().iter().copied()).collect();
        Ok(Timed { rows, times, bad: parts.into_iter().flat_map(|part| part.bad).collect() })
    }

    /// Decoded rows as a block; none if there are no rows.
    pub(crate) fn block(&self, Timed { rows, times, .. }: Timed) -> Option<Block> {
        let earliest = EventTime(times.values().iter().copied().min()?);
        let latest = EventTime(times.values().iter().copied().max()?);
        let (partition, offsets) = (self.partition, self.offsets());
        Some(Block { partition, offsets, rows, times, earliest, latest, behind: Vec::new(), numbers: None })
    }
}

/// What an executor found in a stretch.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Found {
    /// Usable rows.
    pub(crate) rows: usize,
    /// The memory they take.
    pub(crate) bytes: usize,
    /// The least and the greatest event time, if there are rows.
    pub(crate) times: Option<(EventTime, EventTime)>,
    pub(crate) bad: Vec<BadRow>,
}

/// A hold on the rows of a stretch at an executor, which may drop them when it ends.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) readers: Arc<Readers>,
    /// The executor that has decoded them; another can do it again.
    pub(crate) holder: Member,
    pub(crate) stretch: Stretch,
    is_released: AtomicBool,
}

impl Lease {
    pub(crate) const fn new(readers: Arc<Readers>, holder: Member, stretch: Stretch) -> Self {
        Self { readers, holder, stretch, is_released: AtomicBool::new(false) }
    }

    /// Lets the holder drop the rows: if they are wanted once more, they are decoded once more.
    pub(crate) fn release(&self) {
        if !self.is_released.swap(true, Ordering::Relaxed) {
            self.readers.forget(&self.holder, &self.stretch);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.release();
    }
}

/// A stretch that an executor has decoded, and what was found in it.
#[derive(Debug)]
pub(crate) struct Absent {
    pub(crate) lease: Lease,
    pub(crate) found: Found,
}

/// The rows of a stretch that are behind a watermark, with what they missed.
#[derive(Debug)]
pub(crate) struct Scanned {
    /// The watermark after the stretch.
    pub(crate) after: Watermark,
    pub(crate) behind: Vec<Behind>,
    /// These rows; none if there are none.
    pub(crate) rows: Option<RecordBatch>,
}

impl Scanned {
    /// What a scan of `block` finds.
    ///
    /// # Errors
    /// Fails only if the block is not whole.
    pub(crate) fn of(block: &Block, lateness: Lateness, from: Watermark) -> Result<Self> {
        let (after, behind) = lateness.scan(from, block.times.values());
        let indices: UInt32Array = behind.iter().map(|row| u32::try_from(row.row).unwrap_or(u32::MAX)).collect();
        let rows = if behind.is_empty() { None } else { Some(take_rows(&block.rows, &indices)?) };
        Ok(Self { after, behind, rows })
    }
}

impl Absent {
    /// The same stretch and those that follow it as one.
    pub(crate) fn with(self, next: Vec<Self>) -> Self {
        let Self { lease, mut found } = self;
        let mut stretch = lease.stretch.clone();
        for Self { lease, found: more } in next {
            stretch.pieces.extend(lease.stretch.pieces.iter().cloned());
            found.rows += more.rows;
            found.bytes += more.bytes;
            found.bad.extend(more.bad);
            found.times = match (found.times, more.times) {
                (Some((earliest, latest)), Some((other, last))) => Some((earliest.min(other), latest.max(last))),
                (known, times) => known.or(times),
            };
        }
        Self { lease: Lease::new(Arc::clone(&lease.readers), lease.holder.clone(), stretch), found }
    }

    /// The block of the rows that were behind, and the other rows, which stay where they are.
    pub(crate) fn part(self, scanned: Scanned, column: usize) -> Result<(Option<Block>, Option<Away>)> {
        let without: Vec<u32> = scanned.behind.iter().map(|row| u32::try_from(row.row).unwrap_or(u32::MAX)).collect();
        let block = self.block_of(scanned, column)?;
        let rest = (without.len() < self.found.rows).then(|| self.without(without));
        Ok((block, rest))
    }

    /// The rows of it but for some, which stay where they are.
    pub(crate) fn without(self, without: Vec<u32>) -> Away {
        let Self { lease, found } = self;
        Away { rows: found.rows - without.len(), bytes: found.bytes, lease, without }
    }

    fn block_of(&self, scanned: Scanned, column: usize) -> Result<Option<Block>> {
        let Some(rows) = scanned.rows else { return Ok(None) };
        let times = event_times(&rows, column)?;
        let first = self.lease.stretch.offsets().start.0;
        let numbers: UInt64Array = scanned.behind.iter().map(|row| first + row.row as u64).collect();
        let renumbered = scanned.behind.iter().enumerate();
        let behind: Vec<Behind> = renumbered.map(|(row, behind)| Behind { row, ..*behind }).collect();
        if behind.len() != rows.num_rows() {
            return Err(Error::internal("rows that were behind are not those that have come"));
        }
        let block = self.lease.stretch.block(Timed { rows, times, bad: Vec::new() });
        Ok(block.map(|block| Block { behind, numbers: Some(numbers), ..block }))
    }
}

/// Rows of a record that an executor holds, none of which is behind.
#[derive(Debug)]
pub(crate) struct Away {
    pub(crate) lease: Lease,
    /// Rows, without those that the log has itself.
    pub(crate) rows: usize,
    /// The memory that they take there.
    pub(crate) bytes: usize,
    /// The rows of the stretch that are not among them.
    pub(crate) without: Vec<u32>,
}

impl Away {
    /// Decodes the rows here, for a query that has its state here.
    pub(crate) async fn bring(&self) -> Result<Option<Block>> {
        let Lease { readers, stretch, .. } = &self.lease;
        match stretch.block(readers.decode_here(stretch.clone()).await?) {
            Some(block) if !self.without.is_empty() => block.without(&self.without),
            block => Ok(block),
        }
    }
}
