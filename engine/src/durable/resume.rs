//! Queries that go on from a state directory, and the ingestion they share.
//!
//! Queries that read a stream together have seen prefixes of one log. After a restart they read it together again if
//! what they logged of it fits: where both know a record it is the same one. Otherwise each reads on its own.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::directory::StateDirectory;
use super::files::Durability;
use super::index::{DurableIndex, SharedIndex};
use super::query_store::{QueryStore, Recovered};
use super::wal::SharedWal;
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
    indexes: BTreeMap<String, Arc<DurableIndex>>,
    wals: BTreeMap<String, SharedWal>,
}

impl PlannedQuery {
    /// Opens what `directory` keeps under the name of the query, or begins to keep it.
    ///
    /// # Errors
    /// Fails if the kept state does not fit the query, is damaged, or another process has it.
    pub fn keep_in(self, directory: &StateDirectory, policy: CheckpointPolicy) -> Result<DurableQuery> {
        let contracts = self.stage.contracts()?;
        let (store, recovered) =
            QueryStore::open(directory, &self.options.name, &contracts, &self.options.state_memory)?;
        let mut indexes = BTreeMap::new();
        for stream in &self.streams {
            indexes.insert(stream.name.clone(), Arc::new(store.index(&stream.name)?));
        }
        Ok(DurableQuery { planned: self, store, recovered, policy, indexes, wals: BTreeMap::new() })
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
        let is_new = self.recovered.stages.is_none() && self.recovered.epochs.is_empty();
        (!is_new).then_some(self.recovered.epochs.len() as u64)
    }

    /// Whether it had read all of its streams to their ends, so that nothing is left to do.
    pub fn has_ended(&self) -> bool {
        let is_over = |(index, stream): (usize, &Arc<StreamDefinition>)| match self.events(index).last() {
            Some(event) => *event == LoggedEvent::Closed,
            None => self.place(&stream.name).progress.is_some_and(|progress| progress.is_over()),
        };
        self.lineage().is_some() && self.planned.streams.iter().enumerate().all(is_over)
    }

    /// The first epoch that is not committed yet.
    pub fn next_epoch(&self) -> u64 {
        let committed = self.recovered.epochs.iter().filter(|epoch| epoch.commit.is_some()).count() as u64;
        self.recovered.epoch.0 + committed
    }

    fn place(&self, stream: &str) -> LogPlace {
        self.recovered.places.get(stream).cloned().unwrap_or_default()
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
        for (stream, ingest) in self.planned.streams.iter().zip(&ingests) {
            if ingest.definition().name != stream.name {
                return Err(Error::internal(format!("stream {} got another one's ingest", stream.name)));
            }
            let mut place = self.place(&stream.name);
            if let (None, Some(wal)) = (&place.progress, self.wals.get(&stream.name)) {
                // A query that is new to a log begins with the oldest record there is, or with the next one if a
                // part of the log is gone.
                place.seq = if wal.first() == 0 { 0 } else { wal.next().max(place.seq) };
            }
            streams.push((Arc::clone(ingest), place));
        }
        for (name, wal) in &self.wals {
            wal.hold(&self.store.id, self.store.needed_from(name).unwrap_or(0).max(wal.first()));
        }
        let mut driver = Driver::new(self.planned.stage, streams, self.planned.options);
        driver.keeper = Some(Keeper::new(self.store, self.recovered, self.wals, self.policy));
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
    let mut groups: Vec<Group> = Vec::new();
    for (number, query) in queries.iter_mut().enumerate() {
        for (index, stream) in query.planned.streams.clone().iter().enumerate() {
            let member = (number, index);
            let own = Group {
                stream: Arc::clone(stream),
                place: query.place(&stream.name),
                events: query.events(index),
                indexes: query.indexes.get(&stream.name).cloned().into_iter().collect(),
                members: vec![member],
            };
            groups.push(own);
        }
    }
    groups.sort_by_key(|group| group.place.seq);
    let mut made: Vec<(Group, Ingest, Option<SharedWal>)> = Vec::new();
    for group in groups {
        let joined = made
            .iter_mut()
            .find(|(known, _, wal)| known.stream.name == group.stream.name && (wal.is_some() || known.fits(&group)));
        match joined {
            Some((known, _, _)) => known.join(group),
            None => {
                let ingest = make(&group.stream)?;
                let wal = match ingest.is_replayable() {
                    true => None,
                    false => {
                        let contract = stream_contract(&group.stream);
                        Some(directory.wal(&group.stream.name, &contract, wal_durability(&group.stream)?)?)
                    }
                };
                made.push((group, ingest, wal));
            }
        }
    }
    let mut ingests: Vec<Vec<Option<Arc<Ingest>>>> =
        queries.iter().map(|query| vec![None; query.planned.streams.len()]).collect();
    for (group, ingest, wal) in made {
        if let Some(wal) = &wal {
            wal.check_reaches(group.end())?;
        }
        let index = SharedIndex(group.indexes);
        index.level()?;
        if let Some(wal) = &wal {
            for (number, _) in &group.members {
                if let Some(query) = queries.get_mut(*number) {
                    query.wals.insert(group.stream.name.clone(), wal.clone());
                }
            }
            // Marks the query as a reader of the log, also for runs in which it does not take part.
            if index.notes().is_empty() {
                index.push("write-ahead log")?;
            }
        }
        let index: Arc<dyn InputIndex> = Arc::new(index);
        let resume = Resume { place: group.place, replay: group.events, index: Some(index), wal };
        let ingest = Arc::new(ingest.resume(resume));
        for (number, position) in group.members {
            if let Some(slot) = ingests.get_mut(number).and_then(|slots| slots.get_mut(position)) {
                *slot = Some(Arc::clone(&ingest));
            }
        }
    }
    Ok(ingests.into_iter().map(|slots| slots.into_iter().flatten().collect()).collect())
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
    /// Query number and index of the stream in it.
    members: Vec<(usize, usize)>,
}

impl Group {
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
