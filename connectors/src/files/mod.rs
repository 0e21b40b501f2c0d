//! Connector `files`: a file, a folder or a glob of CSV, JSON lines, Parquet or Arrow IPC.
//!
//! All files are one partition, read one after the other in the order of their names or ages, so that a file set is
//! replayed the same however many tasks read it. A file that changes while it is read is refused.
//! With `watch_interval` the folder is looked through again and again; each file is read once, by its path, and is
//! expected to appear whole, by a rename. Names that begin with `.` or `_` or end in `.tmp` are not looked at.
//!
//! Every file that is opened is noted with its size, age and checksum. A later run goes on in the middle of the file
//! that was being read, if it is still the same; files that were read to their end may be gone. In plain text and
//! Parquet the place is sought; what is packed, and Arrow, is unpacked from its beginning and thrown away up to there.

mod input;
mod list;
mod piece;
mod reader;
mod record;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::source::{Decode, InputIndex, Offset, PartitionReader, Source};
use millstream_engine::{Error, Result};

use crate::format::csv::CsvFormat;
use crate::format::rows::RowShape;
use crate::format::text::{Syntax, TextFormat};
use crate::format::{Format, timestamp_unit};
use crate::options::Options;
use list::{FileOrder, FileSet};
use reader::FilesReader;

/// How much text makes a split, in bytes.
const SPLIT_BYTES: usize = 1024 * 1024;
/// The least that does.
const LEAST_SPLIT_BYTES: usize = 1024;
/// How much of a file is read for its header alone, unless that is longer.
const HEADER_BYTES: usize = 4096;

/// The file sets that a stream reads.
#[derive(Debug)]
pub struct FilesSource {
    files: FileSet,
    rows: Rows,
    watch_interval: Option<Duration>,
}

/// How the files hold their rows.
#[derive(Debug, Clone)]
enum Rows {
    /// Lines, and how many bytes of them make a split.
    Text(Arc<TextFormat>, usize),
    Columnar(Format, Arc<RowShape>),
}

impl FilesSource {
    /// The source that `definition` describes.
    ///
    /// # Errors
    /// Fails for options that are unknown, missing or wrong, and if the format can be told neither from the option
    /// `format` nor from names.
    pub fn new(definition: &StreamDefinition) -> Result<Self> {
        let mut options = Options::new("files", &definition.options)?;
        let path = PathBuf::from(options.required("path", "trades/*.csv")?);
        let format = options.choice("format", &Format::NAMES)?;
        let orders = [("name", FileOrder::Name), ("modified", FileOrder::Modified)];
        let order = options.choice("order", &orders)?.unwrap_or(FileOrder::Name);
        let watch_interval = options.duration("watch_interval")?.filter(|interval| !interval.is_zero());
        let csv = CsvFormat::from_options(&mut options, None)?;
        let shape = RowShape::new(definition, timestamp_unit(&mut options)?)?;
        options.finish()?;
        let format = match format.or_else(|| list::guess_format(&path)) {
            Some(format) => format,
            None => return Err(unknown_format(&path)),
        };
        let rows = match format {
            Format::Csv => Rows::Text(TextFormat::new(shape, Syntax::Csv(csv))?, split_bytes(definition)),
            Format::Json => Rows::Text(TextFormat::new(shape, Syntax::Json)?, split_bytes(definition)),
            Format::Parquet | Format::Arrow => Rows::Columnar(format, Arc::new(shape)),
        };
        Ok(Self { files: FileSet { path, format, order }, rows, watch_interval })
    }

    /// Whether the source ends: it does unless it watches.
    pub const fn is_bounded(&self) -> bool {
        self.watch_interval.is_none()
    }
}

#[async_trait]
impl Source for FilesSource {
    async fn open(&self, from: &[Offset], index: Arc<dyn InputIndex>) -> Result<Vec<Box<dyn PartitionReader>>> {
        let from = from.first().copied().unwrap_or(Offset(0));
        let reader = FilesReader::open(self.files.clone(), self.rows.clone(), self.watch_interval, from, index).await?;
        Ok(vec![Box::new(reader)])
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        format!("files {}", self.files.path.display())
    }

    fn decoder(&self, recipe: &str) -> Result<Box<dyn Decode>> {
        match &self.rows {
            Rows::Text(format, _) => piece::read_piece(format, recipe),
            Rows::Columnar(..) => Err(Error::internal("columnar files are read in one place")),
        }
    }
}

/// How much text makes a split: less than usual where the rows are to come slowly, so that they come evenly.
fn split_bytes(definition: &StreamDefinition) -> usize {
    /// A short row.
    const ROW_BYTES: f64 = 32.0;
    const SPLITS_PER_SECOND: f64 = 10.0;
    let Some(rate) = definition.rate_limit else { return SPLIT_BYTES };
    ((rate / SPLITS_PER_SECOND * ROW_BYTES) as usize).clamp(LEAST_SPLIT_BYTES, SPLIT_BYTES)
}

fn unknown_format(path: &std::path::Path) -> Error {
    let message = format!("cannot tell the format of {:?} from its name", path.display().to_string());
    Error::query(message, "add format = 'csv', 'json', 'parquet' or 'arrow'")
}
