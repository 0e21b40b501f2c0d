//! From a logical plan to a program: optimise, take the leaves' heads off, cut, and see which shape it is.

use std::sync::Arc;

use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;

use crate::arrays::batch_of;
use crate::error::{Error, Result};
use crate::nodes::SlotExec;
use crate::plan::StreamTable;
use crate::program::aggregate::AggregatePlans;
use crate::program::exact::exact_sums;
use crate::program::order::total_order;
use crate::program::overflow::check_arithmetic;
use crate::program::rows::{RowChain, take_heads};
use crate::program::session::Planner;
use crate::program::template::Template;
use crate::window::{Window, WindowSpec};

/// A query's plans and what they read.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) inputs: Vec<InputPlan>,
    pub(crate) shape: Shape,
    pub(crate) schema: SchemaRef,
    planner: Planner,
}

/// One leaf of the query: where its rows come from and what happens to them row by row.
#[derive(Debug)]
pub(crate) struct InputPlan {
    pub(crate) head: RowChain,
    /// The columns of the head's rows that row state keeps: all but bounds of the window.
    pub(crate) kept: Vec<usize>,
}

/// How the plan above the leaves is run.
#[derive(Debug)]
pub(crate) enum Shape {
    /// A windowed GROUP BY: pane state is partial aggregates.
    Aggregate(AggregatePlans),
    /// Any other SQL over windows: pane state is rows, the plan runs over those of each window.
    Rows(Template),
    /// A GROUP BY over endless rows: one open pane of partial aggregates, changed groups come out.
    Unbounded(AggregatePlans),
    /// Filters, projections and joins with static tables: each micro-batch's rows pass through.
    Stateless(Template),
    /// No stream at all: the plan runs once.
    Finite(Template),
}

impl Program {
    /// Plans `logical`; its plans run with the memory and temporary files of `runtime`.
    ///
    /// # Errors
    /// Fails on SQL that DataFusion cannot plan and on shapes that would need endless state.
    pub(crate) async fn compile(logical: LogicalPlan, runtime: &Arc<RuntimeEnv>) -> Result<Self> {
        let planner = Planner::new(runtime);
        let logical = total_order(exact_sums(planner.analyzed(logical)?)?)?;
        let planned = planner.physical(check_arithmetic(planner.optimized(&logical)?)?).await?;
        let schema = planned.schema();
        let (plan, heads) = take_heads(planned)?;
        let shape = Shape::of(&plan, &heads, &planner)?;
        let inputs = heads.into_iter().map(InputPlan::new).collect();
        Ok(Self { inputs, shape, schema, planner })
    }

    /// How many plans it has.
    pub(crate) fn plan_count(&self) -> u64 {
        let count = match &self.shape {
            Shape::Aggregate(plans) | Shape::Unbounded(plans) => plans.plan_count(),
            Shape::Rows(_) | Shape::Stateless(_) | Shape::Finite(_) => 1,
        };
        count as u64
    }

    /// How often something was planned since the query was compiled, compiling included.
    pub(crate) fn plans_made(&self) -> u64 {
        self.planner.plans_made()
    }
}

impl InputPlan {
    fn new(head: RowChain) -> Self {
        let kept = head.bounds.iter().enumerate().filter(|(_, bound)| bound.is_none()).map(|(index, _)| index);
        Self { kept: kept.collect(), head }
    }

    /// The leaf.
    pub(crate) const fn table(&self) -> &StreamTable {
        &self.head.table
    }

    /// The window the leaf is seen through.
    ///
    /// # Errors
    /// Fails if there is none, which the shape of the program rules out for those who ask.
    pub(crate) fn window(&self) -> Result<&WindowSpec> {
        self.table().window().ok_or_else(|| Error::internal("a leaf of a windowed query has no window"))
    }

    /// The columns of the rows that row state keeps.
    ///
    /// # Errors
    /// Fails only if the plan and its head do not fit.
    pub(crate) fn kept_schema(&self) -> Result<SchemaRef> {
        Ok(Arc::new(self.head.schema.project(&self.kept)?))
    }

    /// Kept rows with the columns for the window's bounds back in their places.
    pub(crate) fn with_bounds(&self, kept: &RecordBatch, window: Window) -> Result<RecordBatch> {
        let mut stored = kept.columns().iter();
        let columns = self
            .head
            .bounds
            .iter()
            .map(|bound| match bound {
                Some(bound) => Ok(bound.column(window, kept.num_rows())),
                None => stored.next().cloned().ok_or_else(|| Error::internal("row state lacks a column")),
            })
            .collect::<Result<Vec<_>>>()?;
        batch_of(&self.head.schema, columns, kept.num_rows())
    }
}

impl Shape {
    /// The state of a pane whose rows were all filtered out.
    pub(crate) fn empty_state(&self) -> Vec<RecordBatch> {
        match self {
            Self::Aggregate(plans) => plans.empty_state.clone(),
            _ => Vec::new(),
        }
    }

    fn of(plan: &Arc<dyn ExecutionPlan>, heads: &[RowChain], planner: &Planner) -> Result<Self> {
        let whole = || planner.template(Arc::clone(plan));
        let windows = heads.iter().filter(|head| head.table.window().is_some()).count();
        let single = if let [head] = heads { AggregatePlans::cut(plan, head, planner)? } else { None };
        match (heads.len(), windows, single) {
            (0, ..) => Ok(Self::Finite(whole())),
            (_, 0, Some(plans)) if plans.has_stateless_post() => Ok(Self::Unbounded(plans)),
            (_, 0, _) if is_stateless(plan) => Ok(Self::Stateless(whole())),
            (leaves, windows, Some(plans)) if leaves == windows => Ok(Self::Aggregate(plans)),
            (leaves, windows, None) if leaves == windows => Ok(Self::Rows(whole())),
            _ => Err(Error::query(
                "the query needs all rows of an endless stream at once",
                "give every stream a window, for example trades [Range 5 minutes, Slide 1 minute]",
            )),
        }
    }
}

/// Whether a plan over slots gives the same rows however its input is cut into batches.
///
/// What this cannot see, which side of an outer join the stream is on, the language front end has checked.
pub(crate) fn is_stateless(plan: &Arc<dyn ExecutionPlan>) -> bool {
    use datafusion::physical_plan::coop::CooperativeExec;
    use datafusion::physical_plan::filter::FilterExec;
    use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
    use datafusion::physical_plan::projection::ProjectionExec;
    use datafusion::physical_plan::union::UnionExec;
    use datafusion::physical_plan::unnest::UnnestExec;

    if plan.downcast_ref::<SlotExec>().is_some() || !has_slot(plan) {
        return true;
    }
    let row_local = (plan.is::<FilterExec>() && plan.fetch().is_none())
        || plan.is::<ProjectionExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<UnnestExec>()
        || plan.is::<UnionExec>();
    let join = plan.is::<HashJoinExec>() || plan.is::<CrossJoinExec>() || plan.is::<NestedLoopJoinExec>();
    let children = plan.children();
    let streaming = children.iter().filter(|child| has_slot(child)).count();
    // A static branch of a union would come out again with every micro-batch.
    let shape = if join { streaming == 1 } else { row_local && streaming == children.len() };
    shape && children.into_iter().all(is_stateless)
}

fn has_slot(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<SlotExec>() || plan.children().into_iter().any(has_slot)
}
