//! The leaf that sends what its process holds for a job.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use uuid::Uuid;

use super::properties;
use crate::cluster::plane::frame::{self, frame_schema};
use crate::cluster::plane::outbox::{Outbox, Outgoing};
use crate::cluster::plane::problem::failed;
use crate::cluster::plane::route;

/// The leaf: a share for every task of the job, in their order.
#[derive(Debug)]
pub(crate) struct SendExec {
    job: Uuid,
    tasks: usize,
    properties: Arc<PlanProperties>,
}

impl SendExec {
    /// The leaf for what is held for `job`, which has `tasks` apply tasks.
    pub(crate) fn new(job: Uuid, tasks: usize) -> Self {
        Self { job, tasks, properties: properties(EmissionType::Incremental) }
    }

    /// Whose frames are sent.
    pub(crate) const fn job(&self) -> Uuid {
        self.job
    }

    /// To how many tasks.
    pub(crate) const fn tasks(&self) -> usize {
        self.tasks
    }

    fn taken(&self, context: &TaskContext) -> DataFusionResult<Outgoing> {
        let outbox = context.session_config().get_extension::<Outbox>();
        let frames = outbox.and_then(|outbox| outbox.take(self.job));
        let frames = frames.ok_or_else(|| failed(&format!("no frames are held for job {}", self.job)))?;
        if frames.len() != self.tasks {
            return Err(failed(&format!("frames are held for {} of {} tasks", frames.len(), self.tasks)));
        }
        Ok(frames)
    }
}

impl DisplayAs for SendExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendExec: job={}, tasks={}", self.job, self.tasks)
    }
}

impl ExecutionPlan for SendExec {
    fn name(&self) -> &'static str {
        "SendExec"
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

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let routes = route::values(self.tasks)?;
        let mut sent = Vec::new();
        for (frames, route) in self.taken(&context)?.iter().zip(routes.iter()) {
            sent.extend(frame::share(frames, *route)?);
        }
        Ok(Box::pin(cooperative(MemoryStream::try_new(sent, frame_schema(), None)?)))
    }
}
