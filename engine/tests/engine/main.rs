//! The engine as a whole: what it computes against oracles that share no code with it, and what it keeps through
//! crashes, damage and full disks. One binary, since linking is most of what a test costs.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "tests")]

mod batch_invariance;
mod damage;
mod disk_full;
mod emission;
mod factored_joins;
mod interval_joins;
mod invariants;
mod kept;
mod late_rows;
mod oracle;
mod planning;
mod power_loss;
mod scripts;
mod shared_log;
mod state_memory;
mod traps;
mod window_kinds;
mod worked_example;
