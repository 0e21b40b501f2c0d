//! `LATE DATA TO sink`: where rows go that come too late for every window of a query.

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use millstream_engine::plan::{Input, StreamDefinition};

use crate::catalog::{Catalog, SinkDefinition};
use crate::check::leaves;
use crate::emission::NamedSink;
use crate::error::{Error, Result};
use crate::statement::ParsedQuery;

/// The sink that `query`, planned as `plan`, names for its late rows, if it names one.
///
/// # Errors
/// There is no such sink, no row can be late, or rows of other columns would go there.
pub(crate) fn late_sink(
    catalog: &Catalog,
    plan: &LogicalPlan,
    query: &ParsedQuery,
) -> Result<Option<Arc<SinkDefinition>>> {
    let Some(NamedSink { name, location: place }) = query.late_sink.as_deref() else { return Ok(None) };
    let sink = catalog.expect_sink(name).map_err(|error| error.at(*place))?;
    let inputs = inputs(plan);
    if !inputs.iter().any(|(stream, ends)| *ends && stream.event_time.is_some()) {
        let error = Error::new("no row can be late for this query, so that LATE DATA TO would get none");
        let hint = "leave it out; rows are late for windows that end, over a stream with a WATERMARK";
        return Err(error.hint(hint).at(*place));
    }
    check_columns(&inputs).map_err(|error| error.at(*place))?;
    Ok(Some(Arc::clone(sink)))
}

/// Refuses a name that a query uses for both its results and its late rows.
///
/// # Errors
/// It does.
pub(crate) fn check_apart(sink: &SinkDefinition, query: &ParsedQuery) -> Result<()> {
    match query.late_sink.as_deref() {
        Some(NamedSink { name, location: place }) if *name == sink.name => {
            let error = Error::new(format!("the results and the late rows of the query would both go to \"{name}\""));
            Err(error.hint("declare a sink of their own for the late rows").at(*place))
        }
        _ => Ok(()),
    }
}

/// The streams that a plan reads, directly or by way of views, each with whether the windows that it is seen through end.
fn inputs(plan: &LogicalPlan) -> Vec<(Arc<StreamDefinition>, bool)> {
    let leaves = leaves(plan).into_iter();
    let inputs = leaves.flat_map(|leaf| match leaf.input() {
        Input::Stream(stream) => {
            vec![(Arc::clone(stream), leaf.window().is_some_and(|window| window.has_late_rows()))]
        }
        Input::View(view) => inputs(&view.query),
    });
    inputs.collect()
}

/// Refuses streams of different columns.
fn check_columns(inputs: &[(Arc<StreamDefinition>, bool)]) -> Result<()> {
    let Some((first, _)) = inputs.first() else { return Ok(()) };
    let Some((other, _)) = inputs.iter().find(|(other, _)| other.schema.fields() != first.schema.fields()) else {
        return Ok(());
    };
    let (first, other) = (&first.name, &other.name);
    let message =
        format!("the late rows of \"{first}\" and \"{other}\" have different columns, and one sink takes both");
    Err(Error::new(message).hint(format!("leave it out: {first}$late and {other}$late keep the late rows of each")))
}
