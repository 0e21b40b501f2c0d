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

use super::directory::StateDirectory;
use super::files::Files;
use super::index::DurableIndex;
use super::journal::{Entry, Journal, failed};
use super::record::{corrupt, read_single, write_single};
use crate::batch::Epoch;
use crate::checkpoint::{
    Counters, FileRecord, LeafImage, LeafRecord, MANIFEST_VERSION, Manifest, PaneEntry, PartRecord, StageImage,
    StageRecord, read_panes, write_panes,
};
use crate::error::{Error, Result};
use crate::ingest::{LogPlace, LoggedEvent};
use crate::sink::SinkWriter;
use crate::state::{MemoryShare, StateMemory};
use crate::time::{EventTime, Watermark};

/// Checkpoints that are kept: the last one, and one to fall back to.
const KEPT_CHECKPOINTS: usize = 2;

/// How often what is kept is read while another driver may still be changing it, and how far apart.
const TAKEOVER_ATTEMPTS: u32 = 4;
const TAKEOVER_PAUSE: Duration = Duration::from_millis(500);

/// State rows from which a checkpoint begins another file.
const FILE_ROWS: usize = 1 << 20;

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
    /// The state to begin with; none at the beginning of the input.
    pub(crate) stages: Option<Vec<StageImage>>,
    /// Where the streams are at that state, by name.
    pub(crate) places: BTreeMap<String, LogPlace>,
    pub(crate) epoch: Epoch,
    pub(crate) sink_epoch: Option<Epoch>,
    pub(crate) counters: Counters,
    /// The epochs since, in order.
    pub(crate) epochs: Vec<LoggedEpoch>,
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
    /// Opens the query `name`, or makes it, and begins a new term.
    pub(crate) fn open(
        directory: &StateDirectory,
        name: &str,
        contracts: &[(String, Vec<SchemaRef>)],
        memory: &Arc<StateMemory>,
    ) -> Result<(Self, Recovered)> {
        let (files, id) = (directory.files(), directory.query_id(name)?);
        let folder = format!("queries/{id}");
        for part in ["terms", "checkpoints", "state"] {
            let path = format!("{folder}/{part}");
            files.create_folder(&path).map_err(|error| failed(files.as_ref(), &path, error))?;
        }
        // The driver before, if it still runs, stops at its next step: what is read from now on is the last it did.
        let term = begin_term(files.as_ref(), &folder)?;
        for _ in 1..TAKEOVER_ATTEMPTS {
            match Self::load(files, &id, name, term, contracts, memory) {
                Err(error) if files.is_shared() => {
                    tracing::info!(%error, "reading once more what a driver before may have changed meanwhile");
                    std::thread::sleep(TAKEOVER_PAUSE);
                }
                loaded => return loaded,
            }
        }
        Self::load(files, &id, name, term, contracts, memory)
    }

    fn load(
        files: &Arc<dyn Files>,
        id: &str,
        name: &str,
        term: u64,
        contracts: &[(String, Vec<SchemaRef>)],
        memory: &Arc<StateMemory>,
    ) -> Result<(Self, Recovered)> {
        let (id, folder) = (id.to_owned(), format!("queries/{id}"));
        let (journal, records) = Journal::open::<EpochRecord>(files, &format!("{folder}/journal"), &id)?;
        let mut store =
            Self { files: Arc::clone(files), folder, id, name: name.to_owned(), term, journal, kept: Vec::new() };
        let recovered = store.recover(records, contracts, memory)?;
        Ok((store, recovered))
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

    /// How long to wait for room on a full disk before trying again.
    pub(crate) fn room_pause(&self) -> Duration {
        self.files.room_pause()
    }

    /// Begins a new segment of the journal; the number of its first record.
    pub(crate) fn begin_segment(&mut self) -> Result<u64> {
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
            before: self.kept.last().cloned(),
        }
    }

    /// Takes a checkpoint in that was written, and removes what nothing needs any more.
    pub(crate) fn keep(&mut self, manifest: Manifest) -> Result<()> {
        self.check_term()?;
        self.kept.push(manifest);
        let dropped = self.kept.len().saturating_sub(KEPT_CHECKPOINTS);
        let old: Vec<Manifest> = self.kept.drain(..dropped).collect();
        for manifest in &old {
            self.remove(&manifest_path(&self.folder, manifest.epoch))?;
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
        for name in names.iter().filter(|name| !named.contains(name.as_str())) {
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

    fn recover(
        &mut self,
        records: Vec<Entry<EpochRecord>>,
        contracts: &[(String, Vec<SchemaRef>)],
        memory: &Arc<StateMemory>,
    ) -> Result<Recovered> {
        let mut damaged = Vec::new();
        let recovered = self.recover_from(records, contracts, memory, &mut damaged)?;
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
        contracts: &[(String, Vec<SchemaRef>)],
        memory: &Arc<StateMemory>,
        damaged: &mut Vec<String>,
    ) -> Result<Recovered> {
        let mut manifests = read_manifests(self.files.as_ref(), &self.folder)?;
        let mut failure = None;
        while let Some((path, candidate)) = manifests.pop() {
            let loaded = candidate.and_then(|manifest| {
                check_contracts(&self.name, &manifest, contracts)?;
                let stages = load_stages(self.files.as_ref(), &self.folder, &manifest, contracts, memory);
                Ok((manifest, stages?))
            });
            match loaded {
                Ok((manifest, stages)) => {
                    self.kept = manifests.into_iter().filter_map(|(_, older)| older.ok()).collect();
                    return self.begin_with(Some((manifest, stages)), records);
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
            _ => self.begin_with(None, records),
        }
    }

    fn begin_with(
        &mut self,
        checkpoint: Option<(Manifest, Vec<StageImage>)>,
        records: Vec<Entry<EpochRecord>>,
    ) -> Result<Recovered> {
        let mut recovered = Recovered {
            stages: None,
            places: BTreeMap::new(),
            epoch: Epoch(0),
            sink_epoch: None,
            counters: Counters::default(),
            epochs: Vec::new(),
        };
        let mut first = 0;
        if let Some((manifest, stages)) = checkpoint {
            recovered = Recovered {
                stages: Some(stages),
                places: manifest.streams.clone(),
                epoch: manifest.epoch,
                sink_epoch: manifest.sink_epoch,
                counters: manifest.counters,
                epochs: Vec::new(),
            };
            first = manifest.journal;
            self.kept.push(manifest);
        }
        let reaches_back = records.first().is_none_or(|record| record.number <= first);
        if !reaches_back || self.journal.next() < first {
            let place = self.files.describe(&format!("{}/journal", self.folder));
            return Err(corrupt(&place, 0, "records behind the checkpoint are missing"));
        }
        let records = records.into_iter().filter(|record| record.number >= first).map(|record| record.value);
        recovered.epochs = pair_up(records, recovered.epoch)
            .map_err(|reason| corrupt(&self.files.describe(&format!("{}/journal", self.folder)), 0, &reason))?;
        Ok(recovered)
    }
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

fn term_path(folder: &str, term: u64) -> String {
    format!("{folder}/terms/{term:010}")
}

fn manifest_path(folder: &str, epoch: Epoch) -> String {
    format!("{folder}/checkpoints/{:020}.json", epoch.0)
}

/// A name that every file system takes, different for different names.
pub(super) fn file_name(name: &str) -> String {
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

/// Begins the next term: the file is made by exactly one driver.
fn begin_term(files: &dyn Files, folder: &str) -> Result<u64> {
    let terms = terms_of(files, folder)?;
    let mut term = terms.iter().max().copied().unwrap_or(0) + 1;
    // Unique, so that a store tells this driver's put from another's.
    let driver = uuid::Uuid::new_v4().to_string();
    loop {
        let path = term_path(folder, term);
        let note = write_single(&serde_json::json!({ "term": term, "process": std::process::id(), "driver": driver }))?;
        if files.create(&path, &note).map_err(|error| failed(files, &path, error))? {
            break;
        }
        term += 1;
    }
    // The terms before are over; one is left as a witness, so that numbers never go back.
    for old in terms.into_iter().filter(|old| old + 1 < term) {
        let path = term_path(folder, old);
        files.remove(&path).map_err(|error| failed(files, &path, error))?;
    }
    Ok(term)
}

/// Refuses to go on once a later driver than that of `term` has begun.
fn check_term(files: &dyn Files, folder: &str, term: u64) -> Result<()> {
    let terms = terms_of(files, folder)?;
    if terms.iter().any(|later| *later > term) {
        let message =
            format!("the query with its state at {} was taken over by another process", files.describe(folder));
        return Err(Error::state(message, "let only one process use a state directory"));
    }
    Ok(())
}

/// The terms that have begun; the last two of them at least.
fn terms_of(files: &dyn Files, folder: &str) -> Result<Vec<u64>> {
    let path = format!("{folder}/terms");
    let names = files.list(&path).map_err(|error| failed(files, &path, error))?;
    Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
}

/// The manifests of a query that are kept, oldest first, each as it can be read.
pub(crate) fn read_manifests(files: &dyn Files, folder: &str) -> Result<Vec<(String, Result<Manifest>)>> {
    let paths = manifest_paths(files, folder)?;
    let kept = paths.into_iter().rev().take(KEPT_CHECKPOINTS).rev();
    Ok(kept
        .map(|path| {
            let manifest = read_manifest(files, &path);
            (path, manifest)
        })
        .collect())
}

/// Where the manifests of a query are, oldest first; a crash may have brought some back that were removed.
fn manifest_paths(files: &dyn Files, folder: &str) -> Result<Vec<String>> {
    let checkpoints = format!("{folder}/checkpoints");
    let names = files.list(&checkpoints).map_err(|error| failed(files, &checkpoints, error))?;
    let names = names.iter().filter(|name| name.ends_with(".json"));
    Ok(names.map(|name| format!("{checkpoints}/{name}")).collect())
}

fn read_manifest(files: &dyn Files, path: &str) -> Result<Manifest> {
    let bytes = files.read(path).map_err(|error| failed(files, path, error))?;
    let manifest: Manifest = read_single(&files.describe(path), &bytes)?;
    if manifest.version > MANIFEST_VERSION {
        let message = format!("{} has version {}", files.describe(path), manifest.version);
        return Err(Error::state(message, "use a newer millstream"));
    }
    Ok(manifest)
}

fn is_damage(error: &Error) -> bool {
    matches!(error, Error::State { message, .. } if message.contains(" is damaged at byte "))
}

/// Compares what the query's state must mean with what a checkpoint's does.
fn check_contracts(name: &str, manifest: &Manifest, contracts: &[(String, Vec<SchemaRef>)]) -> Result<()> {
    let major = |version: &str| version.split('.').next().unwrap_or_default().to_owned();
    let (theirs, ours) = (major(&manifest.datafusion), major(datafusion::DATAFUSION_VERSION));
    let hint = format!(
        "run the earlier version, or begin anew from the input: `millstream state forget DIR {name}` drops what is \
         kept of the query, and its results must go elsewhere"
    );
    if theirs != ours {
        let message = format!(
            "the state of query \"{name}\" was made by DataFusion {theirs}, which {ours} cannot be sure to read"
        );
        return Err(Error::state(message, hint));
    }
    let before: String = manifest.stages.iter().map(|stage| stage.contract.as_str()).collect();
    let now: String = contracts.iter().map(|(contract, _)| contract.as_str()).collect();
    if before == now {
        return Ok(());
    }
    let message = format!("query \"{name}\" has changed so that its state does not fit:\n{}", diff(&before, &now));
    Err(Error::state(message, hint))
}

/// The lines that only one of two texts has: `-` before, `+` now.
fn diff(before: &str, now: &str) -> String {
    let (old, new): (Vec<_>, Vec<_>) = (before.lines().collect(), now.lines().collect());
    let gone = old.iter().filter(|line| !new.contains(line)).map(|line| format!("  - {}", line.trim()));
    let come = new.iter().filter(|line| !old.contains(line)).map(|line| format!("  + {}", line.trim()));
    gone.chain(come).collect::<Vec<_>>().join("\n")
}

/// The bytes of a state file, if they are those that were written.
pub(crate) fn read_state_file(files: &dyn Files, folder: &str, record: &FileRecord) -> Result<Vec<u8>> {
    let path = format!("{folder}/state/{}", record.name);
    let place = files.describe(&path);
    let bytes = match files.read(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(corrupt(&place, 0, "the file is missing"));
        }
        other => other.map_err(|error| failed(files, &path, error))?,
    };
    if bytes.len() as u64 != record.bytes {
        return Err(corrupt(&place, bytes.len() as u64, &format!("it should have {} bytes", record.bytes)));
    }
    if crc32fast::hash(&bytes) != record.crc32 {
        return Err(corrupt(&place, 0, "its checksum does not fit"));
    }
    Ok(bytes)
}

fn load_stages(
    files: &dyn Files,
    folder: &str,
    manifest: &Manifest,
    contracts: &[(String, Vec<SchemaRef>)],
    memory: &Arc<StateMemory>,
) -> Result<Vec<StageImage>> {
    let mut share = MemoryShare::new(Arc::clone(memory));
    let mut loaded = 0;
    let mut stages = Vec::new();
    for (record, (_, schemas)) in manifest.stages.iter().zip(contracts) {
        let mut leaves = Vec::new();
        for (index, leaf) in record.leaves.iter().enumerate() {
            let mut image = LeafImage { calendar: leaf.calendar.clone(), counts: leaf.counts, ..LeafImage::default() };
            for part in &leaf.parts {
                let schema = schemas.get(index).ok_or_else(|| Error::internal("a leaf without state has some"))?;
                let known = manifest.files.iter().find(|file| file.name == part.file);
                let file = known.ok_or_else(|| Error::internal(format!("{} is not listed", part.file)))?;
                let mut entries = read_panes(read_state_file(files, folder, file)?, &part.panes, schema)?;
                let bytes: usize = entries.iter().map(|entry| entry.state.bytes()).sum();
                if share.set(loaded + bytes) > 0 {
                    entries.iter_mut().try_for_each(|entry| entry.state.spill(memory))?;
                    share.set(loaded);
                } else {
                    loaded += bytes;
                }
                image.entries.extend(entries);
            }
            leaves.push(image);
        }
        stages.push(StageImage {
            contract: record.contract.clone(),
            evaluated: record.evaluated,
            rows: record.rows,
            is_done: record.is_done,
            leaves,
        });
    }
    Ok(stages)
}

/// The entries for each file, in order: as many as have [`FILE_ROWS`], so that a file fits into memory easily.
fn in_files(entries: &[PaneEntry]) -> impl Iterator<Item = &[PaneEntry]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut rows = 0;
        let is_full = |entry: &PaneEntry| {
            rows += entry.state.row_count();
            rows >= FILE_ROWS
        };
        let count = rest.iter().position(is_full).map_or(rest.len(), |last| last + 1);
        let (file, others) = rest.split_at_checked(count)?;
        rest = others;
        (!file.is_empty()).then_some(file)
    })
}

/// Writes checkpoints, away from the epochs.
#[derive(Debug)]
pub(crate) struct CheckpointWriter {
    files: Arc<dyn Files>,
    folder: String,
    term: u64,
    before: Option<Manifest>,
}

impl CheckpointWriter {
    /// Writes what changed in `stages`, then the manifest that names it: `manifest`, with its stages and files.
    pub(crate) fn write(&self, mut manifest: Manifest, stages: Vec<StageImage>) -> Result<Manifest> {
        for (number, stage) in stages.into_iter().enumerate() {
            let mut leaves = Vec::new();
            for (index, leaf) in stage.leaves.iter().enumerate() {
                let old = self.before.as_ref().and_then(|before| before.stages.get(number)?.leaves.get(index));
                leaves.push(self.write_leaf(&mut manifest, leaf, old, &format!("{number}-{index}"))?);
            }
            manifest.stages.push(StageRecord {
                contract: stage.contract,
                evaluated: stage.evaluated,
                rows: stage.rows,
                is_done: stage.is_done,
                leaves,
            });
        }
        check_term(self.files.as_ref(), &self.folder, self.term)?;
        let path = manifest_path(&self.folder, manifest.epoch);
        let fail = |error| failed(self.files.as_ref(), &path, error);
        if !self.files.create(&path, &write_single(&manifest)?).map_err(fail)? {
            return Err(Error::internal(format!("checkpoint {} is there already", manifest.epoch)));
        }
        Ok(manifest)
    }

    fn write_leaf(
        &self,
        manifest: &mut Manifest,
        leaf: &LeafImage,
        old: Option<&LeafRecord>,
        name: &str,
    ) -> Result<LeafRecord> {
        let live: BTreeSet<_> = leaf.live.iter().copied().collect();
        let written: BTreeSet<_> = leaf.entries.iter().map(|entry| (entry.pane, entry.tag)).collect();
        let mut parts = Vec::new();
        for part in old.map(|old| old.parts.as_slice()).unwrap_or_default() {
            let panes: Vec<_> =
                part.panes.iter().copied().filter(|pane| live.contains(pane) && !written.contains(pane)).collect();
            let known = self.before.as_ref().and_then(|before| before.files.iter().find(|f| f.name == part.file));
            if let (false, Some(file)) = (panes.is_empty(), known) {
                parts.push(PartRecord { file: part.file.clone(), panes });
                manifest.files.push(file.clone());
            }
        }
        for entries in in_files(&leaf.entries) {
            if let Some((bytes, rows)) = write_panes(leaf, entries)? {
                let file = self.write_file(&bytes, rows, &format!("{:020}-{name}", manifest.epoch.0))?;
                let panes = entries.iter().map(|entry| (entry.pane, entry.tag)).collect();
                parts.push(PartRecord { file: file.name.clone(), panes });
                manifest.files.push(file);
            }
        }
        Ok(LeafRecord { calendar: leaf.calendar.clone(), counts: leaf.counts, parts })
    }

    fn write_file(&self, bytes: &[u8], rows: u64, name: &str) -> Result<FileRecord> {
        // Unique, so that a file of an attempt that failed is never taken for this one.
        let name = format!("{name}-{}.parquet", uuid::Uuid::new_v4().simple());
        let path = format!("{}/state/{name}", self.folder);
        self.files.create(&path, bytes).map_err(|error| failed(self.files.as_ref(), &path, error))?;
        Ok(FileRecord { name, bytes: bytes.len() as u64, rows, crc32: crc32fast::hash(bytes) })
    }
}
