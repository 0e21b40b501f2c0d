//! What slots are made of again: a checkpoint, and what was sent since.
//!
//! A driver keeps the deltas that it has sent since the last checkpoint. They are far smaller than the rows they were
//! made of, and with them what an executor has lost is made again without another look at the input. Of rows that
//! executors have mapped it keeps in what words they were read: those that are left send what they have made of them
//! to the slots that lack it, and read and map once more what only the lost ones had. A driver that is new, or has sent
//! more than it keeps, reads its input again as after a crash.

use std::collections::VecDeque;
use std::sync::Arc;

use super::mapping::AwayPart;
use crate::batch::Epoch;
use crate::checkpoint::Saved;
use crate::executor::StageDelta;
use crate::ingest::Away;
use crate::time::Watermark;

/// What is kept of deltas, in bytes: a checkpoint is wanted well before.
const MOST_BYTES: usize = 256 << 20;
/// What keeping one block of rows that are elsewhere takes, about, in bytes.
const AWAY_BYTES: usize = 512;
/// Only so large a part of rows that are elsewhere has to be read again where one executor is lost.
const AWAY_SHARE: usize = 4;
/// Epochs of so many bytes are sent together.
const TOGETHER_BYTES: usize = 32 << 20;

/// What the lineage of a query says about where its slots have to go on.
#[derive(Debug, Default)]
pub(crate) struct Lineage {
    pub(crate) saved: Option<Saved>,
    /// The first epoch that is not in the checkpoint.
    pub(crate) first: Epoch,
    /// The first epoch that was not committed.
    pub(crate) next: Epoch,
    /// The epoch after the last whose intent was logged.
    pub(crate) end: Epoch,
    /// The terms in which the epochs before `next` and before `end` were decided.
    pub(crate) decided: (u64, u64),
    /// The term in which the epoch before `first` was decided, or a later one.
    pub(crate) saved_in: u64,
    /// The query's folder in the state directory.
    pub(crate) folder: String,
}

/// The last checkpoint.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) saved: Option<Saved>,
    /// The first epoch that is not in it.
    pub(super) first: Epoch,
    /// The term in which the epoch before that was decided, or a later one.
    pub(super) saved_in: u64,
    pub(super) folder: String,
}

/// Epochs that were sent together.
#[derive(Debug, Clone)]
pub(super) struct Sent {
    pub(super) first: Epoch,
    pub(super) last: Epoch,
    /// The term in which the last one was decided.
    pub(super) decided: u64,
    pub(super) watermark: Watermark,
    pub(super) delta: StageDelta,
    /// What is mapped by executors.
    pub(super) away: Vec<Arc<AwayPart>>,
}

impl Sent {
    /// The rows that executors map.
    pub(super) fn rows(&self) -> impl Iterator<Item = &Away> {
        self.away.iter().flat_map(|part| &part.rows).map(|(_, rows)| rows.as_ref())
    }

    /// The memory that keeping it takes.
    fn bytes(&self) -> usize {
        let of_rows = |rows: &Away| AWAY_BYTES + rows.without.len() * size_of::<u32>();
        self.delta.bytes() + self.rows().map(of_rows).sum::<usize>()
    }

    /// The memory that sending it takes somewhere, about.
    fn bytes_at_work(&self) -> usize {
        self.delta.bytes() + self.rows().map(|rows| AWAY_BYTES + rows.bytes / AWAY_SHARE).sum::<usize>()
    }
}

/// What was sent since the last checkpoint, as far as it is kept.
#[derive(Debug, Default)]
pub(super) struct SentEpochs {
    epochs: VecDeque<(Sent, usize)>,
    bytes: usize,
}

impl SentEpochs {
    /// Keeps what is about to be sent, and no longer the oldest if that is too much.
    pub(super) fn note(&mut self, sent: Sent) {
        let bytes = sent.bytes();
        self.bytes += bytes;
        self.epochs.push_back((sent, bytes));
        while self.bytes > MOST_BYTES && self.epochs.len() > 1 {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        if let Some((_, bytes)) = self.epochs.pop_front() {
            self.bytes -= bytes;
        }
    }

    /// Forgets what is in a checkpoint that was taken before `epoch`.
    pub(super) fn forget_before(&mut self, epoch: Epoch) {
        while self.epochs.front().is_some_and(|(sent, _)| sent.last < epoch) {
            self.forget_oldest();
        }
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Whether a checkpoint is wanted, or some of it will soon be forgotten.
    pub(super) const fn is_large(&self) -> bool {
        self.bytes > MOST_BYTES / 2
    }

    /// What was sent from `first` to before `end`, put together where `is_cut` does not forbid it; none if not all of it
    /// is kept.
    pub(super) fn between(&self, first: Epoch, end: Epoch, is_cut: bool) -> Option<Vec<Sent>> {
        let mut next = first;
        let mut together: Vec<(Sent, usize)> = Vec::new();
        let within = self.epochs.iter().filter(|(sent, _)| first <= sent.first && sent.last < end);
        for (sent, _) in within {
            let bytes = sent.bytes_at_work();
            if sent.first != next {
                return None;
            }
            next = sent.last.next();
            match together.last_mut().filter(|(_, known)| !is_cut && known + bytes <= TOGETHER_BYTES) {
                Some((known, known_bytes)) => {
                    known.delta.append(sent.delta.clone());
                    known.away.extend(sent.away.iter().cloned());
                    (known.last, known.decided, known.watermark) = (sent.last, sent.decided, sent.watermark);
                    *known_bytes += bytes;
                }
                None => together.push((sent.clone(), bytes)),
            }
        }
        (next == end).then(|| together.into_iter().map(|(sent, _)| sent).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(first: u64, last: u64) -> Sent {
        Sent {
            first: Epoch(first),
            last: Epoch(last),
            decided: 1,
            watermark: Watermark(0),
            delta: StageDelta::default(),
            away: Vec::new(),
        }
    }

    fn ranges(found: Option<Vec<Sent>>) -> Option<Vec<(u64, u64)>> {
        found.map(|sent| sent.iter().map(|sent| (sent.first.0, sent.last.0)).collect())
    }

    #[test]
    fn what_was_sent_since_a_checkpoint_is_found_whole_or_not_at_all() {
        let mut epochs = SentEpochs::default();
        for (first, last) in [(3, 3), (4, 6), (7, 7), (8, 8)] {
            epochs.note(sent(first, last));
        }
        let between =
            |epochs: &SentEpochs, first, end, is_cut| ranges(epochs.between(Epoch(first), Epoch(end), is_cut));
        assert_eq!(between(&epochs, 3, 8, true), Some(vec![(3, 3), (4, 6), (7, 7)]));
        assert_eq!(between(&epochs, 3, 8, false), Some(vec![(3, 7)]));
        assert_eq!(between(&epochs, 4, 4, false), Some(Vec::new()));
        assert_eq!(between(&epochs, 2, 8, false), None, "one was forgotten");
        assert_eq!(between(&epochs, 5, 8, false), None, "epochs that went together cannot be parted");
        assert_eq!(between(&epochs, 3, 12, false), None, "one was not sent");
        epochs.forget_before(Epoch(7));
        assert_eq!(between(&epochs, 7, 9, false), Some(vec![(7, 8)]));
        assert_eq!(between(&epochs, 3, 9, false), None);
    }
}
