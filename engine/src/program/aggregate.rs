//! Cutting a planned GROUP BY into plans over state: rows → state, state → state, state → rows.
//!
//! The lowest aggregate of an optimised plan is rebuilt with DataFusion's `Partial`, `PartialReduce` and `Final` modes,
//! whose state columns are read by position. State is a multiset of such rows: a group may occur several times.
//! Group keys that are bounds of the window are left out of the state, as every row of a window has the same,
//! and put back before `Final`.

use std::sync::Arc;

use datafusion::arrow::array::UInt32Array;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::aggregate::AggregateFunctionExpr;
use datafusion::physical_expr::expressions::{Column, Literal};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy};
use datafusion::physical_plan::sorts::sort::SortExec;

use crate::arrays::{batch_of, take_rows};
use crate::error::{Error, Result};
use crate::function::DeclaredAggregate;
use crate::nodes::{Bindings, SlotExec, SlotId};
use crate::program::row_plan::RowPlan;
use crate::program::rows::{Bound, Headed, RowChain};
use crate::program::session::Planner;
use crate::program::template::Template;
use crate::window::Window;

/// The only slot of each plan made here.
const SLOT: SlotId = SlotId(0);
/// The column that carries a row's slot number into the keyed form of the partial aggregate.
const SLOT_COLUMN: &str = "__slot";

/// The plans of an aggregate over state.
#[derive(Debug, Clone)]
pub(crate) struct AggregatePlans {
    partial: Template,
    partial_keyed: Template,
    keyed_input: SchemaRef,
    reduce: Template,
    final_rows: Template,
    final_input: SchemaRef,
    final_columns: Vec<FinalColumn>,
    /// The state of no rows: a row where an empty grouping set, as of ROLLUP, has one for no rows too.
    pub(crate) empty_state: Vec<RecordBatch>,
    /// How many leading columns of the state are group keys.
    pub(crate) key_columns: usize,
}

#[derive(Debug, Clone, Copy)]
enum FinalColumn {
    State(usize),
    Bound(Bound),
}

/// State rows of one slot number.
pub(crate) type SlotState = (u32, Vec<RecordBatch>);

impl AggregatePlans {
    /// The plans of an aggregate over the slot whose rows `chain` makes.
    ///
    /// # Errors
    /// Fails if DataFusion refuses to build one of the parts.
    fn build(found: &Found, rows: &RowPlan, chain: &RowChain, planner: &Planner) -> Result<Self> {
        let partials = Partials::build(found, rows, chain)?;
        let aggregates = partials.plain.aggr_expr().to_vec();
        let filters = vec![None; aggregates.len()];
        let raw = found.raw.input_schema();
        let rebuild = |mode, keys: PhysicalGroupBy, schema: SchemaRef| {
            let slot = Arc::new(SlotExec::numbered(SLOT, schema));
            AggregateExec::try_new(mode, keys, aggregates.clone(), filters.clone(), slot, Arc::clone(&raw))
        };
        let state = partials.plain.schema();
        let reduce = rebuild(AggregateMode::PartialReduce, partials.keys.as_final(), Arc::clone(&state))?;
        if reduce.schema() != state {
            return Err(Error::internal("merging state changes its columns"));
        }
        let final_rows =
            rebuild(AggregateMode::Final, found.raw.group_expr().as_final(), Arc::clone(&partials.full_state))?;
        let template = |plan: Arc<dyn ExecutionPlan>| planner.template(plan);
        let has_grouping_sets = !found.raw.group_expr().is_single() && !found.raw.group_expr().is_true_no_grouping();
        let partial = template(Arc::new(partials.plain));
        let empty_state = if has_grouping_sets {
            partial.clone().measured(None).run(Bindings::single(SLOT, Vec::new()))?
        } else {
            Vec::new()
        };
        Ok(Self {
            empty_state,
            keyed_input: partials.keyed_input,
            // The same operators on the same rows, a slot or several at a time.
            partial_keyed: template(partials.keyed).measured(partial.work().cloned()),
            partial,
            final_input: Arc::clone(&partials.full_state),
            final_columns: partials.final_columns,
            key_columns: partials.keys.num_group_exprs(),
            reduce: template(Arc::new(reduce)),
            final_rows: template(Arc::new(final_rows)),
        })
    }

    /// How many plans this is.
    pub(crate) const fn plan_count(&self) -> usize {
        4
    }

    /// The columns of the state.
    pub(crate) fn state_schema(&self) -> SchemaRef {
        self.reduce.plan().schema()
    }

