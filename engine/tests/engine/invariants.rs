//! One test and more for each of the engine's invariants 1 to 6; the name of a test begins with that of its invariant.

use std::collections::{BTreeMap, BTreeSet};

use crate::oracle::batch::{Relation, logical_plan, results};
use crate::oracle::cut::{Way, ways};
use crate::oracle::generate::{Shape, random_log, seeds};
use crate::oracle::table::{Cell, Cells, cells_of, difference};
use crate::oracle::{Event, Log, Row, Window, plain};
use datafusion::arrow::datatypes::TimeUnit;
use millstream_engine::plan::Emission;
use millstream_engine::query::QueryOptions;
use millstream_engine::testing::{EvenCut, Run, run_scripts};
use millstream_engine::time::{EventTime, Watermark};
use millstream_engine::window::Pane;
use millstream_engine::{Error, RowCounts};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Runs `sql` over `log` seen through `window` as `t`.
async fn run(sql: &str, log: &Log, window: Window, way: &Way) -> Result<Run, Error> {
    let relation = Relation::of_stream("t", log, &log.replay(), window);
    let logical = logical_plan(sql, &[relation]).await;
    run_scripts(&logical, &[log.script()], &mut way.cut(), way.options_of(&logical, Emission::default()), None).await
}

/// A stream of one partition with a row at each second, of these keys and integers.
fn log_of(rows: &[(&str, i64)]) -> Log {
    let row = |(number, (k, i)): (usize, &(&str, i64))| Row {
        partition: 0,
        offset: number as u64,
        time: number as i64,
        k: Some((*k).to_owned()),
        g: Some(0),
        i: Some(*i),
        d: None,
        f: None,
    };
    let rows = rows.iter().enumerate().map(row).collect();
    let events = vec![Event::Rows(0, rows)];
    Log { name: "s".to_owned(), partitions: 1, delay: 0, skew: None, unit: TimeUnit::Nanosecond, events }
}

/// What `sql` gives over `log`, cut and run in several ways.
async fn in_all_ways(sql: &str, log: &Log, window: Window) -> Vec<Result<Vec<Cells>, Error>> {
    let mut answers = Vec::new();
    for way in ways(1) {
        answers.push(run(sql, log, window, &way).await.map(|run| cells_of(&run.batches(), 0.0)));
    }
    answers
}

