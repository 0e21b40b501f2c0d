//! Queries that run together: they share the ingestion of their streams, and end together.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::arrow::datatypes::SchemaRef;
use futures::future::join_all;
use millstream_engine::Summary;
use millstream_engine::durable::{DurableQuery, resume_streams};
use millstream_engine::ingest::Ingest;
use millstream_engine::plan::{BadData, StreamDefinition, StreamDurability};
use millstream_engine::query::{PlannedQuery, Query, QueryOptions, QueryProgress};
use millstream_engine::side::SideTables;
use millstream_engine::sink::{Guarantee, Sink};
use millstream_engine::time::{Clock, SystemClock, Watermark};
use millstream_sql::StreamQuery;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::Result;
use crate::running::{Watched, lag, watch_for_stalls};
use crate::screen::Screen;
use crate::state::State;

/// How often progress is drawn.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);

/// A planned query and where its rows go.
#[derive(Debug)]
pub struct Job {
    /// The query.
    pub query: PlannedQuery,
    /// Its sink, opened for [`PlannedQuery::schema`].
    pub sink: Box<dyn Sink>,
}

impl Job {
    /// A query into the sink that `open` makes for its columns.
    ///
    /// # Errors
    /// Fails as `open` does.
    pub fn new(query: PlannedQuery, open: impl FnOnce(SchemaRef) -> Result<Box<dyn Sink>>) -> Result<Self> {
        let sink = open(query.schema())?;
        Ok(Self { query, sink })
    }

    /// What a crash may do to its rows, the late ones included if they go to a sink.
    fn guarantee(&self) -> Guarantee {
        match (self.sink.guarantee(), self.query.late_guarantee()) {
            (Guarantee::ExactlyOnce, None | Some(Guarantee::ExactlyOnce)) => Guarantee::ExactlyOnce,
            _ => Guarantee::AtLeastOnce,
        }
    }

    /// Whether a stream of it is such that no state can be kept.
    fn may_keep_nothing(&self) -> bool {
        self.query.streams().iter().any(|stream| stream.durability == Some(StreamDurability::None))
    }

    /// Whether it is a question to be answered anew each time: it reads no stream, and nobody knows the old answer.
    fn is_question(&self) -> bool {
        self.query.streams().is_empty() && self.sink.guarantee() == Guarantee::AtLeastOnce
    }
}

/// What a group of queries did.
#[derive(Debug)]
pub struct Outcome {
    /// The queries' names.
    pub names: Vec<String>,
    /// Each query's summary, in their order.
    pub summaries: Vec<Summary>,
    /// For each stream, the rows that could not be used, and what was done with them.
    pub bad_rows: BTreeMap<String, (u64, BadData)>,
    /// The streams that were read.
    pub ingests: Vec<Arc<Ingest>>,
    /// How long it took.
    pub elapsed: Duration,
}

/// Runs `jobs` until their streams end or `stop` becomes true.
///
/// # Errors
/// The first failure of a stream, a query or a sink; the other queries are stopped then.
pub async fn run_together(
    jobs: Vec<Job>,
    side_tables: &BTreeMap<String, SideTables>,
    state: Option<&State>,
    stop: watch::Receiver<bool>,
    screen: &Screen,
) -> Result<Outcome> {
    let started = Instant::now();
    let (queries, ingests) = match state {
        None => start_fresh(jobs, side_tables)?,
        Some(state) => start_kept(jobs, side_tables, state, screen)?,
    };
    let names: Vec<_> = queries.iter().map(|(query, _)| query.name().to_owned()).collect();
    let watched: Vec<_> = queries.iter().map(|(query, _)| query.progress()).collect();
    let stalling: Vec<_> = queries.iter().filter_map(|(query, _)| Watched::of(query)).collect();
    let mut reading = JoinSet::new();
    for ingest in &ingests {
        let ingest = Arc::clone(ingest);
        reading.spawn(async move { ingest.run().await });
    }
    let (halt, halted) = watch::channel(false);
    let running = join_all(queries.into_iter().map(|(query, sink)| run_one(query, sink, halted.clone(), &halt)));
    let results = tokio::select! {
        results = running => results,
        () = pass_on(stop, &halt) => Vec::new(),
        () = show_progress(&watched, &ingests, screen) => Vec::new(),
        () = watch_for_stalls(&stalling, |warning| screen.note(warning)) => Vec::new(),
    };
    screen.clear();
    reading.abort_all();
    let summaries = results.into_iter().collect::<Result<Vec<_>>>()?;
    let mut bad_rows = BTreeMap::new();
    for ingest in &ingests {
        let stream = ingest.definition();
        let (count, _) = bad_rows.entry(stream.name.clone()).or_insert((0, stream.bad_data));
        // Ingests of the same stream read the same rows.
        *count = ingest.metrics().bad_rows().max(*count);
    }
    Ok(Outcome { names, summaries, bad_rows, ingests, elapsed: started.elapsed() })
}

