//! Logs written down by hand that have no end, whose watermark moves by promises, and that are run over a crash.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, TimestampMillisecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::pretty::pretty_format_batches;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use millstream_engine::plan::{BadData, Emission, EventTimeRule, Input, StreamDefinition, StreamTable};
use millstream_engine::query::QueryOptions;
use millstream_engine::source::PartitionId;
use millstream_engine::testing::{Crash, EvenCut, LogEvent, StreamLogScript, run_restarted, run_scripts};
use millstream_engine::time::{EventTime, Span};
use millstream_engine::window::WindowSpec;

/// A stream of numbers with event times; without a rule they have the time at which they arrive.
fn stream(has_event_time: bool) -> Arc<StreamDefinition> {
    let time = DataType::Timestamp(TimeUnit::Millisecond, None);
    let fields = vec![Field::new("v", DataType::Int64, true), Field::new("ts", time, true)];
    let rule = EventTimeRule { column: 1, delay: Span(0), max_future_skew: None, idle_timeout: None };
    Arc::new(StreamDefinition {
        name: "t".to_owned(),
        schema: Arc::new(Schema::new(fields)),
        declared: vec!["v".to_owned(), "ts".to_owned()],
        event_time: has_event_time.then_some(rule),
        bad_data: BadData::DeadLetter,
        durability: None,
        rate_limit: None,
        refresh: None,
        options: Vec::new(),
    })
}

fn rows(definition: &StreamDefinition, rows: &[(i64, i64)]) -> LogEvent {
    let columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.0))),
        Arc::new(TimestampMillisecondArray::from_iter_values(rows.iter().map(|row| row.1))),
    ];
    LogEvent::Rows(PartitionId(0), RecordBatch::try_new(Arc::clone(&definition.schema), columns).unwrap())
}

const fn seconds(seconds: i64) -> LogEvent {
    LogEvent::Watermark(EventTime(seconds * 1_000_000_000))
}

/// The sum of each window of ten seconds.
async fn sums(definition: &Arc<StreamDefinition>) -> LogicalPlan {
    let ctx = SessionContext::new();
    let window = WindowSpec::new(Span::seconds(10), Span::seconds(10)).unwrap();
    let table = StreamTable::new(Input::Stream(Arc::clone(definition)), Some(window));
    ctx.register_table("t", Arc::new(table)).unwrap();
    let sql = "SELECT window_end, SUM(v) AS v FROM t GROUP BY window_end";
    ctx.state().create_logical_plan(sql).await.unwrap()
}

/// The rows of a table as it is printed.
fn shown(batches: &[RecordBatch]) -> Vec<String> {
    let table = pretty_format_batches(batches).unwrap().to_string();
    table.lines().skip(3).filter(|line| !line.starts_with('+')).map(str::to_owned).collect()
}

const CUT: EvenCut = EvenCut { block_rows: 1, records: 2 };

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_closes_windows_and_makes_rows_late_and_an_open_end_closes_none() {
    let definition = stream(true);
    let events = vec![
        rows(&definition, &[(1, 1_000), (2, 9_000)]),
        seconds(10),
        rows(&definition, &[(4, 9_999), (8, 10_000)]),
        seconds(5),
        rows(&definition, &[(16, 19_000)]),
    ];
    let mut script = StreamLogScript { definition: Arc::clone(&definition), partitions: 1, events, ends: false };
    let logical = sums(&definition).await;
    let first = "| 1970-01-01T00:00:10 | 3 |";
    let options = QueryOptions::default();
    let run = run_scripts(&logical, &[script.clone()], &mut { CUT }, options.clone(), None).await.unwrap();
    assert_eq!(shown(&run.batches()), [first]);
    assert_eq!(run.late.iter().map(RecordBatch::num_rows).sum::<usize>(), 1);
    script.ends = true;
    let run = run_scripts(&logical, &[script], &mut { CUT }, options, None).await.unwrap();
    assert_eq!(shown(&run.batches()).len(), 2, "{:?}", shown(&run.batches()));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_event_time_rows_have_the_time_of_the_last_promise() {
    let definition = stream(false);
    let events = vec![rows(&definition, &[(1, 0)]), seconds(10), rows(&definition, &[(2, 0), (4, 0)]), seconds(20)];
    let script = StreamLogScript { definition: Arc::clone(&definition), partitions: 1, events, ends: false };
    let logical = sums(&definition).await;
    let run = run_scripts(&logical, &[script], &mut { CUT }, QueryOptions::default(), None).await.unwrap();
    assert_eq!(shown(&run.batches()), ["| 1970-01-01T00:00:10 | 1 |", "| 1970-01-01T00:00:20 | 6 |"]);
}

#[test]
fn a_run_over_a_crash_gives_the_same_rows_wherever_it_crashes() {
    for has_event_time in [true, false] {
        let definition = stream(has_event_time);
        let mut events = Vec::new();
        for number in 0..12 {
            events.push(rows(&definition, &[(number, number * 4_000), (100, number * 3_000)]));
            events.push(seconds(number * 3));
        }
        let script =
            StreamLogScript { definition: Arc::clone(&definition), partitions: 1, events, ends: has_event_time };
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let logical = runtime.block_on(sums(&definition));
        let scripts = [script];
        let options = QueryOptions::default();
        let mut cut = CUT;
        let whole = run_scripts(&logical, &scripts, &mut cut, options.clone(), None);
        let whole = shown(&runtime.block_on(whole).unwrap().batches());
        assert!(whole.len() > 2, "{whole:?}");
        for rounds in [1, 4, 9, 100] {
            for is_in_commit in [false, true] {
                let crash = Crash { rounds, is_in_commit, checkpoint_epochs: 3 };
                let folder = tempfile::tempdir().unwrap();
                let rows = run_restarted(
                    &logical,
                    Emission::default(),
                    &scripts,
                    &mut { CUT },
                    &options,
                    folder.path(),
                    crash,
                );
                assert_eq!(shown(&rows.unwrap()), whole, "{crash:?}");
            }
        }
    }
}
