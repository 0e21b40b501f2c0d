//! Who writes to a folder: `_manifest/term-0000000003` names the query, and a writer whose file is gone is refused.
//!
//! Between two writers no epoch is lost and none is written twice. A writer makes a temporary manifest, then looks
//! whether its term is still there, then links the manifest to its name. The next writer takes that term away, then
//! removes the temporary manifests that it finds, then reads the manifests. So whoever still found its term had made
//! its temporary manifest before the next one looked for any: either its link came before the removal, and the next
//! one reads the manifest, or it comes after, and fails as there is nothing left to link.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use millstream_engine::durable::durable_step;
use millstream_engine::sink::SinkWriter;
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::super::{taken_over, when_there_is_room};
use super::disk::{names, read, remove, sync_folder, write_synced};
use super::failed;
use super::manifest::{Manifest, temporary_name};

const FOLDER: &str = "_manifest";
const TERM: &str = "term-";

/// A writer's reign over a folder.
#[derive(Debug)]
pub(super) struct Reign {
    folder: PathBuf,
    writer: SinkWriter,
}

/// Who has begun a reign over the folder.
#[derive(Debug, Serialize, Deserialize)]
struct Term {
    query: String,
    term: u64,
}

impl Reign {
    /// The reign of `writer` over `folder`, which is still to be taken.
    pub(super) fn new(folder: &Path, writer: &SinkWriter) -> Self {
        Self { folder: folder.to_owned(), writer: writer.clone() }
    }

    /// Whose it is.
    pub(super) const fn writer(&self) -> &SinkWriter {
        &self.writer
    }

    /// Where terms and manifests are.
    pub(super) fn ledger_folder(&self) -> PathBuf {
        self.folder.join(FOLDER)
    }

    /// Writes the term and takes all others away; those of other queries are of runs that have written nothing.
    ///
    /// # Errors
    /// Refuses a writer that is older than another one of its query.
    pub(super) fn take(&self) -> Result<()> {
        let before = self.terms()?;
        self.refuse_older(&before)?;
        // One of them may have the number of ours, and so its name.
        self.remove_terms(before.iter().filter(|term| self.is_foreign(term)))?;
        self.write_term()?;
        // Of two writers that begin at once, the one that lists later finds the term of the other.
        let now = self.terms()?;
        self.refuse_older(&now)?;
        self.remove_terms(now.iter().filter(|term| self.is_foreign(term) || term.term < self.writer.term))?;
        sync_folder(&self.ledger_folder())
    }

    /// Checks that it is not over.
    ///
    /// # Errors
    /// Says who has taken the folder.
    pub(super) fn check(&self) -> Result<()> {
        let term = read::<Term>(&self.term_path(self.writer.term))?;
        if term.is_some_and(|term| !self.is_foreign(&term)) { Ok(()) } else { Err(self.over()) }
    }

    /// Enters a manifest, which counts from then on.
    ///
    /// # Errors
    /// Refuses a writer whose reign is over.
    pub(super) fn enter(&self, manifest: &Manifest) -> Result<()> {
        durable_step("files.manifest");
        let temporary = self.prepare(&manifest.name(), manifest)?;
        self.check()?;
        if self.link(&temporary, &manifest.name())? { Ok(()) } else { Err(self.over()) }
    }

    /// Removes files of `folder` that earlier reigns have left, which `is_left` tells by their names.
    ///
    /// They are listed before the check: a later reign takes this one's term away before it makes files, so that none
    /// of its files is among them.
    pub(super) fn remove_left(&self, folder: &Path, is_left: impl Fn(&str) -> bool) -> Result<()> {
        let found = names(folder)?;
        self.check()?;
        for name in found.iter().filter(|name| is_left(name)) {
            durable_step("files.remove_temporary");
            remove(&folder.join(name))?;
        }
        Ok(())
    }

    fn write_term(&self) -> Result<()> {
        let SinkWriter { query, term } = self.writer.clone();
        let name = term_name(term);
        durable_step("files.term");
        let temporary = self.prepare(&name, &Term { query, term })?;
        // One that is there is ours, or of a query that begins at this moment.
        if self.link(&temporary, &name)? { Ok(()) } else { self.check() }
    }

    /// Makes a file of the ledger, whole and safe, under its temporary name.
    fn prepare(&self, name: &str, content: &impl Serialize) -> Result<PathBuf> {
        let temporary = self.ledger_folder().join(temporary_name(name, &self.writer));
        write_synced(&temporary, content)?;
        Ok(temporary)
    }

