//! State on an object store, such as S3: whole objects in place of files, and chunks in place of appends.
//!
//! ```text
//! queries/ID/terms/1                              a whole file is an object
//! queries/ID/journal/000….log.chunks/0000000000   a file that grows is a folder of chunks, one for each sync
//! queries/ID/journal/000….log.chunks/0000000001
//! queries/ID/journal/000….log.removed             its chunks are being deleted: it counts as gone
//! ```
//!
//! A put only ever makes a new object (`If-None-Match: *`), which is what fences writers: of two that believe a file to
//! be theirs, the second to put a chunk of that number is refused and stops. A chunk begins with 16 bytes that say who
//! wrote it, so that a put whose answer was lost, and which is sent again, is not taken for somebody else's.
//!
//! Nothing is ever torn here: an object is there whole or not at all, and what was put outlasts power cuts.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::future::ready;
use std::io::{self, ErrorKind};
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use datafusion::object_store::path::Path;
use datafusion::object_store::{
    Error as StoreError, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
    Result as StoreResult,
};
use futures::{StreamExt, TryStreamExt};
use tokio::runtime::{Builder, Runtime};

use super::crash::durable_step;
use super::files::{AppendFile, Files};

/// The bytes at the beginning of a chunk that say who wrote it.
const WRITER_BYTES: usize = 16;
/// The name of the first chunk of a file.
const FIRST_CHUNK: &str = "0000000000";
/// Before a put is sent again.
const PUT_PAUSE: Duration = Duration::from_millis(500);
/// How many chunks are fetched side by side.
const FETCHES: usize = 16;
/// The end of the name of a folder of chunks.
const CHUNKS: &str = ".chunks";
/// The end of the name of the object that says that a file is being removed.
const REMOVED: &str = ".removed";
/// The object that shows that the store refuses to overwrite.
pub(super) const CONDITIONAL_PUT: &str = "conditional-put";

/// The objects below one prefix of a store.
#[derive(Debug, Clone)]
pub struct ObjectFiles {
    store: Arc<dyn ObjectStore>,
    prefix: Path,
    /// How users write the prefix.
    name: String,
    /// Different for every process and every time one opens the store.
    writer: [u8; WRITER_BYTES],
    /// How long a put that has no answer is sent again.
    patience: Duration,
    requests: Arc<Requests>,
}

/// A thread of its own for requests: they are waited for in places that may belong to any runtime or none.
#[derive(Debug)]
struct Requests(Option<Runtime>);

impl Drop for Requests {
    fn drop(&mut self) {
        // Waiting for its thread would panic within another runtime.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

impl ObjectFiles {
    /// The objects of `store` below `prefix`, which users know as `name`.
    ///
    /// # Errors
    /// Fails if there is no thread for requests.
    pub fn new(store: Arc<dyn ObjectStore>, prefix: Path, name: impl Into<String>) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("state-store").enable_all().build()?;
        Ok(Self {
            store,
            prefix,
            name: name.into(),
            writer: uuid::Uuid::new_v4().into_bytes(),
            patience: Duration::ZERO,
            requests: Arc::new(Requests(Some(runtime))),
        })
    }

    /// The same objects with puts that are sent again for so long while they have no answer; they are not unless set.
    #[must_use]
    pub const fn with_patience(mut self, patience: Duration) -> Self {
        self.patience = patience;
        self
    }

    /// Makes sure that the store refuses to overwrite an object when it is told so.
    ///
    /// # Errors
    /// Fails if it does not, and if it cannot be reached.
    pub(super) fn check_conditional_put(&self) -> io::Result<()> {
        self.create(CONDITIONAL_PUT, b"written once")?;
        if self.create(CONDITIONAL_PUT, b"written twice")? {
            return Err(io::Error::other(
                "the store overwrites an object that is only to be made anew: it does not know If-None-Match",
            ));
        }
        Ok(())
    }

    fn path(&self, path: &str) -> io::Result<Path> {
        let path = [self.prefix.as_ref(), path].iter().filter(|part| !part.is_empty()).copied().collect::<Vec<_>>();
        Path::parse(path.join("/")).map_err(io::Error::other)
    }

    /// Waits for a request.
    fn wait<T: Send + 'static>(&self, request: impl Future<Output = StoreResult<T>> + Send + 'static) -> io::Result<T> {
        let Some(runtime) = &self.requests.0 else { return Err(io::Error::other("the store is closed")) };
        let (sender, receiver) = sync_channel(1);
        runtime.spawn(async move {
            // Nobody waits for an answer once the process ends.
            let _ = sender.send(request.await);
        });
        let answer = receiver.recv().map_err(|_| io::Error::other("a request to the store was given up"))?;
        answer.map_err(into_io)
    }

