//! JSON in columns of text: looked into by path, as `document -> 'key' ->> 0` or by function.
//!
//! A document is scanned once to its end and nothing is built but what was asked for; a text that is no JSON to its
//! last letter gives NULL, as does a path that leads nowhere. Functions of DataFusion's own contributors exist
//! (datafusion-functions-json), but they stand on a macro crate that is no longer maintained, answer from a text that
//! is JSON only as far as they read it, and have a union type for `->` that no sink can write.

mod function;
mod scan;

pub use self::function::json_functions;
