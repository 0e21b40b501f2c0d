//! A query whose state is at executors, as its driver sees it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::UInt32Array;
use datafusion::arrow::record_batch::RecordBatch;
use futures::future::{join_all, try_join_all};

use super::error::SentError;
use super::frame::{Frame, from_json, in_parts, to_json};
use super::message::{
    ApplySpec, Assign, DELTA, DeltaHead, EMITTED, EmittedHead, FAILED, HeldSlot, RECEIPT, Receipt, Reign, Reply,
    Request, StoreAccess, united,
};
use super::slots::{KeyRange, around, even, slot_of};
use super::{Executors, Member, Task};
use crate::arrays::{concat_rows, take_rows};
use crate::batch::Epoch;
use crate::checkpoint::{PaneTag, Saved};
use crate::durable::{Durability, StatePlace};
use crate::error::{Error, Result};
use crate::executor::{Added, Emitted, LateRows, LeafDelta, Spreading, Stage, StageCounts, StageDelta, Unit};
use crate::query::InputProgress;
use crate::state::key_partitions_of;
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
    plan: Stage,
    seat: Seat,
    spreading: Spreading,
    reign: Reign,
    slots: Vec<OwnedSlot>,
    /// The executors as they were when it was last looked.
    seen: Vec<Member>,
    /// The epoch that comes next.
    next: Epoch,
    /// What was mapped and is still to be sent.
    mapped: Option<StageDelta>,
    /// Whether the next image has every entry, because not all of the last one was written.
    wants_everything: bool,
    early_due: Option<Instant>,
}

/// A slot and what its owner said of it last.
#[derive(Debug)]
struct OwnedSlot {
    range: KeyRange,
    owner: Member,
    next: Epoch,
    receipt: Option<Receipt>,
}

/// What the lineage of a query says about where its slots have to go on.
#[derive(Debug, Default)]
pub(crate) struct Lineage {
    pub(crate) saved: Option<Saved>,
    /// The first epoch that is not in the checkpoint.
    pub(crate) first: Epoch,
    /// The epoch after the last whose intent was logged.
    pub(crate) end: Epoch,
    /// The query's folder in the state directory.
    pub(crate) folder: String,
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
            mapped: None,
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

    /// Gives every slot an owner: the one that holds it if its state is of use, else one that begins with the
    /// checkpoint. `reign` is the query's id and term.
    pub(crate) async fn resume(&mut self, query: &str, term: u64, lineage: Lineage) -> Result<()> {
        self.reign = Reign { query: query.to_owned(), term };
        if let Some(saved) = &lineage.saved {
            self.plan.count_on(&mut saved.stages.iter());
        }
        let members = self.seat.executors.ready().await;
        let held = self.held(&members, &lineage).await?;
        let partitions = match self.spreading {
            Spreading::ByKey(partitions) | Spreading::Whole(partitions) => partitions,
            Spreading::Nowhere => return Err(Error::internal("a query without state has slots")),
        };
        let kept: Vec<_> = held.iter().map(|(range, owner, _)| (*range, *owner)).collect();
        let assignment = match self.spreading {
            Spreading::ByKey(_) if has_idle(&kept, members.len()) => even(partitions, members.len()),
            Spreading::ByKey(_) => around(&kept, partitions, members.len()),
            _ if kept.is_empty() => vec![(KeyRange::all(partitions), self.home(members.len()))],
            _ => kept,
        };
        let next_of = |range: KeyRange, owner: usize| {
            held.iter().find(|(known, of, _)| (*known, *of) == (range, owner)).map(|(.., next)| *next)
        };
        let slots = assignment.iter().map(|(range, owner)| (*range, *owner, next_of(*range, *owner)));
        let slots: Vec<(KeyRange, usize, Option<Epoch>)> = slots.collect();
        self.assign(&members, &slots, &lineage).await?;
        let lost = slots.iter().filter(|(.., next)| next.is_none()).count();
        tracing::info!(query, term, slots = slots.len(), begun = lost, executors = members.len(), "slots assigned");
        self.slots = slots
            .into_iter()
            .filter_map(|(range, owner, next)| {
                let owner = members.get(owner)?.clone();
                Some(OwnedSlot { range, owner, next: next.unwrap_or(lineage.first), receipt: None })
            })
            .collect();
        (self.next, self.mapped, self.seen) = (lineage.first, None, members);
        Ok(())
    }