    fn get(&self, path: Path) -> io::Result<Vec<u8>> {
        let store = Arc::clone(&self.store);
        self.wait(async move { Ok(store.get(&path).await?.bytes().await?.into()) })
    }

    /// Makes an object; false if there is another one of that name, which stays.
    ///
    /// A put whose answer is lost is sent again, which the store's client does not dare: it may find itself there.
    fn put_new(&self, path: &Path, bytes: Vec<u8>) -> io::Result<bool> {
        let begun = Instant::now();
        loop {
            let (store, target, payload) = (Arc::clone(&self.store), path.clone(), PutPayload::from(bytes.clone()));
            let options = PutOptions::from(PutMode::Create);
            let failure = match self.wait(async move { store.put_opts(&target, payload, options).await }) {
                Ok(_) => return Ok(true),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => match self.get(path.clone()) {
                    Ok(there) => return Ok(there == bytes),
                    // Another put of that name is on its way.
                    Err(error) if error.kind() == ErrorKind::NotFound => error,
                    Err(error) => return Err(error),
                },
                Err(error) if error.kind() == ErrorKind::Other => error,
                Err(error) => return Err(error),
            };
            if begun.elapsed() >= self.patience {
                return Err(failure);
            }
            tracing::warn!(error = %failure, "a put has no answer, sending it again");
            std::thread::sleep(PUT_PAUSE);
        }
    }

    fn delete(&self, path: Path) -> io::Result<()> {
        durable_step("object.delete");
        let store = Arc::clone(&self.store);
        match self.wait(async move { store.delete(&path).await }) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// The chunks of a file that grows, in order.
    fn chunks(&self, path: &Path) -> io::Result<Vec<ObjectMeta>> {
        let (store, path) = (Arc::clone(&self.store), named_after(path, CHUNKS)?);
        let mut chunks: Vec<_> = self.wait(async move { store.list(Some(&path)).try_collect().await })?;
        chunks.sort_by(|a, b| a.location.cmp(&b.location));
        Ok(chunks)
    }

    fn read_chunks(&self, chunks: Vec<ObjectMeta>) -> io::Result<Vec<u8>> {
        let store = Arc::clone(&self.store);
        let parts: Vec<_> = self.wait(async move {
            let fetches = chunks.into_iter().map(|chunk| {
                let store = Arc::clone(&store);
                async move { store.get(&chunk.location).await?.bytes().await }
            });
            futures::stream::iter(fetches).buffered(FETCHES).try_collect().await
        })?;
        Ok(parts.iter().flat_map(|part| part.get(WRITER_BYTES..).unwrap_or_default()).copied().collect())
    }

    /// The names in a folder, with those of files that are being removed and of the marks that say so.
    fn list_raw(&self, folder: &str) -> io::Result<BTreeSet<String>> {
        let (store, folder) = (Arc::clone(&self.store), self.path(folder)?);
        let found = self.wait(async move { store.list_with_delimiter(Some(&folder)).await })?;
        let files = found.objects.into_iter().map(|object| object.location);
        let paths = files.chain(found.common_prefixes);
        let names = paths.filter_map(|path| path.filename().map(str::to_owned));
        Ok(names.map(|name| name.strip_suffix(CHUNKS).map_or(name.clone(), str::to_owned)).collect())
    }

    /// Deletes the chunks of a file that was marked as removed, many with one request, then the mark.
    fn finish_removal(&self, path: &Path) -> io::Result<()> {
        let store = Arc::clone(&self.store);
        let chunks: Vec<_> = self.chunks(path)?.into_iter().map(|chunk| Ok(chunk.location)).collect();
        durable_step("object.delete");
        self.wait(async move {
            let deleted = store.delete_stream(futures::stream::iter(chunks).boxed());
            let failed = deleted.filter(|deleted| ready(!matches!(deleted, Ok(_) | Err(StoreError::NotFound { .. }))));
            failed.map_ok(drop).try_collect::<()>().await
        })?;
        self.delete(named_after(path, REMOVED)?)
    }
}

impl Files for ObjectFiles {
    /// There are no folders; what a crash has left half removed in this one goes.
    fn create_folder(&self, path: &str) -> io::Result<()> {
        for name in self.list_raw(path)? {
            if let Some(removed) = name.strip_suffix(REMOVED) {
                self.finish_removal(&self.path(&format!("{path}/{removed}"))?)?;
            }
        }
        Ok(())
    }

