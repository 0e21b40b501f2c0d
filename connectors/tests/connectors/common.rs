//! What the tests of the connectors share: definitions, and reading to the end.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, reason = "tests")]

use std::sync::Arc;
use std::time::Duration;

use datafusion::arrow::array::RecordBatch;
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use millstream_connectors::open_source;
use millstream_engine::Result;
use millstream_engine::plan::{BadData, EventTimeRule, StreamDefinition, WithOption};
use millstream_engine::source::{BadRow, MemoryIndex, PartitionReader, Source, Split};
use millstream_engine::time::Span;

/// Long enough for a slow machine, short enough to notice a hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn options(options: &[(&str, &str)]) -> Vec<WithOption> {
    options.iter().map(|(key, value)| WithOption::new(key, value, None)).collect()
}

/// A stream of these columns; a column named `eventTime` is the event time.
pub(crate) fn stream(columns: &[(&str, DataType)], with: &[(&str, &str)]) -> Arc<StreamDefinition> {
    let fields: Vec<_> =
        columns.iter().map(|(name, kind)| Field::new(name.to_lowercase(), kind.clone(), true)).collect();
    let event_time = columns.iter().position(|(name, _)| *name == "eventTime").map(|column| EventTimeRule {
        column,
        delay: Span::seconds(0),
        max_future_skew: None,
        idle_timeout: None,
    });
    Arc::new(StreamDefinition {
        name: "trades".into(),
        schema: Arc::new(Schema::new(fields)),
        declared: columns.iter().map(|(name, _)| (*name).to_owned()).collect(),
        event_time,
        bad_data: BadData::DeadLetter,
        durability: None,
        rate_limit: None,
        refresh: None,
        options: options(with),
    })
}

pub(crate) fn timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, None)
}

/// The trades of most tests: szcode, eventTime, Turnover, Price.
pub(crate) fn trades(with: &[(&str, &str)]) -> Arc<StreamDefinition> {
    let columns = [
        ("szcode", DataType::Utf8View),
        ("eventTime", timestamp()),
        ("Turnover", DataType::Int64),
        ("Price", DataType::Float64),
    ];
    stream(&columns, with)
}

pub(crate) async fn open(definition: &Arc<StreamDefinition>) -> Result<Box<dyn PartitionReader>> {
    let mut partitions = open_source(definition)?.open(&[], Arc::new(MemoryIndex::default())).await?;
    assert_eq!(partitions.len(), 1);
    Ok(partitions.remove(0))
}

pub(crate) async fn open_it(source: &dyn Source) -> Box<dyn PartitionReader> {
    source.open(&[], Arc::new(MemoryIndex::default())).await.unwrap().remove(0)
}

/// The next split, or a failure after [`PATIENCE`].
pub(crate) async fn next(reader: &mut dyn PartitionReader) -> Result<Option<Split>> {
    tokio::time::timeout(PATIENCE, reader.next(None)).await.expect("a split in time")
}

/// All good rows, one text each, and the bad ones.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    pub(crate) good: Vec<String>,
    pub(crate) bad: Vec<BadRow>,
    pub(crate) end: u64,
}

impl Rows {
    /// Decodes a split behind what is there.
    pub(crate) fn push(&mut self, split: Split) -> Result<()> {
        assert_eq!(split.offsets.start.0, self.end, "splits touch");
        self.end = split.offsets.end.0;
        let offsets = split.offsets.clone();
        let decoded = split.decode.decode()?;
        for bad in &decoded.bad {
            assert!(offsets.contains(&bad.offset), "{bad:?} outside {offsets:?}");
        }
        assert!((decoded.batch.num_rows() + decoded.bad.len()) as u64 <= offsets.end.0 - offsets.start.0);
        self.good.extend(texts(&decoded.batch));
        self.bad.extend(decoded.bad);
        Ok(())
    }

    /// The reasons of the bad rows.
    pub(crate) fn reasons(&self) -> Vec<&str> {
        self.bad.iter().map(|bad| bad.reason.as_str()).collect()
    }
}

/// Reads a bounded stream to its end.
pub(crate) async fn read(definition: &Arc<StreamDefinition>) -> Result<Rows> {
    let mut reader = open(definition).await?;
    let mut rows = Rows::default();
    while let Some(split) = next(reader.as_mut()).await? {
        rows.push(split)?;
    }
    assert!(next(reader.as_mut()).await?.is_none(), "the end stays the end");
    Ok(rows)
}

/// Rows as texts: values joined by a bar, null as `null`.
pub(crate) fn texts(batch: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let columns: Vec<_> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options).unwrap()).collect();
    (0..batch.num_rows())
        .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|"))
        .collect()
}

pub(crate) fn one_batch(batches: &[RecordBatch]) -> RecordBatch {
    concat_batches(&batches[0].schema(), batches).unwrap()
}
