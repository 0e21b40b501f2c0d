//! Making every result a function of the input log: ties are broken by where a row stands in it.
//!
//! Aggregates that depend on order (`first_value`, `array_agg`, …) and window functions order by the position of their
//! rows, partition then offset, behind whatever order the query gives; `LIMIT` orders by all its columns. Without that
//! the answer would depend on how the log was cut into micro-batches.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::catalog::default_table_source::{provider_as_source, source_as_provider};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchemaRef};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{AggregateFunction, Sort as SortExpr, WindowFunction};
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, LogicalPlan, Projection, Sort, SubqueryAlias, TableScan, Window,
};

use crate::plan::{ORDER_COLUMNS, StreamTable};
use crate::program::rename::with_output_names;

/// The aggregates whose result depends on the order of their rows.
const ORDERED_AGGREGATES: [&str; 5] = ["array_agg", "first_value", "last_value", "nth_value", "string_agg"];

/// `plan` with every order made total; column names stay.
pub(crate) fn total_order(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => order_aggregate(aggregate),
        LogicalPlan::Window(window) => order_window(window),
        LogicalPlan::Limit(_) => order_limit(node),
        LogicalPlan::Distinct(Distinct::On(distinct)) => order_distinct(distinct),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

fn order_aggregate(aggregate: Aggregate) -> DataFusionResult<Transformed<LogicalPlan>> {
    if !aggregate.aggr_expr.iter().any(is_ordered) {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let (input, position) = expose_position(Arc::unwrap_or_clone(Arc::clone(&aggregate.input)))?;
    let functions: Vec<_> = aggregate.aggr_expr.iter().map(|function| with_position(function, &position)).collect();
    let results = functions.iter().map(|f| Expr::Column(Column::from_name(f.schema_name().to_string()))).collect();
    let ordered = Aggregate::try_new(Arc::new(input), aggregate.group_expr.clone(), functions)?;
    let plan = with_output_names(LogicalPlan::Aggregate(ordered), results, &aggregate.schema)?;
    Ok(Transformed::yes(plan))
}

fn is_ordered(expression: &Expr) -> bool {
    matches!(expression, Expr::AggregateFunction(AggregateFunction { func, .. })
        if ORDERED_AGGREGATES.contains(&func.name()))
}

fn with_position(expression: &Expr, position: &[Column]) -> Expr {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = expression else { return expression.clone() };
    if !ORDERED_AGGREGATES.contains(&func.name()) {
        return expression.clone();
    }
    let mut params = params.clone();
    if params.distinct {
        // A distinct value has no position of its own; it can only be ordered by itself.
        if params.order_by.is_empty() {
            params.order_by = params.args.first().into_iter().map(|value| ascending(value.clone())).collect();
        }
    } else {
        params.order_by.extend(position.iter().map(|column| ascending(Expr::Column(column.clone()))));
    }
    Expr::AggregateFunction(AggregateFunction { func: Arc::clone(func), params })
}

fn ascending(expression: Expr) -> SortExpr {
    SortExpr::new(expression, true, true)
}

fn order_window(window: Window) -> DataFusionResult<Transformed<LogicalPlan>> {
    let (input, position) = expose_position(Arc::unwrap_or_clone(Arc::clone(&window.input)))?;
    let functions: Vec<_> = window.window_expr.iter().map(|function| with_row_order(function, &position)).collect();
    if functions == window.window_expr {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let results: Vec<_> =
        functions.iter().map(|f| Expr::Column(Column::from_name(f.schema_name().to_string()))).collect();
    let ordered = Window::try_new(functions, Arc::new(input))?;
    Ok(Transformed::yes(with_output_names(LogicalPlan::Window(ordered), results, &window.schema)?))
}

/// Breaks ties where the frame counts rows; with `RANGE` frames and ranks, ties are part of the meaning.
fn with_row_order(expression: &Expr, position: &[Column]) -> Expr {
    let Expr::WindowFunction(function) = expression else { return expression.clone() };
    let WindowFunction { fun, params } = function.as_ref();
    let by_row =
        matches!(fun.name(), "row_number" | "lag" | "lead" | "ntile" | "first_value" | "last_value" | "nth_value")
            || params.window_frame.units == datafusion::logical_expr::WindowFrameUnits::Rows;
    if !by_row {
        return expression.clone();
    }
    let mut params = params.clone();
    params.order_by.extend(position.iter().map(|column| ascending(Expr::Column(column.clone()))));
    Expr::WindowFunction(Box::new(WindowFunction { fun: fun.clone(), params }))
}

/// Of the rows that `DISTINCT ON` holds equal, the first in the given order and then by position is kept.
fn order_distinct(distinct: DistinctOn) -> DataFusionResult<Transformed<LogicalPlan>> {
    let (input, position) = expose_position(Arc::unwrap_or_clone(distinct.input))?;
    let given = distinct.sort_expr.unwrap_or_else(|| distinct.on_expr.iter().cloned().map(ascending).collect());
    let ties = position.into_iter().map(|column| ascending(Expr::Column(column)));
    let order = given.into_iter().chain(ties).collect();
    let ordered = DistinctOn::try_new(distinct.on_expr, distinct.select_expr, Some(order), Arc::new(input))?;
    Ok(Transformed::yes(LogicalPlan::Distinct(Distinct::On(ordered))))
}

/// Puts all columns behind the order that a limit cuts.
fn order_limit(limit: LogicalPlan) -> DataFusionResult<Transformed<LogicalPlan>> {
    let inputs = limit.inputs();
    let [input] = inputs.as_slice() else { return Ok(Transformed::no(limit)) };
    let ordered = match with_total_sort(input)? {
        Some(ordered) => ordered,
        None => total_sort(Vec::new(), Arc::new((*input).clone())),
    };
    let expressions = limit.expressions();
    Ok(Transformed::yes(limit.with_new_exprs(expressions, vec![ordered])?))
}

/// `plan` with its sort made total, also where the sort stands below projections that drop what it sorts by.
fn with_total_sort(plan: &LogicalPlan) -> DataFusionResult<Option<LogicalPlan>> {
    match plan {
        LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
            Ok(Some(total_sort(sort.expr.clone(), Arc::clone(&sort.input))))
        }
        LogicalPlan::Projection(projection) => match with_total_sort(&projection.input)? {
            Some(input) => Ok(Some(plan.with_new_exprs(plan.expressions(), vec![input])?)),
            None => Ok(None),
        },
        _ => Ok(None),
    }
}

fn total_sort(order: Vec<SortExpr>, input: Arc<LogicalPlan>) -> LogicalPlan {
    let ties = sortable(input.schema()).into_iter().map(|column| ascending(Expr::Column(column)));
    LogicalPlan::Sort(Sort { expr: order.into_iter().chain(ties).collect(), input, fetch: None })
}

fn sortable(schema: &DFSchemaRef) -> Vec<Column> {
    schema
        .iter()
        .filter(|(_, field)| !is_nested(field.data_type()))
        .map(|(qualifier, field)| Column::new(qualifier.cloned(), field.name()))
        .collect()
}

fn is_nested(kind: &DataType) -> bool {
    kind.is_nested() || matches!(kind, DataType::Null)
}

/// `plan` with the position of its rows among its columns, and the names of those columns.
///
/// Where rows have no position (the result of a grouping), all their columns order them: rows that are then still
/// tied are equal.
fn expose_position(plan: LogicalPlan) -> DataFusionResult<(LogicalPlan, Vec<Column>)> {
    match plan {
        LogicalPlan::TableScan(scan) => expose_scan(scan),
        LogicalPlan::SubqueryAlias(alias) => {
            let (input, position) = expose_position(Arc::unwrap_or_clone(alias.input))?;
            let position =
                position.into_iter().map(|column| Column::new(Some(alias.alias.clone()), column.name)).collect();
            Ok((LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(input), alias.alias)?), position))
        }
        LogicalPlan::Projection(projection) => expose_projection(projection),
        LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Join(_) => expose_inputs(plan),
        other => {
            let position = sortable(other.schema());
            Ok((other, position))
        }
    }
}

