//! Cuts a stream of bytes into chunks of whole records, without decoding them and in bounded memory.

use memchr::{memchr, memchr_iter, memrchr};

use super::quotes::{Quoting, find_record_end};
use super::rows::MAX_RAW_BYTES;

/// The longest line that is read as a row, in bytes; also bounds what a broken input can make us keep.
pub(crate) const MAX_LINE_BYTES: usize = 1024 * 1024;
/// Said of a longer line.
pub(crate) const LINE_TOO_LONG: &str = "line longer than 1 MiB";
/// Said of a line whose last quoted field has no end within [`MAX_LINE_BYTES`].
const QUOTE_NOT_CLOSED: &str = "quoted field is not closed";

/// Whole records of one file or connection.
#[derive(Debug)]
pub(crate) struct Chunk {
    /// The records; of a refused line its beginning.
    pub(crate) bytes: Vec<u8>,
    /// How many bytes of the input it stands for.
    pub(crate) length: u64,
    /// The number of its first line, from 1.
    pub(crate) first_line: u64,
    /// Why it is no record at all: the chunk is then a single line.
    pub(crate) refused: Option<&'static str>,
}

/// Cuts bytes into chunks that end at record ends.
#[derive(Debug)]
pub(crate) struct Cutter {
    /// The delimiter of CSV, whose quotes are heeded; `None` where every newline ends a record.
    delimiter: Option<u8>,
    /// Begins at the beginning of a record, unless a long line is being dropped.
    buffer: Vec<u8>,
    /// How far the buffer has been searched, and behind which byte its last whole record ends.
    searched: usize,
    quoting: Quoting,
    whole: usize,
    next_line: u64,
    dropping: Option<LongLine>,
}

#[derive(Debug)]
struct LongLine {
    head: Vec<u8>,
    length: u64,
}

impl Cutter {
    /// A cutter at the beginning of an input.
    pub(crate) const fn new(delimiter: Option<u8>) -> Self {
        Self {
            delimiter,
            buffer: Vec::new(),
            searched: 0,
            quoting: Quoting::Outside,
            whole: 0,
            next_line: 1,
            dropping: None,
        }
    }

    /// Where to append what has been read next.
    pub(crate) const fn buffer(&mut self) -> &mut Vec<u8> {
        &mut self.buffer
    }

    /// How many bytes have been read and are in no chunk yet.
    pub(crate) fn pending(&self) -> u64 {
        self.dropping.as_ref().map_or(0, |line| line.length) + self.buffer.len() as u64
    }

    /// The next chunk of what has been read; `finished` says that nothing more comes.
    pub(crate) fn take(&mut self, finished: bool) -> Option<Chunk> {
        loop {
            if self.dropping.is_some() {
                return self.drop_long_line(finished);
            }
            self.search();
            if self.whole > 0 {
                return Some(self.cut(self.whole, None));
            }
            if finished {
                return self.cut_rest();
            }
            if self.buffer.len() <= MAX_LINE_BYTES {
                return None;
            }
            if let Some(end) = self.first_line_of_open_quote() {
                return Some(self.cut(end, Some(QUOTE_NOT_CLOSED)));
            }
            self.dropping = Some(LongLine { head: Vec::new(), length: 0 });
        }
    }

    fn search(&mut self) {
        let new = self.buffer.get(self.searched..).unwrap_or_default();
        let plain = self.quoting == Quoting::Outside && memchr(b'"', new).is_none();
        match self.delimiter.filter(|_| !plain) {
            Some(delimiter) => self.search_quoted(delimiter),
            None => {
                if let Some(index) = memrchr(b'\n', new) {
                    self.whole = self.searched + index + 1;
                }
                self.searched = self.buffer.len();
            }
        }
    }

    fn search_quoted(&mut self, delimiter: u8) {
        loop {
            match find_record_end(&self.buffer, self.searched, self.quoting, delimiter) {
                Ok(end) => {
                    (self.searched, self.whole, self.quoting) = (end, end, Quoting::Outside);
                }
                Err((searched, quoting)) => {
                    (self.searched, self.quoting) = (searched, quoting);
                    return;
                }
            }
        }
    }

    /// Takes the first `end` bytes off the buffer.
    fn cut(&mut self, end: usize, refused: Option<&'static str>) -> Chunk {
        let rest = self.buffer.split_off(end.min(self.buffer.len()));
        let bytes = std::mem::replace(&mut self.buffer, rest);
        let first_line = self.next_line;
        self.next_line += memchr_iter(b'\n', &bytes).count() as u64;
        if refused.is_some() {
            // The rest was searched as the inside of a quote that is none.
            (self.searched, self.quoting) = (0, Quoting::Outside);
        } else {
            self.searched -= end;
        }
        self.whole = 0;
        Chunk { length: bytes.len() as u64, bytes, first_line, refused }
    }

