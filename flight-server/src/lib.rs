//! The composition root: sources, language, engine and sinks put together, and the commands of the binary.
//!
//! Programs that embed Millstream use [`embed`] alone.
//!
//! Read [`session`] for how statements are carried out, [`queries`] for how queries run together, then the commands.

pub mod cli;
mod cluster;
mod declarations;
pub mod demo;
pub mod embed;
pub mod error;
mod explain;
pub mod generate;
pub mod history;
mod memory;
pub mod output;
pub mod queries;
mod running;
pub mod screen;
pub mod serve;
pub mod session;
pub mod shell;
pub mod state;
pub mod test;

pub use cluster::run_executor;
pub use error::{Error, Result};
