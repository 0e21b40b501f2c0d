//! The nodes of a job's plan that are not DataFusion's or the exchange's.

mod apply;
mod guard;
mod send;

use std::sync::Arc;

use datafusion::physical_expr::{EquivalenceProperties, Partitioning};
use datafusion::physical_plan::PlanProperties;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};

use super::frame::frame_schema;

pub(crate) use apply::{Applier, ApplyExec, Assignment};
pub(crate) use guard::GuardExec;
pub(crate) use send::SendExec;

/// Those of a node that gives frames, in one partition per task.
fn properties(emission: EmissionType) -> Arc<PlanProperties> {
    let unknown = EquivalenceProperties::new(frame_schema());
    let partitioning = Partitioning::UnknownPartitioning(1);
    Arc::new(PlanProperties::new(unknown, partitioning, emission, Boundedness::Bounded))
}
