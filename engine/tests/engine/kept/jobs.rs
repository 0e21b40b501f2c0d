//! Queries whose state is put to the test.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::datatypes::TimeUnit;
use rand::SeedableRng;
use rand::rngs::StdRng;

use millstream_engine::plan::Emission;

use super::source::partitions_of;
use super::{Job, Table};
use crate::oracle::generate::{Shape, random_log};
use crate::oracle::table::{Cell, Cells};
use crate::oracle::{Event, Log, Row, Window};

/// Queries over streams that can be read again: aggregates, rows, a join, groups without end.
pub(crate) fn replayable(seed: u64) -> Vec<Job> {
    let mut rng = StdRng::seed_from_u64(seed);
    let shape = Shape { rows: 90, partitions: 2, idles: false, ..Shape::default() };
    let (s, q) = (Arc::new(random_log("s", &shape, &mut rng)), Arc::new(random_log("q", &shape, &mut rng)));
    let table = |log: &Arc<Log>, window| Table { log: Arc::clone(log), window };
    let job = |sql, tables| Job { sql, tables, given: None, emission: Emission::default(), seat: None };
    vec![
        job(
            "SELECT window_end, k, COUNT(*) AS n, SUM(i) AS s, MIN(d) AS d FROM s GROUP BY window_end, k",
            vec![table(&s, Some(Window::new(12, 4)))],
        ),
        job("SELECT window_end, p, o, k, i FROM s", vec![table(&s, Some(Window::new(5, 5)))]),
        job(
            "SELECT s.window_end, q.window_end AS other, s.k, COUNT(*) AS n, SUM(s.i) AS i FROM s JOIN q ON s.k = q.k \
             GROUP BY s.window_end, q.window_end, s.k",
            vec![table(&s, Some(Window::new(8, 4))), table(&q, Some(Window::new(6, 6)))],
        ),
        job("SELECT k, COUNT(*) AS n, SUM(i) AS s FROM s GROUP BY k", vec![table(&s, None)]),
    ]
}

/// Queries over a stream that cannot be read again; their second column holds the numbers of the rows they have seen.
pub(crate) fn live() -> Vec<Job> {
    let row = |number: i64| Row {
        partition: 0,
        offset: number.unsigned_abs(),
        time: number / 3,
        k: None,
        g: Some(number % 3),
        i: Some(token(number.unsigned_abs())),
        d: None,
        f: None,
    };
    let events = vec![Event::Rows(0, (0..100).map(row).collect())];
    let log = Log { name: "s".to_owned(), partitions: 1, delay: 1, skew: None, unit: TimeUnit::Nanosecond, events };
    let tables = vec![Table { log: Arc::new(log), window: Some(Window::new(8, 4)) }];
    [
        "SELECT window_end, o, i FROM s",
        "SELECT window_end, array_agg(o) AS o, COUNT(*) AS n FROM s GROUP BY window_end, g",
    ]
    .map(|sql| Job {
        sql,
        tables: tables.clone(),
        given: Some(Arc::default()),
        emission: Emission::default(),
        seat: None,
    })
    .to_vec()
}

/// A value by which a row is found in the bytes of a file.
const fn token(number: u64) -> i64 {
    (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).cast_signed()
}

/// The numbers of the rows whose tokens are in `bytes`.
pub(crate) fn rows_in(bytes: &[u8], log: &Log) -> BTreeSet<u64> {
    let words: BTreeSet<i64> = bytes.windows(8).map(|word| i64::from_le_bytes(word.try_into().unwrap())).collect();
    let rows = partitions_of(log);
    rows[0].iter().map(|row| row.offset).filter(|number| words.contains(&token(*number))).collect()
}

/// The numbers of the rows that a result over a live stream has seen.
pub(crate) fn rows_seen(result: &[Cells]) -> BTreeSet<u64> {
    let numbers = |row: &Cells| match &row[1] {
        Cell::Exact(text) => {
            text.trim_matches(['[', ']']).split(", ").map(|n| n.parse::<u64>().unwrap()).collect::<Vec<_>>()
        }
        other => panic!("{other:?} is no list of rows"),
    };
    result.iter().flat_map(numbers).collect()
}
