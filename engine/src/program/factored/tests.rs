//! The factored form against the join of rows, over finite tables.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, StringViewArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Float64Type, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::collect;
use datafusion::prelude::{SessionConfig, SessionContext};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::factored;
use crate::program::exact::exact_sums;
use crate::program::overflow::check_arithmetic;
use crate::program::session::Planner;

/// Queries that factor, over tables `a`, `b`, `c` of [`schema`].
const FACTORED: [&str; 33] = [
    "SELECT a.g, SUM(a.i * b.i) AS s FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g, b.g AS h, SUM(a.i * b.i), COUNT(*), SUM(a.i), SUM(b.d) FROM a JOIN b ON a.k = b.k GROUP BY a.g, b.g",
    "SELECT SUM(a.i * b.i), COUNT(*), COUNT(a.i), COUNT(a.i * b.i), AVG(a.i * b.d) FROM a JOIN b ON a.k = b.k",
    "SELECT b.k, SUM(a.d * b.d), SUM(a.d * b.i), AVG(a.d), AVG(a.d * b.d) FROM a, b WHERE a.k = b.k GROUP BY b.k",
    "SELECT a.k, AVG(a.i), AVG(a.i * b.i), AVG(b.w), AVG(b.f), AVG(a.f * b.i) FROM a JOIN b ON a.k = b.k GROUP BY a.k",
    "SELECT a.k, SUM(a.f * b.f), SUM(a.f), SUM(b.f * a.i), SUM(2.0 * a.f * b.f), SUM(a.f * b.f * 2.5) FROM a JOIN b \
     ON a.k = b.k GROUP BY a.k",
    "SELECT a.k, MIN(a.i), MAX(b.d), MIN(b.s), MAX(a.f), bool_or(b.p), bool_and(a.p), bit_or(a.i) FROM a JOIN b \
     ON a.k = b.k GROUP BY a.k",
    "SELECT a.k, MIN(DISTINCT a.i), MAX(a.n) FROM a JOIN b ON a.k = b.k GROUP BY a.k",
    "SELECT a.g, SUM(a.i * b.i * a.d * b.n) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g, SUM(a.n * b.n), SUM(a.n), COUNT(a.n * b.d), SUM((a.i + a.n) * b.d), SUM(-a.n * (b.d - 1)) \
     FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g, SUM(a.w), SUM(a.w * b.n), COUNT(a.f + b.f) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g, COUNT(*) FILTER (WHERE a.i > 2), SUM(b.i) FILTER (WHERE a.p), SUM(a.d * b.d) FILTER (WHERE a.p AND \
     b.i < 5), AVG(b.f) FILTER (WHERE a.p AND b.p), MIN(a.i) FILTER (WHERE a.p), COUNT(b.n) FILTER (WHERE a.p IS NULL) \
     FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT SUM(b.i) FILTER (WHERE a.i > 100), COUNT(*) FILTER (WHERE a.i > 100), AVG(b.d) FILTER (WHERE a.i > 100) \
     FROM a JOIN b ON a.k = b.k",
    "SELECT a.g, SUM(a.i * b.i) FROM a JOIN b ON a.k = b.k AND a.s = b.s GROUP BY a.g",
    "SELECT a.g, SUM(a.i * b.i) FROM a JOIN b ON a.k = b.k WHERE a.i > 1 AND b.p GROUP BY a.g",
    "SELECT a.g, SUM(a.i * b.i) FROM a JOIN b ON a.k + 1 = b.k GROUP BY a.g",
    "SELECT a.g, SUM(a.i * b.i) AS s FROM a JOIN b ON a.k = b.k GROUP BY a.g HAVING SUM(a.i * b.i) > 10 ORDER BY s, 1",
    "SELECT x.g, SUM(x.i * y.i), COUNT(*) FROM a x JOIN a y ON x.k = y.k GROUP BY x.g",
    "SELECT COALESCE(a.s, '-') AS s, a.i > 3 AS p, SUM(a.i * b.i) FROM a JOIN b ON a.k = b.k GROUP BY 1, 2",
    "SELECT DISTINCT a.g, b.s FROM a JOIN b ON a.k = b.k",
    "SELECT a.g, COUNT(DISTINCT b.i) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g, SUM(CASE WHEN a.p THEN a.d ELSE 0 END * b.d) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT t.g, SUM(t.v * b.i) FROM (SELECT k, g, i * 2 AS v FROM a WHERE i < 1000) t JOIN b ON t.k = b.k GROUP BY t.g",
    "SELECT g, SUM(v), COUNT(v) FROM (SELECT a.g, a.i * b.i AS v FROM a JOIN b ON a.k = b.k) GROUP BY g",
    "SELECT a.g, SUM(a.i * b.i * c.i), COUNT(*), SUM(b.d), SUM(a.f * c.f * b.f) FROM a JOIN b ON a.k = b.k \
     JOIN c ON b.k = c.k GROUP BY a.g",
    "SELECT a.g, SUM(a.i * c.i), COUNT(b.i), MAX(c.d) FROM a JOIN b ON a.k = b.k JOIN c ON b.s = c.s GROUP BY a.g",
    "SELECT x.g, y.s, SUM(x.i * y.d), COUNT(*) FROM (SELECT a.g, a.i, a.k FROM a JOIN c ON a.s = c.s) x JOIN \
     (SELECT b.s, b.d, b.k FROM b JOIN c ON b.g = c.g) y ON x.k = y.k GROUP BY x.g, y.s",
    "SELECT a.g, SUM(5), SUM(a.i * 3 * b.i), AVG(2.5) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT SUM(s) FROM (SELECT a.g, SUM(a.i * b.i) AS s FROM a JOIN b ON a.k = b.k GROUP BY a.g)",
    "SELECT a.g, COUNT(*) FROM a JOIN b ON a.k = b.k GROUP BY a.g UNION ALL SELECT b.g, SUM(b.n) FROM b GROUP BY b.g",
    "SELECT a.i, SUM(b.i / 10 * a.n), COUNT(a.s) FROM a JOIN b USING (k) GROUP BY a.i",
    "SELECT a.p, a.k, SUM(a.d * b.d * b.d), SUM(a.i) + SUM(b.i) AS x FROM a JOIN b ON a.k = b.k GROUP BY a.p, a.k",
    "SELECT a.k, SUM(a.f * a.f * b.f), AVG(a.f * b.f), COUNT(b.f) FROM a JOIN b ON a.k = b.k GROUP BY a.k",
];

