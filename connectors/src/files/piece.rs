//! A piece of a text file in words, of which any process that reaches the file makes the same rows.

use std::fs::File;
use std::sync::Arc;

use millstream_engine::source::{Decode, Decoded, Offset};
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};

use super::input::TextFile;
use super::record::FileRecord;
use crate::format::text::{TextFormat, TextPiece};

/// Where a piece is, and what messages call its lines.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct PieceRecipe {
    file: FileRecord,
    /// Where it begins in the file, in bytes.
    position: u64,
    length: u64,
    place: String,
    first_line: u64,
    /// Its first offset in the partition.
    start: Offset,
}

/// A piece that has been read and can be read again elsewhere.
#[derive(Debug)]
pub(super) struct FilePiece {
    piece: TextPiece,
    recipe: PieceRecipe,
}

impl FilePiece {
    /// The piece of `file` that begins at the offset `start`, which is `position` in it.
    pub(super) fn new(piece: TextPiece, file: &FileRecord, position: u64, start: Offset) -> Self {
        let recipe = PieceRecipe {
            file: file.clone(),
            position,
            length: piece.length(),
            place: piece.place().to_owned(),
            first_line: piece.first_line(),
            start,
        };
        Self { piece, recipe }
    }
}

impl Decode for FilePiece {
    fn decode(self: Box<Self>) -> Result<Decoded> {
        Box::new(self.piece).decode()
    }

    fn recipe(&self) -> Option<String> {
        // A record is plain data.
        serde_json::to_string(&self.recipe).ok()
    }
}

/// Reads the piece that `recipe` describes.
///
/// # Errors
/// Fails if the file is gone or is no longer what it was.
pub(super) fn read_piece(format: &Arc<TextFormat>, recipe: &str) -> Result<Box<dyn Decode>> {
    let recipe: PieceRecipe = serde_json::from_str(recipe)
        .map_err(|error| Error::internal(format!("{recipe:?} is no piece of a file: {error}")))?;
    let PieceRecipe { file: record, position, length, place, first_line, start } = recipe;
    let path = record.path.display().to_string();
    let fail = |error| Error::external(format!("reading {path}"), error);
    let file = File::open(&record.path).map_err(fail)?;
    if !record.is_like(&file.metadata().map_err(fail)?) {
        let message = format!("{path} is not what it was when its reading began");
        return Err(Error::data(message, "have every executor reach the same files, and leave those that are read"));
    }
    let text = TextFile::open(format, file, &path, position)?;
    let piece = text.piece_of(length, &path)?.filter(|piece| piece.length() == length);
    let piece = piece.ok_or_else(|| Error::internal(format!("{path} has no piece of {length} bytes at {position}")))?;
    Ok(Box::new(piece.named(&place, first_line, start)))
}
