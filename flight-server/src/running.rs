//! What SHOW QUERIES, SHOW STATE and SHOW WATERMARKS tell of queries that run, and the warning that no window closes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::array::{ArrayRef, Float64Array, StringArray, UInt32Array, UInt64Array};
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::ingest::{Ingest, PartitionState, PartitionStatus};
use millstream_engine::query::{InputProgress, Query, QueryProgress};
use millstream_engine::time::{Clock, SystemClock, Watermark};
use tokio::sync::watch;

use crate::error::Result;
use crate::queries::short_duration;

/// How long rows may come without a window closing before a person is told why.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often that is looked into.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// A query and how far it has come.
#[derive(Debug)]
pub(crate) struct QueryStatus {
    pub(crate) name: String,
    /// `running`, `paused`, `ended`, `failed`, or `restarting` after a failure that may pass.
    pub(crate) state: &'static str,
    pub(crate) progress: QueryProgress,
    /// Why it does not run.
    pub(crate) error: Option<String>,
}

/// One row per query.
///
/// # Errors
/// Fails only if the columns have different lengths.
pub(crate) fn queries_table(queries: &[QueryStatus]) -> Result<RecordBatch> {
    let text = |value: &dyn Fn(&QueryStatus) -> Option<String>| -> ArrayRef {
        Arc::new(queries.iter().map(value).collect::<StringArray>())
    };
    let figure = |value: fn(&QueryProgress) -> u64| -> ArrayRef {
        Arc::new(queries.iter().map(|query| value(&query.progress)).collect::<UInt64Array>())
    };
    let state = |query: &QueryStatus| {
        let is_recovering = query.progress.recovery.is_some();
        Some(if is_recovering { "recovering" } else { query.state }.to_owned())
    };
    table([
        ("query", text(&|query| Some(query.name.clone()))),
        ("state", text(&state)),
        ("epochs", figure(|progress| progress.epochs)),
        ("rows_read", figure(|progress| progress.rows_read)),
        ("rows_written", figure(|progress| progress.rows_written)),
        ("rows_late", figure(|progress| progress.rows_late)),
        ("watermark", text(&|query| shown(query.progress.watermark))),
        ("state_bytes", figure(|progress| progress.state_bytes)),
        ("epoch_ms", epoch_ms(queries)),
        ("error", text(&|query| query.error.clone())),
    ])
}

/// How long the last epoch of each query took, in milliseconds.
fn epoch_ms(queries: &[QueryStatus]) -> ArrayRef {
    let times = queries.iter().map(|query| query.progress.epoch_time.as_secs_f64() * 1e3);
    Arc::new(times.collect::<Float64Array>())
}

/// One row per input of each query: where its rows went, and the memory of what it holds of them.
///
/// # Errors
/// Fails only if the columns have different lengths.
pub(crate) fn state_table(queries: &[QueryStatus]) -> Result<RecordBatch> {
    let inputs: Vec<_> =
        queries.iter().flat_map(|query| query.progress.inputs.iter().map(|input| (&query.name, input))).collect();
    let figure = |value: fn(&InputProgress) -> u64| -> ArrayRef {
        Arc::new(inputs.iter().map(|(_, input)| value(input)).collect::<UInt64Array>())
    };
    table([
        ("query", Arc::new(inputs.iter().map(|(query, _)| Some(query)).collect::<StringArray>())),
        ("input", Arc::new(inputs.iter().map(|(_, input)| Some(&input.name)).collect::<StringArray>())),
        ("rows_read", figure(|input| input.rows.read)),
        ("rows_used", figure(|input| input.rows.used)),
        ("rows_filtered", figure(|input| input.rows.filtered)),
        ("rows_late", figure(|input| input.rows.late)),
        ("rows_outside", figure(|input| input.rows.outside)),
        ("state_bytes", figure(|input| input.state_bytes)),
    ])
}

/// One row per partition of each stream that is read; one without a partition for a stream of which nothing has come.
///
/// # Errors
/// Fails only if the columns have different lengths.
pub(crate) fn watermarks_table(ingests: &[Arc<Ingest>]) -> Result<RecordBatch> {
    let is_stream = |ingest: &&Arc<Ingest>| ingest.definition().refresh.is_none();
    let mut streams: Vec<&Arc<Ingest>> = ingests.iter().filter(is_stream).collect();
    streams.sort_by_key(|ingest| ingest.definition().name.clone());
    let rows: Vec<(String, Option<PartitionStatus>)> = streams
        .into_iter()
        .flat_map(|ingest| {
            let name = ingest.definition().name.clone();
            let partitions = ingest.status().map(|status| status.partitions).unwrap_or_default();
            let rows = partitions.into_iter().map(Some).collect::<Vec<_>>();
            let rows = if rows.is_empty() { vec![None] } else { rows };
            rows.into_iter().map(move |row| (name.clone(), row))
        })
        .collect();
    let text = |value: fn(&PartitionStatus) -> Option<String>| -> ArrayRef {
        Arc::new(rows.iter().map(|(_, row)| row.as_ref().and_then(value)).collect::<StringArray>())
    };
    let numbers: UInt32Array = rows.iter().map(|(_, row)| row.map(|row| row.partition.0)).collect();
    table([
        ("stream", Arc::new(rows.iter().map(|(name, _)| Some(name)).collect::<StringArray>())),
        ("partition", Arc::new(numbers)),
        ("watermark", text(|row| shown(row.watermark))),
        ("lag", text(|row| lag(row.watermark).map(short_duration))),
        ("state", text(|row| Some(word(row.state).to_owned()))),
        ("last_row", text(|row| row.silent_for.map(|silence| format!("{} ago", short_duration(silence))))),
        ("holds_back", text(|row| Some(if row.holds_back { "yes" } else { "no" }.to_owned()))),
    ])
}

