//! What an executor holds of one query: its slots, each a stage.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;

use super::frame::{Frame, in_parts};
use super::mapping::KeptParts;
use super::message::{
    ApplySpec, Assign, DELTA, DeltaHead, EMITTED, EmittedHead, HeldSlot, RECEIPT, Receipt, StoreAccess, WrittenSlot,
};
use super::slots::KeyRange;
use crate::batch::Epoch;
use crate::checkpoint::{PaneTag, Saved, StageImage};
use crate::durable::{CheckpointWriter, Files, StatePlace, load_stages};
use crate::error::{Error, Result};
use crate::executor::{Added, Emitted, LeafDelta, Stage, StageDelta};
use crate::time::EventTime;
use crate::window::Pane;

/// The slots of a query.
#[derive(Debug)]
pub(super) struct Owned {
    pub(super) term: u64,
    program: String,
    /// A stage without state, of which slots are made.
    template: Arc<Stage>,
    store: Option<Store>,
    slots: BTreeMap<KeyRange, Slot>,
    /// Images that were taken and not written yet.
    images: Vec<SlotImage>,
    /// The epoch of the last images, until it is known that they were written.
    imaged: Option<Epoch>,
    /// What was made of rows here, until a checkpoint has it.
    kept_parts: Arc<Mutex<KeptParts>>,
}

/// What a slot held before an epoch, as far as the checkpoint before does not have it.
#[derive(Debug)]
struct SlotImage {
    range: KeyRange,
    stages: Vec<StageImage>,
    before: Option<Saved>,
}

/// Where checkpoints go.
#[derive(Debug, Clone)]
struct Store {
    files: Arc<dyn Files>,
    folder: String,
}

#[derive(Debug)]
struct Slot {
    stage: Stage,
    /// The epoch that it takes next.
    next: Epoch,
    /// The term in which the epoch before that was decided: two drivers may decide differently what an epoch is made of,
    /// if the first one dies before it is known.
    decided: u64,
    /// The term in which it was found to be of use.
    term: u64,
    /// What the last epoch gave, to be given again.
    given: Vec<Emitted>,
    /// What the last checkpoint has of it.
    saved: Option<Saved>,
}

/// What a task of an exchange has for each of its slots.
pub(super) type Deltas = Vec<StageDelta>;

impl Owned {
    pub(super) fn new(term: u64, program: String, template: Stage, store: Option<&StoreAccess>) -> Result<Self> {
        let store = store.map(Store::open).transpose()?;
        let template = Arc::new(template);
        Ok(Self {
            term,
            program,
            template,
            store,
            slots: BTreeMap::new(),
            images: Vec::new(),
            imaged: None,
            kept_parts: Arc::default(),
        })
    }

    /// Whether it is of the same query in the same words.
    pub(super) fn is_of(&self, program: &str) -> bool {
        self.program == program
    }

    /// A stage of it without state.
    pub(super) const fn template(&self) -> &Arc<Stage> {
        &self.template
    }

    /// What was made of rows here.
    pub(super) const fn kept_parts(&self) -> &Arc<Mutex<KeptParts>> {
        &self.kept_parts
    }

    /// The contracts of its stages.
    pub(super) fn contracts(&self) -> Result<Vec<(String, Vec<SchemaRef>)>> {
        self.template.contracts()
    }

    /// Begins a term: images of the one before will not be asked for.
    pub(super) fn begin_term(&mut self, term: u64) {
        self.term = term;
        (self.images, self.imaged) = (Vec::new(), None);
        self.slots.values_mut().for_each(Slot::forget_checkpoint);
    }

    /// The slots that it holds.
    pub(super) fn held(&self) -> Vec<HeldSlot> {
        let slots = self.slots.iter();
        let held = |(range, slot): (&KeyRange, &Slot)| HeldSlot {
            range: *range,
            next: slot.next,
            decided: slot.decided,
            term: slot.term,
            program: self.program.clone(),
        };
        slots.map(held).collect()
    }

    /// How many slots there are, and the memory of their state.
    pub(super) fn figures(&self) -> (usize, u64) {
        (self.slots.len(), self.slots.values().map(|slot| slot.stage.counts().state_bytes).sum())
    }

