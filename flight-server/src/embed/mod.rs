//! Millstream inside a Rust program: declare streams, push Arrow batches in, take result batches out.
//!
//! An [`Engine`] holds what was declared and runs queries side by side, on the Tokio runtime that it is called from.
//! A stream whose connector is `push` takes the rows of the program by a [`PushStream`]; every other connector works
//! as it does in a script. The rows of a query come out as [`Rows`], a stream of batches; a query into a sink is a
//! [`RunningQuery`].
//!
//! ```text
//!   PushStream ── push, advance_watermark, close ──► log of the stream ─┬─► query ──► Rows ──► the program
//!                 waits while a query is behind                         └─► query ──► sink
//! ```
//!
//! # A first program
//!
//! ```
//! use std::sync::Arc;
//!
//! use datafusion::arrow::array::{ArrayRef, Float64Array, StringArray, TimestampMillisecondArray};
//! use datafusion::arrow::record_batch::RecordBatch;
//! use millstream::embed::Engine;
//!
//! # async fn program() -> Result<(), Box<dyn std::error::Error>> {
//! let engine = Engine::new();
//! engine
//!     .run(
//!         "CREATE STREAM trades (szcode VARCHAR, price DOUBLE, ts TIMESTAMP(3), WATERMARK FOR ts AS ts)
//!          WITH (connector = 'push')",
//!     )
//!     .await?;
//!
//! // A query sees what is pushed after it was started.
//! let mut rows = engine
//!     .query(
//!         "SELECT window_end, szcode, SUM(price) AS price FROM trades [Range 10 seconds, Slide 10 seconds]
//!          GROUP BY window_end, szcode",
//!     )
//!     .await?;
//!
//! let trades = engine.stream("trades")?;
//! let columns: [(&str, ArrayRef); 3] = [
//!     ("szcode", Arc::new(StringArray::from(vec!["A", "B", "A"]))),
//!     ("price", Arc::new(Float64Array::from(vec![1.0, 2.0, 3.0]))),
//!     ("ts", Arc::new(TimestampMillisecondArray::from(vec![1_000, 2_000, 12_000]))),
//! ];
//! trades.push(&RecordBatch::try_from_iter(columns)?).await?;
//!
//! // The row at 12 s has closed the window that ends at 10 s.
//! let first = rows.next().await.ok_or("no window was closed")??;
//! assert_eq!(first.num_rows(), 2);
//!
//! // At the end of the stream all windows close.
//! trades.close();
//! let last = rows.next().await.ok_or("the last window was not closed")??;
//! assert_eq!(last.num_rows(), 1);
//! assert!(rows.next().await.is_none());
//! # Ok(())
//! # }
//! # tokio::runtime::Runtime::new().unwrap().block_on(program()).unwrap();
//! ```
//!
//! # Rules
//!
//! - A query sees the rows that are pushed after it was started; queries on one stream share its log. Pushing to a
//!   stream that no query reads is an error, as the rows would be lost.
//! - Event time moves as the stream's `WATERMARK` says, and by [`PushStream::advance_watermark`]. On a stream without
//!   one, rows have the time at which they are pushed.
//! - [`PushStream::push`] waits while a query on the stream is behind, and a query is behind while nobody takes its
//!   [`Rows`]. A program that pushes much and takes rows in one task would wait for itself: use two.
//! - A batch has the stream's columns by name; types are converted where they can be. What does not fit becomes a bad
//!   row, as the stream's `bad_data` says.
//! - A stopped query finishes the epoch in hand and closes no window; [`PushStream::close`] closes all of them.
//! - Nothing outlives the process; state directories are for `millstream run`.

mod answer;
mod builder;
mod engine;
mod home;
mod live;
mod query;
mod running;
mod spread;
mod stream;
mod subscription;

pub(crate) use answer::Answer;
pub use builder::StreamSpec;
pub use engine::Engine;
pub use millstream_engine::Summary;
pub use millstream_engine::query::QueryProgress;
pub use millstream_engine::time::EventTime;
pub(crate) use query::Stopping;
pub use query::{Rows, RunningQuery};
pub use stream::PushStream;
pub use subscription::Subscription;

pub use crate::error::{Error, Result};
