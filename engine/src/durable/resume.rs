//! Queries that go on from a state directory, and the ingestion they share.
//!
//! Queries that read a stream together have seen prefixes of one log. After a restart they read it together again if
//! what they logged of it fits: where both know a record it is the same one. Otherwise each reads on its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::contract::Misfit;
use super::directory::StateDirectory;
use super::files::Durability;
use super::index::{DurableIndex, SharedIndex};
use super::query_store::{Expected, QueryStore, Recovered};
use super::wal::{Need, SharedWal};
use crate::cluster::Stages;
use crate::driver::Driver;
use crate::error::{Error, Result};
use crate::executor::stream_contract;
use crate::ingest::{Ingest, LogPlace, LoggedEvent, Resume};
use crate::keeper::{CheckpointPolicy, Keeper};
use crate::plan::{StreamDefinition, StreamDurability};
use crate::query::{PlannedQuery, Query};
use crate::source::{InputIndex, Offset};

/// A query with what earlier runs left of it.
#[derive(Debug)]
pub struct DurableQuery {
    planned: PlannedQuery,
    store: QueryStore,
    recovered: Recovered,
    policy: CheckpointPolicy,
    /// Where it begins in the log of each of its streams, in their order.
    places: Vec<LogPlace>,
    indexes: BTreeMap<String, Arc<DurableIndex>>,
    wals: BTreeMap<String, SharedWal>,
}

impl PlannedQuery {
    /// Opens what `directory` keeps under the name of the query, or begins to keep it.
    ///
    /// # Errors
    /// Fails if the kept state does not fit the query and `misfit` does not let it go, if it is damaged, or another
    /// process has it.
    pub fn keep_in(
        mut self,
        directory: &StateDirectory,
        policy: CheckpointPolicy,
        misfit: Misfit,
    ) -> Result<DurableQuery> {
        let expected = Expected {
            name: &self.options.name,
            contracts: self.stage.contracts()?,
            streams: &self.streams,
            memory: &self.options.state_memory,
            is_spread: self.seat.is_some(),
            empty: if misfit == Misfit::Drop { Some(self.stage.images()?) } else { None },
        };
        let (store, recovered) = QueryStore::open(directory, &expected)?;
        let mut indexes = BTreeMap::new();
        for stream in &self.streams {
            indexes.insert(stream.name.clone(), Arc::new(store.index(&stream.name)?));
        }
        let places = self.streams.iter().enumerate().map(|(index, stream)| recovered.place(index, &stream.name));
        let places = places.collect();
        Ok(DurableQuery { planned: self, store, recovered, policy, places, indexes, wals: BTreeMap::new() })
    }
}

impl Recovered {
    /// Where the query is in the log of its stream with this index and name.
    fn place(&self, index: usize, stream: &str) -> LogPlace {
        if let Some(place) = self.places.get(stream) {
            return place.clone();
        }
        let first = self.epochs.first().and_then(|epoch| epoch.intent.streams.get(index));
        LogPlace { seq: first.map_or(0, |records| records.from), ..LogPlace::default() }
    }
}

impl DurableQuery {
    /// The streams it reads.
    pub fn streams(&self) -> &[Arc<StreamDefinition>] {
        self.planned.streams()
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.store.name
    }

    /// Whether an earlier run left something, and how many epochs have to be replayed.
    pub fn lineage(&self) -> Option<u64> {
        let is_new = self.recovered.saved.is_none() && self.recovered.epochs.is_empty();
        (!is_new).then_some(self.recovered.epochs.len() as u64)
    }

    /// Whether it had read all of its streams to their ends, so that nothing is left to do.
    pub fn has_ended(&self) -> bool {
        let is_over = |index| match self.events(index).last() {
            Some(event) => *event == LoggedEvent::Closed,
            None => self.place(index).progress.is_some_and(|progress| progress.is_over()),
        };
        let mut streams = self.planned.streams.iter().enumerate().filter(|(_, stream)| stream.refresh.is_none());
        self.lineage().is_some() && streams.all(|(index, _)| is_over(index))
    }

    /// The first epoch that is not committed yet.
    pub fn next_epoch(&self) -> u64 {
        let committed = self.recovered.epochs.iter().filter(|epoch| epoch.commit.is_some()).count() as u64;
        self.recovered.epoch.0 + committed
    }

    fn place(&self, index: usize) -> LogPlace {
        self.places.get(index).cloned().unwrap_or_default()
    }

    /// The records of its stream with this index that it knows, from its place on.
    fn events(&self, index: usize) -> Vec<LoggedEvent> {
        let epochs = self.recovered.epochs.iter();
        epochs.filter_map(|epoch| epoch.intent.streams.get(index)).flat_map(|records| records.events.clone()).collect()
    }

