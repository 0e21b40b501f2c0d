//! From a logical plan to a program: optimise, take the leaves' heads off, cut, and see which shape it is.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, BooleanArray};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;

use crate::arrays::batch_of;
use crate::error::{Error, Result};
use crate::nodes::SlotExec;
use crate::plan::StreamTable;
use crate::program::aggregate::{AggregatePlans, cut_aggregates};
use crate::program::exact::exact_sums;
use crate::program::factored::factored_windows;
use crate::program::order::total_order;
use crate::program::outer::OuterJoin;
use crate::program::overflow::check_arithmetic;
use crate::program::rows::{Bound, RowChain, take_heads};
use crate::program::session::Planner;
use crate::program::template::Template;
use crate::window::{Window, WindowSpec};

/// A query's plans and what they read.
#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) inputs: Vec<InputPlan>,
    pub(crate) shape: Shape,
    pub(crate) schema: SchemaRef,
    /// The plans of its outer join, where that gives each combination of rows once.
    pub(crate) outer: Option<Arc<OuterJoin>>,
    planner: Planner,
}

/// One leaf of the query: where its rows come from and what happens to them row by row.
#[derive(Debug)]
pub(crate) struct InputPlan {
    pub(crate) head: RowChain,
    /// The columns of the head's rows that row state keeps: all but bounds of the window.
    pub(crate) kept: Vec<usize>,
    /// What its panes keep.
    pub(crate) keeps: Kept,
    /// Whether each row that row state keeps has a mark at its end: has it had a partner?
    pub(crate) marks_partners: bool,
}

/// The state of a leaf's panes.
#[derive(Debug)]
pub(crate) enum Kept {
    /// Rows.
    Rows,
    /// Partial aggregates of a GROUP BY right above the leaf.
    Aggregate(Arc<AggregatePlans>),
}

/// How the plan above the leaves is run.
#[derive(Debug)]
pub(crate) enum Shape {
    /// Any SQL over windows: the plan runs over what each leaf gives of its window, its rows or their groups; none
    /// where that is the result.
    Windows(Option<Template>),
    /// A GROUP BY over endless rows: one open pane of partial aggregates, changed groups come out, through the plan
    /// above it.
    Unbounded(Arc<AggregatePlans>, Option<Template>),
    /// Filters, projections and joins with static tables: each micro-batch's rows pass through.
    Stateless(Template),
    /// No stream at all: the plan runs once.
    Finite(Template),
}

impl Program {
    /// Plans `logical` with a planner of its own.
    ///
    /// # Errors
    /// Fails on SQL that DataFusion cannot plan and on shapes that would need endless state.
    pub(crate) async fn compile(logical: LogicalPlan, planner: Planner) -> Result<Self> {
        let logical = total_order(exact_sums(planner.analyzed(logical)?)?)?;
        let windows = windows_of(&logical)?;
        let optimized = factored_windows(planner.optimized(&logical)?)?;
        let optimized = if optimized.transformed { planner.optimized(&optimized.data)? } else { optimized.data };
        let planned = planner.physical(check_arithmetic(optimized)?).await?;
        let schema = planned.schema();
        let (plan, mut heads) = take_heads(planned)?;
        // A window that the optimiser has no use for has its instants all the same: the query is answered at them.
        let is_read = |name: &String, heads: &[RowChain]| heads.iter().any(|head| head.table.scan_name() == *name);
        for (name, table) in &windows {
            if !is_read(name, &heads) {
                heads.push(RowChain::unread(table)?);
            }
        }
        let (plan, aggregates) = cut_aggregates(plan, &heads, &planner)?;
        let inputs: Vec<_> = heads.into_iter().zip(aggregates).map(|(head, cut)| InputPlan::new(head, cut)).collect();
        let shape = Shape::of(&plan, &inputs, &planner)?;
        Ok(Self { inputs, shape, schema, outer: None, planner })
    }

    /// The same program, to give each combination of rows once: its rows are marked as an outer join needs it.
    ///
    /// # Errors
    /// It is no join of windows by row under filters and expressions.
    pub(crate) fn giving_pairs(mut self) -> Result<Self> {
        let refuse = || {
            Error::query(
                "only filters and expressions may stand over a join within bounds of time, and only rows under it",
                "join other relations in a query of their own, or give both streams a window",
            )
        };
        let Shape::Windows(Some(post)) = &self.shape else { return Err(refuse()) };
        if !self.keeps_rows() {
            return Err(refuse());
        }
        if is_row_wise(post.plan()) && (self.inputs.len() == count_slots(post.plan()) || !has_slot(post.plan())) {
            return Ok(self);
        }
        let outer = OuterJoin::cut(post.plan(), &self.planner)?.ok_or_else(refuse)?;
        for (leaf, input) in self.inputs.iter_mut().enumerate() {
            input.marks_partners = outer.preserves(leaf);
        }
        self.outer = Some(Arc::new(outer));
        Ok(self)
    }

