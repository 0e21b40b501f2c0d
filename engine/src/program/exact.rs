//! Sums of integers and wide decimals that are exact or fail.
//!
//! DataFusion's `SUM` adds integers in 64 bits and decimals in 128 without looking at overflow. Here integers are
//! summed as decimals, which 2^63 rows cannot overflow, and decimals over 28 digits in 256 bits; the cast back to
//! the type that SQL promises fails where the value does not fit.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::{Aggregate, Expr, ExprSchemable, LogicalPlan, Window, cast};

use crate::program::rename::with_output_names;

/// Decimals up to this many digits have room for ten more in 128 bits.
const SAFE_DECIMAL_DIGITS: u8 = 28;

/// `plan` with every such sum rewritten; column names stay.
pub(crate) fn exact_sums(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| match node {
        LogicalPlan::Aggregate(aggregate) => rewrite(aggregate),
        LogicalPlan::Window(window) => rewrite_window(window),
        other => Ok(Transformed::no(other)),
    })?;
    Ok(plan.data)
}

fn rewrite(aggregate: Aggregate) -> DataFusionResult<Transformed<LogicalPlan>> {
    let mut results = Vec::with_capacity(aggregate.aggr_expr.len());
    let mut functions = Vec::with_capacity(aggregate.aggr_expr.len());
    let mut changed = false;
    for expression in &aggregate.aggr_expr {
        let exact = exact_sum(expression, aggregate.input.schema())?;
        changed |= exact.is_some();
        let (function, result_type) = exact.map_or_else(|| (expression.clone(), None), |(f, t)| (f, Some(t)));
        let column = Expr::Column(Column::from_name(function.schema_name().to_string()));
        results.push(result_type.map_or_else(|| column.clone(), |result_type| cast(column.clone(), result_type)));
        functions.push(function);
    }
    if !changed {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let schema = Arc::clone(&aggregate.schema);
    let exact = Aggregate::try_new(aggregate.input, aggregate.group_expr, dedup(functions))?;
    Ok(Transformed::yes(with_output_names(LogicalPlan::Aggregate(exact), results, &schema)?))
}

/// The same for `SUM(…) OVER (…)`.
fn rewrite_window(window: Window) -> DataFusionResult<Transformed<LogicalPlan>> {
    let mut results = Vec::with_capacity(window.window_expr.len());
    let mut functions = Vec::with_capacity(window.window_expr.len());
    for expression in &window.window_expr {
        let exact = exact_window_sum(expression, window.input.schema())?;
        let (function, result_type) = exact.map_or_else(|| (expression.clone(), None), |(f, t)| (f, Some(t)));
        let column = Expr::Column(Column::from_name(function.schema_name().to_string()));
        results.push(result_type.map_or_else(|| column.clone(), |result_type| cast(column.clone(), result_type)));
        functions.push(function);
    }
    if functions == window.window_expr {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let exact = LogicalPlan::Window(Window::try_new(dedup(functions), Arc::clone(&window.input))?);
    Ok(Transformed::yes(with_output_names(exact, results, &window.schema)?))
}

fn exact_window_sum(expression: &Expr, input: &DFSchema) -> DataFusionResult<Option<(Expr, DataType)>> {
    let Expr::WindowFunction(function) = expression else { return Ok(None) };
    let WindowFunction { fun, params } = function.as_ref();
    let Some(wide) = wide_argument(fun.name(), &params.args, input)? else { return Ok(None) };
    let mut params = params.clone();
    params.args = vec![wide];
    let exact = Expr::WindowFunction(Box::new(WindowFunction { fun: fun.clone(), params }));
    Ok(Some((exact, expression.get_type(input)?)))
}

/// Two sums of one argument become the same function once their types agree.
fn dedup(functions: Vec<Expr>) -> Vec<Expr> {
    let mut unique: Vec<Expr> = Vec::with_capacity(functions.len());
    for function in functions {
        if !unique.contains(&function) {
            unique.push(function);
        }
    }
    unique
}

/// The sum over a wider type, and the type its result has in SQL; `None` where nothing is to be done.
fn exact_sum(expression: &Expr, input: &DFSchema) -> DataFusionResult<Option<(Expr, DataType)>> {
    let Expr::AggregateFunction(AggregateFunction { func, params }) = expression else { return Ok(None) };
    let Some(wide) = wide_argument(func.name(), &params.args, input)? else { return Ok(None) };
    let mut params = params.clone();
    params.args = vec![wide];
    let function = Expr::AggregateFunction(AggregateFunction { func: Arc::clone(func), params });
    Ok(Some((function, expression.get_type(input)?)))
}

/// The argument of a sum in a type that has room for it; `None` where nothing is to be done.
fn wide_argument(function: &str, arguments: &[Expr], input: &DFSchema) -> DataFusionResult<Option<Expr>> {
    let ("sum", [argument]) = (function, arguments) else { return Ok(None) };
    let wide = match argument.get_type(input)? {
        kind if kind.is_integer() => DataType::Decimal128(20, 0),
        DataType::Decimal128(digits, scale) if digits > SAFE_DECIMAL_DIGITS => DataType::Decimal256(digits, scale),
        _ => return Ok(None),
    };
    Ok(Some(cast(argument.clone(), wide)))
}
