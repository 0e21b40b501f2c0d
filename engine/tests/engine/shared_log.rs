//! The write-ahead log of a stream that several queries read: at its limit, and trimmed before one of them came.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use crate::kept::jobs::{live, rows_seen};
use crate::kept::sink::{End, Ledger, LedgerSink};
use crate::kept::{Job, Member, Pace, as_process, run_together};
use crate::oracle::table::{cells_of, difference};
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::durable::{Durability, StateDirectory, verify};
use millstream_engine::{Error, Summary};
use tokio::sync::watch;

/// What a log keeps: a few records.
const LOG_BYTES: u64 = 8 << 10;
/// Longer than any run that does not hang.
const PATIENCE: Duration = Duration::from_secs(120);

/// The rows of a live stream, and what two queries over it wrote.
struct Readers {
    jobs: Vec<Job>,
    folder: tempfile::TempDir,
    ledgers: [Ledger; 2],
}

impl Readers {
    /// Two queries over one live stream.
    fn new() -> Self {
        let mut jobs = live();
        let given = jobs[0].given.clone();
        jobs[1].given = given;
        Self { jobs, folder: tempfile::tempdir().unwrap(), ledgers: Default::default() }
    }

    fn directory(&self, log_bytes: u64) -> StateDirectory {
        let folder: &Path = self.folder.path();
        StateDirectory::open(&folder.into(), Durability::ProcessCrash).unwrap().with_log_limit(log_bytes)
    }

    /// Runs the first so many queries, which are all stopped after some commits of the first if `stops_after` says so.
    fn run(&self, count: usize, pace: Pace, log_bytes: u64, stops_after: Option<usize>) -> Vec<Result<Summary, Error>> {
        let (sender, stop) = watch::channel(false);
        let ends = [stops_after.map(|commits| (commits, End::Stop(sender))), None];
        self.run_until(count, pace, log_bytes, ends, stop)
    }

    /// Runs the first so many queries, with what happens to each.
    fn run_until(
        &self,
        count: usize,
        pace: Pace,
        log_bytes: u64,
        ends: [Option<(usize, End)>; 2],
        stop: watch::Receiver<bool>,
    ) -> Vec<Result<Summary, Error>> {
        let sinks = self.ledgers.iter().zip(ends).map(|(ledger, end)| LedgerSink::new(ledger.clone(), None, end));
        let mut sinks: Vec<_> = sinks.collect();
        as_process(async {
            let directory = self.directory(log_bytes);
            let mut plans = Vec::new();
            for job in &self.jobs {
                plans.push(job.logical().await);
            }
            let queries = self.jobs.iter().zip(&plans).zip(&mut sinks).zip(["one", "other"]);
            let members = queries.map(|(((job, logical), sink), name)| Member {
                name,
                job,
                logical,
                sink: sink as _,
                late_sink: None,
            });
            let running = run_together(members.take(count).collect(), &directory, pace, stop);
            tokio::time::timeout(PATIENCE, running).await.unwrap_or_else(|_| panic!("it hangs")).unwrap()
        })
    }

    /// Checks that a query has the right rows for those of the stream that it has seen; which those are.
    fn seen(&self, number: usize) -> BTreeSet<u64> {
        let (job, rows) = (&self.jobs[number], cells_of(&self.ledgers[number].rows(), 0.0));
        let seen = rows_seen(&rows);
        let only = job.only(|row| seen.contains(&row.offset));
        let expected: Vec<RecordBatch> = as_process(async { only.undisturbed(&only.logical().await).await });
        difference(&rows, &cells_of(&expected, 0.0)).unwrap_or_else(|difference| panic!("{}\n{difference}", job.sql));
        seen
    }
}

fn pace(checkpoint_epochs: u64) -> Pace {
    Pace { split_rows: 1, batch_rows: 4, checkpoint_epochs, replay_rows: 1 << 20 }
}

#[test]
fn a_full_log_waits_for_a_checkpoint_and_gets_one() {
    let readers = Readers::new();
    // The interval of ten seconds and the number of epochs alone would bring no checkpoint.
    for ended in readers.run(2, pace(u64::MAX), LOG_BYTES, None) {
        ended.unwrap();
    }
    for number in 0..2 {
        assert_eq!(readers.seen(number).len(), 100);
    }
}

#[test]
fn a_query_that_comes_when_its_log_was_trimmed_begins_with_the_next_record() {
    let readers = Readers::new();
    readers.run(1, pace(1), LOG_BYTES, Some(2)).remove(0).unwrap();
    for commits in [1, 2] {
        // Stopped, and gone on with from its own place.
        readers.run(2, pace(1), LOG_BYTES, Some(commits)).into_iter().for_each(|ended| drop(ended.unwrap()));
    }
    readers.run(2, pace(1), LOG_BYTES, None).into_iter().for_each(|ended| drop(ended.unwrap()));
    let (one, other) = (readers.seen(0), readers.seen(1));
    assert!(!other.is_empty() && other.len() < one.len(), "{} and {} rows", one.len(), other.len());
    assert_eq!(verify(&readers.folder.path().into()).unwrap().faults, [""; 0]);
}

#[test]
fn a_query_that_died_before_its_first_checkpoint_is_given_all_that_it_needs() {
    let readers = Readers::new();
    let (_sender, stop) = watch::channel(false);
    let ends = [None, Some((2, End::LoseAnswer))];
    // One query reads everything, the other one dies on the way.
    let ended = readers.run_until(2, pace(u64::MAX), 1 << 20, ends, stop);
    assert!(ended[0].is_ok() && ended[1].is_err());
    for again in readers.run(2, pace(u64::MAX), 1 << 20, None) {
        again.unwrap();
    }
    for number in 0..2 {
        assert_eq!(readers.seen(number).len(), 100);
    }
}

#[test]
fn a_query_that_came_late_and_died_at_once_goes_on_as_it_was() {
    for commits in 1..4 {
        let readers = Readers::new();
        readers.run(1, pace(1), LOG_BYTES, Some(2)).remove(0).unwrap();
        let (_sender, stop) = watch::channel(false);
        // With room for all: what died holds its log, and here nobody stops the other one for it.
        let ended = readers.run_until(2, pace(1), 1 << 20, [None, Some((commits, End::LoseAnswer))], stop);
        assert!(ended[0].is_ok() && ended[1].is_err());
        for again in readers.run(2, pace(1), LOG_BYTES, None) {
            again.unwrap();
        }
        let (one, other) = (readers.seen(0), readers.seen(1));
        assert!(!other.is_empty() && other.is_subset(&one), "{other:?} of {one:?}");
        assert_eq!(other.last(), one.last());
    }
}
