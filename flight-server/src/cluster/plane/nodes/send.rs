//! The leaf that sends what its process holds for a job, or makes for it.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::coop::cooperative;
use datafusion::physical_plan::execution_plan::{EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::memory::MemoryStream;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use datafusion_distributed::DistributedTaskContext;
use futures::{TryFutureExt, stream};
use uuid::Uuid;

use super::{Applier, Assignment, properties};
use crate::cluster::plane::frame::{self, frame_schema};
use crate::cluster::plane::outbox::{Outbox, Outgoing};
use crate::cluster::plane::problem::failed;
use crate::cluster::plane::route;

/// The leaf: a share for every task of the job, in their order.
#[derive(Debug)]
pub(crate) struct SendExec {
    job: Uuid,
    tasks: usize,
    /// What all senders are told.
    routing: Bytes,
    /// What each sender makes; one without an assignment sends what it holds.
    parts: Arc<[Option<Assignment>]>,
    properties: Arc<PlanProperties>,
}

impl SendExec {
    /// The leaf for what is sent in `job`, which has `tasks` apply tasks.
    pub(crate) fn new(job: Uuid, tasks: usize, routing: Bytes, parts: Arc<[Option<Assignment>]>) -> Self {
        Self { job, tasks, routing, parts, properties: properties(EmissionType::Incremental) }
    }

    /// What all senders are told.
    pub(crate) const fn routing(&self) -> &Bytes {
        &self.routing
    }

    /// What each sender makes.
    pub(crate) fn parts(&self) -> &[Option<Assignment>] {
        &self.parts
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
        frames.ok_or_else(|| failed(&format!("no frames are held for job {}", self.job)))
    }

    /// The part of the task that runs in `context`.
    fn part(&self, context: &Arc<TaskContext>) -> DataFusionResult<Option<&Assignment>> {
        let index = DistributedTaskContext::from_ctx(context).task_index;
        let part = self.parts.get(index);
        Ok(part.ok_or_else(|| failed(&format!("there is no sender {index} of {}", self.parts.len())))?.as_ref())
    }
}

/// What is sent, as shares for the tasks.
fn shares(frames: &Outgoing, tasks: usize) -> DataFusionResult<Vec<RecordBatch>> {
    if frames.len() != tasks {
        return Err(failed(&format!("there are frames for {} of {tasks} tasks", frames.len())));
    }
    let mut sent = Vec::new();
    for (frames, route) in frames.iter().zip(route::values(tasks)?.iter()) {
        sent.extend(frame::share(frames, *route)?);
    }
    Ok(sent)
}

impl DisplayAs for SendExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SendExec: job={}, tasks={}, parts={}", self.job, self.tasks, self.parts.len())
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
        let Some(Assignment { incarnation, spec }) = self.part(&context)? else {
            let sent = shares(&self.taken(&context)?, self.tasks)?;
            return Ok(Box::pin(cooperative(MemoryStream::try_new(sent, frame_schema(), None)?)));
        };
        let (applier, spec, tasks) = (Applier::meant(&context, *incarnation)?, spec.clone(), self.tasks);
        let routing = self.routing.clone();
        let made = async move {
            let made = applier.work().send(&routing, &spec).await?;
            Ok(stream::iter(shares(&made, tasks)?.into_iter().map(Ok::<_, DataFusionError>)))
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(frame_schema(), made.try_flatten_stream())))
    }
}
