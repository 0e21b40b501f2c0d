//! Static tables that are read again from time to time, as a query over streams sees them.
//!
//! Such a table is an input with a log of its own, of which each record is the whole table at one moment: a version.
//! The version that an epoch finds last in its part of the log is the table for all of its plans, and for those of the
//! epochs to come. So an epoch that is replayed joins the rows it has joined before.

use std::any::Any;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::default_table_source::source_as_provider;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Statistics, internal_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, LogicalPlan, TableType};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::statistics::StatisticsArgs;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};

use crate::error::Result;
use crate::plan::{Input, StreamDefinition, StreamTable};

/// A table that is read again from time to time.
///
/// In a plan over streams it is the version that the query has come to, in any other its rows as they are then.
#[derive(Debug)]
pub struct RefreshedTable {
    definition: Arc<StreamDefinition>,
    rows: Arc<dyn TableProvider>,
}

impl RefreshedTable {
    /// The table of `definition`, whose rows as they are at any time `rows` gives.
    pub fn new(definition: Arc<StreamDefinition>, rows: Arc<dyn TableProvider>) -> Self {
        Self { definition, rows }
    }
}

#[async_trait]
impl TableProvider for RefreshedTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.definition.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        match state.config().get_extension::<Versions>() {
            Some(versions) if versions.names.contains(&self.definition.name) => {
                Ok(Arc::new(VersionExec::new(&self.definition, versions, projection)?))
            }
            _ => self.rows.scan(state, projection, filters, limit).await,
        }
    }
}

/// The version of each refreshed table that a query has come to.
#[derive(Debug, Default)]
pub(crate) struct Versions {
    names: BTreeSet<String>,
    rows: Mutex<BTreeMap<String, Vec<RecordBatch>>>,
}

impl Versions {
    /// Those of `tables`, of which none has been read yet.
    pub(crate) fn of(tables: &[Arc<StreamDefinition>]) -> Self {
        Self { names: tables.iter().map(|table| table.name.clone()).collect(), rows: Mutex::default() }
    }

    /// Goes on to another version of a table; nothing may be running that reads it.
    pub(crate) fn set(&self, table: &str, rows: Vec<RecordBatch>) {
        self.locked().insert(table.to_owned(), rows);
    }

    /// Whether some version of every table has been read.
    pub(crate) fn are_complete(&self) -> bool {
        let rows = self.locked();
        self.names.iter().all(|name| rows.contains_key(name))
    }

    /// Whether there are tables at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    fn get(&self, table: &str) -> Option<Vec<RecordBatch>> {
        self.locked().get(table).cloned()
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Vec<RecordBatch>>> {
        // Each entry is whole at any time.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The refreshed tables that a plan reads, those of its views included, each once, by name.
///
/// # Errors
/// Fails if a leaf cannot be looked into.
pub(crate) fn tables_of(logical: &LogicalPlan) -> Result<Vec<Arc<StreamDefinition>>> {
    let mut tables = BTreeMap::new();
    collect(logical, &mut tables)?;
    Ok(tables.into_values().collect())
}

fn collect(logical: &LogicalPlan, tables: &mut BTreeMap<String, Arc<StreamDefinition>>) -> Result<()> {
    logical.apply_with_subqueries(|node| {
        let LogicalPlan::TableScan(scan) = node else { return Ok(TreeNodeRecursion::Continue) };
        let provider = source_as_provider(&scan.source)?;
        let provider: &dyn Any = provider.as_ref();
        if let Some(table) = provider.downcast_ref::<RefreshedTable>() {
            tables.insert(table.definition.name.clone(), Arc::clone(&table.definition));
        }
        if let Some(Input::View(view)) = provider.downcast_ref::<StreamTable>().map(StreamTable::input) {
            collect(&view.query, tables)?;
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

/// The leaf: the rows of a table in the version of the epoch that runs it.
#[derive(Debug)]
struct VersionExec {
    table: String,
    versions: Arc<Versions>,
    columns: Vec<usize>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl VersionExec {
    fn new(
        definition: &StreamDefinition,
        versions: Arc<Versions>,
        projection: Option<&Vec<usize>>,
    ) -> DataFusionResult<Self> {
        let all = || (0..definition.schema.fields().len()).collect();
        let columns = projection.cloned().unwrap_or_else(all);
        let schema: SchemaRef = Arc::new(definition.schema.project(&columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        Ok(Self { table: definition.name.clone(), versions, columns, schema, properties: Arc::new(properties) })
    }
}

impl DisplayAs for VersionExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.schema.fields().iter().map(|field| field.name().as_str()).collect::<Vec<_>>().join(", ");
        write!(f, "VersionExec: {} as last read ({names})", self.table)
    }
}

impl ExecutionPlan for VersionExec {
    fn name(&self) -> &'static str {
        "VersionExec"
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
        let Some(rows) = self.versions.get(&self.table) else {
            return internal_err!("the table {} is looked at before it was read", self.table);
        };
        let rows = rows.iter().map(|rows| rows.project(&self.columns)).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Box::pin(MemoryStream::try_new(rows, Arc::clone(&self.schema), None)?))
    }

    // What is known of one version is not known of the next.
    fn statistics_from_inputs(&self, _: &[Arc<Statistics>], _: &StatisticsArgs) -> DataFusionResult<Arc<Statistics>> {
        Ok(Arc::new(Statistics::new_unknown(&self.schema)))
    }
}
