//! What is kept of one query: its journal of epochs and its checkpoints.
//!
//! An epoch has two records: the intent, which names its blocks before any work, and the commit, after which its
//! output is there. Both go to one journal, and the commit of an epoch becomes durable together with the intent of the
//! next one: one sync an epoch. A commit that is lost in between costs nothing, because the sink's own ledger knows
//! that the epoch is there.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::datatypes::SchemaRef;
use serde::{Deserialize, Serialize};

use super::checkpoint_files::{
    CheckpointWriter, KEPT_CHECKPOINTS, load_stages, manifest_path, manifest_paths, read_manifests, term_of,
};
use super::contract::Contract;
use super::directory::StateDirectory;
use super::files::Files;
use super::index::DurableIndex;
use super::journal::{Entry, Journal, failed};
use super::record::corrupt;
use super::terms::{begin_term, check_term, taking_over};
use crate::batch::Epoch;
use crate::checkpoint::{Counters, Manifest, Saved, StageImage};
use crate::error::{Error, Result};
use crate::ingest::{LogPlace, LoggedEvent};
use crate::plan::StreamDefinition;
use crate::sink::SinkWriter;
use crate::state::{MemoryShare, StateMemory};
use crate::time::{Clock, EventTime, SystemClock, Watermark};

/// A record of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum EpochRecord {
    Intent(Intent),
    Commit(Commit),
}

/// What an epoch is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intent {
    pub(crate) epoch: Epoch,
    pub(crate) term: u64,
    /// The wall clock when it was decided.
    pub(crate) batch_time: EventTime,
    /// The watermark after its records.
    pub(crate) watermark: Watermark,
    /// Its records of each stream.
    pub(crate) streams: Vec<StreamRecords>,
}

/// Consecutive records of a stream's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamRecords {
    pub(crate) from: u64,
    pub(crate) events: Vec<LoggedEvent>,
}

impl StreamRecords {
    /// The number after the last record.
    pub(crate) fn end(&self) -> u64 {
        self.from + self.events.len() as u64
    }
}

/// That an epoch is in its sink.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Commit {
    pub(crate) epoch: Epoch,
    pub(crate) term: u64,
    /// The last epoch that had rows for the sink, this one or an earlier one.
    pub(crate) sink_epoch: Option<Epoch>,
    /// The last epoch that had rows for the sink of late rows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) late_epoch: Option<Epoch>,
    pub(crate) counters: Counters,
}

/// An epoch to do again: for its state only, or wholly if it was never committed.
#[derive(Debug, Clone)]
pub(crate) struct LoggedEpoch {
    pub(crate) intent: Intent,
    pub(crate) commit: Option<Commit>,
}

/// What an earlier run left.
#[derive(Debug)]
pub(crate) struct Recovered {
    /// The checkpoint to begin with; none at the beginning of the input.
    pub(crate) saved: Option<Saved>,
    /// The term that it was written in.
    pub(crate) saved_in: u64,
    /// Its state, unless executors are to read that.
    pub(crate) stages: Option<Vec<StageImage>>,
    /// Where the streams are at that state, by name.
    pub(crate) places: BTreeMap<String, LogPlace>,
    pub(crate) epoch: Epoch,
    pub(crate) sink_epoch: Option<Epoch>,
    pub(crate) late_epoch: Option<Epoch>,
    pub(crate) counters: Counters,
    /// The epochs since, in order.
    pub(crate) epochs: Vec<LoggedEpoch>,
    /// What the state takes of the memory that queries share, until its stages count it themselves.
    pub(crate) share: Option<MemoryShare>,
}

/// What a query that is opened must be.
#[derive(Debug)]
pub(crate) struct Expected<'a> {
    pub(crate) name: &'a str,
    /// The contract of each stage, views first, and the columns of its leaves' state.
    pub(crate) contracts: Vec<(String, Vec<SchemaRef>)>,
    pub(crate) streams: &'a [Arc<StreamDefinition>],
    /// Whether its state is not read, because executors do.
    pub(crate) is_spread: bool,
    /// What state may take.
    pub(crate) memory: &'a Arc<StateMemory>,
    /// Stages without rows, to go on with where what is kept does not fit; none if the query is refused then.
    pub(crate) empty: Option<Vec<StageImage>>,
}

impl Expected<'_> {
    fn contract(&self) -> Contract {
        Contract::new(self.contracts.iter().map(|(contract, _)| contract.as_str()))
    }

    fn check(&self, kept: &Contract) -> Result<()> {
        self.contract().check(self.name, kept)
    }
}

