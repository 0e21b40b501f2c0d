//! The answers to EXPLAIN and EXPLAIN ANALYZE as text.

use std::fmt::Write as _;

use millstream_connectors::sinks::BlackholeSink;
use millstream_engine::Summary;
use millstream_engine::program::Explanation;
use millstream_engine::query::{PlannedQuery, QueryOptions, QueryProgress};
use millstream_engine::sink::Sink;
use millstream_sql::StreamQuery;

/// The plans of a query, those of its views first.
pub(crate) fn explanation(stages: Vec<(Option<String>, Explanation)>) -> String {
    let parts = stages.into_iter().map(|(view, explanation)| match view {
        Some(view) => format!("view {view}\n{explanation}\n"),
        None => format!("{explanation}\n"),
    });
    parts.collect()
}

/// Plans a query to be analysed, and the sink that drops its rows; late rows are dropped with them.
///
/// # Errors
/// Fails if it cannot be planned.
pub(crate) async fn plan_analyzed(
    query: &StreamQuery,
    options: QueryOptions,
) -> millstream_engine::Result<(PlannedQuery, Box<dyn Sink>)> {
    let options = QueryOptions { analyze: true, ..options };
    let planned = PlannedQuery::plan_emitting(&query.logical, query.emission, options).await?;
    Ok((planned, Box::new(BlackholeSink::new())))
}

/// What a query that was analysed has done, with its plans.
pub(crate) fn analysis(summary: &Summary) -> String {
    let mut text = String::new();
    for stage in &summary.analysis {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{stage}");
    }
    let QueryProgress { epochs, rows_read, rows_written, .. } = &summary.progress;
    let stopped = if summary.was_stopped { ", stopped before the end of its input" } else { "" };
    let _ = writeln!(text, "query\n  epochs={epochs}, rows_in={rows_read}, rows_out={rows_written}{stopped}");
    text
}
