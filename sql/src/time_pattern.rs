//! Patterns of times that name no part of a time, such as `yyyy-MM-dd`: each row would show the pattern itself.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as DataFusionResult, ScalarValue};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable, LogicalPlan};

use crate::error::{Error, Result};
use crate::statement::ParsedQuery;

/// The function that shows a time by a pattern; DataFusion knows `date_format` as another name for it.
const FUNCTION: &str = "to_char";

/// Checks that every pattern of a time in `plan` that is written out names some part of the time.
///
/// # Errors
/// One has no `%`, as those of Java and of PostgreSQL have none.
pub(crate) fn check_time_patterns(plan: &LogicalPlan, query: &ParsedQuery) -> Result<()> {
    let Some(pattern) = pattern_without_parts(plan) else { return Ok(()) };
    let place = query.find(&["date_format", FUNCTION]);
    let name = query.typed_word(place).unwrap_or_else(|| FUNCTION.to_owned());
    let error = Error::new(format!("the pattern '{pattern}' of {name} names no part of a time"));
    Err(error.hint(format!("parts are written with %: {name}(ts, '%Y-%m-%d %H:%M:%S')")).at(place))
}

fn pattern_without_parts(plan: &LogicalPlan) -> Option<String> {
    let mut found = None;
    let visited: DataFusionResult<_> = plan.apply_with_subqueries(|node| {
        let schema = merge_schema(&node.inputs());
        node.apply_expressions(|expression| {
            expression.apply(|part| {
                found = match part {
                    Expr::ScalarFunction(call) if call.func.name() == FUNCTION => without_parts(call, &schema),
                    _ => None,
                };
                Ok(if found.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })
        })
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    found
}

/// The pattern of a call, if it is written out and names no part of a time. Durations have patterns of other words.
fn without_parts(call: &ScalarFunction, schema: &DFSchema) -> Option<String> {
    let [time, Expr::Literal(pattern, _)] = call.args.as_slice() else { return None };
    let (ScalarValue::Utf8(Some(pattern))
    | ScalarValue::Utf8View(Some(pattern))
    | ScalarValue::LargeUtf8(Some(pattern))) = pattern
    else {
        return None;
    };
    let is_duration = matches!(time.get_type(schema), Ok(DataType::Duration(_)));
    (!is_duration && !pattern.contains('%')).then(|| pattern.clone())
}