// Invariant 1 in short; batch_invariance.rs holds the proof.
#[tokio::test(flavor = "multi_thread")]
async fn batch_invariance_holds_for_even_cuts() {
    let mut rng = StdRng::seed_from_u64(1);
    let log = random_log("s", &Shape { rows: 120, ..Shape::default() }, &mut rng);
    let window = Window::new(10, 4);
    let relation = Relation::of_stream("t", &log, &log.replay(), window);
    let sql = "SELECT window_end, k, COUNT(*), SUM(i), SUM(d), MIN(f) FROM t GROUP BY window_end, k";
    let logical = logical_plan(sql, &[relation]).await;
    let mut whole = None;
    for block_rows in [1000, 1, 2, 3, 5, 8] {
        for records in [1000, 1, 2, 7] {
            let mut cut = EvenCut { block_rows, records };
            let run = run_scripts(&logical, &[log.script()], &mut cut, QueryOptions::default(), None).await.unwrap();
            let rows = cells_of(&run.batches(), 0.0);
            assert!(rows.len() > 50, "{} rows", rows.len());
            let expected = whole.get_or_insert_with(|| rows.clone());
            difference(&rows, expected).unwrap_or_else(|difference| panic!("{cut:?}\n{difference}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_gives_the_same_epochs_to_the_last_bit() {
    const QUERIES: [&str; 3] = [
        plain::SQL,
        "SELECT window_end, k, i, f FROM t ORDER BY i DESC LIMIT 3",
        "SELECT a.window_end, a.k, SUM(a.f * b.f) AS s FROM t a JOIN t b ON a.k = b.k GROUP BY a.window_end, a.k",
    ];
    for seed in seeds(3) {
        let mut rng = StdRng::seed_from_u64(seed);
        let log = random_log("s", &Shape::default(), &mut rng);
        for window in [Window::new(10, 4), Window::new(40, 2)] {
            for (sql, way) in QUERIES.iter().zip(ways(seed)) {
                let first = run(sql, &log, window, &way).await.unwrap();
                let second = run(sql, &log, window, &way).await.unwrap();
                assert!(!first.epochs.is_empty());
                assert_eq!(first.epochs, second.epochs, "MILLSTREAM_SEED={seed} {window:?} {way:?} {sql}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn determinism_integer_sums_are_exact_or_fail() {
    let window = Window::new(100, 100);
    let fits = log_of(&[("A", i64::MAX), ("A", 5), ("A", i64::MAX), ("A", i64::MIN), ("A", -4)]);
    let expected = [vec![Cell::exact("A"), Cell::exact(i64::MAX)]];
    for rows in in_all_ways("SELECT k, SUM(i) AS s FROM t GROUP BY k", &fits, window).await {
        assert_eq!(rows.unwrap(), expected);
    }
    let too_much = log_of(&[("A", i64::MAX), ("A", 2), ("A", -1)]);
    for sql in ["SELECT SUM(i) FROM t", "SELECT k, SUM(i) FROM t GROUP BY k", "SELECT SUM(i) FROM t WHERE i > 0"] {
        for rows in in_all_ways(sql, &too_much, window).await {
            assert!(matches!(rows, Err(Error::Plan(_))), "{sql}: {rows:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn determinism_decimal_sums_are_exact_or_fail() {
    let nines = "99999999999999999999999999999999999999";
    let window = Window::new(100, 100);
    let sql = "SELECT SUM(CAST(k AS DECIMAL(38, 0))) AS s FROM t";
    for rows in in_all_ways(sql, &log_of(&[(nines, 0), ("0", 0)]), window).await {
        assert_eq!(rows.unwrap(), [vec![Cell::exact(nines)]]);
    }
    for rows in in_all_ways(sql, &log_of(&[(nines, 0), ("1", 0)]), window).await {
        assert!(matches!(rows, Err(Error::Plan(_))), "{rows:?}");
    }
}

/// Integer arithmetic wherever a query can have it: over the largest integer and 2, each of these leaves the type.
const OVERFLOWS: [&str; 15] = [
    "SELECT i + 1 AS x FROM t",
    "SELECT -2 - i AS x FROM t",
    "SELECT -(-i - 1) AS x FROM t",
    "SELECT k FROM t WHERE i * 2 < 0",
    "SELECT SUM(i * 2) FROM t",
    "SELECT SUM(DISTINCT i) FROM t",
    "SELECT k, SUM(i - 2) + 3 AS x FROM t GROUP BY k",
    "SELECT k FROM t GROUP BY k HAVING MAX(i) + 1 < 0",
    "SELECT i + 1 AS x, COUNT(*) FROM t GROUP BY i + 1",
    "SELECT COUNT(*) FILTER (WHERE i + 1 > 0) FROM t",
    "SELECT CASE WHEN i + 1 > 0 THEN 1 ELSE 2 END AS x FROM t",
    "SELECT k FROM t ORDER BY i + 1 LIMIT 1",
    "SELECT MAX(i + 1) OVER (PARTITION BY k) AS x FROM t",
    "SELECT SUM(i) OVER (PARTITION BY k) AS x FROM t",
    "SELECT a.k FROM t a JOIN t b ON a.k = b.k AND a.i + b.i > 0",
];

#[tokio::test(flavor = "multi_thread")]
async fn determinism_integer_arithmetic_fails_instead_of_wrapping() {
    let log = log_of(&[("A", i64::MAX), ("A", 2)]);
    let mut wrong = Vec::new();
    for sql in OVERFLOWS {
        let answers = in_all_ways(sql, &log, Window::new(100, 100)).await;
        wrong.extend(answers.into_iter().find(|rows| !matches!(rows, Err(Error::Plan(_)))).map(|rows| (sql, rows)));
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn determinism_limit_breaks_ties_by_all_columns() {
    let log = log_of(&[("C", 7), ("A", 7), ("D", 1), ("B", 7), ("E", 9)]);
    let cases = [
        ("SELECT k, i FROM t ORDER BY i DESC LIMIT 3", "E | 9, A | 7, B | 7"),
        ("SELECT k FROM t ORDER BY i DESC LIMIT 3", "E, A, B"),
        ("SELECT k FROM t ORDER BY i DESC LIMIT 2 OFFSET 1", "A, B"),
        ("SELECT k FROM t LIMIT 2", "A, B"),
        ("SELECT k, COUNT(*) AS n FROM t GROUP BY k ORDER BY n LIMIT 2", "A | 1, B | 1"),
    ];
    for (sql, expected) in cases {
        for rows in in_all_ways(sql, &log, Window::new(100, 100)).await {
            let lines: Vec<_> = rows.unwrap().iter().map(crate::oracle::table::line).collect();
            assert_eq!(lines.join(", "), expected, "{sql}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn determinism_ordered_aggregates_go_by_partition_and_offset() {
    for seed in seeds(3) {
        let mut rng = StdRng::seed_from_u64(seed);
        let log = random_log("s", &Shape::default(), &mut rng);
        let window = Window::new(12, 4);
        let sql = "SELECT window_end, array_agg(p * 1000 + o) AS places, first_value(p * 1000 + o) AS first, \
                   last_value(p * 1000 + o) AS last FROM t GROUP BY window_end";
        let replay = log.replay();
        let (places, _) = window.place(replay.rows.iter().map(|seen| (seen.row.time, seen.watermark)));
        let expected: Vec<_> = places
            .iter()
            .map(|(instant, numbers)| {
                let place = |number: &usize| {
                    let row = &replay.rows[*number].row;
                    (u64::from(row.partition) * 1000 + row.offset).to_string()
                };
                let all: Vec<_> = numbers.iter().map(place).collect();
                let ends = [all[0].clone(), all[all.len() - 1].clone()];
                let list = Cell::exact(format!("[{}]", all.join(", ")));
                [Cell::exact(instant), list].into_iter().chain(ends.map(Cell::exact)).collect()
            })
            .collect();
        for rows in in_all_ways(sql, &log, window).await {
            difference(&rows.unwrap(), &expected).unwrap_or_else(|d| panic!("MILLSTREAM_SEED={seed}\n{d}"));
        }
    }
}

#[test]
fn tiling_every_window_is_a_whole_number_of_panes() {
    for seed in seeds(300) {
        let mut rng = StdRng::seed_from_u64(seed);
        let window = Window::new(rng.random_range(1..40), rng.random_range(1..40)).offset(rng.random_range(-50..50));
        let spec = window.spec();
        let failed = format!("MILLSTREAM_SEED={seed} {window:?}");
        for time in -90..90 {
            let pane = spec.pane_of(EventTime(time));
            let (start, end) = spec.pane_bounds(pane);
            assert!(start.0 <= time && time < end.0, "{failed}: {time} in {pane:?}");
            assert_eq!(spec.pane_bounds(Pane(pane.0 + 1)).0, end, "{failed}: a hole after {pane:?}");
            let instants = window.instants_of(time);
            assert_eq!(window.instants_of(end.0 - 1), window.instants_of(start.0), "{failed}: {pane:?} is split");
            assert_eq!(spec.is_gap(pane), instants.is_empty(), "{failed}: {pane:?}");
            if let (Some(first), Some(last)) = (instants.first(), instants.last()) {
                assert_eq!((spec.first_instant(pane).0, spec.last_instant(pane).0), (*first, *last), "{failed}");
            }
            for instant in &instants {
                let (first, end) = spec.panes_of(EventTime(*instant));
                assert!(first <= pane && pane < end, "{failed}: {pane:?} at {instant}");
                assert_eq!(end.0 - first.0, spec.panes_per_window(), "{failed}");
                let bounds = (spec.pane_bounds(first).0, spec.pane_bounds(Pane(end.0 - 1)).1);
                let extent = spec.window(EventTime(*instant));
                assert_eq!(bounds, (extent.start, extent.end), "{failed}: panes of {instant}");
                assert_eq!(extent.start.0, instant - window.range, "{failed}");
            }
            // Whatever the watermark, the tag is the first instant that holds the pane and is not crossed.
            for watermark in time - 5..time + window.range + 5 {
                let open = instants.iter().find(|instant| !window.is_crossed(**instant, Some(watermark)));
                let tag = spec.tag(pane, Watermark(watermark)).map(|tag| tag.0);
                assert_eq!(tag, open.copied(), "{failed}: {pane:?} at watermark {watermark}");
            }
        }
    }
}

/// The epochs with output that a run has if each takes one row, bad row, idling or end: at each, the windows that the
/// watermark has crossed since the one before.
fn epochs_row_by_row(log: &Log, window: Window, of_instant: &BTreeMap<i64, Vec<Cells>>) -> Vec<Vec<Cells>> {
    let mut epochs = Vec::new();
    let mut before = None;
    for watermark in log.replay().watermarks {
        let crossed = of_instant
            .iter()
            .filter(|(instant, _)| window.is_crossed(**instant, watermark) && !window.is_crossed(**instant, before));
        let rows: Vec<_> = crossed.flat_map(|(_, rows)| rows.clone()).collect();
        if !rows.is_empty() {
            epochs.push(rows);
        }
        before = watermark;
    }
    epochs
}

#[tokio::test(flavor = "multi_thread")]
async fn once_a_window_is_emitted_and_only_when_its_instant_is_crossed() {
    let row_by_row = ways(1)[0];
    for seed in seeds(6) {
        let mut rng = StdRng::seed_from_u64(seed);
        for window in [Window::new(10, 4), Window::new(12, 4).closed_right(), Window::new(40, 2), Window::new(3, 7)] {
            let skew = rng.random_bool(0.5).then_some(5);
            let log = random_log("s", &Shape { rows: 120, skew, bad_share: 0.03, ..Shape::default() }, &mut rng);
            let replay = log.replay();
            let (places, _) = window.place(replay.rows.iter().map(|seen| (seen.row.time, seen.watermark)));
            let of_instant = plain::group_by_key(&window, &places, &replay.rows);
            let expected = epochs_row_by_row(&log, window, &of_instant);
            assert!(expected.len() > 1, "MILLSTREAM_SEED={seed} {window:?}: everything is emitted at once");
            let run = run(plain::SQL, &log, window, &row_by_row).await.unwrap();
            assert_eq!(run.epochs.len(), expected.len(), "MILLSTREAM_SEED={seed} {window:?}");
            for (number, (epoch, expected)) in run.epochs.iter().zip(&expected).enumerate() {
                if let Err(difference) = difference(&cells_of(epoch, 0.0), expected) {
                    panic!("MILLSTREAM_SEED={seed} {window:?} epoch {number}\n{difference}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn once_every_key_of_a_window_is_emitted() {
    for seed in seeds(3) {
        let mut rng = StdRng::seed_from_u64(seed);
        let log = random_log("s", &Shape::default(), &mut rng);
        for window in [Window::new(10, 4), Window::new(40, 2)] {
            for way in ways(seed) {
                let sql = "SELECT window_end, k, COUNT(*) FROM t GROUP BY window_end, k";
                let rows = cells_of(&run(sql, &log, window, &way).await.unwrap().batches(), 0.0);
                let keys: BTreeSet<_> = rows.iter().map(|row| format!("{:?}", &row[..2])).collect();
                assert_eq!(keys.len(), rows.len(), "MILLSTREAM_SEED={seed} {window:?} {way:?}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conservation_every_row_is_counted_once_and_what_is_left_out_can_be_seen() {
    for seed in seeds(6) {
        let mut rng = StdRng::seed_from_u64(seed);
        for window in [Window::new(10, 4), Window::new(4, 10), Window::new(6, 2).closed_right()] {
            let shape = Shape { bad_share: 0.1, lag: 30, ..Shape::default() };
            let log = random_log("s", &shape, &mut rng);
            for way in ways(seed) {
                for sql in [
                    "SELECT window_end, k, COUNT(*) FROM t WHERE i > 5 GROUP BY window_end, k",
                    "SELECT window_end, k, f FROM t WHERE i > 5 ORDER BY f LIMIT 3",
                ] {
                    let run = run(sql, &log, window, &way).await.unwrap();
                    check_counts(&log, window, &run, &format!("MILLSTREAM_SEED={seed} {window:?} {way:?} {sql}"));
                }
            }
        }
    }
}

fn check_counts(log: &Log, window: Window, run: &Run, failed: &str) {
    let replay = log.replay();
    let times = |passes: &dyn Fn(&Row) -> bool| {
        let rows: Vec<_> = replay.rows.iter().filter(|seen| passes(&seen.row)).collect();
        window.place(rows.iter().map(|seen| (seen.row.time, seen.watermark))).1
    };
    let all = times(&|_| true);
    let passing = times(&|row| row.i.is_some_and(|i| i > 5));
    let expected = RowCounts {
        read: replay.rows.len() as u64,
        used: passing.used,
        filtered: all.used - passing.used,
        late: all.late,
        outside: all.outside,
    };
    assert!(all.late > 0 && expected.filtered > 0, "{failed}: nothing to see in {expected:?}");
    let [(_, counts)] = run.summary.counts.inputs.as_slice() else { panic!("{failed}: one input") };
    assert_eq!(*counts, expected, "{failed}");
    assert_eq!(run.summary.progress.rows_late, expected.late, "{failed}");
    assert_eq!(run.summary.progress.rows_read, expected.read, "{failed}");

    let missed: BTreeSet<_> = replay
        .rows
        .iter()
        .filter(|seen| window.place(std::iter::once((seen.row.time, seen.watermark))).1.late > 0)
        .map(|seen| {
            let place = [i64::from(seen.row.partition), seen.row.offset as i64];
            [Cell::maybe(seen.watermark), Cell::exact(place[0]), Cell::exact(place[1])].map(|cell| format!("{cell:?}"))
        })
        .collect();
    let late = cells_of(std::slice::from_ref(&run.late[0].project(&[1, 2, 3]).unwrap()), 0.0);
    assert_eq!(late.len(), missed.len(), "{failed}");
    let late: BTreeSet<_> = late.iter().map(|row| [0, 1, 2].map(|column| format!("{:?}", row[column]))).collect();
    assert_eq!(late, missed, "{failed}");

    let bad: BTreeSet<_> = log
        .events
        .iter()
        .filter_map(
            |event| if let Event::Bad(p, o) = event { Some(vec![Cell::exact(p), Cell::exact(o)]) } else { None },
        )
        .map(|row| format!("{row:?}"))
        .collect();
    let dead = cells_of(std::slice::from_ref(&run.dead[0].project(&[0, 1]).unwrap()), 0.0);
    assert_eq!(dead.len(), bad.len(), "{failed}");
    assert_eq!(dead.iter().map(|row| format!("{row:?}")).collect::<BTreeSet<_>>(), bad, "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn conservation_holds_for_each_input_of_a_join() {
    let mut rng = StdRng::seed_from_u64(1);
    let shape = Shape { rows: 100, lag: 30, ..Shape::default() };
    let (s, q) = (random_log("s", &shape, &mut rng), random_log("q", &shape, &mut rng));
    let windows = [("t", &s, Window::new(10, 4)), ("u", &s, Window::new(4, 4)), ("r", &q, Window::new(3, 9))];
    let relations: Vec<_> =
        windows.iter().map(|(table, log, window)| Relation::of_stream(table, log, &log.replay(), *window)).collect();
    let sql = "SELECT t.k, u.i, r.i AS x FROM t JOIN u ON t.k = u.k JOIN r ON t.k = r.k";
    assert!(results(sql, &relations).await.len() > 10);
    let logical = logical_plan(sql, &relations).await;
    for way in ways(1) {
        let scripts = [q.script(), s.script()];
        let run = run_scripts(&logical, &scripts, &mut way.cut(), way.options_of(&logical, Emission::default()), None)
            .await
            .unwrap();
        let inputs: BTreeMap<_, _> = run.summary.counts.inputs.into_iter().collect();
        for (table, log, window) in windows {
            let replay = log.replay();
            let (_, fates) = window.place(replay.rows.iter().map(|seen| (seen.row.time, seen.watermark)));
            let name = format!("{}[range {} slide {}]", log.name, window.spec().range(), window.spec().slide());
            let counts = inputs[&name];
            // Rows whose join key is null are filtered out where the planner sees that they find nothing.
            let found = (counts.read, counts.used + counts.filtered, counts.late, counts.outside);
            let expected = (replay.rows.len() as u64, fates.used, fates.late, fates.outside);
            assert_eq!(found, expected, "{table} {way:?}");
        }
    }
}