/// Queries that do not.
const NOT_FACTORED: [&str; 20] = [
    "SELECT a.g, SUM(a.i + b.i) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g, SUM(a.i * b.i + b.n) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g, SUM(CASE WHEN a.p THEN b.i END) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g, SUM(a.i * b.i) FROM a JOIN b ON a.k = b.k AND a.i < b.i GROUP BY a.g",
    "SELECT a.g, SUM(a.i * b.i) FROM a LEFT JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g, SUM(a.i * b.i) FROM a CROSS JOIN b GROUP BY a.g",
    "SELECT a.g, COUNT(*) FROM a JOIN b ON a.f = b.f GROUP BY a.g",
    "SELECT a.g, SUM(DISTINCT a.i), COUNT(*) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g, stddev(a.f) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g, MAX(a.i - b.i) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g + b.g AS g, COUNT(*) FROM a JOIN b ON a.k = b.k GROUP BY a.g + b.g",
    "SELECT a.g, b.g AS h, COUNT(*) FROM a JOIN b ON a.k = b.k GROUP BY ROLLUP (a.g, b.g)",
    "SELECT a.g, SUM(a.i * b.i) FILTER (WHERE a.p OR b.p) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g, MIN(a.i) FILTER (WHERE b.p) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g, SUM(a.f * b.f * a.f) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    // These may fail, for rows that meet no other too.
    "SELECT a.g, SUM(a.i / a.n * b.i) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g, MAX(a.i + 1) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.i + 1 AS j, COUNT(*) FROM a JOIN b ON a.k = b.k GROUP BY a.i + 1",
    "SELECT a.g, array_agg(a.i) FROM a JOIN b ON a.k = b.k GROUP BY a.g",
    "SELECT a.g, SUM(a.i) FROM a GROUP BY a.g",
];

