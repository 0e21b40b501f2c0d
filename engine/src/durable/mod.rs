//! What survives the process: the durable file layer, journals, write-ahead logs and what is kept of each query.
//!
//! [`Files`] is the disk, [`ObjectFiles`] an object store in its place, and [`SimFiles`] a disk that loses what it may;
//! [`StateDirectory`] is what stands on it. A query's epochs go to a journal (`query_store`), its state to checkpoints
//! (`checkpoint_files`), the rows of streams that cannot be read again to a write-ahead log (`wal`). A [`RowLog`] is a
//! stream of its own, which many append to and many read. [`durable_step`] is where tests pull the plug.

mod checkpoint_files;
mod contract;
mod crash;
mod directory;
mod files;
mod framing;
#[cfg(test)]
mod fuzz;
mod index;
mod inspect;
mod journal;
mod object_files;
mod place;
mod query_store;
mod record;
mod resume;
mod room;
mod row_log;
mod simulated;
mod state_rows;
mod terms;
mod wal;

pub(crate) use checkpoint_files::{CheckpointWriter, load_stages};
pub use contract::Misfit;
pub use crash::{CRASH_AT, durable_step};
pub use directory::StateDirectory;
pub use files::{AppendFile, Durability, Files, LocalFiles};
pub use inspect::{KeptCheckpoint, KeptFile, KeptQuery, Report, inspect, verify, verify_files};
pub use object_files::ObjectFiles;
pub use place::StatePlace;
pub use query_store::file_name;
pub(crate) use query_store::{Commit, Intent, LoggedEpoch, QueryStore, Recovered, StreamRecords};
pub use resume::{DurableQuery, resume_streams};
pub use room::{FullDisk, ROOM_PAUSE};
pub use row_log::{Appended, LoggedRows, Producer, ReceivedRows, RowLog, RowLogReader};
pub use simulated::SimFiles;
pub use state_rows::{KeptState, read_state};
pub use wal::WAL_LIMIT_BYTES;
pub(crate) use wal::{Frame, SharedWal};
