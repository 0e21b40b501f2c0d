//! A proxy in front of an address, which closes, resets, slows or withholds what goes through it when a test says so.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;

/// How many bytes are taken at once in each direction.
const BUFFER_BYTES: usize = 64 << 10;
/// More cuts than come before a connection has heard of the first one.
const MAX_CUTS: usize = 16;

/// How connections end that are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// As a process closes them that ends.
    Close,
    /// As a machine refuses them that has been started again.
    Reset,
}

/// What becomes of bytes.
#[derive(Debug, Clone, Copy)]
enum Passage {
    Open,
    /// They come so much later.
    Slow(Duration),
    /// They come once it is open again, as where a network is down and packets are sent until one arrives.
    Shut,
}

/// The proxy; its connections are closed when it is dropped.
#[derive(Debug)]
pub(super) struct Wire {
    /// Where to connect.
    pub(super) address: SocketAddr,
    orders: Arc<Orders>,
    _carrying: JoinSet<()>,
}

/// What connections are told.
#[derive(Debug)]
struct Orders {
    passage: watch::Sender<Passage>,
    cuts: broadcast::Sender<Cut>,
    /// Bytes that were slowed or withheld.
    kept_back: AtomicUsize,
}

impl Wire {
    /// Listens at `from` for connections to `target`.
    pub(super) fn lay(runtime: &Handle, from: SocketAddr, target: SocketAddr) -> Self {
        let listener = runtime.block_on(TcpListener::bind(from)).unwrap();
        let address = listener.local_addr().unwrap();
        let orders = Arc::new(Orders {
            passage: watch::Sender::new(Passage::Open),
            cuts: broadcast::Sender::new(MAX_CUTS),
            kept_back: AtomicUsize::new(0),
        });
        let mut carrying = JoinSet::new();
        carrying.spawn_on(take(listener, target, Arc::clone(&orders)), runtime);
        Self { address, orders, _carrying: carrying }
    }

    /// Ends all connections; how many there were.
    pub(super) fn cut(&self, how: Cut) -> usize {
        self.orders.cuts.send(how).unwrap_or(0)
    }

    /// Keeps all bytes back for a time.
    pub(super) fn slow(&self, by: Duration) {
        self.orders.passage.send_replace(Passage::Slow(by));
    }

    /// Keeps all bytes back until it is opened.
    pub(super) fn shut(&self) {
        self.orders.passage.send_replace(Passage::Shut);
    }

    /// Lets bytes through at once; how many were kept back.
    pub(super) fn open(&self) -> usize {
        self.orders.passage.send_replace(Passage::Open);
        self.orders.kept_back.swap(0, Ordering::Relaxed)
    }
}

async fn take(listener: TcpListener, target: SocketAddr, orders: Arc<Orders>) {
    let mut connections = JoinSet::new();
    loop {
        // One that was reset before it was taken says nothing of others.
        let Ok((client, _)) = listener.accept().await else { continue };
        connections.spawn(carry(client, target, Arc::clone(&orders), orders.cuts.subscribe()));
        while connections.try_join_next().is_some() {}
    }
}

/// Carries bytes both ways until either end has no more, or the wire is cut.
async fn carry(
    mut client: TcpStream,
    target: SocketAddr,
    orders: Arc<Orders>,
    mut cuts: broadcast::Receiver<Cut>,
) -> io::Result<()> {
    let mut server = TcpStream::connect(target).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let cut = tokio::select! {
        _ = pass(from_client, to_server, &orders) => None,
        _ = pass(from_server, to_client, &orders) => None,
        cut = cuts.recv() => cut.ok(),
    };
    if cut == Some(Cut::Reset) {
        client.set_zero_linger()?;
        server.set_zero_linger()?;
    }
    Ok(())
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, orders: &Orders) -> io::Result<()> {
    let mut passage = orders.passage.subscribe();
    let mut bytes = vec![0; BUFFER_BYTES];
    loop {
        let count = from.read(&mut bytes).await?;
        if count == 0 {
            return Ok(());
        }
        orders.keep_back(count, &mut passage).await;
        to.write_all(&bytes[..count]).await?;
    }
}

impl Orders {
    /// Waits for as long as bytes are to be kept back.
    async fn keep_back(&self, count: usize, passage: &mut watch::Receiver<Passage>) {
        let now = *passage.borrow();
        if !matches!(now, Passage::Open) {
            self.kept_back.fetch_add(count, Ordering::Relaxed);
        }
        match now {
            Passage::Open => {}
            Passage::Slow(by) => tokio::time::sleep(by).await,
            Passage::Shut => {
                // Its sender is here.
                let _ = passage.wait_for(|passage| !matches!(passage, Passage::Shut)).await;
            }
        }
    }
}

/// A connection through a wire to who sends back what comes.
fn echoed(runtime: &Handle) -> (Wire, std::net::TcpStream) {
    let (target, _) = crate::process::serve(|client| {
        let mut sent = client.try_clone().unwrap();
        // It ends by an error where it is reset.
        let _ = io::copy(&mut sent, client);
    });
    let wire = Wire::lay(runtime, SocketAddr::from(([127, 0, 0, 1], 0)), target);
    let client = std::net::TcpStream::connect(wire.address).unwrap();
    (wire, client)
}

/// The next byte; none at the end.
fn next_byte(client: &mut std::net::TcpStream) -> io::Result<Option<u8>> {
    let mut byte = [0];
    let count = io::Read::read(client, &mut byte)?;
    Ok(byte.first().copied().filter(|_| count > 0))
}

#[test]
fn a_wire_keeps_bytes_back_as_it_is_told() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (wire, mut client) = echoed(runtime.handle());
    wire.shut();
    io::Write::write_all(&mut client, b"a").unwrap();
    while wire.orders.kept_back.load(Ordering::Relaxed) == 0 {
        std::thread::yield_now();
    }
    client.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    assert!(next_byte(&mut client).is_err(), "it came through");
    client.set_read_timeout(None).unwrap();
    assert_eq!(wire.open(), 1);
    assert_eq!(next_byte(&mut client).unwrap(), Some(b'a'));
    let (delay, begun) = (Duration::from_millis(20), std::time::Instant::now());
    wire.slow(delay);
    io::Write::write_all(&mut client, b"b").unwrap();
    assert_eq!(next_byte(&mut client).unwrap(), Some(b'b'));
    assert!(begun.elapsed() >= delay * 2, "it goes there and back");
    assert_eq!(wire.open(), 2);
}

#[test]
fn a_wire_ends_connections_as_it_is_told() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for cut in [Cut::Close, Cut::Reset] {
        let (wire, mut client) = echoed(runtime.handle());
        io::Write::write_all(&mut client, b"a").unwrap();
        assert_eq!(next_byte(&mut client).unwrap(), Some(b'a'));
        assert_eq!(wire.cut(cut), 1);
        let ended = next_byte(&mut client).map_err(|error| error.kind());
        let expected = if cut == Cut::Close { Ok(None) } else { Err(io::ErrorKind::ConnectionReset) };
        assert_eq!(ended, expected);
    }
}
