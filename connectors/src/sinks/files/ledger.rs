//! The ledger of a folder: `_manifest/0000000012.json` says that epoch 12 is in, and which files hold it.
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
    pub(super) epoch: Epoch,
    pub(super) files: Vec<ManifestFile>,
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
}

impl Ledger {
    /// Begins the writer's reign over `folder`, which is made if need be, and mends what a crash left half done.
    pub(super) fn begin(folder: &Path, writer: &SinkWriter) -> Result<Self> {
        let mut ledger = Self { folder: folder.to_owned(), writer: writer.clone(), last: None };
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
        for manifest in &manifests {
            ledger.complete(manifest)?;
        }
        ledger.remove_temporary_files()?;
        ledger.last = manifests.iter().map(|manifest| manifest.epoch).max();
        Ok(ledger)
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
    pub(super) fn commit(&mut self, epoch: Epoch, file: ManifestFile) -> Result<()> {
        let term_path = self.term_path(self.writer.term);
        if !term_path.exists() {
            return Err(taken_over(&format!("folder {}", self.folder.display())));
        }
        let manifest = Manifest { query: self.writer.query.clone(), term: self.writer.term, epoch, files: vec![file] };
        durable_step("files.manifest");
        if !create_whole(&self.own_folder(), &manifest_name(epoch), &manifest)? {
            return Err(taken_over(&format!("folder {}", self.folder.display())));
        }
        self.complete(&manifest)?;
        self.last = Some(epoch);
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

fn manifest_name(epoch: Epoch) -> String {
    format!("{:010}.json", epoch.0)
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
