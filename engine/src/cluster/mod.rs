//! Queries whose state is spread over executors: what a driver and an executor do for each other, without a transport.
//!
//! ```text
//!   driver                                   executor
//!   rows ─ map ─► deltas, by slot ─exchange─► absorb ─► evaluate ─► results, receipts
//!   journal, sink, slots ◄──────────────────┘    │
//!                                                └─ image ─► files of a checkpoint
//! ```
//!
//! State lies in slots, ranges of key partitions, each of which is a stage of its own at one
//! executor. Every epoch is one exchange: the driver maps its rows, sends each slot what is its own, and gets the
//! results of the instants that the watermark crosses. Queries whose results need all keys at once have one slot.
//!
//! An epoch is what its intent says, so a slot takes it in once, whoever asks how often: it remembers the epoch that
//! comes next, and gives the results of the last one again. When executors are lost, all that are left take over their
//! slots from the last checkpoint and are sent again what has been sent since. A driver that is new does the same with
//! its input, as after any crash, and slots that are where the lineage ends skip that. A driver of an earlier term is
//! refused, and so is a question about a slot that is not there: never is nothing answered for it.
//!
//! Rows of streams whose splits can be said in words are read and decoded by executors as well, `readers` and `shelf`,
//! and mapped where they are, `mapping`: then the driver sees of them only their number and their event times, and
//! deltas go from executor to executor.
//!
//! [`Executors`] is how a driver reaches them, [`Host`] what an executor runs. Of a driver, `spread` is the epoch,
//! `placement` who owns what, `stragglers` who is too slow to, `saving` checkpoints; `owned` is the executor's part in all of them.

mod delivery;
mod error;
mod frame;
mod host;
mod lineage;
mod mapping;
mod message;
mod owned;
mod placement;
mod readers;
mod saving;
mod shelf;
mod slots;
mod spread;
mod stages;
mod stragglers;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use frame::{Frame, LARGEST_BODY};
pub use host::{Held, Host, Programs};
pub(crate) use lineage::Lineage;
pub(crate) use mapping::AwayRows;
pub(crate) use readers::Readers;
pub use slots::KeyRange;
pub use spread::Seat;
pub(crate) use stages::Stages;

use crate::error::Result;

/// An executor: one process, from its start to its end.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Which of the processes that have had the name it is.
    pub incarnation: uuid::Uuid,
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.name.fmt(f)
    }
}

/// What an executor has to do in an exchange.
#[derive(Debug)]
pub struct Task {
    /// Who.
    pub member: Member,
    /// What, for [`Host::apply`].
    pub spec: Bytes,
    /// With what.
    pub frames: Vec<Frame>,
}

/// What a task has given.
#[derive(Debug)]
pub struct Answer {
    /// The frames.
    pub frames: Vec<Frame>,
    /// How long it was until they were there.
    pub took: Duration,
}

/// What executors send in an exchange, besides the driver.
#[derive(Debug, Default)]
pub struct Sending {
    /// What all of them have to know, for [`Host::send`].
    pub routing: Bytes,
    /// Who sends.
    pub senders: Vec<Sender>,
}

/// Who sends something in an exchange.
#[derive(Debug)]
pub struct Sender {
    /// Who.
    pub member: Member,
    /// What, for [`Host::send`].
    pub spec: Bytes,
}

/// The executors of a cluster, as a driver reaches them.
#[async_trait]
pub trait Executors: fmt::Debug + Send + Sync {
    /// Those that may be given work, in the order of their names.
    fn live(&self) -> Vec<Member>;

    /// The same once there is one; waits for that.
    async fn ready(&self) -> Vec<Member>;

    /// Completes once those that may be given work are others than `known`.
    async fn changed(&self, known: &[Member]);

    /// Has every task done, [`Host::apply`], with what is in it and what is made for it by `sending`, [`Host::send`]; what each
    /// gives, in their order.
    ///
    /// # Errors
    /// [`crate::Error::Lost`] if an executor cannot be reached or is another process than it was, and as a task fails. Any
    /// of the tasks may have been done then.
    async fn exchange(&self, tasks: Vec<Task>, sending: Sending) -> Result<Vec<Answer>>;

    /// Asks one of them, [`Host::call`].
    ///
    /// # Errors
    /// As [`Executors::exchange`].
    async fn call(&self, member: &Member, request: Bytes) -> Result<Bytes>;
}
