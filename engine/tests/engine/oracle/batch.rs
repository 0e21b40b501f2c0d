//! The same SQL, once for each instant, as a batch query over the finite contents of its windows.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, TimestampNanosecondArray, UInt64Array};
use datafusion::arrow::compute::{concat_batches, take_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::datasource::MemTable;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use millstream_engine::plan::{Input, StreamTable, WindowedView};

use super::kinds::{Held, Kind, Placed, instants_of_all};
use super::plain::SUM_SLACK;
use super::{Log, Replay, Window, declared};

/// A windowed relation under the name that queries use for it.
#[derive(Debug, Clone)]
pub(crate) struct Relation {
    pub(crate) table: String,
    pub(crate) input: Input,
    pub(crate) window: Window,
    /// All rows in order of their position.
    rows: RecordBatch,
    placed: Vec<Placed>,
    /// Sum of the sizes of the doubles of each row.
    sizes: Vec<f64>,
}

impl Relation {
    /// A stream seen through a window.
    pub(crate) fn of_stream(table: &str, log: &Log, replay: &Replay, window: Window) -> Self {
        let placed = replay.rows.iter().map(|seen| Placed {
            time: seen.row.time,
            watermark: seen.watermark,
            key: if window.is_keyed { format!("{:?}", seen.row.k) } else { String::new() },
        });
        let placed = placed.collect();
        Self {
            table: table.to_owned(),
            input: Input::Stream(log.definition()),
            window,
            rows: log.batch(replay.rows.iter().map(|seen| &seen.row)),
            placed,
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
        let is_by_row =
            |relation: &Self| matches!(relation.window.kind, Kind::ByRow | Kind::LatestByRow(_) | Kind::Counted(..));
        let by_row = inner.iter().all(is_by_row);
        let mut times = Vec::new();
        let mut sizes = Vec::new();
        for (instant, result) in &results {
            let count: usize = result.batches.iter().map(RecordBatch::num_rows).sum();
            times.extend(std::iter::repeat_n(if by_row { *instant } else { instant - 1 }, count));
            sizes.extend(std::iter::repeat_n(result.slack / SUM_SLACK, count));
        }
        let rows = concat_batches(&schema, &rows.collect::<Vec<_>>()).unwrap();
        let keys = if window.is_keyed { texts(&rows, "k") } else { vec![String::new(); times.len()] };
        let placed = times.into_iter().zip(keys).map(|(time, key)| Placed { time, watermark: None, key });
        let placed = placed.collect();
        Self {
            table: table.to_owned(),
            input: Input::View(Arc::new(WindowedView { name: name.to_owned(), query })),
            window,
            rows,
            placed,
            sizes,
        }
    }

    /// What the relation holds at `instant`, an instant of its own or of another.
    fn contents(&self, instant: i64) -> (RecordBatch, f64) {
        let held = self.window.contents(&self.placed, instant);
        let size = held.iter().map(|held| self.sizes[held.number]).sum();
        let numbers: UInt64Array = held.iter().map(|held| Some(held.number as u64)).collect();
        let rows = take_record_batch(&self.rows, &numbers).unwrap();
        (self.with_bounds(&rows, &held), size)
    }

    fn with_bounds(&self, rows: &RecordBatch, held: &[Held]) -> RecordBatch {
        let starts: Vec<_> = held.iter().map(|held| held.start).collect();
        let ends: Vec<_> = held.iter().map(|held| held.end).collect();
        let mut bounds = vec![("window_start", starts), ("window_end", ends)];
        if matches!(self.window.kind, Kind::Latest(_) | Kind::LatestByRow(_) | Kind::Counted(..)) {
            bounds.remove(0);
        }
        let schema = rows.schema();
        let is_hidden = |index: usize| bounds.iter().any(|(name, _)| name == schema.field(index).name());
        let kept: Vec<_> = (0..rows.num_columns()).filter(|index| !is_hidden(*index)).collect();
        let rows = rows.project(&kept).unwrap();
        let mut fields = rows.schema().fields().to_vec();
        let mut columns = rows.columns().to_vec();
        for (name, times) in bounds {
            fields.push(Arc::new(Field::new(name, DataType::Timestamp(TimeUnit::Nanosecond, None), false)));
            columns.push(Arc::new(TimestampNanosecondArray::from(times)) as ArrayRef);
        }
        RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
    }
}

/// The values of a column as text.
fn texts(rows: &RecordBatch, column: &str) -> Vec<String> {
    let values = rows.column_by_name(column).unwrap();
    let options = FormatOptions::default().with_null("NULL");
    let formatter = ArrayFormatter::try_new(values, &options).unwrap();
    (0..rows.num_rows()).map(|row| formatter.value(row).to_string()).collect()
}

/// The plan of `sql` that the engine is given.
pub(crate) async fn logical_plan(sql: &str, relations: &[Relation]) -> LogicalPlan {
    let ctx = SessionContext::new();
    declared::aggregates().for_each(|aggregate| ctx.register_udaf(aggregate));
    for relation in relations {
        let table = StreamTable::new(relation.input.clone(), Some(relation.window.spec()));
        let key = table.input().schema().index_of("k");
        let table = if relation.window.is_keyed { table.keyed_by(vec![key.unwrap()]) } else { table };
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
    try_results(sql, relations).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}

/// The same where `sql` may be one that fails.
pub(crate) async fn try_results(sql: &str, relations: &[Relation]) -> DataFusionResult<BTreeMap<i64, AtInstant>> {
    let ctx = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let windows: Vec<_> = relations.iter().map(|relation| (relation.window, relation.placed.as_slice())).collect();
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
        let batches = ctx.sql(sql).await?.collect().await?;
        results.insert(instant, AtInstant { batches, slack: size * SUM_SLACK });
    }
    Ok(results)
}
