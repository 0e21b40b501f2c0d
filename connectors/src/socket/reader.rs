//! The one partition of a socket: takes pieces from the connections as they come.

use std::future::Future;

use async_trait::async_trait;
use datafusion::common::runtime::SpawnedTask;
use millstream_engine::Result;
use millstream_engine::source::{Offset, PartitionReader, Split};
use tokio::sync::mpsc;

use crate::format::text::TextPiece;

/// How many pieces wait for the engine; each connection holds one more.
const WAITING_PIECES: usize = 1;

/// Where connections put what they have read.
pub(super) type Pieces = mpsc::Sender<Result<TextPiece>>;

/// Takes pieces from the connections, which stop with it.
#[derive(Debug)]
pub(super) struct SocketReader {
    pieces: mpsc::Receiver<Result<TextPiece>>,
    offset: Offset,
    _connections: SpawnedTask<()>,
}

impl SocketReader {
    /// Starts `connections` and reads what they send until they end.
    pub(super) fn spawn<F>(connections: impl FnOnce(Pieces) -> F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (sender, pieces) = mpsc::channel(WAITING_PIECES);
        Self { pieces, offset: Offset(0), _connections: SpawnedTask::spawn(connections(sender)) }
    }
}

#[async_trait]
impl PartitionReader for SocketReader {
    async fn next(&mut self, _: Option<Offset>) -> Result<Option<Split>> {
        let Some(piece) = self.pieces.recv().await else { return Ok(None) };
        let split = piece?.into_split(self.offset);
        self.offset = split.offsets.end;
        Ok(Some(split))
    }
}
