//! Joins of rows within bounds of time give each combination once, in every cut of the logs and through deaths.
//!
//! Every failure names its seed; `MILLSTREAM_SEED=n` runs that one alone, `MILLSTREAM_CASES=n` runs more of them.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

#[expect(dead_code, reason = "each test file uses a part of it")]
mod kept;
#[expect(dead_code, reason = "each test file uses a part of it")]
mod oracle;

use kept::as_process;
use kept::restarts::restarted;
use millstream_engine::plan::{Emission, EmissionMode};
use millstream_engine::query::PlannedQuery;
use millstream_engine::testing::run_planned;
use oracle::batch::{Relation, logical_plan};
use oracle::check::{Query, query};
use oracle::cut::ways;
use oracle::generate::{Shape, random_log, seeds};
use oracle::kinds::Kind;
use oracle::table::{Cell, Cells, cells_of, difference};
use oracle::{Log, Row, Window};
use rand::SeedableRng;
use rand::rngs::StdRng;

const PAIRS: Emission = Emission { mode: EmissionMode::Pairs, empty_windows: false, lateness: None };

/// `a.ts` lies at most 4 ticks before `b.ts` and at most 7 behind it.
const QUERY: Query = query(
    "SELECT a.p AS ap, a.o AS ao, b.p AS bp, b.o AS bo FROM a JOIN b ON a.k = b.k AND a.g <> b.g \
     WHERE to_timestamp_nanos(a.ts) >= to_timestamp_nanos(b.ts) - INTERVAL '4 nanoseconds' \
     AND to_timestamp_nanos(a.ts) <= to_timestamp_nanos(b.ts) + INTERVAL '7 nanoseconds'",
);

/// Every two rows that were in time and belong together.
fn expected(logs: &[Log; 2]) -> Vec<Cells> {
    let in_time = |log: &Log| -> Vec<Row> {
        let rows = log.replay().rows.into_iter();
        rows.filter(|seen| seen.watermark.is_none_or(|w| seen.row.time >= w)).map(|seen| seen.row).collect()
    };
    let (left, right) = (in_time(&logs[0]), in_time(&logs[1]));
    let meets = |a: &Row, b: &Row| {
        let near = (-4..=7).contains(&(a.time - b.time));
        near && a.k.is_some() && a.k == b.k && a.g.is_some() && b.g.is_some() && a.g != b.g
    };
    let pairs = left.iter().flat_map(|a| right.iter().filter(move |b| meets(a, b)).map(move |b| (a, b)));
    let cells = |(a, b): (&Row, &Row)| {
        let numbers = [u64::from(a.partition), a.offset, u64::from(b.partition), b.offset];
        numbers.map(Cell::exact).to_vec()
    };
    pairs.map(cells).collect()
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

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_gives_each_combination_once() {
    for seed in seeds(12) {
        let logs = logs(&mut StdRng::seed_from_u64(seed));
        let logical = logical_plan(QUERY.sql, &relations(&logs)).await;
        let expected = expected(&logs);
        assert!(expected.len() > 20, "only {} combinations", expected.len());
        for way in ways(seed) {
            let planned = PlannedQuery::plan_emitting(&logical, PAIRS, way.options()).await.unwrap();
            let scripts: Vec<_> = logs.iter().map(Log::script).collect();
            let run = run_planned(planned, &scripts, &mut way.cut(), None).await.unwrap();
            if let Err(difference) = difference(&cells_of(&run.batches(), 0.0), &expected) {
                panic!("MILLSTREAM_SEED={seed} {way:?}\n{difference}");
            }
        }
    }
}

#[test]
fn combinations_are_given_once_through_deaths() {
    let mut deaths = 0;
    for seed in seeds(8) {
        let mut rng = StdRng::seed_from_u64(seed);
        let logs = logs(&mut rng);
        let relations = as_process(async { relations(&logs) });
        let (actual, count) = restarted(&QUERY, &logs, &relations, PAIRS, &mut rng).unwrap();
        deaths += count;
        if let Err(difference) = difference(&actual, &expected(&logs)) {
            panic!("MILLSTREAM_SEED={seed}\n{difference}");
        }
    }
    assert!(deaths > 10, "only {deaths} deaths");
}