    /// Keeps some slots and begins others, from a checkpoint if there is one.
    pub(super) async fn assign(&mut self, assign: &Assign) -> Result<()> {
        // What is still being written may be of slots that others have now.
        (self.images, self.imaged) = (Vec::new(), None);
        self.slots.retain(|range, _| assign.keep.contains(range));
        for slot in self.slots.values_mut() {
            slot.term = assign.reign.term;
            slot.forget_checkpoint();
        }
        if let Some(missing) = assign.keep.iter().find(|range| !self.slots.contains_key(range)) {
            return Err(Error::lost(format!("slot {missing} is not held")));
        }
        if let Some(store) = &assign.store {
            self.store = Some(Store::open(store)?);
        }
        let all = KeyRange::all(self.template.key_partitions());
        for range in &assign.begin {
            let mut stage = self.template.sibling()?;
            if let Some(saved) = &assign.from {
                let store = self.store.clone().ok_or_else(|| Error::internal("a checkpoint lies nowhere"))?;
                let (contracts, saved) = (self.template.contracts()?, saved.clone());
                let memory = Arc::clone(stage.memory());
                let part = (*range != all).then_some(*range);
                let load = move || load_stages(store.files.as_ref(), &store.folder, &saved, &contracts, &memory, part);
                let loaded = SpawnedTask::spawn_blocking(load).join().await;
                let (images, share) = loaded.map_err(|error| Error::internal(format!("reading ended: {error}")))??;
                drop(share);
                stage.put_back(&mut images.into_iter())?;
                stage.forget_counts();
                stage.count_memory();
                stage.forget_images();
            }
            let (next, decided, term) = (assign.next, assign.decided, assign.reign.term);
            self.slots.insert(*range, Slot { stage, next, decided, term, given: Vec::new(), saved: None });
        }
        Ok(())
    }

    /// Takes the deltas of a task in, and gives results and receipts.
    ///
    /// A slot that fails is held no longer: what it has taken in of the epoch is not known.
    pub(super) async fn apply(&mut self, spec: &ApplySpec, deltas: Deltas) -> Result<Vec<Frame>> {
        // Looked for before any is taken out: those that are held stay.
        if let Some(missing) = spec.slots.iter().find(|range| !self.slots.contains_key(range)) {
            return Err(Error::lost(format!("slot {missing} of query {} is not held", spec.reign.query)));
        }
        let started = Instant::now();
        let slots = spec.slots.iter().zip(deltas);
        let work: Vec<_> =
            slots.filter_map(|(range, delta)| Some((*range, self.slots.remove(range)?, delta))).collect();
        let jobs = work.into_iter().map(|(range, mut slot, delta)| {
            let spec = spec.clone();
            SpawnedTask::spawn(async move {
                let ended = slot.take_in(&spec, delta).await;
                (range, slot, ended)
            })
        });
        let mut ended = Vec::new();
        for job in jobs.collect::<Vec<_>>() {
            let (range, slot, result) =
                job.join().await.map_err(|error| Error::internal(format!("a slot ended early: {error}")))?;
            if result.is_ok() {
                self.slots.insert(range, slot);
            }
            ended.push(result);
        }
        ended.into_iter().collect::<Result<Vec<()>>>()?;
        let mut frames = Vec::new();
        for (number, range) in spec.slots.iter().enumerate() {
            if let Some(slot) = self.slots.get(range) {
                frames.extend(slot.answer(number, spec.gives, started.elapsed())?);
            }
        }
        Ok(frames)
    }

    /// Takes an image of every slot, to be written.
    pub(super) fn image(&mut self, epoch: Epoch, everything: bool) -> Result<()> {
        // What an image has that was not written, the next one has to have.
        let everything = everything || self.imaged.is_some();
        (self.images, self.imaged) = (Vec::new(), Some(epoch));
        for (range, slot) in &mut self.slots {
            if slot.next != epoch {
                return Err(Error::lost(format!("slot {range} is at epoch {} and not {epoch}", slot.next)));
            }
            if everything {
                slot.forget_checkpoint();
            }
            let (stages, before) = (slot.stage.images()?, slot.saved.clone());
            self.images.push(SlotImage { range: *range, stages, before });
        }
        Ok(())
    }

    /// What writes the images that were taken, away from the epochs.
    pub(super) fn writing(
        &mut self,
        epoch: Epoch,
    ) -> Result<impl FnOnce() -> Result<Vec<WrittenSlot>> + Send + 'static> {
        let store = self.store.clone().ok_or_else(|| Error::internal("a checkpoint has no place to go"))?;
        if self.imaged != Some(epoch) {
            return Err(Error::lost(format!("the image of epoch {epoch} is there no more")));
        }
        let term = self.term;
        let images = std::mem::take(&mut self.images);
        Ok(move || {
            let written = images.into_iter().map(|SlotImage { range, stages, before }| {
                let writer =
                    CheckpointWriter::of_slot(Arc::clone(&store.files), store.folder.clone(), term, before, range);
                Ok(WrittenSlot { range, saved: writer.save(epoch, stages)? })
            });
            written.collect()
        })
    }

    /// Notes what was written: panes that do not change need not be written again. If other images were taken meanwhile,
    /// nobody may know of what was written, and it may be removed.
    pub(super) fn note_written(&mut self, epoch: Epoch, written: &[WrittenSlot]) {
        if self.imaged != Some(epoch) {
            return;
        }
        self.imaged = None;
        for WrittenSlot { range, saved } in written {
            if let Some(slot) = self.slots.get_mut(range) {
                slot.saved = Some(saved.clone());
            }
        }
    }
}

