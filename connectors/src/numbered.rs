//! Rows made of their number: one partition whose offsets are row numbers, for the connectors that make rows up.

use std::fmt::Debug;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::compute::kernels::cast_utils::string_to_datetime;
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::source::{Decode, Decoded, InputIndex, Offset, PartitionReader, Split};
use millstream_engine::time::{Clock, EventTime, SystemClock};
use millstream_engine::{Error, Result};
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

/// The most rows of one split.
const SPLIT_ROWS: u64 = 32 * 1024;
/// How often rows are handed out when they come at a rate.
const TICK: Duration = Duration::from_millis(10);

/// Rows that follow from their number.
///
/// # Contract
/// A number gives the same row every time, on any thread and in any process.
pub(crate) trait NumberedRows: Debug + Send + Sync + 'static {
    /// What a row takes in memory, about, in bytes.
    const ROW_BYTES: u64;

    /// The rows with these numbers, in the stream's declared schema.
    fn batch(&self, numbers: Range<u64>) -> Result<RecordBatch>;

    /// The event time of the first row, which is the run's own if it is to be now.
    fn start(&self) -> EventTime;
}

/// What rows are to be made, in words.
#[derive(Debug, Serialize, Deserialize)]
struct NumberedRecipe {
    start: EventTime,
    from: u64,
    to: u64,
}

/// The work that `recipe` describes, by the rows that begin when it says.
///
/// # Errors
/// Fails if it describes none.
pub(crate) fn numbered_decoder<R: NumberedRows>(
    recipe: &str,
    rows: impl FnOnce(EventTime) -> Result<R>,
) -> Result<Box<dyn Decode>> {
    let recipe: NumberedRecipe = serde_json::from_str(recipe)
        .map_err(|error| Error::internal(format!("{recipe:?} says not which rows: {error}")))?;
    Ok(Box::new(ToMake { rows: Arc::new(rows(recipe.start)?), numbers: recipe.from..recipe.to }))
}

/// Hands out ranges of row numbers.
#[derive(Debug)]
pub(crate) struct NumberedReader<R> {
    rows: Arc<R>,
    next: u64,
    end: u64,
    pace: Option<Pace>,
}

impl<R: NumberedRows> NumberedReader<R> {
    /// A reader of the rows with these numbers, at `rate` rows a second or as fast as they are taken.
    pub(crate) fn new(rows: R, numbers: Range<u64>, rate: Option<f64>) -> Self {
        let pace = rate.map(|rate| Pace { row: numbers.start, since: Instant::now(), rate });
        Self { rows: Arc::new(rows), next: numbers.start, end: numbers.end, pace }
    }
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
impl<R: NumberedRows> PartitionReader for NumberedReader<R> {
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
        let numbers = self.next..end.min(self.end).min(self.next.saturating_add(SPLIT_ROWS));
        self.next = numbers.end;
        let offsets = Offset(numbers.start)..Offset(numbers.end);
        let bytes = usize::try_from((numbers.end - numbers.start) * R::ROW_BYTES).unwrap_or(usize::MAX);
        Ok(Some(Split { offsets, bytes, decode: Box::new(ToMake { rows: Arc::clone(&self.rows), numbers }) }))
    }
}

/// Rows that are still to be made.
#[derive(Debug)]
struct ToMake<R> {
    rows: Arc<R>,
    numbers: Range<u64>,
}

impl<R: NumberedRows> Decode for ToMake<R> {
    fn decode(self: Box<Self>) -> Result<Decoded> {
        Ok(Decoded { batch: self.rows.batch(self.numbers)?, bad: Vec::new() })
    }

    fn recipe(&self) -> Option<String> {
        let (start, Range { start: from, end: to }) = (self.rows.start(), self.numbers.clone());
        serde_json::to_string(&NumberedRecipe { start, from, to }).ok()
    }
}

/// The event time of the first row: as in the first run, if there was one, since `start = 'now'` means that run's now.
///
/// # Errors
/// Fails if the index cannot be written or holds something else.
pub(crate) fn noted_start(index: &dyn InputIndex, start: EventTime) -> Result<EventTime> {
    let Some(note) = index.notes().into_iter().next() else {
        index.push(&start.0.to_string())?;
        return Ok(start);
    };
    let noted = note.parse().map_err(|_| {
        Error::state(format!("{note:?} is not the time of the first row"), "use the version that wrote it")
    })?;
    Ok(EventTime(noted))
}

/// What [`parse_start`] reads, in the words of an error.
pub(crate) const START_FORM: &str = "a timestamp such as '2024-01-02T09:30:00', or 'now'";

/// The option `start`; `None` if it is no time.
pub(crate) fn parse_start(text: &str) -> Option<EventTime> {
    if text.trim().eq_ignore_ascii_case("now") {
        return Some(SystemClock.now());
    }
    let utc: Tz = "+00:00".parse().ok()?;
    let time = string_to_datetime(&utc, text.trim()).ok()?;
    time.timestamp_nanos_opt().map(EventTime)
}
