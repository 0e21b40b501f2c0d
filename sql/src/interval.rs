//! Interval joins: rows of two endless streams whose event times lie within fixed bounds of each other.
//!
//! `a JOIN b ON a.k = b.k AND a.ts BETWEEN b.ts - INTERVAL '10' SECOND AND b.ts + INTERVAL '5' SECOND` keeps each row
//! until no row to come can lie within the bounds. It becomes a join of windows by row that are long enough, whose
//! combinations are given once: [`EmissionMode::Pairs`]. So are the rows of an outer join without a partner, when they
//! leave their window; its bounds must be in ON, as WHERE would drop those rows.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::catalog::default_table_source::{provider_as_source, source_as_provider};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, JoinType, Result as DataFusionResult, ScalarValue, TableReference};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Expr, Join, LogicalPlan, LogicalPlanBuilder, Operator, TableScan};
use millstream_engine::plan::{EmissionMode, StreamTable};
use millstream_engine::time::Span;
use millstream_engine::window::WindowSpec;

use crate::error::{Error, Result};
use crate::statement::ParsedQuery;

const EXAMPLE: &str = "bound the event times on both sides: a.ts BETWEEN b.ts - INTERVAL '10' SECOND AND b.ts + INTERVAL \
                       '5' SECOND; or give both a window: a [Range 5 minutes, Slide 1 minute]";

/// A stream as a join names it.
struct Side {
    name: TableReference,
    /// The column of its event time, unless that is arrival time.
    time: Option<String>,
}

/// How far the event time of the first side may lie from that of the second.
#[derive(Debug, Default)]
struct Bounds {
    least: Option<i64>,
    most: Option<i64>,
}

/// `plan` as a join of windows, if it joins two endless streams within bounds of time.
///
/// # Errors
/// It joins two endless streams whose event times it does not bound on both sides, or does more than join them.
pub(crate) fn interval_join(plan: &LogicalPlan, query: &ParsedQuery) -> Result<Option<LogicalPlan>> {
    let sides = sides_of(plan);
    let [first, second] = sides.as_slice() else { return Ok(None) };
    let Some(join) = stream_join(plan) else { return Ok(None) };
    let mut bounds = Bounds::default();
    let is_outer = join.join_type != JoinType::Inner;
    for condition in if is_outer { conditions_of(join) } else { conditions(plan) } {
        bounds.take(&condition, first, second);
    }
    let (Some(least), Some(most)) = (bounds.least, bounds.most) else { return Ok(None) };
    let place = query.find(&["join", "from"]);
    if let Some(other) = beyond_a_join(plan, join) {
        let error = Error::unsupported(format!("{other} over a join of endless streams within bounds of time"), "");
        let hint = "only filters and expressions may stand over it; give both streams a window instead";
        return Err(error.hint(hint).at(place));
    }
    if is_outer && [&join.left, &join.right].into_iter().any(|side| has_join(side)) {
        let error = Error::unsupported("a join under an outer join of endless streams within bounds of time", "");
        return Err(error.hint("join the table with the result: (a LEFT JOIN b ON …) JOIN t ON …").at(place));
    }
    if least > most {
        let error =
            Error::new("no event times lie within the bounds of the join: the lower one is above the upper one");
        return Err(error.hint(EXAMPLE).at(place));
    }
    // A row of the first side waits for rows up to −least later, one of the second for rows up to most later.
    let ranges = [least.saturating_neg(), most].map(|wait| Span(wait.max(0).saturating_add(1)));
    let windows = ranges.map(WindowSpec::by_row);
    let [Ok(first_window), Ok(second_window)] = windows else { return Ok(None) };
    let windowed = give_windows(plan, &[(&first.name, first_window), (&second.name, second_window)]);
    windowed.map(Some).map_err(|error| Error {
        source: Some(std::sync::Arc::new(error)),
        ..Error::new("the join within bounds of time cannot be planned")
    })
}

/// What an interval join gives of its results.
pub(crate) const MODE: EmissionMode = EmissionMode::Pairs;

/// The endless streams of a plan under the names that its expressions use.
fn sides_of(plan: &LogicalPlan) -> Vec<Side> {
    let mut sides = Vec::new();
    collect_sides(plan, None, &mut sides);
    sides
}

