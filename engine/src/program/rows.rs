//! The row-local head of a plan: what happens to a row before rows are looked at together.
//!
//! Filters and projections above a stream's leaf are taken out of the physical plan and run directly on blocks,
//! because the pane of each row must travel with it and because the rows they drop are counted.
//! Columns that hold a window's bounds have no value before a window is evaluated: they pass through as
//! placeholders, and a step that computes with them stays in the plan.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, TimestampNanosecondArray, UInt32Array, UInt64Array};
use datafusion::arrow::compute::{filter, filter_record_batch};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::utils::collect_columns;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::filter::FilterExec;
use datafusion::physical_plan::projection::ProjectionExec;

use crate::arrays::batch_of;
use crate::error::{Error, Result};
use crate::nodes::{SlotExec, SlotId};
use crate::plan::{ORDER_COLUMNS, StreamTable, WINDOW_END, WINDOW_START};
use crate::source::{Offset, PartitionId};
use crate::window::{Window, WindowSpec};

/// Which bound of a window a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Bound {
    Start,
    End,
}

impl Bound {
    /// A column of `rows` times the bound of `window`.
    pub(crate) fn column(self, window: Window, rows: usize) -> ArrayRef {
        let time = match self {
            Self::Start => window.start,
            Self::End => window.end,
        };
        Arc::new(TimestampNanosecondArray::from_value(time.0, rows))
    }
}

/// Where a column of a leaf comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeafColumn {
    Input(usize),
    Bound(Bound),
    Partition,
    Offset,
    Time,
}

impl LeafColumn {
    /// The column behind the input's own that has this name.
    fn added(name: &str) -> Result<Self> {
        match name {
            WINDOW_START => Ok(Self::Bound(Bound::Start)),
            WINDOW_END => Ok(Self::Bound(Bound::End)),
            name if name == ORDER_COLUMNS[0] => Ok(Self::Partition),
            name if name == ORDER_COLUMNS[1] => Ok(Self::Offset),
            name => Err(Error::internal(format!("a leaf shows an unknown column {name}"))),
        }
    }
}

/// Rows of one source partition that follow each other.
#[derive(Debug, Clone)]
pub(crate) struct Rows {
    pub(crate) batch: RecordBatch,
    /// The event time of each.
    pub(crate) times: Int64Array,
    pub(crate) partition: PartitionId,
    /// Orders the first row among those of the partition; the others follow in steps of one.
    pub(crate) first: Offset,
    /// What orders each row, where they do not.
    pub(crate) numbers: Option<UInt64Array>,
}

/// The row-local head of one leaf.
#[derive(Debug, Clone)]
pub(crate) struct RowChain {
    pub(crate) table: StreamTable,
    leaf: Vec<LeafColumn>,
    leaf_schema: SchemaRef,
    steps: Vec<Step>,
    /// Where the columns stand that its window selects rows by, behind those of `schema`.
    pub(crate) selection: Option<Selection>,
    /// The columns it makes, placeholders included.
    pub(crate) schema: SchemaRef,
    /// For each of these columns, the bound it stands for.
    pub(crate) bounds: Vec<Option<Bound>>,
}

/// The columns by which a window selects rows: their key, and the order they stand in.
///
/// They are indices among the columns that row state keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selection {
    /// How many columns come before those of the selection.
    pub(crate) shown: usize,
    /// The event time (`Int64`, nanoseconds), the partition (`UInt32`) and the offset (`UInt64`).
    pub(crate) time: usize,
    pub(crate) partition: usize,
    pub(crate) offset: usize,
    /// The keys, in their order.
    pub(crate) keys: Vec<usize>,
}

