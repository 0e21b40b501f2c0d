//! The same SQL, once for each instant, as a batch query over the finite contents of its windows.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, TimestampNanosecondArray, UInt64Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use millstream_engine::plan::{Input, StreamTable, WindowedView};

use super::plain::SUM_SLACK;
use super::{Log, Places, Replay, Window, declared, instants_of_all};

/// A windowed relation under the name that queries use for it.
#[derive(Debug, Clone)]
pub(crate) struct Relation {
    pub(crate) table: String,
    pub(crate) input: Input,
    pub(crate) window: Window,
    /// All rows in order of their position.
    rows: RecordBatch,
    places: Places,
    /// Sum of the sizes of the doubles of each row.
    sizes: Vec<f64>,
}

impl Relation {
    /// A stream seen through a window.
    pub(crate) fn of_stream(table: &str, log: &Log, replay: &Replay, window: Window) -> Self {
        let (places, _) = window.place(replay.rows.iter().map(|seen| (seen.row.time, seen.watermark)));
        Self {
            table: table.to_owned(),
            input: Input::Stream(log.definition()),
            window,
            rows: log.batch(replay.rows.iter().map(|seen| &seen.row)),
            places,
            sizes: replay.rows.iter().map(|seen| seen.row.f.unwrap_or(0.0).abs()).collect(),
        }
    }

    /// The rows of a windowed query seen through a window; those of instant `e` have the time `e − 1`.
    pub(crate) async fn of_view(table: &str, name: &str, sql: &str, inner: &[Self], window: Window) -> Self {
        let query = logical_plan(sql, inner).await;
        let results = results(sql, inner).await;
        let schema = Arc::clone(query.schema().inner());
        let batches: Vec<_> = results.values().flat_map(|result| &result.batches).collect();
        let rows =
            batches.iter().map(|batch| RecordBatch::try_new(Arc::clone(&schema), batch.columns().to_vec()).unwrap());
        let mut times = Vec::new();
        let mut sizes = Vec::new();
        for (instant, result) in &results {
            let count: usize = result.batches.iter().map(RecordBatch::num_rows).sum();
            times.extend(std::iter::repeat_n(instant - 1, count));
            sizes.extend(std::iter::repeat_n(result.slack / SUM_SLACK, count));
        }
        let (places, _) = window.place(times.into_iter().map(|time| (time, None)));
        Self {
            table: table.to_owned(),
            input: Input::View(Arc::new(WindowedView { name: name.to_owned(), query })),
            window,
            rows: concat_batches(&schema, &rows.collect::<Vec<_>>()).unwrap(),
            places,
            sizes,
        }
    }

    /// What the relation holds at `instant`, an instant of its own or of another.
    fn contents(&self, instant: i64) -> (RecordBatch, f64) {
        let own = self.window.last_instant(instant);
        let numbers = self.places.get(&own).map_or(&[][..], Vec::as_slice);
        let size = numbers.iter().map(|number| self.sizes[*number]).sum();
        let numbers: UInt64Array = numbers.iter().map(|number| Some(*number as u64)).collect();
        let rows = take_record_batch(&self.rows, &numbers).unwrap();
        (with_bounds(&rows, own - self.window.range, own), size)
    }
}

fn with_bounds(rows: &RecordBatch, start: i64, end: i64) -> RecordBatch {
    let bounds = ["window_start", "window_end"];
    let schema = rows.schema();
    let kept: Vec<_> =
        (0..rows.num_columns()).filter(|index| !bounds.contains(&schema.field(*index).name().as_str())).collect();
    let rows = rows.project(&kept).unwrap();
    let mut fields = rows.schema().fields().to_vec();
    let mut columns = rows.columns().to_vec();
    for (name, time) in bounds.iter().zip([start, end]) {
        fields.push(Arc::new(Field::new(*name, DataType::Timestamp(TimeUnit::Nanosecond, None), false)));
        columns.push(Arc::new(TimestampNanosecondArray::from_value(time, rows.num_rows())) as ArrayRef);
    }
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

/// The plan of `sql` that the engine is given.
pub(crate) async fn logical_plan(sql: &str, relations: &[Relation]) -> LogicalPlan {
    let ctx = SessionContext::new();
    declared::aggregates().for_each(|aggregate| ctx.register_udaf(aggregate));
    for relation in relations {
        let table = StreamTable::new(relation.input.clone(), Some(relation.window.spec()));
        ctx.register_table(relation.table.as_str(), Arc::new(table)).unwrap();
    }
    ctx.state().create_logical_plan(sql).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// What a query gives at one instant.
#[derive(Debug)]
pub(crate) struct AtInstant {
    pub(crate) batches: Vec<RecordBatch>,
    /// How far sums of the window's doubles may lie apart.
    pub(crate) slack: f64,
}

/// The results of `sql` at each instant at which some relation has rows.
pub(crate) async fn results(sql: &str, relations: &[Relation]) -> BTreeMap<i64, AtInstant> {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let windows: Vec<_> = relations.iter().map(|relation| (relation.window, &relation.places)).collect();
    let mut results = BTreeMap::new();
    for instant in instants_of_all(&windows) {
        let contents: Vec<_> = relations.iter().map(|relation| relation.contents(instant)).collect();
        if contents.iter().all(|(rows, _)| rows.num_rows() == 0) {
            continue;
        }
        let mut size = 0.0;
        for (relation, (rows, part)) in relations.iter().zip(contents) {
            size += part;
            let table = MemTable::try_new(rows.schema(), vec![vec![rows]]).unwrap();
            ctx.deregister_table(relation.table.as_str()).unwrap();
            ctx.register_table(relation.table.as_str(), Arc::new(table)).unwrap();
        }
        let batches = async { ctx.sql(sql).await?.collect().await }.await;
        let batches = batches.unwrap_or_else(|error| panic!("{sql}: {error}"));
        results.insert(instant, AtInstant { batches, slack: size * SUM_SLACK });
    }
    results
}