    fn create(&self, path: &str, bytes: &[u8]) -> io::Result<bool> {
        durable_step("object.put");
        self.put_new(&self.path(path)?, bytes.to_vec())
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let path = self.path(path)?;
        match self.get(path.clone()) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let chunks = self.chunks(&path)?;
                // Without its first chunk it was removed, and a writer that had not heard of it has put one more.
                let is_there = chunks.first().is_some_and(|first| first.location.filename() == Some(FIRST_CHUNK));
                if is_there { self.read_chunks(chunks) } else { Err(error) }
            }
            other => other,
        }
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        let names = self.list_raw(folder)?;
        let is_there = |name: &String| !name.ends_with(REMOVED) && !names.contains(&format!("{name}{REMOVED}"));
        Ok(names.iter().filter(|name| is_there(name)).cloned().collect())
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        let path = self.path(path)?;
        if self.chunks(&path)?.is_empty() {
            return self.delete(path);
        }
        durable_step("object.put");
        self.put_new(&named_after(&path, REMOVED)?, Vec::new())?;
        self.finish_removal(&path)
    }

    fn append(&self, path: &str) -> io::Result<Box<dyn AppendFile>> {
        let path = self.path(path)?;
        let chunks = self.chunks(&path)?;
        let length = chunks.iter().map(|chunk| chunk.size.saturating_sub(WRITER_BYTES as u64)).sum();
        let files = self.clone();
        Ok(Box::new(ObjectAppend { files, path, chunks: chunks.len(), length, unsynced: Vec::new() }))
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn describe(&self, path: &str) -> String {
        if path.is_empty() { self.name.clone() } else { format!("{}/{path}", self.name) }
    }
}

/// A file that grows by a chunk with every sync.
#[derive(Debug)]
struct ObjectAppend {
    files: ObjectFiles,
    path: Path,
    /// How many chunks there are.
    chunks: usize,
    /// The bytes in them.
    length: u64,
    unsynced: Vec<u8>,
}

impl AppendFile for ObjectAppend {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.unsynced.extend_from_slice(bytes);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.unsynced.is_empty() {
            return Ok(());
        }
        durable_step("object.append");
        let chunk = named_after(&self.path, &format!("{CHUNKS}/{:010}", self.chunks))?;
        if !self.files.put_new(&chunk, [&self.files.writer, self.unsynced.as_slice()].concat())? {
            return Err(io::Error::other("another process has written to it: only one may use a state directory"));
        }
        self.chunks += 1;
        self.length += self.unsynced.len() as u64;
        self.unsynced.clear();
        Ok(())
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.length + self.unsynced.len() as u64)
    }

    /// What was put is never torn, so that only what was not put yet is ever cut off.
    fn truncate(&mut self, length: u64) -> io::Result<()> {
        let kept = length.checked_sub(self.length).and_then(|kept| usize::try_from(kept).ok());
        let Some(kept) = kept else {
            let message =
                format!("it has {} bytes of which the last {} are damaged", self.length, self.length - length);
            return Err(io::Error::new(ErrorKind::InvalidData, message));
        };
        self.unsynced.truncate(kept);
        Ok(())
    }
}

fn named_after(path: &Path, end: &str) -> io::Result<Path> {
    Path::parse(format!("{path}{end}")).map_err(io::Error::other)
}

