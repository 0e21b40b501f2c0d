//! Damage: a bit that flips or an end that is missing in any file of a state directory is never silent.
//!
//! Either the rows in the sink are in the end those of a run that nothing disturbed, because there is an older
//! checkpoint or because only records are gone that a crash may take, or the query does not start and says which file
//! is damaged and where. `verify` says it too, for every flipped bit.
//!
//! The end of a log that is missing looks like one that was never written. What only the sink or another log knows
//! about is then named as what is missing there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::kept::jobs::{live, replayable, rows_in, rows_seen};
use crate::kept::sink::{End, Ledger, LedgerSink};
use crate::kept::{Job, Pace, as_process};
use crate::oracle::table::{Cells, cells_of, difference};
use datafusion::logical_expr::LogicalPlan;
use millstream_engine::Error;
use millstream_engine::durable::{Durability, Report, StateDirectory, verify};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

/// Places of each file at which a bit flips, and at which it is broken off.
const PLACES: usize = 12;

/// What a query left that was cut off in the middle of its work.
struct Left {
    job: Job,
    logical: LogicalPlan,
    expected: Vec<Cells>,
    folder: tempfile::TempDir,
    ledger: Ledger,
    /// How many rows a source that cannot be read again had given.
    given: usize,
}

fn run(job: &Job, logical: &LogicalPlan, folder: &Path, sink: &mut LedgerSink) -> Result<(), Error> {
    let pace = Pace { split_rows: 3, batch_rows: 5, checkpoint_epochs: 3, replay_rows: 7 };
    let (_sender, stop) = watch::channel(false);
    as_process(async {
        let directory = StateDirectory::open(&folder.into(), Durability::ProcessCrash)?;
        job.run(logical, &directory, pace, sink, stop).await.map(|_| ())
    })
}

/// How often a run is begun anew because a slow disk left it with a single checkpoint, or its rows came in so few
/// micro-batches that there was no such commit.
const TRIES: usize = 100;

/// Runs a query until its answer to the `commits`-th commit is lost; it has then two checkpoints and lineage behind.
fn leave(job: Job, commits: usize) -> Left {
    let logical = as_process(job.logical());
    let expected = as_process(async { job.final_rows(cells_of(&job.undisturbed(&logical).await, 0.0)) });
    for _ in 0..TRIES {
        let (folder, ledger) = (tempfile::tempdir().unwrap(), Ledger::default());
        job.given.iter().for_each(|given| given.store(0, Ordering::SeqCst));
        let mut sink = LedgerSink::new(ledger.clone(), None, Some((commits, End::LoseAnswer)));
        let has_died = run(&job, &logical, folder.path(), &mut sink).is_err();
        let given = job.given.as_ref().map_or(0, |given| given.load(Ordering::SeqCst));
        // Checkpoints are written beside the epochs, and one that is still being written puts the next one off.
        if has_died && manifests(folder.path()).len() >= 2 {
            return Left { job, logical, expected, folder, ledger, given };
        }
    }
    panic!("{TRIES} runs of {} without {commits} commits and two checkpoints", job.sql);
}

/// The files below a folder, relative to it, in order; not the lock.
fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(next) = folders.pop() {
        for entry in fs::read_dir(next).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.file_name() != "lock" {
                found.insert(entry.path().strip_prefix(folder).unwrap().to_owned());
            }
        }
    }
    found.into_iter().collect()
}

/// The manifests of the last two checkpoints.
fn manifests(folder: &Path) -> Vec<PathBuf> {
    let is_manifest = |file: &PathBuf| file.parent().unwrap().ends_with("checkpoints");
    let all: Vec<_> = files_below(folder).into_iter().filter(is_manifest).collect();
    all[all.len().saturating_sub(2)..].to_vec()
}

/// Whether what is in a file counts: of terms only the names do, and older checkpoints wait for their removal.
fn counts(folder: &Path, file: &Path) -> bool {
    let manifests = manifests(folder);
    let is_named = || manifests.iter().any(|path| fs::read_to_string(folder.join(path)).unwrap().contains(name(file)));
    match file.parent().unwrap() {
        parent if parent.ends_with("terms") => false,
        parent if parent.ends_with("checkpoints") => manifests.iter().any(|manifest| manifest == file),
        parent if parent.ends_with("state") => is_named(),
        _ => true,
    }
}

fn name(file: &Path) -> &str {
    file.file_name().unwrap().to_str().unwrap()
}

fn copy(from: &Path, to: &Path) {
    for file in files_below(from) {
        fs::create_dir_all(to.join(&file).parent().unwrap()).unwrap();
        fs::copy(from.join(&file), to.join(&file)).unwrap();
    }
}

/// Something that happens to a file.
#[derive(Debug, Clone, Copy)]
enum Fault {
    Flip { bit: usize },
    BreakOff { length: usize },
}

impl Fault {
    fn apply(self, mut bytes: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Flip { bit } => bytes[bit / 8] ^= 1 << (bit % 8),
            Self::BreakOff { length } => bytes.truncate(length),
        }
        bytes
    }
}

/// Faults all over a file of so many bytes.
fn faults(bytes: usize, rng: &mut StdRng) -> Vec<Fault> {
    let ends = [0, bytes * 8 - 1];
    let bits: BTreeSet<_> = ends.into_iter().chain((0..PLACES).map(|_| rng.random_range(0..bytes * 8))).collect();
    let ends = [0, bytes - 1];
    let lengths: BTreeSet<_> = ends.into_iter().chain((0..PLACES).map(|_| rng.random_range(0..bytes))).collect();
    let flips = bits.into_iter().map(|bit| Fault::Flip { bit });
    flips.chain(lengths.into_iter().map(|length| Fault::BreakOff { length })).collect()
}

