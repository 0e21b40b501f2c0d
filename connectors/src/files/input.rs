//! One file being read: unpacked, cut into splits, and checked not to change meanwhile.

use std::fmt;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;
use std::sync::Arc;

use flate2::read::MultiGzDecoder;
use millstream_engine::source::{Offset, Split};
use millstream_engine::{Error, Result};

use super::piece::FilePiece;
use super::record::FileRecord;
use super::{HEADER_BYTES, Rows, SPLIT_BYTES};
use crate::format::columnar::ColumnarInput;
use crate::format::text::{TextFormat, TextInput, TextPiece};

/// One file being read.
#[derive(Debug)]
pub(super) struct FileInput {
    place: String,
    /// Another handle to the file, to ask for its size and age at the end.
    file: File,
    /// What it looked like when it was opened.
    record: FileRecord,
    content: Content,
}

#[derive(Debug)]
enum Content {
    Text(TextFile),
    Columnar(ColumnarInput),
}

impl FileInput {
    /// Reads the file of `record` through the handle that it was looked at with, from its offset `skip` on, where a
    /// split of an earlier run ended.
    pub(super) fn open(record: FileRecord, file: File, rows: &Rows, skip: u64) -> Result<Self> {
        let place = shown(&record.path);
        let handle = file.try_clone().map_err(|error| Error::external(format!("opening {place}"), error))?;
        let content = match rows {
            Rows::Text(format, split_bytes) => {
                let text = TextFile::open(format, file, &place, skip)?;
                Content::Text(TextFile { split_bytes: *split_bytes, ..text })
            }
            Rows::Columnar(format, shape) => {
                Content::Columnar(ColumnarInput::open(shape, *format, file, &place, skip)?)
            }
        };
        Ok(Self { place, file: handle, record, content })
    }

    /// The next split, which begins at `start` and ends at `limit` at the latest; `None` at the end of the file.
    ///
    /// # Errors
    /// Fails if the file cannot be read or has changed since it was looked at.
    pub(super) fn next(&mut self, start: Offset, limit: Option<Offset>) -> Result<Option<Split>> {
        let room = limit.map(|limit| limit.0.saturating_sub(start.0));
        let split = match &mut self.content {
            Content::Text(text) => text.next(start, room, &self.place, &self.record)?,
            Content::Columnar(columnar) => columnar.next(start, room)?,
        };
        if split.is_none() {
            self.check_unchanged()?;
        }
        Ok(split)
    }

    fn check_unchanged(&self) -> Result<()> {
        let fail = |error| Error::external(format!("reading {}", self.place), error);
        let after = self.file.metadata().map_err(fail)?;
        if self.record.is_like(&after) {
            return Ok(());
        }
        let message = format!("{} changed while it was read", self.place);
        Err(Error::data(message, "write a new file under another name and rename it when it is complete"))
    }
}

/// A file of lines.
pub(super) struct TextFile {
    input: TextInput,
    bytes: Box<dyn Read + Send>,
    split_bytes: usize,
    finished: bool,
    /// Where the next piece begins in the file; unknown in one that is packed.
    position: Option<u64>,
}

impl fmt::Debug for TextFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TextFile").field("input", &self.input).finish_non_exhaustive()
    }
}

impl TextFile {
    /// Reads `file`, which messages call `place`, from its byte `skip` on, where a record begins.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub(super) fn open(format: &Arc<TextFormat>, mut file: File, place: &str, skip: u64) -> Result<Self> {
        let fail = |error| Error::external(format!("reading {place}"), error);
        if skip == 0 {
            let bytes = unpacked(file, place).map_err(fail)?;
            return Ok(Self::new(TextInput::new(format, place), bytes, place, 0));
        }
        // The header is at the beginning, wherever reading goes on.
        let beginning = unpacked(file.try_clone().map_err(fail)?, place).map_err(fail)?;
        let first = Self::new(TextInput::new(format, place), beginning, place, 0);
        let mut first = Self { split_bytes: HEADER_BYTES, ..first };
        let mut passed = 0;
        while !first.input.has_layout()
            && passed < skip
            && let Some(piece) = first.next_piece(None, place)?
        {
            passed += piece.length();
        }
        file.rewind().map_err(fail)?;
        let bytes = if is_packed(place) {
            let mut bytes = unpacked(file, place).map_err(fail)?;
            io::copy(&mut bytes.by_ref().take(skip), &mut io::sink()).map_err(fail)?;
            bytes
        } else {
            file.seek(SeekFrom::Start(skip)).map_err(fail)?;
            Box::new(file)
        };
        Ok(Self::new(first.input.resumed(&format!("{place} behind byte {skip}")), bytes, place, skip))
    }

    fn new(input: TextInput, bytes: Box<dyn Read + Send>, place: &str, position: u64) -> Self {
        let position = (!is_packed(place)).then_some(position);
        Self { input, bytes, split_bytes: SPLIT_BYTES, finished: false, position }
    }

    /// The next split; `limit` as for [`TextFile::next_piece`].
    fn next(&mut self, start: Offset, limit: Option<u64>, place: &str, record: &FileRecord) -> Result<Option<Split>> {
        let position = self.position;
        let Some(piece) = self.next_piece(limit, place)? else { return Ok(None) };
        Ok(Some(match position.filter(|_| piece.is_whole()) {
            None => piece.into_split(start),
            Some(position) => {
                let (offsets, bytes) = (start..Offset(start.0 + piece.length()), piece.bytes());
                let piece = piece.at(start);
                Split { offsets, bytes, decode: Box::new(FilePiece::new(piece, record, position, start)) }
            }
        }))
    }

    /// The piece of so many bytes.
    pub(super) fn piece_of(mut self, length: u64, place: &str) -> Result<Option<TextPiece>> {
        self.split_bytes = usize::try_from(length).unwrap_or(usize::MAX);
        self.next_piece(Some(length), place)
    }

    /// The next piece, of at most `limit` bytes if that is given: then it ends at the end of a record, of its own accord
    /// or by the rules for the end of a file.
    fn next_piece(&mut self, limit: Option<u64>, place: &str) -> Result<Option<TextPiece>> {
        loop {
            let room = limit.map(|limit| limit.saturating_sub(self.input.pending()));
            let is_over = self.finished || room == Some(0);
            if let Some(piece) = self.input.take(is_over)? {
                self.position = self.position.map(|position| position + piece.length());
                return Ok(Some(piece));
            }
            if is_over {
                return Ok(None);
            }
            let buffer = self.input.buffer();
            let piece = self.split_bytes.saturating_sub(buffer.len()).max(self.split_bytes / 8) as u64;
            let piece = room.map_or(piece, |room| room.min(piece));
            let read = self.bytes.by_ref().take(piece).read_to_end(buffer);
            let read = read.map_err(|error| Error::external(format!("reading {place}"), error))?;
            self.finished = (read as u64) < piece;
        }
    }
}

/// A path as people would write it: from the working directory, if it is there.
fn shown(path: &Path) -> String {
    let folder = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(folder).unwrap_or(path).display().to_string()
}

fn is_packed(place: &str) -> bool {
    place.ends_with(".gz") || place.ends_with(".zst")
}

/// The text of a file, whose name says how it is packed.
fn unpacked(file: File, place: &str) -> io::Result<Box<dyn Read + Send>> {
    Ok(if place.ends_with(".gz") {
        Box::new(MultiGzDecoder::new(BufReader::new(file)))
    } else if place.ends_with(".zst") {
        Box::new(zstd::stream::read::Decoder::new(file)?)
    } else {
        Box::new(file)
    })
}
