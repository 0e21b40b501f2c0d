//! Rows that come too late for every window of a query, on their way to a sink of their own.
//!
//! They are staged and committed with the results of their epoch, and counted in a ledger of their own sink. After a
//! crash between the two commits the epoch is run again as after any crash in an epoch, and each ledger says whether
//! its part is there already.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use datafusion::arrow::array::UInt32Array;
use datafusion::arrow::record_batch::RecordBatch;

use crate::arrays::take_rows;
use crate::driver::Driver;
use crate::error::Result;
use crate::executor::LateRows;
use crate::ingest::Block;
use crate::sink::SinkWriter;
use crate::time::EventTime;
use crate::window::WindowSpec;

impl Driver {
    /// Stages the late rows of an epoch for the sink that takes them, if there is one; how many.
    pub(crate) async fn stage_late(&mut self, late: &[LateRows]) -> Result<u64> {
        let Some(sink) = self.late_sink.as_mut().filter(|_| !late.is_empty()) else { return Ok(0) };
        let rows = missed_by_all(late, |stream| self.stage.windows_on(stream))?;
        let count = rows.iter().map(|rows| rows.num_rows() as u64).sum();
        if count > 0 {
            sink.stage(self.epoch, &rows).await?;
        }
        Ok(count)
    }
}

/// Who writes late rows: not the query itself, or a destination that has both could not tell their epochs apart.
pub(crate) fn late_writer(results: &SinkWriter) -> SinkWriter {
    SinkWriter { query: format!("{}-late", results.query), term: results.term }
}

/// The rows of each block that every window through which their stream is seen has missed.
///
/// A row that lies between the windows of one leaf is late if it is for all others.
fn missed_by_all(late: &[LateRows], windows_on: impl Fn(usize) -> Vec<WindowSpec>) -> Result<Vec<RecordBatch>> {
    let mut missed = Vec::new();
    for (stream, block, counts) in missed_by(late) {
        let windows = windows_on(stream);
        let is_late = |row: u32, leaves: usize| {
            let time = usize::try_from(row).ok().and_then(|row| block.times.values().get(row));
            let gaps = windows.iter().filter(|window| time.is_some_and(|time| is_between(window, EventTime(*time))));
            leaves + gaps.count() >= windows.len()
        };
        let rows: UInt32Array =
            counts.into_iter().filter(|(row, leaves)| is_late(*row, *leaves)).map(|(row, _)| row).collect();
        if !rows.is_empty() {
            missed.push(take_rows(&block.rows, &rows)?);
        }
    }
    Ok(missed)
}

/// For each block with late rows its stream, and by how many leaves each of them was missed.
fn missed_by(late: &[LateRows]) -> Vec<(usize, &Arc<Block>, BTreeMap<u32, usize>)> {
    let mut blocks: Vec<(usize, &Arc<Block>, BTreeMap<u32, usize>)> = Vec::new();
    let mut numbers = HashMap::new();
    for LateRows { stream, block, missed } in late {
        // Leaves of one stream are given the same blocks.
        let number = *numbers.entry(Arc::as_ptr(block)).or_insert(blocks.len());
        if number == blocks.len() {
            blocks.push((*stream, block, BTreeMap::new()));
        }
        if let Some((_, _, counts)) = blocks.get_mut(number) {
            missed.iter().for_each(|(row, _)| *counts.entry(*row).or_default() += 1);
        }
    }
    blocks
}

/// Whether no window holds rows of this time.
fn is_between(window: &WindowSpec, time: EventTime) -> bool {
    window.is_gap(window.pane_of(time.minus(window.shift())))
}