/// The store of one query.
#[derive(Debug)]
pub(crate) struct QueryStore {
    files: Arc<dyn Files>,
    folder: String,
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) term: u64,
    journal: Journal,
    /// The manifests that are kept, oldest first.
    kept: Vec<Manifest>,
}

impl QueryStore {
    /// Opens what is kept of a query, or begins to keep it, and begins a new term.
    pub(crate) fn open(directory: &StateDirectory, expected: &Expected<'_>) -> Result<(Self, Recovered)> {
        let (files, id) = (directory.files(), directory.query_id(expected.name)?);
        let folder = format!("queries/{id}");
        for part in ["terms", "checkpoints", "state"] {
            let path = format!("{folder}/{part}");
            files.create_folder(&path).map_err(|error| failed(files.as_ref(), &path, error))?;
        }
        // The driver before, if it still runs, stops at its next step: what is read from now on is the last it did.
        let term = begin_term(files.as_ref(), &folder)?;
        taking_over(files.as_ref(), || Self::load(files, &id, term, expected))
    }

    fn load(files: &Arc<dyn Files>, id: &str, term: u64, expected: &Expected<'_>) -> Result<(Self, Recovered)> {
        let (id, folder) = (id.to_owned(), format!("queries/{id}"));
        let needed = oldest_record(files.as_ref(), &folder)?;
        let (journal, records) = Journal::open_from::<EpochRecord>(files, &format!("{folder}/journal"), &id, needed)?;
        let name = expected.name.to_owned();
        let mut store = Self { files: Arc::clone(files), folder, id, name, term, journal, kept: Vec::new() };
        if let Some(empty) = &expected.empty {
            store.drop_misfit(&records, expected, empty)?;
        }
        let recovered = store.recover(records, expected)?;
        Ok((store, recovered))
    }

    /// Puts a checkpoint without rows in the place of the newest one if the query cannot go on with that.
    fn drop_misfit(&self, records: &[Entry<EpochRecord>], expected: &Expected<'_>, empty: &[StageImage]) -> Result<()> {
        let Some((_, Ok(newest))) = read_manifests(self.files.as_ref(), &self.folder)?.pop() else { return Ok(()) };
        let kept = Contract::of(&newest);
        let Err(misfit) = expected.check(&kept) else { return Ok(()) };
        kept.check_streams(&self.name, expected.streams)?;
        if records.iter().any(|record| record.number >= newest.journal) {
            let message = format!(
                "query \"{}\" cannot go on without its state: its earlier version has epochs to finish",
                self.name
            );
            return Err(Error::state(message, "run the earlier version once more and stop it with Ctrl-C"));
        }
        tracing::warn!(
            query = self.name,
            watermark = %newest.watermark,
            "{misfit}\nthe query goes on without it: windows that are open lack the rows that were read before"
        );
        let manifest = Manifest {
            datafusion: datafusion::DATAFUSION_VERSION.to_owned(),
            term: self.term,
            taken_at: SystemClock.now(),
            stages: Vec::new(),
            files: Vec::new(),
            ..newest
        };
        self.checkpoint_writer().write(manifest, empty.to_vec()).map(|_| ())
    }

    /// Who writes to the query's sink.
    pub(crate) fn writer(&self) -> SinkWriter {
        SinkWriter { query: self.id.clone(), term: self.term }
    }

    /// The notes about a stream's input.
    pub(crate) fn index(&self, stream: &str) -> Result<DurableIndex> {
        let folder = format!("{}/inputs/{}", self.folder, file_name(stream));
        DurableIndex::open(&self.files, &folder, &self.id)
    }

    /// Appends the intent of an epoch and makes it durable, and with it the commit before.
    pub(crate) fn log_intent(&mut self, intent: &Intent) -> Result<()> {
        self.check_term()?;
        self.journal.append(&EpochRecord::Intent(intent.clone()))?;
        self.journal.sync()
    }

    /// Appends the commit of an epoch, durable with the next record that is.
    pub(crate) fn log_commit(&mut self, commit: &Commit) -> Result<()> {
        self.journal.append(&EpochRecord::Commit(commit.clone()))
    }

    /// Its folder in the state directory.
    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    /// How long to wait for room on a full disk before trying again.
    pub(crate) fn room_pause(&self) -> Duration {
        self.files.room_pause()
    }

    /// Begins a new segment of the journal; the number of its first record.
    pub(crate) fn begin_segment(&mut self) -> Result<u64> {
        self.check_term()?;
        self.journal.roll()?;
        Ok(self.journal.next())
    }