    /// The declarations of the aggregates whose state this is, as text.
    pub(crate) fn declarations(&self) -> Vec<&str> {
        let aggregate = self.partial.plan().downcast_ref::<AggregateExec>();
        let functions = aggregate.into_iter().flat_map(AggregateExec::aggr_expr);
        functions.filter_map(|call| DeclaredAggregate::of(call.fun())).map(DeclaredAggregate::text).collect()
    }

    /// What each aggregate is computed of, as text: its name shows calls of functions, but not what they compute.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let Some(aggregate) = self.partial.plan().downcast_ref::<AggregateExec>() else { return Vec::new() };
        let calls = aggregate.aggr_expr().iter().zip(aggregate.filter_expr());
        let line = |(call, filter): (&Arc<AggregateFunctionExpr>, &Option<Arc<dyn PhysicalExpr>>)| {
            let all = call.all_expressions();
            let of = all.args.iter().chain(&all.order_by_exprs).map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let filter = filter.as_ref().map(|filter| format!(" where {filter}")).unwrap_or_default();
            format!("aggregate {} of {of}{filter}", call.name())
        };
        calls.map(line).collect()
    }

    /// The plans as text: update, merge, evaluate.
    pub(crate) fn display(&self) -> [String; 3] {
        [self.partial.display(), self.reduce.display(), self.final_rows.display()]
    }

    /// Rows → state, for rows that all belong to one slot.
    pub(crate) fn update(&self, batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        self.partial.run(Bindings::single(SLOT, batches))
    }

    /// Rows → state, for rows of several slots: the state rows of each, slots ascending.
    pub(crate) fn update_keyed(&self, rows: Vec<Headed>) -> Result<Vec<SlotState>> {
        let batches = rows.into_iter().map(|headed| self.with_slots(headed)).collect::<Result<Vec<_>>>()?;
        split_by_slot(self.partial_keyed.run(Bindings::single(SLOT, batches))?)
    }

    fn with_slots(&self, Headed { batch, slots }: Headed) -> Result<RecordBatch> {
        let slots = slots.ok_or_else(|| Error::internal("rows of several slots come without slot numbers"))?;
        let mut columns = batch.columns().to_vec();
        columns.push(Arc::new(slots));
        batch_of(&self.keyed_input, columns, batch.num_rows())
    }

    /// State → state: each group once per output (best effort, a group may remain in several rows).
    pub(crate) fn merge(&self, state: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        self.reduce.run(Bindings::single(SLOT, state))
    }

    /// State → the aggregate's rows for one window; older state first.
    pub(crate) fn finish(&self, state: Vec<RecordBatch>, window: Window) -> Result<Vec<RecordBatch>> {
        let state = state.iter().map(|batch| self.with_bounds(batch, window)).collect::<Result<Vec<_>>>()?;
        self.final_rows.run(Bindings::single(SLOT, state))
    }

    fn with_bounds(&self, state: &RecordBatch, window: Window) -> Result<RecordBatch> {
        let columns = self
            .final_columns
            .iter()
            .map(|column| match column {
                FinalColumn::Bound(bound) => Ok(bound.column(window, state.num_rows())),
                FinalColumn::State(index) => {
                    let column = state.columns().get(*index).cloned();
                    column.ok_or_else(|| Error::internal(format!("state has no column {index}")))
                }
            })
            .collect::<Result<Vec<_>>>()?;
        batch_of(&self.final_input, columns, state.num_rows())
    }
}

/// The aggregate to cut at: the node of it that reads rows.
struct Found {
    raw: AggregateExec,
    /// A sort between the rows and the aggregate, which ordered aggregates ask for.
    sort: Option<SortExec>,
}

/// A plan over slots, and for each slot the plans of the aggregate that it stands for.
pub(crate) type Cut = (Arc<dyn ExecutionPlan>, Vec<Option<AggregatePlans>>);

/// Replaces every aggregate right above a leaf, whose groups can be kept apart by pane, by the leaf's slot, which then
/// stands for the groups; the plan, and for each head the plans of its aggregate.
///
/// # Errors
/// Fails if DataFusion refuses to build one of the parts.
pub(crate) fn cut_aggregates(plan: Arc<dyn ExecutionPlan>, heads: &[RowChain], planner: &Planner) -> Result<Cut> {
    let mut cut: Vec<Option<AggregatePlans>> = heads.iter().map(|_| None).collect();
    let plan = plan.transform_down(|node| {
        let Some((id, found)) = aggregate_over_slot(&node) else { return Ok(Transformed::no(node)) };
        let Some(chain) = heads.get(id.0) else { return Ok(Transformed::no(node)) };
        let rows = RowPlan::of(found.input(), chain).filter(|rows| !found.computes_with_bounds(rows));
        let Some(rows) = rows.filter(|_| chain.selection.is_none()) else { return Ok(Transformed::no(node)) };
        let plans = AggregatePlans::build(&found, &rows, chain, planner)?;
        let slot = SlotExec::standing_for(&node, id, plans.final_rows.plan().schema())?;
        let slot: Arc<dyn ExecutionPlan> = Arc::new(slot);
        if let Some(place) = cut.get_mut(id.0) {
            *place = Some(plans);
        }
        Ok(Transformed::new(slot, true, TreeNodeRecursion::Jump))
    })?;
    Ok((plan.data, cut))
}

