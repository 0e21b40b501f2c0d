//! The memory that the queries of a session share: one limit for their state, one for their running plans.

use std::sync::Arc;

use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use millstream_engine::size::parse_size;
use millstream_engine::state::{StateMemory, machine_bytes};

use crate::error::{Error, Result};

/// Limits that queries get as they are planned; a changed limit counts for those that come later.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    pub(crate) state: Arc<StateMemory>,
    pub(crate) plans: Arc<RuntimeEnv>,
}

impl Memory {
    /// Half of the machine for state, a quarter for running plans.
    pub(crate) fn of_machine() -> Self {
        // Without a folder for temporary files plans run as well, as long as they need none.
        let plans = plan_memory(machine_bytes() / 4).unwrap_or_default();
        Self { state: StateMemory::of_machine(), plans }
    }

    /// Takes a setting over, if it is one of these.
    ///
    /// # Errors
    /// Fails if there is no folder for temporary files.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> Result<()> {
        let Some(bytes) = parse_size(value).and_then(|bytes| usize::try_from(bytes).ok()) else { return Ok(()) };
        match key {
            "state_memory" => self.state = StateMemory::new(bytes, std::env::temp_dir()),
            "plan_memory" => self.plans = plan_memory(bytes).map_err(|error| Error::Engine(error.into()))?,
            _ => {}
        }
        Ok(())
    }
}

fn plan_memory(bytes: usize) -> datafusion::error::Result<Arc<RuntimeEnv>> {
    let pool = Arc::new(GreedyMemoryPool::new(bytes));
    RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()
}
