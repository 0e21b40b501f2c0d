//! Every kind of window holds what its definition says, in every cut of the log and through deaths of the process, and
//! any SQL may stand over it.
//!
//! Every failure names its seed; `MILLSTREAM_SEED=n` runs that one alone, `MILLSTREAM_CASES=n` runs more of them.

use crate::kept::as_process;
use crate::kept::restarts::check_restarted;
use crate::oracle::batch::Relation;
use crate::oracle::check::{Query, check, query};
use crate::oracle::cut::ways;
use crate::oracle::generate::{Shape, random_log, seeds};
use crate::oracle::kinds::Kind;
use crate::oracle::{Log, Window};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Windows that are not simply sliding, with and without keys.
const WINDOWS: [Window; 20] = [
    Window::new(12, 3).kind(Kind::Cumulating),
    Window::new(40, 2).kind(Kind::Cumulating).offset(-7),
    Window::new(10, 5).kind(Kind::Cumulating).closed_right(),
    Window::new(8, 1).kind(Kind::ByRow),
    Window::new(30, 1).kind(Kind::ByRow),
    Window::new(1, 1).kind(Kind::ByRow),
    Window::new(4, 4).kind(Kind::Latest(1)).keyed(),
    Window::new(3, 3).kind(Kind::Latest(4)).keyed().offset(1),
    Window::new(5, 5).kind(Kind::Latest(9)).closed_right(),
    Window::new(1, 1).kind(Kind::LatestByRow(1)).keyed(),
    Window::new(1, 1).kind(Kind::LatestByRow(5)),
    Window::new(1, 1).kind(Kind::LatestByRow(3)).keyed(),
    Window::new(1, 1).kind(Kind::Counted(4, 4)),
    Window::new(1, 1).kind(Kind::Counted(7, 2)),
    Window::new(1, 1).kind(Kind::Counted(2, 5)),
    Window::new(1, 1).kind(Kind::Counted(3, 1)),
    Window::new(1, 1).kind(Kind::Counted(40, 25)),
    Window::new(5, 5).kind(Kind::Session).keyed(),
    Window::new(3, 3).kind(Kind::Session),
    Window::new(1, 1).kind(Kind::Session).keyed(),
];

/// Queries over one of them; `t` has `window_end` in each.
const QUERIES: [Query; 11] = [
    query("SELECT COUNT(*), SUM(i), SUM(d), MIN(k), MAX(ts) FROM t"),
    query("SELECT window_end, k, COUNT(*), SUM(i), AVG(d), SUM(f) FROM t GROUP BY window_end, k"),
    query("SELECT k, g, COUNT(*), COUNT(DISTINCT i) FROM t GROUP BY k, g HAVING COUNT(*) > 1"),
    query("SELECT window_end, SUM(i) FROM t WHERE i > 3 GROUP BY window_end"),
    query("SELECT * FROM t"),
    query("SELECT window_end, k, i FROM t WHERE g > 1"),
    query("SELECT k, i * 2, window_end - INTERVAL '1' SECOND FROM t WHERE k IS NOT NULL"),
    Query {
        sql: "SELECT window_end, k, array_agg(i), first_value(g), last_value(g) FROM t GROUP BY window_end, k",
        ordered: "SELECT window_end, k, array_agg(i ORDER BY p, o) AS \"array_agg(t.i)\", \
                  first_value(g ORDER BY p, o) AS \"first_value(t.g)\", last_value(g ORDER BY p, o) AS \
                  \"last_value(t.g)\" FROM t GROUP BY window_end, k",
        slack: 1.0,
    },
    query("SELECT k, i, rank() OVER (PARTITION BY k ORDER BY i DESC) FROM t"),
    Query {
        sql: "SELECT window_end, k, SUM(i) AS s FROM t GROUP BY window_end, k ORDER BY s DESC LIMIT 2",
        ordered: "SELECT window_end, k, SUM(i) AS s FROM t GROUP BY window_end, k \
                  ORDER BY s DESC, window_end, k NULLS FIRST LIMIT 2",
        slack: 1.0,
    },
    query("SELECT k, COUNT(*) FROM t WHERE i > (SELECT AVG(i) FROM t) GROUP BY k"),
];

/// Joins of windows that differ in kind, range and slide.
const JOINS: [Query; 8] = [
    query("SELECT a.k, COUNT(*), SUM(a.i), SUM(b.d) FROM a JOIN b ON a.k = b.k GROUP BY a.k"),
    query("SELECT a.window_end, b.window_end AS e, a.k, a.i, b.i AS j FROM a JOIN b ON a.k = b.k AND a.i < b.i"),
    query("SELECT a.k, a.i, b.g FROM a LEFT JOIN b ON a.k = b.k AND a.g = b.g"),
    query("SELECT a.i, b.i AS j FROM a FULL JOIN b ON a.k = b.k AND a.g = b.g AND a.i = b.i"),
    query("SELECT a.k, a.g FROM a WHERE EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.g = a.g)"),
    query("SELECT a.k, a.g FROM a WHERE NOT EXISTS (SELECT 1 FROM b WHERE b.k = a.k AND b.g = a.g)"),
    query(
        "SELECT x.k, x.n, y.s FROM (SELECT k, COUNT(*) AS n FROM a GROUP BY k) x \
         JOIN (SELECT k, SUM(d) AS s FROM b GROUP BY k) y ON x.k = y.k",
    ),
    query("SELECT x.n, y.m FROM (SELECT COUNT(*) AS n FROM a) x, (SELECT COUNT(i) AS m FROM b) y"),
];

