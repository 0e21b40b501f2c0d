//! One table of the auction house as a stream of one partition.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::source::{Decode, InputIndex, Offset, PartitionReader, Source};
use millstream_engine::time::{EventTime, NANOS_PER_SECOND};
use millstream_engine::{Error, Result};

use super::columns::Columns;
use super::house::House;
use super::tables::Table;
use crate::numbered::{NumberedReader, NumberedRows, START_FORM, noted_start, numbered_decoder, parse_start};
use crate::options::Options;

const DEFAULT_SEED: u64 = 42;
/// 2024-01-02T09:30:00, as of the connector `generate`.
const DEFAULT_START: EventTime = EventTime(1_704_187_800 * NANOS_PER_SECOND);
/// Events of all tables per second of event time.
const DEFAULT_EVENT_RATE: u32 = 10_000;
/// What spreads the rows of a group that is out of order, as in the original generator; a prime number.
const SPREAD: u64 = 953;

/// One table of the auction house.
#[derive(Debug)]
pub struct NexmarkSource {
    table: Table,
    columns: Arc<Columns>,
    seed: u64,
    start: EventTime,
    event_rate: u32,
    group_size: u64,
    rows: u64,
    /// Rows of this table per second.
    rate: Option<f64>,
}

impl NexmarkSource {
    /// The source that `definition` describes.
    ///
    /// # Errors
    /// Fails for options that are unknown, missing or wrong, and for columns that the table does not have or that have
    /// another type.
    pub fn new(definition: &StreamDefinition) -> Result<Self> {
        let mut options = Options::new("nexmark", &definition.options)?;
        options.required("table", "bid")?;
        let table = options.choice("table", &Table::NAMES)?.unwrap_or(Table::Bid);
        let events = options.number("events", "a whole number of events")?;
        let rate = options.number("rate", "a number of events per second")?.filter(|rate: &f64| *rate > 0.0);
        let event_rate = options.number("event_rate", "a whole number of events per second")?;
        let source = Self {
            table,
            columns: Arc::new(Columns::new(definition, table)?),
            seed: options.number("seed", "a whole number")?.unwrap_or(DEFAULT_SEED),
            start: options.parse("start", START_FORM, parse_start)?.unwrap_or(DEFAULT_START),
            event_rate: event_rate.unwrap_or(DEFAULT_EVENT_RATE),
            group_size: options.number("out_of_order_group_size", "a whole number of rows")?.unwrap_or(1),
            rows: events.map_or(u64::MAX, |events| table.rows_of(events)),
            rate: rate.map(|rate| rate * table.share()),
        };
        options.finish()?;
        if source.group_size.is_multiple_of(SPREAD) {
            let hint = "set it to 1 for rows in order, or to more, but to no multiple of 953";
            return Err(Error::query("nexmark: out_of_order_group_size is out of range", hint));
        }
        source.house(source.start)?;
        Ok(source)
    }

    fn house(&self, start: EventTime) -> Result<House> {
        House::new(self.seed, start, self.event_rate)
    }

    /// The rows of which the first happens at `start`.
    fn rows_from(&self, start: EventTime) -> Result<Rows> {
        Ok(Rows {
            house: self.house(start)?,
            table: self.table,
            columns: Arc::clone(&self.columns),
            group_size: self.group_size,
            end: self.rows,
            start,
        })
    }
}

#[async_trait]
impl Source for NexmarkSource {
    async fn open(&self, from: &[Offset], index: Arc<dyn InputIndex>) -> Result<Vec<Box<dyn PartitionReader>>> {
        let first = from.first().map_or(0, |offset| offset.0);
        let rows = self.rows_from(noted_start(index.as_ref(), self.start)?)?;
        Ok(vec![Box::new(NumberedReader::new(rows, first..self.rows, self.rate))])
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        format!("nexmark {} rows", self.table.name())
    }

    fn decoder(&self, recipe: &str) -> Result<Box<dyn Decode>> {
        numbered_decoder(recipe, |start| self.rows_from(start))
    }
}

/// What makes the rows.
#[derive(Debug)]
struct Rows {
    house: House,
    table: Table,
    columns: Arc<Columns>,
    group_size: u64,
    end: u64,
    start: EventTime,
}

impl NumberedRows for Rows {
    const ROW_BYTES: u64 = 300;

    fn batch(&self, numbers: Range<u64>) -> Result<RecordBatch> {
        let events: Vec<u64> = numbers.map(|place| self.table.event(self.row_at(place))).collect();
        self.columns.batch(&self.house, &events)
    }

    fn start(&self) -> EventTime {
        self.start
    }
}

impl Rows {
    /// The row that comes in a place: those of a group are spread, but for a last group that is not whole.
    const fn row_at(&self, place: u64) -> u64 {
        let within = place % self.group_size;
        let first = place - within;
        if self.end - first < self.group_size {
            return place;
        }
        first + within * SPREAD % self.group_size
    }
}
