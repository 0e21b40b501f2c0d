//! Our own physical plan nodes.

mod slot;
mod stoppable;

pub use slot::{Bindings, SlotExec, SlotId};
pub(crate) use stoppable::StoppableExec;
