//! The one run of a job's plan: answers are gathered until every task has said that it has no more.

use std::future::ready;
use std::sync::Arc;
use std::time::{Duration, Instant};

use datafusion::error::Result as DataFusionResult;
use datafusion::execution::TaskContext;
use datafusion::physical_plan::{ExecutionPlan, SendableRecordBatchStream};
use futures::{StreamExt, TryStreamExt};
use tokio::sync::mpsc;

use super::Answer;
use super::frame;
use super::problem::{JobError, failed};
use super::tally::Tally;

/// How long executors have to hear that all is well; those that do not are left to the end of the calls.
const FAREWELL: Duration = Duration::from_millis(100);

/// A plan that is about to run.
#[derive(Debug)]
pub(crate) struct Attempt {
    /// The job's plan.
    pub(crate) plan: Arc<dyn ExecutionPlan>,
    /// What it runs in.
    pub(crate) context: Arc<TaskContext>,
    /// How many tasks answer.
    pub(crate) tasks: usize,
    /// Why its plan did not reach some executor.
    pub(crate) aborted: mpsc::Receiver<JobError>,
}

impl Attempt {
    /// The answers, one for every task.
    pub(crate) async fn run(mut self) -> Result<Vec<Answer>, JobError> {
        let mut rows = self.plan.execute(0, Arc::clone(&self.context))?;
        let answers = tokio::select! {
            biased;
            answers = gather(&mut rows, self.tasks) => answers?,
            Some(error) = self.aborted.recv() => return Err(error),
        };
        // Nothing that comes now changes the answers.
        let _ = tokio::time::timeout(FAREWELL, rows.for_each(|_| ready(()))).await;
        Ok(answers)
    }
}

async fn gather(rows: &mut SendableRecordBatchStream, tasks: usize) -> DataFusionResult<Vec<Answer>> {
    let (started, mut took) = (Instant::now(), vec![Duration::ZERO; tasks]);
    let mut answers: Vec<_> = (0..).take(tasks).map(|task| Tally::new(task, task)).collect();
    while !answers.iter().all(Tally::is_ended) {
        let Some(batch) = rows.try_next().await? else { break };
        let Some(task) = frame::routes(&batch)?.values().first().copied() else { continue };
        let Some(answer) = answers.get_mut(task as usize) else {
            return Err(failed(&format!("task {task} answered in a job of {tasks}")));
        };
        answer.add(batch)?;
        if let Some(took) = took.get_mut(task as usize) {
            *took = started.elapsed();
        }
    }
    let answers = answers.into_iter().zip(took);
    answers.map(|(answer, took)| Ok(Answer { frames: answer.complete(1)?, took })).collect()
}
