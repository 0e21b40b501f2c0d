//! A physical plan made once and run many times.

use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::error::DataFusionError;
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::physical_plan::{ExecutionPlan, displayable, execute_stream};
use futures::TryStreamExt;
use tokio::sync::watch;

use crate::error::Result;
use crate::nodes::{Bindings, StoppableExec};
use crate::program::work::PlanWork;
use crate::size::used_bytes;

/// A plan over slots; cloning is cheap and clones may run at the same time.
#[derive(Debug, Clone)]
pub(crate) struct Template {
    plan: Arc<dyn ExecutionPlan>,
    context: Arc<TaskContext>,
    /// Where the work of its operators is summed, if somebody wants to know.
    work: Option<Arc<PlanWork>>,
}

impl Template {
    pub(crate) fn new(plan: Arc<dyn ExecutionPlan>, context: &Arc<TaskContext>) -> Self {
        Self { plan, context: Arc::clone(context), work: None }
    }

    /// The same plan, whose executions add what their operators do to `work`.
    pub(crate) fn measured(self, work: Option<Arc<PlanWork>>) -> Self {
        Self { work, ..self }
    }

    /// What the operators of its executions have done, if that is summed.
    pub(crate) const fn work(&self) -> Option<&Arc<PlanWork>> {
        self.work.as_ref()
    }

    /// The plan, unbound.
    pub(crate) const fn plan(&self) -> &Arc<dyn ExecutionPlan> {
        &self.plan
    }

    /// The plan as indented text, a line a node, with its work if that is summed.
    pub(crate) fn display(&self) -> String {
        match &self.work {
            Some(work) => work.display(&self.plan),
            None => displayable(self.plan.as_ref()).indent(false).to_string(),
        }
    }

    /// Runs the plan on the bound rows, on this thread, to its end.
    ///
    /// A plan may have several partitions whatever was asked for (a union does), so they are merged.
    pub(crate) fn run(&self, bindings: Bindings) -> Result<Vec<RecordBatch>> {
        let plan = self.bind(bindings)?;
        let stream = execute_stream(Arc::clone(&plan), Arc::clone(&self.context))?;
        // Without `unconstrained` a blocking poll inside a runtime uses its budget up and then spins for ever.
        let batches = futures::executor::block_on(tokio::task::unconstrained(stream.try_collect::<Vec<_>>()))?;
        if let Some(work) = &self.work {
            work.add(&plan);
        }
        Ok(batches.into_iter().filter(|batch| batch.num_rows() > 0).collect())
    }

    /// Runs a plan without slots to its end, on this thread, or until it is stopped; none then. Its rows count as memory
    /// of plans while they are found.
    pub(crate) fn run_stoppable(&self, stop: &watch::Receiver<bool>) -> Result<Option<Vec<RecordBatch>>> {
        let plan = StoppableExec::within(self.bind(Bindings::default())?, stop)?;
        let found = self.collect(Arc::clone(&plan));
        if *stop.borrow() {
            return Ok(None);
        }
        let batches = found?;
        if let Some(work) = &self.work {
            work.add(&plan);
        }
        Ok(Some(batches))
    }

    fn collect(&self, plan: Arc<dyn ExecutionPlan>) -> Result<Vec<RecordBatch>> {
        let held = MemoryConsumer::new("result").register(self.context.memory_pool());
        let stream = execute_stream(plan, Arc::clone(&self.context))?;
        let counted = stream.and_then(|batch| {
            let bytes = used_bytes(&batch).map_err(|error| DataFusionError::External(Box::new(error)));
            std::future::ready(bytes.and_then(|bytes| held.try_grow(bytes)).map(|()| batch))
        });
        let batches = futures::executor::block_on(tokio::task::unconstrained(counted.try_collect::<Vec<_>>()))?;
        Ok(batches.into_iter().filter(|batch| batch.num_rows() > 0).collect())
    }

    /// The plan with rows in its slots and every other node as new.
    ///
    /// Nodes that ran keep what they built: without the reset a hash join probes its first build side again.
    fn bind(&self, bindings: Bindings) -> Result<Arc<dyn ExecutionPlan>> {
        let bindings = Arc::new(bindings);
        let bound = Arc::clone(&self.plan).transform_up(|node| {
            let state = Arc::clone(&bindings);
            Ok(Transformed::yes(match node.with_new_state(state) {
                Some(slot) => slot,
                None => node.reset_state()?,
            }))
        })?;
        Ok(bound.data)
    }
}
