//! Power loss: whatever operation of the disk the power goes off in, and however often, the rows in the sink are in
//! the end those of a run that nothing disturbed.
//!
//! For a source that cannot be read again the statement is another one. A row that it gave may be lost as long as it
//! is not in the write-ahead log; the source goes on behind it. What the log has acknowledged with a sync is never
//! lost, nothing counts twice, and the rows in the sink are those of an undisturbed run over just the rows that came
//! through.
//!
//! Every failure names its seed; `MILLSTREAM_SEED=n` runs that one alone, `MILLSTREAM_TEST_SEEDS=n` so many of them.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::kept::jobs::{live, replayable, rows_in, rows_seen};
use crate::kept::sink::{End, Ledger, LedgerSink};
use crate::kept::{Job, Pace, as_process};
use crate::oracle::table::{Cells, cells_of, difference};
use datafusion::logical_expr::LogicalPlan;
use millstream_engine::Error;
use millstream_engine::durable::{Files, SimFiles, StateDirectory, verify_files};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

/// Seeds of a normal run.
const SEEDS: u64 = 1000;
/// Starts after which the power stays on, so that every seed comes to its end.
const MOST_CUTS: u32 = 12;

/// A query and what it gives if nothing disturbs it.
struct Prepared {
    job: Job,
    logical: LogicalPlan,
    expected: Vec<Cells>,
}

async fn prepare(job: Job) -> Prepared {
    let logical = job.logical().await;
    let expected = job.final_rows(cells_of(&job.undisturbed(&logical).await, 0.0));
    assert!(!expected.is_empty(), "{}", job.sql);
    Prepared { job, logical, expected }
}

/// One machine that is switched off again and again.
struct Machine<'a> {
    rng: StdRng,
    prepared: &'a Prepared,
    job: Job,
    disk: SimFiles,
    ledger: Ledger,
    acknowledged: BTreeSet<u64>,
    cuts: u32,
}

impl<'a> Machine<'a> {
    fn new(seed: u64, prepared: &'a Prepared) -> Self {
        let mut job = prepared.job.clone();
        job.given = job.given.map(|_| Arc::default());
        let (rng, disk) = (StdRng::seed_from_u64(seed), SimFiles::new(seed));
        let (ledger, acknowledged) = (Ledger::default(), BTreeSet::new());
        Self { rng, prepared, job, disk, ledger, acknowledged, cuts: 0 }
    }

    /// Runs the query to its end through power cuts, deaths and stops.
    fn run(&mut self) -> Result<(), String> {
        for start in 0.. {
            if start < MOST_CUTS {
                let horizon = [15, 60, 250][self.rng.random_range(0..3)];
                self.disk.cut_power_at(self.rng.random_range(1..=horizon));
            }
            let stops = start < MOST_CUTS && self.rng.random_bool(0.15);
            let was_stopped = match self.start(stops) {
                Ok(was_stopped) if self.disk.has_power() => was_stopped,
                Err(error) if self.disk.has_power() => return Err(format!("start {start}: {error}: {error:?}")),
                _ => true,
            };
            if !was_stopped {
                return Ok(());
            }
            self.switch_off()?;
        }
        Ok(())
    }

    fn start(&mut self, stops: bool) -> Result<bool, Error> {
        let pace = Pace {
            split_rows: self.rng.random_range(1..6),
            batch_rows: self.rng.random_range(1..12),
            checkpoint_epochs: self.rng.random_range(1..=4),
            replay_rows: self.rng.random_range(1..40),
        };
        let files: Arc<dyn Files> = Arc::new(self.disk.clone());
        let (sender, stop) = watch::channel(false);
        let stops = stops.then(|| (self.rng.random_range(1..5), End::Stop(sender)));
        let mut sink = LedgerSink::new(self.ledger.clone(), Some(self.disk.clone()), stops);
        as_process(async {
            let directory = StateDirectory::on(files, None)?;
            let summary = self.job.run(&self.prepared.logical, &directory, pace, &mut sink, stop).await?;
            Ok(summary.was_stopped)
        })
    }

