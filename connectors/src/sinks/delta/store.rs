//! The local disk as Delta Lake writes to it, with everything safe before it counts.
//!
//! `object_store`'s local store never calls `fsync`: after a power cut a commit of the log could be there without its
//! bytes. What is made anew, the commits, goes through the engine's own file layer; the rest, checkpoints of the log, is
//! synced once it is written.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::Path as FilePath;

use async_trait::async_trait;
use datafusion::common::runtime::SpawnedTask;
use datafusion::object_store::local::LocalFileSystem;
use datafusion::object_store::path::Path;
use datafusion::object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult, UploadPart,
};
use futures::stream::BoxStream;
use millstream_engine::durable::{Durability, Files, FullDisk, LocalFiles, ROOM_PAUSE};
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
        let path = self.local.path_to_filesystem(location)?;
        let (files, bytes) = (self.files.clone(), payload.into_iter().flatten().collect::<Vec<u8>>());
        let folder = path.parent().unwrap_or(FilePath::new("/")).to_string_lossy().into_owned();
        let name = path.to_string_lossy().into_owned();
        let created = SpawnedTask::spawn_blocking(move || {
            with_room(&name, || {
                files.create_folder(&folder)?;
                files.create(&name, &bytes)
            })
        });
        match created.join().await.map_err(io::Error::other).and_then(|created| created) {
            Ok(true) => Ok(PutResult { e_tag: None, version: None }),
            Ok(false) => {
                let source = io::Error::from(ErrorKind::AlreadyExists);
                Err(StoreError::AlreadyExists { path: location.to_string(), source: source.into() })
            }
            Err(error) => Err(failed(error)),
        }
    }

    async fn sync(&self, location: &Path) -> StoreResult<()> {
        let path = self.local.path_to_filesystem(location)?;
        let synced = SpawnedTask::spawn_blocking(move || {
            File::open(&path)?.sync_all()?;
            File::open(path.parent().unwrap_or(FilePath::new("/")))?.sync_all()
        });
        synced.join().await.map_err(io::Error::other).and_then(|synced| synced).map_err(failed)
    }
}

/// Makes the names in a folder safe.
pub(super) fn sync_folder(folder: &FilePath) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(|error| Error::external(format!("syncing {}", folder.display()), error))
}

/// Does work on a file again while the disk is full.
fn with_room<T>(name: &str, work: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut full_disk = FullDisk::new(format!("the sink's file {name}"));
    loop {
        match work() {
            Err(error) if error.kind() == ErrorKind::StorageFull => {
                full_disk.say(&error);
                std::thread::sleep(ROOM_PAUSE);
            }
            other => return other,
        }
    }
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
        if options.mode == PutMode::Create {
            return self.create(location, payload).await;
        }
        let put = self.local.put_opts(location, payload, options).await?;
        self.sync(location).await?;
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        let upload = self.local.put_multipart_opts(location, options).await?;
        Ok(Box::new(SyncedUpload {
            upload,
            store: Self { local: LocalFileSystem::new(), files: self.files.clone() },
            location: location.clone(),
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

/// A file that is written in parts, safe when it is whole.
#[derive(Debug)]
struct SyncedUpload {
    upload: Box<dyn MultipartUpload>,
    store: SyncedStore,
    location: Path,
}

#[async_trait]
impl MultipartUpload for SyncedUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.upload.put_part(data)
    }

    async fn complete(&mut self) -> StoreResult<PutResult> {
        let put = self.upload.complete().await?;
        self.store.sync(&self.location).await?;
        Ok(put)
    }

    async fn abort(&mut self) -> StoreResult<()> {
        self.upload.abort().await
    }
}