    /// Gives a file of the ledger its name; false if one of the name is there.
    fn link(&self, temporary: &Path, name: &str) -> Result<bool> {
        let folder = self.ledger_folder();
        let path = folder.join(name);
        durable_step("files.link");
        let is_new = when_there_is_room(|| match fs::hard_link(temporary, &path) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
            // The next writer has removed the temporary file.
            Err(error) if error.kind() == ErrorKind::NotFound => Err(self.over()),
            Err(error) => Err(failed(&path, error)),
        })?;
        remove(temporary)?;
        durable_step("files.sync_manifest");
        sync_folder(&folder)?;
        Ok(is_new)
    }

    fn refuse_older(&self, terms: &[Term]) -> Result<()> {
        let is_newer = |term: &Term| !self.is_foreign(term) && term.term > self.writer.term;
        if terms.iter().any(is_newer) { Err(self.taken_over()) } else { Ok(()) }
    }

    fn remove_terms<'a>(&self, terms: impl Iterator<Item = &'a Term>) -> Result<()> {
        for term in terms {
            durable_step("files.old_term");
            remove(&self.term_path(term.term))?;
        }
        Ok(())
    }

    fn terms(&self) -> Result<Vec<Term>> {
        let folder = self.ledger_folder();
        let mut terms = Vec::new();
        for name in names(&folder)?.iter().filter(|name| name.starts_with(TERM)) {
            terms.extend(read::<Term>(&folder.join(name))?);
        }
        Ok(terms)
    }

    fn is_foreign(&self, term: &Term) -> bool {
        term.query != self.writer.query
    }

    fn term_path(&self, term: u64) -> PathBuf {
        self.ledger_folder().join(term_name(term))
    }

    /// Why this reign is over.
    fn over(&self) -> Error {
        match self.terms() {
            Ok(terms) if terms.iter().any(|term| self.is_foreign(term)) => {
                let message = format!("folder {}: another query has begun to write there", self.folder.display());
                Error::state(message, "give each query a sink with a path of its own")
            }
            Ok(_) => self.taken_over(),
            Err(error) => error,
        }
    }

    /// The error of a writer whose place a newer one of its query has taken.
    pub(super) fn taken_over(&self) -> Error {
        taken_over(&format!("folder {}", self.folder.display()))
    }
}

fn term_name(term: u64) -> String {
    format!("{TERM}{term:010}")
}

/// Whether a name in the ledger's folder is a temporary one: `.0000000012.json.….tmp` or `.term-….tmp`.
pub(super) fn is_temporary_entry(name: &str) -> bool {
    let is_own = |rest: &str| rest.starts_with(TERM) || rest.contains(".json.");
    name.strip_prefix('.').is_some_and(|rest| rest.ends_with(".tmp") && is_own(rest))
}

#[cfg(test)]
mod tests {
    use tempfile::{TempDir, tempdir};

    use super::super::super::tests::writer;
    use super::super::disk::make_folder;
    use super::*;

    const NAME: &str = "0000000000.json";

    fn folder() -> TempDir {
        let folder = tempdir().unwrap();
        make_folder(&folder.path().join(FOLDER)).unwrap();
        folder
    }

    fn taken(folder: &TempDir, query: &str, term: u64) -> Reign {
        let reign = Reign::new(folder.path(), &writer(query, term));
        reign.take().unwrap();
        reign
    }

    /// Checks that a writer that is overtaken between its check and its link links nothing.
    fn check_overtaken(next: (&str, u64), expected: &str) {
        let folder = folder();
        let old = taken(&folder, "q", 1);
        let temporary = old.prepare(NAME, &"an epoch").unwrap();
        old.check().unwrap();
        let new = taken(&folder, next.0, next.1);
        new.remove_left(&new.ledger_folder(), is_temporary_entry).unwrap();
        let error = old.link(&temporary, NAME).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!new.ledger_folder().join(NAME).exists());
    }

    #[test]
    fn a_link_after_the_next_writer_has_begun_fails() {
        check_overtaken(("q", 2), "a newer run of this query has taken over");
        check_overtaken(("other", 1), "another query has begun to write there");
        check_overtaken(("other", 2), "another query has begun to write there");
    }

    #[test]
    fn a_link_before_the_next_writer_removes_what_is_left_stays() {
        let folder = folder();
        let old = taken(&folder, "q", 1);
        let temporary = old.prepare(NAME, &"an epoch").unwrap();
        let new = taken(&folder, "q", 2);
        assert!(old.link(&temporary, NAME).unwrap());
        new.remove_left(&new.ledger_folder(), is_temporary_entry).unwrap();
        assert_eq!(read::<String>(&new.ledger_folder().join(NAME)).unwrap().as_deref(), Some("an epoch"));
    }

    #[test]
    fn a_begin_that_was_overtaken_removes_nothing() {
        let folder = folder();
        let old = taken(&folder, "q", 1);
        let new = taken(&folder, "q", 2);
        let temporary = new.prepare(NAME, &"an epoch").unwrap();
        let error = old.remove_left(&old.ledger_folder(), is_temporary_entry).unwrap_err();
        assert!(error.to_string().contains("a newer run of this query has taken over"), "{error}");
        assert!(new.link(&temporary, NAME).unwrap());
        let error = Reign::new(folder.path(), &writer("q", 1)).take().unwrap_err();
        assert!(error.to_string().contains("a newer run of this query has taken over"), "{error}");
    }
}
