//! The sink that writes one file an epoch, `part-0000000012.csv`, and puts small files together if it is told to.
//!
//! Rows are written to a hidden temporary file as they are staged. The commit makes its bytes and its entry safe,
//! enters the epoch in the folder's ledger (`ledger`) and renames the file, which other programs see whole or not at
//! all.

mod compact;
mod disk;
mod ledger;
mod manifest;
mod part;
mod reign;

use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::batch::Epoch;
use millstream_engine::durable::durable_step;
use millstream_engine::sink::{Guarantee, Sink, SinkWriter};
use millstream_engine::{Error, Result};

use super::{blocking, not_begun, when_there_is_room};
pub use compact::Compaction;
use compact::{Small, compact};
use disk::sync_folder;
use ledger::Ledger;
use manifest::{ManifestFile, temporary_name};
pub(super) use part::Part;

/// The format of the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileFormat {
    /// Comma-separated values; every file has the header.
    Csv,
    /// One JSON object a line.
    Json,
    /// Parquet.
    Parquet,
}

impl FileFormat {
    const fn extension(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Parquet => "parquet",
        }
    }
}

/// Writes the rows of every epoch to a file of its own in one folder.
#[derive(Debug)]
pub struct FilesSink {
    folder: PathBuf,
    format: FileFormat,
    schema: SchemaRef,
    ledger: Option<Ledger>,
    staged: Option<Part>,
    compaction: Option<Compaction>,
    small: Small,
}

impl FilesSink {
    /// A sink for rows of `schema` in `folder`, which is made at the begin if need be.
    pub fn new(folder: impl Into<PathBuf>, format: FileFormat, schema: SchemaRef) -> Self {
        Self {
            folder: folder.into(),
            format,
            schema,
            ledger: None,
            staged: None,
            compaction: None,
            small: Small::default(),
        }
    }

    /// The same sink, which puts small files together.
    #[must_use]
    pub const fn compacted(mut self, compaction: Compaction) -> Self {
        self.compaction = Some(compaction);
        self
    }

    fn name(&self, epoch: Epoch) -> String {
        format!("part-{:010}.{}", epoch.0, self.format.extension())
    }

    fn ledger(&self) -> Result<&Ledger> {
        self.ledger.as_ref().ok_or_else(|| not_begun("files"))
    }
}

#[async_trait]
impl Sink for FilesSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn begin(&mut self, writer: &SinkWriter) -> Result<Option<Epoch>> {
        self.staged = None;
        let (folder, writer) = (self.folder.clone(), writer.clone());
        let mut ledger = blocking(move || Ledger::begin(&folder, &writer)).await?;
        let (last, found) = (ledger.last(), ledger.take_found());
        self.small = self.compaction.map(|compaction| Small::of(&found, &compaction)).unwrap_or_default();
        self.ledger = Some(ledger);
        Ok(last)
    }

    async fn stage(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<()> {
        let ledger = self.ledger()?;
        if ledger.last() >= Some(epoch) {
            return Ok(());
        }
        let path = self.folder.join(temporary_name(&self.name(epoch), ledger.writer()));
        let (begun, format, schema) = (self.staged.take(), self.format, SchemaRef::clone(&self.schema));
        let rows = rows.to_vec();
        let part = blocking(move || {
            let mut part = match begun {
                Some(part) if part.epoch == epoch => part,
                other => {
                    other.map_or(Ok(()), Part::discard)?;
                    durable_step("files.create");
                    when_there_is_room(|| Part::create(epoch, path.clone(), format, SchemaRef::clone(&schema)))?
                }
            };
            part.write(&rows)?;
            Ok(part)
        });
        self.staged = Some(part.await?);
        Ok(())
    }

    async fn commit(&mut self, epoch: Epoch) -> Result<()> {
        let Some(part) = self.staged.take_if(|part| part.epoch == epoch) else { return Ok(()) };
        let name = self.name(epoch);
        // A failure leaves no ledger behind: what has become of the epoch, the next begin finds out.
        let mut ledger = self.ledger.take().ok_or_else(|| not_begun("files"))?;
        let (folder, format, schema) = (self.folder.clone(), self.format, SchemaRef::clone(&self.schema));
        let (compaction, mut small) = (self.compaction, std::mem::take(&mut self.small));
        let committed = blocking(move || {
            durable_step("files.sync");
            let content = part.finish()?;
            // Before the manifest counts, a power cut must not be able to take the file's name away.
            durable_step("files.sync_part");
            sync_folder(&folder)?;
            let file = ManifestFile { name, bytes: content.bytes, rows: content.rows, crc32: content.crc32 };
            let manifest = ledger.commit(epoch, file)?;
            durable_step("files.committed");
            if let Some(compaction) = compaction {
                small.push(manifest);
                let due = small.take_due(&compaction);
                if !due.is_empty() {
                    let whole = compact(&mut ledger, &folder, &due, format, &schema)?;
                    small = Small::of(&[whole], &compaction);
                }
            }
            Ok((ledger, small))
        });
        let (ledger, small) = committed.await?;
        (self.ledger, self.small) = (Some(ledger), small);
        Ok(())
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::external(format!("writing {}", path.display()), error)
}

#[cfg(test)]
mod tests;
