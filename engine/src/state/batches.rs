//! The state of one pane and tag: batches on disk, then batches in memory.

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;

use crate::error::Result;
use crate::state::memory::StateMemory;
use crate::state::spill::Spilled;

/// Batches in the order in which they came; the older ones may be on disk. Cloning copies no rows.
#[derive(Debug, Clone, Default)]
pub(crate) struct Batches {
    spilled: Vec<Spilled>,
    recent: Vec<RecordBatch>,
    bytes: usize,
}

impl Batches {
    /// Adds batches behind those that are there.
    pub(crate) fn extend(&mut self, batches: Vec<RecordBatch>) {
        self.bytes += byte_size(&batches);
        self.recent.extend(batches);
    }

    /// Adds what another one has; which of the rows in memory and on disk come first is lost.
    pub(crate) fn append(&mut self, other: Self) {
        self.bytes += other.bytes;
        self.spilled.extend(other.spilled);
        self.recent.extend(other.recent);
    }

    /// All batches, those on disk read.
    ///
    /// # Errors
    /// As the disk fails.
    pub(crate) fn read(&self) -> Result<Vec<RecordBatch>> {
        let mut all = Vec::new();
        for spilled in &self.spilled {
            all.extend(spilled.read()?);
        }
        all.extend_from_slice(&self.recent);
        Ok(all)
    }

    /// The batches in memory.
    pub(crate) fn recent(&self) -> &[RecordBatch] {
        &self.recent
    }

    /// Takes the batches in memory out.
    pub(crate) fn take_recent(&mut self) -> Vec<RecordBatch> {
        self.bytes = 0;
        std::mem::take(&mut self.recent)
    }

    /// Whether merging could make it smaller.
    pub(crate) fn is_in_pieces(&self) -> bool {
        self.spilled.len() + self.recent.len() > 1
    }

    /// Whether some of it is on disk.
    pub(crate) fn is_on_disk(&self) -> bool {
        !self.spilled.is_empty()
    }

    /// Whether the disk has at least twice the rows of its oldest piece, which is what the last merge left there:
    /// merging all pieces then costs no more than a constant for each row that came since.
    pub(crate) fn has_doubled_on_disk(&self) -> bool {
        let Some((oldest, newer)) = self.spilled.split_first() else { return false };
        newer.iter().map(|spilled| spilled.rows).sum::<usize>() >= oldest.rows.max(1)
    }

    /// Writes what is in memory to disk.
    ///
    /// # Errors
    /// As the disk fails; all is as it was then.
    pub(crate) fn spill(&mut self, memory: &StateMemory) -> Result<()> {
        if !self.recent.is_empty() {
            self.spilled.push(memory.files().write(&self.recent)?);
            self.take_recent();
        }
        Ok(())
    }

    /// The memory it takes; buffers that batches share count in each.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Its rows.
    pub(crate) fn row_count(&self) -> usize {
        let on_disk: usize = self.spilled.iter().map(|spilled| spilled.rows).sum();
        on_disk + self.recent.iter().map(RecordBatch::num_rows).sum::<usize>()
    }

    /// Its columns, unless it is empty.
    pub(crate) fn schema(&self) -> Option<SchemaRef> {
        let of_memory = self.recent.first().map(RecordBatch::schema);
        of_memory.or_else(|| Some(SchemaRef::clone(self.spilled.first()?.schema())))
    }
}

impl From<Vec<RecordBatch>> for Batches {
    fn from(batches: Vec<RecordBatch>) -> Self {
        Self { bytes: byte_size(&batches), spilled: Vec::new(), recent: batches }
    }
}

/// The memory of batches; buffers that batches share count in each.
pub(crate) fn byte_size(batches: &[RecordBatch]) -> usize {
    batches.iter().map(RecordBatch::get_array_memory_size).sum()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::array::{ArrayRef, Int64Array};

    use super::*;

    #[test]
    fn pieces_on_disk_are_worth_merging_once_they_have_twice_the_rows_of_the_oldest() {
        let folder = tempfile::tempdir().unwrap();
        let memory = StateMemory::new(0, folder.path());
        let mut batches = Batches::default();
        let mut found = Vec::new();
        for rows in [4, 1, 2, 1, 5] {
            let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
            batches.extend(vec![RecordBatch::try_from_iter([("n", numbers)]).unwrap()]);
            batches.spill(&memory).unwrap();
            found.push(batches.has_doubled_on_disk());
        }
        assert_eq!(found, [false, false, false, true, true]);
        assert!(batches.is_on_disk());
        assert_eq!(batches.bytes(), 0);
    }
}
