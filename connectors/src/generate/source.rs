//! The connector `generate`: rows made where they are used.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::compute::kernels::cast_utils::string_to_datetime;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::source::{Decode, Decoded, InputIndex, Offset, PartitionReader, Source, Split};
use millstream_engine::time::{Clock, EventTime, SystemClock};
use millstream_engine::{Error, Result};
use tokio::time::Instant;

use super::batch::Columns;
use super::row::{EventClock, Generator, GeneratorSpec, StreamKind};
use crate::options::Options;

/// The most rows of one split.
const SPLIT_ROWS: u64 = 32 * 1024;
/// How often rows are handed out when they come at a rate.
const TICK: Duration = Duration::from_millis(10);
/// What a row takes in memory, about, in bytes.
const ROW_BYTES: u64 = 64;

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

    /// The generator whose row 0 happens when it did in the first run: `start = 'now'` means that run's now.
    fn noted_generator(&self, index: &dyn InputIndex) -> Result<Arc<Generator>> {
        let EventClock::Simulated { start, event_rate } = self.generator.spec().clock else {
            return Err(Error::internal("generated rows have a simulated clock"));
        };
        let Some(note) = index.notes().into_iter().next() else {
            index.push(&start.0.to_string())?;
            return Ok(Arc::clone(&self.generator));
        };
        let noted = note.parse().map_err(|_| {
            Error::state(format!("{note:?} is not the time of the first row"), "use the version that wrote it")
        })?;
        let clock = EventClock::Simulated { start: EventTime(noted), event_rate };
        Ok(Arc::new(Generator::new(GeneratorSpec { clock, ..self.generator.spec().clone() })?))
    }
}

#[async_trait]
impl Source for GenerateSource {
    async fn open(&self, from: &[Offset], index: Arc<dyn InputIndex>) -> Result<Vec<Box<dyn PartitionReader>>> {
        let first = from.first().map_or(0, |offset| offset.0);
        Ok(vec![Box::new(GenerateReader {
            generator: self.noted_generator(index.as_ref())?,
            columns: Arc::clone(&self.columns),
            next: first,
            end: self.rows.unwrap_or(u64::MAX),
            pace: self.rate.map(|rate| Pace { row: first, since: Instant::now(), rate }),
        })])
    }

    fn is_replayable(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        format!("generated {} rows", self.generator.spec().kind.name())
    }
}

/// Hands out ranges of row numbers.
#[derive(Debug)]
struct GenerateReader {
    generator: Arc<Generator>,
    columns: Arc<Columns>,
    next: u64,
    end: u64,
    pace: Option<Pace>,
}

/// Rows that come at a rate.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// The row that was due …
    row: u64,
    /// … at this time.
    since: Instant,
    /// Rows per second from there.
    rate: f64,
}

impl Pace {
    /// The row before which all are due.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates")]
    fn due(&self) -> u64 {
        self.row.saturating_add((self.since.elapsed().as_secs_f64() * self.rate) as u64)
    }
}

#[async_trait]
impl PartitionReader for GenerateReader {
    async fn next(&mut self, limit: Option<Offset>) -> Result<Option<Split>> {
        if self.next >= self.end {
            return Ok(None);
        }
        let end = match (limit, self.pace) {
            // These rows were due in an earlier run; what comes after them is due from now on.
            (Some(limit), pace) => {
                self.pace = pace.map(|pace| Pace { row: limit.0, since: Instant::now(), ..pace });
                limit.0
            }
            (None, None) => u64::MAX,
            (None, Some(pace)) => {
                while pace.due() <= self.next {
                    tokio::time::sleep(TICK).await;
                }
                pace.due()
            }
        };
        let rows = self.next..end.min(self.end).min(self.next.saturating_add(SPLIT_ROWS));
        self.next = rows.end;
        let (generator, columns) = (Arc::clone(&self.generator), Arc::clone(&self.columns));
        let offsets = Offset(rows.start)..Offset(rows.end);
        let bytes = usize::try_from((rows.end - rows.start) * ROW_BYTES).unwrap_or(usize::MAX);
        Ok(Some(Split { offsets, bytes, decode: Box::new(Rows { generator, columns, rows }) }))
    }
}

/// Rows that are still to be made.
#[derive(Debug)]
struct Rows {
    generator: Arc<Generator>,
    columns: Arc<Columns>,
    rows: Range<u64>,
}

impl Decode for Rows {
    fn decode(self: Box<Self>) -> Result<Decoded> {
        let batch = self.columns.batch(&self.generator, self.rows, SystemClock.now())?;
        Ok(Decoded { batch, bad: Vec::new() })
    }
}

fn read_spec(options: &mut Options<'_>, kind: StreamKind) -> Result<GeneratorSpec> {
    let defaults = GeneratorSpec::new(kind);
    let EventClock::Simulated { start, event_rate } = defaults.clock else {
        return Err(Error::internal("the default clock is simulated"));
    };
    let start =
        options.parse("start", "a timestamp such as '2024-01-02T09:30:00', or 'now'", parse_start)?.unwrap_or(start);
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

fn parse_start(text: &str) -> Option<EventTime> {
    if text.trim().eq_ignore_ascii_case("now") {
        return Some(SystemClock.now());
    }
    let utc: Tz = "+00:00".parse().ok()?;
    let time = string_to_datetime(&utc, text.trim()).ok()?;
    time.timestamp_nanos_opt().map(EventTime)
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
