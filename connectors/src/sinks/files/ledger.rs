//! The ledger of a folder: `_manifest/0000000012.json` says that epoch 12 is in, and which files hold it;
//! `_manifest/0000000003-0000000012.json` that epochs 3 to 12 are in one file, in place of what was said of each.
//!
//! A manifest is made whole and at once, by a hard link that fails if the epoch is there already. What a crash leaves
//! half done after that, the next `begin` completes; what it leaves before, `begin` takes away.
//!
//! `_manifest/term-0000000003` says who writes. The writer of a greater term takes the older file away, and a writer
//! whose file is gone is refused at its next commit.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use millstream_engine::batch::Epoch;
use millstream_engine::durable::durable_step;
use millstream_engine::sink::SinkWriter;
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::super::{taken_over, when_there_is_room};
use super::failed;

const FOLDER: &str = "_manifest";
const TERM: &str = "term-";

/// One committed epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Manifest {
    pub(super) query: String,
    pub(super) term: u64,
    /// The first epoch, if there are several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    first: Option<Epoch>,
    /// The epoch, or the last of several.
    pub(super) epoch: Epoch,
    pub(super) files: Vec<ManifestFile>,
}

impl Manifest {
    /// The first of its epochs.
    pub(super) fn first(&self) -> Epoch {
        self.first.unwrap_or(self.epoch)
    }

    /// The size of its files.
    pub(super) fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// Whether another one stands in its place.
    fn is_replaced_by(&self, other: &Self) -> bool {
        let is_within = other.first() <= self.first() && self.epoch <= other.epoch;
        is_within && (self.first(), self.epoch) != (other.first(), other.epoch)
    }

    fn name(&self) -> String {
        match self.first {
            Some(first) => format!("{:010}-{:010}.json", first.0, self.epoch.0),
            None => format!("{:010}.json", self.epoch.0),
        }
    }
}

/// One file of an epoch; its temporary name was [`temporary_name`] of the manifest's term.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ManifestFile {
    pub(super) name: String,
    pub(super) bytes: u64,
    pub(super) rows: u64,
    pub(super) crc32: u32,
}

/// The name of a file before its commit. It has the term in it, so that a writer that was thought dead spoils nothing.
pub(super) fn temporary_name(name: &str, term: u64) -> String {
    format!(".{name}.{term}.tmp")
}

/// Makes a folder's entries safe.
pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(|e| failed(folder, e))
}

/// Who has begun a reign over the folder.
#[derive(Debug, Serialize, Deserialize)]
struct Term {
    query: String,
    term: u64,
}

/// The ledger of one folder under one writer.
#[derive(Debug)]
pub(super) struct Ledger {
    folder: PathBuf,
    writer: SinkWriter,
    last: Option<Epoch>,
    /// What was there at the begin.
    found: Vec<Manifest>,
}

impl Ledger {
    /// Begins the writer's reign over `folder`, which is made if need be, and mends what a crash left half done.
    pub(super) fn begin(folder: &Path, writer: &SinkWriter) -> Result<Self> {
        let mut ledger = Self { folder: folder.to_owned(), writer: writer.clone(), last: None, found: Vec::new() };
        let own = ledger.own_folder();
        if !own.is_dir() {
            refuse_parts(folder)?;
            durable_step("files.folder");
            fs::create_dir_all(&own).map_err(|e| failed(&own, e))?;
            sync_folder(folder)?;
        }
        ledger.read_manifests()?;
        ledger.take_reign()?;
        // Read again: the writer before may have committed until it was refused.
        let manifests = ledger.read_manifests()?;
        if manifests.is_empty() {
            refuse_parts(folder)?;
        }
        let (replaced, manifests): (Vec<_>, Vec<_>) = manifests
            .iter()
            .cloned()
            .partition(|manifest| manifests.iter().any(|other| manifest.is_replaced_by(other)));
        for manifest in &manifests {
            ledger.complete(manifest)?;
        }
        replaced.iter().try_for_each(|manifest| ledger.remove(manifest))?;
        ledger.remove_temporary_files()?;
        ledger.last = manifests.iter().map(|manifest| manifest.epoch).max();
        ledger.found = manifests;
        Ok(ledger)
    }

    /// What was there at the begin, oldest first.
    pub(super) fn take_found(&mut self) -> Vec<Manifest> {
        std::mem::take(&mut self.found)
    }

