//! A query whose state is at executors, as its driver sees it: what it sends them in an epoch, and what they answer.
//!
//! `placement` decides who owns what, and `lineage` has what is sent again.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::record_batch::RecordBatch;

use super::delivery::split;
use super::error::SentError;
use super::frame::{Frame, to_json};
use super::lineage::{Kept, Sent, SentEpochs};
use super::mapping::{AwayRows, parts_of};
use super::message::{
    ApplySpec, DRIVER, EMITTED, EmittedHead, FAILED, MAPPED, MappedHead, RECEIPT, REPLY, Receipt, Reign, Reply,
    Request, Route,
};
use super::placement::{MOST_ATTEMPTS, PAUSE};
use super::readers::Readers;
use super::slots::KeyRange;
use super::stragglers::Stragglers;
use super::{Answer, Executors, Member, Task};
use crate::batch::Epoch;
use crate::durable::{Durability, StatePlace};
use crate::error::{Error, Result};
use crate::executor::{DeltaCounts, Emitted, LateRows, Spreading, Stage, StageCounts, StageDelta, Unit};
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
    mapped: Option<(StageDelta, AwayRows)>,
    /// The executors that can map rows of it.
    pub(super) mappers: Vec<Member>,
    /// The streams of which there may be rows for them to map.
    pub(super) streams: Vec<Arc<Readers>>,
    pub(super) stragglers: Stragglers,
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

/// What came of an exchange.
#[derive(Debug, Default)]
pub(super) struct Given {
    results: Vec<Emitted>,
    /// What executors say of rows that they have mapped, each once.
    mapped: Vec<MappedHead>,
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
            mappers: Vec::new(),
            streams: Vec::new(),
            stragglers: Stragglers::default(),
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

    /// Maps the rows of a micro-batch that are here; gives those that were too late. The others are mapped where they
    /// are.
    pub(crate) async fn update(&mut self, units: &[Vec<Unit>], away: &AwayRows) -> Result<Vec<LateRows>> {
        let (delta, late) = self.plan.map(units).await?;
        self.plan.count(&DeltaCounts::from(&delta));
        self.mapped = Some((delta, away.clone()));
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
        let (delta, away) = self.mapped.take().unwrap_or_default();
        let away = parts_of(away, last, &self.mappers);
        let epochs = Sent { first: self.next, last, decided: self.decided, watermark, delta, away };
        if self.kept.is_some() {
            self.sent.note(epochs.clone());
        }
        let mut attempts = 0;
        loop {
            match self.send(&epochs, gives, true).await {
                Err(error) if error.is_lost() && attempts < MOST_ATTEMPTS => {
                    tokio::time::sleep(PAUSE * attempts).await;
                    attempts += 1;
                    self.doubt_streams();
                    self.replace_lost(error, epochs.first, last.next()).await?;
                }
                ended => {
                    let Given { results, mapped } = ended?;
                    mapped.iter().filter_map(|head| head.counts.as_ref()).for_each(|rows| self.plan.count(rows));
                    epochs.rows().for_each(|rows| rows.lease.release());
                    self.next = last.next();
                    return Ok(results);
                }
            }
        }
    }