    /// Whether all leaves keep rows of windows by row.
    fn keeps_rows(&self) -> bool {
        let by_row = self.inputs.iter().all(|input| input.table().window().is_some_and(WindowSpec::is_by_row));
        by_row && self.inputs.iter().all(|input| matches!(input.keeps, Kept::Rows) && input.head.selection.is_none())
    }

    /// Whether what it gives of one key of its groups depends on no other key.
    pub(crate) fn is_by_key(&self) -> bool {
        let (Shape::Windows(post) | Shape::Unbounded(_, post)) = &self.shape else { return false };
        let [InputPlan { keeps: Kept::Aggregate(plans), .. }] = self.inputs.as_slice() else { return false };
        // Grouping sets have rows of no group.
        let has_keys = plans.key_columns > 0 && plans.empty_state.is_empty();
        has_keys && post.as_ref().is_none_or(|post| is_row_wise(post.plan()) && count_slots(post.plan()) == 1)
    }

    /// How many columns of its state are keys, from the first, where it is by key.
    pub(crate) fn key_columns(&self) -> usize {
        match self.inputs.as_slice() {
            [InputPlan { keeps: Kept::Aggregate(plans), .. }] => plans.key_columns,
            _ => 0,
        }
    }

    /// The leaf with this number.
    ///
    /// # Errors
    /// There is none.
    pub(crate) fn input(&self, leaf: usize) -> Result<&InputPlan> {
        self.inputs.get(leaf).ok_or_else(|| Error::internal("no such leaf"))
    }

    /// How many plans it has.
    pub(crate) fn plan_count(&self) -> u64 {
        let count = match &self.shape {
            Shape::Windows(post) | Shape::Unbounded(_, post) => usize::from(post.is_some()),
            Shape::Stateless(_) | Shape::Finite(_) => 1,
        };
        let of_leaves = self.inputs.iter().map(|input| match &input.keeps {
            Kept::Aggregate(plans) => plans.plan_count(),
            Kept::Rows => 0,
        });
        let outer = self.outer.as_ref().map_or(0, |outer| outer.plan_count());
        (count + outer + of_leaves.sum::<usize>()) as u64
    }

    /// How often something was planned since the query was compiled, compiling included.
    pub(crate) fn plans_made(&self) -> u64 {
        self.planner.plans_made()
    }
}

/// The windowed leaves of a plan by their scan names.
fn windows_of(plan: &LogicalPlan) -> Result<BTreeMap<String, StreamTable>> {
    let mut windows = BTreeMap::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::TableScan(scan) = node {
            let provider = source_as_provider(&scan.source)?;
            let provider: &dyn std::any::Any = provider.as_ref();
            if let Some(table) = provider.downcast_ref::<StreamTable>().filter(|table| table.window().is_some()) {
                windows.insert(table.scan_name(), table.clone());
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(windows)
}

impl InputPlan {
    fn new(head: RowChain, aggregate: Option<AggregatePlans>) -> Self {
        let columns = head.full_schema().fields().len();
        let kept = (0..columns).filter(|index| head.bounds.get(*index).copied().flatten().is_none()).collect();
        let keeps = aggregate.map_or(Kept::Rows, |plans| Kept::Aggregate(Arc::new(plans)));
        Self { kept, keeps, head, marks_partners: false }
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
        Ok(Arc::new(self.head.full_schema().project(&self.kept)?))
    }

    /// The columns of its state.
    ///
    /// # Errors
    /// Fails only if the plan and its head do not fit.
    pub(crate) fn state_schema(&self) -> Result<SchemaRef> {
        match &self.keeps {
            Kept::Aggregate(plans) => Ok(plans.state_schema()),
            Kept::Rows if self.marks_partners => Ok(marked(self.kept_schema()?.as_ref())),
            Kept::Rows => self.kept_schema(),
        }
    }

    /// What row state keeps of rows that the head made; they have had no partner yet.
    ///
    /// # Errors
    /// Fails only if the rows are not those of the head.
    pub(crate) fn kept_rows(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let kept = rows.project(&self.kept)?;
        if !self.marks_partners {
            return Ok(kept);
        }
        let mut columns = kept.columns().to_vec();
        columns.push(Arc::new(BooleanArray::from(vec![false; kept.num_rows()])));
        batch_of(&marked(&kept.schema()), columns, kept.num_rows())
    }

    /// The marks of kept rows that say which have had a partner, where they have marks.
    ///
    /// # Errors
    /// Fails only if the rows are not those of the leaf.
    pub(crate) fn partner_marks<'a>(&self, kept: &'a RecordBatch) -> Result<Option<&'a BooleanArray>> {
        if !self.marks_partners {
            return Ok(None);
        }
        let marks = kept.columns().last().and_then(|marks| marks.as_boolean_opt());
        marks.map(Some).ok_or_else(|| Error::internal("row state lacks the marks of its partners"))
    }

    /// Kept rows with other marks.
    ///
    /// # Errors
    /// Fails only if the rows are not those of the leaf.
    pub(crate) fn with_partner_marks(&self, kept: &RecordBatch, marks: BooleanArray) -> Result<RecordBatch> {
        let mut columns = kept.columns().to_vec();
        columns.pop();
        columns.push(Arc::new(marks));
        batch_of(&kept.schema(), columns, kept.num_rows())
    }

    /// Kept rows with the columns for the window's bounds back in their places.
    pub(crate) fn with_bounds(&self, kept: &RecordBatch, window: Window) -> Result<RecordBatch> {
        let rows = kept.num_rows();
        self.with_bound_columns(kept, |bound| bound.column(window, rows))
    }

    /// Kept rows with columns that `bound_column` makes for the window's bounds in their places.
    pub(crate) fn with_bound_columns(
        &self,
        kept: &RecordBatch,
        bound_column: impl Fn(Bound) -> ArrayRef,
    ) -> Result<RecordBatch> {
        let mut stored = kept.columns().iter();
        let columns = self
            .head
            .bounds
            .iter()
            .map(|bound| match bound {
                Some(bound) => Ok(bound_column(*bound)),
                None => stored.next().cloned().ok_or_else(|| Error::internal("row state lacks a column")),
            })
            .collect::<Result<Vec<_>>>()?;
        batch_of(&self.head.schema, columns, kept.num_rows())
    }
}

