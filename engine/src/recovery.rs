//! Bringing a query back to where its last run left it.
//!
//! Recovery is the normal path run again. The state of the last checkpoint is put back, the epochs that were
//! committed since go through the update plan for their state only, and an epoch whose intent was logged but not its
//! commit runs wholly, with the blocks and the watermark of the intent. The sink's ledger says whether its output is
//! there already.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::batch::Epoch;
use crate::cluster::Lineage;
use crate::driver::{Driver, MicroBatch, Rebuilt, stopped};
use crate::durable::{Commit, Intent, LoggedEpoch, Recovered};
use crate::error::{Error, Result};
use crate::ingest::{LogPlace, Record};
use crate::keeper::Keeper;
use crate::late::late_writer;
use crate::query::{QueryProgress, Recovery};
use crate::sink::{Guarantee, Sink, SinkWriter};

/// Rows that go through the update plan together in a replay: the more, the fewer state rows come out.
const REPLAYED_UNIT_ROWS: usize = 1 << 19;

/// Committed epochs that are replayed together.
struct Together {
    batch: MicroBatch,
    count: u64,
    /// The commit of the last one.
    commit: Commit,
    /// The term in which that one was decided.
    decided: u64,
}

impl Driver {
    /// Begins the sink's reign and brings the state to where the last run left it; whether it was stopped meanwhile.
    pub(crate) async fn recover(
        &mut self,
        sink: &mut dyn Sink,
        stop: &mut watch::Receiver<bool>,
        progress: &watch::Sender<QueryProgress>,
    ) -> Result<bool> {
        let Some(keeper) = self.keeper.as_mut() else {
            let fresh = SinkWriter { query: uuid::Uuid::new_v4().to_string(), term: 1 };
            sink.begin(&fresh).await?;
            if let Some(late_sink) = &mut self.late_sink {
                late_sink.begin(&late_writer(&fresh)).await?;
            }
            if let Some(spread) = self.stage.spread() {
                spread.resume(&fresh.query, fresh.term, Lineage::default()).await?;
            }
            return Ok(false);
        };
        let recovered = keeper.take_recovered()?;
        let store = keeper.store()?;
        let (name, writer, folder) = (store.name.clone(), store.writer(), store.folder().to_owned());
        let ledger = sink.begin(&writer).await?;
        let known = recovered.last(recovered.sink_epoch, |commit| commit.sink_epoch);
        check_ledger(&format!("the sink of query \"{name}\""), sink.guarantee(), ledger, known, recovered.in_hand())?;
        if let Some(late_sink) = &mut self.late_sink {
            let ledger = late_sink.begin(&late_writer(&writer)).await?;
            let known = recovered.last(recovered.late_epoch, |commit| commit.late_epoch);
            let sink = format!("the sink of late rows of query \"{name}\"");
            check_ledger(&sink, late_sink.guarantee(), ledger, known, recovered.in_hand())?;
        }
        (self.epoch, self.counters) = (recovered.epoch, recovered.counters);
        if let Some(spread) = self.stage.spread() {
            let lineage = recovered.lineage(folder);
            spread.resume(&writer.query, writer.term, lineage).await?;
        } else if let Some(stages) = recovered.stages {
            drop(recovered.share);
            let stage = self.stage.plan_mut();
            stage.put_back(&mut stages.into_iter())?;
            stage.count_memory();
            self.read_tables(&recovered.places).await?;
        }
        let total = recovered.epochs.len() as u64;
        let (started, rows_before) = (Instant::now(), self.counters.rows_read);
        let mut epochs = recovered.epochs.into_iter();
        while epochs.len() > 0 {
            let recovery = Some(Recovery { epochs_done: total - epochs.len() as u64, epochs: total });
            progress.send_replace(QueryProgress { recovery, ..self.progress(self.watermark(), Duration::ZERO) });
            tokio::select! {
                biased;
                () = stopped(stop) => return Ok(true),
                ended = self.run_again(&mut epochs, ledger, sink) => ended?,
            }
        }
        if total > 0 {
            let (rows, elapsed) = (self.counters.rows_read - rows_before, started.elapsed());
            tracing::info!(epochs = total, rows, ?elapsed, "rebuilt the state from its lineage");
            self.rebuilt = Some(Rebuilt { epochs: total, rows, elapsed });
        }
        progress.send_replace(self.progress(self.watermark(), Duration::ZERO));
        sink.publish(self.stage.evaluated())?;
        Ok(false)
    }

