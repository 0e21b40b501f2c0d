//! A query whose state is at executors, as its driver sees it: what it sends them in an epoch, and what they answer.
//!
//! `placement` decides who owns what, and `lineage` has what is sent again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::record_batch::RecordBatch;

use super::delivery::split;
use super::error::SentError;
use super::frame::{Frame, from_json, to_json};
use super::lineage::{Kept, Sent, SentEpochs};
use super::message::{ApplySpec, EMITTED, EmittedHead, FAILED, RECEIPT, Receipt, Reign, Reply, Request};
use super::placement::{MOST_ATTEMPTS, PAUSE};
use super::slots::KeyRange;
use super::{Executors, Member, Task};
use crate::batch::Epoch;
use crate::durable::{Durability, StatePlace};
use crate::error::{Error, Result};
use crate::executor::{Emitted, LateRows, Spreading, Stage, StageCounts, StageDelta, Unit};
use crate::query::InputProgress;
use crate::time::{EventTime, Watermark};

/// A place in a cluster for a query.
#[derive(Debug, Clone)]
pub struct Seat {
    /// The executors.
    pub executors: Arc<dyn Executors>,
    /// The query, in words that [`super::Programs`] of the executors understands.
    pub program: String,
    /// The state directory, which all executors reach, and what its files survive; none for a query that is not kept.
    pub store: Option<(StatePlace, Durability)>,
}

/// The driver's end of a query that is spread.
#[derive(Debug)]
pub(crate) struct Spread {
    /// Its plans; it maps rows and holds no state.
    pub(super) plan: Stage,
    pub(super) seat: Seat,
    pub(super) spreading: Spreading,
    pub(super) reign: Reign,
    pub(super) slots: Vec<OwnedSlot>,
    /// The executors as they were when it was last looked.
    pub(super) seen: Vec<Member>,
    /// The epoch that comes next.
    pub(super) next: Epoch,
    /// The first epoch that was not committed as this driver began, and the one after the last that was begun.
    pub(super) begun_at: (Epoch, Epoch),
    /// The term in which the epochs that are sent were decided.
    pub(super) decided: u64,
    /// What was mapped and is still to be sent.
    mapped: Option<StageDelta>,
    /// What was sent since the last checkpoint.
    pub(super) sent: SentEpochs,
    /// The last checkpoint, if the query is kept.
    pub(super) kept: Option<Kept>,
    /// The instant up to which all had been evaluated in the checkpoint that it began with.
    pub(super) evaluated: Option<EventTime>,
    /// Whether the next image has every entry, because not all of the last one was written.
    pub(super) wants_everything: bool,
    early_due: Option<Instant>,
}

/// A slot and what its owner said of it last.
#[derive(Debug)]
pub(super) struct OwnedSlot {
    pub(super) range: KeyRange,
    pub(super) owner: Member,
    /// The epoch that it takes next.
    pub(super) next: Epoch,
    pub(super) receipt: Option<Receipt>,
}

impl Spread {
    /// A query that has no slots yet; none if it has no state to spread.
    pub(crate) fn new(plan: Stage, seat: Seat) -> Result<Self, Box<Stage>> {
        let spreading = plan.spreading();
        if spreading == Spreading::Nowhere {
            return Err(Box::new(plan));
        }
        Ok(Self {
            plan,
            seat,
            spreading,
            reign: Reign { query: uuid::Uuid::new_v4().to_string(), term: 1 },
            slots: Vec::new(),
            seen: Vec::new(),
            next: Epoch(0),
            begun_at: (Epoch(0), Epoch(0)),
            decided: 1,
            mapped: None,
            sent: SentEpochs::default(),
            kept: None,
            evaluated: None,
            wants_everything: false,
            early_due: None,
        })
    }

    pub(crate) const fn plan(&self) -> &Stage {
        &self.plan
    }

    pub(crate) const fn plan_mut(&mut self) -> &mut Stage {
        &mut self.plan
    }

    /// Maps the rows of a micro-batch; gives those that were too late.
    pub(crate) async fn update(&mut self, units: &[Vec<Unit>]) -> Result<Vec<LateRows>> {
        let (delta, late) = self.plan.map(units).await?;
        self.plan.count(&delta);
        self.mapped = Some(delta);
        Ok(late)
    }

