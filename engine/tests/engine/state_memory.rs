//! Limits on memory: state beyond its limit is on disk and the results are the same; a plan beyond its own says so.

use std::path::Path;
use std::sync::Arc;

use crate::kept::jobs::replayable;
use crate::kept::sink::{End, Ledger, LedgerSink};
use crate::kept::{Job, Member, Pace, Table, as_process, run_together};
use crate::oracle::table::cells_of;
use crate::oracle::{Event, Log, Row, Window};
use datafusion::arrow::datatypes::TimeUnit;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::logical_expr::LogicalPlan;
use millstream_engine::CheckpointPolicy;
use millstream_engine::durable::{Durability, Misfit, StateDirectory};
use millstream_engine::plan::Emission;
use millstream_engine::query::{PlannedQuery, QueryOptions};
use millstream_engine::state::StateMemory;
use millstream_engine::testing::{EvenCut, Run, run_scripts};
use tokio::sync::watch;

async fn run(job: &Job, options: QueryOptions) -> millstream_engine::Result<Run> {
    run_in_blocks_of(8, job, options).await
}

async fn run_in_blocks_of(block_rows: usize, job: &Job, options: QueryOptions) -> millstream_engine::Result<Run> {
    let scripts: Vec<_> = job.tables.iter().map(|table| table.log.script()).collect();
    let mut cut = EvenCut { block_rows, records: 4 };
    run_scripts(&job.logical().await, &scripts, &mut cut, options, None).await
}

#[tokio::test(flavor = "multi_thread")]
async fn state_without_room_in_memory_is_on_disk_and_gives_the_same_rows() {
    for job in replayable(7) {
        let expected = cells_of(&run(&job, QueryOptions::default()).await.unwrap().batches(), 0.0);
        for limit in [0, 2_000, 20_000] {
            let memory = StateMemory::new(limit, std::env::temp_dir());
            let options = QueryOptions { state_memory: Arc::clone(&memory), ..QueryOptions::default() };
            let rows = cells_of(&run(&job, options).await.unwrap().batches(), 0.0);
            assert_eq!(rows, expected, "{} in {limit} bytes", job.sql);
            assert!(memory.disk_bytes() > 0 || limit > 2_000, "{}: nothing went to disk", job.sql);
        }
    }
}

/// Rows of one block, each in a pane of its own, with strings that do not compress.
fn long_strings(rows: u64, length: usize) -> Log {
    let row = |number: u64| {
        let word = |index: u64| format!("{:016x}", (number * 4_096 + index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        Row {
            partition: 0,
            offset: number,
            time: number as i64 * 2,
            k: Some((0..length as u64 / 16).map(word).collect()),
            g: None,
            i: None,
            d: None,
            f: None,
        }
    };
    let events = vec![Event::Rows(0, (0..rows).map(row).collect())];
    Log { name: "s".to_owned(), partitions: 1, delay: 0, skew: None, unit: TimeUnit::Nanosecond, events }
}

#[tokio::test(flavor = "multi_thread")]
async fn panes_cut_from_one_block_take_no_more_of_the_disk_than_their_own_rows() {
    const ROWS: u64 = 64;
    const LENGTH: usize = 2_048;
    let log = Arc::new(long_strings(ROWS, LENGTH));
    let tables = vec![Table { log, window: Some(Window::new(2, 2)) }];
    for sql in ["SELECT window_end, k FROM s", "SELECT window_end, k, COUNT(*) AS n FROM s GROUP BY window_end, k"] {
        let job = Job { sql, tables: tables.clone(), given: None, emission: Emission::default(), seat: None };
        let memory = StateMemory::new(0, std::env::temp_dir());
        let options = QueryOptions { state_memory: Arc::clone(&memory), ..QueryOptions::default() };
        let rows = cells_of(&run_in_blocks_of(64, &job, options).await.unwrap().batches(), 0.0);
        let expected = cells_of(&run_in_blocks_of(64, &job, QueryOptions::default()).await.unwrap().batches(), 0.0);
        assert_eq!(rows, expected, "{sql}");
        let text_bytes = ROWS * LENGTH as u64;
        let disk_bytes = memory.disk_bytes();
        assert!((text_bytes / 2..4 * text_bytes).contains(&disk_bytes), "{sql}: {disk_bytes} bytes");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_that_needs_more_memory_than_it_may_have_names_the_setting() {
    let runtime = RuntimeEnvBuilder::new().with_memory_pool(Arc::new(GreedyMemoryPool::new(1)));
    let runtime = runtime.build_arc().unwrap();
    let mut refused = 0;
    for job in replayable(7) {
        let options = QueryOptions { runtime: Arc::clone(&runtime), ..QueryOptions::default() };
        if let Err(error) = run(&job, options).await {
            assert!(error.hint().is_some_and(|hint| hint.contains("SET plan_memory")), "{error:?}");
            refused += 1;
        }
    }
    assert!(refused > 0, "no plan needed memory");
}

/// Loads two queries that were stopped, one after the other, with so much memory for both; the disk that their state
/// takes after the first and after the second.
fn disk_after_loading(folder: &Path, logical: &LogicalPlan, limit: usize) -> (u64, u64) {
    let memory = StateMemory::new(limit, std::env::temp_dir());
    let directory = StateDirectory::open(&folder.into(), Durability::ProcessCrash).unwrap();
    let load = |name: &str| {
        let options = QueryOptions {
            name: name.to_owned(),
            key_partitions: 7,
            state_memory: Arc::clone(&memory),
            ..QueryOptions::default()
        };
        let planned = as_process(PlannedQuery::plan(logical, options)).unwrap();
        planned.keep_in(&directory, CheckpointPolicy::default(), Misfit::Refuse).unwrap()
    };
    let _one = load("one");
    let after_one = memory.disk_bytes();
    let _other = load("other");
    (after_one, memory.disk_bytes())
}

#[test]
fn queries_that_are_loaded_one_after_another_share_the_memory() {
    let job = replayable(5).remove(1);
    let logical = as_process(job.logical());
    let folder = tempfile::tempdir().unwrap();
    for name in ["one", "other"] {
        let (sender, stop) = watch::channel(false);
        let mut sink = LedgerSink::new(Ledger::default(), None, Some((3, End::Stop(sender))));
        let pace = Pace { split_rows: 4, batch_rows: 9, checkpoint_epochs: 1, replay_rows: 1 << 20 };
        let directory = StateDirectory::open(&folder.path().into(), Durability::ProcessCrash).unwrap();
        let member = Member { name, job: &job, logical: &logical, sink: &mut sink, late_sink: None };
        let ended = as_process(run_together(vec![member], &directory, pace, stop)).unwrap().remove(0).unwrap();
        assert!(ended.was_stopped);
    }
    // The least memory that one fits into is too little for two.
    let loaded = |limit: usize| disk_after_loading(folder.path(), &logical, limit);
    let (mut too_little, mut enough) = (0, 1 << 30);
    while enough - too_little > 1 {
        let limit = usize::midpoint(too_little, enough);
        *(if loaded(limit).0 == 0 { &mut enough } else { &mut too_little }) = limit;
    }
    let (after_one, after_both) = loaded(enough);
    assert_eq!(after_one, 0);
    assert!(after_both > 0);
}