fn expose_projection(projection: Projection) -> DataFusionResult<(LogicalPlan, Vec<Column>)> {
    let (input, position) = expose_position(Arc::unwrap_or_clone(Arc::clone(&projection.input)))?;
    let mut expressions = projection.expr.clone();
    for column in &position {
        let expression = Expr::Column(column.clone());
        if expressions.contains(&expression) {
            continue;
        }
        if projection.schema.has_column(column) {
            // Something else has that name here; the columns that are shown must do.
            let shown = sortable(&projection.schema);
            return Ok((LogicalPlan::Projection(projection), shown));
        }
        expressions.push(expression);
    }
    Ok((LogicalPlan::Projection(Projection::try_new(expressions, Arc::new(input))?), position))
}

fn expose_inputs(plan: LogicalPlan) -> DataFusionResult<(LogicalPlan, Vec<Column>)> {
    let mut inputs = Vec::new();
    let mut position = Vec::new();
    for input in plan.inputs() {
        let (input, columns) = expose_position(input.clone())?;
        inputs.push(input);
        position.extend(columns);
    }
    let plan = plan.with_new_exprs(plan.expressions(), inputs)?.recompute_schema()?;
    // A semi or anti join shows one side only.
    position.retain(|column| plan.schema().has_column(column));
    Ok((plan, position))
}

fn expose_scan(scan: TableScan) -> DataFusionResult<(LogicalPlan, Vec<Column>)> {
    let provider = source_as_provider(&scan.source)?;
    let provider: &dyn std::any::Any = provider.as_ref();
    let Some(table) = provider.downcast_ref::<StreamTable>() else {
        let plan = LogicalPlan::TableScan(scan);
        let position = sortable(plan.schema());
        return Ok((plan, position));
    };
    let source = provider_as_source(Arc::new(table.clone().with_order_columns()));
    let position =
        ORDER_COLUMNS.iter().map(|name| Column::new(Some(scan.table_name.clone()), *name)).collect::<Vec<_>>();
    let plan = datafusion::logical_expr::LogicalPlanBuilder::scan(scan.table_name, source, None)?.build()?;
    Ok((plan, position))
}
