//! Integer arithmetic that fails instead of wrapping around.
//!
//! DataFusion's `+`, `-` and `*` wrap unless each expression is told otherwise; a sum that is wrong by 2^64 is a wrong
//! answer, so every projection, filter and aggregate argument of a plan is told.

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::Operator;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::BinaryExpr;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};

use crate::error::Result;

/// `plan` with checked arithmetic in its projections, filters and aggregates.
pub(crate) fn check_arithmetic(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let plan = plan.transform_up(|node| {
        let checked: Arc<dyn ExecutionPlan> = if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
            Arc::new(checked_projection(projection)?)
        } else if let Some(filter) = node.downcast_ref::<FilterExec>() {
            let predicate = checked(filter.predicate())?;
            Arc::new(FilterExecBuilder::from(filter).with_predicate(predicate).build()?)
        } else if let Some(aggregate) = node.downcast_ref::<AggregateExec>() {
            Arc::new(checked_aggregate(aggregate)?)
        } else {
            return Ok(Transformed::no(node));
        };
        Ok(Transformed::yes(checked))
    })?;
    Ok(plan.data)
}

fn checked(expression: &Arc<dyn PhysicalExpr>) -> DataFusionResult<Arc<dyn PhysicalExpr>> {
    let expression = Arc::clone(expression).transform_up(|node| {
        let Some(binary) = node.downcast_ref::<BinaryExpr>() else { return Ok(Transformed::no(node)) };
        if !matches!(binary.op(), Operator::Plus | Operator::Minus | Operator::Multiply) {
            return Ok(Transformed::no(node));
        }
        let binary = BinaryExpr::new(Arc::clone(binary.left()), *binary.op(), Arc::clone(binary.right()));
        Ok(Transformed::yes(Arc::new(binary.with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>))
    })?;
    Ok(expression.data)
}

fn checked_projection(projection: &ProjectionExec) -> DataFusionResult<ProjectionExec> {
    let expressions = projection
        .expr()
        .iter()
        .map(|item| Ok(ProjectionExpr { expr: checked(&item.expr)?, alias: item.alias.clone() }))
        .collect::<DataFusionResult<Vec<_>>>()?;
    ProjectionExec::try_new(expressions, Arc::clone(projection.input()))
}

fn checked_aggregate(aggregate: &AggregateExec) -> DataFusionResult<AggregateExec> {
    let functions = aggregate
        .aggr_expr()
        .iter()
        .map(|function| {
            let arguments = function.expressions().iter().map(checked).collect::<DataFusionResult<Vec<_>>>()?;
            let orders = function.order_bys().iter().map(|order| Arc::clone(&order.expr)).collect();
            Ok(function.with_new_expressions(arguments, orders).map_or_else(|| Arc::clone(function), Arc::new))
        })
        .collect::<DataFusionResult<Vec<_>>>()?;
    let checked = AggregateExec::try_new(
        *aggregate.mode(),
        aggregate.group_expr().clone(),
        functions,
        aggregate.filter_expr().to_vec(),
        Arc::clone(aggregate.input()),
        aggregate.input_schema(),
    )?;
    Ok(checked.with_limit_options(aggregate.limit_options()))
}
