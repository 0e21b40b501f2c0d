//! Compaction: the files of several epochs become one, which has the name of the first and the last of them.
//!
//! ```text
//! part-0000000003.csv  part-0000000004.csv  part-0000000005.csv   →   part-0000000003-0000000005.csv
//! ```
//!
//! The file is made under a temporary name. The manifest that says which epochs it replaces is the one step that
//! counts: whatever of it a crash leaves undone, the next `begin` does. Between the new name and the removal of the
//! old ones, which is a matter of milliseconds, a program that lists the folder may see rows twice.

use std::fs::File;
use std::io::{BufReader, Seek, SeekFrom, copy};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use millstream_engine::durable::durable_step;
use millstream_engine::{Error, Result};

use super::super::text::write_csv;
use super::super::when_there_is_room;
use super::disk::sync_folder;
use super::ledger::Ledger;
use super::manifest::{Manifest, ManifestFile, temporary_name};
use super::part::Part;
use super::{FileFormat, failed};

/// When files are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compaction {
    /// As soon as the small files have this many bytes together; a file of as many is small no longer.
    pub bytes: u64,
    /// As soon as the oldest of them is this old.
    pub age: Duration,
}

/// The small files at the end of the folder, oldest first.
#[derive(Debug, Default)]
pub(super) struct Small {
    files: Vec<(Manifest, Instant)>,
}

impl Small {
    /// The small ones among the files of the folder; their age counts from now.
    pub(super) fn of(manifests: &[Manifest], compaction: &Compaction) -> Self {
        let now = Instant::now();
        let small = manifests.iter().rev().take_while(|manifest| manifest.bytes() < compaction.bytes);
        let mut files: Vec<_> = small.map(|manifest| (manifest.clone(), now)).collect();
        files.reverse();
        Self { files }
    }

    /// Adds the file of the newest epoch.
    pub(super) fn push(&mut self, manifest: Manifest) {
        self.files.push((manifest, Instant::now()));
    }

    /// Takes the files out that are to be put together now.
    pub(super) fn take_due(&mut self, compaction: &Compaction) -> Vec<Manifest> {
        let bytes: u64 = self.files.iter().map(|(manifest, _)| manifest.bytes()).sum();
        let is_old = self.files.first().is_some_and(|(_, since)| since.elapsed() >= compaction.age);
        if self.files.len() < 2 || !(is_old || bytes >= compaction.bytes) {
            return Vec::new();
        }
        std::mem::take(&mut self.files).into_iter().map(|(manifest, _)| manifest).collect()
    }
}

/// Puts the files of `manifests`, epochs that follow each other, into one; its manifest.
///
/// # Errors
/// As the disk fails; the next `begin` finishes or undoes what was begun.
pub(super) fn compact(
    ledger: &mut Ledger,
    folder: &Path,
    manifests: &[Manifest],
    format: FileFormat,
    schema: &SchemaRef,
) -> Result<Manifest> {
    let (Some(first), Some(last)) = (manifests.first(), manifests.last()) else {
        return Err(Error::internal("no files to put together"));
    };
    let name = format!("part-{:010}-{:010}.{}", first.first().0, last.epoch.0, format.extension());
    let path = folder.join(temporary_name(&name, ledger.writer()));
    durable_step("files.compact");
    let create = || Part::create(last.epoch, path.clone(), format, SchemaRef::clone(schema));
    let mut whole = when_there_is_room(create)?;
    for file in manifests.iter().flat_map(|manifest| &manifest.files) {
        append(&mut whole, &folder.join(&file.name), format, schema, file.rows)?;
    }
    durable_step("files.compact_sync");
    let content = whole.finish()?;
    sync_folder(folder)?;
    let file = ManifestFile { name, bytes: content.bytes, rows: content.rows, crc32: content.crc32 };
    ledger.replace(manifests, file)
}

fn append(whole: &mut Part, path: &PathBuf, format: FileFormat, schema: &SchemaRef, rows: u64) -> Result<()> {
    let open = || File::open(path).map_err(|error| failed(path, error));
    match format {
        FileFormat::Parquet => {
            let reader = ParquetRecordBatchReaderBuilder::try_new(open()?).and_then(|builder| builder.build());
            for batch in reader.map_err(DataFusionError::from)? {
                whole.write(&[batch?])?;
            }
            Ok(())
        }
        FileFormat::Json => {
            whole.write_text(rows, |output| copy(&mut BufReader::new(open()?), output).map_err(|e| failed(path, e)))
        }
        FileFormat::Csv => whole.write_text(rows, |output| {
            let mut file = open()?;
            file.seek(SeekFrom::Start(header_bytes(schema)?)).map_err(|error| failed(path, error))?;
            copy(&mut BufReader::new(file), output).map_err(|error| failed(path, error))
        }),
    }
}

/// The length of the header of every CSV file.
fn header_bytes(schema: &SchemaRef) -> Result<u64> {
    let mut header = Vec::new();
    write_csv(&mut header, &RecordBatch::new_empty(SchemaRef::clone(schema)), true)?;
    Ok(header.len() as u64)
}
