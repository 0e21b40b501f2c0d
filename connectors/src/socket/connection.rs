//! Connections: made again with growing pauses, or accepted; each read up to its last complete line.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use millstream_engine::{Error, Result};
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::reader::Pieces;
use crate::format::text::{TextFormat, TextInput};

/// The pause after the first failed attempt to connect; it doubles up to [`MAX_PAUSE`].
const MIN_PAUSE: Duration = Duration::from_millis(50);
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The most connections that are accepted at a time; more wait in the kernel.
const MAX_CONNECTIONS: usize = 1024;
/// The most that is taken from a connection before it is handed on, in bytes.
const MAX_PIECE_BYTES: usize = 1024 * 1024;
/// The room made for one read, in bytes.
const READ_BYTES: usize = 64 * 1024;

/// Makes inputs of connections.
#[derive(Debug)]
pub(super) struct Connector {
    /// The address as the user gave it.
    pub(super) address: String,
    /// What comes in.
    pub(super) format: Arc<TextFormat>,
}

/// Why a connection is no longer read.
enum Ended {
    /// The sender closed it or it broke, after this many bytes.
    Closed { bytes: u64, error: Option<io::Error> },
    /// Its header does not fit the declaration.
    Refused(Error),
    /// Nobody takes the pieces any more.
    Unread,
}

impl Connector {
    /// Connects, reads to the end and connects again, until nobody takes the pieces.
    pub(super) async fn connect_for_ever(self, pieces: Pieces) {
        let mut pause = MIN_PAUSE;
        let mut was_reachable = true;
        while !pieces.is_closed() {
            match TcpStream::connect(&self.address).await {
                Ok(stream) => {
                    tracing::info!(address = self.address, "connected");
                    was_reachable = true;
                    match read_lines(stream, self.input(&self.address), &pieces).await {
                        Ended::Unread => return,
                        Ended::Refused(error) => return fail(&pieces, error).await,
                        Ended::Closed { bytes, error } => {
                            tracing::warn!(
                                address = self.address,
                                bytes,
                                ?error,
                                "connection closed, connecting again"
                            );
                            pause = if bytes > 0 { MIN_PAUSE } else { pause };
                        }
                    }
                }
                Err(error) => {
                    if was_reachable {
                        tracing::warn!(address = self.address, %error, "cannot connect, trying again");
                    }
                    was_reachable = false;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(MAX_PAUSE),
                () = pieces.closed() => return,
            }
        }
    }

    /// Reads one connection to its end.
    pub(super) async fn read_once(self, stream: TcpStream, pieces: Pieces) {
        match read_lines(stream, self.input(&self.address), &pieces).await {
            Ended::Closed { error: Some(error), .. } => {
                fail(&pieces, Error::external(format!("reading from {}", self.address), error)).await;
            }
            Ended::Refused(error) => fail(&pieces, error).await,
            Ended::Closed { error: None, .. } | Ended::Unread => {}
        }
    }

    /// Reads all who connect; unless `reconnect`, it ends with the last of them, those that are refused not counted.
    pub(super) async fn accept_all(self, listener: TcpListener, pieces: Pieces, reconnect: bool) {
        let mut connections = JoinSet::new();
        let mut has_read = false;
        loop {
            tokio::select! {
                accepted = listener.accept(), if connections.len() < MAX_CONNECTIONS => match accepted {
                    Ok((stream, peer)) => {
                        tracing::info!(%peer, "accepted");
                        let input = self.input(&peer.to_string());
                        connections.spawn(read_accepted(stream, peer, input, pieces.clone()));
                    }
                    Err(error) => {
                        tracing::warn!(address = self.address, %error, "cannot accept, trying again");
                        tokio::time::sleep(MIN_PAUSE).await;
                    }
                },
                Some(is_read) = connections.join_next() => {
                    has_read |= is_read.unwrap_or(true);
                    if connections.is_empty() && has_read && !reconnect {
                        return;
                    }
                },
                () = pieces.closed() => return,
            }
        }
    }

    fn input(&self, peer: &str) -> TextInput {
        TextInput::new(&self.format, &format!("socket {peer}"))
    }
}

/// Ends the stream with an error.
async fn fail(pieces: &Pieces, error: Error) {
    // Whoever no longer listens needs no error either.
    pieces.send(Err(error)).await.unwrap_or_default();
}

/// Reads a connection that was accepted; false if it was refused.
///
/// A refused one ends alone: anybody may connect, and a health check must not end the query.
async fn read_accepted(stream: TcpStream, peer: SocketAddr, input: TextInput, pieces: Pieces) -> bool {
    match read_lines(stream, input, &pieces).await {
        Ended::Refused(error) => {
            tracing::warn!(%peer, %error, "connection refused for its header");
            return false;
        }
        Ended::Closed { bytes, error } => tracing::info!(%peer, bytes, ?error, "connection closed"),
        Ended::Unread => {}
    }
    true
}

/// Hands on complete lines as they come, and the rest when the sender closes.
async fn read_lines(mut stream: TcpStream, mut input: TextInput, pieces: &Pieces) -> Ended {
    let mut bytes = 0;
    loop {
        let (read, error) = match read_available(&mut stream, input.buffer()).await {
            Ok(read) => (read, None),
            Err(error) => (0, Some(error)),
        };
        bytes += read as u64;
        if let Err(ended) = hand_on(&mut input, read == 0, pieces).await {
            return ended;
        }
        if read == 0 {
            return Ended::Closed { bytes, error };
        }
    }
}

async fn hand_on(input: &mut TextInput, finished: bool, pieces: &Pieces) -> Result<(), Ended> {
    while let Some(piece) = input.take(finished).map_err(Ended::Refused)? {
        pieces.send(Ok(piece)).await.map_err(|_| Ended::Unread)?;
    }
    Ok(())
}

/// Waits for bytes, then takes what else is there already; 0 at the end.
async fn read_available(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<usize> {
    buffer.reserve(READ_BYTES);
    let mut total = stream.read_buf(buffer).await?;
    while total > 0 && buffer.len() < MAX_PIECE_BYTES {
        buffer.reserve(READ_BYTES);
        match stream.try_read_buf(buffer) {
            // The end is found again by the next call.
            Ok(0) => break,
            Ok(read) => total += read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(total)
}
