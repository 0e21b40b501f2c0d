//! Connections as they come in, no more of them at once than the server is told to have.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::task::{Context, Poll};

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Extensions;
use tonic::transport::server::{Connected, TlsConnectInfo};

/// A connection, by a number that no other one has had.
#[derive(Debug, Clone)]
pub(super) struct Connection {
    number: u64,
    open: Weak<()>,
}

impl Connection {
    /// The connection that a call has come by.
    pub(super) fn of(extensions: &Extensions) -> Option<Self> {
        let encrypted = || extensions.get::<TlsConnectInfo<Self>>().map(|info| info.get_ref().clone());
        extensions.get::<Self>().cloned().or_else(encrypted)
    }

    /// Whether it is still there.
    pub(super) fn is_open(&self) -> bool {
        self.open.strong_count() > 0
    }
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection {}", self.number)
    }
}

/// A connection that is counted while it lasts.
#[derive(Debug)]
pub(super) struct Counted {
    stream: TcpStream,
    number: u64,
    open: Arc<()>,
    _place: OwnedSemaphorePermit,
}

/// The connections of a listener; those above `limit` are closed at once.
pub(super) fn connections(listener: TcpListener, limit: usize) -> impl Stream<Item = io::Result<Counted>> {
    let places = Arc::new(Semaphore::new(limit));
    futures::stream::unfold((listener, places, 0), move |(listener, places, number)| async move {
        loop {
            match listener.accept().await {
                Ok((stream, peer)) => match Arc::clone(&places).try_acquire_owned() {
                    Ok(place) => {
                        // It only delays less; the connection works without.
                        let _ = stream.set_nodelay(true);
                        let counted = Counted { stream, number, open: Arc::default(), _place: place };
                        return Some((Ok(counted), (listener, places, number + 1)));
                    }
                    Err(_) => tracing::warn!(%peer, limit, "too many clients are connected"),
                },
                // Of the client or of a moment: the next one may be well.
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be taken");
                    tokio::task::yield_now().await;
                }
            }
        }
    })
}

impl Connected for Counted {
    type ConnectInfo = Connection;

    fn connect_info(&self) -> Connection {
        Connection { number: self.number, open: Arc::downgrade(&self.open) }
    }
}

impl AsyncRead for Counted {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, into)
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