fn collect_sides(plan: &LogicalPlan, alias: Option<&TableReference>, sides: &mut Vec<Side>) {
    match plan {
        LogicalPlan::SubqueryAlias(inner) => {
            let known = sides.len();
            collect_sides(&inner.input, Some(&inner.alias), sides);
            if !matches!(inner.input.as_ref(), LogicalPlan::TableScan(_) | LogicalPlan::SubqueryAlias(_)) {
                // Whatever is called as the event time above may be another expression beneath.
                sides.iter_mut().skip(known).for_each(|side| side.time = None);
            }
        }
        LogicalPlan::TableScan(scan) => {
            if let Some(table) = stream(scan) {
                let rule = match table.input() {
                    millstream_engine::plan::Input::Stream(stream) => stream.event_time,
                    millstream_engine::plan::Input::View(_) => None,
                };
                let schema = table.input().schema();
                let time = rule.and_then(|rule| Some(schema.fields().get(rule.column)?.name().clone()));
                sides.push(Side { name: alias.unwrap_or(&scan.table_name).clone(), time });
            }
        }
        // Below a projection or a filter the alias around it is another one's.
        other => other.inputs().into_iter().for_each(|input| collect_sides(input, None, sides)),
    }
}

/// The endless stream that a scan reads.
fn stream(scan: &TableScan) -> Option<StreamTable> {
    let provider = source_as_provider(&scan.source).ok()?;
    let provider: &dyn std::any::Any = provider.as_ref();
    provider.downcast_ref::<StreamTable>().filter(|table| table.window().is_none()).cloned()
}

/// The join of which both sides read an endless stream, if it is one that gives combinations and lone rows.
fn stream_join(plan: &LogicalPlan) -> Option<&Join> {
    let reads = |plan: &LogicalPlan| !sides_of(plan).is_empty();
    match plan {
        LogicalPlan::Join(join) if reads(&join.left) && reads(&join.right) => {
            let kinds = [JoinType::Inner, JoinType::Left, JoinType::Right, JoinType::Full];
            kinds.contains(&join.join_type).then_some(join)
        }
        other => other.inputs().into_iter().find_map(stream_join),
    }
}

fn has_join(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Join(_)) || plan.inputs().into_iter().any(has_join)
}

/// A node that asks for more than each combination of rows that `stream_join` gives.
fn beyond_a_join(plan: &LogicalPlan, stream_join: &Join) -> Option<String> {
    let is_row_wise = match plan {
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::TableScan(_)
        | LogicalPlan::Values(_)
        | LogicalPlan::EmptyRelation(_) => true,
        LogicalPlan::Join(join) => join.join_type == JoinType::Inner || std::ptr::eq(join, stream_join),
        other => sides_of(other).is_empty(),
    };
    if !is_row_wise {
        return Some(node_name(plan));
    }
    plan.inputs().into_iter().find_map(|input| beyond_a_join(input, stream_join))
}

/// What the user wrote for a node.
pub(crate) fn node_name(plan: &LogicalPlan) -> String {
    if matches!(plan, LogicalPlan::Join(_)) {
        return "a join".to_owned();
    }
    let text = plan.display().to_string();
    let name = text.split([':', ' ']).next().unwrap_or_default().to_uppercase();
    match name.as_str() {
        "AGGREGATE" => "GROUP BY".to_owned(),
        "SORT" => "ORDER BY".to_owned(),
        _ => name,
    }
}

