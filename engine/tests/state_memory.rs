//! Limits on memory: state beyond its limit is on disk and the results are the same; a plan beyond its own says so.

#![expect(clippy::unwrap_used, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod kept;
#[expect(dead_code, reason = "each test file uses a part of it")]
mod oracle;

use std::sync::Arc;

use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use kept::Job;
use kept::jobs::replayable;
use millstream_engine::query::QueryOptions;
use millstream_engine::state::StateMemory;
use millstream_engine::testing::{EvenCut, Run, run_scripts};
use oracle::table::cells_of;

async fn run(job: &Job, options: QueryOptions) -> millstream_engine::Result<Run> {
    let scripts: Vec<_> = job.tables.iter().map(|table| table.log.script()).collect();
    let mut cut = EvenCut { block_rows: 8, records: 4 };
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
