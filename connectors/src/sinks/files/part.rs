//! The file of an epoch that is not committed yet.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::parquet::arrow::ArrowWriter;
use millstream_engine::batch::Epoch;
use millstream_engine::durable::{FullDisk, ROOM_PAUSE};
use millstream_engine::{Error, Result};

use super::super::text::{write_csv, write_json};
use super::{FileFormat, failed};

/// Writes the rows of one epoch to a file under a temporary name.
#[derive(Debug)]
pub(in crate::sinks) struct Part {
    pub(in crate::sinks) epoch: Epoch,
    path: PathBuf,
    rows: u64,
    encoder: Encoder,
}

/// What a file holds, as far as its manifest says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::sinks) struct Content {
    pub(in crate::sinks) bytes: u64,
    pub(in crate::sinks) rows: u64,
    pub(in crate::sinks) crc32: u32,
}

#[derive(Debug)]
enum Encoder {
    Csv(CheckedFile),
    Json(CheckedFile),
    Parquet(Box<ArrowWriter<CheckedFile>>),
}

impl Part {
    /// Begins the file anew, whatever is there under its name.
    pub(in crate::sinks) fn create(epoch: Epoch, path: PathBuf, format: FileFormat, schema: SchemaRef) -> Result<Self> {
        let mut file = CheckedFile::create(&path).map_err(|e| failed(&path, e))?;
        let encoder = match format {
            FileFormat::Csv => {
                write_csv(&mut file, &RecordBatch::new_empty(schema), true)?;
                Encoder::Csv(file)
            }
            FileFormat::Json => Encoder::Json(file),
            FileFormat::Parquet => {
                Encoder::Parquet(Box::new(ArrowWriter::try_new(file, schema, None).map_err(DataFusionError::from)?))
            }
        };
        Ok(Self { epoch, path, rows: 0, encoder })
    }

    /// Appends rows.
    pub(in crate::sinks) fn write(&mut self, rows: &[RecordBatch]) -> Result<()> {
        for batch in rows {
            match &mut self.encoder {
                Encoder::Csv(file) => write_csv(file, batch, false)?,
                Encoder::Json(file) => write_json(file, batch)?,
                Encoder::Parquet(writer) => writer.write(batch).map_err(DataFusionError::from)?,
            }
            self.rows += batch.num_rows() as u64;
        }
        Ok(())
    }

    /// Appends so many rows as text that `write` writes as the file's format has it; of a Parquet file that is none.
    ///
    /// # Errors
    /// As `write` fails, and for a Parquet file.
    pub(in crate::sinks) fn write_text(
        &mut self,
        rows: u64,
        write: impl FnOnce(&mut dyn Write) -> Result<u64>,
    ) -> Result<()> {
        let (Encoder::Csv(file) | Encoder::Json(file)) = &mut self.encoder else {
            return Err(Error::internal("text for a Parquet file"));
        };
        write(file)?;
        self.rows += rows;
        Ok(())
    }

    /// Writes what is buffered and makes the bytes safe; the name stays the temporary one.
    pub(in crate::sinks) fn finish(self) -> Result<Content> {
        let file = match self.encoder {
            Encoder::Csv(file) | Encoder::Json(file) => file,
            Encoder::Parquet(writer) => writer.into_inner().map_err(DataFusionError::from)?,
        };
        let (bytes, crc32) = file.sync().map_err(|e| failed(&self.path, e))?;
        Ok(Content { bytes, rows: self.rows, crc32 })
    }

    /// Takes the file back.
    pub(in crate::sinks) fn discard(self) -> Result<()> {
        fs::remove_file(&self.path).map_err(|e| failed(&self.path, e))
    }
}

/// A file that counts and sums what goes into it.
#[derive(Debug)]
struct CheckedFile {
    file: io::BufWriter<Patient>,
    bytes: u64,
    crc32: crc32fast::Hasher,
}

impl CheckedFile {
    fn create(path: &Path) -> io::Result<Self> {
        let file = io::BufWriter::new(Patient { file: File::create(path)?, path: path.to_owned() });
        Ok(Self { file, bytes: 0, crc32: crc32fast::Hasher::new() })
    }

    fn sync(mut self) -> io::Result<(u64, u32)> {
        self.file.flush()?;
        self.file.get_ref().file.sync_all()?;
        Ok((self.bytes, self.crc32.finalize()))
    }
}

impl Write for CheckedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.crc32.update(bytes.get(..written).unwrap_or_default());
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A file that waits for room on a full disk: a write that fails for want of it has written nothing.
#[derive(Debug)]
struct Patient {
    file: File,
    path: PathBuf,
}

impl Write for Patient {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut full_disk = FullDisk::new(format!("the sink's file {}", self.path.display()));
        loop {
            match self.file.write(bytes) {
                Err(error) if error.kind() == ErrorKind::StorageFull => {
                    full_disk.say(&error);
                    std::thread::sleep(ROOM_PAUSE);
                }
                other => return other,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
