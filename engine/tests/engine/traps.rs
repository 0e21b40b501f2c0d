//! Traps in re-running planned queries that give silently wrong or hanging results, each with a test.

use std::sync::mpsc;
use std::time::Duration;

use crate::oracle::batch::{Relation, logical_plan, results};
use crate::oracle::check::{Query, check, query};
use crate::oracle::cut::{AMPLE, Way, ways};
use crate::oracle::generate::{Shape, random_log};
use crate::oracle::table::{Cell, cells_of, difference};
use crate::oracle::{Event, Log, Row, Window};
use datafusion::arrow::datatypes::TimeUnit;
use millstream_engine::plan::Emission;
use millstream_engine::plan::StreamTable;
use millstream_engine::testing::run_scripts;
use rand::SeedableRng;
use rand::rngs::StdRng;

fn log_of(name: &str, rows: impl Iterator<Item = (i64, i64)>) -> Log {
    let row = |(number, (time, i)): (usize, (i64, i64))| Row {
        partition: 0,
        offset: number as u64,
        time,
        k: Some("A".to_owned()),
        g: Some(i % 7),
        i: Some(i),
        d: None,
        f: None,
    };
    let events = vec![Event::Rows(0, rows.enumerate().map(row).collect())];
    Log { name: name.to_owned(), partitions: 1, delay: 0, skew: None, unit: TimeUnit::Nanosecond, events }
}

fn random(name: &str, seed: u64) -> Log {
    random_log(name, &Shape { rows: 120, ..Shape::default() }, &mut StdRng::seed_from_u64(seed))
}

/// DataFusion compares table scans by name: under one name, common sub-expressions of two windows are merged.
#[tokio::test(flavor = "multi_thread")]
async fn two_windows_over_one_stream_differ() {
    let log = random("s", 1);
    let replay = log.replay();
    let scan = |window: Window| {
        let input = millstream_engine::plan::Input::Stream(log.definition());
        let name = StreamTable::new(input, Some(window.spec())).scan_name();
        Relation::of_stream(&format!("\"{name}\""), &log, &replay, window)
    };
    let short = Window::new(4, 4);
    let long = [Window::new(12, 4), Window::new(4, 2), short.offset(1), short.closed_right()];
    for other in long {
        let relations = [scan(short), scan(other)];
        let [a, b] = [&relations[0].table, &relations[1].table];
        assert_ne!(a, b);
        let queries = [
            format!("SELECT (SELECT SUM(i) FROM {a}) - (SELECT SUM(i) FROM {b}) AS x FROM {a} LIMIT 1"),
            format!(
                "SELECT x.e, x.n - y.n AS d, x.s - y.s AS s FROM \
                 (SELECT window_end AS e, COUNT(*) AS n, SUM(i) AS s FROM {a} GROUP BY window_end) x, \
                 (SELECT window_end AS e, COUNT(*) AS n, SUM(i) AS s FROM {b} GROUP BY window_end) y"
            ),
        ];
        for sql in queries {
            let expected: Vec<_> =
                results(&sql, &relations).await.values().flat_map(|result| cells_of(&result.batches, 0.0)).collect();
            let differing = expected.iter().filter(|row| row.iter().any(|cell| *cell != Cell::exact(0))).count();
            assert!(differing > 0, "{sql}: the windows do not differ");
            let logical = logical_plan(&sql, &relations).await;
            for way in ways(1) {
                let run = run_scripts(
                    &logical,
                    &[log.script()],
                    &mut way.cut(),
                    way.options_of(&logical, Emission::default()),
                    None,
                )
                .await
                .unwrap();
                let rows = cells_of(&run.batches(), 0.0);
                difference(&rows, &expected).unwrap_or_else(|difference| panic!("{sql} {way:?}\n{difference}"));
            }
        }
    }
}

