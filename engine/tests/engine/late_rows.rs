//! Rows that are late for every window of a query go to a sink of their own, once, in every cut of the log and through
//! deaths of the process.
//!
//! Every failure names its seed; `MILLSTREAM_SEED=n` runs that one alone, `MILLSTREAM_CASES=n` runs more of them.

use std::sync::Arc;

use crate::kept::restarts::restarted_with_late_sink;
use crate::kept::sink::{Ledger, LedgerSink};
use crate::kept::{Job, Pace, Table, as_process};
use crate::oracle::batch::{Relation, logical_plan};
use crate::oracle::check::{Query, query};
use crate::oracle::cut::{Way, ways};
use crate::oracle::generate::{Shape, random_log, seeds};
use crate::oracle::kinds::Kind;
use crate::oracle::table::{Cells, cells_of, difference};
use crate::oracle::{Log, Window};
use millstream_engine::durable::{Durability, StateDirectory};
use millstream_engine::plan::Emission;
use millstream_engine::query::PlannedQuery;
use millstream_engine::sink::Sink;
use millstream_engine::testing::run_planned;
use millstream_engine::time::Span;
use rand::SeedableRng;
use rand::rngs::StdRng;
use tokio::sync::watch;

const COUNTS: Query = query("SELECT window_end, k, COUNT(*), SUM(i) FROM t GROUP BY window_end, k");
/// A filter makes no row less late.
const ROWS: Query = query("SELECT window_end, p, o FROM t WHERE g > 0");
const PAIRS: Query = query("SELECT t.k, COUNT(*) AS n FROM t JOIN u ON t.k = u.k GROUP BY t.k");
const INNER: &str = "SELECT window_end AS e, k, COUNT(*) AS n FROM t GROUP BY window_end, k";
const OUTER: Query = query("SELECT k, SUM(n) AS n FROM v GROUP BY k");

/// A query, what it reads, and the windows through which it sees the rows of the log.
struct Case {
    query: Query,
    relations: Vec<Relation>,
    windows: Vec<Window>,
    lateness: Option<i64>,
}

impl Case {
    fn new(query: Query, tables: &[(&str, Window)], log: &Log) -> Self {
        let relations = tables.iter().map(|(table, window)| Relation::of_stream(table, log, &log.replay(), *window));
        let relations = relations.collect();
        Self { query, relations, windows: tables.iter().map(|(_, window)| *window).collect(), lateness: None }
    }

    async fn over_view(log: &Log) -> Self {
        let window = Window::new(6, 3);
        let inner = [Relation::of_stream("t", log, &log.replay(), window)];
        let outer = Relation::of_view("v", "v", INNER, &inner, Window::new(12, 6)).await;
        Self { query: OUTER, relations: vec![outer], windows: vec![window], lateness: None }
    }

    fn emission(&self) -> Emission {
        Emission { lateness: self.lateness.map(Span), ..Emission::default() }
    }

    /// The rows that some window has missed and none holds.
    fn late(&self, log: &Log) -> Vec<Cells> {
        let replay = log.replay();
        let is_late = |time: i64, watermark: Option<i64>| {
            let watermark = watermark.map(|watermark| watermark - self.lateness.unwrap_or(0));
            let instants = self.windows.iter().flat_map(|window| {
                window.instants_of(time).into_iter().map(|instant| window.is_crossed(instant, watermark))
            });
            let crossed: Vec<bool> = instants.collect();
            !crossed.is_empty() && crossed.iter().all(|crossed| *crossed)
        };
        let late = replay.rows.iter().filter(|seen| is_late(seen.row.time, seen.watermark)).map(|seen| &seen.row);
        cells_of(&[log.batch(late)], 0.0)
    }

    async fn planned(&self, way: &Way) -> PlannedQuery {
        let logical = logical_plan(self.query.sql, &self.relations).await;
        PlannedQuery::plan_emitting(&logical, self.emission(), way.options_of(&logical, self.emission())).await.unwrap()
    }
}

