//! The sink that writes one file an epoch: `part-0000000012.csv`.
//!
//! Rows are written to a hidden temporary file as they are staged; the commit renames it, which other programs
//! see whole or not at all. An epoch's file has the same name in every run, so that a repeated commit finds it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::DataFusionError;
use datafusion::parquet::arrow::ArrowWriter;
use millstream_engine::batch::Epoch;
use millstream_engine::sink::{Guarantee, Sink, SinkWriter};
use millstream_engine::{Error, Result};

use super::text::{write_csv, write_json};

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
    staged: Option<Part>,
}

impl FilesSink {
    /// A sink for rows of `schema` in `folder`, which is made if need be.
    ///
    /// # Errors
    /// Fails if the folder cannot be made.
    pub fn create(folder: impl Into<PathBuf>, format: FileFormat, schema: SchemaRef) -> Result<Self> {
        let folder = folder.into();
        let fail = |error| Error::external(format!("making folder {}", folder.display()), error);
        fs::create_dir_all(&folder).map_err(fail)?;
        if has_parts(&folder).map_err(fail)? {
            let message = format!("folder {} holds the results of an earlier run", folder.display());
            return Err(Error::query(message, "remove them or name another path: epochs start again from 0"));
        }
        Ok(Self { folder, format, schema, staged: None })
    }

    fn path(&self, epoch: Epoch) -> PathBuf {
        self.folder.join(format!("part-{:010}.{}", epoch.0, self.format.extension()))
    }

    fn temporary_path(&self, epoch: Epoch) -> PathBuf {
        self.folder.join(format!(".part-{:010}.{}.tmp", epoch.0, self.format.extension()))
    }
}

/// Whether a folder has files that this sink would take for epochs of its own.
fn has_parts(folder: &Path) -> io::Result<bool> {
    for entry in fs::read_dir(folder)? {
        if entry?.file_name().to_string_lossy().starts_with("part-") {
            return Ok(true);
        }
    }
    Ok(false)
}

