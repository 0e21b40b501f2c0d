//! How DataFusion is set up for plans that are made once and run many times on small inputs.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::execution::{SessionState, SessionStateBuilder, TaskContext};
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::prelude::SessionConfig;

use crate::error::Result;
use crate::program::template::Template;
use crate::refreshed::Versions;

/// Rows per batch inside plans; larger ones slow DataFusion's filters down.
const PLAN_BATCH_ROWS: usize = 8192;

/// The planner and the execution context of one query.
#[derive(Debug)]
pub(crate) struct Planner {
    state: SessionState,
    context: Arc<TaskContext>,
    plans_made: AtomicU64,
    /// Whether the work of the operators is summed.
    measures: bool,
}

impl Planner {
    /// A planner whose plans run in one partition, keep nothing between executions and see `tables` as they are then.
    pub(crate) fn new(runtime: &Arc<RuntimeEnv>, tables: &Arc<Versions>) -> Self {
        let mut config = SessionConfig::new()
            .with_batch_size(PLAN_BATCH_ROWS)
            // Parallelism comes from running a plan on several inputs at once, never from inside it.
            .with_target_partitions(1)
            .with_repartition_joins(false)
            .with_repartition_aggregations(false)
            .with_repartition_windows(false)
            .with_repartition_sorts(false)
            .with_round_robin_repartition(false)
            .with_information_schema(false)
            .with_extension(Arc::clone(tables));
        let options = config.options_mut();
        options.execution.coalesce_batches = false;
        // A partial aggregate that gives up grouping would hand on one state row per input row.
        options.execution.skip_partial_aggregation_probe_ratio_threshold = 1.0;
        // The bounds that dynamic filters gather in one execution would cut rows of the next.
        options.optimizer.enable_dynamic_filter_pushdown = false;
        // Executions of one plan would share the result of the subquery; as a join it is part of each.
        options.optimizer.enable_physical_uncorrelated_scalar_subquery = false;
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(Arc::clone(runtime))
            .with_default_features()
            .build();
        let context = Arc::new(TaskContext::from(&state));
        Self { state, context, plans_made: AtomicU64::new(0), measures: false }
    }

    /// The same planner, whose plans sum what their operators do.
    pub(crate) fn measuring(self) -> Self {
        Self { measures: true, ..self }
    }

    /// `logical` with types made to agree and functions such as `GROUPING` resolved, as far as they need no input.
    pub(crate) fn analyzed(&self, logical: LogicalPlan) -> Result<LogicalPlan> {
        Ok(self.state.analyzer().execute_and_check(logical, self.state.config_options(), |_, _| {})?)
    }

    /// The optimised form of `logical`.
    pub(crate) fn optimized(&self, logical: &LogicalPlan) -> Result<LogicalPlan> {
        Ok(self.state.optimize(logical)?)
    }

    /// The physical plan of an optimised plan.
    pub(crate) async fn physical(&self, optimized: LogicalPlan) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self.state.query_planner().create_physical_plan(&optimized, &self.state).await?)
    }

    /// Makes a plan that can be run many times; counted, as nothing may plan once a query runs.
    pub(crate) fn template(&self, plan: Arc<dyn ExecutionPlan>) -> Template {
        self.plans_made.fetch_add(1, Ordering::Relaxed);
        Template::new(plan, &self.context).measured(self.measures.then(Arc::default))
    }

    /// How many plans were made so far.
    pub(crate) fn plans_made(&self) -> u64 {
        self.plans_made.load(Ordering::Relaxed)
    }
}
