//! Ways to cut a log and to run a query, none of which may change a row.

use datafusion::logical_expr::LogicalPlan;
use millstream_engine::plan::Emission;
use millstream_engine::query::QueryOptions;
use millstream_engine::state::StateMemory;
use millstream_engine::testing::{Cut, LocalExecutors};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// One way.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Way {
    /// The most rows of a block; each has a random number up to it.
    pub(crate) block_rows: usize,
    /// The most records of a stream in a micro-batch.
    pub(crate) records: usize,
    pub(crate) tasks: usize,
    pub(crate) key_partitions: u32,
    /// The memory for state, in bytes.
    pub(crate) memory: usize,
    /// How many executors the state is spread over; none for this process alone.
    pub(crate) executors: usize,
    pub(crate) seed: u64,
}

/// More than any test needs.
pub(crate) const AMPLE: usize = 1 << 30;
/// So little that some of the state is always on disk.
const SCARCE: usize = 6_000;
/// So little that all state goes to disk.
const NONE: usize = 0;

impl Way {
    pub(crate) fn options(&self) -> QueryOptions {
        // State is spread as soon as there are a few rows of it, so that sharing it is part of every proof.
        QueryOptions {
            tasks: self.tasks,
            key_partitions: self.key_partitions,
            shared_rows: 4,
            state_memory: StateMemory::new(self.memory, std::env::temp_dir()),
            ..QueryOptions::default()
        }
    }

    /// The same for a query, whose state may be spread.
    pub(crate) fn options_of(&self, logical: &LogicalPlan, emission: Emission) -> QueryOptions {
        let options = self.options();
        let executors = (self.executors > 0).then(|| LocalExecutors::new(self.executors, logical, emission, &options));
        QueryOptions { seat: executors.map(|executors| executors.seat(None)), ..options }
    }

    pub(crate) fn cut(&self) -> RandomCut {
        RandomCut { block_rows: self.block_rows, records: self.records, rng: StdRng::seed_from_u64(self.seed) }
    }
}

/// Rows one by one, a few at a time, and all at once, on one to three tasks, in this process and on three executors.
pub(crate) fn ways(seed: u64) -> [Way; 5] {
    [
        Way { block_rows: 1, records: 1, tasks: 1, key_partitions: 1, memory: AMPLE, executors: 0, seed },
        Way { block_rows: 3, records: 4, tasks: 3, key_partitions: 7, memory: SCARCE, executors: 0, seed },
        Way { block_rows: 9, records: 30, tasks: 2, key_partitions: 1024, memory: NONE, executors: 0, seed },
        Way {
            block_rows: usize::MAX,
            records: usize::MAX,
            tasks: 2,
            key_partitions: 7,
            memory: AMPLE,
            executors: 0,
            seed,
        },
        Way { block_rows: 5, records: 6, tasks: 2, key_partitions: 64, memory: SCARCE, executors: 3, seed },
    ]
}

/// Parts of random sizes, and the whole where the size is not bounded.
#[derive(Debug)]
pub(crate) struct RandomCut {
    block_rows: usize,
    records: usize,
    rng: StdRng,
}

impl Cut for RandomCut {
    fn block_rows(&mut self) -> usize {
        if self.block_rows == usize::MAX { usize::MAX } else { self.rng.random_range(1..=self.block_rows) }
    }

    fn records(&mut self) -> usize {
        match self.records {
            1 | usize::MAX => self.records,
            most => self.rng.random_range(0..=most),
        }
    }
}