/// Runs a query; if it fails, the others are asked to stop.
async fn run_one(
    query: Query,
    mut sink: Box<dyn Sink>,
    halted: watch::Receiver<bool>,
    halt: &watch::Sender<bool>,
) -> Result<Summary> {
    let ended = query.run(sink.as_mut(), halted).await;
    if ended.is_err() {
        halt.send_replace(true);
    }
    Ok(ended?)
}

/// Asks all queries to stop when `stop` becomes true; does not end.
async fn pass_on(mut stop: watch::Receiver<bool>, halt: &watch::Sender<bool>) {
    if stop.wait_for(|stop| *stop).await.is_ok() {
        halt.send_replace(true);
    }
    std::future::pending().await
}

/// Queries with their sinks, and the streams they read.
type Started = (Vec<(Query, Box<dyn Sink>)>, Vec<Arc<Ingest>>);

/// Starts queries from the beginning of their streams, each of which is read once.
fn start_fresh(jobs: Vec<Job>, side_tables: &BTreeMap<String, SideTables>) -> Result<Started> {
    let mut ingests: BTreeMap<String, Arc<Ingest>> = BTreeMap::new();
    for stream in jobs.iter().flat_map(|job| job.query.streams()) {
        if !ingests.contains_key(&stream.name) {
            ingests.insert(stream.name.clone(), Arc::new(open_stream(stream, side_tables)?));
        }
    }
    let mut queries = Vec::new();
    for job in jobs {
        let streams = job.query.streams().iter().filter_map(|stream| ingests.get(&stream.name).cloned()).collect();
        queries.push((job.query.start(streams)?, job.sink));
    }
    Ok((queries, ingests.into_values().collect()))
}

/// Starts queries from where the state directory says that they were.
fn start_kept(
    jobs: Vec<Job>,
    side_tables: &BTreeMap<String, SideTables>,
    state: &State,
    screen: &Screen,
) -> Result<Started> {
    let (fresh, jobs): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| job.may_keep_nothing() || job.is_question());
    for job in fresh.iter().filter(|job| job.may_keep_nothing()) {
        let note = "keeps nothing, as a stream of it has durability = 'none', and begins";
        screen.note(&format!("{}: {note}", job.query.name()));
    }
    let (mut queries, mut ingests) = start_fresh(fresh, side_tables)?;
    let mut kept = Vec::new();
    let mut sinks = Vec::new();
    for job in jobs {
        let guarantee = job.guarantee();
        let query = job.query.keep_in(&state.directory, state.policy, state.misfit)?;
        screen.note(&starting_note(&query, guarantee));
        kept.push(query);
        sinks.push(job.sink);
    }
    let streams = resume_streams(&mut kept, &state.directory, |stream| open_stream(stream, side_tables))?;
    for ingest in streams.iter().flatten() {
        if !ingests.iter().any(|known| Arc::ptr_eq(known, ingest)) {
            ingests.push(Arc::clone(ingest));
        }
    }
    for ((query, streams), sink) in kept.into_iter().zip(streams).zip(sinks) {
        queries.push((query.start(streams)?, sink));
    }
    Ok((queries, ingests))
}

/// What a person should know of a query that is kept, as it starts.
fn starting_note(query: &DurableQuery, guarantee: Guarantee) -> String {
    let place = match query.lineage() {
        Some(_) if query.has_ended() => {
            return format!(
                "{}: has read its input to the end before; what came to it since is not read",
                query.name()
            );
        }
        None => "begins".to_owned(),
        Some(0) => format!("goes on from epoch {}", query.next_epoch()),
        Some(epochs) => format!("goes on from epoch {}, {epochs} to replay for its state", query.next_epoch()),
    };
    let warning = match guarantee {
        Guarantee::ExactlyOnce => "",
        Guarantee::AtLeastOnce => "; its sink keeps no ledger: after a crash the last rows may come twice",
    };
    format!("{}: {place}{warning}", query.name())
}

/// Plans a query, and opens the sink for its late rows if it names one; nothing is read or made yet.
///
/// # Errors
/// Fails if it cannot be planned, or the sink does not take the columns of its streams.
pub(crate) async fn plan_query(query: &StreamQuery, options: QueryOptions) -> millstream_engine::Result<PlannedQuery> {
    let planned = PlannedQuery::plan_emitting(&query.logical, query.emission, options).await?;
    let (Some(sink), Some(stream)) = (&query.late_sink, planned.streams().first()) else { return Ok(planned) };
    // The language has checked that all streams have the columns of the first.
    let opened = millstream_connectors::open_sink(&sink.name, &sink.options, Arc::clone(&stream.schema))?;
    Ok(planned.send_late_to(opened))
}