fn small() -> Shape {
    Shape { rows: 90, ..Shape::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_window_holds_what_its_definition_says() {
    for seed in seeds(3) {
        let mut rng = StdRng::seed_from_u64(seed);
        for window in WINDOWS {
            let log = random_log("s", &small(), &mut rng);
            let relation = Relation::of_stream("t", &log, &log.replay(), window);
            for query in &QUERIES {
                if let Err(difference) =
                    check(query, std::slice::from_ref(&log), std::slice::from_ref(&relation), &ways(seed)).await
                {
                    panic!("MILLSTREAM_SEED={seed} {difference}\n{log:?}");
                }
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_of_different_kinds_join() {
    for seed in seeds(2) {
        let mut rng = StdRng::seed_from_u64(seed);
        for (number, (left, right)) in pairs().into_iter().enumerate() {
            let shape = Shape { rows: 50, idles: false, ..small() };
            let logs = [random_log("l", &shape, &mut rng), random_log("r", &shape, &mut rng)];
            let relations = [
                Relation::of_stream("a", &logs[0], &logs[0].replay(), left),
                Relation::of_stream("b", &logs[1], &logs[1].replay(), right),
            ];
            for query in JOINS.iter().skip(number % 2).step_by(2) {
                if let Err(difference) = check(query, &logs, &relations, &ways(seed)).await {
                    panic!("MILLSTREAM_SEED={seed} {difference}\n{logs:?}");
                }
            }
        }
    }
}

/// Windows to be joined: each kind with a sliding one and with some other, sessions excepted.
fn pairs() -> Vec<(Window, Window)> {
    let sliding = [Window::new(12, 4), Window::new(10, 10), Window::new(9, 6)];
    let others: Vec<_> = WINDOWS.iter().filter(|window| window.kind != Kind::Session).copied().collect();
    let with_sliding = others.iter().zip(sliding.iter().cycle()).map(|(a, b)| (*a, *b));
    let with_another = others.iter().zip(others.iter().skip(3)).map(|(a, b)| (*a, *b));
    let of_sliding = [(sliding[0], sliding[1]), (sliding[1], sliding[2]), (sliding[0], sliding[0])];
    with_sliding.chain(with_another).chain(of_sliding).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_of_any_kind_over_the_sessions_of_a_view() {
    const INNER: &str = "SELECT window_end, k, COUNT(*) AS n, SUM(i) AS i FROM t GROUP BY window_end, k";
    let outer = [
        query("SELECT k, SUM(n), MAX(i) FROM v GROUP BY k"),
        query("SELECT window_end, COUNT(*), SUM(n) FROM v GROUP BY window_end"),
    ];
    for seed in seeds(2) {
        let mut rng = StdRng::seed_from_u64(seed);
        for window in [Window::new(5, 5).kind(Kind::Session).keyed(), Window::new(8, 1).kind(Kind::ByRow)] {
            let log = random_log("s", &small(), &mut rng);
            let inner = Relation::of_stream("t", &log, &log.replay(), window);
            for above in [
                Window::new(20, 5),
                Window::new(6, 6).kind(Kind::Latest(1)).keyed(),
                Window::new(4, 4).kind(Kind::Session).keyed(),
            ] {
                let view = Relation::of_view("v", "sessions", INNER, std::slice::from_ref(&inner), above).await;
                for query in &outer {
                    if let Err(difference) =
                        check(query, std::slice::from_ref(&log), std::slice::from_ref(&view), &ways(seed)).await
                    {
                        panic!("MILLSTREAM_SEED={seed} {difference}\n{log:?}");
                    }
                }
            }
        }
    }
}

#[test]
fn every_kind_of_window_goes_on_after_a_death() {
    let mut deaths = 0;
    for seed in seeds(4) {
        let mut rng = StdRng::seed_from_u64(seed);
        for window in WINDOWS {
            let shape = Shape { rows: 60, idles: false, ..small() };
            let log: Log = as_process(async { random_log("t", &shape, &mut rng) });
            let relation = Relation::of_stream("t", &log, &log.replay(), window);
            for query in QUERIES.iter().skip(1).step_by(4) {
                match check_restarted(query, std::slice::from_ref(&log), std::slice::from_ref(&relation), &mut rng) {
                    Ok(count) => deaths += count,
                    Err(difference) => panic!("MILLSTREAM_SEED={seed} {window:?}\n{difference}\n{log:?}"),
                }
            }
        }
    }
    assert!(deaths > 50, "only {deaths} deaths");
}