    /// Reads the versions of the tables that the checkpoint saw, which its places come before.
    async fn read_tables(&mut self, places: &BTreeMap<String, LogPlace>) -> Result<()> {
        for index in 0..self.streams.len() {
            let Some(stream) = self.streams.get(index) else { continue };
            let known = places.get(&stream.ingest.definition().name).filter(|_| stream.is_table());
            let Some(seq) = known.map(|place| place.seq) else { continue };
            let mut taken = vec![Vec::new(); index];
            taken.push(self.take_until(index, seq + 1).await?);
            taken.resize_with(self.streams.len(), Vec::new);
            let batch = self.batch_of(taken);
            self.update(&batch).await?;
        }
        Ok(())
    }

    /// Runs the next of the logged epochs again, several at once where only their state is wanted.
    async fn run_again(
        &mut self,
        epochs: &mut std::vec::IntoIter<LoggedEpoch>,
        ledger: Option<Epoch>,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        let mut together: Option<Together> = None;
        // Which corrections a window has had, and what was given of it early, is a matter of each epoch by itself.
        // So is what a table was.
        let is_cut = self.stage.gives_by_epoch() || !self.tables.is_empty();
        let most = self.keeper.as_ref().filter(|_| !is_cut).map_or(0, Keeper::replay_rows);
        while together.as_ref().is_none_or(|together| !together.batch.is_full(most))
            && let Some(logged) = epochs.next()
        {
            let LoggedEpoch { intent, commit } = logged;
            let batch = self.batch_again(&intent).await?;
            let Some(commit) = commit else {
                self.rebuild(together).await?;
                return self.finish_in_hand(batch, intent.term, ledger, sink).await;
            };
            let decided = intent.term;
            match &mut together {
                Some(known) => {
                    known.batch.append(batch, REPLAYED_UNIT_ROWS);
                    (known.count, known.commit, known.decided) = (known.count + 1, commit, decided);
                }
                None => together = Some(Together { batch, count: 1, commit, decided }),
            }
        }
        self.rebuild(together).await
    }

    /// The micro-batch that an intent names.
    async fn batch_again(&mut self, intent: &Intent) -> Result<MicroBatch> {
        let mut taken = Vec::new();
        for (index, records) in intent.streams.iter().enumerate() {
            taken.push(self.take_until(index, records.end()).await?);
        }
        let mut batch = self.batch_of(taken);
        if batch.watermark == intent.watermark && batch.take_logged() == intent.streams {
            return Ok(batch);
        }
        Err(Error::state(
            format!(
                "epoch {} cannot be repeated: its input gives watermark {} instead of {}",
                intent.epoch, batch.watermark, intent.watermark
            ),
            "restore the input as it was, or start again with a new state directory",
        ))
    }

    /// Brings the state to what it was after these epochs.
    async fn rebuild(&mut self, epochs: Option<Together>) -> Result<()> {
        let Some(Together { batch, count, commit, decided }) = epochs else { return Ok(()) };
        let started = Instant::now();
        self.decided_in(Some(decided));
        // Its late rows are where the results are.
        self.update(&batch).await?;
        self.stage.pass(batch.watermark, commit.epoch).await?;
        self.decided_in(None);
        self.counters = commit.counters;
        self.epoch = commit.epoch.next();
        if let Some(keeper) = self.keeper.as_mut() {
            keeper.note_replayed(count, &commit, started.elapsed());
        }
        Ok(())
    }