    /// The last epoch that is in.
    pub(super) const fn last(&self) -> Option<Epoch> {
        self.last
    }

    /// The writer's term.
    pub(super) const fn term(&self) -> u64 {
        self.writer.term
    }

    /// Enters an epoch whose file is safe under its temporary name, and gives the file its name.
    pub(super) fn commit(&mut self, epoch: Epoch, file: ManifestFile) -> Result<Manifest> {
        let manifest = self.enter(None, epoch, file)?;
        self.last = Some(epoch);
        Ok(manifest)
    }

    /// Puts a file, safe under its temporary name, in the place of those of `manifests`, which follow each other.
    pub(super) fn replace(&mut self, manifests: &[Manifest], file: ManifestFile) -> Result<Manifest> {
        let (Some(first), Some(last)) = (manifests.first(), manifests.last()) else {
            return Err(Error::internal("a file takes the place of none"));
        };
        let whole = self.enter(Some(first.first()), last.epoch, file)?;
        manifests.iter().try_for_each(|manifest| self.remove(manifest))?;
        Ok(whole)
    }

    fn enter(&self, first: Option<Epoch>, epoch: Epoch, file: ManifestFile) -> Result<Manifest> {
        let SinkWriter { query, term } = self.writer.clone();
        let is_taken = || taken_over(&format!("folder {}", self.folder.display()));
        if !self.term_path(term).exists() {
            return Err(is_taken());
        }
        let manifest = Manifest { query, term, first, epoch, files: vec![file] };
        durable_step("files.manifest");
        if !create_whole(&self.own_folder(), &manifest.name(), &manifest)? {
            return Err(is_taken());
        }
        self.complete(&manifest)?;
        Ok(manifest)
    }