    /// Refuses to go on once a later driver has begun.
    fn check_term(&self) -> Result<()> {
        check_term(self.files.as_ref(), &self.folder, self.term)
    }

    /// What a writer of checkpoints needs.
    pub(crate) fn checkpoint_writer(&self) -> CheckpointWriter {
        CheckpointWriter {
            files: Arc::clone(&self.files),
            folder: self.folder.clone(),
            term: self.term,
            before: self.kept.last().map(Manifest::saved),
            range: None,
        }
    }

    /// Takes a checkpoint in that was written, and removes what nothing needs any more.
    pub(crate) fn keep(&mut self, manifest: Manifest) -> Result<()> {
        self.check_term()?;
        self.kept.push(manifest);
        let dropped = self.kept.len().saturating_sub(KEPT_CHECKPOINTS);
        let old: Vec<Manifest> = self.kept.drain(..dropped).collect();
        for manifest in &old {
            self.remove(&manifest_path(&self.folder, manifest))?;
        }
        if let (false, Some(oldest)) = (old.is_empty(), self.kept.first()) {
            let journal = oldest.journal;
            self.journal.trim(journal)?;
        }
        self.collect_garbage()
    }

    fn collect_garbage(&self) -> Result<()> {
        let named: BTreeSet<&str> = self.kept.iter().flat_map(|m| &m.files).map(|file| file.name.as_str()).collect();
        let folder = format!("{}/state", self.folder);
        let names = self.files.list(&folder).map_err(|error| failed(self.files.as_ref(), &folder, error))?;
        // Those of a later driver, of which this one has not heard yet, are not its to remove.
        let is_own = |name: &&String| term_of(name).is_none_or(|term| term <= self.term);
        for name in names.iter().filter(is_own).filter(|name| !named.contains(name.as_str())) {
            self.remove(&format!("{folder}/{name}"))?;
        }
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<()> {
        self.files.remove(path).map_err(|error| failed(self.files.as_ref(), path, error))
    }

    /// The least record of each stream that some kept checkpoint needs; none while there is but one checkpoint.
    pub(crate) fn needed_from(&self, stream: &str) -> Option<u64> {
        let oldest = self.kept.first().filter(|_| self.kept.len() >= KEPT_CHECKPOINTS)?;
        oldest.streams.get(stream).map(|place| place.seq)
    }

    /// The record of a stream that the newest checkpoint goes up to.
    pub(crate) fn reached(&self, stream: &str) -> Option<u64> {
        self.kept.last()?.streams.get(stream).map(|place| place.seq)
    }

    fn recover(&mut self, records: Vec<Entry<EpochRecord>>, expected: &Expected<'_>) -> Result<Recovered> {
        let mut damaged = Vec::new();
        let recovered = self.recover_from(records, expected, &mut damaged)?;
        // The lineage behind an older checkpoint has replaced them, and their names will be needed.
        damaged.iter().try_for_each(|path| self.remove(path))?;
        let paths = manifest_paths(self.files.as_ref(), &self.folder)?;
        let surplus = paths.len().saturating_sub(KEPT_CHECKPOINTS);
        paths.iter().take(surplus).try_for_each(|path| self.remove(path))?;
        Ok(recovered)
    }

    fn recover_from(
        &mut self,
        records: Vec<Entry<EpochRecord>>,
        expected: &Expected<'_>,
        damaged: &mut Vec<String>,
    ) -> Result<Recovered> {
        let mut manifests = read_manifests(self.files.as_ref(), &self.folder)?;
        let mut failure = None;
        while let Some((path, candidate)) = manifests.pop() {
            let loaded = candidate.and_then(|manifest| {
                expected.check(&Contract::of(&manifest))?;
                let (files, Expected { contracts, memory, .. }) = (self.files.as_ref(), expected);
                if expected.is_spread {
                    self.check_files(&manifest)?;
                    return Ok((manifest, None));
                }
                let stages = load_stages(files, &self.folder, &manifest.saved(), contracts, memory, None)?;
                Ok((manifest, Some(stages)))
            });
            match loaded {
                Ok((manifest, loaded)) => {
                    self.kept = manifests.into_iter().filter_map(|(_, older)| older.ok()).collect();
                    let mut recovered = self.begin_with(Some(manifest), records)?;
                    (recovered.stages, recovered.share) = loaded.unzip();
                    return Ok(recovered);
                }
                // Damage may spare the checkpoint before; a query that does not fit fits none of them.
                Err(error @ Error::State { .. }) if is_damage(&error) => {
                    tracing::warn!(%error, "a checkpoint is damaged, falling back to the one before");
                    damaged.push(path);
                    failure.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        let starts_at_0 = self.journal.first() == 0;
        match failure {
            Some(error) if !starts_at_0 => Err(error),
            _ if !starts_at_0 => Err(corrupt(
                &self.files.describe(&format!("{}/checkpoints", self.folder)),
                0,
                "the journal goes on from a checkpoint that is not there",
            )),
            _ => {
                expected.check(&expected.contract().first(self.files.as_ref(), &self.folder)?)?;
                self.begin_with(None, records)
            }
        }
    }

    /// Checks that the files of a checkpoint are there, which others will read.
    fn check_files(&self, manifest: &Manifest) -> Result<()> {
        let folder = format!("{}/state", self.folder);
        let names = self.files.list(&folder).map_err(|error| failed(self.files.as_ref(), &folder, error))?;
        match manifest.files.iter().find(|file| !names.contains(&file.name)) {
            Some(file) => {
                let place = self.files.describe(&format!("{folder}/{}", file.name));
                Err(corrupt(&place, 0, "the file is missing"))
            }
            None => Ok(()),
        }
    }

    fn begin_with(&mut self, checkpoint: Option<Manifest>, records: Vec<Entry<EpochRecord>>) -> Result<Recovered> {
        let mut recovered = Recovered {
            stages: None,
            saved: None,
            saved_in: 0,
            places: BTreeMap::new(),
            epoch: Epoch(0),
            sink_epoch: None,
            late_epoch: None,
            counters: Counters::default(),
            epochs: Vec::new(),
            share: None,
        };
        let mut first = 0;
        if let Some(manifest) = checkpoint {
            recovered = Recovered {
                stages: None,
                saved: Some(manifest.saved()),
                saved_in: manifest.term,
                places: manifest.streams.clone(),
                epoch: manifest.epoch,
                sink_epoch: manifest.sink_epoch,
                late_epoch: manifest.late_epoch,
                counters: manifest.counters,
                epochs: Vec::new(),
                share: None,
            };
            first = manifest.journal;
            self.kept.push(manifest);
        }
        if self.journal.first() > first || self.journal.next() < first {
            let place = self.files.describe(&format!("{}/journal", self.folder));
            return Err(corrupt(&place, 0, "records behind the checkpoint are missing"));
        }
        let records = records.into_iter().filter(|record| record.number >= first).map(|record| record.value);
        recovered.epochs = pair_up(records, recovered.epoch)
            .map_err(|reason| corrupt(&self.files.describe(&format!("{}/journal", self.folder)), 0, &reason))?;
        Ok(recovered)
    }
}

/// The first record of the journal that some checkpoint needs.
fn oldest_record(files: &dyn Files, folder: &str) -> Result<u64> {
    let manifests = read_manifests(files, folder)?;
    // One that cannot be read may have needed more.
    let journals = manifests.iter().map(|(_, manifest)| manifest.as_ref().map_or(0, |manifest| manifest.journal));
    Ok(journals.min().unwrap_or(0))
}

/// Intents with their commits; epochs must be contiguous, and only the last may lack its commit.
fn pair_up(records: impl Iterator<Item = EpochRecord>, first: Epoch) -> Result<Vec<LoggedEpoch>, String> {
    let mut epochs: Vec<LoggedEpoch> = Vec::new();
    let mut next = first;
    for record in records {
        match record {
            EpochRecord::Intent(intent) => {
                let is_ready = epochs.last().is_none_or(|epoch| epoch.commit.is_some());
                if intent.epoch != next || !is_ready {
                    return Err(format!("epoch {} does not follow", intent.epoch));
                }
                next = next.next();
                epochs.push(LoggedEpoch { intent, commit: None });
            }
            EpochRecord::Commit(commit) => match epochs.last_mut() {
                Some(epoch) if epoch.intent.epoch == commit.epoch && epoch.commit.is_none() => {
                    epoch.commit = Some(commit);
                }
                _ => return Err(format!("the commit of epoch {} has no intent", commit.epoch)),
            },
        }
    }
    Ok(epochs)
}

/// A name that every file system takes, different for different names.
pub fn file_name(name: &str) -> String {
    let mut text = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' {
            text.push(char::from(byte));
        } else {
            // Writing to a String does not fail.
            let _ = write!(text, "%{byte:02x}");
        }
    }
    text
}

fn is_damage(error: &Error) -> bool {
    matches!(error, Error::State { message, .. } if message.contains(" is damaged at byte "))
}
