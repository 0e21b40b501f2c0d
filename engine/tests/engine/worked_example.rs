//! The worked example of the documentation: a windowed GROUP BY and a windowed join over a hand-written log.

use std::sync::Arc;

use datafusion::arrow::array::{Int64Array, StringViewArray, TimestampMillisecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::prelude::SessionContext;
use millstream_engine::plan::{BadData, EventTimeRule, Input, StreamDefinition, StreamTable};
use millstream_engine::query::QueryOptions;
use millstream_engine::source::PartitionId;
use millstream_engine::testing::{EvenCut, LogEvent, StreamLogScript, run_scripts};
use millstream_engine::time::Span;
use millstream_engine::window::WindowSpec;

fn definition() -> Arc<StreamDefinition> {
    let schema = Schema::new(vec![
        Field::new("k", DataType::Utf8View, true),
        Field::new("v", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
    ]);
    Arc::new(StreamDefinition {
        name: "t".into(),
        schema: Arc::new(schema),
        declared: vec!["k".into(), "v".into(), "ts".into()],
        event_time: Some(EventTimeRule { column: 2, delay: Span(0), max_future_skew: None, idle_timeout: None }),
        bad_data: BadData::DeadLetter,
        durability: None,
        rate_limit: None,
        refresh: None,
        options: Vec::new(),
    })
}

/// The worked example of the semantics page: range 10, slide 5.
fn script() -> StreamLogScript {
    let rows = [(1, "A", 10), (4, "A", 20), (5, "A", 1), (9, "B", 7), (10, "A", 100), (12, "B", 3), (21, "A", 5)];
    let batch = RecordBatch::try_new(
        Arc::clone(&definition().schema),
        vec![
            Arc::new(StringViewArray::from_iter_values(rows.iter().map(|row| row.1))),
            Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.2))),
            Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.0 * 1000))),
        ],
    );
    StreamLogScript {
        definition: definition(),
        partitions: 1,
        events: vec![LogEvent::Rows(PartitionId(0), batch.unwrap())],
        ends: true,
    }
}

async fn run(sql: &str, window: WindowSpec, cut: EvenCut) -> String {
    let ctx = SessionContext::new();
    let table = StreamTable::new(Input::Stream(definition()), Some(window));
    ctx.register_table("t", Arc::new(table)).unwrap();
    let logical = ctx.state().create_logical_plan(sql).await.unwrap();
    let mut cut = cut;
    let run = run_scripts(&logical, &[script()], &mut cut, QueryOptions::default(), None).await.unwrap();
    let mut lines: Vec<String> =
        pretty_format_batches(&run.batches()).unwrap().to_string().lines().skip(3).map(str::to_owned).collect();
    lines.retain(|line| !line.starts_with('+'));
    lines.sort();
    lines.join("\n")
}

const CUTS: [EvenCut; 3] = [
    EvenCut { block_rows: 1, records: 1 },
    EvenCut { block_rows: 2, records: 3 },
    EvenCut { block_rows: 100, records: 100 },
];

#[tokio::test(flavor = "multi_thread")]
async fn the_worked_example_of_group_by_gives_its_windows() {
    let window = WindowSpec::new(Span::seconds(10), Span::seconds(5)).unwrap();
    for cut in CUTS {
        let rows = run("SELECT window_end, k, SUM(v) AS s FROM t GROUP BY window_end, k", window, cut).await;
        let expected = "\
| 1970-01-01T00:00:05 | A | 30  |
| 1970-01-01T00:00:10 | A | 31  |
| 1970-01-01T00:00:10 | B | 7   |
| 1970-01-01T00:00:15 | A | 101 |
| 1970-01-01T00:00:15 | B | 10  |
| 1970-01-01T00:00:20 | A | 100 |
| 1970-01-01T00:00:20 | B | 3   |
| 1970-01-01T00:00:25 | A | 5   |
| 1970-01-01T00:00:30 | A | 5   |";
        assert_eq!(rows, expected, "{cut:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_worked_example_closed_on_the_right_gives_its_windows() {
    let window = WindowSpec::new(Span::seconds(10), Span::seconds(5)).unwrap().closed_right();
    for cut in CUTS {
        let rows = run("SELECT window_end, k, SUM(v) AS s FROM t GROUP BY window_end, k", window, cut).await;
        let expected = "\
| 1970-01-01T00:00:05 | A | 31  |
| 1970-01-01T00:00:10 | A | 131 |
| 1970-01-01T00:00:10 | B | 7   |
| 1970-01-01T00:00:15 | A | 100 |
| 1970-01-01T00:00:15 | B | 10  |
| 1970-01-01T00:00:20 | B | 3   |
| 1970-01-01T00:00:25 | A | 5   |
| 1970-01-01T00:00:30 | A | 5   |";
        assert_eq!(rows, expected, "{cut:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_self_join_over_rows_gives_every_pair_of_each_window() {
    let window = WindowSpec::new(Span::seconds(10), Span::seconds(10)).unwrap();
    for cut in CUTS {
        let sql = "SELECT a.window_end, a.k, COUNT(*) AS pairs, first_value(a.v) AS first FROM t a JOIN t b \
                   ON a.k = b.k GROUP BY a.window_end, a.k";
        let rows = run(sql, window, cut).await;
        let expected = "\
| 1970-01-01T00:00:10 | A | 9     | 10    |
| 1970-01-01T00:00:10 | B | 1     | 7     |
| 1970-01-01T00:00:20 | A | 1     | 100   |
| 1970-01-01T00:00:20 | B | 1     | 3     |
| 1970-01-01T00:00:30 | A | 1     | 5     |";
        assert_eq!(rows, expected, "{cut:?}");
    }
}