    /// Says in which term the epochs that come next were decided; in its own unless it goes on with those of another.
    pub(crate) const fn decided_in(&mut self, term: Option<u64>) {
        self.decided = match term {
            Some(term) => term,
            None => self.reign.term,
        };
    }

    /// The results of an epoch, which was mapped; nothing the second time.
    pub(crate) async fn evaluate(&mut self, watermark: Watermark) -> Result<Vec<Emitted>> {
        if self.mapped.is_none() {
            return Ok(Vec::new());
        }
        self.exchange(watermark, self.next, true).await
    }

    /// Passes the epochs up to `through`, whose rows were mapped together.
    pub(crate) async fn pass(&mut self, watermark: Watermark, through: Epoch) -> Result<()> {
        self.exchange(watermark, through, false).await.map(drop)
    }

    /// Sends the epochs from the next one up to `last` what was mapped, and again what executors have lost.
    async fn exchange(&mut self, watermark: Watermark, last: Epoch, gives: bool) -> Result<Vec<Emitted>> {
        let delta = self.mapped.take().unwrap_or_default();
        let epochs = Sent { first: self.next, last, decided: self.decided, watermark, delta };
        if self.kept.is_some() {
            self.sent.note(epochs.clone());
        }
        let mut attempts = 0;
        loop {
            match self.send(&epochs, gives).await {
                Err(error) if error.is_lost() && attempts < MOST_ATTEMPTS => {
                    tokio::time::sleep(PAUSE * attempts).await;
                    attempts += 1;
                    self.replace_lost(error, epochs.first, last.next()).await?;
                }
                ended => {
                    let results = ended?;
                    self.next = last.next();
                    return Ok(results);
                }
            }
        }
    }

    /// Sends epochs to the slots that have not taken them in, or to all if they are to give their results.
    pub(super) async fn send(&mut self, epochs: &Sent, gives: bool) -> Result<Vec<Emitted>> {
        let Sent { first, last, decided, watermark, delta } = epochs;
        let mut owners: BTreeMap<&Member, Vec<usize>> = BTreeMap::new();
        for (number, slot) in self.slots.iter().enumerate().filter(|(_, slot)| gives || slot.next <= *last) {
            owners.entry(&slot.owner).or_default().push(number);
        }
        if owners.is_empty() {
            return Ok(Vec::new());
        }
        let ranges: Vec<KeyRange> = self.slots.iter().map(|slot| slot.range).collect();
        let mut deltas = split(delta.clone(), &self.plan, &ranges)?;
        let (mut tasks, mut numbers) = (Vec::new(), Vec::new());
        for (member, slots) in owners {
            let mut frames = Vec::new();
            for (place, number) in slots.iter().enumerate() {
                let is_wanted = self.slots.get(*number).is_some_and(|slot| slot.next <= *last);
                if let (true, Some(deltas)) = (is_wanted, deltas.get_mut(*number)) {
                    frames.extend(deltas.framed(place).into_iter().collect::<Result<Vec<Frame>>>()?);
                }
            }
            let spec = ApplySpec {
                reign: self.reign.clone(),
                first: *first,
                last: *last,
                decided: *decided,
                watermark: *watermark,
                gives,
                slots: slots.iter().filter_map(|slot| ranges.get(*slot).copied()).collect(),
                frames: frames.len(),
            };
            tasks.push(Task { member: member.clone(), spec: to_json(&spec)?.into(), frames });
            numbers.push(slots);
        }
        let answers = self.seat.executors.exchange(tasks).await?;
        self.take_in(&numbers, answers)
    }

