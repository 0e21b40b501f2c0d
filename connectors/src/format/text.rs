//! Text inputs: one file or one connection, cut into pieces that are decoded elsewhere.

use std::sync::Arc;

use millstream_engine::source::{BadRow, Decode, Decoded, Offset, Split};
use millstream_engine::{Error, Result};

use super::csv::{CsvFormat, CsvLayout, decode_csv};
use super::cutter::{Chunk, Cutter};
use super::json::decode_json;
use super::rows::{RowShape, RowsBuilder, cut_raw};

/// What the text inputs of a stream have in common.
#[derive(Debug)]
pub(crate) struct TextFormat {
    /// What the rows look like.
    pub(crate) shape: RowShape,
    /// How they are written.
    pub(crate) syntax: Syntax,
}

/// How rows are written as text.
#[derive(Debug)]
pub(crate) enum Syntax {
    /// Comma-separated values.
    Csv(CsvFormat),
    /// JSON lines.
    Json,
}

impl TextFormat {
    /// A format whose every column can be read from text.
    ///
    /// # Errors
    /// Fails for a column of a type that text cannot give.
    pub(crate) fn new(shape: RowShape, syntax: Syntax) -> Result<Arc<Self>> {
        RowsBuilder::new(&shape, 0)?;
        Ok(Arc::new(Self { shape, syntax }))
    }
}

/// One file or connection.
#[derive(Debug)]
pub(crate) struct TextInput {
    format: Arc<TextFormat>,
    place: Arc<str>,
    cutter: Cutter,
    layout: Option<Arc<CsvLayout>>,
}

impl TextInput {
    /// The beginning of an input that messages call `place`.
    pub(crate) fn new(format: &Arc<TextFormat>, place: &str) -> Self {
        let delimiter = match &format.syntax {
            Syntax::Csv(csv) => Some(csv.delimiter),
            Syntax::Json => None,
        };
        Self { format: Arc::clone(format), place: place.into(), cutter: Cutter::new(delimiter), layout: None }
    }

    /// The same input from another place on, which messages call `place` and where a record begins.
    pub(crate) fn resumed(self, place: &str) -> Self {
        Self { layout: self.layout, ..Self::new(&self.format, place) }
    }

    /// Whether it is known where in a record each column is.
    pub(crate) fn has_layout(&self) -> bool {
        self.layout.is_some() || matches!(self.format.syntax, Syntax::Json)
    }

    /// How many bytes have been read and not taken.
    pub(crate) fn pending(&self) -> u64 {
        self.cutter.pending()
    }

    /// Where to append what has been read next.
    pub(crate) const fn buffer(&mut self) -> &mut Vec<u8> {
        self.cutter.buffer()
    }

    /// The next piece of what has been read; `finished` says that nothing more comes.
    ///
    /// # Errors
    /// Fails if the header does not fit the declaration.
    pub(crate) fn take(&mut self, finished: bool) -> Result<Option<TextPiece>> {
        let Some(chunk) = self.cutter.take(finished) else { return Ok(None) };
        let mut skip = 0;
        if let (Syntax::Csv(csv), None, None) = (&self.format.syntax, &self.layout, chunk.refused) {
            let (layout, header) = csv.layout(&self.format.shape, &chunk.bytes, &self.place)?;
            self.layout = Some(Arc::new(layout));
            skip = header;
        }
        let (format, layout, place) = (Arc::clone(&self.format), self.layout.clone(), Arc::clone(&self.place));
        Ok(Some(TextPiece { format, layout, place, chunk, skip, start: Offset(0) }))
    }
}

/// Whole records of one input, not yet decoded.
#[derive(Debug)]
pub(crate) struct TextPiece {
    format: Arc<TextFormat>,
    layout: Option<Arc<CsvLayout>>,
    place: Arc<str>,
    chunk: Chunk,
    skip: usize,
    start: Offset,
}

impl TextPiece {
    /// How many bytes of the input it stands for.
    pub(crate) const fn length(&self) -> u64 {
        self.chunk.length
    }

    /// What messages call the input.
    pub(crate) fn place(&self) -> &str {
        &self.place
    }

    /// The number of its first line there.
    pub(crate) const fn first_line(&self) -> u64 {
        self.chunk.first_line
    }

    /// Whether its bytes are all that there is to it: of a line that is given up only the beginning is kept.
    pub(crate) const fn is_whole(&self) -> bool {
        self.chunk.refused.is_none()
    }

    /// The same piece beginning at `start`, of which messages call the place and the first line so.
    pub(crate) fn named(mut self, place: &str, first_line: u64, start: Offset) -> Self {
        (self.place, self.chunk.first_line, self.start) = (place.into(), first_line, start);
        self
    }

    /// The bytes that it takes in memory.
    pub(crate) const fn bytes(&self) -> usize {
        self.chunk.bytes.len()
    }

    /// The piece as the split that begins at `start`.
    pub(crate) fn into_split(mut self, start: Offset) -> Split {
        self.start = start;
        let offsets = start..Offset(start.0 + self.chunk.length);
        Split { offsets, bytes: self.chunk.bytes.len(), decode: Box::new(self) }
    }

    /// The piece beginning at `start`.
    pub(crate) const fn at(mut self, start: Offset) -> Self {
        self.start = start;
        self
    }

    fn refused(&self, reason: &str) -> Result<Decoded> {
        let place = format!("{} line {}", self.place, self.chunk.first_line);
        let raw = cut_raw(self.chunk.bytes.trim_ascii_end());
        let bad = BadRow { offset: self.start, place, column: None, raw, reason: reason.to_owned() };
        let none = RowsBuilder::new(&self.format.shape, 0)?.finish()?;
        Ok(Decoded { batch: none.batch, bad: vec![bad] })
    }
}

impl Decode for TextPiece {
    fn decode(self: Box<Self>) -> Result<Decoded> {
        let (shape, chunk) = (&self.format.shape, &self.chunk);
        if let Some(reason) = chunk.refused {
            return self.refused(reason);
        }
        match (&self.format.syntax, &self.layout) {
            (Syntax::Json, _) => decode_json(shape, chunk, self.start, &self.place),
            (Syntax::Csv(csv), Some(layout)) => {
                decode_csv(csv, layout, shape, chunk, self.skip, self.start, &self.place)
            }
            (Syntax::Csv(_), None) => Err(Error::internal("a chunk of CSV has no layout")),
        }
    }
}
