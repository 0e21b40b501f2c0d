//! Joins of rows within bounds of time give each combination once, in every cut of the logs and through deaths.
//!
//! Every failure names its seed; `MILLSTREAM_SEED=n` runs that one alone, `MILLSTREAM_CASES=n` runs more of them.

use crate::kept::as_process;
use crate::kept::restarts::restarted;
use crate::oracle::batch::{Relation, logical_plan};
use crate::oracle::check::{Query, query};
use crate::oracle::cut::ways;
use crate::oracle::generate::{Shape, random_log, seeds};
use crate::oracle::kinds::Kind;
use crate::oracle::table::{Cell, Cells, cells_of, difference};
use crate::oracle::{Event, Log, Row, Window};
use datafusion::arrow::datatypes::TimeUnit;
use millstream_engine::plan::{Emission, EmissionMode};
use millstream_engine::query::{PlannedQuery, QueryOptions};
use millstream_engine::testing::{EvenCut, StreamLogScript, run_planned};
use rand::SeedableRng;
use rand::rngs::StdRng;

const PAIRS: Emission = Emission { mode: EmissionMode::Pairs, empty_windows: false, lateness: None };

/// A join whose condition holds `a.ts` at most 4 ticks before `b.ts` and at most 7 behind it.
macro_rules! join {
    ($kind:literal, $and:literal) => {
        query(concat!(
            "SELECT a.p AS ap, a.o AS ao, b.p AS bp, b.o AS bo FROM a ",
            $kind,
            " JOIN b ON a.k = b.k AND a.g <> b.g \
              AND to_timestamp_nanos(a.ts) >= to_timestamp_nanos(b.ts) - INTERVAL '4 nanoseconds' \
              AND to_timestamp_nanos(a.ts) <= to_timestamp_nanos(b.ts) + INTERVAL '7 nanoseconds' ",
            $and
        ))
    };
}

/// A query, and which rows without a partner it gives.
struct Case {
    query: Query,
    of_a: bool,
    of_b: bool,
    /// What stands besides in the condition of the join.
    on: fn(&Row, &Row) -> bool,
    /// Which rows of the join WHERE leaves.
    leaves: fn(Option<&Row>, Option<&Row>) -> bool,
}

const fn case(query: Query, of_a: bool, of_b: bool) -> Case {
    Case { query, of_a, of_b, on: |_, _| true, leaves: |_, _| true }
}

const INNER: Case = case(join!("INNER", ""), false, false);
const LEFT: Case = case(join!("LEFT", ""), true, false);
const RIGHT: Case = case(join!("RIGHT", ""), false, true);
const FULL: Case = case(join!("FULL", ""), true, true);

/// Conditions of one side, which an outer join must not take for filters of its rows; without keys; and WHERE.
const CONDITIONS: [Case; 5] = [
    Case { on: |a, _| a.i > Some(0), ..case(join!("LEFT", "AND a.i > 0"), true, false) },
    Case {
        on: |a, b| a.i > Some(0) && b.i.is_some_and(|i| i < 40),
        ..case(join!("FULL", "AND a.i > 0 AND b.i < 40"), true, true)
    },
    Case { leaves: |_, b| b.is_none(), ..case(join!("LEFT", "WHERE b.o IS NULL"), true, false) },
    Case {
        leaves: |a, b| b.is_none_or(|_| a.is_some_and(|a| a.offset % 2 == 0)),
        ..case(join!("FULL", "WHERE b.p IS NULL OR a.o % 2 = 0"), true, true)
    },
    Case { leaves: |a, _| a.is_some_and(|a| a.offset > 3), ..case(join!("FULL", "WHERE a.o > 3"), true, true) },
];

