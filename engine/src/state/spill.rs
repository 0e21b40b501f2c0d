//! Files for state that memory has no room for.
//!
//! They have no name, so that nothing is left of them however the process ends. Each takes what comes until it is
//! large, and gives its place on the disk back when nothing in it is needed any more: what is written together is as a
//! rule of the same age and goes together.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::ipc::CompressionType;
use datafusion::arrow::ipc::reader::StreamReader;
use datafusion::arrow::ipc::writer::{IpcWriteOptions, StreamWriter};
use datafusion::arrow::record_batch::RecordBatch;

use crate::arrays::compact_views;
use crate::error::{Error, Result};

/// A file is left for a new one once it has this many bytes.
const FILE_BYTES: u64 = 64 << 20;

/// The files of one folder.
#[derive(Debug)]
pub(crate) struct SpillFiles {
    folder: PathBuf,
    /// The file that is written to, and its length.
    open: Mutex<Option<(Arc<SpillFile>, u64)>>,
    bytes: Arc<AtomicU64>,
}

#[derive(Debug)]
struct SpillFile {
    file: Mutex<File>,
    /// What it has of the bytes of all files.
    length: AtomicU64,
    bytes: Arc<AtomicU64>,
}

impl Drop for SpillFile {
    fn drop(&mut self) {
        self.bytes.fetch_sub(self.length.load(Ordering::Relaxed), Ordering::Relaxed);
    }
}

/// Batches that were written together.
#[derive(Debug, Clone)]
pub(crate) struct Spilled {
    file: Arc<SpillFile>,
    start: u64,
    length: usize,
    crc32: u32,
    schema: SchemaRef,
    pub(crate) rows: usize,
}

impl SpillFiles {
    /// Files in `folder`, which is made with the first of them.
    pub(crate) fn new(folder: PathBuf) -> Self {
        Self { folder, open: Mutex::new(None), bytes: Arc::default() }
    }

    /// The disk that all files take.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Writes batches of one schema, at least one.
    ///
    /// # Errors
    /// As the disk fails; nothing was written then.
    pub(crate) fn write(&self, batches: &[RecordBatch]) -> Result<Spilled> {
        let Some(schema) = batches.first().map(RecordBatch::schema) else {
            return Err(Error::internal("no batches to spill"));
        };
        let packed = pack(&schema, batches)?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (file, start) = match open.take() {
            Some((file, length)) if length < FILE_BYTES => (file, length),
            _ => (self.create()?, 0),
        };
        let written = file.write_at(start, &packed);
        let end = start + if written.is_ok() { packed.len() as u64 } else { 0 };
        *open = Some((Arc::clone(&file), end));
        drop(open);
        written.map_err(|error| self.failed("writing to", error))?;
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        Ok(Spilled { file, start, length: packed.len(), crc32: crc32fast::hash(&packed), schema, rows })
    }

    fn create(&self) -> Result<Arc<SpillFile>> {
        let made = std::fs::create_dir_all(&self.folder).and_then(|()| tempfile::tempfile_in(&self.folder));
        let file = made.map_err(|error| self.failed("making a file in", error))?;
        let bytes = Arc::clone(&self.bytes);
        Ok(Arc::new(SpillFile { file: Mutex::new(file), length: AtomicU64::new(0), bytes }))
    }

    fn failed(&self, what: &str, error: std::io::Error) -> Error {
        Error::external(
            format!("{what} {}, where state goes that memory has no room for", self.folder.display()),
            error,
        )
    }
}

impl SpillFile {
    fn write_at(&self, start: u64, bytes: &[u8]) -> std::io::Result<()> {
        let mut file = self.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(start))?;
        file.write_all(bytes)?;
        self.length.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }
}

impl Spilled {
    /// The batches, as they were written.
    ///
    /// # Errors
    /// Fails if the disk does, or gives something else.
    pub(crate) fn read(&self) -> Result<Vec<RecordBatch>> {
        let packed = self.packed().map_err(|error| Error::external("reading state back from the disk", error))?;
        if crc32fast::hash(&packed) != self.crc32 {
            let message = "state that was put on the disk for want of memory is not what was written";
            return Err(Error::state(message, "check the disk; start the query again"));
        }
        let reader = StreamReader::try_new(packed.as_slice(), None)?;
        Ok(reader.collect::<std::result::Result<_, _>>()?)
    }

    fn packed(&self) -> std::io::Result<Vec<u8>> {
        let mut packed = vec![0; self.length];
        let mut file = self.file.file.lock().unwrap_or_else(PoisonError::into_inner);
        file.seek(SeekFrom::Start(self.start))?;
        file.read_exact(&mut packed)?;
        Ok(packed)
    }

    /// The columns of the batches.
    pub(crate) const fn schema(&self) -> &SchemaRef {
        &self.schema
    }
}

fn pack(schema: &SchemaRef, batches: &[RecordBatch]) -> Result<Vec<u8>> {
    let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::LZ4_FRAME))?;
    let mut writer = StreamWriter::try_new_with_options(Vec::new(), schema, options)?;
    for batch in batches {
        writer.write(&compact_views(batch)?)?;
    }
    Ok(writer.into_inner()?)
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::array::{ArrayRef, Int64Array, StringViewArray};

    use super::*;

    fn batch(numbers: std::ops::Range<i64>) -> RecordBatch {
        let numbers: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers));
        RecordBatch::try_from_iter([("n", numbers)]).unwrap()
    }

    #[test]
    fn what_was_spilled_comes_back_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let files = SpillFiles::new(folder.path().join("spill"));
        let (first, second) = ([batch(0..5), batch(5..9)], [batch(9..9)]);
        let spilled = [files.write(&first).unwrap(), files.write(&second).unwrap()];
        assert_eq!(spilled[1].read().unwrap(), second);
        assert_eq!(spilled[0].read().unwrap(), first);
        assert_eq!(spilled[0].rows, 9);
        assert!(files.bytes() > 0);
        assert_eq!(std::fs::read_dir(folder.path().join("spill")).unwrap().count(), 0, "the file has a name");
    }

    #[test]
    fn the_disk_is_given_back_with_the_last_of_a_file() {
        let folder = tempfile::tempdir().unwrap();
        let files = SpillFiles::new(folder.path().to_owned());
        let spilled = files.write(&[batch(0..5)]).unwrap();
        files.open.lock().unwrap().take();
        assert!(files.bytes() > 0);
        drop(spilled);
        assert_eq!(files.bytes(), 0);
    }

    #[test]
    fn a_slice_of_strings_takes_no_more_of_the_disk_than_it_shows() {
        let texts = (0..2_000_u64).map(|number| Some(format!("{:0128x}", number.wrapping_mul(0x9e37_79b9_7f4a_7c15))));
        let texts: ArrayRef = Arc::new(texts.collect::<StringViewArray>());
        let whole = RecordBatch::try_from_iter([("k", texts)]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let files = SpillFiles::new(folder.path().to_owned());
        let part = [whole.slice(700, 20)];
        let spilled = files.write(&part).unwrap();
        assert_eq!(spilled.read().unwrap(), part);
        assert!(files.bytes() < 20 * 128 + 2_000, "{} bytes", files.bytes());
        files.write(&[whole]).unwrap();
        assert!(files.bytes() > 2_000 * 8);
    }

    #[test]
    fn changed_bytes_are_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let spilled = SpillFiles::new(folder.path().to_owned()).write(&[batch(0..5)]).unwrap();
        spilled.file.write_at(spilled.start + 40, b"!").unwrap();
        assert!(spilled.read().is_err());
    }
}
