//! Sockets: both modes, several connections, reconnecting, back pressure, long lines, low latency.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::common::{PATIENCE, Rows, next, open, open_it, trades};
use datafusion::common::runtime::SpawnedTask;
use millstream_connectors::socket::SocketSource;
use millstream_engine::source::PartitionReader;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const ONE: &str = "600519,2013-10-07T09:30:00,300,17.25\n";

async fn listening(with: &[(&str, &str)]) -> (Box<dyn PartitionReader>, SocketAddr) {
    let mut options = vec![("connector", "socket"), ("address", "127.0.0.1:0"), ("mode", "listen")];
    options.extend(with);
    let source = SocketSource::new(&trades(&options)).unwrap();
    let reader = open_it(&source).await;
    (reader, source.local_addr().unwrap())
}

async fn send(address: SocketAddr, text: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    stream
}

async fn take(reader: &mut dyn PartitionReader, rows: &mut Rows, count: usize) {
    while rows.good.len() + rows.bad.len() < count {
        rows.push(next(reader).await.unwrap().unwrap()).unwrap();
    }
}

#[tokio::test]
async fn several_connections_feed_one_partition_until_the_last_closes() {
    let (mut reader, address) = listening(&[("reconnect", "false")]).await;
    let mut rows = Rows::default();
    let first = send(address, ONE).await;
    take(reader.as_mut(), &mut rows, 1).await;
    let second = send(address, &format!("{ONE}bad\n{}", ONE.trim_end())).await;
    take(reader.as_mut(), &mut rows, 3).await;
    drop(second);
    take(reader.as_mut(), &mut rows, 4).await;
    drop(first);
    assert!(next(reader.as_mut()).await.unwrap().is_none());
    assert!(next(reader.as_mut()).await.unwrap().is_none());
    assert_eq!((rows.good.len(), rows.bad.len()), (3, 1));
    assert_eq!(rows.end, (ONE.len() * 3 + 4 - 1) as u64);
    assert!(rows.bad[0].place.starts_with("socket 127.0.0.1:") && rows.bad[0].place.ends_with(" line 2"));
}

#[tokio::test]
async fn a_complete_line_does_not_wait_for_the_next() {
    let (mut reader, address) = listening(&[]).await;
    let mut rows = Rows::default();
    let mut stream = send(address, &format!("{ONE}600")).await;
    take(reader.as_mut(), &mut rows, 1).await;
    stream.write_all(&ONE.as_bytes()[3..]).await.unwrap();
    take(reader.as_mut(), &mut rows, 2).await;
    assert_eq!(rows.good.len(), 2);
}

#[tokio::test]
async fn each_connection_has_its_own_header() {
    let (mut reader, address) = listening(&[("header", "true")]).await;
    let mut rows = Rows::default();
    send(address, &format!("szcode,eventTime,Turnover,Price\n{ONE}")).await;
    take(reader.as_mut(), &mut rows, 1).await;
    send(address, "Price,szcode,eventTime,Turnover\n17.25,600519,2013-10-07T09:30:00,300\n").await;
    take(reader.as_mut(), &mut rows, 2).await;
    assert_eq!(rows.good[0], rows.good[1]);
}

