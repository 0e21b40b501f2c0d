//! A node that lets rows through until its query is stopped.
//!
//! A plan runs to its end once it is begun, on a thread that nothing can interrupt. Whatever can give many rows for few (a
//! join, a list that is unfolded) has one of these above it, and so has every leaf.

use std::fmt;
use std::sync::Arc;

use datafusion::common::exec_err;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::TaskContext;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_plan::execution_plan::ReplaceChildrenOptions;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};
use futures::StreamExt;
use tokio::sync::watch;

/// The node.
#[derive(Debug)]
pub(crate) struct StoppableExec {
    input: Arc<dyn ExecutionPlan>,
    stop: watch::Receiver<bool>,
}

impl StoppableExec {
    /// The plan, which fails soon after `stop` has become true.
    pub(crate) fn within(
        plan: Arc<dyn ExecutionPlan>,
        stop: &watch::Receiver<bool>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        let stoppable = plan.transform_up(|node| {
            let multiplies = node.children().len() != 1 || node.name() == "UnnestExec";
            let wrapped = |input| Arc::new(Self { input, stop: stop.clone() }) as Arc<dyn ExecutionPlan>;
            Ok(if multiplies { Transformed::yes(wrapped(node)) } else { Transformed::no(node) })
        });
        Ok(stoppable?.data)
    }

    fn over(&self, mut children: Vec<Arc<dyn ExecutionPlan>>) -> Self {
        let input = children.pop().unwrap_or_else(|| Arc::clone(&self.input));
        Self { input, stop: self.stop.clone() }
    }

    /// What the rows come from.
    pub(crate) const fn input(&self) -> &Arc<dyn ExecutionPlan> {
        &self.input
    }
}

impl DisplayAs for StoppableExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoppableExec")
    }
}

impl ExecutionPlan for StoppableExec {
    fn name(&self) -> &'static str {
        "StoppableExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
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
        Ok(Arc::new(self.over(children)))
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> DataFusionResult<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(self.over(children)))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> DataFusionResult<SendableRecordBatchStream> {
        let (rows, stop) = (self.input.execute(partition, context)?, self.stop.clone());
        let schema = rows.schema();
        let rows = rows.map(move |batch| if *stop.borrow() { exec_err!("the query was stopped") } else { batch });
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, rows)))
    }
}