/// Every two rows that were in time and belong together, and the rows without another that are to be given.
fn expected(case: &Case, logs: &[Log; 2]) -> Vec<Cells> {
    let in_time = |log: &Log| -> Vec<Row> {
        let rows = log.replay().rows.into_iter();
        rows.filter(|seen| seen.watermark.is_none_or(|w| seen.row.time >= w)).map(|seen| seen.row).collect()
    };
    let (left, right) = (in_time(&logs[0]), in_time(&logs[1]));
    let meets = |a: &Row, b: &Row| {
        let near = (-4..=7).contains(&(a.time - b.time));
        near && a.k.is_some() && a.k == b.k && a.g.is_some() && b.g.is_some() && a.g != b.g && (case.on)(a, b)
    };
    let mut rows: Vec<(Option<&Row>, Option<&Row>)> = Vec::new();
    for a in &left {
        let partners = right.iter().filter(|b| meets(a, b)).map(|b| (Some(a), Some(b)));
        rows.extend(partners);
        if case.of_a && !right.iter().any(|b| meets(a, b)) {
            rows.push((Some(a), None));
        }
    }
    rows.extend(right.iter().filter(|b| case.of_b && !left.iter().any(|a| meets(a, b))).map(|b| (None, Some(b))));
    let place = |row: Option<&Row>| [row.map(|row| u64::from(row.partition)), row.map(|row| row.offset)];
    let rows = rows.into_iter().filter(|(a, b)| (case.leaves)(*a, *b));
    rows.map(|(a, b)| place(a).into_iter().chain(place(b)).map(Cell::maybe).collect()).collect()
}

fn logs(rng: &mut StdRng) -> [Log; 2] {
    let shape = Shape { rows: 90, idles: false, ..Shape::default() };
    [random_log("a", &shape, rng), random_log("b", &shape, rng)]
}

fn relations(logs: &[Log; 2]) -> [Relation; 2] {
    let relation =
        |log: &Log, range| Relation::of_stream(&log.name, log, &log.replay(), Window::new(range, 1).kind(Kind::ByRow));
    [relation(&logs[0], 5), relation(&logs[1], 8)]
}

