//! What relation the results of a query make up over time, for those who keep it.

use std::fmt::Debug;
use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::logical_expr::{Distinct, LogicalPlan};
use tokio::sync::watch;

use crate::batch::Epoch;
use crate::error::Result;
use crate::plan::EmissionMode;
use crate::program::Shape;
use crate::time::EventTime;

/// What the rows that a query gives are to those that it gave before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Results {
    /// Results of instants: each instant gives its rows once.
    Instants,
    /// Rows that pass: each is one more.
    Rows,
    /// Groups without a window: a row takes the place of the one that has the same values in these columns.
    Groups(Vec<usize>),
    /// Groups without a window whose rows cannot be kept: they do not show what tells groups apart, or a condition
    /// lets groups drop out that were given before.
    ChangingGroups,
    /// The answer of a query that reads no stream.
    Once,
}

/// The rows of a relation that grows and changes while it is read.
pub trait MaterializedRows: Debug + Send + Sync {
    /// The columns.
    fn schema(&self) -> SchemaRef;

    /// The instant up to which all results are there; none for rows that belong to no instant.
    fn closed_to(&self) -> Option<EventTime>;

    /// The rows as the last commit left them, which no later one changes; those of instants up to `up_to`, if it is
    /// given.
    ///
    /// # Errors
    /// Fails if the rows cannot be read.
    fn snapshot(&self, up_to: Option<EventTime>) -> Result<Arc<dyn TableProvider>>;

    /// The rows that came with the epochs after this one, in their order; without one the rows that there are. None if
    /// nothing has come.
    ///
    /// Of groups a row takes the place of the one before it; where single changes are no longer known, all groups come.
    ///
    /// # Errors
    /// Fails if some of those rows are no longer kept.
    fn since(&self, after: Option<Epoch>) -> Result<Option<Changes>>;

    /// The last epoch that has changed the rows; it changes with each that does, and is closed when they are gone.
    fn commits(&self) -> watch::Receiver<Option<Epoch>>;
}

/// Rows that came to a relation.
#[derive(Debug, Clone)]
pub struct Changes {
    /// The last epoch that they came with: whoever has them goes on after it.
    pub epoch: Epoch,
    /// The rows.
    pub rows: Vec<RecordBatch>,
}

/// Where the state of queries is read from.
pub trait QueryStates: Debug + Send + Sync {
    /// The state of an input of a query, of its only one unless one is named, as it was kept last.
    ///
    /// # Errors
    /// Fails if there is none.
    fn state(&self, query: &str, input: Option<&str>) -> Result<Arc<dyn TableProvider>>;
}

impl Results {
    /// Those of a query, by its logical plan before it is optimised and the shape that it is run in.
    pub(crate) fn of(logical: &LogicalPlan, shape: &Shape, mode: EmissionMode) -> Self {
        match shape {
            // They are given with the micro-batch that completes them.
            Shape::Windows(_) if mode == EmissionMode::Pairs => Self::Rows,
            Shape::Windows(_) => Self::Instants,
            Shape::Stateless(_) => Self::Rows,
            Shape::Finite(_) => Self::Once,
            Shape::Unbounded(..) => key(logical).map_or(Self::ChangingGroups, Self::Groups),
        }
    }
}

/// The columns of a result that tell its groups apart, where no group can drop out of it.
fn key(logical: &LogicalPlan) -> Option<Vec<usize>> {
    let schema = logical.schema();
    let columns = schema.fields().len();
    match top_groups(logical)? {
        // Of groups beneath it every change would be one row more.
        LogicalPlan::Distinct(Distinct::All(rows)) => {
            return top_groups(rows).is_none().then(|| (0..columns).collect());
        }
        LogicalPlan::Aggregate(groups) if groups.group_expr.is_empty() => return Some(Vec::new()),
        _ => {}
    }
    let dependencies = schema.functional_dependencies();
    let keys = dependencies.iter().filter(|dependency| {
        dependency.target_indices.len() == columns && dependency.source_indices.iter().all(|index| *index < columns)
    });
    keys.map(|dependency| dependency.source_indices.clone()).min_by_key(Vec::len)
}

/// The node that makes the groups, where nothing above it takes some of them away.
fn top_groups(plan: &LogicalPlan) -> Option<&LogicalPlan> {
    match plan {
        LogicalPlan::Aggregate(_) | LogicalPlan::Distinct(Distinct::All(_)) => Some(plan),
        LogicalPlan::Projection(projection) => top_groups(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => top_groups(&alias.input),
        _ => None,
    }
}
