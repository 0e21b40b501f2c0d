//! Generated lines for whoever connects, at the pace of the benchmark's sender.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use millstream_engine::{Error, Result};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::row::Generator;
use super::text::LineFormat;

/// The most rows of one write.
const MAX_WRITE_ROWS: u64 = 4_096;
/// The shortest pause between writes at a rate.
const TICK: Duration = Duration::from_millis(5);

/// How fast rows are sent.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Pace {
    /// As fast as they are taken.
    Full,
    /// This many rows per second.
    Rate(f64),
    /// One row, then a sleep, as in the benchmark; no sleep means as fast as they are taken.
    Sleep(Duration),
}

/// What is sent to a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ServerSpec {
    /// How rows are written.
    pub format: LineFormat,
    /// Whether the first line names the columns.
    pub header: bool,
    /// How fast they are sent.
    pub pace: Pace,
    /// After how many rows the connection is closed; `None` for never.
    pub rows: Option<u64>,
    /// After how long it is closed; `None` for never.
    pub duration: Option<Duration>,
}

impl ServerSpec {
    /// CSV without a header and without an end.
    pub const fn new(pace: Pace) -> Self {
        Self { format: LineFormat::Csv, header: false, pace, rows: None, duration: None }
    }
}

/// What one connection got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    /// How many rows were sent.
    pub rows: u64,
    /// How long that took.
    pub duration: Duration,
}

/// Sends generated lines to whoever connects; each connection gets them from row 0 on.
#[derive(Debug)]
pub struct GeneratorServer {
    listener: TcpListener,
    address: SocketAddr,
    generator: Arc<Generator>,
    spec: ServerSpec,
}

impl GeneratorServer {
    /// Listens on `address`, `host:port`; port 0 chooses one, which [`Self::local_addr`] tells.
    ///
    /// # Errors
    /// Fails if the address cannot be listened on.
    pub async fn bind(address: &str, generator: Generator, spec: ServerSpec) -> Result<Self> {
        let fail = |error| Error::external(format!("listening on {address}"), error);
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let bound = listener.local_addr().map_err(fail)?;
        Ok(Self { listener, address: bound, generator: Arc::new(generator), spec })
    }

    /// The address that is listened on.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Waits for one connection and serves it to its end.
    ///
    /// # Errors
    /// Fails if the connection cannot be accepted or written for another reason than its end.
    pub async fn serve_one(&self) -> Result<Served> {
        let stream = self.accept().await?;
        send_all(stream, &self.generator, self.spec).await
    }

    /// Serves every connection, several at a time; ends only when dropped or by an error.
    ///
    /// # Errors
    /// Fails if connections can no longer be accepted.
    pub async fn serve(&self) -> Result<()> {
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                stream = self.accept() => {
                    let (generator, spec, stream) = (Arc::clone(&self.generator), self.spec, stream?);
                    connections.spawn(async move { send_all(stream, &generator, spec).await });
                }
                Some(served) = connections.join_next() => match served {
                    Ok(Ok(served)) => tracing::info!(rows = served.rows, duration = ?served.duration, "served"),
                    Ok(Err(error)) => tracing::warn!(%error, "connection failed"),
                    Err(error) => tracing::warn!(%error, "connection failed"),
                },
            }
        }
    }

    async fn accept(&self) -> Result<TcpStream> {
        let accepted = self.listener.accept().await;
        let (stream, peer) =
            accepted.map_err(|error| Error::external(format!("accepting on {}", self.address), error))?;
        tracing::info!(%peer, "sending");
        Ok(stream)
    }
}

async fn send_all(mut stream: TcpStream, generator: &Generator, spec: ServerSpec) -> Result<Served> {
    let start = Instant::now();
    let mut rows = 0;
    match send(&mut stream, generator, spec, start, &mut rows).await {
        Err(error) if !is_closed(&error) => Err(Error::external("sending generated rows", error)),
        _ => Ok(Served { rows, duration: start.elapsed() }),
    }
}

async fn send(
    stream: &mut TcpStream,
    generator: &Generator,
    spec: ServerSpec,
    start: Instant,
    sent: &mut u64,
) -> io::Result<()> {
    // Small writes are single rows that should arrive at once.
    stream.set_nodelay(true)?;
    if spec.header && spec.format == LineFormat::Csv {
        stream.write_all(generator.header().as_bytes()).await?;
    }
    let end = spec.rows.unwrap_or(u64::MAX);
    let mut lines = Vec::new();
    while *sent < end && spec.duration.is_none_or(|duration| start.elapsed() < duration) {
        let until = end.min(*sent + spec.pace.due(*sent, start.elapsed()).min(MAX_WRITE_ROWS));
        lines.clear();
        generator.write_lines(*sent..until, spec.format, &mut lines)?;
        stream.write_all(&lines).await?;
        *sent = until;
        spec.pace.pause().await;
    }
    stream.shutdown().await
}

impl Pace {
    /// How many rows are to be sent now, after `sent` in `elapsed`.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a float cast saturates")]
    fn due(self, sent: u64, elapsed: Duration) -> u64 {
        match self {
            Self::Sleep(pause) if !pause.is_zero() => 1,
            Self::Full | Self::Sleep(_) => MAX_WRITE_ROWS,
            Self::Rate(rate) => ((elapsed.as_secs_f64() * rate) as u64).saturating_sub(sent),
        }
    }

    async fn pause(self) {
        match self {
            Self::Sleep(pause) if !pause.is_zero() => tokio::time::sleep(pause).await,
            Self::Full | Self::Sleep(_) => {}
            Self::Rate(_) => tokio::time::sleep(TICK).await,
        }
    }
}

/// Whether the other side has gone, which is how a connection usually ends.
fn is_closed(error: &io::Error) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    matches!(error.kind(), BrokenPipe | ConnectionAborted | ConnectionReset)
}