impl Selection {
    /// The selection of a leaf of which `shown` columns are kept for its query.
    fn behind(shown: usize, keys: usize) -> Self {
        let (time, partition, offset) = (shown, shown + 1, shown + 2);
        Self { shown, time, partition, offset, keys: (shown + 3..shown + 3 + keys).collect() }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Filter { predicate: Arc<dyn PhysicalExpr>, projection: Option<Vec<usize>> },
    Project { expressions: Vec<Arc<dyn PhysicalExpr>>, schema: SchemaRef },
}

/// Rows after the head, with the slot number of each if there was one.
#[derive(Debug)]
pub(crate) struct Headed {
    pub(crate) batch: RecordBatch,
    pub(crate) slots: Option<UInt32Array>,
}

/// Takes the row-local heads out of `plan`: the same plan over numbered slots, and the head of each slot.
///
/// # Errors
/// Fails only where a node refuses to be rebuilt.
pub(crate) fn take_heads(plan: Arc<dyn ExecutionPlan>) -> Result<(Arc<dyn ExecutionPlan>, Vec<RowChain>)> {
    let mut chains: Vec<RowChain> = Vec::new();
    let plan = plan.transform_up(|node| {
        if let Some((table, columns)) = node.downcast_ref::<SlotExec>().and_then(SlotExec::table) {
            let chain = RowChain::leaf(table, columns, node.schema())?;
            let slot = SlotExec::numbered(SlotId(chains.len()), Arc::clone(&chain.schema));
            chains.push(chain);
            return Ok(Transformed::yes(Arc::new(slot) as Arc<dyn ExecutionPlan>));
        }
        let child = match node.children().as_slice() {
            [child] => child.downcast_ref::<SlotExec>().and_then(SlotExec::id),
            _ => None,
        };
        let chain = child.and_then(|id| chains.get_mut(id.0).map(|chain| (id, chain)));
        let Some((id, chain)) = chain else { return Ok(Transformed::no(node)) };
        if !chain.absorb(&node) {
            return Ok(Transformed::no(node));
        }
        let slot = SlotExec::standing_for(&node, id, Arc::clone(&chain.schema))?;
        Ok(Transformed::yes(Arc::new(slot) as Arc<dyn ExecutionPlan>))
    })?;
    Ok((plan.data, chains))
}

impl RowChain {
    /// The head of a leaf of which no column is read.
    ///
    /// # Errors
    /// None that a leaf can have.
    pub(crate) fn unread(table: &StreamTable) -> Result<Self> {
        Self::leaf(table, &[], Arc::new(Schema::empty()))
    }

    fn leaf(table: &StreamTable, columns: &[usize], schema: SchemaRef) -> Result<Self> {
        let inputs = table.columns();
        let leaf = columns
            .iter()
            .zip(schema.fields())
            .map(|(index, field)| match inputs.get(*index) {
                Some(input) => Ok(LeafColumn::Input(*input)),
                None => LeafColumn::added(field.name()),
            })
            .collect::<Result<Vec<_>>>()?;
        let bounds = leaf
            .iter()
            .map(|column| match column {
                LeafColumn::Bound(bound) => Some(*bound),
                _ => None,
            })
            .collect();
        let chain = Self {
            table: table.clone(),
            leaf,
            leaf_schema: Arc::clone(&schema),
            steps: Vec::new(),
            selection: None,
            schema,
            bounds,
        };
        Ok(if table.window().is_some_and(WindowSpec::selects_rows) { chain.selecting() } else { chain })
    }

    /// The same leaf with the columns behind its own that its window selects rows by.
    fn selecting(mut self) -> Self {
        let input = self.table.input().schema();
        let shown = self.bounds.iter().filter(|bound| bound.is_none()).count();
        self.selection = Some(Selection::behind(shown, self.table.keys().len()));
        let mut fields = self.leaf_schema.fields().to_vec();
        for (name, kind, column) in [
            ("__time", DataType::Int64, LeafColumn::Time),
            ("__row_partition", DataType::UInt32, LeafColumn::Partition),
            ("__row_offset", DataType::UInt64, LeafColumn::Offset),
        ] {
            fields.push(Arc::new(Field::new(name, kind, false)));
            self.leaf.push(column);
        }
        for (number, key) in self.table.keys().iter().enumerate() {
            if let Some(field) = input.fields().get(*key) {
                fields.push(Arc::new(field.as_ref().clone().with_name(format!("__key{number}"))));
                self.leaf.push(LeafColumn::Input(*key));
            }
        }
        self.leaf_schema = Arc::new(Schema::new(fields));
        self
    }

    /// The columns of the rows it makes: those of its query, then those of its selection.
    pub(crate) const fn full_schema(&self) -> &SchemaRef {
        if self.selection.is_some() { &self.leaf_schema } else { &self.schema }
    }

