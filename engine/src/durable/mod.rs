//! What survives the process.

mod crash;

pub use crash::{CRASH_AT, durable_step};
