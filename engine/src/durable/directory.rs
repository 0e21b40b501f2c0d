//! The state directory: which queries there are, under ids that no later namesake inherits.
//!
//! ```text
//! format.json                 who may read and write this; never changes
//! lock                        held by the process that runs queries of it; none on an object store
//! catalog/*.log               names → ids, and what was dropped
//! queries/ID/query.json       what the state means as the query is first started; never changes
//!            terms/N          made by the Nth driver, which has not seen N + 1
//!            journal/*.log    intents and commits of epochs
//!            inputs/NAME/*.log  what sources noted about their input
//!            checkpoints/N.json manifests
//!            state/*.parquet  pane state, named by manifests
//! streams/ID/wal/*.wal        rows of streams that cannot be read again
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions, TryLockError};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::checkpoint_files::{KEPT_CHECKPOINTS, read_manifests};
use super::files::{Durability, Files};
use super::journal::{Journal, failed};
use super::object_files::CONDITIONAL_PUT;
use super::place::StatePlace;
use super::query_store::file_name;
use super::record::{corrupt, read_single, write_single};
use super::terms::taking_over;
use super::wal::{Need, SharedWal, WAL_LIMIT_BYTES};
use crate::error::{Error, Result};
use crate::source::Offset;

/// The version of the layout that this program writes, and the oldest that it reads.
const FORMAT_VERSION: u32 = 1;

/// How long to ask for the lock: a process that was just killed holds it until the system has taken it down.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Between two times of asking.
const LOCK_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, Serialize, Deserialize)]
struct Format {
    format: String,
    /// The least version of the layout that a program must know to read this …
    reader_min: u32,
    /// … and to write it.
    writer_min: u32,
    /// What a program must know besides.
    features: Vec<String>,
}

/// An entry of the catalog.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum CatalogEntry {
    Query { name: String, id: String },
    Stream { name: String, contract: String, id: String },
    Dropped { id: String },
}

impl CatalogEntry {
    fn id(&self) -> &str {
        match self {
            Self::Query { id, .. } | Self::Stream { id, .. } | Self::Dropped { id } => id,
        }
    }
}

/// A state directory that this process owns.
#[derive(Debug)]
pub struct StateDirectory {
    files: Arc<dyn Files>,
    catalog: Mutex<Catalog>,
    /// What the log of a stream keeps before its input waits, in bytes.
    log_limit: u64,
    /// Unlocked when it is closed, however the process ends; none on object stores and simulated disks.
    _lock: Option<File>,
}

#[derive(Debug)]
struct Catalog {
    journal: Journal,
    /// Ids of queries by name.
    queries: BTreeMap<String, String>,
    /// Ids of streams by name and contract.
    streams: BTreeMap<(String, String), String>,
    /// Logs of streams that are open, by id.
    wals: BTreeMap<String, SharedWal>,
}

impl StateDirectory {
    /// Opens the state directory at `place`, or makes it.
    ///
    /// # Errors
    /// Fails if another process has it open, if it is damaged or of another version, and as the disk fails.
    pub fn open(place: &StatePlace, durability: Durability) -> Result<Self> {
        let (files, lock) = place.open(durability)?;
        Self::on(files, lock)
    }

    /// Opens the state directory on a disk that nobody else uses, or makes it.
    ///
    /// # Errors
    /// As [`StateDirectory::open`].
    pub fn on(files: Arc<dyn Files>, lock: Option<File>) -> Result<Self> {
        check_format(files.as_ref(), true)?;
        let open = || Journal::open::<CatalogEntry>(&files, "catalog", "catalog");
        let (journal, entries) = taking_over(files.as_ref(), open)?;
        let mut catalog =
            Catalog { journal, queries: BTreeMap::new(), streams: BTreeMap::new(), wals: BTreeMap::new() };
        check_orphans(files.as_ref(), entries.iter().map(|entry| entry.value.id()))?;
        entries.into_iter().for_each(|entry| catalog.enter(entry.value));
        Ok(Self { files, catalog: Mutex::new(catalog), log_limit: WAL_LIMIT_BYTES, _lock: lock })
    }

    /// The same directory with logs that keep so many bytes of a stream before its input waits; 4 GiB unless set.
    #[must_use]
    pub fn with_log_limit(mut self, bytes: u64) -> Self {
        self.log_limit = bytes;
        self
    }

    /// The disk.
    pub(crate) const fn files(&self) -> &Arc<dyn Files> {
        &self.files
    }