fn into_io(error: StoreError) -> io::Error {
    let kind = match error {
        StoreError::NotFound { .. } => ErrorKind::NotFound,
        StoreError::AlreadyExists { .. } => ErrorKind::AlreadyExists,
        StoreError::PermissionDenied { .. } | StoreError::Unauthenticated { .. } => ErrorKind::PermissionDenied,
        StoreError::NotSupported { .. } | StoreError::NotImplemented { .. } => ErrorKind::Unsupported,
        _ => ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

#[cfg(test)]
mod tests {
    use datafusion::object_store::memory::InMemory;

    use super::*;

    fn files(store: &Arc<InMemory>) -> ObjectFiles {
        let store = Arc::clone(store) as Arc<dyn ObjectStore>;
        ObjectFiles::new(store, Path::from("a/prefix"), "memory:/a/prefix").unwrap()
    }

    #[test]
    fn an_object_is_created_once() {
        let files = files(&Arc::default());
        assert!(files.create("a/b%20/c", b"first").unwrap());
        assert!(!files.create("a/b%20/c", b"second").unwrap());
        assert_eq!(files.read("a/b%20/c").unwrap(), b"first");
        assert_eq!(files.list("a").unwrap(), ["b%20"]);
        assert_eq!(files.list("a/b%20").unwrap(), ["c"]);
        assert_eq!(files.list("nowhere").unwrap(), [""; 0]);
        assert_eq!(files.read("a/nothing").unwrap_err().kind(), ErrorKind::NotFound);
        files.remove("a/b%20/c").unwrap();
        files.remove("a/b%20/c").unwrap();
        assert_eq!(files.list("a").unwrap(), [""; 0]);
        files.check_conditional_put().unwrap();
    }

    #[test]
    fn a_file_grows_with_every_sync() {
        let files = files(&Arc::default());
        let mut file = files.append("j/log").unwrap();
        file.append(b"one").unwrap();
        file.append(b"two").unwrap();
        file.truncate(3).unwrap();
        file.sync().unwrap();
        file.append(b"never synced").unwrap();
        let mut file = files.append("j/log").unwrap();
        file.append(b"!").unwrap();
        file.sync().unwrap();
        file.sync().unwrap();
        assert_eq!(files.read("j/log").unwrap(), b"one!");
        assert_eq!(files.list("j").unwrap(), ["log"]);
        assert_eq!(file.truncate(2).unwrap_err().to_string(), "it has 4 bytes of which the last 2 are damaged");
    }

    #[test]
    fn of_two_writers_of_a_file_the_second_is_refused() {
        let store = Arc::default();
        let (first, second) = (files(&store), files(&store));
        let mut one = first.append("log").unwrap();
        let mut other = second.append("log").unwrap();
        for file in [&mut one, &mut other] {
            file.append(b"the same").unwrap();
        }
        one.sync().unwrap();
        let error = other.sync().unwrap_err().to_string();
        assert!(error.contains("another process"), "{error}");
        assert_eq!(first.read("log").unwrap(), b"the same");
        // Its own put, sent again, is no other writer's.
        assert!(first.put_new(&Path::from("a/prefix/x"), b"1".to_vec()).unwrap());
        assert!(first.put_new(&Path::from("a/prefix/x"), b"1".to_vec()).unwrap());
    }

    #[test]
    fn a_file_that_is_removed_is_gone_at_once_and_its_chunks_in_the_end() {
        let store = Arc::default();
        let files = files(&store);
        // A writer that has not heard of the removal brings nothing back.
        let mut late = files.append("j/late").unwrap();
        for _ in 0..2 {
            late.append(b"x").unwrap();
            late.sync().unwrap();
        }
        files.remove("j/late").unwrap();
        late.append(b"x").unwrap();
        late.sync().unwrap();
        assert_eq!(files.read("j/late").unwrap_err().kind(), ErrorKind::NotFound);
        files.remove("j/late").unwrap();
        let mut file = files.append("j/log").unwrap();
        for _ in 0..3 {
            file.append(b"x").unwrap();
            file.sync().unwrap();
        }
        // A crash after the mark, and after one of the chunks.
        assert!(files.put_new(&Path::from("a/prefix/j/log.removed"), Vec::new()).unwrap());
        assert_eq!(files.list("j").unwrap(), [""; 0]);
        files.delete(Path::from("a/prefix/j/log.chunks/0000000001")).unwrap();
        assert_eq!(files.list("j").unwrap(), [""; 0]);
        files.create_folder("j").unwrap();
        assert_eq!(files.list_raw("j").unwrap(), BTreeSet::new());
    }
}
