//! Checkpoints on the disk: manifests, and the files of state that they name.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;

use super::files::Files;
use super::journal::failed;
use super::record::{corrupt, read_single, write_single};
use super::terms::check_term;
use crate::batch::Epoch;
use crate::checkpoint::{
    FileRecord, LeafImage, LeafRecord, MANIFEST_VERSION, Manifest, PaneEntry, PartRecord, Saved, StageImage,
    StageRecord, read_panes, write_panes,
};
use crate::cluster::KeyRange;
use crate::error::{Error, Result};
use crate::state::{MemoryShare, StateMemory};

/// Checkpoints that are kept: the last one, and one to fall back to.
pub(super) const KEPT_CHECKPOINTS: usize = 2;

/// State rows from which a checkpoint begins another file.
const FILE_ROWS: usize = 1 << 20;

/// Where a manifest is; names are in the order of the checkpoints.
pub(super) fn manifest_path(folder: &str, manifest: &Manifest) -> String {
    format!("{folder}/checkpoints/{:020}-{:010}.json", manifest.epoch.0, manifest.term)
}

/// The term that a file of state was written in; none if its name does not say.
pub(super) fn term_of(file: &str) -> Option<u64> {
    file.split('-').next()?.parse().ok()
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
pub(super) fn manifest_paths(files: &dyn Files, folder: &str) -> Result<Vec<String>> {
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

/// The stages of a checkpoint, on disk again where memory has no room for them, and their share of the memory; with the
/// rows of one range of key partitions, if that is all that is wanted.
///
/// Whoever has the stages keeps the share until it counts them itself: queries are loaded one after another, and each
/// has only what those before it have left.
pub(crate) fn load_stages(
    files: &dyn Files,
    folder: &str,
    saved: &Saved,
    contracts: &[(String, Vec<SchemaRef>)],
    memory: &Arc<StateMemory>,
    range: Option<KeyRange>,
) -> Result<(Vec<StageImage>, MemoryShare)> {
    let mut share = MemoryShare::new(Arc::clone(memory));
    let mut loaded = 0;
    let mut stages = Vec::new();
    for (record, (_, schemas)) in saved.stages.iter().zip(contracts) {
        let mut leaves = Vec::new();
        for (index, leaf) in record.leaves.iter().enumerate() {
            let mut image = LeafImage { calendar: leaf.calendar.clone(), counts: leaf.counts, ..LeafImage::default() };
            for part in &leaf.parts {
                let schema = schemas.get(index).ok_or_else(|| Error::internal("a leaf without state has some"))?;
                let known = saved.files.iter().find(|file| file.name == part.file);
                let file = known.ok_or_else(|| Error::internal(format!("{} is not listed", part.file)))?;
                if !is_wanted(file, range) {
                    continue;
                }
                let mut entries = read_panes(read_state_file(files, folder, file)?, &part.panes, schema, range)?;
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
    Ok((stages, share))
}

/// Whether a file has rows of a range of key partitions.
fn is_wanted(file: &FileRecord, range: Option<KeyRange>) -> bool {
    match (file.range, range) {
        (Some(has), Some(wanted)) => has.overlaps(wanted),
        _ => true,
    }
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
    pub(super) files: Arc<dyn Files>,
    pub(super) folder: String,
    pub(super) term: u64,
    /// The checkpoint whose files serve again where panes have not changed.
    pub(super) before: Option<Saved>,
    /// The key partitions whose state is written, if not all of them.
    pub(super) range: Option<KeyRange>,
}

impl CheckpointWriter {
    /// A writer of some key partitions of a query into its folder.
    pub(crate) const fn of_slot(
        files: Arc<dyn Files>,
        folder: String,
        term: u64,
        before: Option<Saved>,
        range: KeyRange,
    ) -> Self {
        Self { files, folder, term, before, range: Some(range) }
    }

    /// Writes what changed in `stages`, then the manifest that names it: `manifest`, with its stages and files.
    pub(crate) fn write(&self, manifest: Manifest, stages: Vec<StageImage>) -> Result<Manifest> {
        let saved = self.save(manifest.epoch, stages)?;
        self.publish(manifest, saved)
    }

    /// Writes what changed in `stages`, the state before `epoch`.
    pub(crate) fn save(&self, epoch: Epoch, stages: Vec<StageImage>) -> Result<Saved> {
        let mut saved = Saved::default();
        for (number, stage) in stages.into_iter().enumerate() {
            let mut leaves = Vec::new();
            for (index, leaf) in stage.leaves.iter().enumerate() {
                let old = self.before.as_ref().and_then(|before| before.stages.get(number)?.leaves.get(index));
                let name = format!("{:020}-{number}-{index}", epoch.0);
                leaves.push(self.write_leaf(&mut saved.files, leaf, old, &name)?);
            }
            saved.stages.push(StageRecord {
                contract: stage.contract,
                evaluated: stage.evaluated,
                rows: stage.rows,
                is_done: stage.is_done,
                leaves,
            });
        }
        Ok(saved)
    }

    /// Writes the manifest of state that was written: `manifest`, with its stages and files.
    pub(crate) fn publish(&self, mut manifest: Manifest, saved: Saved) -> Result<Manifest> {
        (manifest.stages, manifest.files) = (saved.stages, saved.files);
        check_term(self.files.as_ref(), &self.folder, self.term)?;
        let path = manifest_path(&self.folder, &manifest);
        let fail = |error| failed(self.files.as_ref(), &path, error);
        if !self.files.create(&path, &write_single(&manifest)?).map_err(fail)? {
            return Err(Error::internal(format!("checkpoint {} is there already", manifest.epoch)));
        }
        Ok(manifest)
    }

    fn write_leaf(
        &self,
        files: &mut Vec<FileRecord>,
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
                files.push(file.clone());
            }
        }
        for entries in in_files(&leaf.entries) {
            if let Some((bytes, rows)) = write_panes(leaf, entries)? {
                let file = self.write_file(&bytes, rows, name)?;
                let panes = entries.iter().map(|entry| (entry.pane, entry.tag)).collect();
                parts.push(PartRecord { file: file.name.clone(), panes });
                files.push(file);
            }
        }
        Ok(LeafRecord { calendar: leaf.calendar.clone(), counts: leaf.counts, parts })
    }

    fn write_file(&self, bytes: &[u8], rows: u64, name: &str) -> Result<FileRecord> {
        // Unique, so that a file of an attempt that failed is never taken for this one.
        let name = format!("{:010}-{name}-{}.parquet", self.term, uuid::Uuid::new_v4().simple());
        let path = format!("{}/state/{name}", self.folder);
        self.files.create(&path, bytes).map_err(|error| failed(self.files.as_ref(), &path, error))?;
        let crc32 = crc32fast::hash(bytes);
        Ok(FileRecord { name, bytes: bytes.len() as u64, rows, crc32, range: self.range })
    }
}
