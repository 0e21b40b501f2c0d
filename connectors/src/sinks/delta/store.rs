//! The local disk as Delta Lake writes to it, with everything safe before it counts.
//!
//! `object_store`'s local store never calls `fsync`: after a power cut a commit of the log could be there without its
//! bytes. What is made anew, the commits, goes through the engine's own file layer. The rest, checkpoints of the log,
//! may take the place of a file: it is written under another name, synced and only then renamed, so that the name never
//! stands for bytes that are not safe. All of it waits for room on a full disk.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Path as FilePath, PathBuf};

use async_trait::async_trait;
use datafusion::common::runtime::SpawnedTask;
use datafusion::object_store::local::LocalFileSystem;
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult, UploadPart,
};
use futures::stream::BoxStream;
use millstream_engine::durable::{Durability, Files, FullDisk, LocalFiles, ROOM_PAUSE, durable_step};
use millstream_engine::{Error, Result};

/// The local disk.
#[derive(Debug)]
pub(super) struct SyncedStore {
    local: LocalFileSystem,
    files: LocalFiles,
}

impl SyncedStore {
    pub(super) fn new() -> Result<Self> {
        let files = LocalFiles::open("/", Durability::PowerLoss);
        let files = files.map_err(|error| Error::external("opening the disk", error))?;
        Ok(Self { local: LocalFileSystem::new(), files })
    }

    /// Makes a new file, safe when this returns; waits for room on a full disk.
    async fn create(&self, location: &Path, payload: PutPayload) -> StoreResult<PutResult> {
        let bytes = payload.into_iter().flatten().collect::<Vec<u8>>();
        let created = self.write(location, move |files, path| files.create(&path.to_string_lossy(), &bytes));
        if created.await? {
            return Ok(PutResult { e_tag: None, version: None });
        }
        let source = io::Error::from(ErrorKind::AlreadyExists);
        Err(StoreError::AlreadyExists { path: location.to_string(), source: source.into() })
    }

    /// Makes a file or puts it in the place of one, safe when this returns; waits for room on a full disk.
    async fn replace(&self, location: &Path, payload: PutPayload) -> StoreResult<PutResult> {
        self.write(location, move |_, path| replace(path, &payload)).await?;
        Ok(PutResult { e_tag: None, version: None })
    }

    /// Does what writes a file, on a thread that may block, and again while the disk is full; its folder is made if
    /// need be.
    async fn write<T: Send + 'static>(
        &self,
        location: &Path,
        work: impl Fn(&LocalFiles, &FilePath) -> io::Result<T> + Send + 'static,
    ) -> StoreResult<T> {
        let (path, files) = (self.local.path_to_filesystem(location)?, self.files.clone());
        let written = SpawnedTask::spawn_blocking(move || {
            with_room(&path, || {
                files.create_folder(&folder_of(&path).to_string_lossy())?;
                work(&files, &path)
            })
        });
        written.join().await.map_err(io::Error::other).and_then(|written| written).map_err(failed)
    }
}

/// Makes the names in a folder safe.
pub(super) fn sync_folder(folder: &FilePath) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Error::external(format!("syncing {}", folder.display()), error))
}

/// Does work on a file again while the disk is full.
fn with_room<T>(path: &FilePath, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut full_disk = FullDisk::new(format!("the sink's file {}", path.display()));
    loop {
        match work() {
            Err(error) if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) => {
                full_disk.say(&error);
                std::thread::sleep(ROOM_PAUSE);
            }
            other => return other,
        }
    }
}

/// Writes a file whole before it gets its name.
fn replace(path: &FilePath, payload: &PutPayload) -> io::Result<()> {
    let folder = folder_of(path);
    let (file, temporary) = temporary_file(folder)?;
    let renamed = write_synced(file, payload).and_then(|()| {
        durable_step("delta.rename");
        fs::rename(&temporary, path)
    });
    if let Err(error) = renamed {
        fs::remove_file(&temporary)?;
        return Err(error);
    }
    File::open(folder)?.sync_all()
}

fn write_synced(mut file: File, payload: &PutPayload) -> io::Result<()> {
    for bytes in payload {
        file.write_all(bytes)?;
    }
    file.sync_all()
}

/// Makes a file that nobody else writes to. Readers pass over it, as its name does not begin with a version; one that a
/// crash leaves behind stays, since it may as well be that of a living writer.
fn temporary_file(folder: &FilePath) -> io::Result<(File, PathBuf)> {
    let mut number = 0_u64;
    loop {
        let path = folder.join(format!("_millstream-{number}.tmp"));
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => number += 1,
            made => return made.map(|file| (file, path)),
        }
    }
}

fn folder_of(path: &FilePath) -> &FilePath {
    path.parent().unwrap_or(FilePath::new("/"))
}

fn failed(error: io::Error) -> StoreError {
    StoreError::Generic { store: "local disk", source: error.into() }
}

impl fmt::Display for SyncedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the local disk, synced")
    }
}

#[async_trait]
impl ObjectStore for SyncedStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        match options.mode {
            PutMode::Create => self.create(location, payload).await,
            PutMode::Overwrite => self.replace(location, payload).await,
            // The local store says that it cannot do this.
            PutMode::Update(_) => self.local.put_opts(location, payload, options).await,
        }
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        Ok(Box::new(SyncedUpload {
            store: Self { local: LocalFileSystem::new(), files: self.files.clone() },
            location: location.clone(),
            parts: Vec::new(),
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.local.get_opts(location, options).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        self.local.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.local.list(prefix)
    }

    fn list_with_offset(&self, prefix: Option<&Path>, offset: &Path) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        self.local.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.local.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.local.copy_opts(from, to, options).await
    }
}

/// A file that comes in parts, as the checkpoint of a very long log does; they are kept in memory until it is whole, so
/// that there is one way onto the disk.
#[derive(Debug)]
struct SyncedUpload {
    store: SyncedStore,
    location: Path,
    parts: Vec<PutPayload>,
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.push(data);
        Box::pin(async { Ok(()) })
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let whole = std::mem::take(&mut self.parts).into_iter().flatten().collect();
        self.store.replace(&self.location, whole).await
    }

    async fn abort(&mut self) -> StoreResult<()> {
        self.parts.clear();
        Ok(())
    }
}
