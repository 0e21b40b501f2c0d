//! Relations of a FROM clause that are refused before DataFusion plans them.

use std::ops::ControlFlow;

use datafusion::common::Result as DataFusionResult;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, ObjectName, Query, Spanned, TableFactor, visit_expressions};
use datafusion::sql::sqlparser::tokenizer::Span;
use millstream_engine::plan::Location;

use crate::error::{Error, location};
use crate::scope::{external, place};

const UNNEST_IN_SELECT: &str = "write it where rows are selected: FROM (SELECT unnest(list) AS x, … FROM t)";

/// Lists of other relations' rows in FROM, which DataFusion plans and then cannot run.
///
/// `CROSS JOIN UNNEST(t.list)`, `LATERAL UNNEST(t.list)` and `LATERAL (SELECT unnest(t.list))` are all written so.
pub(crate) fn refuse_lateral_unnest(relation: &TableFactor) -> DataFusionResult<()> {
    let refuse = |place| external(Error::unsupported("UNNEST of a column in FROM", UNNEST_IN_SELECT).at(place));
    match relation {
        TableFactor::UNNEST { array_exprs, .. } => column_place(array_exprs).map_or(Ok(()), |at| Err(refuse(at)))?,
        TableFactor::Function { name, .. } if is_unnest(name) => return Err(refuse(place(name))),
        TableFactor::Derived { lateral: true, subquery, .. } => {
            unnest_place(subquery).map_or(Ok(()), |at| Err(refuse(at)))?;
        }
        _ => {}
    }
    let TableFactor::UNNEST { with_offset, with_ordinality, .. } = relation else { return Ok(()) };
    if !with_offset && !with_ordinality {
        return Ok(());
    }
    let clause = if *with_ordinality { "WITH ORDINALITY" } else { "WITH OFFSET" };
    let error = Error::unsupported(format!("{clause} of UNNEST"), "leave it out");
    Err(external(error.at(location(relation.span().start))))
}

/// The first column in the expressions, if there is one.
fn column_place(expressions: &Vec<SqlExpr>) -> Option<Option<Location>> {
    let column = visit_expressions(expressions, |expression| match expression {
        SqlExpr::Identifier(name) => ControlFlow::Break(name.span.start),
        SqlExpr::CompoundIdentifier(names) => ControlFlow::Break(names.first().map_or(Span::empty(), |n| n.span).start),
        _ => ControlFlow::Continue(()),
    });
    column.break_value().map(location)
}

/// The first call of UNNEST in a subquery, if there is one.
fn unnest_place(subquery: &Query) -> Option<Option<Location>> {
    let call = visit_expressions(subquery, |expression| match expression {
        SqlExpr::Function(function) if is_unnest(&function.name) => ControlFlow::Break(place(&function.name)),
        _ => ControlFlow::Continue(()),
    });
    call.break_value()
}

fn is_unnest(name: &ObjectName) -> bool {
    name.to_string().eq_ignore_ascii_case("unnest")
}

/// Parts of a relation that DataFusion would pass over in silence.
pub(crate) fn refuse_ignored(relation: &TableFactor) -> DataFusionResult<()> {
    let TableFactor::Table {
        name,
        with_hints,
        version,
        with_ordinality,
        partitions,
        json_path,
        sample,
        index_hints,
        ..
    } = relation
    else {
        return Ok(());
    };
    let ignored = [
        (!with_hints.is_empty(), "WITH (…) after a relation"),
        (version.is_some(), "a version of a relation"),
        (*with_ordinality, "WITH ORDINALITY"),
        (!partitions.is_empty(), "PARTITION after a relation"),
        (json_path.is_some(), "a path after a relation"),
        (sample.is_some(), "TABLESAMPLE"),
        (!index_hints.is_empty(), "an index hint"),
    ];
    match ignored.into_iter().find(|(is_there, _)| *is_there) {
        Some((_, what)) => Err(external(Error::unsupported(what, "leave it out").at(place(name)))),
        None => Ok(()),
    }
}