    /// Begins the term at every executor; the slots there that go on from somewhere in the lineage, each with the
    /// number of its executor.
    async fn held(&self, members: &[Member], lineage: &Lineage) -> Result<Vec<(KeyRange, usize, Epoch)>> {
        let request = Request::Hold(self.reign.clone());
        let asked = join_all(members.iter().map(|member| self.ask(member, &request))).await;
        let mut held: Vec<(KeyRange, usize, Epoch)> = Vec::new();
        for (number, reply) in asked.into_iter().enumerate() {
            let Reply::Held(slots) = reply? else { return Err(Error::internal("an executor says not what it holds")) };
            let of_use = slots.into_iter().filter(|slot| self.is_of_use(slot, lineage));
            held.extend(of_use.map(|slot| (slot.range, number, slot.next)));
        }
        // Of two that hold the same, which can be if one was thought lost, one is enough.
        held.sort_unstable();
        held.dedup_by_key(|(range, ..)| *range);
        Ok(held)
    }

    /// Whether a slot that is held can go on. Those of views are not: what they have counted is nowhere else.
    fn is_of_use(&self, slot: &HeldSlot, lineage: &Lineage) -> bool {
        let reaches = lineage.first <= slot.next && slot.next <= lineage.end;
        reaches && slot.program == self.seat.program && !self.plan.has_views()
    }

    /// The number of the executor of a query that is in one piece: another one for another query.
    fn home(&self, members: usize) -> usize {
        let hash = xxhash_rust::xxh3::xxh3_64(self.reign.query.as_bytes());
        usize::try_from(hash % members.max(1) as u64).unwrap_or_default()
    }

    async fn assign(
        &self,
        members: &[Member],
        slots: &[(KeyRange, usize, Option<Epoch>)],
        lineage: &Lineage,
    ) -> Result<()> {
        let contracts: Vec<String> = self.plan.contracts()?.into_iter().map(|(contract, _)| contract).collect();
        let store = self.seat.store.as_ref().map(|(place, durability)| StoreAccess {
            place: place.to_string(),
            folder: lineage.folder.clone(),
            durability: *durability,
        });
        let asked = members.iter().enumerate().map(async |(number, member)| {
            let own = || slots.iter().filter(|(_, owner, _)| *owner == number);
            let keep = own().filter(|(.., next)| next.is_some()).map(|(range, ..)| *range).collect();
            let begin: Vec<_> = own().filter(|(.., next)| next.is_none()).map(|(range, ..)| *range).collect();
            let from = lineage.saved.clone().filter(|_| !begin.is_empty());
            let assign = Assign {
                reign: self.reign.clone(),
                program: self.seat.program.clone(),
                contracts: contracts.clone(),
                store: store.clone(),
                keep,
                begin,
                next: lineage.first,
                from,
            };
            match own().next() {
                Some(_) => self.ask(member, &Request::Assign(Box::new(assign))).await,
                // It may have held slots.
                None => self.ask(member, &Request::Release(self.reign.clone())).await,
            }
        });
        try_join_all(asked).await.map(drop)
    }

    async fn ask(&self, member: &Member, request: &Request) -> Result<Reply> {
        ask(self.seat.executors.as_ref(), member, request).await
    }

