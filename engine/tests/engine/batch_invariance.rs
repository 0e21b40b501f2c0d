//! Batch invariance: cutting the same log into other blocks and micro-batches, or running it on other numbers of
//! tasks and key partitions, or killing and starting it again at random epochs, changes no row of the output, and the
//! output is the right one.
//!
//! Every failure names its seed; `MILLSTREAM_SEED=n` runs that one alone, `MILLSTREAM_CASES=n` runs more of them.

use std::collections::HashMap;
use std::sync::Mutex;

use crate::kept::as_process;
use crate::kept::restarts::check_restarted;
use crate::oracle::batch::{Relation, logical_plan};
use crate::oracle::check::{Query, check, query};
use crate::oracle::cut::{AMPLE, Way, ways};
use crate::oracle::generate::{Shape, random_log, seeds};
use crate::oracle::table::{cells_of, difference};
use crate::oracle::{Log, Window, plain};
use millstream_engine::ingest::{Behind, Block};
use millstream_engine::plan::Emission;
use millstream_engine::source::PartitionId;
use millstream_engine::testing::{Tamper, run_scripts};
use millstream_engine::time::Watermark;
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Ranges that are and are not multiples of the slide, gaps, right ends closed, offsets, and enough panes to be
/// merged by two stacks.
const WINDOWS: [Window; 9] = [
    Window::new(12, 4),
    Window::new(10, 4),
    Window::new(5, 5),
    Window::new(4, 10),
    Window::new(12, 4).closed_right(),
    Window::new(9, 6).offset(2).closed_right(),
    Window::new(7, 3).offset(-4),
    Window::new(40, 2),
    Window::new(50, 3).closed_right(),
];

