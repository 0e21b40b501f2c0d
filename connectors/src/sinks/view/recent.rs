//! The newest rows of a view in the order in which they came, for those who follow it.

use std::collections::VecDeque;

use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::batch::Epoch;

/// How much of the newest rows is remembered, in bytes.
const RECENT_BYTES: usize = 64 << 20;

/// The newest rows, each with the epoch that brought it.
#[derive(Debug, Default)]
pub(super) struct Recent {
    rows: VecDeque<(Epoch, RecordBatch)>,
    bytes: usize,
    /// The last epoch of which not all rows are here.
    forgotten: Option<Epoch>,
    /// The last epoch that brought rows.
    pub(super) last: Option<Epoch>,
}

impl Recent {
    /// Adds rows.
    pub(super) fn push(&mut self, epoch: Epoch, rows: &RecordBatch) {
        self.bytes += rows.get_array_memory_size();
        self.rows.push_back((epoch, rows.clone()));
        self.last = self.last.max(Some(epoch));
        while self.bytes > RECENT_BYTES
            && self.rows.len() > 1
            && let Some((oldest, rows)) = self.rows.pop_front()
        {
            self.bytes = self.bytes.saturating_sub(rows.get_array_memory_size());
            self.forgotten = self.forgotten.max(Some(oldest));
        }
    }

    /// Says that not all rows of the epochs up to this one are here.
    pub(super) fn forget_to(&mut self, epoch: Epoch) {
        self.forgotten = self.forgotten.max(Some(epoch));
    }

    /// The rows that came after an epoch; none if some of them are forgotten.
    pub(super) fn after(&self, epoch: Epoch) -> Option<Vec<RecordBatch>> {
        if self.forgotten.is_some_and(|forgotten| epoch < forgotten) {
            return None;
        }
        let newer = self.rows.iter().filter(|(of, _)| *of > epoch);
        Some(newer.map(|(_, rows)| rows.clone()).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::text::tests::numbers;
    use super::*;

    #[test]
    fn rows_are_known_from_the_last_forgotten_epoch_on() {
        let mut recent = Recent::default();
        recent.forget_to(Epoch(2));
        for epoch in 3..6 {
            recent.push(Epoch(epoch), &numbers(&[1]));
        }
        assert_eq!(recent.last, Some(Epoch(5)));
        assert_eq!(recent.after(Epoch(3)).map(|rows| rows.len()), Some(2));
        assert_eq!(recent.after(Epoch(2)).map(|rows| rows.len()), Some(3));
        assert!(recent.after(Epoch(1)).is_none());
        assert_eq!(recent.after(Epoch(5)).map(|rows| rows.len()), Some(0));
    }
}
