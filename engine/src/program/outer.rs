//! An outer join of rows that are given once, cut into the join of the rows that meet and what stands above it.
//!
//! ```text
//!   above            combinations, and rows beside NULLs → results
//!   meet             an inner join: combinations, with the numbers of the two rows of each
//!   slot, slot       the rows of the two leaves with a number each
//! ```
//!
//! The plan cannot be run as it is: over a part of the rows it would give a row beside NULLs whose partner is in another
//! part. Which rows have met a partner is known by their numbers and kept by the executor; it says which rows never
//! will, and those are put beside NULLs here.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, UInt64Array, new_null_array};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::JoinType;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DataFusionResult;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, NestedLoopJoinExec};

use crate::arrays::batch_of;
use crate::error::{Error, Result};
use crate::nodes::{Bindings, SlotExec, SlotId};
use crate::program::compile::is_row_wise;
use crate::program::session::Planner;
use crate::program::template::Template;

/// The slot of the plan above the join.
const JOINED: SlotId = SlotId(0);

/// The plans of an outer join of two leaves.
#[derive(Debug)]
pub(crate) struct OuterJoin {
    meet: Template,
    above: Template,
    sides: [Side; 2],
    /// The columns of the join.
    schema: SchemaRef,
    /// The side that each of them comes from, and its place there.
    columns: Vec<(usize, usize)>,
}

/// One side of the join.
#[derive(Debug, Clone)]
struct Side {
    slot: SlotId,
    /// Whether each of its rows is given, with a partner or without.
    is_preserved: bool,
    /// The columns of its rows, then their number.
    numbered: SchemaRef,
}

/// What met in one run of the join.
#[derive(Debug)]
pub(crate) struct Met {
    /// The combinations.
    pub(crate) joined: RecordBatch,
    /// For each leaf, the number of its row in each combination.
    pub(crate) numbers: [UInt64Array; 2],
}

impl OuterJoin {
    /// The plans of `plan`, if it is filters and expressions over an outer join of its two slots and nothing else.
    ///
    /// # Errors
    /// Fails if DataFusion refuses to build one of the parts.
    pub(crate) fn cut(plan: &Arc<dyn ExecutionPlan>, planner: &Planner) -> Result<Option<Self>> {
        let mut joins = Vec::new();
        let above = Arc::clone(plan).transform_down(|node| {
            let Some(join) = Join::of(&node) else { return Ok(Transformed::no(node)) };
            let slot: Arc<dyn ExecutionPlan> = Arc::new(SlotExec::numbered(JOINED, node.schema()));
            joins.push((join, node));
            Ok(Transformed::new(slot, true, TreeNodeRecursion::Jump))
        })?;
        let [(join, node)] = joins.as_slice() else { return Ok(None) };
        if !is_row_wise(&above.data) {
            return Ok(None);
        }
        let widths = [&join.left, &join.right].map(|slot| slot.schema().fields().len());
        let sides = join.sides()?;
        let shown = join.projection.clone().unwrap_or_else(|| (0..widths[0] + widths[1]).collect());
        let origin = |column: &usize| match column.checked_sub(widths[0]) {
            None => (0, *column),
            Some(column) => (1, column),
        };
        let columns: Vec<_> = shown.iter().map(origin).collect();
        // In front of the columns of the right side stands the number of the left one now.
        let moved = shown.iter().map(|column| column + usize::from(*column >= widths[0]));
        let moved = moved.chain([widths[0], widths[0] + 1 + widths[1]]).collect();
        let [left, right] = sides
            .clone()
            .map(|side| -> Arc<dyn ExecutionPlan> { Arc::new(SlotExec::numbered(side.slot, side.numbered)) });
        let meet = planner.template(inner(node, left, right, moved)?);
        Ok(Some(Self { meet, above: planner.template(above.data), sides, schema: node.schema(), columns }))
    }

    /// How many plans this is.
    pub(crate) const fn plan_count(&self) -> usize {
        2
    }

    /// Whether each row of a leaf is given, with a partner or without.
    pub(crate) fn preserves(&self, leaf: usize) -> bool {
        self.sides.iter().any(|side| side.slot.0 == leaf && side.is_preserved)
    }

    /// Which rows meet, as text: it decides what is kept of them.
    pub(crate) fn display(&self) -> String {
        self.meet.display()
    }

    /// Rows of a leaf with `numbers` at their end.
    ///
    /// # Errors
    /// Fails only if the rows are not those of the leaf.
    pub(crate) fn numbered(&self, leaf: usize, rows: &RecordBatch, numbers: UInt64Array) -> Result<RecordBatch> {
        let mut columns = rows.columns().to_vec();
        columns.push(Arc::new(numbers));
        batch_of(&self.side(leaf)?.1.numbered, columns, rows.num_rows())
    }

    /// The combinations of numbered rows of the two leaves.
    ///
    /// # Errors
    /// As the condition of the join fails.
    pub(crate) fn meet(&self, rows: [Vec<RecordBatch>; 2]) -> Result<Vec<Met>> {
        let mut bindings = Bindings::default();
        for (leaf, rows) in rows.into_iter().enumerate() {
            bindings.bind(SlotId(leaf), rows);
        }
        self.meet.run(bindings)?.iter().map(|batch| self.met(batch)).collect()
    }

