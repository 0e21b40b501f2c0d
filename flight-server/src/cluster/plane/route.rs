//! Which value of the route column leads to which task.
//!
//! DataFusion exchanges rows by a hash of their keys, so a task is not named but hit: its route is the smallest number
//! that hashes to it. The search asks the very code that partitions, so it stays right if the hash changes, as long
//! as all processes run the same version; receivers check the routes of what they get.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use datafusion::arrow::array::UInt32Array;
use datafusion::arrow::datatypes::{DataType, Field, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::internal_err;
use datafusion::error::Result as DataFusionResult;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_plan::metrics::Time;
use datafusion::physical_plan::repartition::BatchPartitioner;

use super::frame;

/// How many numbers are tried at once.
const CANDIDATES: u32 = 4096;
/// How often, before a hash is declared to miss some task.
const ROUNDS: u32 = 256;

/// Routes by the number of tasks, which a cluster has few of.
static KNOWN: LazyLock<Mutex<HashMap<usize, Arc<[u32]>>>> = LazyLock::new(Mutex::default);

/// What frames are exchanged by.
pub(crate) fn column() -> Arc<dyn PhysicalExpr> {
    Arc::new(Column::new(frame::ROUTE, 0))
}

/// The route of every one of `tasks` tasks.
///
/// # Errors
/// Fails for no tasks at all, and if no number leads to some task.
pub(crate) fn values(tasks: usize) -> DataFusionResult<Arc<[u32]>> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).get(&tasks).cloned();
    if let Some(known) = known {
        return Ok(known);
    }
    let found: Arc<[u32]> = found(tasks)?.into();
    KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(tasks, Arc::clone(&found));
    Ok(found)
}

fn found(tasks: usize) -> DataFusionResult<Vec<u32>> {
    let mut partitioner = BatchPartitioner::new_hash_partitioner(vec![column()], tasks, Time::new())?;
    let mut routes: Vec<Option<u32>> = vec![None; tasks];
    for round in 0..ROUNDS {
        partitioner.partition(candidates(round)?, |task, hits| {
            let least = frame::routes(&hits)?.values().iter().min().copied();
            if let Some(route) = routes.get_mut(task) {
                *route = route.or(least);
            }
            Ok(())
        })?;
        if let Some(routes) = routes.iter().copied().collect() {
            return Ok(routes);
        }
    }
    internal_err!("some of {tasks} tasks have no route")
}

fn candidates(round: u32) -> DataFusionResult<RecordBatch> {
    let start = round * CANDIDATES;
    let schema = Schema::new(vec![Field::new(frame::ROUTE, DataType::UInt32, false)]);
    let routes = UInt32Array::from_iter_values(start..start + CANDIDATES);
    Ok(RecordBatch::try_new(Arc::new(schema), vec![Arc::new(routes)])?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_has_the_smallest_route_that_leads_to_it() {
        for tasks in [1, 2, 3, 5, 16, 100] {
            let routes = values(tasks).unwrap();
            assert_eq!(routes.len(), tasks);
            let mut firsts = vec![None; tasks];
            let mut partitioner = BatchPartitioner::new_hash_partitioner(vec![column()], tasks, Time::new()).unwrap();
            let hits = partitioner.partition_iter(candidates(0).unwrap()).unwrap();
            for (task, hits) in hits.map(Result::unwrap) {
                firsts[task] = Some(frame::routes(&hits).unwrap().value(0));
            }
            let routes: Vec<_> = routes.iter().copied().map(Some).collect();
            assert_eq!(routes, firsts);
        }
    }
}
