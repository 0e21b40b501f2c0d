//! The ledger of a folder: `_manifest/0000000012.json` says that epoch 12 is in, and which files hold it;
//! `_manifest/0000000003-0000000012.json` that epochs 3 to 12 are in one file, in place of what was said of each.
//!
//! A manifest is made whole and at once, by a hard link that fails if the epoch is there already. What a crash leaves
//! half done after that, the next `begin` completes; what it leaves before, `begin` takes away. Who may write is a
//! matter of `reign`.

use std::fs;
use std::path::{Path, PathBuf};

use millstream_engine::batch::Epoch;
use millstream_engine::durable::durable_step;
use millstream_engine::sink::SinkWriter;
use millstream_engine::{Error, Result};

use super::super::when_there_is_room;
use super::disk::{make_folder, names, read, remove, size, sync_folder};
use super::failed;
use super::manifest::{Manifest, ManifestFile, temporary_name};
use super::reign::{Reign, is_temporary_entry};

/// What the names of this sink's files begin with.
const PART: &str = "part-";

/// The ledger of one folder under one writer.
#[derive(Debug)]
pub(super) struct Ledger {
    folder: PathBuf,
    reign: Reign,
    last: Option<Epoch>,
    /// What was there at the begin.
    found: Vec<Manifest>,
}

impl Ledger {
    /// Begins the writer's reign over `folder`, which is made if need be, and mends what a crash left half done.
    pub(super) fn begin(folder: &Path, writer: &SinkWriter) -> Result<Self> {
        let reign = Reign::new(folder, writer);
        let own = reign.ledger_folder();
        if !own.is_dir() {
            refuse_parts(folder)?;
            durable_step("files.folder");
        }
        make_folder(&own)?;
        let mut ledger = Self { folder: folder.to_owned(), reign, last: None, found: Vec::new() };
        ledger.read_manifests()?;
        // The order of these steps is what `reign` relies on.
        ledger.reign.take()?;
        ledger.reign.remove_left(&own, is_temporary_entry)?;
        ledger.found = ledger.mend()?;
        ledger.reign.remove_left(folder, is_temporary_part)?;
        ledger.last = ledger.found.iter().map(|manifest| manifest.epoch).max();
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

    /// Who writes.
    pub(super) const fn writer(&self) -> &SinkWriter {
        self.reign.writer()
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
        let SinkWriter { query, term } = self.writer().clone();
        let manifest = Manifest { query, term, first, epoch, files: vec![file] };
        self.reign.enter(&manifest)?;
        self.complete(&manifest)?;
        Ok(manifest)
    }

    /// Does what a crash left undone of the manifests; gives those that count, oldest first.
    fn mend(&self) -> Result<Vec<Manifest>> {
        // Read again: the writer before may have committed until it was refused.
        let manifests = self.read_manifests()?;
        if manifests.is_empty() {
            refuse_parts(&self.folder)?;
        }
        let (replaced, manifests): (Vec<_>, Vec<_>) = manifests
            .iter()
            .cloned()
            .partition(|manifest| manifests.iter().any(|other| manifest.is_replaced_by(other)));
        for manifest in &manifests {
            self.complete(manifest)?;
        }
        replaced.iter().try_for_each(|manifest| self.remove(manifest))?;
        Ok(manifests)
    }

    /// Removes the files of a manifest that is replaced, then itself.
    fn remove(&self, manifest: &Manifest) -> Result<()> {
        let files = manifest.files.iter().map(|file| self.folder.join(&file.name));
        for path in files.chain(std::iter::once(self.reign.ledger_folder().join(manifest.name()))) {
            durable_step("files.remove");
            remove(&path)?;
        }
        Ok(())
    }

    /// Gives the files of a committed epoch their names, and checks those that have them.
    fn complete(&self, manifest: &Manifest) -> Result<()> {
        for file in &manifest.files {
            let path = self.folder.join(&file.name);
            if size(&path)?.is_none() {
                let temporary = self.folder.join(temporary_name(&file.name, &manifest.writer()));
                if size(&temporary)?.is_none() {
                    return Err(damaged(&path, "is missing", manifest.epoch));
                }
                durable_step("files.rename");
                when_there_is_room(|| fs::rename(&temporary, &path).map_err(|e| failed(&path, e)))?;
                durable_step("files.sync_folder");
                sync_folder(&self.folder)?;
            }
            if size(&path)? != Some(file.bytes) {
                return Err(damaged(&path, &format!("does not have its {} bytes", file.bytes), manifest.epoch));
            }
        }
        Ok(())
    }

    /// The manifests in the order of their epochs; those of another query or of a newer run are refused.
    fn read_manifests(&self) -> Result<Vec<Manifest>> {
        let (own, writer) = (self.reign.ledger_folder(), self.writer());
        let mut manifests: Vec<Manifest> = Vec::new();
        for name in names(&own)?.iter().filter(|name| name.ends_with(".json") && !name.starts_with('.')) {
            manifests.extend(read::<Manifest>(&own.join(name))?);
        }
        if manifests.iter().any(|manifest| manifest.query != writer.query) {
            return Err(holds_earlier_results(&self.folder));
        }
        if manifests.iter().any(|manifest| manifest.term > writer.term) {
            return Err(self.reign.taken_over());
        }
        manifests.sort_by_key(|manifest| manifest.epoch);
        Ok(manifests)
    }
}

/// Whether a name in the folder is one that a part has before its commit.
fn is_temporary_part(name: &str) -> bool {
    name.strip_prefix('.').is_some_and(|rest| rest.starts_with(PART) && rest.ends_with(".tmp"))
}

/// Refuses a folder with files that this sink would take for epochs of its own.
fn refuse_parts(folder: &Path) -> Result<()> {
    if folder.is_dir() && names(folder)?.iter().any(|name| name.starts_with(PART)) {
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