    /// Maps the rows of a micro-batch; gives those that were too late.
    pub(crate) async fn update(&mut self, units: &[Vec<Unit>]) -> Result<Vec<LateRows>> {
        let (delta, late) = self.plan.map(units).await?;
        self.plan.count(&delta);
        self.mapped = Some(delta);
        Ok(late)
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

    async fn exchange(&mut self, watermark: Watermark, last: Epoch, gives: bool) -> Result<Vec<Emitted>> {
        let delta = self.mapped.take().unwrap_or_default();
        let first = self.next;
        // What a slot has taken in before it is not sent, unless it is to give its results again.
        let takes = |slot: &OwnedSlot| gives || slot.next <= last;
        let mut owners: BTreeMap<&Member, Vec<usize>> = BTreeMap::new();
        for (number, slot) in self.slots.iter().enumerate().filter(|(_, slot)| takes(slot)) {
            owners.entry(&slot.owner).or_default().push(number);
        }
        let mut frames = self.frames_of(delta, last)?;
        let (mut tasks, mut numbers) = (Vec::new(), Vec::new());
        for (member, slots) in owners {
            let own: Vec<Frame> = slots
                .iter()
                .enumerate()
                .flat_map(|(place, slot)| frames.get_mut(*slot).map(|deltas| deltas.framed(place)).unwrap_or_default())
                .collect::<Result<_>>()?;
            let ranges = slots.iter().filter_map(|slot| Some(self.slots.get(*slot)?.range)).collect();
            let spec = ApplySpec {
                reign: self.reign.clone(),
                first,
                last,
                watermark,
                gives,
                slots: ranges,
                frames: own.len(),
            };
            tasks.push(Task { member: member.clone(), spec: to_json(&spec)?.into(), frames: own });
            numbers.push(slots);
        }
        let answers = if tasks.is_empty() { Vec::new() } else { self.seat.executors.exchange(tasks).await? };
        let results = self.take_in(&numbers, answers)?;
        self.next = last.next();
        Ok(results)
    }

    /// The deltas for each slot.
    fn frames_of(&self, delta: StageDelta, last: Epoch) -> Result<Vec<SlotDeltas>> {
        let mut of_slots: Vec<SlotDeltas> = self.slots.iter().map(|_| SlotDeltas::default()).collect();
        let ranges: Vec<KeyRange> = self.slots.iter().map(|slot| slot.range).collect();
        let wanted: Vec<bool> = self.slots.iter().map(|slot| slot.next <= last).collect();
        let (key_columns, partitions) = (self.plan.key_columns(), self.plan.key_partitions());
        let split = |rows: RecordBatch| -> Result<Vec<(usize, RecordBatch)>> {
            if ranges.len() == 1 {
                return Ok(vec![(0, rows)]);
            }
            by_slot(&rows, key_columns, partitions, &ranges)
        };
        distribute(delta, &mut Vec::new(), &split, &mut of_slots)?;
        for (deltas, wanted) in of_slots.iter_mut().zip(wanted) {
            if !wanted {
                deltas.0.clear();
            }
        }
        Ok(of_slots)
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
        let evaluated = self.slots.iter().map(|slot| slot.receipt.as_ref().map(|receipt| receipt.evaluated));
        evaluated.min().flatten().unwrap_or(EventTime(i64::MIN))
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

    /// Why its slots should lie elsewhere, if they should: an executor has come, or wants to leave.
    pub(crate) fn misplaced(&self) -> Option<String> {
        let live = self.seat.executors.live();
        let owns = |member: &Member| self.slots.iter().any(|slot| slot.owner == *member);
        let leaving = self.slots.iter().find(|slot| !live.contains(&slot.owner));
        if let Some(slot) = leaving.filter(|_| !live.is_empty()) {
            return Some(format!("{} leaves", slot.owner));
        }
        let idle = live.iter().find(|member| !owns(member));
        idle.filter(|_| matches!(self.spreading, Spreading::ByKey(_))).map(|idle| format!("{idle} has come"))
    }

    /// Completes once its slots should lie elsewhere, and it was not known before.
    pub(crate) async fn moved(&mut self) {
        loop {
            self.seat.executors.changed(&self.seen).await;
            self.seen = self.seat.executors.live();
            if self.misplaced().is_some() {
                return;
            }
        }
    }

    /// The next image is to have every entry.
    pub(crate) const fn forget_images(&mut self) {
        self.wants_everything = true;
    }

    /// Has every slot take an image of the state before `epoch`; what writes them, to be awaited away from the epochs.
    pub(crate) async fn image(
        &mut self,
        epoch: Epoch,
    ) -> Result<impl Future<Output = Result<Saved>> + Send + 'static + use<>> {
        let mut owners: Vec<Member> = self.slots.iter().map(|slot| slot.owner.clone()).collect();
        owners.sort_unstable();
        owners.dedup();
        let (reign, everything) = (self.reign.clone(), self.wants_everything);
        let image = Request::Image { reign: reign.clone(), epoch, everything };
        try_join_all(owners.iter().map(|owner| self.ask(owner, &image))).await?;
        self.wants_everything = false;
        let (executors, counted) = (Arc::clone(&self.seat.executors), self.plan.counts_by_stage());
        Ok(async move {
            let request = Request::Write { reign, epoch };
            let asked = owners.iter().map(|owner| ask(executors.as_ref(), owner, &request));
            let mut slots = Vec::new();
            for reply in try_join_all(asked).await? {
                let Reply::Written(written) = reply else {
                    return Err(Error::internal("an executor says not what it has written"));
                };
                slots.extend(written);
            }
            let mut saved = united(slots);
            for (stage, counts) in saved.stages.iter_mut().zip(counted) {
                stage.leaves.iter_mut().zip(counts).for_each(|(leaf, counts)| leaf.counts.add(&counts));
            }
            Ok(saved)
        })
    }

    /// Has its executors forget it.
    pub(crate) async fn release(&self) {
        let request = Request::Release(self.reign.clone());
        let members = self.seat.executors.live();
        for ended in join_all(members.iter().map(|member| self.ask(member, &request))).await {
            if let Err(error) = ended {
                tracing::debug!(%error, query = self.reign.query, "an executor was not told that a query has ended");
            }
        }
    }
}

async fn ask(executors: &dyn Executors, member: &Member, request: &Request) -> Result<Reply> {
    match from_json(&executors.call(member, to_json(request)?.into()).await?)? {
        Reply::Failed(error) => Err(error.into()),
        reply => Ok(reply),
    }
}

/// Whether slots that are held leave an executor without any.
fn has_idle(held: &[(KeyRange, usize)], members: usize) -> bool {
    !held.is_empty() && (0..members).any(|member| held.iter().all(|(_, owner)| *owner != member))
}

/// Deltas on their way to a slot, by the way to their stage and their leaf.
#[derive(Debug, Default)]
struct SlotDeltas(BTreeMap<(Vec<usize>, usize), LeafRows>);

/// The panes of a leaf's delta, if it has such, and the rows of each.
#[derive(Debug)]
struct LeafRows {
    has_panes: bool,
    parts: Vec<(PaneTag, Option<RecordBatch>)>,
}

impl SlotDeltas {
    fn add(&mut self, place: (Vec<usize>, usize), pair: PaneTag, has_panes: bool, rows: Option<RecordBatch>) {
        let leaf = self.0.entry(place).or_insert_with(|| LeafRows { has_panes, parts: Vec::new() });
        leaf.parts.push((pair, rows));
    }

