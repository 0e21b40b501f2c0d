//! Giving a rewritten aggregate or window node the column names it had.

use std::sync::Arc;

use datafusion::common::DFSchema;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Expr, LogicalPlan, Projection};

/// Puts a projection over `plan` whose columns are named as in `names`: first the leading columns of `plan` that have
/// no counterpart in `results` (group keys, a window's input), then `results`.
pub(crate) fn with_output_names(
    plan: LogicalPlan,
    results: Vec<Expr>,
    names: &DFSchema,
) -> DataFusionResult<LogicalPlan> {
    let leading = names.fields().len().saturating_sub(results.len());
    let kept = names.columns().into_iter().take(leading).map(Expr::Column);
    let renamed =
        results.into_iter().zip(names.iter().skip(leading)).map(|(result, (qualifier, field))| match &result {
            Expr::Column(column) if column.name == *field.name() => result,
            _ => result.alias_qualified(qualifier.cloned(), field.name()),
        });
    Ok(LogicalPlan::Projection(Projection::try_new(kept.chain(renamed).collect(), Arc::new(plan))?))
}