    fn cut_rest(&mut self) -> Option<Chunk> {
        if self.buffer.is_empty() {
            return None;
        }
        match self.first_line_of_open_quote() {
            Some(end) => Some(self.cut(end, Some(QUOTE_NOT_CLOSED))),
            None if self.quoting == Quoting::Inside => Some(self.cut(self.buffer.len(), Some(QUOTE_NOT_CLOSED))),
            None => Some(self.cut(self.buffer.len(), None)),
        }
    }

    /// Where the first line ends if the buffer is one record that a quote keeps open: only that line is given up.
    fn first_line_of_open_quote(&self) -> Option<usize> {
        if self.quoting == Quoting::Inside { memchr(b'\n', &self.buffer).map(|index| index + 1) } else { None }
    }

    fn drop_long_line(&mut self, finished: bool) -> Option<Chunk> {
        let newline = memchr(b'\n', &self.buffer);
        let end = newline.map_or(self.buffer.len(), |index| index + 1);
        let mut line = self.dropping.take()?;
        let room = MAX_RAW_BYTES.saturating_sub(line.head.len()).min(newline.unwrap_or(end));
        line.head.extend(self.buffer.drain(..end).take(room));
        line.length += end as u64;
        (self.searched, self.quoting, self.whole) = (0, Quoting::Outside, 0);
        if newline.is_none() && !finished {
            self.dropping = Some(line);
            return None;
        }
        self.next_line += 1;
        let first_line = self.next_line - 1;
        Some(Chunk { bytes: line.head, length: line.length, first_line, refused: Some(LINE_TOO_LONG) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut_all(text: &[u8], step: usize) -> Vec<Chunk> {
        let mut cutter = Cutter::new(Some(b','));
        let mut chunks = Vec::new();
        for piece in text.chunks(step) {
            cutter.buffer().extend_from_slice(piece);
            chunks.extend(std::iter::from_fn(|| cutter.take(false)));
            assert!(cutter.buffer.len() <= MAX_LINE_BYTES + step);
        }
        chunks.extend(std::iter::from_fn(|| cutter.take(true)));
        chunks
    }

    #[test]
    fn chunks_tile_the_input_at_record_ends() {
        let text = b"a,1\n\"b\nb\",2\r\nc,\"3\"\n\nlast,4";
        for step in 1..=text.len() {
            let chunks = cut_all(text, step);
            let joined: Vec<u8> = chunks.iter().flat_map(|chunk| chunk.bytes.clone()).collect();
            assert_eq!(joined, text, "step {step}");
            assert!(chunks.iter().all(|chunk| chunk.refused.is_none() && !chunk.bytes.ends_with(b"\"b\n")));
            let last = chunks.last().unwrap();
            let lines = last.bytes.iter().filter(|byte| **byte == b'\n').count() as u64;
            assert_eq!(last.first_line + lines, 6, "step {step}");
        }
    }

    #[test]
    fn a_long_line_is_dropped_in_bounded_memory() {
        let mut text = b"a,1\n".to_vec();
        text.extend(std::iter::repeat_n(b'x', 3 * MAX_LINE_BYTES));
        text.extend_from_slice(b"\nb,2\n");
        let chunks = cut_all(&text, 64 * 1024);
        let lengths: Vec<_> = chunks.iter().map(|chunk| (chunk.first_line, chunk.length, chunk.refused)).collect();
        let long = 3 * MAX_LINE_BYTES as u64 + 1;
        assert_eq!(lengths, [(1, 4, None), (2, long, Some(LINE_TOO_LONG)), (3, 4, None)]);
        assert_eq!(chunks[1].bytes.len(), MAX_RAW_BYTES);
    }

    #[test]
    fn a_quote_that_is_never_closed_costs_one_line() {
        let chunks = cut_all(b"a,1\nb,\"2\nc,3\nd,4", 5);
        let texts: Vec<_> = chunks.iter().map(|chunk| (chunk.refused.is_some(), chunk.bytes.as_slice())).collect();
        let expected: [(bool, &[u8]); 3] = [(false, b"a,1\n"), (true, b"b,\"2\n"), (false, b"c,3\nd,4")];
        let joined: Vec<u8> = texts[2..].iter().flat_map(|(_, text)| text.to_vec()).collect();
        assert_eq!(texts[..2], expected[..2]);
        assert_eq!(joined, expected[2].1);
    }
}
