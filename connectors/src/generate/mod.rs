//! Connector `generate`, and the same trades for the outside: seeded trades, quotes and positions.
//!
//! The three streams have the columns of the stock-trading benchmark for Spark Streaming that this project measures
//! itself against: STOCK(szcode, eventTime, lastPrice), TRANSACTION(szcode, userID, eventTime, Turnover, Price) and
//! POSITION(userID, szcode, eventTime, lastPrice, openInterest). Row `i` depends on the seed and `i` only, so that
//! any range of rows can be made again, in any order and on any thread.

mod batch;
mod files;
mod row;
mod server;
mod source;
mod text;

pub use files::write_files;
pub use row::{EventClock, Generator, GeneratorSpec, StreamKind};
pub use server::{GeneratorServer, Pace, Served, ServerSpec};
pub use source::GenerateSource;
pub use text::LineFormat;
