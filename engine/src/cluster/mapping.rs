//! Mapping where the rows are: what executors make of rows that they hold, for the slots of a query.
//!
//! The rows of an epoch that one executor holds are a part of it. It keeps what it has made of a part until a checkpoint
//! has that: when others lose slots, it sends it again, and only the parts of executors that were lost themselves are
//! read and mapped once more, by those that are left.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use tokio::sync::Mutex as AsyncMutex;

use super::delivery::split;
use super::error::SentError;
use super::frame::{Frame, to_json};
use super::message::{BlockKey, FAILED, MAPPED, MapPart, MapSpec, MappedHead, Mapping, Route, Routing};
use super::owned::Owned;
use super::readers::Readers;
use super::shelf::Shelf;
use super::spread::Spread;
use super::{Member, Sender, Sending};
use crate::batch::Epoch;
use crate::error::{Error, Result};
use crate::executor::{DeltaCounts, Stage, StageDelta, Unit, units_of};
use crate::ingest::{Away, Block};

/// Rows that are mapped together: more than where nothing of what comes of them has to travel, so that less comes.
const UNIT_ROWS: usize = 1 << 17;
/// What an executor keeps of what it has made for one query, in bytes …
const KEPT_BYTES: usize = 128 << 20;
/// … and what an entry of that takes besides its rows.
const ENTRY_BYTES: usize = 512;

/// Rows at executors, each with the number of its stream.
pub(crate) type AwayRows = Vec<(usize, Arc<Away>)>;

/// The rows of an epoch that one executor holds.
#[derive(Debug)]
pub(super) struct AwayPart {
    pub(super) epoch: Epoch,
    holder: Member,
    pub(super) rows: AwayRows,
}

/// Rows by who holds them, as parts of `epoch`; those of an executor that does not map are given to one that does.
pub(super) fn parts_of(rows: AwayRows, epoch: Epoch, mappers: &[Member]) -> Vec<Arc<AwayPart>> {
    let mut parts: BTreeMap<Member, AwayRows> = BTreeMap::new();
    for (number, (stream, rows)) in rows.into_iter().enumerate() {
        let own = &rows.lease.holder;
        let other = mappers.get(number % mappers.len().max(1)).unwrap_or(own);
        let holder = if mappers.contains(own) { own.clone() } else { other.clone() };
        parts.entry(holder).or_default().push((stream, rows));
    }
    parts.into_iter().map(|(holder, rows)| Arc::new(AwayPart { epoch, holder, rows })).collect()
}

impl Spread {
    /// Says which of its streams executors read, who then map their rows.
    pub(crate) fn map_elsewhere(&mut self, streams: Vec<Arc<Readers>>) {
        self.streams = streams;
    }

    /// How many executors map rows.
    pub(crate) const fn mapper_count(&self) -> usize {
        self.mappers.len()
    }

    /// Who sends what is made of parts: who has made it, and of those that are lost whoever is left.
    pub(super) async fn senders(&self, parts: &[Arc<AwayPart>], routes: &[Route], tasks: usize) -> Result<Sending> {
        let mut of_members: BTreeMap<&Member, Vec<MapPart>> = BTreeMap::new();
        for (number, part) in parts.iter().enumerate() {
            let holder = self.mappers.iter().find(|member| **member == part.holder);
            let other = || self.mappers.get(number % self.mappers.len().max(1));
            let member = holder.or_else(other).ok_or_else(|| Error::lost("nobody maps rows"))?;
            for (_, rows) in &part.rows {
                rows.lease.readers.open_at(member).await?;
            }
            let mappings = part.rows.iter().map(|(stream, rows)| Mapping {
                stream: *stream,
                source: rows.lease.readers.id().to_owned(),
                stretch: rows.lease.stretch.clone(),
                without: rows.without.clone(),
            });
            let part = MapPart { epoch: part.epoch, mappings: mappings.collect() };
            of_members.entry(member).or_default().push(part);
        }
        let saved = self.kept.as_ref().map_or(Epoch(0), |kept| kept.first);
        let ranges: Vec<_> = self.slots.iter().map(|slot| slot.range).collect();
        let routing = Routing { reign: self.reign.clone(), saved, ranges, routes: routes.to_vec(), tasks };
        let senders = of_members.into_iter().enumerate().map(|(number, (member, parts))| {
            let spec = MapSpec { number: number + 1, parts };
            Ok(Sender { member: member.clone(), spec: to_json(&spec)?.into() })
        });
        Ok(Sending { routing: to_json(&routing)?.into(), senders: senders.collect::<Result<_>>()? })
    }
}

/// What an executor has made of parts of a query.
#[derive(Debug, Default)]
pub(super) struct KeptParts {
    parts: HashMap<PartKey, (Epoch, StageDelta)>,
    /// The oldest first.
    order: VecDeque<PartKey>,
    bytes: usize,
}

/// The first rows of a part, and how many follow.
type PartKey = (String, BlockKey, usize);

impl KeptParts {
    fn key(part: &MapPart) -> Option<PartKey> {
        let first = part.mappings.first()?;
        Some((first.source.clone(), BlockKey::of(&first.stretch), part.mappings.len()))
    }

