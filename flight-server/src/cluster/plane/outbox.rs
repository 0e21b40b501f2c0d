//! The frames that a process holds for jobs until they are fetched.
//!
//! A plan names them by the job's id, so that what is sent never travels inside a plan, and so that any process that
//! holds frames can be a sender.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::arrow::record_batch::RecordBatch;
use uuid::Uuid;

/// Batches for each task of a job, in the order of its tasks.
pub(crate) type Outgoing = Vec<Vec<RecordBatch>>;

/// The frames of all jobs of a process; an extension of the sessions of its tasks.
#[derive(Debug, Default)]
pub(crate) struct Outbox(Mutex<HashMap<Uuid, Outgoing>>);

impl Outbox {
    /// Holds `frames` for `job` as long as what it gives, or until they are taken.
    pub(crate) fn hold(self: &Arc<Self>, job: Uuid, frames: Outgoing) -> Held {
        self.jobs().insert(job, frames);
        Held { outbox: Arc::clone(self), job }
    }

    /// The frames of a job, once.
    pub(crate) fn take(&self, job: Uuid) -> Option<Outgoing> {
        self.jobs().remove(&job)
    }

    /// For how many jobs there are frames.
    #[cfg(test)]
    pub(crate) fn jobs_held(&self) -> usize {
        self.jobs().len()
    }

    fn jobs(&self) -> MutexGuard<'_, HashMap<Uuid, Outgoing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lets go of the frames of a job, if nobody has taken them.
#[derive(Debug)]
#[must_use]
pub(crate) struct Held {
    outbox: Arc<Outbox>,
    job: Uuid,
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.outbox.take(self.job));
    }
}
