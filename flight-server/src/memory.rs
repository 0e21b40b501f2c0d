//! The memory that the queries of a session share: one limit for their state, one for their running plans.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use datafusion::execution::memory_pool::{
    GreedyMemoryPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use millstream_engine::size::parse_size;
use millstream_engine::state::{StateMemory, machine_bytes};

use crate::error::{Error, Result};

/// Limits that queries get as they are planned; a changed limit counts for those that come later.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    pub(crate) state: Arc<StateMemory>,
    plans: Arc<RuntimeEnv>,
    /// What the plans of one query may take of the memory of all, in bytes; all of it unless set.
    query_limit: Option<usize>,
}

/// The part of a pool that one query may take.
#[derive(Debug)]
struct QueryPool {
    own: GreedyMemoryPool,
    shared: Arc<dyn MemoryPool>,
}

impl Memory {
    /// Half of the machine for state, a quarter for running plans.
    pub(crate) fn of_machine() -> Self {
        // Without a folder for temporary files plans run as well, as long as they need none.
        let plans = plan_memory(machine_bytes() / 4).unwrap_or_default();
        Self { state: StateMemory::of_machine(), plans, query_limit: None }
    }

    /// That of an executor: so much for state, or half of the machine, the rest of it in `spill`.
    ///
    /// # Errors
    /// Fails if the folder cannot be made.
    pub(crate) fn of_executor(state_bytes: Option<u64>, spill: Option<&Path>) -> Result<Self> {
        let folder = spill.map_or_else(std::env::temp_dir, Path::to_path_buf);
        std::fs::create_dir_all(&folder)
            .map_err(|source| Error::Io { context: format!("cannot make {}", folder.display()), source })?;
        let bytes = state_bytes.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or_else(|| machine_bytes() / 2);
        Ok(Self { state: StateMemory::new(bytes, folder), ..Self::of_machine() })
    }

    /// Limits what the plans of one query may take; to half of what there is for all unless told how many bytes.
    pub(crate) fn limit_queries(&mut self, bytes: Option<usize>) {
        let half = match self.plans.memory_pool.memory_limit() {
            MemoryLimit::Finite(bytes) => Some(bytes / 2),
            MemoryLimit::Infinite | MemoryLimit::Unknown => None,
        };
        self.query_limit = bytes.or(half);
    }

    /// Where the plans of a query run.
    ///
    /// # Errors
    /// Fails if there is no folder for temporary files.
    pub(crate) fn plans_of_query(&self) -> Result<Arc<RuntimeEnv>> {
        let Some(limit) = self.query_limit else { return Ok(Arc::clone(&self.plans)) };
        let shared = Arc::clone(&self.plans.memory_pool);
        let pool = QueryPool { own: GreedyMemoryPool::new(limit), shared };
        let limited = RuntimeEnvBuilder::from_runtime_env(&self.plans).with_memory_pool(Arc::new(pool)).build_arc();
        limited.map_err(|error| Error::Engine(error.into()))
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

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} of one query", self.shared, self.own)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.shared.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.shared.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.own.grow(reservation, additional);
        self.shared.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.shared.shrink(reservation, shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> datafusion::error::Result<()> {
        self.own.try_grow(reservation, additional)?;
        self.shared.try_grow(reservation, additional).inspect_err(|_| self.own.shrink(reservation, additional))
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
    }
}

fn plan_memory(bytes: usize) -> datafusion::error::Result<Arc<RuntimeEnv>> {
    let pool = Arc::new(GreedyMemoryPool::new(bytes));
    RuntimeEnvBuilder::new().with_memory_pool(pool).build_arc()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_takes_its_part_and_leaves_the_rest_to_others() {
        let mut memory = Memory::of_machine();
        memory.plans = plan_memory(1_000).unwrap();
        memory.limit_queries(Some(600));
        let [first, second] = [memory.plans_of_query().unwrap(), memory.plans_of_query().unwrap()];
        let of_first = MemoryConsumer::new("first").register(&first.memory_pool);
        let of_second = MemoryConsumer::new("second").register(&second.memory_pool);
        assert!(of_first.try_grow(601).is_err());
        of_first.try_grow(600).unwrap();
        assert!(of_second.try_grow(401).is_err());
        of_second.try_grow(400).unwrap();
        drop(of_first);
        of_second.try_grow(200).unwrap();
        assert!(of_second.try_grow(1).is_err());
        assert_eq!(memory.plans.memory_pool.reserved(), 600);
    }

    #[test]
    fn half_of_the_memory_is_for_one_query_unless_told() {
        let mut memory = Memory::of_machine();
        memory.plans = plan_memory(1_000).unwrap();
        memory.limit_queries(None);
        assert_eq!(memory.query_limit, Some(500));
    }
}
