//! What the operators of a plan have done, summed over all executions: the figures of `EXPLAIN ANALYZE`.

use std::fmt::{self, Write as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion::physical_plan::{ExecutionPlan, displayable};

use crate::nodes::{SlotExec, StoppableExec};

/// The work of each operator of a plan, from the top down, as its lines are shown.
#[derive(Debug, Default)]
pub(crate) struct PlanWork(Mutex<Vec<OperatorWork>>);

/// The work of one operator by DataFusion's metrics of these names; none where it does not measure.
#[derive(Debug, Clone, Copy, Default)]
struct OperatorWork {
    output_rows: Option<u64>,
    elapsed_compute: Option<Duration>,
}

impl PlanWork {
    /// Adds an execution, whose operators were new: they have counted nothing else.
    pub(crate) fn add(&self, executed: &Arc<dyn ExecutionPlan>) {
        let mut of_execution = Vec::new();
        collect(executed, &mut of_execution);
        let mut works = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        works.resize(of_execution.len(), OperatorWork::default());
        works.iter_mut().zip(of_execution).for_each(|(work, more)| work.add(more));
    }

    /// `plan` as indented text, a line a node, with the work of each.
    pub(crate) fn display(&self, plan: &Arc<dyn ExecutionPlan>) -> String {
        let works = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = displayable(plan.as_ref()).indent(false).to_string();
        let mut text = String::new();
        for (number, line) in lines.lines().enumerate() {
            // Writing to a String does not fail.
            let _ = writeln!(text, "{line}, metrics=[{}]", works.get(number).copied().unwrap_or_default());
        }
        text
    }
}

impl OperatorWork {
    /// What an operator has done; one that is bound to rows has given just these.
    fn of(operator: &Arc<dyn ExecutionPlan>) -> Self {
        if let Some(slot) = operator.downcast_ref::<SlotExec>() {
            return Self { output_rows: Some(slot.bound_rows()), elapsed_compute: None };
        }
        let Some(metrics) = operator.metrics() else { return Self::default() };
        Self {
            output_rows: metrics.output_rows().map(|rows| rows as u64),
            elapsed_compute: metrics.elapsed_compute().map(|nanos| Duration::from_nanos(nanos as u64)),
        }
    }

    fn add(&mut self, more: Self) {
        if let Some(rows) = more.output_rows {
            *self.output_rows.get_or_insert_default() += rows;
        }
        if let Some(elapsed) = more.elapsed_compute {
            *self.elapsed_compute.get_or_insert_default() += elapsed;
        }
    }
}

impl fmt::Display for OperatorWork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.output_rows.map(|rows| format!("output_rows={rows}"));
        let elapsed = self.elapsed_compute.map(|elapsed| format!("elapsed_compute={elapsed:.2?}"));
        f.write_str(&rows.into_iter().chain(elapsed).collect::<Vec<_>>().join(", "))
    }
}

/// The work of `plan`'s operators, each before what it reads.
fn collect(plan: &Arc<dyn ExecutionPlan>, works: &mut Vec<OperatorWork>) {
    if let Some(stoppable) = plan.downcast_ref::<StoppableExec>() {
        // It is not shown.
        return collect(stoppable.input(), works);
    }
    works.push(OperatorWork::of(plan));
    plan.children().into_iter().for_each(|child| collect(child, works));
}
