//! The connectors through their public face. One binary: each one more would link all of DataFusion again.

mod common;
mod decode_speed;
mod files;
mod files_resumed;
mod generate;
mod nexmark;
mod recipes;
mod sinks;
mod sinks_postgres;
mod socket;