/// Compares the rows of a query in every cut with those of nested loops; how many there are.
async fn check_cuts(case: &Case, seed: u64) -> usize {
    let logs = logs(&mut StdRng::seed_from_u64(seed));
    let logical = logical_plan(case.query.sql, &relations(&logs)).await;
    let expected = expected(case, &logs);
    for way in ways(seed) {
        let planned = PlannedQuery::plan_emitting(&logical, PAIRS, way.options_of(&logical, PAIRS)).await.unwrap();
        let scripts: Vec<_> = logs.iter().map(Log::script).collect();
        let run = run_planned(planned, &scripts, &mut way.cut(), None).await.unwrap();
        if let Err(difference) = difference(&cells_of(&run.batches(), 0.0), &expected) {
            panic!("MILLSTREAM_SEED={seed} {way:?}\n{}\n{difference}", case.query.sql);
        }
    }
    expected.len()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_gives_each_combination_once() {
    for seed in seeds(12) {
        let rows = check_cuts(&INNER, seed).await;
        assert!(rows > 20, "only {rows} combinations");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_gives_each_row_without_a_partner_once() {
    for seed in seeds(10) {
        for case in [&LEFT, &RIGHT, &FULL] {
            let rows = check_cuts(case, seed).await;
            assert!(rows > 40, "only {rows} rows of {}", case.query.sql);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn conditions_decide_what_a_partner_is_and_filters_what_is_given() {
    for seed in seeds(5) {
        for case in &CONDITIONS {
            let rows = check_cuts(case, seed).await;
            assert!(rows > 5, "only {rows} rows of {}", case.query.sql);
        }
    }
}

/// Compares the rows of a query that dies again and again with those of nested loops; how often it died.
fn check_deaths(case: &Case, seed: u64) -> u32 {
    let mut rng = StdRng::seed_from_u64(seed);
    let logs = logs(&mut rng);
    let relations = as_process(async { relations(&logs) });
    let (actual, deaths) = restarted(&case.query, &logs, &relations, PAIRS, &mut rng).unwrap();
    if let Err(difference) = difference(&actual, &expected(case, &logs)) {
        panic!("MILLSTREAM_SEED={seed}\n{}\n{difference}", case.query.sql);
    }
    deaths
}

#[test]
fn combinations_are_given_once_through_deaths() {
    let deaths: u32 = seeds(8).map(|seed| check_deaths(&INNER, seed)).sum();
    assert!(deaths > 10, "only {deaths} deaths");
}

#[test]
fn rows_without_a_partner_are_given_once_through_deaths() {
    let deaths: u32 = seeds(10).flat_map(|seed| [&LEFT, &RIGHT, &FULL].map(|case| check_deaths(case, seed))).sum();
    assert!(deaths > 30, "only {deaths} deaths");
}

/// One row for each time, of one key, alternately of two groups.
fn plain_log(name: &str, times: &[i64]) -> Log {
    let row = |(offset, time): (usize, &i64)| Row {
        partition: 0,
        offset: offset as u64,
        time: *time,
        k: Some("A".to_owned()),
        g: Some(i64::from(name == "a")),
        i: Some(1),
        d: None,
        f: None,
    };
    let rows = times.iter().enumerate().map(row).collect();
    Log {
        name: name.to_owned(),
        partitions: 1,
        delay: 0,
        skew: None,
        unit: TimeUnit::Nanosecond,
        events: vec![Event::Rows(0, rows)],
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_row_without_a_partner_is_given_when_the_last_time_of_one_has_passed() {
    // The row of `a` at 100 may have a partner up to 104, that of `b` at 200 one up to 207.
    let cases = [
        (vec![100, 104], vec![50, 104], 1, "the watermark says that all before 104 has come"),
        (vec![100, 105], vec![50, 105], 2, "and now all of 104"),
        (vec![100, 207], vec![104, 200, 207], 1, "all before 207 has come"),
        (vec![100, 207, 208], vec![104, 200, 208], 2, "each had a partner at the last time"),
        (vec![100, 208], vec![105, 200, 208], 3, "nobody had one"),
    ];
    for (a, b, rows, why) in cases {
        let logs = [plain_log("a", &a), plain_log("b", &b)];
        let logical = logical_plan(FULL.query.sql, &relations(&logs)).await;
        let planned = PlannedQuery::plan_emitting(&logical, PAIRS, QueryOptions::default()).await.unwrap();
        let scripts = logs.each_ref().map(|log| StreamLogScript { ends: false, ..log.script() });
        let run = run_planned(planned, &scripts, &mut EvenCut { block_rows: 1, records: 1 }, None).await.unwrap();
        assert_eq!(cells_of(&run.batches(), 0.0).len(), rows, "{a:?} {b:?}: {why}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_outer_join_keeps_is_shown_and_planned_once() {
    let logs = logs(&mut StdRng::seed_from_u64(1));
    let logical = logical_plan(LEFT.query.sql, &relations(&logs)).await;
    let planned = PlannedQuery::plan_emitting(&logical, PAIRS, QueryOptions::default()).await.unwrap();
    let shown = planned.explain().iter().map(|(_, explanation)| explanation.to_string()).collect::<String>();
    let state = |range: u8, mark: &str| {
        format!(
            "bounded: the filtered and projected rows of each pane{mark}; those of the last {range} nanoseconds are live"
        )
    };
    assert!(shown.contains(&state(5, ", each with a mark whether it has had a partner")), "{shown}");
    assert!(shown.contains(&state(8, "")), "{shown}");
    let (scripts, mut cut) = (logs.each_ref().map(Log::script), EvenCut { block_rows: 2, records: 2 });
    let counts = run_planned(planned, &scripts, &mut cut, None).await.unwrap().summary.counts;
    assert_eq!(counts.plans_made, counts.plan_count);
}
