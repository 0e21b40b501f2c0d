//! A leaf whose rows are bound anew for every execution, so that a plan is made once and run many times.
//!
//! The official late-binding hook is [`ExecutionPlan::with_new_state`]; [`crate::program`] walks a plan with it and
//! resets every other node, because a node that ran keeps what it built (a hash join its build side).
//! All instances of one slot share their `PlanProperties`, which lets DataFusion skip recomputing those above.

use std::any::Any;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{Schema, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, internal_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties, PlanProperties, SendableRecordBatchStream,
};

use crate::plan::StreamTable;

/// Which slot of a plan rows are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SlotId(pub usize);

/// The rows of every slot for one execution of a plan.
#[derive(Debug, Default)]
pub struct Bindings(HashMap<SlotId, Vec<RecordBatch>>);

impl Bindings {
    /// Bindings of a plan with a single slot.
    pub fn single(slot: SlotId, batches: Vec<RecordBatch>) -> Self {
        Self(HashMap::from([(slot, batches)]))
    }

    /// Binds `batches`, in their order, to `slot`.
    pub fn bind(&mut self, slot: SlotId, batches: Vec<RecordBatch>) {
        self.0.insert(slot, batches);
    }
}

/// The leaf: either a stream's place in a freshly planned query, or a numbered slot of a plan that is run.
#[derive(Debug, Clone)]
pub struct SlotExec {
    place: Place,
    schema: SchemaRef,
    batches: Option<Vec<RecordBatch>>,
    properties: Arc<PlanProperties>,
}

#[derive(Debug, Clone)]
enum Place {
    /// The columns of a stream table, as indices into its schema.
    Table(StreamTable, Vec<usize>),
    Numbered(SlotId),
}

impl SlotExec {
    /// The leaf that planning puts in place of a stream table.
    ///
    /// # Errors
    /// Fails if the projection names a column that is not there.
    pub fn for_table(table: StreamTable, projection: Option<Vec<usize>>) -> DataFusionResult<Self> {
        let schema = datafusion::catalog::TableProvider::schema(&table);
        let columns = projection.unwrap_or_else(|| (0..schema.fields().len()).collect());
        let schema: SchemaRef = Arc::new(schema.project(&columns)?);
        Ok(Self::with_place(Place::Table(table, columns), schema))
    }

    /// The leaf that rows of `schema` are bound to under `id`.
    pub fn numbered(id: SlotId, schema: SchemaRef) -> Self {
        Self::with_place(Place::Numbered(id), schema)
    }

    /// The leaf that the rows of `node`, which have the columns of `schema`, are bound to under `id`.
    ///
    /// What `node` knows to be constant or equal is known of the leaf too: nodes above were planned to rely on it.
    ///
    /// # Errors
    /// None that the properties of a node can have.
    pub fn standing_for(node: &Arc<dyn ExecutionPlan>, id: SlotId, schema: SchemaRef) -> DataFusionResult<Self> {
        let mut known = EquivalenceProperties::new(Arc::clone(&schema));
        known.add_equivalence_group(node.equivalence_properties().eq_group().clone())?;
        Ok(Self::with_properties(Place::Numbered(id), schema, known))
    }

    fn with_place(place: Place, schema: SchemaRef) -> Self {
        let unknown = EquivalenceProperties::new(Arc::clone(&schema));
        Self::with_properties(place, schema, unknown)
    }

    fn with_properties(place: Place, schema: SchemaRef, known: EquivalenceProperties) -> Self {
        let properties = PlanProperties::new(
            known,
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Self { place, schema, batches: None, properties: Arc::new(properties) }
    }

    /// The stream table this leaf stands for and the columns it shows, if planning put it there.
    pub fn table(&self) -> Option<(&StreamTable, &[usize])> {
        match &self.place {
            Place::Table(table, columns) => Some((table, columns)),
            Place::Numbered(_) => None,
        }
    }

    /// How many rows are bound to it.
    pub fn bound_rows(&self) -> u64 {
        self.batches.iter().flatten().map(|batch| batch.num_rows() as u64).sum()
    }

    /// The number of this slot, if rows can be bound to it.
    pub fn id(&self) -> Option<SlotId> {
        match &self.place {
            Place::Table(..) => None,
            Place::Numbered(id) => Some(*id),
        }
    }
}

impl DisplayAs for SlotExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let columns =
            |schema: &Schema| schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
        match &self.place {
            Place::Table(table, _) => write!(f, "SlotExec: {} ({})", table.scan_name(), columns(&self.schema)),
            Place::Numbered(SlotId(id)) => write!(f, "SlotExec: {id} ({})", columns(&self.schema)),
        }
    }
}

impl ExecutionPlan for SlotExec {
    fn name(&self) -> &'static str {
        "SlotExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, _: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let Some(batches) = &self.batches else {
            return internal_err!("a slot was executed without rows bound to it");
        };
        let stream = MemoryStream::try_new(batches.clone(), Arc::clone(&self.schema), None)?;
        Ok(Box::pin(cooperative(stream)))
    }

    // Exact statistics would let the planner fold COUNT and MIN of whatever is bound first into literals.
    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> DataFusionResult<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&self.schema)))
    }

    fn with_new_state(&self, state: Arc<dyn Any + Send + Sync>) -> Option<Arc<dyn ExecutionPlan>> {
        let bindings = state.downcast::<Bindings>().ok()?;
        let Place::Numbered(id) = &self.place else { return None };
        let batches = bindings.0.get(id).cloned();
        Some(Arc::new(Self { batches, ..self.clone() }))
    }
}