fn table<const N: usize>(columns: [(&str, ArrayRef); N]) -> Result<RecordBatch> {
    Ok(RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true)))
        .map_err(millstream_engine::Error::from)?)
}

const fn word(state: PartitionState) -> &'static str {
    match state {
        PartitionState::Active => "active",
        PartitionState::Idle => "idle",
        PartitionState::Ended => "ended",
    }
}

fn shown(watermark: Watermark) -> Option<String> {
    (watermark != Watermark::START).then(|| watermark.to_string())
}

/// How far a watermark is behind the present; none before the first row and after the last.
pub(crate) fn lag(watermark: Watermark) -> Option<Duration> {
    match watermark {
        Watermark::START | Watermark::END => None,
        Watermark(nanos) => {
            Some(Duration::from_nanos(u64::try_from(SystemClock.now().0.saturating_sub(nanos)).unwrap_or(0)))
        }
    }
}

/// A query whose windows are to close.
#[derive(Debug)]
pub(crate) struct Watched {
    name: String,
    ingests: Vec<Arc<Ingest>>,
    progress: watch::Receiver<QueryProgress>,
}

impl Watched {
    /// What is watched of a query; none for one without windows.
    pub(crate) fn of(query: &Query) -> Option<Self> {
        let watched = Self { name: query.name().to_owned(), ingests: query.ingests(), progress: query.progress() };
        query.has_windows().then_some(watched)
    }
}

/// Tells `say` when rows keep coming and the watermark of their query stands still, once for each time it does; does
/// not end.
pub(crate) async fn watch_for_stalls(queries: &[Watched], say: impl Fn(&str)) {
    let mut stalls = BTreeMap::new();
    let mut ticks = tokio::time::interval(LOOK_INTERVAL);
    loop {
        ticks.tick().await;
        for (index, Watched { name, ingests, progress }) in queries.iter().enumerate() {
            let stall = stalls.entry(index).or_insert_with(Stall::new);
            let progress = progress.borrow().clone();
            if stall.is_noticed(progress.watermark, progress.rows_read, Instant::now()) {
                ingests.iter().filter_map(|ingest| reason(ingest)).for_each(|reason| {
                    say(&format!("warning: no window of {name} has closed for {}: {reason}", short_duration(PATIENCE)));
                });
            }
        }
    }
}

/// A watermark that may stand still.
#[derive(Debug)]
struct Stall {
    watermark: Watermark,
    since: Instant,
    rows: u64,
    is_told: bool,
}

impl Stall {
    fn new() -> Self {
        Self { watermark: Watermark::START, since: Instant::now(), rows: 0, is_told: false }
    }

    /// Whether the watermark has stood still for so long, while rows came, that a person should know; once only.
    fn is_noticed(&mut self, watermark: Watermark, rows: u64, now: Instant) -> bool {
        if watermark != self.watermark {
            *self = Self { watermark, since: now, rows, is_told: false };
            return false;
        }
        if self.is_told || rows == self.rows || now.duration_since(self.since) < PATIENCE {
            return false;
        }
        self.is_told = true;
        true
    }
}

/// What holds the watermark of a stream back; none for one that is at its end.
fn reason(ingest: &Ingest) -> Option<String> {
    let name = &ingest.definition().name;
    let status = ingest.status()?;
    if status.watermark == Watermark::END {
        return None;
    }
    let holding = status.partitions.iter().filter(|partition| partition.holds_back);
    let silent = holding.max_by_key(|partition| partition.silent_for.unwrap_or(Duration::MAX))?;
    let since = match silent.silent_for {
        None => "has had no row".to_owned(),
        Some(silence) => format!("had its last row {} ago", short_duration(silence)),
    };
    let at = shown(silent.watermark).map(|at| format!(" at {at}")).unwrap_or_default();
    let number = silent.partition.0;
    Some(if status.partitions.len() > 1 {
        format!(
            "partition {number} of {name} holds the watermark back{at} and {since}; give the watermark an IDLE TIMEOUT \
             if partitions may be silent"
        )
    } else {
        format!("the watermark of {name} stands{at}; are its event times right, and is the delay not too long?")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_watermark_that_stands_while_rows_come_is_noticed_once() {
        let start = Instant::now();
        let mut stall = Stall { since: start, ..Stall::new() };
        assert!(!stall.is_noticed(Watermark(5), 10, start));
        assert!(!stall.is_noticed(Watermark(5), 20, start + PATIENCE / 2));
        assert!(stall.is_noticed(Watermark(5), 20, start + PATIENCE));
        assert!(!stall.is_noticed(Watermark(5), 30, start + 2 * PATIENCE), "a second time");
        assert!(!stall.is_noticed(Watermark(6), 40, start + 2 * PATIENCE));
        assert!(stall.is_noticed(Watermark(6), 50, start + 3 * PATIENCE), "the next time it stands");
    }

    #[test]
    fn without_rows_nothing_is_expected() {
        let start = Instant::now();
        let mut stall = Stall { since: start, ..Stall::new() };
        assert!(!stall.is_noticed(Watermark(5), 10, start));
        assert!(!stall.is_noticed(Watermark(5), 10, start + 3 * PATIENCE));
    }
}