    /// As frames for the slot with this number among those of its task.
    fn framed(&mut self, slot: usize) -> Vec<Result<Frame>> {
        let leaves = std::mem::take(&mut self.0).into_iter();
        leaves.flat_map(|((path, leaf), rows)| rows.framed(slot, &path, leaf)).collect()
    }
}

impl LeafRows {
    fn framed(self, slot: usize, path: &[usize], leaf: usize) -> Vec<Result<Frame>> {
        let mut frames = Vec::new();
        let head = |panes: Vec<(i64, i64, usize)>| DeltaHead {
            slot,
            path: path.to_vec(),
            leaf,
            panes: self.has_panes.then_some(panes),
        };
        // Small parts go together: a frame costs as much as some hundred rows.
        let mut together: Vec<(PaneTag, Option<RecordBatch>)> = Vec::new();
        let mut bytes = 0;
        let mut parts = self.parts.iter().cloned().peekable();
        while let Some((pair, rows)) = parts.next() {
            bytes += rows.as_ref().map_or(0, RecordBatch::get_array_memory_size);
            together.push((pair, rows));
            if bytes >= super::LARGEST_BODY || parts.peek().is_none() {
                frames.extend(frames_together(&std::mem::take(&mut together), &head));
                bytes = 0;
            }
        }
        frames
    }
}

/// Parts in as few frames as they fit into.
fn frames_together(
    parts: &[(PaneTag, Option<RecordBatch>)],
    head: &impl Fn(Vec<(i64, i64, usize)>) -> DeltaHead,
) -> Vec<Result<Frame>> {
    let framed = || -> Result<Vec<Frame>> {
        let pane = |(pane, tag): &PaneTag, rows: usize| (pane.0, tag.0, rows);
        if let [(pair, Some(rows))] = parts {
            let parts = in_parts(rows)?.into_iter();
            return parts.map(|part| Frame::of(DELTA, &head(vec![pane(pair, part.num_rows())]), Some(&part))).collect();
        }
        let batches: Vec<RecordBatch> = parts.iter().filter_map(|(_, rows)| rows.clone()).collect();
        let rows = match batches.first() {
            Some(first) => Some(concat_rows(&first.schema(), &batches)?),
            None => None,
        };
        let panes = parts.iter().map(|(pair, rows)| pane(pair, rows.as_ref().map_or(0, RecordBatch::num_rows)));
        Ok(vec![Frame::of(DELTA, &head(panes.collect()), rows.as_ref())?])
    };
    match framed() {
        Ok(frames) => frames.into_iter().map(Ok).collect(),
        Err(error) => vec![Err(error)],
    }
}

/// A result's rows for each slot that has some of them.
type Split<'a> = dyn Fn(RecordBatch) -> Result<Vec<(usize, RecordBatch)>> + 'a;

/// Sends what is added to a stage and its views to the slots.
fn distribute(delta: StageDelta, path: &mut Vec<usize>, split: &Split<'_>, slots: &mut [SlotDeltas]) -> Result<()> {
    for (leaf, LeafDelta { added, .. }) in delta.leaves.into_iter().enumerate() {
        let mut add = |slot: usize, pair: PaneTag, has_panes: bool, rows: Option<RecordBatch>| {
            if let Some(deltas) = slots.get_mut(slot) {
                deltas.add((path.clone(), leaf), pair, has_panes, rows);
            }
        };
        match added {
            Added::Nothing => {}
            Added::Panes(panes) => {
                for (pair, batches) in panes {
                    if batches.is_empty() {
                        // A window with rows that were all filtered out matters only where there is one slot.
                        add(0, pair, true, None);
                    }
                    for batch in batches {
                        split(batch)?.into_iter().for_each(|(slot, rows)| add(slot, pair, true, Some(rows)));
                    }
                }
            }
            Added::Rows(batches) => {
                let pair = (crate::window::Pane(0), EventTime(0));
                for batch in batches {
                    split(batch)?.into_iter().for_each(|(slot, rows)| add(slot, pair, false, Some(rows)));
                }
            }
        }
    }
    for (number, view) in delta.views.into_iter().enumerate() {
        path.push(number);
        distribute(view, path, split, slots)?;
        path.pop();
    }
    Ok(())
}

/// The rows of each slot, by the key partition of their first columns.
fn by_slot(
    rows: &RecordBatch,
    key_columns: usize,
    partitions: u32,
    ranges: &[KeyRange],
) -> Result<Vec<(usize, RecordBatch)>> {
    let keys: Vec<_> = rows.columns().iter().take(key_columns).cloned().collect();
    let mut of_slots: Vec<Vec<u32>> = vec![Vec::new(); ranges.len()];
    for (row, partition) in (0..).zip(key_partitions_of(&keys, rows.num_rows(), partitions)?) {
        let slot = slot_of(ranges, partition).and_then(|slot| of_slots.get_mut(slot));
        slot.ok_or_else(|| Error::internal(format!("no slot has key partition {partition}")))?.push(row);
    }
    let of_slots = of_slots.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty());
    of_slots.map(|(slot, indices)| Ok((slot, take_rows(rows, &UInt32Array::from(indices))?))).collect()
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
