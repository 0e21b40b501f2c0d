//! The crate as a library: what the binary leaves out.

mod embedding;
mod registered;