#[tokio::test]
async fn a_stray_connection_is_dropped_alone() {
    for reconnect in ["true", "false"] {
        let (mut reader, address) = listening(&[("header", "true"), ("reconnect", reconnect)]).await;
        let mut rows = Rows::default();
        // The first to come, after which nobody is connected.
        check_dropped(send(address, "a,b\n").await).await;
        let mut sender = send(address, &format!("szcode,eventTime,Turnover,Price\n{ONE}")).await;
        take(reader.as_mut(), &mut rows, 1).await;
        check_dropped(send(address, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await).await;
        sender.write_all(ONE.as_bytes()).await.unwrap();
        take(reader.as_mut(), &mut rows, 2).await;
        assert_eq!((rows.good.len(), rows.bad.len()), (2, 0));
        drop(sender);
        if reconnect == "false" {
            assert!(next(reader.as_mut()).await.unwrap().is_none());
        }
    }
}

/// Waits until the other side drops a connection.
async fn check_dropped(mut stream: TcpStream) {
    let read = tokio::time::timeout(PATIENCE, stream.read(&mut [0_u8; 1])).await.unwrap();
    assert_eq!(read.unwrap_or(0), 0);
}

#[tokio::test]
async fn a_header_that_does_not_fit_ends_a_stream_that_connects() {
    for reconnect in ["true", "false"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let with =
            [("connector", "socket"), ("address", address.as_str()), ("header", "true"), ("reconnect", reconnect)];
        let mut reader = open(&trades(&with)).await.unwrap();
        let (mut stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
        stream.write_all(b"a,b\n").await.unwrap();
        let error = next(reader.as_mut()).await.unwrap_err();
        assert!(error.to_string().contains("has no column \"szcode\"; its header has: a, b"), "{error}");
    }
}

#[tokio::test]
async fn json_lines_are_read() {
    let (mut reader, address) = listening(&[("format", "json")]).await;
    let mut rows = Rows::default();
    send(address, "{\"szcode\":\"a\",\"eventTime\":\"2013-10-07T09:30:00\"}\n{}\n").await;
    take(reader.as_mut(), &mut rows, 2).await;
    assert_eq!((rows.good.len(), rows.reasons()), (1, vec!["event time is null"]));
}

#[tokio::test]
async fn a_long_line_is_dropped_in_bounded_memory() {
    let (mut reader, address) = listening(&[("reconnect", "false")]).await;
    let sender = SpawnedTask::spawn(async move {
        let mut stream = send(address, ONE).await;
        for _ in 0..5 {
            stream.write_all(&vec![b'x'; 1024 * 1024]).await.unwrap();
        }
        stream.write_all(format!("\n{ONE}").as_bytes()).await.unwrap();
    });
    let mut rows = Rows::default();
    while let Some(split) = next(reader.as_mut()).await.unwrap() {
        assert!(split.bytes < 3 * 1024 * 1024);
        rows.push(split).unwrap();
    }
    sender.join().await.unwrap();
    assert_eq!((rows.good.len(), rows.reasons()), (2, vec!["line longer than 1 MiB"]));
}

#[tokio::test]
async fn connecting_once_ends_with_the_peer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let with = [("connector", "socket"), ("address", address.as_str()), ("reconnect", "false")];
    let mut reader = open(&trades(&with)).await.unwrap();
    let (mut stream, _) = listener.accept().await.unwrap();
    stream.write_all(format!("{ONE}{}", ONE.trim_end()).as_bytes()).await.unwrap();
    drop((stream, listener));
    let mut rows = Rows::default();
    while let Some(split) = next(reader.as_mut()).await.unwrap() {
        rows.push(split).unwrap();
    }
    assert_eq!(rows.good.len(), 2);
    let error = open(&trades(&with)).await.unwrap_err();
    assert!(error.to_string().contains(&address) && error.to_string().contains("reconnect = 'true'"), "{error}");
}

#[tokio::test]
async fn a_closed_connection_is_made_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (host, port) = address.split_once(':').unwrap();
    let mut reader = open(&trades(&[("connector", "socket"), ("host", host), ("port", port)])).await.unwrap();
    let mut rows = Rows::default();
    for count in 1..=3 {
        let accepted = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap();
        accepted.unwrap().0.write_all(ONE.as_bytes()).await.unwrap();
        take(reader.as_mut(), &mut rows, count).await;
    }
    assert_eq!(rows.good.len(), 3);
    assert_eq!(rows.end, 3 * ONE.len() as u64);
}

#[tokio::test]
async fn a_peer_that_comes_late_is_waited_for() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let text = address.to_string();
    let mut reader = open(&trades(&[("connector", "socket"), ("address", &text)])).await.unwrap();
    tokio::select! { biased; split = reader.next(None) => panic!("{split:?}"), () = tokio::task::yield_now() => {} }
    let listener = TcpListener::bind(address).await.unwrap();
    let (mut stream, _) = tokio::time::timeout(PATIENCE, listener.accept()).await.unwrap().unwrap();
    stream.write_all(ONE.as_bytes()).await.unwrap();
    let mut rows = Rows::default();
    take(reader.as_mut(), &mut rows, 1).await;
    assert_eq!(rows.good.len(), 1);
}

/// Without calls of `next` the sender stops after what the kernel and one piece hold; with them all arrives.
#[tokio::test]
async fn a_slow_reader_makes_the_sender_wait() {
    const LINES: usize = 1_000;
    const BLOCKS: usize = 2_000;
    let (mut reader, address) = listening(&[("reconnect", "false")]).await;
    let sent = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&sent);
    let sender = SpawnedTask::spawn(async move {
        let block = ONE.repeat(LINES);
        let mut stream = TcpStream::connect(address).await.unwrap();
        for _ in 0..BLOCKS {
            stream.write_all(block.as_bytes()).await.unwrap();
            counter.fetch_add(block.len() as u64, Ordering::SeqCst);
        }
    });
    let total = (LINES * BLOCKS * ONE.len()) as u64;
    let stalled_at = stall(&sent).await;
    assert!(stalled_at < total / 2, "{stalled_at} of {total} bytes were taken unread");
    let mut rows = 0;
    while let Some(split) = next(reader.as_mut()).await.unwrap() {
        assert!(split.bytes < 3 * 1024 * 1024);
        rows += split.decode.decode().unwrap().batch.num_rows();
    }
    sender.join().await.unwrap();
    assert_eq!(rows, LINES * BLOCKS);
}

/// Waits until a count that has begun to grow no longer does.
async fn stall(count: &AtomicU64) -> u64 {
    let mut last = 0;
    let mut quiet = 0;
    while quiet < 10 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let now = count.load(Ordering::SeqCst);
        quiet = if now == last && now > 0 { quiet + 1 } else { 0 };
        last = now;
    }
    last
}
