//! What a query gives of its results: differences between instants, windows without rows, results of open windows, and
//! corrections of closed ones; each in every cut of the log and through deaths of the process.
//!
//! Every failure names its seed; `MILLSTREAM_SEED=n` runs that one alone, `MILLSTREAM_CASES=n` runs more of them.

use std::collections::{BTreeMap, BTreeSet};

use crate::kept::as_process;
use crate::kept::restarts::restarted;
use crate::oracle::batch::{Relation, logical_plan, results};
use crate::oracle::check::{Query, query};
use crate::oracle::cut::{Way, ways};
use crate::oracle::generate::{Shape, random_log, seeds};
use crate::oracle::kinds::Kind;
use crate::oracle::table::{Cell, Cells, cells_of, difference, line};
use crate::oracle::{Log, Window};
use millstream_engine::plan::{Emission, EmissionMode};
use millstream_engine::query::PlannedQuery;
use millstream_engine::testing::run_planned;
use rand::SeedableRng;
use rand::rngs::StdRng;

const WINDOWS: [Window; 5] = [
    Window::new(12, 4),
    Window::new(9, 6).offset(2).closed_right(),
    Window::new(50, 3),
    Window::new(12, 3).kind(Kind::Cumulating),
    Window::new(4, 4).kind(Kind::Latest(2)).keyed(),
];

/// Without the bounds of the window, so that instants have rows in common.
const QUERIES: [Query; 4] = [
    query("SELECT k, COUNT(*), SUM(i) FROM t GROUP BY k"),
    query("SELECT k, g FROM t WHERE g > 0"),
    query("SELECT DISTINCT g FROM t"),
    query("SELECT COUNT(*), MAX(i) FROM t"),
];

/// The same with the window's end and the key in front: an update names the row it replaces.
const KEYED: [Query; 3] = [
    query("SELECT window_end, k, COUNT(*), SUM(i) FROM t GROUP BY window_end, k"),
    query("SELECT window_end, MAX(i), COUNT(*), MIN(d) FROM t GROUP BY window_end"),
    query("SELECT window_end, k, MAX(i) AS m, COUNT(*) FROM t GROUP BY window_end, k HAVING COUNT(*) > 1"),
];

const fn mode(mode: EmissionMode) -> Emission {
    Emission { mode, empty_windows: false, lateness: None }
}

const CHANGES: Emission = mode(EmissionMode::Changes { every: None });

fn log(rng: &mut StdRng) -> Log {
    random_log("t", &Shape { rows: 90, idles: false, ..Shape::default() }, rng)
}

async fn answer(query: &Query, log: &Log, relation: &Relation, emission: Emission, way: &Way) -> Vec<Cells> {
    let logical = logical_plan(query.sql, std::slice::from_ref(relation)).await;
    let planned = PlannedQuery::plan_emitting(&logical, emission, way.options_of(&logical, emission)).await.unwrap();
    let run = run_planned(planned, &[log.script()], &mut way.cut(), None).await.unwrap();
    cells_of(&run.batches(), 0.0)
}

/// The results at each instant of a window by slide, from the first with rows to the one after the last.
async fn at_each_instant(query: &Query, relation: &Relation) -> BTreeMap<i64, Vec<Cells>> {
    let results = results(query.ordered, std::slice::from_ref(relation)).await;
    let (Some(first), Some(last)) = (results.keys().next(), results.keys().next_back()) else { panic!("no results") };
    let window = relation.window;
    let end = if window.kind == Kind::Latest(2) { *last } else { last + window.slide };
    let instants = (0..).map(|step| first + step * window.slide).take_while(|instant| *instant <= end);
    instants.map(|at| (at, results.get(&at).map_or(Vec::new(), |found| cells_of(&found.batches, 0.0)))).collect()
}

