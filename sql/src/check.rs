//! Which plans can be run over endless input, and why the others cannot.
//!
//! | kind | what it may contain |
//! |---|---|
//! | windowed | anything, if every stream in it has a window |
//! | passing | filters, projections, joins with static tables that keep the stream's rows, UNION ALL |
//! | grouped | one GROUP BY or DISTINCT over one passing stream, under filters and projections |
//!
//! Whatever reads no stream runs once, as a batch, and may be anything.

use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{JoinType, Result as DataFusionResult};
use datafusion::logical_expr::{Distinct, Join, LogicalPlan};
use millstream_engine::plan::StreamTable;
use millstream_engine::window::Contents;

use crate::error::{Error, Result};
use crate::repeatable::check_repeatable;
use crate::statement::ParsedQuery;

const GIVE_A_WINDOW: &str = "give the stream a window: t [Range 5 minutes, Slide 1 minute]";

/// What the rows of a plan are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rows {
    /// All there at once.
    Static,
    /// Rows of streams, each decided by itself.
    Passing,
    /// Groups that change as rows arrive.
    Grouped,
}

/// Checks that `plan` can be run, and says whether it reads a stream.
///
/// # Errors
/// It would need endless state, or its result would depend on when it runs.
pub(crate) fn check(plan: &LogicalPlan, query: &ParsedQuery) -> Result<bool> {
    let leaves = leaves(plan);
    if leaves.is_empty() {
        return Ok(false);
    }
    check_repeatable(plan, query)?;
    let unbounded = leaves.iter().find(|leaf| leaf.window().is_none());
    let windowed = leaves.iter().find(|leaf| leaf.window().is_some());
    let is_session = |leaf: &&StreamTable| leaf.window().is_some_and(|w| w.contents() == Contents::Session);
    if let (Some(session), true) = (leaves.iter().find(is_session), leaves.len() > 1) {
        let name = session.input().name();
        let error = Error::unsupported(format!("a join with the sessions of \"{name}\""), "");
        let hint = "make the sessions a view, and give the view a window: v [Range 5 minutes, Slide 1 minute]";
        return Err(error.hint(hint).at(query.find(&["session"])));
    }
    match (unbounded, windowed) {
        (None, _) => {}
        (Some(_), None) => {
            classify(plan, query)?;
        }
        (Some(unbounded), Some(windowed)) => {
            let (unbounded, windowed) = (unbounded.input().name(), windowed.input().name());
            let message = format!("stream \"{unbounded}\" has no window, but \"{windowed}\" in the same query has one");
            let hint = format!("give both a window: {unbounded} [Range 5 minutes, Slide 1 minute]");
            return Err(Error::new(message).hint(hint).at(query.find(&[unbounded])));
        }
    }
    Ok(true)
}

/// Whether every stream in `plan` has a window, and there is one.
pub(crate) fn is_windowed(plan: &LogicalPlan) -> bool {
    let leaves = leaves(plan);
    !leaves.is_empty() && leaves.iter().all(|leaf| leaf.window().is_some())
}