    /// Takes its places in the logs of its streams, in their order.
    ///
    /// # Errors
    /// Fails if the ingests are not those of [`DurableQuery::streams`].
    pub fn start(self, ingests: Vec<Arc<Ingest>>) -> Result<Query> {
        let mut streams = Vec::new();
        for ((stream, ingest), place) in self.planned.streams.iter().zip(&ingests).zip(&self.places) {
            if ingest.definition().name != stream.name {
                return Err(Error::internal(format!("stream {} got another one's ingest", stream.name)));
            }
            streams.push((Arc::clone(ingest), place.clone()));
        }
        for (index, stream) in self.planned.streams.iter().enumerate() {
            let Some(wal) = self.wals.get(&stream.name) else { continue };
            let from = match self.store.reached(&stream.name) {
                // What it may fall back to is more than a log has room for.
                Some(reached) if wal.is_full() => reached,
                Some(_) => self.store.needed_from(&stream.name).unwrap_or(0).max(wal.first()),
                None if wal.is_full() => self.place(index).seq,
                // Records before its own decide which of those are late.
                None => wal.first(),
            };
            wal.hold(&self.store.id, Need { name: self.store.name.clone(), from, is_running: true });
        }
        let begins_midway = self.recovered.saved.is_none() && self.places.iter().any(|place| place.seq > 0);
        let stage = Stages::new(self.planned.stage, self.planned.seat);
        let mut driver = Driver::new(stage, streams, self.planned.versions, self.planned.options);
        driver.late_sink = self.planned.late_sink;
        let mut keeper = Keeper::new(self.store, self.recovered, self.wals, self.policy);
        if begins_midway {
            keeper.want_checkpoint();
        }
        driver.keeper = Some(keeper);
        Ok(Query::over(driver))
    }
}

/// Makes the ingests that `queries` need, for each query in the order of its streams; `make` opens a stream.
///
/// # Errors
/// Fails as `make` does, and if a log is damaged.
pub fn resume_streams(
    queries: &mut [DurableQuery],
    directory: &StateDirectory,
    mut make: impl FnMut(&Arc<StreamDefinition>) -> Result<Ingest>,
) -> Result<Vec<Vec<Arc<Ingest>>>> {
    let mut spare: BTreeMap<String, Ingest> = BTreeMap::new();
    for query in queries.iter_mut() {
        for stream in query.planned.streams.clone() {
            if !spare.contains_key(&stream.name) {
                spare.insert(stream.name.clone(), make(&stream)?);
            }
            if !spare.get(&stream.name).is_some_and(Ingest::is_replayable) {
                query.follow_log(&stream, directory)?;
            }
        }
    }
    let mut made: Vec<(Group, Ingest)> = Vec::new();
    for group in groups_of(queries) {
        match made.iter_mut().find(|(known, _)| known.takes(&group)) {
            Some((known, _)) => known.join(group),
            None => {
                let ingest = match spare.remove(&group.stream.name) {
                    Some(ingest) => ingest,
                    None => make(&group.stream)?,
                };
                made.push((group, ingest));
            }
        }
    }
    let mut ingests: Vec<Vec<Option<Arc<Ingest>>>> =
        queries.iter().map(|query| vec![None; query.planned.streams.len()]).collect();
    for (mut group, ingest) in made {
        let index = SharedIndex(group.indexes);
        index.level()?;
        if let Some(wal) = &group.wal {
            // Marks the query as a reader of the log, also for runs in which it does not take part.
            if !index.notes().contains(&wal.note()) {
                index.push(&wal.note())?;
            }
            if group.place.progress.is_none() {
                // Offsets and watermarks go on behind those of all records that there are.
                group.place = LogPlace { seq: wal.first(), ..LogPlace::default() };
            }
        }
        let index: Arc<dyn InputIndex> = Arc::new(index);
        let resume = Resume { place: group.place, replay: group.events, index: Some(index), wal: group.wal };
        let ingest = Arc::new(ingest.resume(resume));
        for (number, position) in group.members {
            if let Some(slot) = ingests.get_mut(number).and_then(|slots| slots.get_mut(position)) {
                *slot = Some(Arc::clone(&ingest));
            }
        }
    }
    Ok(ingests.into_iter().map(|slots| slots.into_iter().flatten().collect()).collect())
}