/// Makes the ingestion of a stream; nothing is read yet.
///
/// # Errors
/// Fails for a connector or options that cannot be used.
pub(crate) fn open_stream(
    stream: &Arc<StreamDefinition>,
    side_tables: &BTreeMap<String, SideTables>,
) -> millstream_engine::Result<Ingest> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let source = millstream_connectors::open_source(stream)?;
    if let (Some(_), true) = (stream.durability, source.is_replayable()) {
        let message =
            format!("stream \"{}\" has a durability, but its rows are read again from their source", stream.name);
        return Err(millstream_engine::Error::query(message, "leave durability out"));
    }
    let side = side_tables.get(&stream.name).cloned();
    let side = side.unwrap_or_else(|| SideTables::new(&stream.schema));
    Ok(Ingest::new(Arc::clone(stream), source, clock, side))
}

/// Draws progress for ever.
async fn show_progress(watched: &[watch::Receiver<QueryProgress>], ingests: &[Arc<Ingest>], screen: &Screen) {
    let mut ticks = tokio::time::interval(PROGRESS_INTERVAL);
    ticks.tick().await;
    let mut before = (Instant::now(), 0);
    loop {
        ticks.tick().await;
        if !screen.is_terminal() || ingests.is_empty() {
            continue;
        }
        let rows: u64 = ingests.iter().map(|ingest| ingest.metrics().rows()).sum();
        let elapsed = before.0.elapsed().as_secs_f64().max(0.001);
        let rate = rows.saturating_sub(before.1) as f64 / elapsed;
        before = (Instant::now(), rows);
        screen.progress(&progress_line(watched, rows, rate));
    }
}

fn progress_line(watched: &[watch::Receiver<QueryProgress>], rows: u64, rate: f64) -> String {
    let progress: Vec<QueryProgress> = watched.iter().map(|progress| progress.borrow().clone()).collect();
    let written: u64 = progress.iter().map(|progress| progress.rows_written).sum();
    let late: u64 = progress.iter().map(|progress| progress.rows_late).sum();
    let state: u64 = progress.iter().map(|progress| progress.state_bytes).sum();
    let on_disk = progress.iter().map(|progress| progress.disk_bytes).max().unwrap_or_default();
    let on_disk = if on_disk > 0 { format!(" and {} MiB on disk", on_disk >> 20) } else { String::new() };
    let watermark = progress.iter().map(|progress| progress.watermark).min().unwrap_or(Watermark::START);
    let lag = lag(watermark).map(|lag| format!(" (lag {})", short_duration(lag))).unwrap_or_default();
    if let Some(recovery) = progress.iter().find_map(|progress| progress.recovery) {
        return format!("recovering: {} of {} epochs replayed", recovery.epochs_done, recovery.epochs);
    }
    let late = if late > 0 { format!("  late {late}") } else { String::new() };
    format!(
        "rows {}  {}/s  out {}  watermark {watermark}{lag}  state {} MiB{on_disk}{late}",
        thousands(rows),
        thousands(whole(rate)),
        thousands(written),
        state >> 20,
    )
}

fn whole(rate: f64) -> u64 {
    rate.round() as u64
}

/// `1,234,567`.
pub fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// A duration to two or three digits: `850 µs`, `12 ms`, `3.4 s`, `5 min`, `2 h`, `13 days`.
pub fn short_duration(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    match seconds {
        s if s < 0.001 => format!("{} µs", duration.as_micros()),
        s if s < 1.0 => format!("{} ms", duration.as_millis()),
        s if s < 120.0 => format!("{s:.1} s"),
        s if s < 7_200.0 => format!("{:.0} min", s / 60.0),
        s if s < 172_800.0 => format!("{:.0} h", s / 3_600.0),
        s => format!("{:.0} days", s / 86_400.0),
    }
}

fn rows(count: u64) -> String {
    format!("{} row{}", thousands(count), if count == 1 { "" } else { "s" })
}

/// What a person should know about rows that are in no result; empty if there are none.
pub fn lost_rows(outcome: &Outcome) -> Vec<String> {
    let mut notes = Vec::new();
    for (stream, (bad, policy)) in outcome.bad_rows.iter().filter(|(_, (bad, _))| *bad > 0) {
        let place = if *policy == BadData::DeadLetter { format!("; see {stream}$dead") } else { String::new() };
        notes.push(format!("note: {} of {stream} could not be used{place}", rows(*bad)));
    }
    for summary in &outcome.summaries {
        for (input, counts) in summary.counts.inputs.iter().filter(|(_, counts)| counts.late > 0) {
            let stream = input.split('[').next().unwrap_or(input);
            let late = rows(counts.late);
            notes.push(format!("note: {late} of {stream} came too late for every window; see {stream}$late"));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_durations_are_short() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(short_duration(Duration::from_micros(850)), "850 µs");
        assert_eq!(short_duration(Duration::from_millis(3_400)), "3.4 s");
        assert_eq!(short_duration(Duration::from_secs(600)), "10 min");
    }
}