/// The aggregate that `node` is, and the slot right below it.
fn aggregate_over_slot(node: &Arc<dyn ExecutionPlan>) -> Option<(SlotId, Found)> {
    let top = node.downcast_ref::<AggregateExec>()?;
    let raw = match top.mode() {
        AggregateMode::Single | AggregateMode::SinglePartitioned => top,
        AggregateMode::Final | AggregateMode::FinalPartitioned => {
            let partial = top.input().downcast_ref::<AggregateExec>()?;
            matches!(partial.mode(), AggregateMode::Partial).then_some(partial)?
        }
        AggregateMode::Partial | AggregateMode::PartialReduce => return None,
    };
    let sort = raw.input().downcast_ref::<SortExec>().filter(|sort| sort.fetch().is_none());
    let found = Found { raw: raw.clone(), sort: sort.cloned() };
    Some((slot_below(found.input())?, found))
}

/// The slot that one input leads to from the node down, without another aggregate on the way.
fn slot_below(node: &Arc<dyn ExecutionPlan>) -> Option<SlotId> {
    let children = node.children();
    match children.as_slice() {
        [] => node.downcast_ref::<SlotExec>()?.id(),
        [child] if !node.is::<AggregateExec>() => slot_below(child),
        _ => None,
    }
}

impl Found {
    /// What the aggregate reads, without a sort that it asks for.
    fn input(&self) -> &Arc<dyn ExecutionPlan> {
        self.sort.as_ref().map_or(self.raw.input(), SortExec::input)
    }

    /// Whether anything but a plain group key reads a bound of the window, which has no value before evaluation.
    fn computes_with_bounds(&self, rows: &RowPlan) -> bool {
        let keys = self.raw.group_expr();
        let bound_keys = keys.expr().iter().any(|(key, _)| rows.bound(key).is_some());
        let computed_keys = keys.expr().iter().any(|(key, _)| rows.bound(key).is_none() && rows.touches_bounds(key));
        let arguments = self.raw.aggr_expr().iter().any(|aggregate| reads_bounds(aggregate, rows));
        let filters = self.raw.filter_expr().iter().flatten().any(|filter| rows.touches_bounds(filter));
        computed_keys || arguments || filters || (bound_keys && !keys.is_single())
    }
}

fn reads_bounds(aggregate: &AggregateFunctionExpr, rows: &RowPlan) -> bool {
    let expressions = aggregate.expressions();
    let orders = aggregate.order_bys().iter().map(|order| Arc::clone(&order.expr)).collect::<Vec<_>>();
    expressions.iter().chain(&orders).any(|expression| rows.touches_bounds(expression))
}

/// The raw sides: the partial aggregate for rows of one slot, and for rows of several.
struct Partials {
    keys: PhysicalGroupBy,
    plain: AggregateExec,
    keyed: Arc<dyn ExecutionPlan>,
    keyed_input: SchemaRef,
    full_state: SchemaRef,
    final_columns: Vec<FinalColumn>,
}

impl Partials {
    fn build(found: &Found, rows: &RowPlan, chain: &RowChain) -> Result<Self> {
        let raw = &found.raw;
        let (keys, final_columns) = state_keys(raw, rows);
        let partial = |keys: PhysicalGroupBy, rows: Arc<dyn ExecutionPlan>| -> Result<AggregateExec> {
            let schema = rows.schema();
            let input = match &found.sort {
                None => rows,
                Some(sort) => Arc::new(SortExec::new(sort.expr().clone(), rows)),
            };
            Ok(AggregateExec::try_new(
                AggregateMode::Partial,
                keys,
                raw.aggr_expr().to_vec(),
                raw.filter_expr().to_vec(),
                input,
                schema,
            )?)
        };
        let keyed_input = with_slot_column(&chain.schema);
        let keyed_rows = rows.carrying(SLOT, &keyed_input)?;
        let plain = partial(keys.clone(), rows.plain(SLOT)?)?;
        let full_state = partial(raw.group_expr().clone(), rows.plain(SLOT)?)?.schema();
        let keyed = partial(with_slot_key(&keys, &keyed_rows.schema()), keyed_rows)?;
        let state_columns = plain.schema().fields().len();
        let final_columns = complete(final_columns, keys.num_group_exprs(), state_columns);
        Ok(Self { keys, plain, keyed: Arc::new(keyed), keyed_input, full_state, final_columns })
    }
}