fn schema() -> SchemaRef {
    let field = |name: &str, kind| Field::new(name, kind, true);
    Arc::new(Schema::new(vec![
        field("k", DataType::Int64),
        field("g", DataType::Int64),
        field("s", DataType::Utf8View),
        field("p", DataType::Boolean),
        field("n", DataType::Int32),
        field("i", DataType::Int64),
        field("d", DataType::Decimal128(12, 2)),
        field("w", DataType::Decimal128(38, 4)),
        field("f", DataType::Float64),
    ]))
}

/// One row's values; `None` is NULL.
#[derive(Debug, Clone, Default)]
struct Row {
    k: Option<i64>,
    g: Option<i64>,
    s: Option<&'static str>,
    p: Option<bool>,
    n: Option<i32>,
    i: Option<i64>,
    d: Option<i128>,
    w: Option<i128>,
    f: Option<f64>,
}

fn batch(rows: &[Row]) -> RecordBatch {
    let decimals = |values: Decimal128Array, digits, scale| -> ArrayRef {
        Arc::new(values.with_precision_and_scale(digits, scale).unwrap())
    };
    let columns: Vec<ArrayRef> = vec![
        Arc::new(rows.iter().map(|row| row.k).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.g).collect::<Int64Array>()),
        Arc::new(rows.iter().map(|row| row.s).collect::<StringViewArray>()),
        Arc::new(rows.iter().map(|row| row.p).collect::<BooleanArray>()),
        Arc::new(rows.iter().map(|row| row.n).collect::<Int32Array>()),
        Arc::new(rows.iter().map(|row| row.i).collect::<Int64Array>()),
        decimals(rows.iter().map(|row| row.d).collect(), 12, 2),
        decimals(rows.iter().map(|row| row.w).collect(), 38, 4),
        Arc::new(rows.iter().map(|row| row.f).collect::<Float64Array>()),
    ];
    RecordBatch::try_new(schema(), columns).unwrap()
}

fn random_rows(rng: &mut StdRng) -> Vec<Row> {
    let count = [0, 1, 7, 30][rng.random_range(0..4)];
    let null_share = [0.0, 0.15, 0.5][rng.random_range(0..3)];
    let keys = rng.random_range(1..6);
    let row = |rng: &mut StdRng| {
        let mut is_set = || !rng.random_bool(null_share);
        let [k, g, s, p, n, i, d, w, f] = std::array::from_fn(|_| is_set());
        Row {
            k: k.then(|| rng.random_range(0..keys)),
            g: g.then(|| rng.random_range(-1..2)),
            s: s.then(|| ["", "x", "a text longer than twelve bytes"][rng.random_range(0..3)]),
            p: p.then(|| rng.random_bool(0.5)),
            n: n.then(|| rng.random_range(-9..9)),
            i: i.then(|| rng.random_range(-5..20)),
            d: d.then(|| rng.random_range(-100_000..100_000)),
            w: w.then(|| rng.random_range(-10_i128.pow(30)..10_i128.pow(30))),
            f: f.then(|| rng.random_range(-1.0..1.0) * 10_f64.powi(rng.random_range(-6..6))),
        }
    };
    (0..count).map(|_| row(rng)).collect()
}

/// A query's plan by rows, and in factored form if it has one.
struct Plans {
    rows: LogicalPlan,
    factored: Option<LogicalPlan>,
}

struct Tables {
    ctx: SessionContext,
    planner: Planner,
}

type Rows = Vec<Vec<String>>;

impl Tables {
    fn new(tables: [&[Row]; 3]) -> Self {
        let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        for (name, rows) in ["a", "b", "c"].iter().zip(tables) {
            let table = MemTable::try_new(schema(), vec![vec![batch(rows)]]).unwrap();
            ctx.register_table(*name, Arc::new(table)).unwrap();
        }
        Self { ctx, planner: Planner::new(&Arc::default(), &Arc::default()) }
    }

