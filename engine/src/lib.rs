//! The engine.

pub mod batch;
mod driver;
pub mod error;
mod executor;
pub mod ingest;
pub mod nodes;
pub mod plan;
pub mod program;
pub mod query;
pub mod side;
pub mod sink;
pub mod source;
pub mod state;
pub mod testing;
pub mod time;
pub mod window;

pub use driver::Summary;
pub use error::{Error, Result};
pub use executor::{RowCounts, StageCounts};
