//! Functions that would make the answer depend on when or how often the query runs.
//!
//! An answer is a function of the SQL and the input alone; so `random()` and `now()` are refused over streams.

use datafusion::common::Result as DataFusionResult;
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan, ScalarUDF, Volatility};

use crate::error::{Error, Result};
use crate::statement::ParsedQuery;

/// Functions of the present time, which DataFusion fixes per statement and a stream has no statement for.
const PRESENT: [&str; 6] = ["now", "current_timestamp", "current_date", "current_time", "today", "localtimestamp"];

/// Checks that `plan` gives the same rows whenever it runs.
///
/// # Errors
/// It calls a volatile function or asks for the present time.
pub(crate) fn check_repeatable(plan: &LogicalPlan, query: &ParsedQuery) -> Result<()> {
    let Some(function) = unrepeatable(plan) else { return Ok(()) };
    let mut names = vec![function.name()];
    names.extend(function.aliases().iter().map(String::as_str));
    let place = query.find(&names);
    let is_present = PRESENT.contains(&function.name());
    let name = query.typed_word(place).unwrap_or_else(|| function.name().to_owned());
    let hint = if is_present {
        "use the event time, or window_end in a query with windows"
    } else {
        "compute the value before it enters the stream"
    };
    let message = format!("{name} would make the result depend on when the query runs, not on its input alone");
    Err(Error::new(message).hint(hint).at(place))
}

/// The first function of the plan that may answer otherwise the next time.
fn unrepeatable(plan: &LogicalPlan) -> Option<ScalarUDF> {
    let mut found = None;
    let visited: DataFusionResult<_> = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::ScalarFunction(call) = expr
                    && is_unrepeatable(&call.func)
                {
                    found = Some(call.func.as_ref().clone());
                    return Ok(TreeNodeRecursion::Stop);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    found
}

/// Whether the function may answer otherwise the next time.
pub(crate) fn is_unrepeatable(function: &ScalarUDF) -> bool {
    function.signature().volatility == Volatility::Volatile || PRESENT.contains(&function.name())
}
