//! Joins of windows under aggregates are planned in factored form and answer what the join of rows answers.
//!
//! The names of the stock example are mapped to the columns that random logs have: `k` is the code of the stock, `g`
//! the user, `f` a price, `i` and `d` amounts.

use crate::oracle::batch::{Relation, logical_plan};
use crate::oracle::check::{Query, check, query};
use crate::oracle::cut::ways;
use crate::oracle::generate::{Shape, random_log, seeds};
use crate::oracle::{Log, Window};
use millstream_engine::query::{PlannedQuery, QueryOptions};
use rand::SeedableRng;
use rand::rngs::StdRng;

/// Products of a double and an integer of up to 10^12 lie further apart than the doubles.
const OF_INTEGERS: f64 = 1e14;

const JOINS: [Query; 9] = [
    Query {
        sql: "SELECT p.g AS userid, SUM(s.f * p.i) FROM position p JOIN stock s ON p.k = s.k GROUP BY p.g",
        ordered: "SELECT p.g AS userid, SUM(s.f * p.i) FROM position p JOIN stock s ON p.k = s.k GROUP BY p.g",
        slack: OF_INTEGERS,
    },
    query(
        "SELECT p.window_end, p.g AS userid, SUM(s.d * p.g), COUNT(*), COUNT(s.i * p.i), SUM(p.d), AVG(s.d) \
         FROM position p JOIN stock s ON p.k = s.k AND p.window_end = s.window_end GROUP BY p.window_end, p.g",
    ),
    query(
        "SELECT p.window_end, s.window_end AS other, p.k, SUM(p.i * s.g), MIN(s.d), MAX(p.f), MAX(s.ts) FROM position p \
         JOIN stock s ON p.k = s.k GROUP BY p.window_end, s.window_end, p.k",
    ),
    query("SELECT SUM(p.i * s.g), COUNT(*), COUNT(p.d), AVG(p.g * s.g) FROM position p JOIN stock s ON p.k = s.k"),
    query(
        "SELECT p.g AS userid, COUNT(*) FILTER (WHERE s.i > 3), SUM(p.d) FILTER (WHERE s.g = 1) FROM position p \
         JOIN stock s ON p.k = s.k WHERE p.i > 0 GROUP BY p.g HAVING COUNT(*) > 2 ORDER BY 1",
    ),
    query("SELECT a.k, SUM(a.d * b.g), COUNT(*) FROM position a JOIN position b ON a.k = b.k GROUP BY a.k"),
    query("SELECT DISTINCT p.k, s.g FROM position p JOIN stock s ON p.k = s.k"),
    query(
        "SELECT p.g, SUM(p.g * s.g * o.g), COUNT(*), MIN(o.i) FROM position p JOIN stock s ON p.k = s.k \
         JOIN orders o ON o.k = s.k GROUP BY p.g",
    ),
    query(
        "SELECT p.k, COUNT(*) AS n FROM position p JOIN stock s ON p.k = s.k GROUP BY p.k UNION ALL \
         SELECT s.k, COUNT(*) AS n FROM stock s GROUP BY s.k",
    ),
];

fn logs_and_relations(seed: u64, rng: &mut StdRng) -> (Vec<Log>, Vec<Relation>) {
    const WINDOWS: [[Window; 3]; 3] = [
        [Window::new(12, 4), Window::new(12, 4), Window::new(8, 4)],
        [Window::new(10, 4), Window::new(9, 3).offset(1), Window::new(6, 6)],
        [Window::new(8, 4).closed_right(), Window::new(20, 5), Window::new(4, 4)],
    ];
    let shape = Shape { rows: 80, ..Shape::default() };
    let (positions, stocks) = (random_log("positions", &shape, rng), random_log("stocks", &shape, rng));
    let [position, stock, orders] = WINDOWS[seed as usize % WINDOWS.len()];
    let relations = vec![
        Relation::of_stream("position", &positions, &positions.replay(), position),
        Relation::of_stream("stock", &stocks, &stocks.replay(), stock),
        Relation::of_stream("orders", &stocks, &stocks.replay(), orders),
    ];
    (vec![positions, stocks], relations)
}

#[tokio::test(flavor = "multi_thread")]
async fn factored_joins_give_the_rows_of_a_batch_query_over_each_window() {
    let mut failures = Vec::new();
    for seed in seeds(6) {
        let mut rng = StdRng::seed_from_u64(seed);
        let (logs, relations) = logs_and_relations(seed, &mut rng);
        for (number, query) in JOINS.iter().enumerate() {
            let [row_by_row, others @ ..] = ways(seed);
            let other = others[(seed as usize + number) % others.len()];
            if let Err(failure) = check(query, &logs, &relations, &[row_by_row, other]).await {
                failures.push(format!("MILLSTREAM_SEED={seed} {failure}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} failures\n{}", failures.len(), failures.join("\n\n"));
}

#[tokio::test]
async fn explain_shows_the_grouped_sides() {
    let (_, relations) = logs_and_relations(1, &mut StdRng::seed_from_u64(1));
    for query in &JOINS {
        let logical = logical_plan(query.sql, &query.relations(&relations)).await;
        let planned = PlannedQuery::plan(&logical, QueryOptions::default()).await.unwrap();
        let text: String = planned.explain().iter().map(|(_, explanation)| explanation.to_string()).collect();
        assert!(text.contains("factored_1_key_1") && text.contains("factored_2_key_1"), "{}\n{text}", query.sql);
    }
}