/// A hash join that is run again without being reset probes the build side of its first run.
#[tokio::test(flavor = "multi_thread")]
async fn a_join_run_again_sees_its_new_build_side() {
    // Ten rows on the left in each window; ten, thirty and ten on the right, so 100, 300 and 100 pairs in turn.
    let left = log_of("s", (0..30).flat_map(|window| (0..10).map(move |row| (window * 10 + row, row))));
    let right = |window: i64| if window % 3 == 1 { 30 } else { 10 };
    let rows_of = |window: i64| (0..right(window)).map(move |row| (window * 10 + row * 10 / right(window), row));
    let right_log = log_of("q", (0..30).flat_map(rows_of));
    let window = Window::new(10, 10);
    let relations = [
        Relation::of_stream("t", &left, &left.replay(), window),
        Relation::of_stream("r", &right_log, &right_log.replay(), window),
    ];
    let expected: Vec<_> = (1..=30_i64)
        .map(|number| vec![Cell::exact(number * 10), Cell::exact(if number % 3 == 2 { 300 } else { 100 })])
        .collect();
    for sql in [
        "SELECT t.window_end, COUNT(*) AS n FROM t JOIN r ON t.k = r.k GROUP BY t.window_end",
        "SELECT t.window_end, COUNT(*) AS n FROM t LEFT JOIN r ON t.k = r.k GROUP BY t.window_end",
        "SELECT t.window_end, COUNT(*) AS n FROM r CROSS JOIN t GROUP BY t.window_end",
        "SELECT t.window_end, COUNT(*) AS n FROM t JOIN r ON t.p <= r.p GROUP BY t.window_end",
    ] {
        let logical = logical_plan(sql, &relations).await;
        for way in ways(1) {
            let scripts = [left.script(), right_log.script()];
            let run =
                run_scripts(&logical, &scripts, &mut way.cut(), way.options_of(&logical, Emission::default()), None)
                    .await
                    .unwrap();
            assert!(way.records > 1 || run.epochs.len() == 30, "{} epochs", run.epochs.len());
            assert_eq!(cells_of(&run.batches(), 0.0), expected, "{sql} {way:?}");
        }
    }
}

/// Waiting for a plan inside a task of the runtime spins for ever once the task's budget is used up.
fn ends_in_time(runtime: tokio::runtime::Runtime, sql: &'static str) {
    let (done, ended) = mpsc::channel();
    // A runtime that hangs cannot be relied on to notice it.
    std::thread::spawn(move || {
        let rows = runtime.block_on(async {
            let log = log_of("s", (0..3000).map(|number| (number, number)));
            // One pane a tick: a window of 999 panes, each with a batch of its own.
            let window = Window::new(999, 1000);
            let logical = logical_plan(sql, &[Relation::of_stream("t", &log, &log.replay(), window)]).await;
            let way =
                Way { block_rows: 1, records: 50, tasks: 1, key_partitions: 7, memory: AMPLE, executors: 0, seed: 1 };
            let run = run_scripts(
                &logical,
                &[log.script()],
                &mut way.cut(),
                way.options_of(&logical, Emission::default()),
                None,
            )
            .await;
            cells_of(&run.unwrap().batches(), 0.0)
        });
        done.send(rows).unwrap();
    });
    let rows = ended.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("{sql} hangs"));
    let expected: Vec<_> = (0..3)
        .map(|number| {
            let sum: i64 = (number * 1000 + 1..number * 1000 + 1000).sum();
            vec![Cell::exact(number * 1000 + 1000), Cell::exact(999), Cell::exact(sum)]
        })
        .collect();
    difference(&rows, &expected).unwrap();
}

const MANY_BATCHES: [&str; 2] = [
    "SELECT window_end, COUNT(*) AS n, SUM(i) AS s FROM t GROUP BY window_end",
    "SELECT a.window_end, COUNT(*) AS n, SUM(a.i) AS s FROM t a JOIN t b ON a.i = b.i GROUP BY a.window_end",
];

#[test]
fn many_batches_in_a_window_do_not_hang_a_runtime_of_one_worker() {
    for sql in MANY_BATCHES {
        ends_in_time(tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap(), sql);
    }
}

#[test]
fn many_batches_in_a_window_do_not_hang_a_runtime_of_the_current_thread() {
    for sql in MANY_BATCHES {
        ends_in_time(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(), sql);
    }
}

/// Queries over `t` and `r`, each checked in every way against the batch query over each window.
async fn check_each(queries: &[Query]) {
    let (s, q) = (random("s", 5), random("q", 6));
    let relations = [
        Relation::of_stream("t", &s, &s.replay(), Window::new(12, 4)),
        Relation::of_stream("r", &q, &q.replay(), Window::new(10, 5)),
    ];
    let mut failures = Vec::new();
    for query in queries {
        failures.extend(check(query, &[s.clone(), q.clone()], &relations, &ways(1)).await.err());
    }
    assert!(failures.is_empty(), "{} of {}\n{}", failures.len(), queries.len(), failures.join("\n\n"));
}

