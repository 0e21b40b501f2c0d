//! What a query costs however long it runs: plans are made once, and state is read a bounded number of times.

use crate::oracle::batch::{Relation, logical_plan};
use crate::oracle::{Event, Log, Row, Window};
use datafusion::arrow::datatypes::TimeUnit;
use millstream_engine::query::QueryOptions;
use millstream_engine::testing::{EvenCut, Run, run_scripts};
use millstream_engine::time::NANOS_PER_SECOND;

/// One row for each of `groups` keys every second.
fn log(seconds: i64, groups: i64) -> Log {
    let row = |second: i64, group: i64| Row {
        partition: 0,
        offset: (second * groups + group) as u64,
        time: second * NANOS_PER_SECOND,
        k: Some(format!("{group:06}")),
        g: Some(group),
        i: Some(second),
        d: None,
        f: Some(0.5),
    };
    let rows = (0..seconds).flat_map(|second| (0..groups).map(move |group| row(second, group))).collect();
    let events = vec![Event::Rows(0, rows)];
    Log { name: "s".to_owned(), partitions: 1, delay: 0, skew: None, unit: TimeUnit::Nanosecond, events }
}

async fn run(sql: &str, log: &Log, window: Window, mut cut: EvenCut) -> Run {
    // The rows of windows are not asked for here, so the relation is one over no rows.
    let empty = Log { events: Vec::new(), ..log.clone() };
    let relation = Relation::of_stream("t", log, &empty.replay(), window);
    let logical = logical_plan(sql, &[relation]).await;
    run_scripts(&logical, &[log.script()], &mut cut, QueryOptions::default(), None).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_planned_once_a_query_runs() {
    let log = log(10_000, 1);
    let window = Window::new(60, 20).times(NANOS_PER_SECOND);
    for (sql, rows) in [
        ("SELECT window_end, k, SUM(i), COUNT(*) FROM t GROUP BY window_end, k", 502),
        ("SELECT window_end, k, i FROM t ORDER BY i DESC LIMIT 2", 1004),
    ] {
        let run = run(sql, &log, window, EvenCut { block_rows: 1, records: 1 }).await;
        let counts = &run.summary.counts;
        assert!(run.summary.progress.epochs >= 10_000, "{} epochs", run.summary.progress.epochs);
        assert_eq!(run.summary.progress.rows_written, rows, "{sql}");
        assert!(counts.plan_count > 0);
        assert_eq!(counts.plans_made, counts.plan_count, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn state_rows_read_per_instant_do_not_grow_with_the_number_of_panes() {
    const GROUPS: u64 = 50;
    let log = log(5_000, GROUPS as i64);
    let window = Window::new(3_600, 1).times(NANOS_PER_SECOND);
    let sql = "SELECT window_end, k, COUNT(*), SUM(f) FROM t GROUP BY window_end, k";
    let run = run(sql, &log, window, EvenCut { block_rows: 5_000, records: 4 }).await;
    let counts = &run.summary.counts;
    assert!(counts.instants >= 8_000, "{} instants", counts.instants);
    assert_eq!(run.summary.progress.rows_written, counts.instants * GROUPS);
    let per_instant = counts.state_rows_read / counts.instants;
    assert!(per_instant < 8 * GROUPS, "{per_instant} state rows read at each instant for {GROUPS} groups");
    let last_full =
        run.epochs.iter().flatten().flat_map(|batch| crate::oracle::table::cells_of(std::slice::from_ref(batch), 0.0));
    let counts: Vec<_> =
        last_full.filter(|row| row[0] == crate::oracle::table::Cell::exact(4_000 * NANOS_PER_SECOND)).collect();
    assert_eq!(counts.len(), GROUPS as usize);
    assert!(counts.iter().all(|row| row[2] == crate::oracle::table::Cell::exact(3_600)), "{counts:?}");
}