/// Runs the plain query over `log` in one way; says what differs from the plain evaluation.
async fn run_plain(log: &Log, window: Window, way: &Way, tamper: Option<Tamper<'_>>) -> Result<(), String> {
    let replay = log.replay();
    let relation = Relation::of_stream("t", log, &replay, window);
    let logical = logical_plan(plain::SQL, &[relation]).await;
    let run =
        run_scripts(&logical, &[log.script()], &mut way.cut(), way.options_of(&logical, Emission::default()), tamper)
            .await;
    let run = run.map_err(|error| format!("{error}: {error:?}"))?;
    let (places, _) = window.place(replay.rows.iter().map(|seen| (seen.row.time, seen.watermark)));
    let expected: Vec<_> = plain::group_by_key(&window, &places, &replay.rows).into_values().flatten().collect();
    difference(&cells_of(&run.batches(), 0.0), &expected)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_gives_the_rows_of_the_plain_evaluation() {
    for seed in seeds(6) {
        let mut rng = StdRng::seed_from_u64(seed);
        for window in WINDOWS {
            for shape in shapes() {
                let log = random_log("s", &shape, &mut rng);
                let window = window.times(shape.tick);
                for way in ways(seed) {
                    if let Err(difference) = run_plain(&log, window, &way, None).await {
                        panic!("MILLSTREAM_SEED={seed} {window:?} {way:?}\n{difference}\n{log:?}");
                    }
                }
            }
        }
    }
}

fn shapes() -> [Shape; 2] {
    let plain = Shape::default();
    let bounded = Shape { rows: 160, partitions: 4, skew: Some(6), bad_share: 0.05, tick: 1_000_000, ..plain };
    [plain, bounded]
}

/// One stream through one window: partial aggregates as state wherever the plan allows.
const AGGREGATES: [Query; 31] = [
    query("SELECT COUNT(*), SUM(i), SUM(d), MIN(k), MAX(ts) FROM t"),
    query("SELECT window_end, COUNT(*) AS n, SUM(i) FROM t WHERE i > 12 GROUP BY window_end"),
    query("SELECT COUNT(*), SUM(i) FROM t WHERE i > 12"),
    query("SELECT window_end, g, AVG(d), AVG(f), AVG(i) FROM t GROUP BY g, window_end"),
    query("SELECT k, g, COUNT(*) FROM t GROUP BY k, g"),
    query(
        "SELECT window_start, k, SUM(i * 2 + g) AS s FROM t WHERE k <> 'A' GROUP BY k, window_start HAVING SUM(i) > 5",
    ),
    query("SELECT window_end, k, g, SUM(i), COUNT(*), GROUPING(k) FROM t GROUP BY window_end, ROLLUP (k, g)"),
    query("SELECT k, g, SUM(i), COUNT(*) FROM t GROUP BY ROLLUP (k, g)"),
    query("SELECT k, g, SUM(d), COUNT(i) FROM t GROUP BY CUBE (k, g)"),
    query("SELECT k, g, MAX(i) FROM t GROUP BY GROUPING SETS ((k), (g), ())"),
    query(
        "SELECT window_end, k, COUNT(*) FILTER (WHERE i > 3), SUM(i) FILTER (WHERE g IS NULL), \
         COUNT(DISTINCT g) FILTER (WHERE i < 10) FROM t GROUP BY window_end, k",
    ),
    query("SELECT window_end, k, COUNT(DISTINCT g), COUNT(DISTINCT k), SUM(DISTINCT g) FROM t GROUP BY window_end, k"),
    query("SELECT window_end, COUNT(DISTINCT k), COUNT(DISTINCT d) FROM t GROUP BY window_end"),
    query("SELECT DISTINCT window_end, k, g FROM t"),
    query("SELECT window_end, k, median(i), approx_distinct(i) FROM t GROUP BY window_end, k"),
    Query {
        sql: "SELECT window_end, g, stddev(f), var_pop(i) FROM t WHERE abs(i) < 100 GROUP BY window_end, g",
        ordered: "SELECT window_end, g, stddev(f), var_pop(i) FROM t WHERE abs(i) < 100 GROUP BY window_end, g",
        slack: 1e6,
    },
    query("SELECT window_end, bool_and(i > 0), bit_xor(i), bool_or(g = 2) FROM t GROUP BY window_end"),
    Query {
        sql: "SELECT window_end, k, array_agg(i), first_value(g), last_value(g ORDER BY i), string_agg(k, '+') \
              FROM t GROUP BY window_end, k",
        ordered: "SELECT window_end, k, array_agg(i ORDER BY p, o) AS \"array_agg(t.i)\", \
                  first_value(g ORDER BY p, o) AS \"first_value(t.g)\", last_value(g ORDER BY i, p, o) AS \
                  \"last_value(t.g) ORDER BY [t.i ASC NULLS LAST]\", string_agg(k, '+' ORDER BY p, o) AS \
                  \"string_agg(t.k,Utf8(\"\"+\"\"))\" FROM t GROUP BY window_end, k",
        slack: 1.0,
    },
    Query {
        sql: "SELECT window_end, array_agg(k ORDER BY i DESC) AS ks, first_value(i) AS f FROM t GROUP BY window_end",
        ordered: "SELECT window_end, array_agg(k ORDER BY i DESC, p, o) AS ks, first_value(i ORDER BY p, o) AS f \
                  FROM t GROUP BY window_end",
        slack: 1.0,
    },
    Query {
        sql: "SELECT window_end, k, SUM(i) AS s FROM t GROUP BY window_end, k ORDER BY COUNT(*) DESC LIMIT 2",
        ordered: "SELECT window_end, k, s FROM (SELECT window_end, k, SUM(i) AS s, COUNT(*) AS n FROM t \
                  GROUP BY window_end, k) ORDER BY n DESC, window_end NULLS FIRST, k NULLS FIRST, s NULLS FIRST LIMIT 2",
        slack: 1.0,
    },
    query("SELECT MAX(n), SUM(s) FROM (SELECT k, COUNT(*) AS n, SUM(i) AS s FROM t GROUP BY k)"),
    query(
        "SELECT window_end, k, n, RANK() OVER (PARTITION BY window_end ORDER BY n DESC) AS r FROM \
         (SELECT window_end, k, COUNT(*) AS n FROM t GROUP BY window_end, k)",
    ),
    Query {
        sql: "SELECT window_end, corr(i, g), covar_samp(i, g) FROM t WHERE abs(i) < 100 GROUP BY window_end",
        ordered: "SELECT window_end, corr(i, g), covar_samp(i, g) FROM t WHERE abs(i) < 100 GROUP BY window_end",
        slack: 1e7,
    },
    query(
        "SELECT window_end, k, percentile_cont(0.3) WITHIN GROUP (ORDER BY i) AS x, SUM(DISTINCT i), AVG(DISTINCT g) \
         FROM t GROUP BY window_end, k",
    ),
    Query {
        sql: "SELECT window_end, array_agg(DISTINCT g) AS x, string_agg(DISTINCT k, ',') AS y FROM t GROUP BY window_end",
        ordered: "SELECT window_end, array_agg(DISTINCT g ORDER BY g NULLS FIRST) AS x, \
                  string_agg(DISTINCT k, ',' ORDER BY k NULLS FIRST) AS y FROM t GROUP BY window_end",
        slack: 1.0,
    },
    Query {
        sql: "SELECT window_end, nth_value(i, 2) AS x, first_value(i) IGNORE NULLS AS y, last_value(k ORDER BY g) AS z \
              FROM t GROUP BY window_end",
        ordered: "SELECT window_end, nth_value(i, 2 ORDER BY p, o) AS x, first_value(i ORDER BY p, o) IGNORE NULLS AS y, \
                  last_value(k ORDER BY g, p, o) AS z FROM t GROUP BY window_end",
        slack: 1.0,
    },
    query(
        "SELECT date_trunc('second', window_end) AS w, k, COUNT(*) FROM t GROUP BY date_trunc('second', window_end), k",
    ),
    query("SELECT window_end, k, COUNT(*) FROM t WHERE window_end > TIMESTAMP '1970-01-01' GROUP BY window_end, k"),
    query("SELECT k, SUM(i) AS s, SUM(SUM(i)) OVER () AS a FROM t GROUP BY k"),
    query("SELECT COALESCE(k, '-') AS k, SUM(CASE WHEN g > 1 THEN d ELSE 0 END) AS s, MIN(ts) FROM t GROUP BY 1"),
    query("SELECT d, f, ts, COUNT(*) FROM t GROUP BY d, f, ts"),
];

/// Plans that need the rows themselves.
const ROW_QUERIES: [Query; 26] = [
    query("SELECT * FROM t"),
    query("SELECT window_end, p, o, i + g AS x FROM t WHERE ts >= window_end - INTERVAL '3 nanoseconds'"),
    Query {
        sql: "SELECT window_end, k, i FROM t ORDER BY i DESC LIMIT 3",
        ordered: "SELECT window_end, k, i FROM t ORDER BY i DESC, window_end NULLS FIRST, k NULLS FIRST LIMIT 3",
        slack: 1.0,
    },
    Query {
        sql: "SELECT window_end, k FROM t ORDER BY g DESC, i LIMIT 4",
        ordered: "SELECT window_end, k FROM t ORDER BY g DESC, i, window_end NULLS FIRST, k NULLS FIRST LIMIT 4",
        slack: 1.0,
    },
    Query {
        sql: "SELECT window_end, g FROM t LIMIT 2 OFFSET 1",
        ordered: "SELECT window_end, g FROM t ORDER BY window_end NULLS FIRST, g NULLS FIRST LIMIT 2 OFFSET 1",
        slack: 1.0,
    },
    Query {
        sql: "SELECT * FROM (SELECT window_end, k, p, o, row_number() OVER (PARTITION BY k ORDER BY i DESC) AS n \
              FROM t) WHERE n <= 2",
        ordered: "SELECT * FROM (SELECT window_end, k, p, o, row_number() OVER (PARTITION BY k ORDER BY i DESC, p, o) \
                  AS n FROM t) WHERE n <= 2",
        slack: 1.0,
    },
    Query {
        sql: "SELECT window_end, p, o, SUM(i) OVER (PARTITION BY k ORDER BY ts ROWS 2 PRECEDING) AS s, \
              lag(i) OVER (ORDER BY ts) AS l FROM t",
        ordered: "SELECT window_end, p, o, SUM(i) OVER (PARTITION BY k ORDER BY ts, p, o ROWS 2 PRECEDING) AS s, \
                  lag(i) OVER (ORDER BY ts, p, o) AS l FROM t",
        slack: 1.0,
    },
    query("SELECT window_end, k, i, RANK() OVER (ORDER BY i) AS r, SUM(i) OVER (PARTITION BY g) AS s FROM t"),
    query(
        "SELECT a.window_end, a.k, COUNT(*), SUM(a.i), SUM(a.d * b.g) FROM t a JOIN t b ON a.k = b.k AND a.i < b.i \
           GROUP BY a.window_end, a.k",
    ),
    query("SELECT window_end, k, i FROM t WHERE i = (SELECT MAX(i) FROM t)"),
    query("SELECT window_end, k, SUM(i) FROM t GROUP BY window_end, k HAVING SUM(i) > (SELECT AVG(i) FROM t)"),
    query("SELECT window_end, k, i FROM t a WHERE EXISTS (SELECT 1 FROM t b WHERE b.g = a.g AND b.i > a.i)"),
    query("SELECT window_end, k FROM t WHERE g = 1 UNION ALL SELECT window_end, k FROM t WHERE i > 10"),
    query(
        "SELECT window_end, 'k' AS what, COUNT(k) AS n FROM t GROUP BY window_end UNION ALL \
           SELECT window_end, 'i', COUNT(i) FROM t GROUP BY window_end",
    ),
    query("SELECT window_end, k FROM t WHERE g = 1 EXCEPT SELECT window_end, k FROM t WHERE g = 2"),
    query("SELECT window_end - ts AS age, COUNT(*) FROM t GROUP BY window_end - ts"),
    query("SELECT k, MAX(window_end - ts) FROM t GROUP BY k"),
    query("SELECT window_end, k FROM t WHERE g = 1 INTERSECT SELECT window_end, k FROM t WHERE g = 2"),
    query("SELECT window_end, k FROM t WHERE g = 1 UNION SELECT window_end, k FROM t WHERE g = 2"),
    query(
        "WITH c AS (SELECT window_end, k, SUM(i) AS s FROM t GROUP BY window_end, k) \
         SELECT a.k, a.s, b.s AS x FROM c a JOIN c b ON a.k < b.k",
    ),
    query("SELECT window_end, k, (SELECT COUNT(*) FROM t b WHERE b.k = a.k) AS n FROM t a"),
    query("SELECT k, SUM(i) FROM (SELECT * FROM t WHERE i > 3 UNION ALL SELECT * FROM t WHERE g = 2) GROUP BY k"),
    Query {
        sql: "SELECT k, SUM(i) AS s FROM (SELECT k, i FROM t ORDER BY i DESC LIMIT 5) GROUP BY k",
        ordered: "SELECT k, SUM(i) AS s FROM (SELECT k, i FROM t ORDER BY i DESC, k NULLS FIRST LIMIT 5) GROUP BY k",
        slack: 1.0,
    },
    Query {
        sql: "SELECT DISTINCT ON (k) k, i, f FROM t ORDER BY k, i DESC",
        ordered: "SELECT k, i, f FROM (SELECT k, i, f, row_number() OVER (PARTITION BY k ORDER BY i DESC, p, o) AS n \
                  FROM t) WHERE n = 1",
        slack: 1.0,
    },
    query("SELECT 1 AS one FROM t WHERE i > 10"),
    query("SELECT COUNT(*) FROM t a CROSS JOIN t b"),
];

/// Rows that are made of the elements of a row's array, as they are and grouped.
const UNNESTED: [Query; 7] = [
    query("SELECT window_end, o, unnest([g, i]) AS u FROM t"),
    query("SELECT window_end, u, COUNT(*) FROM (SELECT window_end, unnest([g, i]) AS u FROM t) GROUP BY window_end, u"),
    query("SELECT u, COUNT(*), SUM(o) FROM (SELECT o, unnest([g, i, g]) AS u FROM t) WHERE u > 1 GROUP BY u"),
    query("SELECT COUNT(*), SUM(u) FROM (SELECT unnest(CASE WHEN i > 12 THEN [i, g] END) AS u FROM t)"),
    query(
        "SELECT window_end, k, u + 1 AS v, SUM(d) FROM (SELECT window_end, k, d, unnest([g, i]) AS u FROM t WHERE i > 3) \
         GROUP BY window_end, k, u + 1 HAVING SUM(d) > 0",
    ),
    query(
        "SELECT window_end, MAX(window_end - u) AS m FROM (SELECT window_end, unnest([ts]) AS u FROM t) GROUP BY window_end",
    ),
    query("SELECT a, b, COUNT(*) FROM (SELECT unnest([g, i]) AS a, unnest([k]) AS b FROM t) GROUP BY a, b"),
];

/// Aggregates declared by expressions give what the built-in ones do that they imitate.
const DECLARED: [Query; 7] = [
    Query {
        sql: "SELECT window_end, k, total(i) AS s, total(g) FILTER (WHERE i > 3) AS f FROM t GROUP BY window_end, k",
        ordered: "SELECT window_end, k, SUM(i) AS s, SUM(g) FILTER (WHERE i > 3) AS f FROM t GROUP BY window_end, k",
        slack: 1.0,
    },
    Query {
        sql: "SELECT total(i) AS s, COUNT(*) AS n FROM t WHERE i > 12",
        ordered: "SELECT SUM(i) AS s, COUNT(*) AS n FROM t WHERE i > 12",
        slack: 1.0,
    },
    Query {
        sql: "SELECT k, g, total(i) AS s FROM t GROUP BY ROLLUP (k, g) HAVING total(i) > 5",
        ordered: "SELECT k, g, SUM(i) AS s FROM t GROUP BY ROLLUP (k, g) HAVING SUM(i) > 5",
        slack: 1.0,
    },
    Query {
        sql: "SELECT window_end, g, wavg(f, CAST(i AS DOUBLE)) AS x FROM t WHERE f IS NOT NULL AND i > 0 \
              GROUP BY window_end, g",
        ordered: "SELECT window_end, g, SUM(f * i) / SUM(i) AS x FROM t WHERE f IS NOT NULL AND i > 0 \
                  GROUP BY window_end, g",
        slack: 1e3,
    },
    Query {
        sql: "SELECT window_end, p, o, total(i) OVER (PARTITION BY k ORDER BY ts ROWS 2 PRECEDING) AS s FROM t",
        ordered: "SELECT window_end, p, o, SUM(i) OVER (PARTITION BY k ORDER BY ts, p, o ROWS 2 PRECEDING) AS s FROM t",
        slack: 1.0,
    },
    Query {
        sql: "SELECT window_end, p, o, total(g) OVER (ORDER BY ts RANGE BETWEEN INTERVAL '3 nanoseconds' PRECEDING AND \
              INTERVAL '1 nanosecond' FOLLOWING) AS s FROM t",
        ordered: "SELECT window_end, p, o, SUM(g) OVER (ORDER BY ts RANGE BETWEEN INTERVAL '3 nanoseconds' PRECEDING \
                  AND INTERVAL '1 nanosecond' FOLLOWING) AS s FROM t",
        slack: 1.0,
    },
    Query {
        sql: "SELECT window_end, total(s) AS s, MAX(n) AS n FROM (SELECT window_end, k, total(i) AS s, COUNT(*) AS n \
              FROM t GROUP BY window_end, k) GROUP BY window_end",
        ordered: "SELECT window_end, SUM(i) AS s, (SELECT MAX(n) FROM (SELECT COUNT(*) AS n FROM t GROUP BY k)) AS n \
                  FROM t GROUP BY window_end",
        slack: 1.0,
    },
];

/// Two streams, three windows.
const JOINS: [Query; 10] = [
    query(
        "SELECT t.window_end, r.window_end AS other, t.k, COUNT(*) AS n, SUM(t.i * r.g), SUM(r.f) FROM t JOIN r \
           ON t.k = r.k GROUP BY t.window_end, r.window_end, t.k",
    ),
    query("SELECT t.k, t.i, r.d FROM t LEFT JOIN r ON t.k = r.k AND t.g = r.g"),
    query("SELECT t.window_end, r.window_end AS other, t.i, r.i AS x FROM t FULL JOIN r ON t.i = r.i"),
    query("SELECT COUNT(*) FROM t WHERE k NOT IN (SELECT k FROM r WHERE k IS NOT NULL)"),
    query("SELECT 't' AS side, k, i FROM t WHERE g = 0 UNION ALL SELECT 'r', k, i FROM r WHERE g = 0"),
    query(
        "SELECT DISTINCT (SELECT COUNT(i) FROM t) AS a, (SELECT SUM(i) FROM u) AS b, (SELECT MAX(k) FROM r) AS c FROM r",
    ),
    query(
        "SELECT u.window_end, t.window_end AS other, COUNT(*), SUM(t.i) - SUM(u.i) AS x FROM t JOIN u \
           ON t.p = u.p AND t.o = u.o GROUP BY u.window_end, t.window_end",
    ),
    query("SELECT r.k, COUNT(t.i) FROM t RIGHT JOIN r ON t.k = r.k AND t.i > r.i GROUP BY r.k"),
    query("SELECT t.k, t.i FROM t LEFT ANTI JOIN r ON t.k = r.k"),
    query("SELECT MAX(t.ts) - MIN(r.ts) AS x FROM t CROSS JOIN r WHERE t.g = r.g"),
];

/// Windows over the results of a windowed view.
const OVER_VIEWS: [Query; 4] = [
    query("SELECT window_end, k, SUM(n) AS n, MAX(s) AS most, COUNT(*) AS windows FROM v GROUP BY window_end, k"),
    query("SELECT window_start, window_end, k, n FROM v"),
    query("SELECT COUNT(*), SUM(n) FROM v"),
    query("SELECT v.window_end, v.k, SUM(v.n), COUNT(t.i) FROM v JOIN t ON v.k = t.k GROUP BY v.window_end, v.k"),
];

/// Runs all `queries` over what `make` gives for each seed, row by row and in one more way, another for each query.
async fn check_all(queries: &[Query], count: u64, make: impl AsyncFn(u64, &mut StdRng) -> (Vec<Log>, Vec<Relation>)) {
    let mut failures = Vec::new();
    for seed in seeds(count) {
        let mut rng = StdRng::seed_from_u64(seed);
        let (logs, relations) = make(seed, &mut rng).await;
        for (number, query) in queries.iter().enumerate() {
            let [row_by_row, others @ ..] = ways(seed);
            let other = others[(seed as usize + number) % others.len()];
            if let Err(failure) = check(query, &logs, &relations, &[row_by_row, other]).await {
                failures.push(format!("MILLSTREAM_SEED={seed} {failure}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n\n"));
}

async fn one_stream(seed: u64, rng: &mut StdRng) -> (Vec<Log>, Vec<Relation>) {
    let log = random_log("s", &Shape { rows: 160, ..Shape::default() }, rng);
    let window = WINDOWS[seed as usize % WINDOWS.len()];
    let relation = Relation::of_stream("t", &log, &log.replay(), window);
    (vec![log], vec![relation])
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_gives_the_aggregates_of_a_batch_query_over_each_window() {
    check_all(&AGGREGATES, 9, one_stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_gives_the_rows_of_any_sql_over_each_window() {
    check_all(&ROW_QUERIES, 9, one_stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_gives_the_elements_of_arrays() {
    check_all(&UNNESTED, 9, one_stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_gives_what_declared_aggregates_imitate() {
    check_all(&DECLARED, 9, one_stream).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_gives_the_rows_of_joins_of_unequal_windows() {
    const PAIRS: [[Window; 3]; 4] = [
        [Window::new(12, 4), Window::new(20, 10), Window::new(6, 6)],
        [Window::new(10, 4), Window::new(9, 3).offset(1), Window::new(30, 5)],
        [Window::new(8, 4).closed_right(), Window::new(8, 4), Window::new(4, 4)],
        [Window::new(3, 5), Window::new(12, 4).closed_right(), Window::new(20, 1)],
    ];
    check_all(&JOINS, 8, async |seed, rng| {
        let shape = Shape { rows: 90, ..Shape::default() };
        let slower = Shape { partitions: 4, late_share: 0.3, ..shape };
        let (s, q) = (random_log("s", &shape, rng), random_log("q", &slower, rng));
        let [t, r, u] = PAIRS[seed as usize % PAIRS.len()];
        let (s_rows, q_rows) = (s.replay(), q.replay());
        let relations = vec![
            Relation::of_stream("t", &s, &s_rows, t),
            Relation::of_stream("r", &q, &q_rows, r),
            Relation::of_stream("u", &s, &s_rows, u),
        ];
        (vec![q, s], relations)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cut_gives_the_rows_of_windows_over_windows() {
    const PAIRS: [[Window; 2]; 5] = [
        [Window::new(8, 4), Window::new(8, 8)],
        [Window::new(10, 4), Window::new(24, 12)],
        [Window::new(4, 4), Window::new(10, 3)],
        [Window::new(6, 3).closed_right(), Window::new(12, 6)],
        [Window::new(6, 3), Window::new(12, 6).closed_right()],
    ];
    check_all(&OVER_VIEWS, 10, async |seed, rng| {
        let log = random_log("s", &Shape { rows: 120, ..Shape::default() }, rng);
        let [inner, outer] = PAIRS[seed as usize % PAIRS.len()];
        let t = Relation::of_stream("t", &log, &log.replay(), inner);
        let sql = "SELECT window_end, k, COUNT(*) AS n, SUM(i) AS s FROM t GROUP BY window_end, k";
        let v = Relation::of_view("v", "view", sql, std::slice::from_ref(&t), outer).await;
        (vec![log], vec![t, v])
    })
    .await;
}

/// Two streams, and a view over one, each seen through a window of its own.
async fn all_relations(rng: &mut StdRng) -> (Vec<Log>, Vec<Relation>) {
    // A partition falls silent by the clock, which another run does not repeat before it is logged.
    let shape = Shape { rows: 90, idles: false, ..Shape::default() };
    let (s, q) = (random_log("s", &shape, rng), random_log("q", &shape, rng));
    let t = Relation::of_stream("t", &s, &s.replay(), Window::new(12, 4));
    let r = Relation::of_stream("r", &q, &q.replay(), Window::new(6, 6));
    let u = Relation::of_stream("u", &s, &s.replay(), Window::new(7, 3).closed_right());
    let sql = "SELECT window_end, k, COUNT(*) AS n, SUM(i) AS s FROM t GROUP BY window_end, k";
    let v = Relation::of_view("v", "view", sql, std::slice::from_ref(&t), Window::new(24, 12)).await;
    (vec![s, q], vec![t, r, u, v])
}

#[test]
fn restarts_at_random_epochs_change_no_row() {
    let queries: Vec<&Query> = AGGREGATES
        .iter()
        .chain(&UNNESTED)
        .chain(&DECLARED)
        .chain(&ROW_QUERIES)
        .chain(&JOINS)
        .chain(&OVER_VIEWS)
        .collect();
    let (mut deaths, mut failures) = (0, Vec::new());
    for seed in seeds(3) {
        let mut rng = StdRng::seed_from_u64(seed);
        let (logs, relations) = as_process(all_relations(&mut rng));
        for query in &queries {
            match check_restarted(query, &logs, &relations, &mut rng) {
                Ok(count) => deaths += count as usize,
                Err(failure) => failures.push(format!("MILLSTREAM_SEED={seed} {failure}")),
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n\n"));
    assert!(deaths > 2 * queries.len(), "only {deaths} deaths");
}

/// How many of the fixed seeds give wrong rows once `tamper` has changed the blocks.
async fn caught(make: impl Fn(&Log, Window) -> Box<dyn Fn(&mut Block) + Sync>) -> usize {
    let mut caught = 0;
    for seed in 1..=6 {
        let mut rng = StdRng::seed_from_u64(seed);
        let log = random_log("s", &Shape { idles: false, ..Shape::default() }, &mut rng);
        let window = WINDOWS[seed as usize % 3];
        let way = Way { block_rows: 9, records: 30, tasks: 2, key_partitions: 7, memory: AMPLE, executors: 0, seed };
        run_plain(&log, window, &way, None).await.unwrap();
        caught += usize::from(run_plain(&log, window, &way, Some(make(&log, window).as_ref())).await.is_err());
    }
    caught
}

#[tokio::test(flavor = "multi_thread")]
async fn mutant_watermark_moved_at_the_end_of_blocks_is_caught() {
    let make = |log: &Log, _| -> Box<dyn Fn(&mut Block) + Sync> {
        let delay = log.delay;
        let moved = Mutex::new(HashMap::<PartitionId, i64>::new());
        Box::new(move |block| {
            let mut moved = moved.lock().unwrap();
            let start = moved.entry(block.partition).or_insert(i64::MIN);
            let below = block.times.values().iter().enumerate().filter(|(_, time)| **time < *start);
            block.behind = below.map(|(row, _)| Behind { row, watermark: Watermark(*start) }).collect();
            *start = (*start).max(block.latest.0 - delay);
        })
    };
    assert_eq!(caught(make).await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn mutant_closed_bound_is_caught() {
    let make = |_: &Log, window: Window| -> Box<dyn Fn(&mut Block) + Sync> {
        Box::new(move |block| {
            let earlier = |time: i64| if window.last_instant(time) == time { time - 1 } else { time };
            block.times = block.times.values().iter().map(|time| Some(earlier(*time))).collect();
            block.earliest.0 = earlier(block.earliest.0);
        })
    };
    assert_eq!(caught(make).await, 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn mutant_dropped_tag_is_caught() {
    let make = |_: &Log, _| -> Box<dyn Fn(&mut Block) + Sync> { Box::new(|block| block.behind.clear()) };
    assert_eq!(caught(make).await, 6);
}
