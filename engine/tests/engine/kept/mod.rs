//! Queries that are kept in a state directory, run again and again until their input has ended.

pub(crate) mod jobs;
pub(crate) mod restarts;
pub(crate) mod sink;
pub(crate) mod source;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use futures::future::join_all;
use millstream_engine::cluster::Seat;
use millstream_engine::durable::{Misfit, StateDirectory, resume_streams};
use millstream_engine::ingest::Ingest;
use millstream_engine::plan::{Emission, Input, StreamTable};
use millstream_engine::query::{PlannedQuery, QueryOptions};
use millstream_engine::side::SideTables;
use millstream_engine::sink::Sink;
use millstream_engine::source::Source;
use millstream_engine::state::StateMemory;
use millstream_engine::testing::{EvenCut, run_scripts};
use millstream_engine::time::SystemClock;
use millstream_engine::{CheckpointPolicy, Error, Summary};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::oracle::table::{Cells, line};
use crate::oracle::{Event, Log, Window};

/// A stream as a query reads it.
#[derive(Debug, Clone)]
pub(crate) struct Table {
    pub(crate) log: Arc<Log>,
    /// None for all rows of the stream, in groups without end.
    pub(crate) window: Option<Window>,
}

/// A query over streams, which are tables under their own names.
#[derive(Debug, Clone)]
pub(crate) struct Job {
    pub(crate) sql: &'static str,
    pub(crate) tables: Vec<Table>,
    /// The rows given so far, if the streams cannot be read again.
    pub(crate) given: Option<Arc<AtomicUsize>>,
    pub(crate) emission: Emission,
    /// Where its state lies.
    pub(crate) seat: Option<Seat>,
}

/// How a run is paced; changes no row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    pub(crate) split_rows: usize,
    pub(crate) batch_rows: usize,
    /// Epochs between two checkpoints.
    pub(crate) checkpoint_epochs: u64,
    /// Rows that are replayed together.
    pub(crate) replay_rows: u64,
}

/// A query of a run, and where its rows go.
pub(crate) struct Member<'a> {
    pub(crate) name: &'static str,
    pub(crate) job: &'a Job,
    pub(crate) logical: &'a LogicalPlan,
    pub(crate) sink: &'a mut dyn Sink,
    /// Where its late rows go.
    pub(crate) late_sink: Option<Box<dyn Sink>>,
}

impl Job {
    pub(crate) fn log(&self, name: &str) -> &Arc<Log> {
        &self.tables.iter().find(|table| table.log.name == name).unwrap().log
    }

    /// The plan that the engine is given.
    pub(crate) async fn logical(&self) -> LogicalPlan {
        let ctx = SessionContext::new();
        for Table { log, window } in &self.tables {
            let table = StreamTable::new(Input::Stream(log.definition()), window.map(|window| window.spec()));
            ctx.register_table(log.name.as_str(), Arc::new(table)).unwrap();
        }
        ctx.state().create_logical_plan(self.sql).await.unwrap()
    }

    /// The rows of a run that nothing disturbs and nothing outlives.
    pub(crate) async fn undisturbed(&self, logical: &LogicalPlan) -> Vec<RecordBatch> {
        let scripts: Vec<_> = self.tables.iter().map(|table| table.log.script()).collect();
        let mut cut = EvenCut { block_rows: 8, records: 4 };
        run_scripts(logical, &scripts, &mut cut, options(1000), None).await.unwrap().batches()
    }

    /// The same over those rows only that `keeps` says.
    pub(crate) fn only(&self, keeps: impl Fn(&crate::oracle::Row) -> bool) -> Self {
        let mut job = self.clone();
        for table in &mut job.tables {
            let log = Arc::make_mut(&mut table.log);
            for event in &mut log.events {
                if let Event::Rows(_, rows) = event {
                    rows.retain(&keeps);
                }
            }
        }
        job
    }

    /// The rows that count in the end: all of them, and of groups without end the last one for each key.
    pub(crate) fn final_rows(&self, rows: Vec<Cells>) -> Vec<Cells> {
        if self.tables.iter().all(|table| table.window.is_some()) {
            return rows;
        }
        let latest: BTreeMap<_, _> = rows.into_iter().map(|row| (line(&row[..1].to_vec()), row)).collect();
        latest.into_values().collect()
    }