impl DurableQuery {
    /// Finds the query's place in the write-ahead log of a stream.
    fn follow_log(&mut self, stream: &Arc<StreamDefinition>, directory: &StateDirectory) -> Result<()> {
        let wal = directory.wal(&stream.name, &stream_contract(stream), wal_durability(stream)?)?;
        let Some(index) = self.planned.streams.iter().position(|known| known.name == stream.name) else {
            return Ok(());
        };
        wal.check_reaches(self.place(index).seq + self.events(index).len() as u64)?;
        let is_new = self.recovered.epochs.is_empty() && !self.recovered.places.contains_key(&stream.name);
        if let (true, Some(place)) = (is_new, self.places.get_mut(index)) {
            // A query that is new to a log begins with the oldest record there is, or with the next one if a part of
            // the log is gone.
            place.seq = if wal.first() == 0 { 0 } else { wal.next() };
        }
        self.wals.insert(stream.name.clone(), wal);
        Ok(())
    }
}

/// What the write-ahead log of a stream survives, if that is not what the directory does.
fn wal_durability(stream: &StreamDefinition) -> Result<Option<Durability>> {
    match stream.durability {
        None => Ok(None),
        Some(StreamDurability::PowerLoss) => Ok(Some(Durability::PowerLoss)),
        Some(StreamDurability::ProcessCrash) => Ok(Some(Durability::ProcessCrash)),
        Some(StreamDurability::None) => Err(Error::internal(format!("stream {} keeps nothing", stream.name))),
    }
}

/// Queries that read a stream together, and what they know of its log.
#[derive(Debug)]
struct Group {
    stream: Arc<StreamDefinition>,
    place: LogPlace,
    events: Vec<LoggedEvent>,
    indexes: Vec<Arc<DurableIndex>>,
    /// The log with the records, if they cannot be read again.
    wal: Option<SharedWal>,
    /// Query number and index of the stream in it.
    members: Vec<(usize, usize)>,
}

/// Every query's every stream in the order of their places, of equal ones those first that know their watermarks.
fn groups_of(queries: &[DurableQuery]) -> Vec<Group> {
    let mut groups = Vec::new();
    for (number, query) in queries.iter().enumerate() {
        for (index, stream) in query.planned.streams.iter().enumerate() {
            groups.push(Group {
                stream: Arc::clone(stream),
                place: query.place(index),
                events: query.events(index),
                indexes: query.indexes.get(&stream.name).cloned().into_iter().collect(),
                wal: query.wals.get(&stream.name).cloned(),
                members: vec![(number, index)],
            });
        }
    }
    groups.sort_by_key(|group| (group.place.seq, group.place.progress.is_none()));
    groups
}

impl Group {
    /// Whether another one can read together with it: the same log, in memory or on the disk.
    fn takes(&self, other: &Self) -> bool {
        self.stream.name == other.stream.name && (self.wal.is_some() || self.fits(other))
    }

    fn end(&self) -> u64 {
        self.place.seq + self.events.len() as u64
    }

    /// Whether another one, which does not begin earlier, knows the same log.
    fn fits(&self, other: &Self) -> bool {
        let Ok(skip) = usize::try_from(other.place.seq.saturating_sub(self.place.seq)) else { return false };
        let (Some(passed), Some(common)) = (self.events.get(..skip), self.events.get(skip..)) else { return false };
        other.place.seq <= self.end()
            && trimmed(&offsets_after(&self.place.offsets, passed)) == trimmed(&other.place.offsets)
            && common.iter().zip(&other.events).all(|(ours, theirs)| ours == theirs)
            && (skip > 0 || self.place.progress == other.place.progress)
            && self
                .indexes
                .iter()
                .zip(&other.indexes)
                .all(|(ours, theirs)| ours.notes().iter().zip(&theirs.notes()).all(|(ours, theirs)| ours == theirs))
    }

    fn join(&mut self, other: Self) {
        let known = usize::try_from(self.end().saturating_sub(other.place.seq)).unwrap_or(usize::MAX);
        self.events.extend(other.events.into_iter().skip(known));
        self.indexes.extend(other.indexes);
        self.members.extend(other.members);
    }
}

fn offsets_after(offsets: &[Offset], events: &[LoggedEvent]) -> Vec<Offset> {
    let mut offsets = offsets.to_vec();
    for event in events {
        if let LoggedEvent::Rows { partition, end, .. } = event {
            let index = usize::try_from(partition.0).unwrap_or(usize::MAX);
            if index < usize::from(u16::MAX) {
                offsets.resize(offsets.len().max(index + 1), Offset(0));
            }
            if let Some(offset) = offsets.get_mut(index) {
                *offset = *end;
            }
        }
    }
    offsets
}

/// Offsets without those at the end that nothing has been read from.
fn trimmed(offsets: &[Offset]) -> &[Offset] {
    let length = offsets.iter().rposition(|offset| *offset != Offset(0)).map_or(0, |last| last + 1);
    offsets.get(..length).unwrap_or_default()
}
