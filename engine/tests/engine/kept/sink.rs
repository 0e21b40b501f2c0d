//! An exactly-once sink in memory whose ledger and rows outlive every crash of the engine.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::batch::Epoch;
use millstream_engine::durable::SimFiles;
use millstream_engine::sink::{Guarantee, Sink, SinkWriter};
use millstream_engine::{Error, Result};
use tokio::sync::watch;

use crate::oracle::table::{cells_of, difference};

/// How far doubles may lie apart where an epoch was made again.
const DOUBLES_APART: f64 = 1e-6;

const LOST_ANSWER: &str = "the answer was lost";

/// Whether a query ended because a sink lost its answer.
pub(crate) fn is_lost_answer(error: &Error) -> bool {
    matches!(error, Error::External { source, .. } if source.to_string() == LOST_ANSWER)
}

/// What the destination holds.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger(Arc<Mutex<Held>>);

#[derive(Debug, Default)]
struct Held {
    writer: Option<SinkWriter>,
    epochs: BTreeMap<u64, Vec<RecordBatch>>,
}

impl Ledger {
    fn held(&self) -> MutexGuard<'_, Held> {
        self.0.lock().unwrap()
    }

    /// All rows, in order of their epochs.
    pub(crate) fn rows(&self) -> Vec<RecordBatch> {
        self.held().epochs.values().flatten().cloned().collect()
    }

    /// A copy that later commits do not reach.
    pub(crate) fn copy(&self) -> Self {
        let held = self.held();
        Self(Arc::new(Mutex::new(Held { writer: held.writer.clone(), epochs: held.epochs.clone() })))
    }
}

/// Writes to a ledger while the machine has power.
#[derive(Debug)]
pub(crate) struct LedgerSink {
    ledger: Ledger,
    /// The disk of the machine that writes, if it can lose its power.
    disk: Option<SimFiles>,
    staged: Vec<RecordBatch>,
    end: Option<(usize, End)>,
}

/// What happens after a number of commits.
#[derive(Debug)]
pub(crate) enum End {
    /// The query is told to stop.
    Stop(watch::Sender<bool>),
    /// The commit is made and nobody hears of it.
    LoseAnswer,
}

impl LedgerSink {
    pub(crate) const fn new(ledger: Ledger, disk: Option<SimFiles>, end: Option<(usize, End)>) -> Self {
        Self { ledger, disk, staged: Vec::new(), end }
    }

    /// Counts a commit.
    fn end_if_due(&mut self) -> Result<()> {
        let Some((left, end)) = &mut self.end else { return Ok(()) };
        *left = left.saturating_sub(1);
        match end {
            End::Stop(stop) if *left == 0 => {
                stop.send_replace(true);
                Ok(())
            }
            End::LoseAnswer if *left == 0 => Err(Error::external("committing", LOST_ANSWER)),
            _ => Ok(()),
        }
    }

    fn check_power(&self) -> Result<()> {
        match &self.disk {
            Some(disk) if !disk.has_power() => Err(Error::external("writing to the ledger", "the power is off")),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Sink for LedgerSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn begin(&mut self, writer: &SinkWriter) -> Result<Option<Epoch>> {
        self.check_power()?;
        let mut held = self.ledger.held();
        if let Some(before) = &held.writer {
            assert_eq!(before.query, writer.query, "the sink holds the results of another query");
            assert!(before.term < writer.term, "term {} after term {}", writer.term, before.term);
        }
        held.writer = Some(writer.clone());
        Ok(held.epochs.keys().next_back().copied().map(Epoch))
    }

    async fn stage(&mut self, _: Epoch, rows: &[RecordBatch]) -> Result<()> {
        self.staged.extend_from_slice(rows);
        Ok(())
    }

    async fn commit(&mut self, epoch: Epoch) -> Result<()> {
        self.check_power()?;
        let staged = std::mem::take(&mut self.staged);
        let mut held = self.ledger.held();
        if let Some(known) = held.epochs.get(&epoch.0) {
            difference(&cells_of(&staged, 0.0), &cells_of(known, DOUBLES_APART))
                .map_err(|difference| Error::internal(format!("epoch {epoch} has other rows now\n{difference}")))?;
        } else {
            assert!(held.epochs.keys().all(|last| *last < epoch.0), "epoch {epoch} comes too late");
            held.epochs.insert(epoch.0, staged);
        }
        drop(held);
        self.end_if_due()
    }
}
