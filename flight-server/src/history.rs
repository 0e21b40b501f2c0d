//! Streams read from files in place of where they are declared to come from: the same queries over their history.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millstream_engine::plan::{EventTimeRule, StreamDefinition, WithOption};
use millstream_engine::time::Span;

use crate::error::{Error, Result};

/// A watermark that is so far behind passes no row: no row is late, and every window closes at the end of the files.
const NEVER: Span = Span(i64::MAX);

/// Files for streams, by name.
#[derive(Debug, Clone, Default)]
pub struct History {
    paths: BTreeMap<String, String>,
    used: BTreeSet<String>,
}

impl History {
    /// Reads the streams of these names from these paths.
    pub fn new(paths: &[(String, String)]) -> Self {
        Self {
            paths: paths.iter().map(|(name, path)| (name.to_lowercase(), path.clone())).collect(),
            used: BTreeSet::new(),
        }
    }

    /// The stream as it is to be read: from its files if it has some, whose rows may stand in any order.
    pub(crate) fn of(&mut self, stream: Arc<StreamDefinition>) -> Arc<StreamDefinition> {
        let Some(path) = self.paths.get(&stream.name) else { return stream };
        self.used.insert(stream.name.clone());
        let option = |key: &str, value: &str| WithOption::new(key, value, None);
        let event_time = stream.event_time.map(|rule| EventTimeRule {
            delay: NEVER,
            max_future_skew: None,
            idle_timeout: None,
            ..rule
        });
        let options = vec![option("connector", "files"), option("path", path)];
        let stream = Arc::unwrap_or_clone(stream);
        Arc::new(StreamDefinition { event_time, durability: None, rate_limit: None, options, ..stream })
    }

    /// Checks that every name was that of a stream.
    ///
    /// # Errors
    /// One of them was not.
    pub(crate) fn check(&self) -> Result<()> {
        match self.paths.keys().find(|name| !self.used.contains(*name)) {
            None => Ok(()),
            Some(name) => Err(Error::Usage(format!("--table {name}=…: no stream \"{name}\" is declared by the SQL"))),
        }
    }
}