    fn catalog(&self) -> MutexGuard<'_, Catalog> {
        self.catalog.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The id of the query `name`; a new one unless it is known.
    pub(crate) fn query_id(&self, name: &str) -> Result<String> {
        let mut catalog = self.catalog();
        if let Some(id) = catalog.queries.get(name) {
            return Ok(id.clone());
        }
        let id = new_id();
        catalog.append(CatalogEntry::Query { name: name.to_owned(), id: id.clone() })?;
        Ok(id)
    }

    /// The queries by name, with their ids.
    pub fn queries(&self) -> BTreeMap<String, String> {
        self.catalog().queries.clone()
    }

    /// The first row of a stream with one partition that some query, running or not, may have to read again, from its
    /// oldest checkpoint on; none if no query does.
    ///
    /// # Errors
    /// As the disk fails.
    pub fn needed_from(&self, stream: &str) -> Result<Option<Offset>> {
        let mut needed: Option<Offset> = None;
        for id in self.queries().values() {
            let folder = format!("queries/{id}");
            let inputs = format!("{folder}/inputs");
            let read = self.files.list(&inputs).map_err(|error| failed(self.files.as_ref(), &inputs, error))?;
            if !read.contains(&file_name(stream)) {
                continue;
            }
            let manifests = read_manifests(self.files.as_ref(), &folder)?;
            // With fewer it may have to begin again.
            let oldest = if manifests.len() < KEPT_CHECKPOINTS { None } else { manifests.into_iter().next() };
            let place = oldest.and_then(|(_, manifest)| manifest.ok()?.streams.get(stream)?.offsets.first().copied());
            needed = Some(needed.unwrap_or(Offset(u64::MAX)).min(place.unwrap_or(Offset(0))));
        }
        Ok(needed)
    }

    /// Forgets the query `name`: the next one of that name begins anew; whether there was one.
    ///
    /// # Errors
    /// As the disk fails.
    pub fn forget_query(&self, name: &str) -> Result<bool> {
        let mut catalog = self.catalog();
        let Some(id) = catalog.queries.get(name).cloned() else { return Ok(false) };
        catalog.append(CatalogEntry::Dropped { id })?;
        Ok(true)
    }

    /// Whether a query has ever read a log of the stream `name`; one whose notes are damaged may have.
    fn has_read(&self, query: &str, name: &str, wal: &SharedWal) -> bool {
        let folder = format!("queries/{query}/inputs/{}", file_name(name));
        match Journal::inspect::<String>(&self.files, &folder, query) {
            Ok((notes, _)) => notes.iter().any(|note| note.value == wal.note()),
            Err(_) => true,
        }
    }

    /// The log of a stream that cannot be read again; its writes survive what the directory's do unless `durability`
    /// says something else.
    pub(crate) fn wal(&self, name: &str, contract: &str, durability: Option<Durability>) -> Result<SharedWal> {
        let mut catalog = self.catalog();
        let key = (name.to_owned(), contract.to_owned());
        let id = match catalog.streams.get(&key) {
            Some(id) => id.clone(),
            None => {
                let id = new_id();
                let (name, contract) = key;
                catalog.append(CatalogEntry::Stream { name, contract, id: id.clone() })?;
                id
            }
        };
        if let Some(wal) = catalog.wals.get(&id) {
            return Ok(wal.clone());
        }
        let files = durability.and_then(|durability| self.files.surviving(durability));
        let files = files.unwrap_or_else(|| Arc::clone(&self.files));
        let folder = format!("streams/{id}/wal");
        let wal = taking_over(files.as_ref(), || SharedWal::open(&files, &folder, self.log_limit))?;
        for (reader, query) in &catalog.queries {
            if self.has_read(query, name, &wal) {
                // It may need all of it; if it runs, it says more.
                wal.hold(query, Need { name: reader.clone(), from: 0, is_running: false });
            }
        }
        catalog.wals.insert(id, wal.clone());
        Ok(wal)
    }
}

impl Catalog {
    fn append(&mut self, entry: CatalogEntry) -> Result<()> {
        self.journal.append(&entry)?;
        self.journal.sync()?;
        self.enter(entry);
        Ok(())
    }

    fn enter(&mut self, entry: CatalogEntry) {
        match entry {
            CatalogEntry::Query { name, id } => {
                self.queries.insert(name, id);
            }
            CatalogEntry::Stream { name, contract, id } => {
                self.streams.insert((name, contract), id);
            }
            CatalogEntry::Dropped { id } => {
                self.queries.retain(|_, known| *known != id);
                self.streams.retain(|_, known| *known != id);
            }
        }
    }
}