/// A union has as many partitions as inputs, whatever number was asked for; taking only the first loses rows.
#[tokio::test(flavor = "multi_thread")]
async fn union_all_above_windows_loses_no_rows() {
    check_each(&[
        query(
            "SELECT window_end, k, SUM(i) AS s FROM t GROUP BY window_end, k UNION ALL \
               SELECT window_end, k, COUNT(*) FROM t GROUP BY window_end, k",
        ),
        query("SELECT window_end, k, i FROM t UNION ALL SELECT window_end, k, i FROM r"),
        query("SELECT 1 AS n, COUNT(*) AS c FROM t UNION ALL SELECT 2, COUNT(*) FROM r UNION ALL SELECT 3, 0"),
        query(
            "SELECT x.k, SUM(x.s) AS s FROM (SELECT k, SUM(i) AS s FROM t GROUP BY k UNION ALL \
               SELECT k, SUM(g) FROM t GROUP BY k) x GROUP BY x.k",
        ),
        query(
            "SELECT n, COUNT(*) FROM (SELECT k, COUNT(*) AS n FROM t GROUP BY k) x \
               JOIN (SELECT 1 AS y UNION ALL SELECT 2) z ON TRUE GROUP BY n",
        ),
    ])
    .await;
}

/// Aggregates over grouping sets are never planned as one node, and their keys are null where they are not grouped.
#[tokio::test(flavor = "multi_thread")]
async fn grouping_sets_are_cut_like_other_aggregates() {
    check_each(&[
        query("SELECT window_end, k, COUNT(*), SUM(i) FROM t GROUP BY ROLLUP (window_end, k)"),
        query("SELECT k, g, COUNT(*), SUM(d) FROM t GROUP BY ROLLUP (k, g)"),
        query("SELECT k, g, COUNT(*) FROM t GROUP BY CUBE (k, g)"),
        query("SELECT k, g, MAX(i) FROM t GROUP BY GROUPING SETS ((k), (k, g), ())"),
        query("SELECT k, g, COUNT(*), GROUPING(k) AS a, GROUPING(g) AS b FROM t GROUP BY ROLLUP (k, g)"),
        query("SELECT k, g, SUM(i), GROUPING(k, g) AS a FROM t GROUP BY ROLLUP (k, g)"),
        query("SELECT k, COUNT(*) FROM t WHERE i > 1000000 GROUP BY ROLLUP (k)"),
        query("SELECT k, COUNT(*), SUM(i) FROM t WHERE i > 1000000 GROUP BY GROUPING SETS ((k), ())"),
    ])
    .await;
}

/// A plan with more than one leaf, or more than one aggregate over rows, is no single aggregate over panes.
#[tokio::test(flavor = "multi_thread")]
async fn plans_of_several_branches_are_not_cut_at_one_of_them() {
    check_each(&[
        query("SELECT a.window_end, a.k, COUNT(*), SUM(b.i) FROM t a JOIN t b ON a.k = b.k GROUP BY a.window_end, a.k"),
        query("SELECT window_end, k, SUM(i) FROM t GROUP BY window_end, k HAVING SUM(i) > (SELECT AVG(i) FROM t)"),
        query("SELECT window_end, k, COUNT(*) FROM t GROUP BY window_end, k HAVING COUNT(*) > (SELECT COUNT(*) / 4 FROM r)"),
        query("SELECT k, i FROM t WHERE i > (SELECT AVG(i) FROM t) AND g < (SELECT MAX(g) FROM r)"),
        query("SELECT 'a' AS x, COUNT(*) AS n FROM t WHERE g = 1 UNION ALL SELECT 'b', COUNT(*) FROM t WHERE g = 2"),
        query("SELECT x.k, x.s, y.n FROM (SELECT k, SUM(i) AS s FROM t GROUP BY k) x JOIN \
               (SELECT k, COUNT(*) AS n FROM r GROUP BY k) y ON x.k = y.k"),
        query("SELECT k, COUNT(*) FROM (SELECT k, g, SUM(i) AS s FROM t GROUP BY k, g) GROUP BY k"),
        query("SELECT COUNT(*), SUM(s) FROM (SELECT k, SUM(i) AS s FROM t GROUP BY k HAVING COUNT(*) > 1)"),
    ])
    .await;
}