/// The group keys that state has, and for each key of the query where its values come from.
fn state_keys(raw: &AggregateExec, rows: &RowPlan) -> (PhysicalGroupBy, Vec<FinalColumn>) {
    let all = raw.group_expr();
    let bounds: Vec<_> = all.expr().iter().map(|(key, _)| rows.bound(key)).collect();
    if bounds.iter().all(Option::is_none) {
        return (all.clone(), (0..all.num_group_exprs()).map(FinalColumn::State).collect());
    }
    let mut kept: Vec<_> =
        all.expr().iter().zip(&bounds).filter(|(_, bound)| bound.is_none()).map(|(key, _)| key.clone()).collect();
    let mut next = 0..;
    let columns = bounds
        .iter()
        .map(|bound| match bound {
            Some(bound) => FinalColumn::Bound(*bound),
            None => FinalColumn::State(next.next().unwrap_or_default()),
        })
        .collect();
    if kept.is_empty() {
        // Without any key the aggregate would have a row even where every row of the window was filtered out.
        kept.push((Arc::new(Literal::new(ScalarValue::Int8(Some(0)))), "__window".to_owned()));
    }
    (PhysicalGroupBy::new_single(kept), columns)
}

/// Adds the state columns behind the keys.
fn complete(mut columns: Vec<FinalColumn>, key_columns: usize, state_columns: usize) -> Vec<FinalColumn> {
    columns.extend((key_columns..state_columns).map(FinalColumn::State));
    columns
}

fn with_slot_column(schema: &SchemaRef) -> SchemaRef {
    let mut fields = schema.fields().to_vec();
    fields.push(Arc::new(Field::new(SLOT_COLUMN, DataType::UInt32, false)));
    Arc::new(Schema::new(fields))
}

fn with_slot_key(keys: &PhysicalGroupBy, schema: &SchemaRef) -> PhysicalGroupBy {
    let index = schema.fields().len().saturating_sub(1);
    let column: Arc<dyn PhysicalExpr> = Arc::new(Column::new(SLOT_COLUMN, index));
    let prefixed = |first: (Arc<dyn PhysicalExpr>, String), rest: &[(Arc<dyn PhysicalExpr>, String)]| {
        std::iter::once(first).chain(rest.iter().cloned()).collect::<Vec<_>>()
    };
    let expressions = prefixed((column, SLOT_COLUMN.to_owned()), keys.expr());
    if keys.is_true_no_grouping() {
        return PhysicalGroupBy::new_single(expressions);
    }
    let null: Arc<dyn PhysicalExpr> = Arc::new(Literal::new(ScalarValue::UInt32(None)));
    let nulls = if keys.null_expr().is_empty() {
        Vec::new()
    } else {
        prefixed((null, SLOT_COLUMN.to_owned()), keys.null_expr())
    };
    let groups = keys.groups().iter().map(|group| std::iter::once(false).chain(group.iter().copied()).collect());
    PhysicalGroupBy::new(expressions, nulls, groups.collect(), keys.has_grouping_set())
}

/// Splits state rows by their first column, the slot number, and takes that column off.
fn split_by_slot(batches: Vec<RecordBatch>) -> Result<Vec<SlotState>> {
    let mut parts = std::collections::BTreeMap::<u32, Vec<RecordBatch>>::new();
    for batch in batches {
        let rest: Vec<usize> = (1..batch.num_columns()).collect();
        let state = batch.project(&rest)?;
        for (slot, rows) in rows_by_slot(batch.column(0).as_ref())? {
            let part = take_rows(&state, &rows)?;
            parts.entry(slot).or_default().push(part);
        }
    }
    Ok(parts.into_iter().collect())
}

/// The row indices of each slot, ascending within it.
pub(crate) fn rows_by_slot(
    slots: &dyn datafusion::arrow::array::Array,
) -> Result<impl Iterator<Item = (u32, UInt32Array)>> {
    let slots = slots
        .as_any()
        .downcast_ref::<UInt32Array>()
        .ok_or_else(|| Error::internal("slot numbers are not 32-bit integers"))?;
    let mut rows: Vec<Vec<u32>> = Vec::new();
    for (row, slot) in (0..).zip(slots.values()) {
        let slot = usize::try_from(*slot).unwrap_or_default();
        if rows.len() <= slot {
            rows.resize_with(slot + 1, Vec::new);
        }
        if let Some(part) = rows.get_mut(slot) {
            part.push(row);
        }
    }
    Ok((0..).zip(rows).filter(|(_, rows)| !rows.is_empty()).map(|(slot, rows)| (slot, UInt32Array::from(rows))))
}