    /// Sends epochs to the slots that have not taken them in, or to all if they are to give their results; has rows that
    /// are elsewhere counted if nobody has.
    pub(super) async fn send(&mut self, epochs: &Sent, gives: bool, counts: bool) -> Result<Given> {
        let Sent { first, last, decided, watermark, delta, away } = epochs;
        let mut owners: BTreeMap<&Member, Vec<usize>> = BTreeMap::new();
        for (number, slot) in self.slots.iter().enumerate().filter(|(_, slot)| gives || slot.next <= *last) {
            owners.entry(&slot.owner).or_default().push(number);
        }
        if owners.is_empty() {
            match self.mappers.first().filter(|_| counts && !away.is_empty()) {
                Some(mapper) => owners.entry(mapper).or_default(),
                None => return Ok(Given::default()),
            };
        }
        let mut routes = Vec::new();
        for (task, slots) in owners.values().enumerate() {
            let wanted = |slot: &usize| self.slots.get(*slot).is_some_and(|slot| slot.next <= *last);
            let slots = slots.iter().copied().enumerate().filter(|(_, slot)| wanted(slot));
            routes.extend(slots.map(|(place, slot)| Route { slot, task, place }));
        }
        let sending = self.senders(away, &routes, owners.len()).await?;
        let ranges: Vec<KeyRange> = self.slots.iter().map(|slot| slot.range).collect();
        let mut deltas = split(delta.clone(), &self.plan, &ranges)?;
        let (mut tasks, mut numbers, mut members) = (Vec::new(), Vec::new(), Vec::new());
        for (task, (member, slots)) in owners.into_iter().enumerate() {
            let mut frames = Vec::new();
            for Route { slot, place, .. } in routes.iter().filter(|route| route.task == task) {
                if let Some(deltas) = deltas.get_mut(*slot) {
                    frames.extend(deltas.framed(DRIVER, *place)?);
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
                senders: sending.senders.len(),
            };
            tasks.push(Task { member: member.clone(), spec: to_json(&spec)?.into(), frames });
            numbers.push(slots);
            members.push(member.clone());
        }
        let senders: Vec<Member> = sending.senders.iter().map(|sender| sender.member.clone()).collect();
        let answers = self.seat.executors.exchange(tasks, sending).await?;
        let mut took: Vec<Duration> = answers.iter().map(|answer| answer.took).collect();
        let given = self.take_in(&numbers, answers)?;
        if !senders.is_empty() {
            // All of them have waited for the slowest sender.
            took = members.iter().map(|member| self.own_time(member, &senders, &given.mapped)).collect();
        }
        if gives && matches!(self.spreading, Spreading::ByKey(_)) {
            let took: Vec<(&Member, Duration)> = members.iter().zip(took).collect();
            self.stragglers.note(&took, Instant::now());
        }
        Ok(given)
    }

    /// How long an executor itself was at work in the last exchange.
    fn own_time(&self, member: &Member, senders: &[Member], mapped: &[MappedHead]) -> Duration {
        let own = self.slots.iter().filter(|slot| slot.owner == *member);
        let applying = own.filter_map(|slot| slot.receipt.as_ref().map(|receipt| receipt.took)).max();
        let is_own = |head: &&MappedHead| senders.get(head.sender.wrapping_sub(1)) == Some(member);
        let mapping = mapped.iter().find(is_own).map(|head| head.took);
        applying.unwrap_or_default() + mapping.unwrap_or_default()
    }

    /// Takes receipts in, and gives the results in order.
    fn take_in(&mut self, numbers: &[Vec<usize>], answers: Vec<Answer>) -> Result<Given> {
        let mut mapped = Vec::new();
        let mut results: BTreeMap<(usize, usize), (Option<EventTime>, Vec<RecordBatch>)> = BTreeMap::new();
        if answers.len() != numbers.len() {
            return Err(Error::lost("an exchange has fewer answers than tasks"));
        }
        for (slots, Answer { frames, .. }) in numbers.iter().zip(answers) {
            let (mut given, mut missing) = (vec![0; slots.len()], slots.len());
            for frame in frames {
                match frame.kind {
                    EMITTED => {
                        let (head, rows): (EmittedHead, _) = frame.read()?;
                        if let Some(count) = given.get_mut(head.slot) {
                            *count += 1;
                        }
                        let slot = slots.get(head.slot).copied().unwrap_or_default();
                        let result = results.entry((slot, head.number)).or_insert_with(|| (head.instant, Vec::new()));
                        result.1.extend(rows);
                    }
                    RECEIPT => {
                        let (receipt, _): (Receipt, _) = frame.read()?;
                        let number = receipt.slot;
                        let is_whole = given.get(number) == Some(&receipt.results);
                        let slot = slots.get(number).and_then(|slot| self.slots.get_mut(*slot)).filter(|_| is_whole);
                        let slot = slot.ok_or_else(|| Error::lost("results of a slot are missing"))?;
                        slot.next = receipt.next;
                        slot.receipt = Some(receipt);
                        missing -= 1;
                    }
                    MAPPED => mapped.extend(Some(frame.read::<MappedHead>()?.0).filter(|head| head.counts.is_some())),
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
        Ok(Given { results: in_order(results), mapped })
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

    /// Has executors open the streams again that they may have closed.
    pub(super) fn doubt_streams(&self) {
        self.streams.iter().for_each(|readers| readers.doubt());
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
    Ok(ask_rows(executors, member, request).await?.0)
}

/// The same, with the rows that come with the answer.
pub(super) async fn ask_rows(
    executors: &dyn Executors,
    member: &Member,
    request: &Request,
) -> Result<(Reply, Option<RecordBatch>)> {
    let body = executors.call(member, to_json(request)?.into()).await?;
    match (Frame { kind: REPLY, body }).read()? {
        (Reply::Failed(error), _) => Err(error.into()),
        answer => Ok(answer),
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
