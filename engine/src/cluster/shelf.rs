//! What an executor has read of streams and holds for their queries.
//!
//! Everything here can be had again from its words, so it is bounded by dropping the oldest.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use datafusion::common::runtime::SpawnedTask;

use super::message::BlockKey;
use crate::error::{Error, Result};
use crate::ingest::{Block, Found, Lateness, Scanned, Stretch};
use crate::plan::StreamDefinition;
use crate::source::{BadRow, Source};
use crate::time::Watermark;

/// What is held at the most, in bytes: a driver waits for its queries before that.
const MOST_BYTES: usize = 256 << 20;

/// Streams that drivers have opened, and blocks of them.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    content: Mutex<Content>,
    rows_read: AtomicU64,
}

#[derive(Debug, Default)]
struct Content {
    streams: HashMap<String, Opened>,
    blocks: HashMap<(String, BlockKey), Arc<Block>>,
    /// The blocks, the oldest first, and some that are gone.
    order: VecDeque<(String, BlockKey)>,
    bytes: usize,
}

#[derive(Debug, Clone)]
struct Opened {
    definition: Arc<StreamDefinition>,
    source: Arc<dyn Source>,
    asked_at: Instant,
}

impl Shelf {
    fn content(&self) -> MutexGuard<'_, Content> {
        // An insertion or a removal is whole.
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Rows that were read since the start, also those that were dropped since.
    pub(super) fn rows_read(&self) -> u64 {
        self.rows_read.load(Ordering::Relaxed)
    }

    /// Takes a stream that a driver calls `id`.
    pub(super) fn open(&self, id: &str, definition: Arc<StreamDefinition>, source: Arc<dyn Source>) {
        self.content().streams.insert(id.to_owned(), Opened { definition, source, asked_at: Instant::now() });
    }

    /// Whether it has a stream.
    pub(super) fn has(&self, id: &str) -> bool {
        self.content().streams.contains_key(id)
    }

    /// Drops a stream and its blocks.
    pub(super) fn close(&self, id: &str) {
        let mut content = self.content();
        content.streams.remove(id);
        let of_stream: Vec<_> = content.blocks.keys().filter(|(stream, _)| stream == id).cloned().collect();
        of_stream.iter().for_each(|key| content.drop_block(key));
        content.order.retain(|(stream, _)| stream != id);
    }

    /// Closes streams that nobody has asked for in so long.
    pub(super) fn close_forsaken(&self, patience: Duration) {
        let content = self.content();
        let forsaken = content.streams.iter().filter(|(_, stream)| stream.asked_at.elapsed() >= patience);
        let forsaken: Vec<String> = forsaken.map(|(id, _)| id.clone()).collect();
        drop(content);
        forsaken.iter().for_each(|id| self.close(id));
    }

    /// Drops blocks.
    pub(super) fn forget(&self, id: &str, blocks: Vec<BlockKey>) {
        let mut content = self.content();
        blocks.into_iter().for_each(|block| content.drop_block(&(id.to_owned(), block)));
    }

    /// Reads and decodes a stretch and holds its rows.
    ///
    /// # Errors
    /// [`Error::Lost`] if the stream is not open; fails if the input is not what it was.
    pub(super) async fn read(&self, id: &str, stretch: Stretch) -> Result<Found> {
        let key = (id.to_owned(), BlockKey::of(&stretch));
        let (bad, block) = self.decode(id, stretch).await?;
        if let Some(block) = &block {
            self.rows_read.fetch_add(block.rows.num_rows() as u64, Ordering::Relaxed);
            self.content().hold(key, Arc::clone(block));
        }
        let found = block.map(|block| Found {
            rows: block.rows.num_rows(),
            bytes: block.rows.get_array_memory_size(),
            times: Some((block.earliest, block.latest)),
            bad: Vec::new(),
        });
        Ok(Found { bad, ..found.unwrap_or_default() })
    }

    /// The rows of a stretch, which are not held if they were not; none if it has none.
    ///
    /// # Errors
    /// As [`Shelf::read`].
    pub(super) async fn block(&self, id: &str, stretch: &Stretch) -> Result<Option<Arc<Block>>> {
        let held = {
            let mut content = self.content();
            if let Some(stream) = content.streams.get_mut(id) {
                stream.asked_at = Instant::now();
            }
            content.blocks.get(&(id.to_owned(), BlockKey::of(stretch))).cloned()
        };
        match held {
            Some(block) => Ok(Some(block)),
            None => Ok(self.decode(id, stretch.clone()).await?.1),
        }
    }

    /// Scans the rows of a stretch from a watermark; those that are behind it.
    ///
    /// # Errors
    /// As [`Shelf::read`].
    pub(super) async fn scan(
        &self,
        id: &str,
        stretch: &Stretch,
        lateness: Lateness,
        from: Watermark,
    ) -> Result<Scanned> {
        let Some(block) = self.block(id, stretch).await? else {
            return Ok(Scanned { after: from, behind: Vec::new(), rows: None });
        };
        Scanned::of(&block, lateness, from)
    }

    /// The bad rows of a stretch, and the others if there are some.
    async fn decode(&self, id: &str, stretch: Stretch) -> Result<(Vec<BadRow>, Option<Arc<Block>>)> {
        let stream = self.content().streams.get_mut(id).map(|stream| {
            stream.asked_at = Instant::now();
            stream.clone()
        });
        let Opened { definition, source, .. } =
            stream.ok_or_else(|| Error::lost(format!("stream {id} is not open")))?;
        let work = move || {
            let mut timed = stretch.decode(&definition, source.as_ref())?;
            let bad = std::mem::take(&mut timed.bad);
            Ok((bad, stretch.block(timed).map(Arc::new)))
        };
        let decoded = SpawnedTask::spawn_blocking(work).join().await;
        decoded.map_err(|error| Error::internal(format!("decoding stopped: {error}")))?
    }
}

impl Content {
    fn hold(&mut self, key: (String, BlockKey), block: Arc<Block>) {
        if !self.streams.contains_key(&key.0) {
            return;
        }
        self.drop_block(&key);
        self.bytes += block.rows.get_array_memory_size();
        self.order.push_back(key.clone());
        self.blocks.insert(key, block);
        while self.bytes > MOST_BYTES
            && let Some(oldest) = self.order.pop_front()
        {
            self.drop_block(&oldest);
        }
        if self.order.len() > 2 * self.blocks.len() + 64 {
            let Self { order, blocks, .. } = self;
            order.retain(|key| blocks.contains_key(key));
        }
    }

    fn drop_block(&mut self, key: &(String, BlockKey)) {
        if let Some(block) = self.blocks.remove(key) {
            self.bytes -= block.rows.get_array_memory_size();
        }
    }
}
