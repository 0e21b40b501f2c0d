//! The connector `generate`: rows made where they are used.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::source::{Decode, InputIndex, Offset, PartitionReader, Source};
use millstream_engine::time::{Clock, EventTime, SystemClock};
use millstream_engine::{Error, Result};

use super::batch::Columns;
use super::row::{EventClock, Generator, GeneratorSpec, StreamKind};
use crate::numbered::{NumberedReader, NumberedRows, START_FORM, noted_start, numbered_decoder, parse_start};
use crate::options::Options;

/// Generated rows as a stream of one partition.
#[derive(Debug)]
pub struct GenerateSource {
    generator: Arc<Generator>,
    columns: Arc<Columns>,
    rows: Option<u64>,
    rate: Option<f64>,
}

impl GenerateSource {
    /// The source that `definition` describes.
    ///
    /// # Errors
    /// Fails for options that are unknown or wrong, and for columns that the stream does not have.
    pub fn new(definition: &StreamDefinition) -> Result<Self> {
        let mut options = Options::new("generate", &definition.options)?;
        let kind = options.choice("kind", &StreamKind::NAMES)?;
        let kind = kind.map_or_else(|| guess_kind(definition), Ok)?;
        let spec = read_spec(&mut options, kind)?;
        let rows = options.number("rows", "a whole number of rows")?;
        let rate = options.number("rate", "a number of rows per second")?.filter(|rate: &f64| *rate > 0.0);
        options.finish()?;
        let columns = Arc::new(Columns::new(definition, kind)?);
        Ok(Self { generator: Arc::new(Generator::new(spec)?), columns, rows, rate })
    }

    /// The time of row 0 and how many follow in a second, by the options.
    fn clock(&self) -> Result<(EventTime, u64)> {
        match self.generator.spec().clock {
            EventClock::Simulated { start, event_rate } => Ok((start, event_rate)),
            EventClock::Wall => Err(Error::internal("generated rows have a simulated clock")),
        }
    }

    /// The rows of which the first happens at `start`.
    fn rows_from(&self, start: EventTime) -> Result<Rows> {
        let clock = EventClock::Simulated { start, event_rate: self.clock()?.1 };
        let generator = Generator::new(GeneratorSpec { clock, ..self.generator.spec().clone() })?;
        Ok(Rows { generator: Arc::new(generator), columns: Arc::clone(&self.columns), start })
    }
}

#[async_trait]
impl Source for GenerateSource {
    async fn open(&self, from: &[Offset], index: Arc<dyn InputIndex>) -> Result<Vec<Box<dyn PartitionReader>>> {
        let first = from.first().map_or(0, |offset| offset.0);
        // `start = 'now'` means the first run's now.
        let rows = self.rows_from(noted_start(index.as_ref(), self.clock()?.0)?)?;
        Ok(vec![Box::new(NumberedReader::new(rows, first..self.rows.unwrap_or(u64::MAX), self.rate))])
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        format!("generated {} rows", self.generator.spec().kind.name())
    }

    fn decoder(&self, recipe: &str) -> Result<Box<dyn Decode>> {
        numbered_decoder(recipe, |start| self.rows_from(start))
    }
}

/// The rows of one stream.
#[derive(Debug)]
struct Rows {
    generator: Arc<Generator>,
    columns: Arc<Columns>,
    start: EventTime,
}

impl NumberedRows for Rows {
    const ROW_BYTES: u64 = 64;

    fn batch(&self, numbers: Range<u64>) -> Result<RecordBatch> {
        self.columns.batch(&self.generator, numbers, SystemClock.now())
    }

    fn start(&self) -> EventTime {
        self.start
    }
}

fn read_spec(options: &mut Options<'_>, kind: StreamKind) -> Result<GeneratorSpec> {
    let defaults = GeneratorSpec::new(kind);
    let EventClock::Simulated { start, event_rate } = defaults.clock else {
        return Err(Error::internal("the default clock is simulated"));
    };
    let start = options.parse("start", START_FORM, parse_start)?.unwrap_or(start);
    let event_rate = options.number("event_rate", "a whole number of rows per second")?.unwrap_or(event_rate);
    Ok(GeneratorSpec {
        kind,
        codes: options.number("codes", "a whole number")?.unwrap_or(defaults.codes),
        users: options.number("users", "a whole number")?.unwrap_or(defaults.users),
        seed: options.number("seed", "a whole number")?.unwrap_or(defaults.seed),
        clock: EventClock::Simulated { start, event_rate },
        disorder: options.duration("disorder")?.unwrap_or(defaults.disorder),
        late_share: options.number("late_share", "a number from 0 to 1")?.unwrap_or(defaults.late_share),
        late_by: options.duration("late_by")?.unwrap_or(defaults.late_by),
    })
}

/// The kind that the stream's name or its columns tell.
fn guess_kind(definition: &StreamDefinition) -> Result<StreamKind> {
    let by_name = StreamKind::NAMES.iter().find(|(name, _)| definition.name.to_lowercase().contains(name));
    if let Some((_, kind)) = by_name {
        return Ok(*kind);
    }
    let has = |name: &str| definition.declared.iter().any(|column| column.eq_ignore_ascii_case(name));
    let by_column = [
        ("turnover", StreamKind::Transaction),
        ("price", StreamKind::Transaction),
        ("openinterest", StreamKind::Position),
        ("lastprice", StreamKind::Stock),
    ];
    let found = by_column.into_iter().find(|(name, _)| has(name)).map(|(_, kind)| kind);
    found.ok_or_else(|| {
        let message = format!("cannot tell what to generate for stream {:?}", definition.name);
        Error::query(message, "add kind = 'transaction', 'stock' or 'position'")
    })
}