/// The columns of kept rows, and behind them their marks.
fn marked(kept: &Schema) -> SchemaRef {
    let mut fields = kept.fields().to_vec();
    fields.push(Arc::new(Field::new("__has_partner", DataType::Boolean, false)));
    Arc::new(Schema::new(fields))
}

impl Kept {
    /// The state of a pane whose rows were all filtered out.
    pub(crate) fn empty_state(&self) -> Vec<RecordBatch> {
        match self {
            Self::Aggregate(plans) => plans.empty_state.clone(),
            Self::Rows => Vec::new(),
        }
    }
}

impl Shape {
    fn of(plan: &Arc<dyn ExecutionPlan>, inputs: &[InputPlan], planner: &Planner) -> Result<Self> {
        let whole = || planner.template(Arc::clone(plan));
        // A plan that is nothing but the slot of an aggregate has no work left.
        let post = || (plan.downcast_ref::<SlotExec>().is_none()).then(whole);
        let windows = inputs.iter().filter(|input| input.table().window().is_some()).count();
        match inputs {
            [] => return Ok(Self::Finite(whole())),
            [InputPlan { keeps: Kept::Aggregate(plans), .. }] if windows == 0 && is_stateless(plan) => {
                return Ok(Self::Unbounded(Arc::clone(plans), post()));
            }
            _ => {}
        }
        let has_groups = inputs.iter().any(|input| matches!(input.keeps, Kept::Aggregate(_)));
        if windows == 0 && !has_groups && is_stateless(plan) {
            return Ok(Self::Stateless(whole()));
        }
        if windows == inputs.len() {
            let is_rows = matches!(inputs, [InputPlan { keeps: Kept::Rows, .. }]);
            return Ok(Self::Windows(if is_rows { Some(whole()) } else { post() }));
        }
        Err(Error::query(
            "the query needs all rows of an endless stream at once",
            "give every stream a window, for example trades [Range 5 minutes, Slide 1 minute]",
        ))
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

/// Whether each row that a plan over slots gives comes from one combination of rows, whatever others there are.
pub(super) fn is_row_wise(plan: &Arc<dyn ExecutionPlan>) -> bool {
    use datafusion::common::JoinType;
    use datafusion::physical_plan::coop::CooperativeExec;
    use datafusion::physical_plan::filter::FilterExec;
    use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
    use datafusion::physical_plan::projection::ProjectionExec;

    let hash_join = plan.downcast_ref::<HashJoinExec>().is_some_and(|join| *join.join_type() == JoinType::Inner);
    let loop_join = plan.downcast_ref::<NestedLoopJoinExec>().is_some_and(|join| *join.join_type() == JoinType::Inner);
    let row_wise = (plan.is::<FilterExec>() && plan.fetch().is_none())
        || plan.is::<ProjectionExec>()
        || plan.is::<CooperativeExec>()
        || plan.is::<CrossJoinExec>();
    !has_slot(plan)
        || plan.is::<SlotExec>()
        || ((hash_join || loop_join || row_wise) && plan.children().into_iter().all(is_row_wise))
}

fn has_slot(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.is::<SlotExec>() || plan.children().into_iter().any(has_slot)
}

/// How many slots a plan reads.
fn count_slots(plan: &Arc<dyn ExecutionPlan>) -> usize {
    usize::from(plan.is::<SlotExec>()) + plan.children().into_iter().map(count_slots).sum::<usize>()
}
