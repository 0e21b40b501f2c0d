//! Connector `nexmark`: the people, auctions and bids of the Nexmark benchmark.
//!
//! Nexmark (Tucker, Tufte, Papadimos, Maier: "NEXMark, a benchmark for queries over data streams", 2008) is an auction
//! house: of every 50 events the first is a new person, the next three are new auctions, the other 46 bids. The model
//! is that of the generator in Apache Beam and in the crate `nexmark` 0.2, with its default settings: which people sell
//! and bid, which auctions are hot, how prices, channels, lengths of texts and of auctions are spread.
//!
//! The crate itself is not used: it has no seed, makes every column of every event whether it is read or not, draws
//! from a generator of random numbers that differs between machines, and counts time in `f32`. Here every value
//! follows from the seed and the number of its event by `choice::Choices`, a column that is not
//! declared costs nothing, and any range of rows can be made again on any thread.
//!
//! ```text
//! row of a table ─ tables ─▶ number of the event ─ house ─▶ value ─ columns ─▶ batch
//! ```

mod columns;
mod house;
mod source;
mod tables;
mod text;

pub use source::NexmarkSource;
pub use tables::Table;
