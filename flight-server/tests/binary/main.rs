//! End-to-end tests: the real binary as a process, its rows on stdout, its notes on stderr, its exit codes.

mod bad_rows;
mod classic;
mod crashes;
mod databases;
mod demo;
mod difference;
mod docs;
mod exits;
mod folders;
mod functions;
mod generator;
mod history;
mod kept;
mod limits;
mod memory;
mod nexmark;
mod object_store;
mod output;
mod process;
mod relations;
mod shown;
mod sinks;
mod spellings;
mod state;
mod stock;
mod trades;