fn new_id() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// The names of the queries in a directory that is left as it is, with their ids.
pub(crate) fn list_queries(files: &Arc<dyn Files>) -> Result<Vec<(String, String)>> {
    check_format(files.as_ref(), false)?;
    let (entries, _) = Journal::inspect::<CatalogEntry>(files, "catalog", "catalog")?;
    check_orphans(files.as_ref(), entries.iter().map(|entry| entry.value.id()))?;
    let mut queries = BTreeMap::new();
    for entry in entries {
        match entry.value {
            CatalogEntry::Query { name, id } => {
                queries.insert(id, name);
            }
            CatalogEntry::Dropped { id } => {
                queries.remove(&id);
            }
            CatalogEntry::Stream { .. } => {}
        }
    }
    Ok(queries.into_iter().map(|(id, name)| (name, id)).collect())
}

/// Refuses a catalog that does not know what is kept: an entry is durable before its folder is made.
fn check_orphans<'a>(files: &dyn Files, known: impl Iterator<Item = &'a str>) -> Result<()> {
    let known: BTreeSet<&str> = known.collect();
    for folder in ["queries", "streams"] {
        let ids = files.list(folder).map_err(|error| failed(files, folder, error))?;
        if let Some(orphan) = ids.iter().find(|id| !known.contains(id.as_str())) {
            let place = Journal::last_place(files, "catalog")?;
            let (place, length) = (files.describe(&place.0), place.1);
            return Err(corrupt(&place, length, &format!("the entry of {folder}/{orphan} is missing")));
        }
    }
    Ok(())
}

/// The ids of the streams with a log.
pub(crate) fn list_streams(files: &Arc<dyn Files>) -> Result<Vec<String>> {
    files.list("streams").map_err(|error| failed(files.as_ref(), "streams", error))
}

fn check_format(files: &dyn Files, may_make: bool) -> Result<()> {
    let fail = |error| failed(files, "format.json", error);
    let bytes = match files.read("format.json") {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && may_make => return make_format(files),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let message = format!("{} is no state directory", files.describe(""));
            return Err(Error::state(message, "name the folder that was given to --state-dir"));
        }
        Err(error) => return Err(fail(error)),
    };
    let format: Format = read_single(&files.describe("format.json"), &bytes)?;
    if format.format != "millstream-state" || format.reader_min > FORMAT_VERSION || !format.features.is_empty() {
        let message = format!(
            "{} needs a program that knows version {} of state directories{}; this one knows {FORMAT_VERSION}",
            files.describe(""),
            format.reader_min,
            if format.features.is_empty() { String::new() } else { format!(" and {}", format.features.join(", ")) },
        );
        return Err(Error::state(message, "use a newer millstream"));
    }
    Ok(())
}

fn make_format(files: &dyn Files) -> Result<()> {
    let fail = |error| failed(files, "format.json", error);
    let names = files.list("").map_err(fail)?;
    // A crash may leave the file that would have become the format's.
    let is_own =
        |name: &str| name == "lock" || name == CONDITIONAL_PUT || name.starts_with("format.") && name.ends_with(".tmp");
    if let Some(foreign) = names.iter().find(|name| !is_own(name)) {
        let message = format!("{} is no state directory: it holds {foreign:?}", files.describe(""));
        return Err(Error::state(message, "name an empty folder, or one that does not exist yet"));
    }
    let format = Format {
        format: "millstream-state".to_owned(),
        reader_min: FORMAT_VERSION,
        writer_min: FORMAT_VERSION,
        features: Vec::new(),
    };
    files.create("format.json", &write_single(&format)?).map_err(fail)?;
    Ok(())
}

/// Locks the directory for this process.
pub(super) fn lock(path: &Path) -> Result<File> {
    let place = path.join("lock");
    let fail = |error| Error::external(format!("locking {}", place.display()), error);
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&place).map_err(fail)?;
    let asked = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => break,
            Err(TryLockError::WouldBlock) if asked.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_PAUSE),
            Err(TryLockError::WouldBlock) => {
                let holder = std::fs::read_to_string(&place).unwrap_or_default();
                let message = format!("state directory {} is in use by process {}", path.display(), holder.trim());
                return Err(Error::InUse { message, hint: "stop that process, or name another directory".to_owned() });
            }
            Err(TryLockError::Error(error)) => return Err(fail(error)),
        }
    }
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(fail)?;
    Ok(file)
}