    fn met(&self, batch: &RecordBatch) -> Result<Met> {
        let (columns, numbers) = batch.columns().split_at_checked(self.columns.len()).unwrap_or_default();
        let numbers: Vec<&UInt64Array> = numbers.iter().filter_map(|column| column.as_primitive_opt()).collect();
        let [left, right] = numbers.as_slice() else {
            return Err(Error::internal("an outer join lacks the numbers of its rows"));
        };
        let joined = batch_of(&self.schema, columns.to_vec(), batch.num_rows())?;
        let (left, right) = (UInt64Array::clone(left), UInt64Array::clone(right));
        let is_swapped = self.sides[0].slot.0 == 1;
        Ok(Met { joined, numbers: if is_swapped { [right, left] } else { [left, right] } })
    }

    /// Rows of a leaf beside NULLs.
    ///
    /// # Errors
    /// Fails only if the rows are not those of the leaf.
    pub(crate) fn alone(&self, leaf: usize, rows: &RecordBatch) -> Result<RecordBatch> {
        let (own, _) = self.side(leaf)?;
        let column = |((side, place), field): (&(usize, usize), &Arc<Field>)| -> Result<ArrayRef> {
            if *side != own {
                return Ok(new_null_array(field.data_type(), rows.num_rows()));
            }
            let column = rows.columns().get(*place).cloned();
            column.ok_or_else(|| Error::internal("a row beside NULLs lacks a column"))
        };
        let columns = self.columns.iter().zip(self.schema.fields()).map(column).collect::<Result<_>>()?;
        batch_of(&self.schema, columns, rows.num_rows())
    }

    /// The results of combinations and of rows beside NULLs.
    ///
    /// # Errors
    /// As an expression above the join fails.
    pub(crate) fn results(&self, joined: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
        self.above.run(Bindings::single(JOINED, joined))
    }

    /// The side of a leaf, and whether it is the left or the right one.
    fn side(&self, leaf: usize) -> Result<(usize, &Side)> {
        let mut sides = self.sides.iter().enumerate();
        sides.find(|(_, side)| side.slot.0 == leaf).ok_or_else(|| Error::internal("a leaf is no side of the join"))
    }
}

/// An outer join of two slots.
struct Join {
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    join_type: JoinType,
    /// The columns it shows, of the left side and then the right one.
    projection: Option<Vec<usize>>,
}

impl Join {
    fn of(node: &Arc<dyn ExecutionPlan>) -> Option<Self> {
        let (join_type, projection) = if let Some(join) = node.downcast_ref::<HashJoinExec>() {
            (*join.join_type(), join.projection.as_ref())
        } else {
            let join = node.downcast_ref::<NestedLoopJoinExec>()?;
            (*join.join_type(), join.projection().as_ref())
        };
        let children = node.children();
        let [left, right] = children.as_slice() else { return None };
        let is_outer = matches!(join_type, JoinType::Left | JoinType::Right | JoinType::Full);
        let are_slots = [left, right].iter().all(|child| child.downcast_ref::<SlotExec>().is_some());
        (is_outer && are_slots && node.fetch().is_none()).then(|| Self {
            left: Arc::clone(left),
            right: Arc::clone(right),
            join_type,
            projection: projection.map(|columns| columns.to_vec()),
        })
    }

    fn sides(&self) -> Result<[Side; 2]> {
        let side = |slot: &Arc<dyn ExecutionPlan>, preserving: JoinType| -> Result<Side> {
            let id = slot.downcast_ref::<SlotExec>().and_then(SlotExec::id);
            let mut fields = slot.schema().fields().to_vec();
            fields.push(Arc::new(Field::new("__row", DataType::UInt64, false)));
            Ok(Side {
                slot: id.ok_or_else(|| Error::internal("a side of a join has no slot"))?,
                is_preserved: [preserving, JoinType::Full].contains(&self.join_type),
                numbered: Arc::new(Schema::new(fields)),
            })
        };
        Ok([side(&self.left, JoinType::Left)?, side(&self.right, JoinType::Right)?])
    }
}

/// The inner join with the condition of the join `node`, which shows `columns`.
fn inner(
    node: &Arc<dyn ExecutionPlan>,
    left: Arc<dyn ExecutionPlan>,
    right: Arc<dyn ExecutionPlan>,
    columns: Vec<usize>,
) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    if let Some(join) = node.downcast_ref::<HashJoinExec>() {
        let join = join.builder().with_new_children(vec![left, right])?.with_type(JoinType::Inner);
        return join.with_projection(Some(columns)).reset_state().build_exec();
    }
    let filter = node.downcast_ref::<NestedLoopJoinExec>().and_then(NestedLoopJoinExec::filter).cloned();
    Ok(Arc::new(NestedLoopJoinExec::try_new(left, right, filter, &JoinType::Inner, Some(columns))?))
}
