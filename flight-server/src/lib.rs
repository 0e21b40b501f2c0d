//! The composition root: sources, language, engine and sinks put together, and the commands of the binary.
//!
//! Read [`session`] for how statements are carried out, [`queries`] for how queries run together, then the commands.

pub mod cli;
pub mod demo;
pub mod error;
pub mod generate;
pub mod history;
mod memory;
pub mod output;
pub mod queries;
pub mod screen;
pub mod session;
pub mod state;

pub use error::{Error, Result};