    /// Removes the files of a manifest that is replaced, then itself.
    fn remove(&self, manifest: &Manifest) -> Result<()> {
        let files = manifest.files.iter().map(|file| self.folder.join(&file.name));
        for path in files.chain(std::iter::once(self.own_folder().join(manifest.name()))) {
            durable_step("files.remove");
            match fs::remove_file(&path) {
                Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&path, error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives the files of a committed epoch their names, and checks those that have them.
    fn complete(&self, manifest: &Manifest) -> Result<()> {
        for file in &manifest.files {
            let path = self.folder.join(&file.name);
            if size(&path)?.is_none() {
                let temporary = self.folder.join(temporary_name(&file.name, manifest.term));
                if size(&temporary)?.is_none() {
                    return Err(damaged(&path, "is missing", manifest.epoch));
                }
                durable_step("files.rename");
                fs::rename(&temporary, &path).map_err(|e| failed(&path, e))?;
                durable_step("files.sync_folder");
                sync_folder(&self.folder)?;
            }
            if size(&path)? != Some(file.bytes) {
                return Err(damaged(&path, &format!("does not have its {} bytes", file.bytes), manifest.epoch));
            }
        }
        Ok(())
    }

    /// Writes the term and takes away those before it.
    fn take_reign(&self) -> Result<()> {
        let own = self.own_folder();
        let SinkWriter { query, term } = &self.writer;
        let before = self.terms()?;
        if before.iter().any(|earlier| earlier.query == *query && earlier.term > *term) {
            return Err(taken_over(&format!("folder {}", self.folder.display())));
        }
        for foreign in before.iter().filter(|earlier| earlier.query != *query) {
            self.remove_term(foreign.term)?;
        }
        durable_step("files.term");
        create_whole(&own, &term_name(*term), &Term { query: query.clone(), term: *term })?;
        for earlier in before.iter().filter(|earlier| earlier.query == *query && earlier.term < *term) {
            self.remove_term(earlier.term)?;
        }
        sync_folder(&own)
    }

    fn remove_term(&self, term: u64) -> Result<()> {
        durable_step("files.old_term");
        let path = self.term_path(term);
        fs::remove_file(&path).map_err(|e| failed(&path, e))
    }

    fn terms(&self) -> Result<Vec<Term>> {
        let own = self.own_folder();
        names(&own)?.iter().filter(|name| name.starts_with(TERM)).map(|name| read(&own.join(name))).collect()
    }

    /// The manifests in the order of their epochs; those of another query or of a newer run are refused.
    fn read_manifests(&self) -> Result<Vec<Manifest>> {
        let own = self.own_folder();
        let mut manifests: Vec<Manifest> = Vec::new();
        for name in names(&own)?.iter().filter(|name| name.ends_with(".json") && !name.starts_with('.')) {
            manifests.push(read(&own.join(name))?);
        }
        if manifests.iter().any(|manifest| manifest.query != self.writer.query) {
            return Err(holds_earlier_results(&self.folder));
        }
        if manifests.iter().any(|manifest| manifest.term > self.writer.term) {
            return Err(taken_over(&format!("folder {}", self.folder.display())));
        }
        manifests.sort_by_key(|manifest| manifest.epoch);
        Ok(manifests)
    }

    fn remove_temporary_files(&self) -> Result<()> {
        for folder in [self.folder.clone(), self.own_folder()] {
            for name in names(&folder)?.iter().filter(|name| is_temporary(name)) {
                durable_step("files.remove_temporary");
                let path = folder.join(name);
                fs::remove_file(&path).map_err(|e| failed(&path, e))?;
            }
        }
        Ok(())
    }

    fn own_folder(&self) -> PathBuf {
        self.folder.join(FOLDER)
    }

    fn term_path(&self, term: u64) -> PathBuf {
        self.own_folder().join(term_name(term))
    }
}

fn term_name(term: u64) -> String {
    format!("{TERM}{term:010}")
}

/// Whether this sink gave a file its name: `.part-….tmp`, or `.0000000012.json.tmp` and `.term-….tmp` of the ledger.
fn is_temporary(name: &str) -> bool {
    let is_own = |rest: &str| rest.starts_with("part-") || rest.starts_with(TERM) || rest.ends_with(".json.tmp");
    name.strip_prefix('.').is_some_and(|rest| rest.ends_with(".tmp") && is_own(rest))
}

/// Makes a file that is whole from the moment it is there; false if one of its name is there already.
fn create_whole(folder: &Path, name: &str, content: &impl Serialize) -> Result<bool> {
    let (path, temporary) = (folder.join(name), folder.join(format!(".{name}.tmp")));
    let text = serde_json::to_vec(content).map_err(|e| Error::internal(format!("a manifest has no JSON: {e}")))?;
    let write = || {
        let mut file = File::create(&temporary)?;
        file.write_all(&text)?;
        file.sync_all()
    };
    when_there_is_room(|| write().map_err(|e| failed(&path, e)))?;
    let link = || {
        durable_step("files.link");
        let is_new = match fs::hard_link(&temporary, &path) {
            Ok(()) => true,
            Err(error) if error.kind() == ErrorKind::AlreadyExists => false,
            Err(error) => return Err(error),
        };
        fs::remove_file(&temporary)?;
        Ok(is_new)
    };
    let is_new = link().map_err(|e: io::Error| failed(&path, e))?;
    durable_step("files.sync_manifest");
    sync_folder(folder)?;
    Ok(is_new)
}

fn read<T: for<'a> Deserialize<'a>>(path: &Path) -> Result<T> {
    let text = fs::read(path).map_err(|e| Error::external(format!("reading {}", path.display()), e))?;
    serde_json::from_slice(&text).map_err(|error| {
        let message = format!("{} is not a manifest of this program: {error}", path.display());
        Error::state(message, "name another path for the sink")
    })
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let list = || -> io::Result<Vec<String>> {
        fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
    };
    list().map_err(|e| Error::external(format!("listing folder {}", folder.display()), e))
}

/// The length of a file in bytes; `None` if there is none.
fn size(path: &Path) -> Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.len())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::external(format!("looking at {}", path.display()), error)),
    }
}

/// Refuses a folder with files that this sink would take for epochs of its own.
fn refuse_parts(folder: &Path) -> Result<()> {
    if folder.is_dir() && names(folder)?.iter().any(|name| name.starts_with("part-")) {
        return Err(holds_earlier_results(folder));
    }
    Ok(())
}

fn holds_earlier_results(folder: &Path) -> Error {
    let message = format!("folder {} holds the results of an earlier run", folder.display());
    Error::query(message, "remove them together with the folder _manifest, or name another path")
}

fn damaged(path: &Path, what: &str, epoch: Epoch) -> Error {
    let message = format!("file {}, which epoch {epoch} was written to, {what}", path.display());
    Error::state(message, "put the file back as it was, or name another path and run the query anew")
}
