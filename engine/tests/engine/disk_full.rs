//! A full disk: whichever write finds no room, the query waits and goes on, and its rows are as if nothing had been.
//!
//! A query that has not begun yet does not wait: it ends with an error that says so, and can be started once there is
//! room.

use std::sync::Arc;

use crate::kept::jobs::{live, replayable};
use crate::kept::sink::{Ledger, LedgerSink};
use crate::kept::{Job, Pace, as_process};
use crate::oracle::table::{Cells, cells_of, difference};
use datafusion::logical_expr::LogicalPlan;
use millstream_engine::Error;
use millstream_engine::durable::{Files, SimFiles, StateDirectory, verify_files};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;

const SEEDS: u64 = 240;

fn run(job: &Job, logical: &LogicalPlan, disk: &SimFiles, ledger: &Ledger, rng: &mut StdRng) -> Result<(), Error> {
    let pace = Pace {
        split_rows: rng.random_range(1..6),
        batch_rows: rng.random_range(1..12),
        checkpoint_epochs: rng.random_range(1..=4),
        replay_rows: rng.random_range(1..40),
    };
    let mut sink = LedgerSink::new(ledger.clone(), Some(disk.clone()), None);
    let (_sender, stop) = watch::channel(false);
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    as_process(async {
        let directory = StateDirectory::on(files, None)?;
        job.run(logical, &directory, pace, &mut sink, stop).await.map(|_| ())
    })
}

/// Whether the disk was full in a run that had begun, or what came of it that should not.
fn fill(seed: u64, job: &Job, logical: &LogicalPlan, expected: &[Cells]) -> Result<bool, String> {
    let (mut rng, disk, ledger) = (StdRng::seed_from_u64(seed), SimFiles::new(seed), Ledger::default());
    let mut job = job.clone();
    job.given = job.given.map(|_| Arc::default());
    disk.fill_at(rng.random_range(1..=150), rng.random_range(1..=12));
    let mut waited = true;
    while let Err(error) = run(&job, logical, &disk, &ledger, &mut rng) {
        if !error.is_disk_full() || !ledger.rows().is_empty() {
            return Err(format!("{error}: {error:?}"));
        }
        waited = false;
    }
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let faults = verify_files(&files).faults;
    if !faults.is_empty() {
        return Err(format!("{faults:?}"));
    }
    difference(&job.final_rows(cells_of(&ledger.rows(), 0.0)), expected)?;
    Ok(waited && disk.was_full())
}

#[test]
fn a_query_waits_for_room_on_a_full_disk() {
    let jobs: Vec<Job> = replayable(1).into_iter().chain(live()).collect();
    let mut prepared = Vec::new();
    for job in jobs {
        let logical = as_process(job.logical());
        let expected = as_process(async { job.final_rows(cells_of(&job.undisturbed(&logical).await, 0.0)) });
        prepared.push((job, logical, expected));
    }
    let mut waited = 0;
    for seed in 0..SEEDS {
        let (job, logical, expected) = &prepared[seed as usize % prepared.len()];
        match fill(seed, job, logical, expected) {
            Ok(has_waited) => waited += u64::from(has_waited),
            Err(failure) => panic!("seed {seed} {}\n{failure}", job.sql),
        }
    }
    assert!(waited >= SEEDS / 4, "only {waited} queries had to wait");
}
