//! The language: SQL text to plans over streams.
//!
//! A [`Session`] holds what was declared. [`Session::parse`] splits a text into statements, and [`Session::compile`]
//! turns each into a [`Statement`] for the caller to carry out:
//!
//! ```text
//! text ─ token ─► statements ─ parse, ddl ─► declarations
//!                     │
//!                     └ rewrite (windows, names) ─► sqlparser ─ group_window, scope ─► DataFusion plan ─ check ─► StreamQuery
//! ```
//!
//! Whatever cannot be done is refused here, with the place in the text and what to type instead: an [`Error`].
//! The leaves of the plans are the engine's [`StreamTable`](millstream_engine::plan::StreamTable)s.
//!
//! Read [`statement`], then `parse`, `rewrite`, `group_window`, `scope` and `check`; `function` for functions declared in
//! SQL.

mod as_of;
pub mod catalog;
mod check;
mod ddl;
mod duration;
mod emission;
pub mod error;
mod function;
mod group_window;
mod interval;
mod json_operators;
mod ksql_window;
mod late;
mod materialized;

mod over;
mod own_expressions;
mod parse;
mod parse_error;
mod plan_error;
mod push_window;
mod quoting;
mod reads;
mod refused;
mod repeatable;
mod rewrite;
mod scope;
mod session;
pub mod settings;
mod show;
pub mod statement;
mod suggest;
mod table_function;
pub mod test_block;
mod time_pattern;
mod time_zone;
mod token;
mod types;
mod window;
mod window_call;
mod window_names;

pub use catalog::{Catalog, Relation, SinkDefinition, ViewDefinition};
pub use duration::parse_span;
pub use error::{Error, Result};
pub use function::FunctionDefinition;
pub use session::Session;
pub use settings::{SERVER_SETTINGS, SETTINGS, Setting, SettingKind};
pub use statement::{ParsedStatement, RelationKind, SecretSource, Shown, Statement, StreamQuery};
pub use test_block::{TestBlock, TestItem};
pub use types::sql_name;