    fn source(&self, name: &str, pace: Pace) -> Arc<dyn Source> {
        let (log, split_rows) = (Arc::clone(self.log(name)), pace.split_rows);
        match &self.given {
            Some(given) => Arc::new(source::Live { log, split_rows, given: Arc::clone(given) }),
            None => Arc::new(source::Replayable { log, split_rows }),
        }
    }

    /// Runs the query on from where `directory` says, to the end of its input or of its luck.
    pub(crate) async fn run(
        &self,
        logical: &LogicalPlan,
        directory: &StateDirectory,
        pace: Pace,
        sink: &mut dyn Sink,
        stop: watch::Receiver<bool>,
    ) -> Result<Summary, Error> {
        self.run_with_late_sink(logical, directory, pace, (sink, None), stop).await
    }

    /// The same, with a sink for its results and perhaps one for its late rows.
    pub(crate) async fn run_with_late_sink(
        &self,
        logical: &LogicalPlan,
        directory: &StateDirectory,
        pace: Pace,
        (sink, late_sink): (&mut dyn Sink, Option<Box<dyn Sink>>),
        stop: watch::Receiver<bool>,
    ) -> Result<Summary, Error> {
        let members = vec![Member { name: "query", job: self, logical, sink, late_sink }];
        run_together(members, directory, pace, stop).await?.remove(0)
    }
}

/// Runs queries that read the same streams on from where `directory` says; how each of them ended.
pub(crate) async fn run_together(
    mut members: Vec<Member<'_>>,
    directory: &StateDirectory,
    pace: Pace,
    stop: watch::Receiver<bool>,
) -> Result<Vec<Result<Summary, Error>>, Error> {
    let policy = CheckpointPolicy {
        epochs: pace.checkpoint_epochs,
        replay_rows: pace.replay_rows,
        ..CheckpointPolicy::default()
    };
    let job = members[0].job;
    let mut queries = Vec::new();
    for member in &mut members {
        let options =
            QueryOptions { name: member.name.to_owned(), seat: member.job.seat.clone(), ..options(pace.batch_rows) };
        let planned = PlannedQuery::plan_emitting(member.logical, member.job.emission, options).await?;
        let planned = match member.late_sink.take() {
            Some(sink) => planned.send_late_to(sink),
            None => planned,
        };
        queries.push(planned.keep_in(directory, policy, Misfit::Refuse)?);
    }
    let ingests = resume_streams(&mut queries, directory, |stream| {
        let source = job.source(&stream.name, pace);
        let side = SideTables::new(&stream.schema);
        let ingest = Ingest::new(Arc::clone(stream), source, Arc::new(SystemClock), side);
        Ok(if let Some(seat) = &job.seat { ingest.read_at(seat) } else { ingest })
    })?;
    let mut distinct: Vec<Arc<Ingest>> = Vec::new();
    for ingest in ingests.iter().flatten() {
        if !distinct.iter().any(|known| Arc::ptr_eq(known, ingest)) {
            distinct.push(Arc::clone(ingest));
        }
    }
    let started = queries.into_iter().zip(ingests).map(|(query, ingests)| query.start(ingests));
    let started = started.collect::<Result<Vec<_>, _>>()?;
    let mut reading = JoinSet::new();
    for ingest in distinct {
        reading.spawn(async move { ingest.run().await });
    }
    let running = started.into_iter().zip(members).map(|(query, member)| query.run(member.sink, stop.clone()));
    Ok(join_all(running).await)
}

pub(crate) fn options(batch_rows: usize) -> QueryOptions {
    QueryOptions {
        interval: Duration::ZERO,
        batch_rows,
        tasks: 1,
        key_partitions: 7,
        shared_rows: 4,
        // A part of the runs, and so of the restarts, has its state on disk.
        state_memory: StateMemory::new(
            if batch_rows.is_multiple_of(2) { 4_000 } else { 1 << 30 },
            std::env::temp_dir(),
        ),
        ..QueryOptions::default()
    }
}

/// Runs a future as a process would: when this returns none of its threads is left.
pub(crate) fn as_process<T>(run: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(run)
}
