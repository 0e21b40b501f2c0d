//! `OVER` on an endless stream gives what it gives over a table of the same rows.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::difference::difference;
use super::process::{Folder, run_sql};

const ROWS: usize = 4_000;

/// Queries over `{}`, of which the streaming plan and the batch plan are to agree.
const QUERIES: [&str; 8] = [
    "SELECT o, SUM(v) OVER (PARTITION BY k ORDER BY ts ROWS BETWEEN 5 PRECEDING AND CURRENT ROW) AS s FROM {}",
    "SELECT o, k, COUNT(*) OVER (ORDER BY ts ROWS BETWEEN 30 PRECEDING AND 2 PRECEDING) AS n FROM {}",
    "SELECT o, SUM(v) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '3' SECOND PRECEDING AND CURRENT ROW) AS s,
       MAX(v) OVER (PARTITION BY k ORDER BY ts RANGE BETWEEN INTERVAL '9' SECOND PRECEDING AND CURRENT ROW) AS m FROM {}",
    "SELECT o, AVG(v) OVER (PARTITION BY v % 3 ORDER BY ts RANGE BETWEEN INTERVAL '3' SECOND PRECEDING
       AND INTERVAL '1' SECOND PRECEDING) AS a FROM {} WHERE v > 20",
    "SELECT o, v - lag(v) OVER (PARTITION BY k ORDER BY ts) AS d, lag(v, 3, -1) OVER (PARTITION BY k ORDER BY ts) AS l,
       first_value(o) OVER (PARTITION BY k ORDER BY ts ROWS 2 PRECEDING) AS f FROM {}",
    "SELECT * FROM (SELECT o, k, v, lag(k) OVER (ORDER BY ts) AS before FROM {}) AS r WHERE k <> before AND v > 50",
    "SELECT o, SUM(w) OVER (PARTITION BY j ORDER BY at ROWS 3 PRECEDING) AS s
       FROM (SELECT ts AS at, o, k AS j, v * 2 AS w FROM {}) AS r",
    "SELECT o, array_agg(v) OVER (PARTITION BY k ORDER BY ts ROWS BETWEEN 2 PRECEDING AND CURRENT ROW) AS a FROM {}",
];

/// Rows in order, of which many have one time; `o` is their place.
fn input(seed: u64) -> String {
    let mut random = StdRng::seed_from_u64(seed);
    let mut text = "ts,o,k,v\n".to_owned();
    let mut second = 0;
    for place in 0..ROWS {
        second += u64::from(random.random_range(0..4) == 0);
        let key = match random.random_range(0..60) {
            0 => String::new(),
            key => format!("k{}", key % 20),
        };
        let (hour, minute) = (second / 3600, second / 60 % 60);
        let value = random.random_range(0..100);
        text.push_str(&format!("2024-01-01T{hour:02}:{minute:02}:{:02},{place},{key},{value}\n", second % 60));
    }
    text
}

/// The query with the order of rows of one time, which a stream has by itself; in ranges they have none.
fn in_order(query: &str) -> String {
    if query.contains("RANGE") {
        return query.to_owned();
    }
    query.replace("ORDER BY ts", "ORDER BY ts, o").replace("ORDER BY at", "ORDER BY at, o")
}

#[test]
fn over_a_stream_gives_the_rows_of_the_batch() {
    let folder = Folder::new();
    for seed in [1, 2] {
        let path = folder.write(&format!("{seed}.csv"), input(seed));
        let declare = |what: &str, name: &str, watermark: &str| {
            format!(
                "CREATE {what} {name} (ts TIMESTAMP(3), o BIGINT, k VARCHAR, v BIGINT{watermark})
                 WITH (connector = 'files', path = '{path}');"
            )
        };
        let relations = declare("STREAM", "s", ", WATERMARK FOR ts") + &declare("TABLE", "b", "");
        for query in QUERIES {
            for cut in ["SET batch_rows = 70; SET batch_interval = '1 ms'", "SET batch_interval = '10 s'"] {
                let rows = |query: &str| {
                    let found = run_sql(&format!("{cut}; {relations} {query}")).silent();
                    found.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
                };
                let (streamed, batch) = (rows(&query.replace("{}", "s")), rows(&in_order(query).replace("{}", "b")));
                assert!(batch.len() > ROWS / 20, "{query}: {} rows", batch.len());
                if let Some(difference) = difference(&streamed, &batch) {
                    panic!("seed {seed}, {cut}, {query}: {difference}");
                }
            }
        }
    }
}
