//! Pushed streams that are being read: the program's end of each, and how many queries there are at the other.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use datafusion::common::runtime::SpawnedTask;
use millstream_connectors::push::{PushSender, PushSource, retention};
use millstream_engine::ingest::Ingest;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::side::SideTables;
use millstream_engine::time::SystemClock;
use millstream_engine::{Error, Result};

/// The pushed streams that queries read or have read, by name.
#[derive(Debug, Clone, Default)]
pub(super) struct LiveStreams(Arc<Mutex<BTreeMap<String, LiveStream>>>);

/// A pushed stream being read.
#[derive(Debug)]
struct LiveStream {
    ingest: Arc<Ingest>,
    /// None once the stream is closed.
    sender: Option<PushSender>,
    queries: usize,
    _reading: SpawnedTask<()>,
}

/// What a query holds of a stream while it runs.
#[derive(Debug)]
pub(super) struct Lease {
    streams: LiveStreams,
    ingest: Arc<Ingest>,
}

impl LiveStreams {
    fn held(&self) -> MutexGuard<'_, BTreeMap<String, LiveStream>> {
        // The map is whole after every statement that changes it, so a panic elsewhere does not spoil it.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Joins the queries on the streams `definitions`; none of them takes rows in until `start` has returned.
    ///
    /// # Errors
    /// Fails as `start` does, and for options that are wrong.
    pub(super) fn join<T>(
        &self,
        definitions: &[(Arc<StreamDefinition>, SideTables)],
        start: impl FnOnce(&[Arc<Ingest>]) -> Result<T>,
    ) -> Result<(T, Vec<Lease>)> {
        let mut held = self.held();
        let mut ingests = Vec::new();
        for (definition, side) in definitions {
            let name = &definition.name;
            // One that is closed ends for those that read it; whoever comes later reads a new one.
            if held.get(name).is_none_or(|live| live.sender.is_none() || live.ingest.definition() != definition) {
                held.insert(name.clone(), LiveStream::open(definition, side)?);
            }
            ingests.extend(held.get(name).map(|live| Arc::clone(&live.ingest)));
        }
        let started = start(&ingests)?;
        let leases = ingests.into_iter().map(|ingest| {
            if let Some(live) = held.get_mut(&ingest.definition().name) {
                live.queries += 1;
            }
            Lease { streams: self.clone(), ingest }
        });
        let leases = leases.collect();
        drop(held);
        Ok((started, leases))
    }

    /// The end at which rows of a stream go in.
    ///
    /// # Errors
    /// Fails if no query reads the stream, or it is closed.
    pub(super) fn sender(&self, name: &str) -> Result<PushSender> {
        let held = self.held();
        let (message, hint) = match held.get(name) {
            Some(LiveStream { sender: Some(sender), queries: 1.., .. }) => return Ok(sender.clone()),
            Some(LiveStream { sender: None, .. }) => {
                (format!("stream \"{name}\" is closed"), "start another query on it to open it anew")
            }
            _ => (format!("no query reads stream \"{name}\""), "start a query on it before pushing"),
        };
        Err(Error::query(message, hint))
    }

    /// Ends a stream.
    pub(super) fn close(&self, name: &str) {
        if let Some(live) = self.held().get_mut(name) {
            live.sender = None;
        }
    }
}

impl LiveStream {
    fn open(definition: &Arc<StreamDefinition>, side: &SideTables) -> Result<Self> {
        if retention(definition)?.is_some() {
            let message = format!("stream \"{}\" has a retention, and nothing of it is kept here", definition.name);
            return Err(Error::query(message, "leave retention out, or declare the stream on a server"));
        }
        let (source, sender) = PushSource::new(definition)?;
        let ingest = Ingest::new(Arc::clone(definition), Arc::new(source), Arc::new(SystemClock), side.clone());
        let ingest = Arc::new(ingest);
        let read = Arc::clone(&ingest);
        let reading = SpawnedTask::spawn(async move { read.run().await });
        Ok(Self { ingest, sender: Some(sender), queries: 0, _reading: reading })
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let mut held = self.streams.held();
        if let Some(live) = held.get_mut(&self.ingest.definition().name)
            && Arc::ptr_eq(&live.ingest, &self.ingest)
        {
            live.queries = live.queries.saturating_sub(1);
        }
    }
}