    /// Runs the epoch that was not committed, wholly.
    async fn finish_in_hand(
        &mut self,
        batch: MicroBatch,
        decided: u64,
        ledger: Option<Epoch>,
        sink: &mut dyn Sink,
    ) -> Result<()> {
        self.decided_in(Some(decided));
        if let Some(keeper) = self.keeper.as_mut() {
            keeper.begin_update();
        }
        let staged = self.stage_epoch(&batch, sink).await?;
        self.decided_in(None);
        tracing::info!(epoch = self.epoch.0, ?staged, ledger = ?ledger, "finishes the epoch in hand");
        self.commit_epoch(staged, sink).await
    }

    /// Says in which term what follows was decided, if it was in an earlier one.
    fn decided_in(&mut self, term: Option<u64>) {
        if let Some(spread) = self.stage.spread() {
            spread.decided_in(term);
        }
    }

    /// Takes the records of a stream up to `end`.
    async fn take_until(&mut self, index: usize, end: u64) -> Result<Vec<Arc<Record>>> {
        let stream = self.streams.get_mut(index).ok_or_else(|| Error::internal("an epoch names too many streams"))?;
        let mut records = Vec::new();
        while stream.reader.place() < end {
            let taken = stream.reader.take(usize::MAX, end);
            if taken.is_empty() {
                if stream.reader.is_at_end()? {
                    let name = &stream.ingest.definition().name;
                    return Err(Error::state(
                        format!("stream \"{name}\" ends before record {end}, which the query has used"),
                        "restore the input as it was, or start again with a new state directory",
                    ));
                }
                stream.reader.changed().await;
            }
            records.extend(taken);
        }
        Ok(records)
    }
}

impl Recovered {
    /// What executors need to know of it.
    fn lineage(&self, folder: String) -> Lineage {
        let end = self.epochs.last().map_or(self.epoch, |last| last.intent.epoch.next());
        let next = self.in_hand().unwrap_or(end);
        let term_of = |next: Epoch| {
            let before = self.epochs.iter().find(|epoch| epoch.intent.epoch.next() == next);
            before.map_or(self.saved_in, |epoch| epoch.intent.term)
        };
        Lineage {
            saved: self.saved.clone(),
            first: self.epoch,
            next,
            end,
            decided: (term_of(next), term_of(end)),
            saved_in: self.saved_in,
            folder,
        }
    }

    /// The epoch that the last commit names, or else the checkpoint.
    fn last(&self, checkpointed: Option<Epoch>, named: fn(&Commit) -> Option<Epoch>) -> Option<Epoch> {
        let last = self.epochs.iter().filter_map(|epoch| epoch.commit.as_ref()).next_back();
        last.map_or(checkpointed, named)
    }

    /// The epoch whose intent was logged and not its commit.
    fn in_hand(&self) -> Option<Epoch> {
        self.epochs.last().filter(|epoch| epoch.commit.is_none()).map(|epoch| epoch.intent.epoch)
    }
}

/// Compares a sink's ledger with the epoch that it is known to have, or may have besides: the one in hand.
fn check_ledger(
    sink: &str,
    guarantee: Guarantee,
    ledger: Option<Epoch>,
    known: Option<Epoch>,
    in_hand: Option<Epoch>,
) -> Result<()> {
    if guarantee == Guarantee::AtLeastOnce || ledger == known || (ledger.is_some() && ledger == in_hand) {
        return Ok(());
    }
    let say = |epoch: Option<Epoch>| epoch.map_or("no epoch".to_owned(), |epoch| format!("epoch {epoch}"));
    Err(Error::state(
        format!("{sink} has {} of it, but the state directory says {}", say(ledger), say(known)),
        "state directory and sink belong together: restore both from copies of the same time, or begin anew with both",
    ))
}