/// The rows of `a` that `b` does not have, as bags.
fn without(a: &[Cells], b: &[Cells]) -> Vec<Cells> {
    let mut left: Vec<String> = b.iter().map(line).collect();
    let is_new = |row: &&Cells| match left.iter().position(|other| *other == line(row)) {
        Some(place) => {
            left.swap_remove(place);
            false
        }
        None => true,
    };
    a.iter().filter(is_new).cloned().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn instants_are_compared_with_the_one_before() {
    for seed in seeds(3) {
        let mut rng = StdRng::seed_from_u64(seed);
        for window in WINDOWS {
            let log = log(&mut rng);
            let relation = Relation::of_stream("t", &log, &log.replay(), window);
            for query in &QUERIES {
                let of_instants = at_each_instant(query, &relation).await;
                let mut before = Vec::new();
                let (mut insertions, mut deletions) = (Vec::new(), Vec::new());
                for rows in of_instants.into_values() {
                    insertions.extend(without(&rows, &before));
                    deletions.extend(without(&before, &rows));
                    before = rows;
                }
                for (kind, expected) in [(EmissionMode::Insertions, insertions), (EmissionMode::Deletions, deletions)] {
                    for way in ways(seed) {
                        let actual = answer(query, &log, &relation, mode(kind), &way).await;
                        if let Err(difference) = difference(&actual, &expected) {
                            panic!("MILLSTREAM_SEED={seed} {kind:?} {window:?} {way:?}\n{}\n{difference}", query.sql);
                        }
                    }
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_without_rows_are_given_where_they_are_asked_for() {
    let query = query("SELECT COUNT(*), SUM(i) FROM t");
    let nothing = vec![Cell::exact(0), Cell::Null];
    for seed in seeds(3) {
        let mut rng = StdRng::seed_from_u64(seed);
        for window in [Window::new(2, 1), Window::new(3, 7), Window::new(6, 2).kind(Kind::Cumulating)] {
            let mut log = log(&mut rng);
            log.events.iter_mut().for_each(spread);
            let relation = Relation::of_stream("t", &log, &log.replay(), window);
            let mut of_instants = at_each_instant(&query, &relation).await;
            of_instants.pop_last();
            let empty = of_instants.values().filter(|rows| rows.is_empty()).count();
            assert!(empty > 5, "only {empty} windows are empty");
            let rows = of_instants.into_values();
            let expected: Vec<_> =
                rows.flat_map(|rows| if rows.is_empty() { vec![nothing.clone()] } else { rows }).collect();
            let emission = Emission { empty_windows: true, ..Emission::default() };
            for way in ways(seed) {
                let actual = answer(&query, &log, &relation, emission, &way).await;
                if let Err(difference) = difference(&actual, &expected) {
                    panic!("MILLSTREAM_SEED={seed} {window:?} {way:?}\n{difference}");
                }
            }
        }
    }
}

/// Leaves gaps between the times of rows.
fn spread(event: &mut crate::oracle::Event) {
    if let crate::oracle::Event::Rows(_, rows) = event {
        rows.iter_mut().for_each(|row| row.time = row.time * 3 + 40 * (row.time / 10));
    }
}

/// The last row for each key, which are the first so many cells, and how many rows there were.
fn last_of_each(rows: Vec<Cells>, keys: usize) -> (Vec<Cells>, usize) {
    let count = rows.len();
    let last: BTreeMap<_, _> = rows.into_iter().map(|row| (line(&row[..keys].to_vec()), row)).collect();
    (last.into_values().collect(), count)
}

const fn key_cells(number: usize) -> usize {
    if number == 1 { 1 } else { 2 }
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_end_with_the_results_and_come_before_them() {
    for seed in seeds(3) {
        let mut rng = StdRng::seed_from_u64(seed);
        for window in &WINDOWS[..4] {
            let (window, log) = (*window, log(&mut rng));
            let relation = Relation::of_stream("t", &log, &log.replay(), window);
            for (number, query) in KEYED.iter().enumerate() {
                let expected: Vec<_> = at_each_instant(query, &relation).await.into_values().flatten().collect();
                for (way, is_small) in ways(seed).into_iter().zip([true, true, false, false]) {
                    let actual = answer(query, &log, &relation, CHANGES, &way).await;
                    let (last, count) = last_of_each(actual, key_cells(number));
                    if let Err(difference) = difference(&last, &expected) {
                        panic!("MILLSTREAM_SEED={seed} {window:?} {way:?}\n{}\n{difference}", query.sql);
                    }
                    assert!(count > expected.len() || !is_small, "{count} changes for {} rows", expected.len());
                }
            }
        }
    }
}

/// The watermark that lateness decides by.
fn lenient(relation: &Log, lateness: i64) -> crate::oracle::Replay {
    let mut replay = relation.replay();
    for seen in &mut replay.rows {
        seen.watermark = seen.watermark.map(|watermark| watermark - lateness);
    }
    replay
}

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_correct_windows_that_have_closed() {
    let lateness = 7;
    let emission = Emission { lateness: Some(millstream_engine::time::Span(lateness)), ..Emission::default() };
    for seed in seeds(3) {
        let mut rng = StdRng::seed_from_u64(seed);
        for window in &WINDOWS[..4] {
            let (window, log) = (*window, log(&mut rng));
            let relation = Relation::of_stream("t", &log, &lenient(&log, lateness), window);
            for query in &KEYED[..2] {
                let expected: Vec<_> = at_each_instant(query, &relation).await.into_values().flatten().collect();
                for way in ways(seed) {
                    let actual = answer(query, &log, &relation, emission, &way).await;
                    if let Err(difference) = difference(&corrected(actual), &expected) {
                        panic!("MILLSTREAM_SEED={seed} {window:?} {way:?}\n{}\n{difference}", query.sql);
                    }
                }
            }
        }
    }
}

/// Of the rows of each window those of its last revision, without its number; revisions must follow each other.
fn corrected(rows: Vec<Cells>) -> Vec<Cells> {
    let mut windows = BTreeMap::<String, BTreeMap<i64, Vec<Cells>>>::new();
    for mut row in rows {
        let Some(Cell::Exact(revision)) = row.pop() else { panic!("no revision") };
        let window = line(&row[..1].to_vec());
        windows.entry(window).or_default().entry(revision.parse().unwrap()).or_default().push(row);
    }
    for (window, revisions) in &windows {
        let numbers: BTreeSet<_> = revisions.keys().copied().collect();
        assert_eq!(numbers.last().map(|last| last + 1), i64::try_from(numbers.len()).ok(), "{window}: {numbers:?}");
    }
    windows.into_values().filter_map(|mut revisions| revisions.pop_last()).flat_map(|(_, rows)| rows).collect()
}

#[tokio::test]
async fn what_a_window_cannot_give_is_refused() {
    let log = log(&mut StdRng::seed_from_u64(1));
    let lateness = Emission { lateness: Some(millstream_engine::time::Span(5)), ..Emission::default() };
    let empty = Emission { empty_windows: true, ..Emission::default() };
    let insertions = mode(EmissionMode::Insertions);
    let both = Emission { lateness: lateness.lateness, ..insertions };
    let (latest, by_row) = (WINDOWS[4], Window::new(5, 1).kind(Kind::ByRow));
    let session = Window::new(5, 5).kind(Kind::Session).keyed();
    for (window, emission) in [
        (latest, CHANGES),
        (latest, lateness),
        (by_row, CHANGES),
        (by_row, lateness),
        (by_row, empty),
        (session, insertions),
        (session, CHANGES),
        (WINDOWS[0], both),
    ] {
        let relation = Relation::of_stream("t", &log, &log.replay(), window);
        let logical = logical_plan(KEYED[0].sql, &[relation]).await;
        let refused = PlannedQuery::plan_emitting(&logical, emission, ways(1)[0].options()).await.unwrap_err();
        assert!(refused.hint().is_some(), "{window:?} {emission:?}: {refused}");
    }
}

#[test]
fn what_is_given_goes_on_after_a_death() {
    let mut deaths = 0;
    for seed in seeds(6) {
        let mut rng = StdRng::seed_from_u64(seed);
        for window in WINDOWS {
            let log = log(&mut rng);
            let strict = Relation::of_stream("t", &log, &log.replay(), window);
            let late = Relation::of_stream("t", &log, &lenient(&log, 5), window);
            let lateness = Emission { lateness: Some(millstream_engine::time::Span(5)), ..Emission::default() };
            for (query, relation, emission) in [
                (&QUERIES[0], &strict, mode(EmissionMode::Insertions)),
                (&QUERIES[2], &strict, mode(EmissionMode::Deletions)),
                (&KEYED[0], &strict, CHANGES),
                (&KEYED[0], &late, lateness),
            ] {
                if (emission == lateness || emission == CHANGES) && matches!(window.kind, Kind::Latest(_)) {
                    continue;
                }
                let relations = std::slice::from_ref(relation);
                let way = ways(seed)[3];
                let undisturbed = as_process(answer(query, &log, relation, emission, &way));
                let (mut actual, count) =
                    restarted(query, std::slice::from_ref(&log), relations, emission, &mut rng).unwrap();
                deaths += count;
                let mut expected = undisturbed;
                if emission == CHANGES {
                    (actual, expected) = (last_of_each(actual, 2).0, last_of_each(expected, 2).0);
                } else if emission == lateness {
                    (actual, expected) = (corrected(actual), corrected(expected));
                }
                if let Err(difference) = difference(&actual, &expected) {
                    panic!("MILLSTREAM_SEED={seed} {emission:?} {window:?}\n{}\n{difference}", query.sql);
                }
            }
        }
    }
    assert!(deaths > 50, "only {deaths} deaths");
}
