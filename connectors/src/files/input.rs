//! One file being read: unpacked, cut into splits, and checked not to change meanwhile.

use std::fmt;
use std::fs::{File, Metadata};
use std::io::{BufReader, Read};
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use millstream_engine::source::{Offset, Split};
use millstream_engine::{Error, Result};

use super::Rows;
use crate::format::columnar::ColumnarInput;
use crate::format::text::{TextFormat, TextInput};

/// How much text makes a split, in bytes.
const SPLIT_BYTES: usize = 1024 * 1024;

/// One file being read.
#[derive(Debug)]
pub(super) struct FileInput {
    place: String,
    /// Another handle to the file, to ask for its size and age at the end.
    file: File,
    before: Metadata,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Text(TextFile),
    Columnar(ColumnarInput),
}

impl FileInput {
    /// Opens the file at `path`.
    pub(super) fn open(path: &Path, rows: &Rows) -> Result<Self> {
        let place = path.display().to_string();
        let fail = |error| Error::external(format!("opening {place}"), error);
        let file = File::open(path).map_err(fail)?;
        let handle = file.try_clone().map_err(fail)?;
        let before = file.metadata().map_err(fail)?;
        let content = match rows {
            Rows::Text(format) => Content::Text(TextFile::open(format, file, &place)?),
            Rows::Columnar(format, shape) => Content::Columnar(ColumnarInput::open(shape, *format, file, &place)?),
        };
        Ok(Self { place, file: handle, before, content })
    }

    /// The next split, which begins at `start`; `None` at the end of the file.
    ///
    /// # Errors
    /// Fails if the file cannot be read or has changed since it was opened.
    pub(super) fn next(&mut self, start: Offset) -> Result<Option<Split>> {
        let split = match &mut self.content {
            Content::Text(text) => text.next(start, &self.place)?,
            Content::Columnar(columnar) => columnar.next(start)?,
        };
        if split.is_none() {
            self.check_unchanged()?;
        }
        Ok(split)
    }

    fn check_unchanged(&self) -> Result<()> {
        let fail = |error| Error::external(format!("reading {}", self.place), error);
        let after = self.file.metadata().map_err(fail)?;
        if (after.len(), after.modified().ok()) == (self.before.len(), self.before.modified().ok()) {
            return Ok(());
        }
        let message = format!("{} changed while it was read", self.place);
        Err(Error::data(message, "write a new file under another name and rename it when it is complete"))
    }
}

/// A file of lines.
struct TextFile {
    input: TextInput,
    bytes: Box<dyn Read + Send>,
    finished: bool,
}

impl fmt::Debug for TextFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextFile").field("input", &self.input).finish_non_exhaustive()
    }
}

impl TextFile {
    fn open(format: &Arc<TextFormat>, file: File, place: &str) -> Result<Self> {
        let bytes: Box<dyn Read + Send> = if place.ends_with(".gz") {
            Box::new(MultiGzDecoder::new(BufReader::new(file)))
        } else if place.ends_with(".zst") {
            let unpacked = zstd::stream::read::Decoder::new(file);
            Box::new(unpacked.map_err(|error| Error::external(format!("opening {place}"), error))?)
        } else {
            Box::new(file)
        };
        Ok(Self { input: TextInput::new(format, place), bytes, finished: false })
    }

    fn next(&mut self, start: Offset, place: &str) -> Result<Option<Split>> {
        loop {
            if let Some(piece) = self.input.take(self.finished)? {
                return Ok(Some(piece.into_split(start)));
            }
            if self.finished {
                return Ok(None);
            }
            let buffer = self.input.buffer();
            let room = SPLIT_BYTES.saturating_sub(buffer.len()).max(SPLIT_BYTES / 8);
            let read = self.bytes.by_ref().take(room as u64).read_to_end(buffer);
            let read = read.map_err(|error| Error::external(format!("reading {place}"), error))?;
            self.finished = read < room;
        }
    }
}
