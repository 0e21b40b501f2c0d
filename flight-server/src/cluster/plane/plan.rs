//! The plan of a job, and which process runs which part of it.
//!
//! It is built for one job and numbered with the job's id: tasks are known to workers by id, stage and task, and a
//! second run under the same id gets rows of the first. The usual planner is not used, as it would run a stage with a
//! single task where the plan is, and not where the task belongs.

use std::sync::Arc;

use bytes::Bytes;
use datafusion::common::tree_node::TreeNode;
use datafusion::common::{internal_datafusion_err, internal_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::physical_expr::Partitioning;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion_distributed::{
    DistributedExec, NetworkBoundary, NetworkCoalesceExec, NetworkShuffleExec, RouteTasksEvent,
    RouteTasksEventResponse, RouteTasksHandler, Stage,
};
use url::Url;
use uuid::Uuid;

use super::nodes::{ApplyExec, Assignment, GuardExec, SendExec};
use super::route;

/// The plan of `job`, to be run once; it gives all answers in one partition. Of its `parts` one without an assignment is
/// what the driver sends.
pub(crate) fn of_job(
    job: Uuid,
    routing: Bytes,
    parts: Arc<[Option<Assignment>]>,
    assignments: Arc<[Assignment]>,
) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let (tasks, senders) = (assignments.len(), parts.len());
    let sent = GuardExec::around(Arc::new(SendExec::new(job, tasks, routing, parts)));
    // Partitions are per task that receives: the exchange makes one for every task.
    let by_route = RepartitionExec::try_new(sent, Partitioning::Hash(vec![route::column()], 1))?;
    let exchanged = numbered(&NetworkShuffleExec::try_new(Arc::new(by_route), senders)?, job, 1)?;
    let applied = GuardExec::around(Arc::new(ApplyExec::new(exchanged, assignments, senders)));
    let gathered = numbered(&NetworkCoalesceExec::try_new(applied, tasks, 1)?, job, 2)?;
    let all = Arc::new(CoalescePartitionsExec::new(gathered));
    Ok(Arc::new(DistributedExec::new(all).with_metrics_collection(false)))
}

fn numbered(boundary: &dyn NetworkBoundary, job: Uuid, number: usize) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
    let Stage::Local(stage) = boundary.input_stage() else {
        return internal_err!("stage {number} of a new plan runs already");
    };
    let mut stage = stage.clone();
    stage.query_id = job;
    stage.num = number;
    let numbered: Arc<dyn ExecutionPlan> = boundary.with_input_stage(Stage::Local(stage))?;
    Ok(numbered)
}

/// Where the tasks of a job run, in their order.
#[derive(Debug)]
pub(crate) struct Placement {
    /// The processes that send.
    pub(crate) senders: Vec<Url>,
    /// The executors of its apply tasks.
    pub(crate) executors: Vec<Url>,
}

impl Placement {
    fn urls(&self, stage: &Arc<dyn ExecutionPlan>) -> DataFusionResult<&[Url]> {
        if stage.exists(|node| Ok(node.is::<ApplyExec>()))? {
            return Ok(&self.executors);
        }
        if stage.exists(|node| Ok(node.is::<SendExec>()))? {
            return Ok(&self.senders);
        }
        // Not left to others: they would place it at random.
        Err(internal_datafusion_err!("a stage of a job has no place: {}", stage.name()))
    }
}

impl RouteTasksHandler for Placement {
    fn handle(&self, event: RouteTasksEvent<'_>) -> Option<DataFusionResult<RouteTasksEventResponse>> {
        Some(self.urls(event.plan).map(|urls| RouteTasksEventResponse::new(urls.to_vec())))
    }
}