    /// Takes the work of `node` over, if it is row-local and does not compute with a window's bounds.
    ///
    /// A window that selects rows does so before anything else happens to them.
    fn absorb(&mut self, node: &Arc<dyn ExecutionPlan>) -> bool {
        if self.selection.is_some() {
            return false;
        }
        if let Some(filter) = node.downcast_ref::<FilterExec>() {
            if node.fetch().is_some() || self.touches_bounds(filter.predicate()) {
                return false;
            }
            let projection = filter.projection().as_ref().map(|indices| indices.to_vec());
            if let Some(indices) = &projection {
                self.bounds = indices.iter().map(|index| self.bounds.get(*index).copied().flatten()).collect();
            }
            self.steps.push(Step::Filter { predicate: Arc::clone(filter.predicate()), projection });
        } else if let Some(projection) = node.downcast_ref::<ProjectionExec>() {
            let expressions: Vec<_> = projection.expr().iter().map(|item| Arc::clone(&item.expr)).collect();
            let bounds: Vec<_> = expressions.iter().map(|expression| self.bound(expression)).collect();
            let computes =
                expressions.iter().zip(&bounds).any(|(expr, bound)| bound.is_none() && self.touches_bounds(expr));
            if computes {
                return false;
            }
            self.bounds = bounds;
            self.steps.push(Step::Project { expressions, schema: node.schema() });
        } else if !node.is::<CooperativeExec>() {
            return false;
        }
        self.schema = node.schema();
        true
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

    /// Runs the head on rows of the input, taking the slot number of each row along.
    pub(crate) fn run(&self, input: &Rows, slots: Option<UInt32Array>) -> Result<Headed> {
        let columns = self.leaf.iter().map(|column| leaf_column(*column, input)).collect::<Result<Vec<_>>>()?;
        let mut headed = Headed { batch: batch_of(&self.leaf_schema, columns, input.batch.num_rows())?, slots };
        for step in &self.steps {
            headed = step.run(headed)?;
        }
        Ok(headed)
    }

    /// A line for each step, from the leaf up, in the words of DataFusion's own plans.
    pub(crate) fn display(&self) -> Vec<String> {
        let mut lines = vec![format!("Scan: {}", self.table.scan_name())];
        for step in &self.steps {
            lines.push(match step {
                Step::Filter { predicate, .. } => format!("Filter: {predicate}"),
                Step::Project { expressions, .. } => {
                    let list: Vec<_> = expressions.iter().map(ToString::to_string).collect();
                    format!("Project: {}", list.join(", "))
                }
            });
        }
        lines
    }
}

/// What bounds hold before there is a window.
const PLACEHOLDER: Window = Window { start: crate::time::EventTime(0), end: crate::time::EventTime(0) };

fn leaf_column(column: LeafColumn, input: &Rows) -> Result<ArrayRef> {
    let rows = input.batch.num_rows();
    Ok(match column {
        LeafColumn::Bound(bound) => bound.column(PLACEHOLDER, rows),
        LeafColumn::Partition => Arc::new(UInt32Array::from_value(input.partition.0, rows)),
        LeafColumn::Time => Arc::new(input.times.clone()),
        LeafColumn::Offset => Arc::new(match &input.numbers {
            Some(numbers) => numbers.clone(),
            None => (input.first.0..).take(rows).collect::<UInt64Array>(),
        }),
        LeafColumn::Input(index) => match input.batch.columns().get(index) {
            Some(column) => Arc::clone(column),
            None => return Err(Error::internal(format!("the input has no column {index}"))),
        },
    })
}

impl Step {
    fn run(&self, Headed { batch, slots }: Headed) -> Result<Headed> {
        match self {
            Self::Filter { predicate, projection } => {
                let mask = predicate.evaluate(&batch)?.into_array(batch.num_rows())?;
                let mask = mask.as_boolean_opt().ok_or_else(|| Error::internal("a predicate is not boolean"))?;
                let slots = slots.map(|slots| filter(&slots, mask)).transpose()?;
                let slots = slots.map(|slots| slots.as_primitive().clone());
                let batch = match projection {
                    Some(indices) => filter_record_batch(&batch.project(indices)?, mask)?,
                    None => filter_record_batch(&batch, mask)?,
                };
                Ok(Headed { batch, slots })
            }
            Self::Project { expressions, schema } => {
                let columns = expressions
                    .iter()
                    .map(|expression| Ok(expression.evaluate(&batch)?.into_array(batch.num_rows())?))
                    .collect::<Result<Vec<_>>>()?;
                Ok(Headed { batch: batch_of(schema, columns, batch.num_rows())?, slots })
            }
        }
    }
}