/// Every condition that holds for all rows of the result.
fn conditions(plan: &LogicalPlan) -> Vec<Expr> {
    let mut all = Vec::new();
    let visited: DataFusionResult<_> = plan.apply(|node| {
        match node {
            LogicalPlan::Filter(filter) => all.extend(split_conjunction(&filter.predicate).into_iter().cloned()),
            LogicalPlan::Join(join) if join.join_type == JoinType::Inner => all.extend(conditions_of(join)),
            _ => {}
        }
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    all
}

/// The conditions of a join itself.
fn conditions_of(join: &Join) -> Vec<Expr> {
    let equal = join.on.iter().map(|(left, right)| left.clone().eq(right.clone()));
    join.filter.iter().flat_map(|filter| split_conjunction(filter)).cloned().chain(equal).collect()
}

impl Bounds {
    /// Takes in what a condition says about the two event times.
    fn take(&mut self, condition: &Expr, first: &Side, second: &Side) {
        match condition {
            Expr::Between(between) if !between.negated => {
                self.compare(&between.expr, Operator::GtEq, &between.low, first, second);
                self.compare(&between.expr, Operator::LtEq, &between.high, first, second);
            }
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => self.compare(left, *op, right, first, second),
            _ => {}
        }
    }

    fn compare(&mut self, left: &Expr, op: Operator, right: &Expr, first: &Side, second: &Side) {
        let (Some((left_first, left_shift)), Some((right_first, right_shift))) =
            (moved_time(left, first, second), moved_time(right, first, second))
        else {
            return;
        };
        if left_first == right_first {
            return;
        }
        // left + l op right + r, so that the difference of the times is compared with r − l.
        let Some(shift) = right_shift.checked_sub(left_shift) else { return };
        let (op, shift) = if left_first { (Some(op), shift) } else { (op.swap(), shift.saturating_neg()) };
        match op {
            Some(Operator::Gt | Operator::GtEq) => self.least = Some(self.least.map_or(shift, |l| l.max(shift))),
            Some(Operator::Lt | Operator::LtEq) => self.most = Some(self.most.map_or(shift, |m| m.min(shift))),
            Some(Operator::Eq) => {
                self.least = Some(self.least.map_or(shift, |l| l.max(shift)));
                self.most = Some(self.most.map_or(shift, |m| m.min(shift)));
            }
            _ => {}
        }
    }
}

/// Whether an expression is the event time of the first side or of the second, and what is added to it.
fn moved_time(expression: &Expr, first: &Side, second: &Side) -> Option<(bool, i64)> {
    match expression {
        Expr::Column(column) if is_time(column, first) => Some((true, 0)),
        Expr::Column(column) if is_time(column, second) => Some((false, 0)),
        // A coarser type would move the time by an amount that is not the same for all rows.
        Expr::Cast(cast) if *cast.field.data_type() == DataType::Timestamp(TimeUnit::Nanosecond, None) => {
            moved_time(&cast.expr, first, second)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (is_first, shift) = moved_time(left, first, second)?;
            let Expr::Literal(length, _) = right.as_ref() else { return None };
            let length = nanoseconds(length)?;
            match op {
                Operator::Plus => Some((is_first, shift.checked_add(length)?)),
                Operator::Minus => Some((is_first, shift.checked_sub(length)?)),
                _ => None,
            }
        }
        _ => None,
    }
}

fn is_time(column: &Column, side: &Side) -> bool {
    side.time.as_deref() == Some(column.name.as_str()) && column.relation.as_ref() == Some(&side.name)
}

/// The length of an interval without months.
pub(crate) fn nanoseconds(length: &ScalarValue) -> Option<i64> {
    const DAY: i64 = 86_400 * 1_000_000_000;
    match length {
        ScalarValue::IntervalMonthDayNano(Some(value)) if value.months == 0 => {
            i64::from(value.days).checked_mul(DAY)?.checked_add(value.nanoseconds)
        }
        ScalarValue::IntervalDayTime(Some(value)) => {
            let millis = i64::from(value.milliseconds).checked_mul(1_000_000)?;
            i64::from(value.days).checked_mul(DAY)?.checked_add(millis)
        }
        _ => None,
    }
}

/// `plan` with its two streams seen through windows; the columns stay.
fn give_windows(plan: &LogicalPlan, windows: &[(&TableReference, WindowSpec)]) -> DataFusionResult<LogicalPlan> {
    let mut windows = windows.iter();
    let windowed = plan.clone().transform_up(|node| {
        let LogicalPlan::TableScan(scan) = &node else { return Ok(Transformed::no(node)) };
        let Some(table) = stream(scan) else { return Ok(Transformed::no(node)) };
        // Sides were found in the same order.
        let Some((_, window)) = windows.next() else { return Ok(Transformed::no(node)) };
        let leaf = StreamTable::new(table.input().clone(), Some(*window));
        let shown = scan.projection.clone().unwrap_or_else(|| (0..leaf.columns().len()).collect());
        let name = TableReference::bare(leaf.scan_name());
        let scan = LogicalPlanBuilder::scan(name, provider_as_source(std::sync::Arc::new(leaf)), Some(shown))?
            .alias(scan.table_name.clone())?
            .build()?;
        Ok(Transformed::yes(scan))
    })?;
    Ok(windowed.data)
}