    /// The power goes off, or the process dies and the machine does not.
    fn switch_off(&mut self) -> Result<(), String> {
        self.cuts += u32::from(!self.disk.has_power());
        if self.job.given.is_some() {
            self.acknowledged.extend(rows_in(&self.disk.synced(".wal"), self.job.log("s")));
        }
        let seed = self.rng.random();
        self.disk = if self.rng.random_bool(0.7) { self.disk.crash(seed) } else { self.disk.kill(seed) };
        let files: Arc<dyn Files> = Arc::new(self.disk.clone());
        // Before its first file is there, it is no state directory yet.
        let faults = if files.read("format.json").is_ok() { verify_files(&files).faults } else { Vec::new() };
        if faults.is_empty() { Ok(()) } else { Err(format!("what a crash left is called damaged: {faults:?}")) }
    }

    fn check(&self) -> Result<(), String> {
        let rows = self.job.final_rows(cells_of(&self.ledger.rows(), 0.0));
        if self.job.given.is_none() {
            return difference(&rows, &self.prepared.expected);
        }
        let seen = rows_seen(&rows);
        let lost: Vec<_> = self.acknowledged.difference(&seen).collect();
        if !lost.is_empty() {
            return Err(format!("rows {lost:?} were acknowledged and are not in the result"));
        }
        let job = self.job.only(|row| seen.contains(&row.offset));
        let expected = as_process(async { job.undisturbed(&job.logical().await).await });
        difference(&rows, &cells_of(&expected, 0.0))
    }
}

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    match number("MILLSTREAM_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MILLSTREAM_TEST_SEEDS").unwrap_or(SEEDS),
    }
}

/// What happened to a query in all of its seeds.
#[derive(Debug, Clone, Copy, Default)]
struct Survived {
    seeds: u64,
    cuts: u64,
    /// Rows of a source that cannot be read again that were acknowledged before a cut.
    acknowledged: u64,
}

/// Runs a query through the power cuts of a seed, and counts them.
fn survive(seed: u64, prepared: &Prepared, survived: &mut Survived) -> Result<(), String> {
    let mut machine = Machine::new(seed, prepared);
    let ended = machine.run().and_then(|()| machine.check());
    survived.seeds += 1;
    survived.cuts += u64::from(machine.cuts);
    survived.acknowledged += machine.acknowledged.len() as u64;
    ended.map_err(|error| format!("MILLSTREAM_SEED={seed} {}\n{error}", machine.job.sql))
}

#[test]
fn state_survives_power_cuts_at_any_operation() {
    let prepared: Vec<Prepared> = as_process(async {
        let mut prepared = Vec::new();
        for job in (1..=3).flat_map(|seed| replayable(seed).into_iter().chain(live())) {
            prepared.push(prepare(job).await);
        }
        prepared
    });
    let (seeds, threads) = (seeds(), std::thread::available_parallelism().map_or(2, usize::from));
    let next = AtomicU64::new(seeds.start);
    let all: Mutex<(Vec<Survived>, Vec<String>)> = Mutex::new((vec![Survived::default(); prepared.len()], Vec::new()));
    let work = || {
        while let Some(seed) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|seed| seeds.contains(seed)) {
            let (index, mut survived) = (seed as usize % prepared.len(), Survived::default());
            let ended = survive(seed, &prepared[index], &mut survived);
            let (totals, failures) = &mut *all.lock().unwrap();
            totals[index].seeds += survived.seeds;
            totals[index].cuts += survived.cuts;
            totals[index].acknowledged += survived.acknowledged;
            failures.extend(ended.err());
        }
    };
    std::thread::scope(|scope| (0..threads).for_each(|_| drop(scope.spawn(work))));
    let (totals, failures) = all.into_inner().unwrap();
    let shown = failures.len().min(5);
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures[..shown].join("\n\n"));
    for (prepared, survived) in prepared.iter().zip(&totals).filter(|(_, survived)| survived.seeds > 1) {
        println!("{survived:?} {}", prepared.job.sql);
        assert!(survived.cuts >= survived.seeds, "{survived:?} of {}", prepared.job.sql);
        let is_live = prepared.job.given.is_some();
        assert!(!is_live || survived.acknowledged > 0, "{survived:?} of {}", prepared.job.sql);
    }
}
