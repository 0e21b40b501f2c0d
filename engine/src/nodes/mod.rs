//! Our own physical plan nodes.

mod slot;

pub use slot::{Bindings, SlotExec, SlotId};