    fn get(&self, part: &MapPart) -> Option<StageDelta> {
        self.parts.get(&Self::key(part)?).map(|(_, delta)| delta.clone())
    }

    fn keep(&mut self, part: &MapPart, delta: &StageDelta) {
        let Some(key) = Self::key(part) else { return };
        self.forget(&key);
        self.bytes += delta.bytes() + ENTRY_BYTES;
        self.parts.insert(key.clone(), (part.epoch, delta.clone()));
        self.order.push_back(key);
        while self.bytes > KEPT_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, key: &PartKey) {
        if let Some((_, delta)) = self.parts.remove(key) {
            self.bytes -= delta.bytes() + ENTRY_BYTES;
        }
    }

    /// Forgets what a checkpoint before `epoch` has.
    fn forget_before(&mut self, epoch: Epoch) {
        if self.parts.values().all(|(of, _)| *of >= epoch) {
            return;
        }
        let old: Vec<PartKey> =
            self.parts.iter().filter(|(_, (of, _))| *of < epoch).map(|(key, _)| key.clone()).collect();
        old.iter().for_each(|key| self.forget(key));
        let Self { parts, order, .. } = self;
        order.retain(|key| parts.contains_key(key));
    }
}

/// What parts are to the slots of a query: frames for each task of the exchange.
///
/// # Errors
/// [`Error::Lost`] if a stream is not open here.
pub(super) async fn map_parts(
    routing: &Routing,
    spec: &MapSpec,
    query: &AsyncMutex<Owned>,
    shelf: &Shelf,
) -> Result<Vec<Vec<Frame>>> {
    let started = Instant::now();
    let (plan, kept) = {
        let owned = query.lock().await;
        (Arc::clone(owned.template()), Arc::clone(owned.kept_parts()))
    };
    kept.lock().unwrap_or_else(PoisonError::into_inner).forget_before(routing.saved);
    let mut delta = StageDelta::default();
    for part in &spec.parts {
        let known = kept.lock().unwrap_or_else(PoisonError::into_inner).get(part);
        let of_part = match known {
            Some(known) => known,
            None => {
                let made = map_part(part, &plan, shelf).await?;
                kept.lock().unwrap_or_else(PoisonError::into_inner).keep(part, &made);
                made
            }
        };
        delta.append(of_part);
    }
    framed(routing, spec.number, delta, &plan, started)
}

async fn map_part(part: &MapPart, plan: &Stage, shelf: &Shelf) -> Result<StageDelta> {
    let (delta, late) = plan.map(&units(part, shelf).await?).await?;
    if late.is_empty() { Ok(delta) } else { Err(Error::internal("a row that is not behind is late")) }
}

fn framed(
    routing: &Routing,
    sender: usize,
    delta: StageDelta,
    plan: &Stage,
    started: Instant,
) -> Result<Vec<Vec<Frame>>> {
    let mut counts = Some(DeltaCounts::from(&delta));
    let mut deltas = split(delta, plan, &routing.ranges)?;
    let mut frames: Vec<Vec<Frame>> = (0..routing.tasks).map(|_| Vec::new()).collect();
    for route in &routing.routes {
        if let (Some(of_task), Some(deltas)) = (frames.get_mut(route.task), deltas.get_mut(route.slot)) {
            of_task.extend(deltas.framed(sender, route.place)?);
        }
    }
    for of_task in &mut frames {
        let (frames, took) = (of_task.len(), started.elapsed());
        let head = MappedHead { sender, frames, took, counts: counts.take() };
        of_task.push(Frame::of(MAPPED, &head, None)?);
    }
    Ok(frames)
}

/// What parts that have failed are to every task: none may take the others in.
pub(super) fn failed_parts(routing: &Routing, error: &Error) -> Result<Vec<Vec<Frame>>> {
    let frame = Frame::of(FAILED, &SentError::from(error), None)?;
    Ok((0..routing.tasks).map(|_| vec![frame.clone()]).collect())
}

/// The rows of a part, a list of units for each stream.
async fn units(part: &MapPart, shelf: &Shelf) -> Result<Vec<Vec<Unit>>> {
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    // What is not held any more is decoded on all cores.
    let blocks: Vec<_> = part.mappings.iter().map(|mapping| block_of(mapping, shelf).boxed()).collect();
    let blocks: Vec<(usize, Option<Arc<Block>>)> = stream::iter(blocks).buffered(cores).try_collect().await?;
    let mut of_streams: Vec<Vec<Arc<Block>>> = Vec::new();
    for (stream, block) in blocks {
        if of_streams.len() <= stream {
            of_streams.resize_with(stream + 1, Vec::new);
        }
        if let Some(of_stream) = of_streams.get_mut(stream) {
            of_stream.extend(block);
        }
    }
    Ok(of_streams.into_iter().map(|blocks| units_of(blocks.into_iter(), UNIT_ROWS)).collect())
}

/// Rows to be mapped, with the number of their stream.
async fn block_of(mapping: &Mapping, shelf: &Shelf) -> Result<(usize, Option<Arc<Block>>)> {
    let Mapping { stream, source, stretch, without } = mapping;
    let block = match shelf.block(source, stretch).await? {
        Some(block) if !without.is_empty() => block.without(without)?.map(Arc::new),
        block => block,
    };
    Ok((*stream, block))
}