    /// Takes receipts in, and gives the results in order.
    fn take_in(&mut self, numbers: &[Vec<usize>], answers: Vec<Vec<Frame>>) -> Result<Vec<Emitted>> {
        let mut results: BTreeMap<(usize, usize), (Option<EventTime>, Vec<RecordBatch>)> = BTreeMap::new();
        if answers.len() != numbers.len() {
            return Err(Error::lost("an exchange has fewer answers than tasks"));
        }
        for (slots, frames) in numbers.iter().zip(answers) {
            let (mut counted, mut missing) = (vec![0; slots.len()], slots.len());
            for frame in frames {
                match frame.kind {
                    EMITTED => {
                        let (head, rows): (EmittedHead, _) = frame.read()?;
                        if let Some(count) = counted.get_mut(head.slot) {
                            *count += 1;
                        }
                        let slot = slots.get(head.slot).copied().unwrap_or_default();
                        let result = results.entry((slot, head.number)).or_insert_with(|| (head.instant, Vec::new()));
                        result.1.extend(rows);
                    }
                    RECEIPT => {
                        let (receipt, _): (Receipt, _) = frame.read()?;
                        let number = receipt.slot;
                        let is_whole = counted.get(number) == Some(&receipt.results);
                        let slot = slots.get(number).and_then(|slot| self.slots.get_mut(*slot)).filter(|_| is_whole);
                        let slot = slot.ok_or_else(|| Error::lost("results of a slot are missing"))?;
                        slot.next = receipt.next;
                        slot.receipt = Some(receipt);
                        missing -= 1;
                    }
                    FAILED => return Err(frame.read::<SentError>()?.0.into()),
                    kind => return Err(Error::internal(format!("an executor gave a frame of kind {kind}"))),
                }
            }
            if missing > 0 {
                return Err(Error::lost("a slot has given no receipt"));
            }
        }
        let early = self.slots.iter().filter_map(|slot| slot.receipt.as_ref()?.early_in_ms).min();
        self.early_due = early.map(|early| Instant::now() + Duration::from_millis(early));
        Ok(in_order(results))
    }

    /// The least instant up to which all have been evaluated.
    pub(crate) fn evaluated(&self) -> EventTime {
        let before = self.evaluated.unwrap_or(EventTime(i64::MIN));
        let evaluated = self.slots.iter().map(|slot| slot.receipt.as_ref().map_or(before, |receipt| receipt.evaluated));
        evaluated.min().unwrap_or(before)
    }

    pub(crate) const fn early_due(&self) -> Option<Instant> {
        self.early_due
    }

    fn receipts(&self) -> impl Iterator<Item = &Receipt> {
        self.slots.iter().filter_map(|slot| slot.receipt.as_ref())
    }

    /// What it has done: rows are counted where they are mapped, state where it lies.
    pub(crate) fn counts(&self) -> StageCounts {
        let mut counts = self.plan.counts();
        for Receipt { counts: of_slot, .. } in self.receipts() {
            counts.state_rows_read += of_slot.state_rows_read;
            counts.instants = counts.instants.max(of_slot.instants);
            counts.state_bytes += of_slot.state_bytes;
            counts.most_state_bytes += of_slot.most_state_bytes;
            for ((_, known), (_, more)) in counts.inputs.iter_mut().zip(&of_slot.inputs) {
                known.add(more);
            }
        }
        counts
    }

    pub(crate) fn inputs(&self) -> Vec<InputProgress> {
        let mut inputs = self.plan.inputs();
        let rows = self.counts().inputs;
        for (index, input) in inputs.iter_mut().enumerate() {
            input.state_bytes = self.receipts().filter_map(|receipt| receipt.input_bytes.get(index)).sum();
            if let Some((_, rows)) = rows.iter().find(|(name, _)| *name == input.name) {
                input.rows = *rows;
            }
        }
        inputs
    }

    pub(super) async fn ask(&self, member: &Member, request: &Request) -> Result<Reply> {
        ask(self.seat.executors.as_ref(), member, request).await
    }
}

/// Asks an executor.
///
/// # Errors
/// What it has failed of, and [`Error::Lost`] if it is gone.
pub(super) async fn ask(executors: &dyn Executors, member: &Member, request: &Request) -> Result<Reply> {
    match from_json(&executors.call(member, to_json(request)?.into()).await?)? {
        Reply::Failed(error) => Err(error.into()),
        reply => Ok(reply),
    }
}

/// Results of slots in order: those of one slot as it gave them, those of several by their instants.
fn in_order(results: BTreeMap<(usize, usize), (Option<EventTime>, Vec<RecordBatch>)>) -> Vec<Emitted> {
    let is_one = results.keys().all(|(slot, _)| *slot == 0);
    let mut results: VecDeque<Emitted> =
        results.into_values().map(|(instant, rows)| Emitted { instant, rows }).collect();
    if is_one {
        return results.into();
    }
    results.make_contiguous().sort_by_key(|result| result.instant);
    let mut merged: Vec<Emitted> = Vec::new();
    for result in results {
        match merged.last_mut().filter(|last| last.instant == result.instant) {
            Some(last) => last.rows.extend(result.rows),
            None => merged.push(result),
        }
    }
    merged
}
