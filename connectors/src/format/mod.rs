//! Formats: bytes of a file or connection into batches of the declared columns.
//!
//! ```text
//! text:      bytes ─ Cutter ─▶ Chunk (whole records) ─ Split ─▶ decode_csv / decode_json ─▶ rows and bad rows
//! columnar:  Parquet, Arrow IPC ─▶ batches ─ Split ─▶ conform to the declared columns ─▶ rows and bad rows
//! ```

pub(crate) mod column;
pub(crate) mod columnar;
pub(crate) mod conform;
pub(crate) mod csv;
pub(crate) mod cutter;
pub(crate) mod json;
pub(crate) mod number;
pub(crate) mod quotes;
pub(crate) mod rows;
pub(crate) mod text;
pub(crate) mod timestamp;

use datafusion::arrow::datatypes::TimeUnit;
use millstream_engine::Result;

use crate::options::Options;

/// A way of writing rows down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Comma-separated values.
    Csv,
    /// One JSON object per line.
    Json,
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, as a file or as a stream.
    Arrow,
}

impl Format {
    /// The formats by the names they have in options.
    pub(crate) const NAMES: [(&'static str, Self); 4] =
        [("csv", Self::Csv), ("json", Self::Json), ("parquet", Self::Parquet), ("arrow", Self::Arrow)];

    /// The name.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Csv => "csv",
            Self::Json => "json",
            Self::Parquet => "parquet",
            Self::Arrow => "arrow",
        }
    }

    /// The format that a file's name tells, looking under `.gz` and `.zst`.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        let (name, packed) = match name.strip_suffix(".gz").or_else(|| name.strip_suffix(".zst")) {
            Some(inner) => (inner, true),
            None => (name.as_str(), false),
        };
        match name.rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "json" | "jsonl" | "ndjson" => Some(Self::Json),
            "parquet" if !packed => Some(Self::Parquet),
            "arrow" | "arrows" | "feather" if !packed => Some(Self::Arrow),
            _ => None,
        }
    }
}

/// Reads `timestamp_unit`.
pub(crate) fn timestamp_unit(options: &mut Options<'_>) -> Result<Option<TimeUnit>> {
    let choices = [
        ("s", TimeUnit::Second),
        ("ms", TimeUnit::Millisecond),
        ("us", TimeUnit::Microsecond),
        ("ns", TimeUnit::Nanosecond),
    ];
    options.choice("timestamp_unit", &choices)
}