impl Left {
    /// Goes on from a copy with a fault in `file`; says what is wrong with what comes of it.
    fn check(&self, file: &Path, fault: Fault) -> Result<(), String> {
        let folder = tempfile::tempdir().unwrap();
        copy(self.folder.path(), folder.path());
        let whole = fs::read(folder.path().join(file)).unwrap();
        fs::write(folder.path().join(file), fault.apply(whole)).unwrap();
        let report = verify(&folder.path().into()).unwrap();
        let (mut job, ledger) = (self.job.clone(), self.ledger.copy());
        job.given = job.given.map(|_| Arc::new(AtomicUsize::new(self.given)));
        let mut sink = LedgerSink::new(ledger.clone(), None, None);
        let outcome = run(&job, &self.logical, folder.path(), &mut sink);
        if counts(self.folder.path(), file) {
            check_report(file, fault, &report)?;
        }
        match outcome {
            Ok(()) => self.check_rows(&job, &ledger, fault),
            Err(error) => check_error(file, fault, &report, &error),
        }
    }

    fn check_rows(&self, job: &Job, ledger: &Ledger, fault: Fault) -> Result<(), String> {
        let rows = job.final_rows(cells_of(&ledger.rows(), 0.0));
        if job.given.is_none() {
            return difference(&rows, &self.expected);
        }
        let seen = rows_seen(&rows);
        let lost: Vec<_> = self.logged().difference(&seen).copied().collect();
        if let (Fault::Flip { .. }, false) = (fault, lost.is_empty()) {
            return Err(format!("rows {lost:?} were in the log and are not in the result"));
        }
        let job = job.only(|row| seen.contains(&row.offset));
        let expected = as_process(async { job.undisturbed(&job.logical().await).await });
        difference(&rows, &cells_of(&expected, 0.0))
    }

    /// The rows in the write-ahead log as it was left.
    fn logged(&self) -> BTreeSet<u64> {
        let folder = self.folder.path();
        let logs = files_below(folder).into_iter().filter(|path| path.extension().is_some_and(|end| end == "wal"));
        let bytes: Vec<u8> = logs.flat_map(|path| fs::read(folder.join(path)).unwrap()).collect();
        rows_in(&bytes, self.job.log("s"))
    }
}

/// A flipped bit is always reported.
fn check_report(file: &Path, fault: Fault, report: &Report) -> Result<(), String> {
    let is_named = report.faults.iter().any(|text| names(text, file));
    match fault {
        Fault::Flip { .. } if !is_named => Err(format!("not reported: {:?}", report.faults)),
        _ => Ok(()),
    }
}

fn names(text: &str, file: &Path) -> bool {
    text.contains(file.to_str().unwrap()) && text.contains(" is damaged at byte ")
}

fn check_error(file: &Path, fault: Fault, report: &Report, error: &Error) -> Result<(), String> {
    let text = error.to_string();
    let is_cut = matches!(fault, Fault::BreakOff { .. });
    let is_missing = is_cut && text.starts_with("the sink of query ");
    match error {
        Error::State { .. } if is_missing => Ok(()),
        // What a log lost at its end only those know who have used it, and `verify` looks at each log alone.
        Error::State { .. } if names(&text, file) && (is_cut || !report.faults.is_empty()) => Ok(()),
        other => Err(format!("{text}: {other:?}\nverify: {:?}", report.faults)),
    }
}

/// Every kind of file that a state directory has, and how many faults in it there were.
fn check_all(left: &Left) -> usize {
    let mut rng = StdRng::seed_from_u64(1);
    let (mut checked, mut failures) = (0, Vec::new());
    for file in files_below(left.folder.path()) {
        let bytes = fs::metadata(left.folder.path().join(&file)).unwrap().len() as usize;
        for fault in faults(bytes, &mut rng) {
            checked += 1;
            if let Err(failure) = left.check(&file, fault) {
                failures.push(format!("{} {fault:?} of {bytes} bytes: {failure}", file.display()));
            }
        }
    }
    let shown = failures.len().min(8);
    let sql = left.job.sql;
    assert!(failures.is_empty(), "{sql}\n{} of {checked} failed\n{}", failures.len(), failures[..shown].join("\n\n"));
    checked
}

#[test]
fn damage_to_the_state_of_aggregates_is_never_silent() {
    assert!(check_all(&leave(replayable(1).remove(0), 4)) > 200);
}

#[test]
fn damage_to_the_state_of_a_join_is_never_silent() {
    assert!(check_all(&leave(replayable(2).remove(2), 5)) > 200);
}

#[test]
fn damage_to_the_rows_of_a_stream_that_cannot_be_read_again_is_never_silent() {
    assert!(check_all(&leave(live().remove(0), 5)) > 200);
}

#[test]
fn a_directory_that_nothing_happened_to_is_whole() {
    for job in replayable(3).into_iter().take(3).chain(live()) {
        let left = leave(job, 4);
        assert_eq!(verify(&left.folder.path().into()).unwrap().faults, [""; 0]);
        let mut sink = LedgerSink::new(left.ledger.clone(), None, None);
        run(&left.job, &left.logical, left.folder.path(), &mut sink).unwrap();
        left.check_rows(&left.job, &left.ledger, Fault::Flip { bit: 0 }).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(verify(&left.folder.path().into()).unwrap().faults, [""; 0]);
    }
}
