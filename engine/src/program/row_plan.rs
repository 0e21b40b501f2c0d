//! What stands between a leaf and the aggregate over it, where each row is looked at by itself: `UNNEST`, which makes
//! several rows of one, and the filters and projections above it.
//!
//! Below it is the leaf's head, which cannot take it over: the head drops rows and counts them, and gives at the most
//! one row for one. So it becomes part of the update plan, which sees the rows of a micro-batch either as they are or
//! with their slot number as one more column at their end; then each node passes that column on.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::Result as DataFusionResult;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::{ProjectionExec, ProjectionExpr};
use datafusion::physical_plan::unnest::UnnestExec;

use crate::nodes::{SlotExec, SlotId};
use crate::program::rows::{Bound, RowChain};

/// A plan over the rows of one leaf, row by row.
#[derive(Debug, Clone)]
pub(crate) struct RowPlan {
    plan: Arc<dyn ExecutionPlan>,
    /// For each of its columns, the bound of a window that it stands for.
    bounds: Vec<Option<Bound>>,
}

impl RowPlan {
    /// Takes `plan` as one over the slot whose rows `chain` makes; `None` if it looks at rows together, or computes
    /// with a bound of a window, which has no value before evaluation.
    pub(crate) fn of(plan: &Arc<dyn ExecutionPlan>, chain: &RowChain) -> Option<Self> {
        if plan.is::<SlotExec>() {
            return Some(Self { plan: Arc::clone(plan), bounds: chain.bounds.clone() });
        }
        let children = plan.children();
        let [child] = children.as_slice() else { return None };
        let input = Self::of(child, chain)?;
        Some(Self { bounds: input.bounds_above(plan)?, plan: Arc::clone(plan) })
    }

    /// The plan over rows as they are, which are bound to `slot`.
    ///
    /// # Errors
    /// Fails only where a node refuses to be rebuilt.
    pub(crate) fn plain(&self, slot: SlotId) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let plan = Arc::clone(&self.plan).transform_up(|node| {
            if !node.is::<SlotExec>() {
                return Ok(Transformed::no(node));
            }
            let numbered: Arc<dyn ExecutionPlan> = Arc::new(SlotExec::numbered(slot, node.schema()));
            Ok(Transformed::yes(numbered))
        })?;
        Ok(plan.data)
    }

    /// The plan over rows of `schema`, whose last column it passes on as its own last column.
    ///
    /// # Errors
    /// Fails only where a node refuses to be rebuilt.
    pub(crate) fn carrying(&self, slot: SlotId, schema: &SchemaRef) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        carry(&self.plan, slot, schema)
    }

    /// The bound that `expression` is, if it is nothing but that.
    pub(crate) fn bound(&self, expression: &Arc<dyn PhysicalExpr>) -> Option<Bound> {
        let column = expression.downcast_ref::<Column>()?;
        self.bounds.get(column.index()).copied().flatten()
    }

    /// Whether `expression` reads a bound anywhere.
    pub(crate) fn touches_bounds(&self, expression: &Arc<dyn PhysicalExpr>) -> bool {
        collect_columns(expression).iter().any(|column| self.bounds.get(column.index()).copied().flatten().is_some())
    }

    /// The bounds that the columns of `node` over these rows stand for.
    fn bounds_above(&self, node: &Arc<dyn ExecutionPlan>) -> Option<Vec<Option<Bound>>> {
        if let Some(unnest) = node.downcast_ref::<UnnestExec>() {
            return Some(self.bounds_unnested(unnest));
        }
        if let Some(filter) = node.downcast_ref::<FilterExec>() {
            if node.fetch().is_some() || self.touches_bounds(filter.predicate()) {
                return None;
            }
            let at = |index: &usize| self.bounds.get(*index).copied().flatten();
            return Some(match filter.projection() {
                Some(indices) => indices.iter().map(at).collect(),
                None => self.bounds.clone(),
            });
        }
        if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
            let bound = |item: &ProjectionExpr| match self.bound(&item.expr) {
                Some(bound) => Some(Some(bound)),
                None => (!self.touches_bounds(&item.expr)).then_some(None),
            };
            return projection.expr().iter().map(bound).collect();
        }
        node.is::<CooperativeExec>().then(|| self.bounds.clone())
    }

    /// An unnested column is as many columns of the output as it is unnested to depths, or has fields.
    fn bounds_unnested(&self, unnest: &UnnestExec) -> Vec<Option<Bound>> {
        let schema = unnest.input().schema();
        let width = |index: usize| {
            let depths = unnest.list_column_indices().iter().filter(|list| list.index_in_input_schema == index).count();
            match schema.fields().get(index).map(|field| field.data_type()) {
                Some(DataType::Struct(fields)) if unnest.struct_column_indices().contains(&index) => fields.len(),
                _ => depths.max(1),
            }
        };
        let repeated = |(index, bound): (usize, &Option<Bound>)| std::iter::repeat_n(*bound, width(index));
        self.bounds.iter().enumerate().flat_map(repeated).collect()
    }
}

fn carry(node: &Arc<dyn ExecutionPlan>, slot: SlotId, schema: &SchemaRef) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let children = node.children();
    let [child] = children.as_slice() else { return Ok(Arc::new(SlotExec::numbered(slot, Arc::clone(schema)))) };
    let input = carry(child, slot, schema)?;
    if let Some(unnest) = node.downcast_ref::<UnnestExec>() {
        return Ok(Arc::new(UnnestExec::new(
            Arc::clone(&input),
            unnest.list_column_indices().to_vec(),
            unnest.struct_column_indices().to_vec(),
            with_last_of(&unnest.schema(), &input.schema()),
            unnest.options().clone(),
        )?));
    }
    if let Some(filter) = node.downcast_ref::<FilterExec>() {
        let filtered: Arc<dyn ExecutionPlan> =
            Arc::new(FilterExec::try_new(Arc::clone(filter.predicate()), Arc::clone(&input))?);
        let Some(indices) = filter.projection() else { return Ok(filtered) };
        let kept = indices.iter().filter_map(|index| column(&input.schema(), *index));
        let all = kept.chain(last_column(&input.schema())).collect::<Vec<_>>();
        return Ok(Arc::new(ProjectionExec::try_new(all, filtered)?));
    }
    if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
        let all: Vec<_> = projection.expr().iter().cloned().chain(last_column(&input.schema())).collect();
        return Ok(Arc::new(ProjectionExec::try_new(all, input)?));
    }
    // No other node makes a row plan.
    Ok(Arc::new(CooperativeExec::new(input)))
}

fn column(schema: &SchemaRef, index: usize) -> Option<ProjectionExpr> {
    let name = schema.fields().get(index)?.name();
    Some(ProjectionExpr { expr: Arc::new(Column::new(name, index)), alias: name.clone() })
}

fn last_column(schema: &SchemaRef) -> Option<ProjectionExpr> {
    column(schema, schema.fields().len().checked_sub(1)?)
}

/// `schema` and behind it the last field of `input`.
fn with_last_of(schema: &SchemaRef, input: &SchemaRef) -> SchemaRef {
    let fields: Vec<Arc<Field>> = schema.fields().iter().chain(input.fields().last()).cloned().collect();
    Arc::new(Schema::new(fields))
}
