//! End-to-end tests: the real binary as a process, its rows on stdout, its notes on stderr, its exit codes.

mod bad_rows;
mod crashes;
mod databases;
mod demo;
mod exits;
mod folders;
mod generator;
mod kept;
mod limits;
mod memory;
mod object_store;
mod output;
mod process;
mod relations;
mod shown;
mod sinks;
mod sql_tests;
mod state;
mod stock;
mod trades;