impl Store {
    fn open(access: &StoreAccess) -> Result<Self> {
        let place: StatePlace = access.place.parse()?;
        Ok(Self { files: place.share(access.durability)?, folder: access.folder.clone() })
    }
}

impl Slot {
    /// Has the next image have every entry.
    fn forget_checkpoint(&mut self) {
        self.saved = None;
        self.stage.forget_images();
    }

    /// Takes the rows of some epochs in, unless it has.
    async fn take_in(&mut self, spec: &ApplySpec, delta: StageDelta) -> Result<()> {
        if self.next > spec.last {
            return if self.next == spec.last.next() || !spec.gives {
                Ok(())
            } else {
                Err(Error::lost(format!("a slot is at epoch {} and was asked for {}", self.next, spec.last)))
            };
        }
        if self.next != spec.first {
            return Err(Error::lost(format!("a slot is at epoch {} and was given {}", self.next, spec.first)));
        }
        self.given.clear();
        self.stage.absorb(delta, spec.watermark).await?;
        if spec.gives {
            loop {
                let more = self.stage.evaluate(spec.watermark).await?;
                if more.is_empty() {
                    break;
                }
                self.given.extend(more);
            }
        } else {
            self.stage.pass(spec.watermark).await?;
        }
        (self.next, self.decided) = (spec.last.next(), spec.decided);
        Ok(())
    }

    /// The results of its last epoch, if they are wanted, and its receipt.
    fn answer(&self, slot: usize, gives: bool, took: Duration) -> Result<Vec<Frame>> {
        let mut frames = Vec::new();
        let given: &[Emitted] = if gives { &self.given } else { &[] };
        for (number, Emitted { instant, rows }) in given.iter().enumerate() {
            let head = EmittedHead { slot, number, instant: *instant };
            for batch in rows.iter().filter(|batch| batch.num_rows() > 0) {
                for part in in_parts(batch)? {
                    frames.push(Frame::of(EMITTED, &head, Some(&part))?);
                }
            }
        }
        let early = self.stage.early_due().map(|due| due.saturating_duration_since(Instant::now()));
        let receipt = Receipt {
            slot,
            next: self.next,
            results: frames.len(),
            took,
            evaluated: self.stage.evaluated(),
            counts: self.stage.counts(),
            input_bytes: self.stage.inputs().into_iter().map(|input| input.state_bytes).collect(),
            early_in_ms: early.map(|early| u64::try_from(early.as_millis()).unwrap_or(u64::MAX)),
        };
        frames.push(Frame::of(RECEIPT, &receipt, None)?);
        Ok(frames)
    }
}

/// The deltas that frames bring, for each of so many slots: by senders, in whatever order these were heard.
pub(super) fn deltas_of(frames: &[Frame], slots: usize, template: &Stage) -> Result<Deltas> {
    let mut deltas: Deltas = (0..slots).map(|_| template.empty_delta()).collect();
    let frames = frames.iter().filter(|frame| frame.kind == DELTA).map(Frame::read);
    let mut frames = frames.collect::<Result<Vec<(DeltaHead, Option<RecordBatch>)>>>()?;
    frames.sort_by_key(|(head, _)| head.sender);
    for (head, rows) in frames {
        let no_place = || Error::internal("a delta is for no leaf of the query");
        let mut stage = deltas.get_mut(head.slot).ok_or_else(no_place)?;
        for view in &head.path {
            stage = stage.views.get_mut(*view).ok_or_else(no_place)?;
        }
        add_to(stage.leaves.get_mut(head.leaf).ok_or_else(no_place)?, head.panes, rows)?;
    }
    Ok(deltas)
}

fn add_to(leaf: &mut LeafDelta, panes: Option<Vec<(i64, i64, usize)>>, rows: Option<RecordBatch>) -> Result<()> {
    let Some(panes) = panes else {
        let rows = rows.into_iter().collect();
        match &mut leaf.added {
            Added::Rows(known) => known.extend::<Vec<_>>(rows),
            other => *other = Added::Rows(rows),
        }
        return Ok(());
    };
    let mut known: Vec<(PaneTag, Vec<RecordBatch>)> = match std::mem::take(&mut leaf.added) {
        Added::Panes(known) => known,
        _ => Vec::new(),
    };
    let mut at = 0;
    for (pane, tag, count) in panes {
        let part = rows.as_ref().filter(|_| count > 0).map(|rows| rows.slice(at, count));
        at += count;
        known.push(((Pane(pane), EventTime(tag)), part.into_iter().collect()));
    }
    if rows.map_or(0, |rows| rows.num_rows()) != at {
        return Err(Error::internal("a delta has other rows than its panes"));
    }
    leaf.added = Added::Panes(known);
    Ok(())
}