#[async_trait]
impl Sink for FilesSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::ExactlyOnce
    }

    async fn begin(&mut self, _: &SinkWriter) -> Result<Option<Epoch>> {
        Ok(None)
    }

    async fn stage(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<()> {
        let begun = self.staged.take_if(|part| part.epoch == epoch);
        let (path, format, schema) = (self.temporary_path(epoch), self.format, SchemaRef::clone(&self.schema));
        let rows = rows.to_vec();
        let part = blocking(move || {
            let mut part = match begun {
                Some(part) => part,
                None => Part::create(epoch, path, format, schema)?,
            };
            part.write(&rows)?;
            Ok(part)
        });
        self.staged = Some(part.await?);
        Ok(())
    }

    async fn commit(&mut self, epoch: Epoch) -> Result<()> {
        let Some(part) = self.staged.take_if(|part| part.epoch == epoch) else { return Ok(()) };
        let (path, folder) = (self.path(epoch), self.folder.clone());
        blocking(move || part.publish(&path, &folder)).await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let task = SpawnedTask::spawn_blocking(work);
    task.join().await.map_err(|e| Error::internal(format!("a task that writes files: {e}")))?
}

/// The file of an epoch that is not committed yet.
#[derive(Debug)]
struct Part {
    epoch: Epoch,
    path: PathBuf,
    encoder: Encoder,
}

#[derive(Debug)]
enum Encoder {
    Csv(File),
    Json(File),
    Parquet(Box<ArrowWriter<File>>),
}

impl Part {
    /// Begins the file anew, whatever an earlier run left under its temporary name.
    fn create(epoch: Epoch, path: PathBuf, format: FileFormat, schema: SchemaRef) -> Result<Self> {
        let file = File::create(&path).map_err(|e| failed(&path, e))?;
        let encoder = match format {
            FileFormat::Csv => {
                write_csv(&file, &RecordBatch::new_empty(schema), true)?;
                Encoder::Csv(file)
            }
            FileFormat::Json => Encoder::Json(file),
            FileFormat::Parquet => {
                Encoder::Parquet(Box::new(ArrowWriter::try_new(file, schema, None).map_err(DataFusionError::from)?))
            }
        };
        Ok(Self { epoch, path, encoder })
    }

    fn write(&mut self, rows: &[RecordBatch]) -> Result<()> {
        for batch in rows {
            match &mut self.encoder {
                Encoder::Csv(file) => write_csv(&*file, batch, false)?,
                Encoder::Json(file) => write_json(io::BufWriter::new(&*file), batch)?,
                Encoder::Parquet(writer) => writer.write(batch).map_err(DataFusionError::from)?,
            }
        }
        Ok(())
    }

    /// Gives the file its name, once its bytes are safe; the file that is already there is kept.
    fn publish(self, path: &Path, folder: &Path) -> Result<()> {
        if path.exists() {
            return fs::remove_file(&self.path).map_err(|e| failed(&self.path, e));
        }
        let file = match self.encoder {
            Encoder::Csv(file) | Encoder::Json(file) => file,
            Encoder::Parquet(writer) => writer.into_inner().map_err(DataFusionError::from)?,
        };
        file.sync_all()
            .and_then(|()| fs::rename(&self.path, path))
            .and_then(|()| File::open(folder)?.sync_all())
            .map_err(|e| failed(path, e))
    }
}

fn failed(path: &Path, error: io::Error) -> Error {
    Error::external(format!("writing {}", path.display()), error)
}

#[cfg(test)]
mod tests {
    use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::super::text::tests::numbers;
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn create(folder: &Path, format: FileFormat) -> FilesSink {
        FilesSink::create(folder, format, numbers(&[]).schema()).unwrap()
    }

    #[tokio::test]
    async fn an_epoch_staged_in_parts_gets_its_name_at_the_commit() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = create(folder.path(), FileFormat::Csv);
        sink.stage(Epoch(12), &[numbers(&[1]), numbers(&[2])]).await.unwrap();
        sink.stage(Epoch(12), &[numbers(&[3])]).await.unwrap();
        assert_eq!(names(folder.path()), [".part-0000000012.csv.tmp"]);
        sink.commit(Epoch(12)).await.unwrap();
        assert_eq!(names(folder.path()), ["part-0000000012.csv"]);
        assert_eq!(fs::read_to_string(folder.path().join("part-0000000012.csv")).unwrap(), "n\n1\n2\n3\n");
    }

    #[tokio::test]
    async fn a_repeated_epoch_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = create(folder.path(), FileFormat::Json);
        for value in [1, 2] {
            sink.stage(Epoch(0), &[numbers(&[value])]).await.unwrap();
            sink.commit(Epoch(0)).await.unwrap();
            sink.commit(Epoch(0)).await.unwrap();
        }
        assert_eq!(names(folder.path()), ["part-0000000000.json"]);
        assert_eq!(fs::read_to_string(folder.path().join("part-0000000000.json")).unwrap(), "{\"n\":1}\n");
    }

    #[tokio::test]
    async fn a_folder_with_results_of_an_earlier_run_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = create(folder.path(), FileFormat::Json);
        sink.stage(Epoch(0), &[numbers(&[1])]).await.unwrap();
        sink.commit(Epoch(0)).await.unwrap();
        let error = FilesSink::create(folder.path(), FileFormat::Json, numbers(&[]).schema()).unwrap_err();
        assert!(error.to_string().contains("holds the results of an earlier run"), "{error}");
    }

    #[tokio::test]
    async fn what_an_earlier_run_left_staged_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        create(folder.path(), FileFormat::Csv).stage(Epoch(0), &[numbers(&[1])]).await.unwrap();
        let mut sink = create(folder.path(), FileFormat::Csv);
        sink.stage(Epoch(0), &[numbers(&[2])]).await.unwrap();
        sink.commit(Epoch(0)).await.unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("part-0000000000.csv")).unwrap(), "n\n2\n");
    }

    #[tokio::test]
    async fn parquet_files_can_be_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut sink = create(folder.path(), FileFormat::Parquet);
        sink.stage(Epoch(3), &[numbers(&[1, 2])]).await.unwrap();
        sink.stage(Epoch(3), &[numbers(&[3])]).await.unwrap();
        sink.commit(Epoch(3)).await.unwrap();
        let file = File::open(folder.path().join("part-0000000003.parquet")).unwrap();
        let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
        assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), [numbers(&[1, 2, 3])]);
    }
}
