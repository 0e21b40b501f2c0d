//! The node that gives an executor what its task was sent, and gives back its answer.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::{EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use datafusion_distributed::DistributedTaskContext;
use futures::{TryFutureExt, TryStreamExt, stream};
use uuid::Uuid;

use super::properties;
use crate::cluster::plane::frame::{self, frame_schema};
use crate::cluster::plane::problem::{failed, stale};
use crate::cluster::plane::tally::Tally;
use crate::cluster::plane::{Work, route};

/// What an executor applies with, an extension of the sessions of its tasks.
#[derive(Debug)]
pub(crate) struct Applier {
    incarnation: Uuid,
    work: Arc<dyn Work>,
}

impl Applier {
    /// The start of the executor that tasks must be meant for, and what is done with them.
    pub(crate) const fn new(incarnation: Uuid, work: Arc<dyn Work>) -> Self {
        Self { incarnation, work }
    }

    /// What is done with tasks.
    pub(super) fn work(&self) -> &dyn Work {
        self.work.as_ref()
    }

    /// That of this process, if it is what a task is meant for.
    pub(super) fn meant(context: &TaskContext, incarnation: Uuid) -> DataFusionResult<Arc<Self>> {
        let applier = context.session_config().get_extension::<Self>();
        let applier = applier.ok_or_else(|| stale("this process is no executor"))?;
        if applier.incarnation != incarnation {
            let here = applier.incarnation;
            return Err(stale(&format!("the executor meant was {incarnation}, here is {here}")));
        }
        Ok(applier)
    }
}

/// What one task is.
#[derive(Debug, Clone)]
pub(crate) struct Assignment {
    /// The start of the executor that it is meant for.
    pub(crate) incarnation: Uuid,
    /// Its own part of the job.
    pub(crate) spec: Bytes,
}

/// The node: the same for all tasks, of which each picks its assignment.
#[derive(Debug)]
pub(crate) struct ApplyExec {
    input: Arc<dyn ExecutionPlan>,
    assignments: Arc<[Assignment]>,
    senders: usize,
    properties: Arc<PlanProperties>,
}

impl ApplyExec {
    /// The node over what `senders` processes send.
    pub(crate) fn new(input: Arc<dyn ExecutionPlan>, assignments: Arc<[Assignment]>, senders: usize) -> Self {
        Self { input, assignments, senders, properties: properties(EmissionType::Final) }
    }

    /// What the tasks are, in their order.
    pub(crate) fn assignments(&self) -> &[Assignment] {
        &self.assignments
    }

    /// How many processes send to each task.
    pub(crate) const fn senders(&self) -> usize {
        self.senders
    }

    fn over(&self, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Arc<dyn ExecutionPlan> {
        let input = children.pop().unwrap_or_else(|| Arc::clone(&self.input));
        Arc::new(Self::new(input, Arc::clone(&self.assignments), self.senders))
    }

    fn task(&self, context: &Arc<TaskContext>) -> DataFusionResult<Task> {
        let index = DistributedTaskContext::from_ctx(context).task_index;
        let routes = route::values(self.assignments.len())?;
        let (Some(assignment), Some(route)) = (self.assignments.get(index), routes.get(index)) else {
            return Err(failed(&format!("there is no task {index} in a job of {}", self.assignments.len())));
        };
        let number = u32::try_from(index).map_err(|_| failed(&format!("{index} is no number of a task")))?;
        Ok(Task {
            number,
            applier: Applier::meant(context, assignment.incarnation)?,
            spec: assignment.spec.clone(),
            received: Tally::new(number, *route),
            senders: self.senders,
        })
    }
}

/// One task, which is for this process.
struct Task {
    number: u32,
    applier: Arc<Applier>,
    spec: Bytes,
    received: Tally,
    senders: usize,
}

impl Task {
    async fn answer(self, mut sent: SendableRecordBatchStream) -> DataFusionResult<Vec<RecordBatch>> {
        let Self { number, applier, spec, mut received, senders } = self;
        while let Some(batch) = sent.try_next().await? {
            received.add(batch)?;
        }
        drop(sent);
        let answer = applier.work.apply(&spec, received.complete(senders)?).await?;
        frame::share(&answer, number)
    }
}

impl DisplayAs for ApplyExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApplyExec: tasks={}, senders={}", self.assignments.len(), self.senders)
    }
}

impl ExecutionPlan for ApplyExec {
    fn name(&self) -> &'static str {
        "ApplyExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> DataFusionResult<TreeNodeRecursion>,
    ) -> DataFusionResult<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self.over(children))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(self.over(children))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        // Whether the task is for this process is found out before anything is fetched or done.
        let task = self.task(&context)?;
        let sent = self.input.execute(partition, context)?;
        let answer =
            task.answer(sent).map_ok(|batches| stream::iter(batches.into_iter().map(Ok::<_, DataFusionError>)));
        Ok(Box::pin(RecordBatchStreamAdapter::new(frame_schema(), answer.try_flatten_stream())))
    }
}
