//! Joins under aggregates in factored form: each side is grouped before it is joined.
//!
//! ```text
//!   Aggregate b.u: SUM(a.x * b.y), COUNT(*)          Projection: the names and types as before
//!     Join a.k = b.k                                   Aggregate u: SUM(Σx · Σy), SUM(n · m)
//!       a                                       →        Join k = k
//!       b                                                  Aggregate a.k:      Σx, n     (factored_1)
//!                                                            a
//!                                                          Aggregate b.k, b.u: Σy, m     (factored_2)
//!                                                            b
//! ```
//!
//! Rows of a side that agree in its join keys and its group keys meet the same rows of the other sides, so a sum over
//! their pairs is a product of sums: the work is that of the keys and not that of the pairs, and what is kept of each
//! side can be added up pane by pane. Sides may be more than two, joined by equalities in any order.
//!
//! # Where it applies
//!
//! To inner joins on equalities alone, if every aggregate is a `COUNT`, `SUM` or `AVG` of a product whose factors are
//! of one side each, or a `MIN`, `MAX`, `BOOL_*`, `BIT_AND` or `BIT_OR` of one side, and every group key is of one
//! side. A `FILTER` may stand on any of them, condition by condition of one side. Anything else leaves the plan as it
//! is: `DISTINCT`, grouping sets, `a.x + b.y`, conditions between sides.
//! An expression of a side is now computed for rows that meet no other; one that may fail keeps the row form.
//!
//! # What it gives
//!
//! What the join of rows gives. Integers and decimals are exact: sums and products are made in 256 bits and cast to
//! the type of the result, which fails if the value does not fit. A product of two integers or decimals that does not
//! fit its own type fails in the row form; here it is part of an exact sum.
//! Doubles agree within the rounding of their sum, and infinities, NaN and products that overflow give what they give
//! row by row; where finite products have a sum beyond the doubles there is an error, see [`double`].
//! In a product of doubles the factors of a side must stand together, as in `a.x * a.y * b.z`: regrouping others could
//! overflow where the row form does not.
//!
//! # When it runs
//!
//! On an optimised plan, in which conditions of one side have reached that side, equalities from `WHERE` are keys of
//! joins and columns without use are gone; after [`exact_sums`](super::exact), of which it keeps the result types; and
//! before [`check_arithmetic`](super::overflow), as nothing that it computes with is an integer.
//! The result wants to be optimised again.

mod decimal;
mod double;
mod grouping;
mod joined;
mod measure;
mod product;
mod safe;
#[cfg(test)]
mod tests;

use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{Aggregate, LogicalPlan};

use crate::plan::StreamTable;
use crate::program::rename::with_output_names;
use grouping::Grouping;
use joined::Joined;
use measure::Call;

/// `plan` in factored form wherever that applies, if all it reads is streams through windows.
///
/// Endless streams have no finite sides to group, and grouping a static table at every instant anew would cost more
/// than it saves.
pub(crate) fn factored_windows(plan: LogicalPlan) -> DataFusionResult<Transformed<LogicalPlan>> {
    if has_only_windows(&plan)? { factored(plan) } else { Ok(Transformed::no(plan)) }
}

/// `plan`, optimised already, in factored form wherever that applies; names and types of its columns stay.
pub(crate) fn factored(plan: LogicalPlan) -> DataFusionResult<Transformed<LogicalPlan>> {
    plan.transform_up_with_subqueries(|node| {
        let LogicalPlan::Aggregate(aggregate) = &node else { return Ok(Transformed::no(node)) };
        Ok(match rewrite(aggregate)? {
            Some(factored) => Transformed::yes(factored),
            None => Transformed::no(node),
        })
    })
}

fn rewrite(aggregate: &Aggregate) -> DataFusionResult<Option<LogicalPlan>> {
    let Some(mut joined) = Joined::read(&aggregate.input)? else { return Ok(None) };
    let mut top = Grouping::new("factored".to_owned());
    let mut results = Vec::new();
    for key in &aggregate.group_expr {
        let Some(column) = joined.group_key(key)? else { return Ok(None) };
        results.push(top.key(column));
    }
    let functions = aggregate.aggr_expr.iter().zip(aggregate.schema.fields().iter().skip(results.len()));
    for (function, field) in functions {
        let Some(call) = Call::read(function, field.data_type().clone(), &joined)? else { return Ok(None) };
        let Some(result) = call.measure(&mut joined, &mut top)? else { return Ok(None) };
        results.push(result);
    }
    let Some(joined) = joined.into_plan()? else { return Ok(None) };
    Ok(Some(with_output_names(top.over(joined)?, results, &aggregate.schema)?))
}

fn has_only_windows(plan: &LogicalPlan) -> DataFusionResult<bool> {
    let mut only = true;
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let provider = source_as_provider(&scan.source)?;
            let provider: &dyn std::any::Any = provider.as_ref();
            only &= provider.downcast_ref::<StreamTable>().is_some_and(|table| table.window().is_some());
        }
        Ok(if only { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(only)
}
