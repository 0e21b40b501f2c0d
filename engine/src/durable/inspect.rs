//! Looking into a state directory without changing it.

use std::sync::Arc;

use super::checkpoint_files::{read_manifests, read_state_file};
use super::contract::read_query;
use super::directory::{list_queries, list_streams};
use super::files::Files;
use super::journal::Journal;
use super::place::StatePlace;
use super::query_store::EpochRecord;
use super::wal::check_log;
use crate::batch::Epoch;
use crate::checkpoint::Manifest;
use crate::error::Result;
use crate::time::Watermark;

/// What is kept of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptQuery {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: String,
    /// Epochs whose output is in the sink.
    pub committed: u64,
    /// Epochs that were begun and not committed.
    pub open: u64,
    /// Epochs to replay after the last checkpoint.
    pub lineage: u64,
    /// Rows it has read.
    pub rows_read: u64,
    /// Rows it has written.
    pub rows_written: u64,
    /// Its checkpoints, oldest first.
    pub checkpoints: Vec<KeptCheckpoint>,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptCheckpoint {
    /// The first epoch that is not in it.
    pub epoch: Epoch,
    /// The query's watermark then.
    pub watermark: Watermark,
    /// The files with its state.
    pub files: Vec<KeptFile>,
}

/// A file of state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptFile {
    /// Where it is.
    pub path: String,
    /// Its rows, those of older checkpoints included.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

/// What [`verify`] found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Files that were checked.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// What cannot be used, with file and place.
    pub faults: Vec<String>,
}

/// What is kept of each query in the state directory at `place`, by name.
///
/// # Errors
/// Fails if there is none, or what is needed to tell is damaged.
pub fn inspect(place: &StatePlace) -> Result<Vec<KeptQuery>> {
    let files = place.look()?;
    let mut queries = Vec::new();
    for (name, id) in list_queries(&files)? {
        queries.push(kept_query(&files, name, id)?);
    }
    queries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(queries)
}

fn kept_query(files: &Arc<dyn Files>, name: String, id: String) -> Result<KeptQuery> {
    let folder = format!("queries/{id}");
    let manifests = read_manifests(files.as_ref(), &folder)?;
    let manifests = manifests.into_iter().map(|(_, manifest)| manifest).collect::<Result<Vec<Manifest>>>()?;
    let (records, _) = Journal::inspect::<EpochRecord>(files, &format!("{folder}/journal"), &id)?;
    let last = manifests.last();
    let mut counters = last.map(|manifest| manifest.counters).unwrap_or_default();
    let mut kept = KeptQuery {
        name,
        id,
        committed: last.map_or(0, |manifest| manifest.epoch.0),
        open: 0,
        lineage: 0,
        rows_read: 0,
        rows_written: 0,
        checkpoints: manifests.iter().map(|manifest| kept_checkpoint(files.as_ref(), &folder, manifest)).collect(),
    };
    let after = last.map_or(0, |manifest| manifest.journal);
    for record in records.into_iter().filter(|record| record.number >= after) {
        match record.value {
            EpochRecord::Intent(_) => kept.open += 1,
            EpochRecord::Commit(commit) => {
                kept.open -= 1;
                kept.lineage += 1;
                kept.committed = commit.epoch.0 + 1;
                counters = commit.counters;
            }
        }
    }
    (kept.rows_read, kept.rows_written) = (counters.rows_read, counters.rows_written);
    Ok(kept)
}

fn kept_checkpoint(files: &dyn Files, folder: &str, manifest: &Manifest) -> KeptCheckpoint {
    let path = |name: &str| files.describe(&format!("{folder}/state/{name}"));
    let kept = manifest.files.iter().map(|f| KeptFile { path: path(&f.name), rows: f.rows, bytes: f.bytes });
    KeptCheckpoint { epoch: manifest.epoch, watermark: manifest.watermark, files: kept.collect() }
}

/// Checks every record, checksum and reference in the state directory at `place`.
///
/// # Errors
/// Fails only if there is no state directory; damage is in the report.
pub fn verify(place: &StatePlace) -> Result<Report> {
    Ok(verify_files(&place.look()?))
}

/// Checks every record, checksum and reference in the state directory on a disk.
pub fn verify_files(files: &Arc<dyn Files>) -> Report {
    let mut report = Report::default();
    report.check(files).unwrap_or_else(|error| report.faults.push(error.to_string()));
    report
}

impl Report {
    fn check(&mut self, files: &Arc<dyn Files>) -> Result<()> {
        let queries = list_queries(files)?;
        self.count(files, "catalog");
        for (_, id) in queries {
            self.check_query(files, &id)?;
        }
        for id in list_streams(files)? {
            let folder = format!("streams/{id}/wal");
            self.note(check_log(files, &folder));
            self.count(files, &folder);
        }
        Ok(())
    }

    fn check_query(&mut self, files: &Arc<dyn Files>, id: &str) -> Result<()> {
        let folder = format!("queries/{id}");
        if files.list(&folder).is_ok_and(|names| names.iter().any(|name| name == "query.json")) {
            self.files += 1;
            self.note(read_query(files.as_ref(), &folder).map(|_| ()));
        }
        self.note(Journal::inspect::<EpochRecord>(files, &format!("{folder}/journal"), id).map(|_| ()));
        self.count(files, &format!("{folder}/journal"));
        let inputs = format!("{folder}/inputs");
        for stream in files.list(&inputs).unwrap_or_default() {
            let folder = format!("{inputs}/{stream}");
            self.note(Journal::inspect::<String>(files, &folder, id).map(|_| ()));
            self.count(files, &folder);
        }
        for (_, manifest) in read_manifests(files.as_ref(), &folder)? {
            self.files += 1;
            match manifest {
                Ok(manifest) => self.check_files(files.as_ref(), &folder, &manifest),
                Err(error) => self.note(Err(error)),
            }
        }
        Ok(())
    }

    fn note(&mut self, checked: Result<()>) {
        if let Err(error) = checked {
            self.faults.push(error.to_string());
        }
    }

    fn count(&mut self, files: &Arc<dyn Files>, folder: &str) {
        for name in files.list(folder).unwrap_or_default() {
            self.files += 1;
            self.bytes += files.read(&format!("{folder}/{name}")).map_or(0, |bytes| bytes.len() as u64);
        }
    }

    fn check_files(&mut self, files: &dyn Files, folder: &str, manifest: &Manifest) {
        for file in &manifest.files {
            self.files += 1;
            self.bytes += file.bytes;
            self.note(read_state_file(files, folder, file).map(|_| ()));
        }
    }
}