    async fn plans(&self, sql: &str) -> Plans {
        let logical = self.ctx.state().create_logical_plan(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"));
        let analyzed = exact_sums(self.planner.analyzed(logical).unwrap()).unwrap();
        let rows = self.planner.optimized(&analyzed).unwrap();
        let factored = factored(rows.clone()).unwrap_or_else(|error| panic!("{sql}: {error}"));
        let again = factored.transformed.then(|| self.planner.optimized(&factored.data).unwrap());
        Plans { rows, factored: again }
    }

    async fn run(&self, plan: LogicalPlan) -> Result<Vec<RecordBatch>, String> {
        let checked = check_arithmetic(plan).unwrap();
        let physical = self.planner.physical(checked).await.unwrap();
        collect(physical, self.ctx.task_ctx()).await.map_err(|error| error.to_string())
    }

    /// The rows of `sql` in both forms.
    async fn both(&self, sql: &str) -> [Result<Vec<RecordBatch>, String>; 2] {
        let plans = self.plans(sql).await;
        let factored = plans.factored.unwrap_or_else(|| panic!("{sql} does not factor:\n{}", plans.rows));
        [self.run(plans.rows).await, self.run(factored).await]
    }
}

/// The rows as text, sorted, and the doubles of all rows in that order; both without the doubles' text.
fn sorted(batches: &[RecordBatch]) -> (Rows, Vec<Vec<Option<f64>>>) {
    let mut rows = Vec::new();
    for batch in batches {
        for row in 0..batch.num_rows() {
            let (mut texts, mut doubles) = (Vec::new(), Vec::new());
            for column in batch.columns() {
                if let Some(values) = column.as_primitive_opt::<Float64Type>() {
                    doubles.push(values.is_valid(row).then(|| values.value(row)));
                    continue;
                }
                let options = FormatOptions::default().with_null("null");
                texts.push(ArrayFormatter::try_new(column.as_ref(), &options).unwrap().value(row).to_string());
            }
            rows.push((texts, doubles));
        }
    }
    rows.sort_by(|a, b| a.0.cmp(&b.0));
    rows.into_iter().unzip()
}

/// Says how the rows differ; doubles may lie `slack` apart.
fn difference(rows: &[RecordBatch], factored: &[RecordBatch], slack: f64) -> Option<String> {
    let (expected, actual) = (sorted(rows), sorted(factored));
    if expected.0 != actual.0 {
        return Some(format!("{:?}\nis not\n{:?}", actual.0, expected.0));
    }
    let are_near = |a: &Option<f64>, b: &Option<f64>| match (a, b) {
        (Some(a), Some(b)) => a == b || (a.is_nan() && b.is_nan()) || (a - b).abs() <= slack,
        (a, b) => a == b,
    };
    let pairs = || actual.1.iter().flatten().zip(expected.1.iter().flatten());
    let wrong = pairs().find(|(a, b)| !are_near(a, b))?;
    Some(format!("{wrong:?} in {:?}", actual.1))
}

#[tokio::test]
async fn factored_plans_give_the_rows_of_the_join() {
    for seed in 1..=40 {
        let mut rng = StdRng::seed_from_u64(seed);
        let rows: [Vec<Row>; 3] = std::array::from_fn(|_| random_rows(&mut rng));
        let tables = Tables::new([&rows[0], &rows[1], &rows[2]]);
        // Products of up to four columns of doubles or integers.
        let size = |rows: &[Row]| -> f64 { rows.iter().map(|row| 20.0 + row.f.unwrap_or(0.0).abs().powi(2)).sum() };
        let slack = 1e-12 * rows.iter().map(|rows| size(rows).max(1.0)).product::<f64>();
        for sql in FACTORED {
            let [by_rows, factored] = tables.both(sql).await.map(|rows| rows.unwrap());
            if let Some(difference) = difference(&by_rows, &factored, slack) {
                panic!("seed {seed}: {sql}\n{difference}\n{rows:?}");
            }
        }
    }
}

#[tokio::test]
async fn factored_plans_have_the_columns_of_the_join() {
    let tables = Tables::new([&[], &[], &[]]);
    for sql in FACTORED {
        let plans = tables.plans(sql).await;
        let factored = plans.factored.unwrap_or_else(|| panic!("{sql} does not factor:\n{}", plans.rows));
        assert_eq!(factored.schema().as_arrow(), plans.rows.schema().as_arrow(), "{sql}");
        assert_eq!(factored.schema().columns(), plans.rows.schema().columns(), "{sql}");
    }
}

#[tokio::test]
async fn what_does_not_factor_stays_as_it_is() {
    let tables = Tables::new([&[], &[], &[]]);
    for sql in NOT_FACTORED {
        assert!(tables.plans(sql).await.factored.is_none(), "{sql}");
    }
}

#[tokio::test]
async fn each_leaf_has_an_aggregate_directly_above() {
    let tables = Tables::new([&[], &[], &[]]);
    for sql in FACTORED {
        let text = tables.plans(sql).await.factored.unwrap().display_indent().to_string();
        let mut scans = 0;
        let lines: Vec<_> = text.lines().map(str::trim_start).collect();
        for (number, _) in lines.iter().enumerate().filter(|(_, line)| line.starts_with("TableScan")) {
            let row_local = ["Projection", "Filter", "SubqueryAlias"];
            let above = lines[..number].iter().rev().find(|line| !row_local.iter().any(|name| line.starts_with(name)));
            assert!(above.unwrap().starts_with("Aggregate"), "{sql}\n{text}");
            scans += 1;
        }
        assert!(scans > 1 && text.contains("factored_2_key_1"), "{sql}\n{text}");
    }
}

/// Tables `a` and `b` whose rows all have the key 1.
fn all_joined(a: &[Row], b: &[Row]) -> Tables {
    let keyed = |rows: &[Row]| -> Vec<Row> { rows.iter().map(|row| Row { k: Some(1), ..row.clone() }).collect() };
    Tables::new([&keyed(a), &keyed(b), &[]])
}

#[tokio::test]
async fn doubles_that_are_not_finite_give_what_the_rows_give() {
    const VALUES: [f64; 10] =
        [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.5, -2.0, 1e200, -1e200];
    const SQL: &str = "SELECT a.k, SUM(a.f * b.f), AVG(a.f * b.f), SUM(a.f), AVG(b.f), SUM(a.f * b.f * 0.5), \
                       SUM(a.f * b.i), COUNT(a.f * b.f) FROM a JOIN b ON a.k = b.k GROUP BY a.k";
    let mut rng = StdRng::seed_from_u64(7);
    let rows = |rng: &mut StdRng| -> Vec<Row> {
        let row = |rng: &mut StdRng| Row {
            k: Some(rng.random_range(0..3)),
            i: Some(rng.random_range(-1..2)),
            f: Some(VALUES[rng.random_range(0..VALUES.len())]).filter(|_| !rng.random_bool(0.1)),
            ..Row::default()
        };
        (0..rng.random_range(1..4)).map(|_| row(rng)).collect()
    };
    for _ in 0..400 {
        let (a, b) = (rows(&mut rng), rows(&mut rng));
        let [by_rows, factored] = Tables::new([&a, &b, &[]]).both(SQL).await.map(|rows| rows.unwrap());
        if let Some(difference) = difference(&by_rows, &factored, 1e190) {
            panic!("{difference}\n{a:?}\n{b:?}");
        }
    }
}

#[tokio::test]
async fn a_sum_of_doubles_that_overflows_is_an_error() {
    let huge = Row { f: Some(f64::MAX), ..Row::default() };
    let half = Row { f: Some(0.5), ..Row::default() };
    let sql = "SELECT SUM(a.f * b.f) FROM a JOIN b ON a.k = b.k";
    let tables = all_joined(&[huge.clone(), huge], std::slice::from_ref(&half));
    let message = tables.both(sql).await[1].clone().unwrap_err();
    assert!(message.contains("a sum of doubles over a join overflows"), "{message}");
}

#[tokio::test]
async fn extremes_of_doubles_know_the_infinities_and_nan() {
    let row = |f| Row { f: Some(f), ..Row::default() };
    let sql = "SELECT a.k, MIN(a.f) AS least, MAX(a.f) AS greatest FROM a JOIN b ON a.k = b.k GROUP BY a.k";
    for (values, least, greatest) in [
        (vec![f64::NEG_INFINITY], f64::NEG_INFINITY, f64::NEG_INFINITY),
        (vec![f64::INFINITY, 1.0], 1.0, f64::INFINITY),
        (vec![f64::NAN, 1.0, 2.0], 1.0, f64::NAN),
        (vec![1.0, f64::NAN, 0.5], 0.5, f64::NAN),
    ] {
        let rows: Vec<_> = values.iter().copied().map(row).collect();
        let [_, factored] = all_joined(&rows, &[row(1.0), row(2.0)]).both(sql).await;
        let found = sorted(&factored.unwrap()).1;
        assert_eq!(format!("{found:?}"), format!("{:?}", [[Some(least), Some(greatest)]]));
    }
}

/// What `sql` gives in both forms, an error as `None`.
async fn values_of(sql: &str, a: &[Row], b: &[Row]) -> [Option<Rows>; 2] {
    all_joined(a, b).both(sql).await.map(|rows| rows.ok().map(|rows| sorted(&rows).0))
}

#[tokio::test]
async fn integers_and_decimals_are_exact_up_to_the_bounds_of_the_result() {
    let i = |i| Row { i: Some(i), ..Row::default() };
    let w = |w| Row { w: Some(w), i: Some(1), ..Row::default() };
    let sum = "SELECT SUM(a.i * b.i) FROM a JOIN b ON a.k = b.k";
    let exactly = |value: i128| Some(vec![vec![value.to_string()]]);
    let most = i64::MAX;
    // The sum of one side does not fit, the whole does.
    let whole = values_of(sum, &[i(most), i(most), i(-most)], &[i(1)]).await;
    assert_eq!(whole, [exactly(i128::from(most)), exactly(i128::from(most))]);
    // The whole does not fit.
    assert_eq!(values_of(sum, &[i(most), i(1)], &[i(1)]).await, [None, None]);
    assert_eq!(values_of(sum, &[i(most), i(most)], &[i(most - 1)]).await, [None, None]);
    assert_eq!(values_of(sum, &[i(i64::MIN), i(-1)], &[i(1)]).await, [None, None]);
    // A product of two rows does not fit, which only the join of rows looks at.
    let cancelled = values_of(sum, &[i(most), i(-most)], &[i(4)]).await;
    assert_eq!(cancelled, [None, exactly(0)]);
    let average = "SELECT CAST(AVG(a.i * b.i) AS BIGINT) FROM a JOIN b ON a.k = b.k";
    assert_eq!(values_of(average, &[i(1 << 40), i(1 << 40)], &[i(4)]).await, [exactly(1 << 42), exactly(1 << 42)]);
    let wide = "SELECT SUM(a.w), COUNT(*) FROM a JOIN b ON a.k = b.k";
    let big = 10_i128.pow(38) - 1;
    let one = Some(vec![vec![decimal_text(big), "3".to_owned()]]);
    assert_eq!(values_of(wide, &[w(big), w(big), w(-big)], &[w(0)]).await, [one.clone(), one]);
    assert_eq!(values_of(wide, &[w(big), w(1)], &[w(0)]).await, [None, None]);
    assert_eq!(values_of(wide, &[w(big)], &[w(0), w(0)]).await, [None, None]);
}

#[tokio::test]
async fn sums_that_would_go_around_256_bits_fail() {
    let big = Row { w: Some(10_i128.pow(38) - 1), ..Row::default() };
    let rows = vec![big; 4];
    let [_, factored] = values_of("SELECT SUM(a.w * b.w) FROM a JOIN b ON a.k = b.k", &rows, &rows).await;
    assert_eq!(factored, None);
}

fn decimal_text(value: i128) -> String {
    let digits = value.to_string();
    let (whole, part) = digits.split_at(digits.len() - 4);
    format!("{whole}.{part}")
}

#[tokio::test]
async fn rows_that_meet_no_other_cannot_fail() {
    let a = [Row { k: Some(1), i: Some(i64::MAX), n: Some(2), ..Row::default() }];
    let b = [Row { k: Some(2), i: Some(i64::MAX), n: Some(2), ..Row::default() }];
    let tables = Tables::new([&a, &b, &[]]);
    let sql = "SELECT SUM(a.i * a.n * b.n), SUM((a.i + a.n) * b.i), COUNT(a.i * a.n * b.i), SUM(-a.i * b.i) FROM a \
               JOIN b ON a.k = b.k";
    let [by_rows, factored] = tables.both(sql).await.map(|rows| sorted(&rows.unwrap()).0);
    assert_eq!(by_rows, factored);
}