/// Windows that overlap, leave gaps, grow and close on the right; a join that sees a row through two of them, one of
/// which has gaps; a view; and rows that are let in late.
async fn cases(log: &Log) -> Vec<Case> {
    let windows =
        [Window::new(12, 4), Window::new(9, 6).offset(2).closed_right(), Window::new(12, 3).kind(Kind::Cumulating)];
    let mut cases: Vec<_> = windows.iter().map(|window| Case::new(COUNTS, &[("t", *window)], log)).collect();
    cases.push(Case::new(ROWS, &[("t", Window::new(3, 7))], log));
    cases.push(Case::new(PAIRS, &[("t", Window::new(8, 4)), ("u", Window::new(4, 4))], log));
    cases.push(Case::new(PAIRS, &[("t", Window::new(3, 6)), ("u", Window::new(4, 4))], log));
    cases.push(Case::over_view(log).await);
    cases.push(Case { lateness: Some(5), ..Case::new(COUNTS, &[("t", Window::new(6, 3))], log) });
    cases
}

fn log(seed: u64) -> Log {
    random_log("t", &Shape { rows: 90, idles: false, ..Shape::default() }, &mut StdRng::seed_from_u64(seed))
}

#[tokio::test(flavor = "multi_thread")]
async fn late_rows_are_in_their_sink_whatever_the_cut() {
    let mut count = 0;
    for seed in seeds(3) {
        let log = log(seed);
        for case in cases(&log).await {
            let expected = case.late(&log);
            count += expected.len();
            for way in ways(seed) {
                let late = Ledger::default();
                let planned =
                    case.planned(&way).await.send_late_to(Box::new(LedgerSink::new(late.clone(), None, None)));
                run_planned(planned, &[log.script()], &mut way.cut(), None).await.unwrap();
                if let Err(difference) = difference(&cells_of(&late.rows(), 0.0), &expected) {
                    panic!("MILLSTREAM_SEED={seed} {:?} {way:?}\n{}\n{difference}", case.windows, case.query.sql);
                }
            }
        }
    }
    assert!(count > 20, "only {count} late rows");
}

#[test]
fn late_rows_are_in_their_sink_once_through_deaths() {
    let mut deaths = 0;
    for seed in seeds(8) {
        let log = log(seed);
        let mut rng = StdRng::seed_from_u64(seed);
        for case in as_process(cases(&log)) {
            let way = ways(seed)[3];
            // Revisions differ with the cut, so that only the late rows can be compared there.
            let results = as_process(async {
                let run = run_planned(case.planned(&way).await, &[log.script()], &mut way.cut(), None).await;
                cells_of(&run.unwrap().batches(), 0.0)
            });
            let (logs, emission) = (std::slice::from_ref(&log), case.emission());
            let ended = restarted_with_late_sink(&case.query, logs, &case.relations, emission, &mut rng);
            let ended = ended.and_then(|(rows, late, count)| {
                deaths += count;
                difference(&late, &case.late(&log))?;
                if case.lateness.is_none() { difference(&rows, &results) } else { Ok(()) }
            });
            if let Err(difference) = ended {
                panic!("MILLSTREAM_SEED={seed} {:?}\n{}\n{difference}", case.windows, case.query.sql);
            }
        }
    }
    assert!(deaths > 100, "only {deaths} deaths");
}

#[test]
fn a_sink_of_late_rows_that_does_not_belong_to_the_state_is_refused() {
    let log = log(1);
    let case = Case::new(COUNTS, &[("t", Window::new(12, 4))], &log);
    let tables = vec![Table { log: Arc::new(log), window: None }];
    let job = Job { sql: case.query.sql, tables, given: None, emission: case.emission(), seat: None };
    let pace = Pace { split_rows: 8, batch_rows: 20, checkpoint_epochs: 2, replay_rows: 40 };
    let (state, results, late) = (tempfile::tempdir().unwrap(), Ledger::default(), Ledger::default());
    let run = |late: &Ledger| {
        let mut sink = LedgerSink::new(results.clone(), None, None);
        let late_sink: Box<dyn Sink> = Box::new(LedgerSink::new(late.clone(), None, None));
        as_process(async {
            let directory = StateDirectory::open(&state.path().into(), Durability::ProcessCrash)?;
            let logical = logical_plan(case.query.sql, &case.relations).await;
            let (_running, stop) = watch::channel(false);
            job.run_with_late_sink(&logical, &directory, pace, (&mut sink, Some(late_sink)), stop).await
        })
    };
    run(&late).unwrap();
    run(&late).unwrap();
    let error = run(&Ledger::default()).unwrap_err().to_string();
    assert!(error.starts_with("the sink of late rows of query \"query\" has no epoch of it"), "{error}");
}
