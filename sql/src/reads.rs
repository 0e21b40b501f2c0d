//! What a query reads of rows that change while it is planned: each relation as it was at one moment, and those of
//! windows up to the instant that all of them have closed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Result as DataFusionResult;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;
use millstream_engine::results::MaterializedRows;

/// The changing relations of a query, by name, and the names that it says itself.
#[derive(Debug, Default)]
pub(crate) struct Reads {
    changing: Mutex<BTreeMap<String, Read>>,
    named: Mutex<BTreeSet<String>>,
}

#[derive(Debug)]
enum Read {
    /// A view that is not looked at yet.
    Wanted(Arc<dyn MaterializedRows>),
    /// Rows as they were.
    Taken(Arc<dyn TableProvider>),
}

/// A view as a table of a plan; its rows are taken when the plan is made ready to run.
#[derive(Debug)]
struct ViewTable {
    name: String,
    schema: SchemaRef,
    reads: Arc<Reads>,
}

impl Reads {
    /// A materialized view as a table of the query.
    pub(crate) fn view(self: &Arc<Self>, name: &str, rows: &Arc<dyn MaterializedRows>) -> Arc<dyn TableProvider> {
        self.locked().entry(name.to_owned()).or_insert_with(|| Read::Wanted(Arc::clone(rows)));
        Arc::new(ViewTable { name: name.to_owned(), schema: rows.schema(), reads: Arc::clone(self) })
    }

    /// Rows that were taken already; those that were taken under the name before, if there are such.
    pub(crate) fn fixed(&self, name: &str, rows: Arc<dyn TableProvider>) -> Arc<dyn TableProvider> {
        match self.locked().entry(name.to_owned()).or_insert_with(|| Read::Taken(Arc::clone(&rows))) {
            Read::Taken(before) => Arc::clone(before),
            Read::Wanted(_) => rows,
        }
    }

    /// Notes a relation that the query names, and no view that it reads.
    pub(crate) fn note(&self, name: &str) {
        self.named.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned());
    }

    /// The relations that were noted.
    pub(crate) fn named(&self) -> BTreeSet<String> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The name of one of them.
    pub(crate) fn first_name(&self) -> Option<String> {
        self.locked().keys().next().cloned()
    }

    /// The rows of a view; all views of the query are taken with the first.
    fn taken(&self, name: &str) -> DataFusionResult<Arc<dyn TableProvider>> {
        let mut reads = self.locked();
        let wanted = reads.values().filter_map(|read| match read {
            Read::Wanted(rows) => rows.closed_to(),
            Read::Taken(_) => None,
        });
        let closed_by_all = wanted.min();
        for read in reads.values_mut() {
            if let Read::Wanted(rows) = read {
                let rows = rows.snapshot(closed_by_all).map_err(|error| DataFusionError::External(Box::new(error)))?;
                *read = Read::Taken(rows);
            }
        }
        match reads.get(name) {
            Some(Read::Taken(rows)) => Ok(Arc::clone(rows)),
            _ => Err(DataFusionError::Internal(format!("the view {name} is not among what is read"))),
        }
    }

    fn locked(&self) -> MutexGuard<'_, BTreeMap<String, Read>> {
        // Each entry is whole at any time.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl TableProvider for ViewTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
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
        self.reads.taken(&self.name)?.scan(state, projection, filters, limit).await
    }
}