/// The stream leaves of the plan and its subqueries.
pub(crate) fn leaves(plan: &LogicalPlan) -> Vec<StreamTable> {
    let mut leaves = Vec::new();
    let visited: DataFusionResult<_> = plan.apply_with_subqueries(|node| {
        leaves.extend(leaf(node));
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    leaves
}

fn leaf(node: &LogicalPlan) -> Option<StreamTable> {
    let LogicalPlan::TableScan(scan) = node else { return None };
    source_as_provider(&scan.source).ok()?.downcast_ref::<StreamTable>().cloned()
}

/// What rows a plan over streams without windows yields.
fn classify(plan: &LogicalPlan, query: &ParsedQuery) -> Result<Rows> {
    match plan {
        LogicalPlan::TableScan(_) => Ok(if leaf(plan).is_some() { Rows::Passing } else { Rows::Static }),
        LogicalPlan::EmptyRelation(_) | LogicalPlan::Values(_) => Ok(Rows::Static),
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Unnest(_) => {
            check_subqueries(plan, query)?;
            classify_input(plan, query)
        }
        LogicalPlan::Join(join) => classify_join(join, query),
        LogicalPlan::Union(union) => {
            let mut branches = union.inputs.iter().map(|branch| classify(branch, query));
            let first = branches.next().transpose()?.unwrap_or(Rows::Static);
            for branch in branches {
                if branch? != first || first == Rows::Grouped {
                    return Err(unsupported_union(query));
                }
            }
            Ok(first)
        }
        LogicalPlan::Aggregate(_) => classify_group(plan, "a GROUP BY", query),
        LogicalPlan::Distinct(Distinct::All(_)) => classify_group(plan, "a DISTINCT", query),
        _ if leaves(plan).is_empty() => Ok(Rows::Static),
        other => Err(refusal(other, query)),
    }
}

fn classify_input(plan: &LogicalPlan, query: &ParsedQuery) -> Result<Rows> {
    plan.inputs().into_iter().next().map_or(Ok(Rows::Static), |input| classify(input, query))
}

/// Grouping keeps one state for all time, so it may only stand directly over the stream.
fn classify_group(plan: &LogicalPlan, what: &str, query: &ParsedQuery) -> Result<Rows> {
    check_subqueries(plan, query)?;
    match classify_input(plan, query)? {
        Rows::Static => Ok(Rows::Static),
        Rows::Passing if leaves(plan).len() == 1 => Ok(Rows::Grouped),
        Rows::Passing => {
            let error = Error::unsupported(format!("{what} over several endless streams"), "give each stream a window");
            Err(error.at(query.find(&["group", "distinct", "union"])))
        }
        Rows::Grouped => {
            let error = Error::unsupported(format!("{what} over the groups of an endless stream"), GIVE_A_WINDOW);
            Err(error.at(query.find(&["group", "distinct"])))
        }
    }
}

fn classify_join(join: &Join, query: &ParsedQuery) -> Result<Rows> {
    let (left, right) = (classify(&join.left, query)?, classify(&join.right, query)?);
    let place = query.find(&["join", "intersect", "except", "in", "exists"]);
    let place = place.or_else(|| query.tokens.first().and_then(|token| crate::error::location(token.span.start)));
    let keeps_stream = match (left, right) {
        (Rows::Static, Rows::Static) => return Ok(Rows::Static),
        (Rows::Passing, Rows::Static) => matches!(
            join.join_type,
            JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark
        ),
        (Rows::Static, Rows::Passing) => matches!(
            join.join_type,
            JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark
        ),
        (Rows::Grouped, _) | (_, Rows::Grouped) => {
            let error = Error::unsupported("a join with the groups of an endless stream", GIVE_A_WINDOW);
            return Err(error.at(place));
        }
        (Rows::Passing, Rows::Passing) => return Err(endless_join(join, query).at(place)),
    };
    if keeps_stream {
        return Ok(Rows::Passing);
    }
    let kind = join.join_type.to_string().to_uppercase();
    let error = Error::new(format!("a {kind} JOIN asks which rows of the table match no row of an endless stream"))
        .hint("let the join keep the stream's rows (stream LEFT JOIN table), or give the stream a window");
    Err(error.at(place))
}

fn endless_join(join: &Join, query: &ParsedQuery) -> Error {
    let name = |plan| leaves(plan).first().map(|leaf| leaf.input().name().to_owned()).unwrap_or_default();
    let (left, right) = (name(&join.left), name(&join.right));
    let windows = format!("give both a window: {left} [Range 5 minutes, Slide 1 minute]");
    let bounds = "bound the event times on both sides in ON";
    let hint = match join.join_type {
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => format!(
            "{windows}; or {bounds}: {left}.ts BETWEEN {right}.ts - INTERVAL '10' SECOND AND {right}.ts + INTERVAL '5' \
             SECOND"
        ),
        _ => windows,
    };
    Error::new(format!("a join of two endless streams, \"{left}\" and \"{right}\", would keep all their rows for ever"))
        .hint(hint)
        .at(query.find(&["join"]))
}

/// Subqueries under a passing stream may only read what is all there.
fn check_subqueries(plan: &LogicalPlan, query: &ParsedQuery) -> Result<()> {
    let mut endless = None;
    let visited: DataFusionResult<_> = plan.apply_subqueries(|subquery| {
        endless = endless.take().or_else(|| leaves(subquery).into_iter().next());
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    let Some(stream) = endless else { return Ok(()) };
    let error =
        Error::new(format!("a subquery over the endless stream \"{}\" never has an answer", stream.input().name()))
            .hint("give each stream a window: t [Range 5 minutes, Slide 1 minute]");
    Err(error.at(query.find_last(&[stream.input().name()])))
}

fn unsupported_union(query: &ParsedQuery) -> Error {
    let error = Error::unsupported("a UNION of an endless stream with a static table or with groups", "");
    error.hint("UNION ALL joins streams without GROUP BY; or give each stream a window").at(query.find(&["union"]))
}

/// The message for a node that needs all rows before it can yield one.
fn refusal(plan: &LogicalPlan, query: &ParsedQuery) -> Error {
    let (message, words): (&str, &[&str]) = match plan {
        LogicalPlan::Sort(_) => {
            ("ORDER BY over an endless stream: the row that comes first may not be there yet", &["order"])
        }
        LogicalPlan::Limit(_) => {
            ("LIMIT over an endless stream: which rows come first is left to chance", &["limit", "fetch", "offset"])
        }
        LogicalPlan::Window(_) => ("OVER over an endless stream would keep all its rows for ever", &["over"]),
        LogicalPlan::Distinct(_) => {
            ("DISTINCT ON over an endless stream: which row comes first is left to chance", &["distinct"])
        }
        LogicalPlan::RecursiveQuery(_) => ("a recursive query over an endless stream never ends", &["recursive"]),
        LogicalPlan::Subquery(_) => ("a LATERAL subquery over an endless stream never has an answer", &["lateral"]),
        other => return Error::unsupported(format!("{} over an endless stream", other.display()), GIVE_A_WINDOW),
    };
    Error::new(message).hint(GIVE_A_WINDOW).at(query.find_last(words))
}
