//! The data plane: one round trip of frames between a driver and the executors of its cluster.
//!
//! A job exchanges frames, rows that are opaque to everything here, to apply tasks, each on the executor that it names.
//! A task takes all that it is sent, does its [`Work`], and its answer is gathered at the driver:
//!
//! ```text
//! driver   all answers          CoalescePartitionsExec
//!                                 NetworkCoalesceExec          ← gathers, stage 2 below
//! executor one task each             GuardExec
//!                                      ApplyExec
//!                                        NetworkShuffleExec    ← exchanges, stage 1 below
//! sender   the driver, executors           RepartitionExec     by route, one partition per task
//!                                            GuardExec
//!                                              SendExec
//! ```
//!
//! How it is carried, by datafusion-distributed, is named in this module and nowhere else. Three of its habits shape
//! what is here: a plan that runs twice mixes its rows, so every job has an id of its own ([`plan`]); a panic can look
//! like an end, so it is caught below every boundary ([`nodes`]) and ends are counted ([`tally`]); errors arrive as
//! text, so what matters of them is written into it ([`problem`]).

mod attempt;
mod codec;
mod driver;
mod frame;
mod nodes;
mod outbox;
mod plan;
mod problem;
mod resolver;
mod route;
mod runtimes;
mod service;
mod tally;
#[cfg(test)]
mod tests;
mod worker;

use std::fmt::Debug;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::record_batch::RecordBatch;
use url::Url;
use uuid::Uuid;

pub(crate) use driver::{Compression, Plane};
pub(crate) use frame::{MAX_BODY, frames};
pub(crate) use nodes::Applier;
pub(crate) use problem::{JobError, WorkError};
pub(crate) use runtimes::Runtimes;
pub(crate) use worker::serve;

/// What an executor does with what it is sent.
///
/// # Contract
/// It is called once for a task, with all frames of the task and only if the task is for this incarnation. A job that
/// is given up drops the call at its next await.
#[async_trait]
pub(crate) trait Work: Debug + Send + Sync + 'static {
    /// Answers the frames of one task, batches of [`frame_schema`] as they came, with others.
    ///
    /// `spec` is the task's own part of the job. The route of answers is of no account. A body is at most [`MAX_BODY`]
    /// bytes and a kind is never [`END`].
    ///
    /// # Errors
    /// Says whether the job is of another time, or cannot be done at all.
    async fn apply(&self, spec: &[u8], frames: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, WorkError>;

    /// Makes what this executor sends as a part of a job: batches for each of its tasks, in their order, with the columns
    /// kind and body. `routing` is the same for all parts.
    ///
    /// # Errors
    /// As [`Work::apply`].
    async fn send(&self, routing: &[u8], spec: &[u8]) -> Result<Vec<Vec<RecordBatch>>, WorkError>;
}

/// A process that applies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Peer {
    /// Its data address, such as `http://10.0.0.7:50062`.
    pub(crate) url: Url,
    /// Which start of it is meant; another one has another memory.
    pub(crate) incarnation: Uuid,
}

/// What an executor sends in a job.
#[derive(Debug, Clone)]
pub(crate) struct Part {
    /// Who sends it.
    pub(crate) executor: Peer,
    /// What it is, for its [`Work`].
    pub(crate) spec: Vec<u8>,
}

/// One task of a job.
#[derive(Debug, Clone)]
pub(crate) struct Apply {
    /// Where it runs; several tasks may have the same.
    pub(crate) executor: Peer,
    /// Its own part of the job, for its [`Work`]. Every executor of the job is told all specs, so they are to be short.
    pub(crate) spec: Vec<u8>,
}

/// What a task has answered.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Batches of [`frame_schema`] whose route is the task.
    pub(crate) frames: Vec<RecordBatch>,
    /// How long it was until all of it was there.
    pub(crate) took: Duration,
}

/// One round trip.
#[derive(Debug)]
pub(crate) struct Job {
    /// What each task is sent, in the order of `applies`: batches with the columns kind and body.
    pub(crate) frames: Vec<Vec<RecordBatch>>,
    /// What all senders are told, so that specs need not say it.
    pub(crate) routing: Bytes,
    /// What executors send besides.
    pub(crate) parts: Vec<Part>,
    /// The tasks.
    pub(crate) applies: Vec<Apply>,
    /// When it is given up, counted from its start: the last resort, as peers that are lost are noticed before.
    pub(crate) deadline: Duration,
}
