//! What is noted about the files of a stream, so that an offset means the same row in a later run.

use std::fs::{File, Metadata};
use std::io::{self, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use millstream_engine::source::{InputIndex, Offset};
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};

/// How much of the beginning and of the end of a file goes into its checksum, in bytes.
const SAMPLE_BYTES: u64 = 64 * 1024;

/// A line of the index.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Note {
    /// A file was opened.
    File(FileRecord),
    /// The file opened last has been read to its end, which is at this offset of the partition.
    End(Offset),
}

/// A file that was opened, and what it looked like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct FileRecord {
    /// Its absolute path.
    pub(super) path: PathBuf,
    /// The offset of the partition at which it begins.
    pub(super) start: Offset,
    bytes: u64,
    /// When it was last changed, in nanoseconds since 1970.
    modified_ns: u64,
    /// CRC-32 of its first and last 64 KiB.
    crc32: u32,
}

impl FileRecord {
    /// Opens a file that begins at `start`: what it looks like, and the handle that it is to be read with, so that what
    /// was looked at is what is read.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub(super) fn open_new(path: &Path, start: Offset) -> Result<(Self, File)> {
        let fail = |error| opening(path, error);
        let file = File::open(path).map_err(fail)?;
        let record = Self::of(path, &file, start).map_err(fail)?;
        Ok((record, file))
    }

    /// Opens the file again, unless it is no longer what it was; the handle is the one that it is to be read with.
    ///
    /// # Errors
    /// Says what has changed.
    pub(super) fn open(&self) -> Result<File> {
        let path = self.path.display();
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                return Err(changed(format!("{path}, which is not read to its end, is gone")));
            }
            file => file.map_err(|error| opening(&self.path, error))?,
        };
        let now = Self::of(&self.path, &file, self.start).map_err(|error| opening(&self.path, error))?;
        if now == *self {
            return Ok(file);
        }
        let what = if now.bytes != self.bytes {
            format!("it had {} bytes and has {}", self.bytes, now.bytes)
        } else if now.crc32 != self.crc32 {
            "its content is another".to_owned()
        } else {
            "it was written to".to_owned()
        };
        Err(changed(format!("{path} has changed since an earlier run began to read it: {what}")))
    }

    /// Refuses a file that is no longer what it was.
    ///
    /// # Errors
    /// Says what has changed.
    pub(super) fn check(&self) -> Result<()> {
        self.open().map(drop)
    }

    /// Whether a file still has the size and the age that it had.
    pub(super) fn is_like(&self, metadata: &Metadata) -> bool {
        (metadata.len(), modified_ns(metadata)) == (self.bytes, self.modified_ns)
    }

    /// Looks at a file, whose handle is at its beginning afterwards.
    fn of(path: &Path, mut file: &File, start: Offset) -> io::Result<Self> {
        let metadata = file.metadata()?;
        let mut sum = crc32fast::Hasher::new();
        let mut sample = Vec::new();
        let tail = metadata.len().saturating_sub(SAMPLE_BYTES);
        for from in [0, tail] {
            sample.clear();
            file.seek(SeekFrom::Start(from))?;
            file.take(SAMPLE_BYTES).read_to_end(&mut sample)?;
            sum.update(&sample);
        }
        file.rewind()?;
        Ok(Self {
            path: path.to_owned(),
            start,
            bytes: metadata.len(),
            modified_ns: modified_ns(&metadata),
            crc32: sum.finalize(),
        })
    }
}

fn opening(path: &Path, error: io::Error) -> Error {
    Error::external(format!("opening {}", path.display()), error)
}

fn changed(message: String) -> Error {
    Error::state(message, "put the file back as it was, or begin anew with another state directory")
}

fn modified_ns(metadata: &Metadata) -> u64 {
    let since = metadata.modified().ok().and_then(|time| time.duration_since(UNIX_EPOCH).ok());
    since.and_then(|since| u64::try_from(since.as_nanos()).ok()).unwrap_or_default()
}

/// Notes that a file was opened.
pub(super) fn note_file(index: &dyn InputIndex, record: &FileRecord) -> Result<()> {
    push(index, &Note::File(record.clone()))
}

/// Notes that the file opened last ended at `end`.
pub(super) fn note_end(index: &dyn InputIndex, end: Offset) -> Result<()> {
    push(index, &Note::End(end))
}

fn push(index: &dyn InputIndex, note: &Note) -> Result<()> {
    let text = serde_json::to_string(note).map_err(|error| Error::internal(format!("a note has no JSON: {error}")))?;
    index.push(&text)
}

/// The files that earlier runs opened, in order.
#[derive(Debug, Default)]
pub(super) struct Opened {
    pub(super) records: Vec<FileRecord>,
    /// Where the last of them ended, if it was read to its end.
    pub(super) end: Option<Offset>,
}

impl Opened {
    /// Reads the index.
    ///
    /// # Errors
    /// Fails on a line that is no note.
    pub(super) fn read(index: &dyn InputIndex) -> Result<Self> {
        let mut opened = Self::default();
        for note in index.notes() {
            match serde_json::from_str(&note) {
                Ok(Note::File(record)) => {
                    opened.records.push(record);
                    opened.end = None;
                }
                Ok(Note::End(end)) => opened.end = Some(end),
                Err(error) => {
                    let message = format!("{note:?} is no note about an input file: {error}");
                    return Err(Error::state(message, "use the version of millstream that wrote it"));
                }
            }
        }
        Ok(opened)
    }

    /// Those that hold rows at `from` or behind it, in order.
    pub(super) fn unread(&self, from: Offset) -> &[FileRecord] {
        let ends = self.records.iter().skip(1).map(|record| Some(record.start)).chain([self.end]);
        let read = ends.take_while(|end| end.is_some_and(|end| end <= from)).count();
        self.records.get(read..).unwrap_or_default()
    }
}
