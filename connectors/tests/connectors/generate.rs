//! The generator: the same rows for the same seed, as batches, lines and files, and over TCP.

use std::sync::Arc;
use std::time::Duration;

use crate::common::{Rows, open, read, stream, texts, timestamp, trades};
use datafusion::arrow::datatypes::DataType;
use millstream_connectors::generate::{
    EventClock, Generator, GeneratorServer, GeneratorSpec, LineFormat, Pace, ServerSpec, StreamKind, write_files,
};
use millstream_connectors::open_source;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::source::{MemoryIndex, Offset};
use millstream_engine::time::EventTime;
use tempfile::TempDir;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

fn columns(kind: StreamKind) -> Vec<(&'static str, DataType)> {
    let price = DataType::Decimal128(12, 2);
    match kind {
        StreamKind::Transaction => vec![
            ("szcode", DataType::Utf8View),
            ("userID", DataType::Utf8View),
            ("eventTime", timestamp()),
            ("Turnover", DataType::Int32),
            ("Price", DataType::Float64),
        ],
        StreamKind::Stock => vec![("szcode", DataType::Utf8), ("eventTime", timestamp()), ("lastPrice", price)],
        StreamKind::Position => vec![
            ("userID", DataType::Utf8View),
            ("szcode", DataType::Utf8View),
            ("eventTime", timestamp()),
            ("lastPrice", price),
            ("openInterest", DataType::Int64),
        ],
    }
}

fn generated(kind: StreamKind, with: &[(&str, &str)]) -> Arc<StreamDefinition> {
    let mut options = vec![("connector", "generate"), ("kind", kind.name())];
    options.extend(with);
    stream(&columns(kind), &options)
}

#[tokio::test]
async fn batches_lines_and_files_hold_the_same_rows() {
    for (_, kind) in StreamKind::NAMES {
        let with = [("rows", "70000"), ("disorder", "2s"), ("late_share", "0.1"), ("codes", "50")];
        let rows = read(&generated(kind, &with)).await.unwrap();
        assert_eq!((rows.good.len(), rows.end), (70_000, 70_000));
        let spec =
            GeneratorSpec { disorder: Duration::from_secs(2), late_share: 0.1, codes: 50, ..GeneratorSpec::new(kind) };
        let generator = Generator::new(spec).unwrap();
        for format in [LineFormat::Csv, LineFormat::Json] {
            let folder = TempDir::new().unwrap();
            let mut last = 0;
            let paths = write_files(folder.path(), &generator, 70_000, 3, format, |rows| last = rows).unwrap();
            assert_eq!((paths.len(), last), (3, 70_000));
            let path = folder.path().display().to_string();
            let again = read(&stream(&columns(kind), &[("connector", "files"), ("path", &path)])).await.unwrap();
            assert!(again.good == rows.good && again.bad.is_empty(), "{kind:?} {format:?} {:?}", again.bad.first());
        }
    }
}

#[tokio::test]
async fn a_seed_gives_the_same_rows_and_another_seed_others() {
    let with = |seed| [("rows", "1000"), ("seed", seed)];
    let first = read(&generated(StreamKind::Transaction, &with("1"))).await.unwrap();
    assert_eq!(first.good, read(&generated(StreamKind::Transaction, &with("1"))).await.unwrap().good);
    assert_ne!(first.good, read(&generated(StreamKind::Transaction, &with("2"))).await.unwrap().good);
}

#[test]
fn a_line_is_as_documented() {
    let generator = Generator::new(GeneratorSpec::new(StreamKind::Transaction)).unwrap();
    assert_eq!(generator.header(), "szcode,userID,eventTime,Turnover,Price\n");
    let lines = |range| {
        let mut out = Vec::new();
        generator.write_lines(range, LineFormat::Csv, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let all = lines(0..5_000);
    assert!(all.starts_with('6') && all.contains(",2024-01-02T09:30:00.000,"), "{}", &all[..60]);
    assert!(all.ends_with(&lines(4_000..5_000)), "any range can be made again");
    let per_row = all.len() / 5_000;
    assert!((42..=52).contains(&per_row), "{per_row} bytes per row");
}

#[test]
fn event_times_follow_rate_disorder_and_lateness() {
    let spec = GeneratorSpec {
        clock: EventClock::Simulated { start: EventTime(0), event_rate: 10 },
        disorder: Duration::from_secs(1),
        late_share: 0.2,
        late_by: Duration::from_secs(1_000_000),
        ..GeneratorSpec::new(StreamKind::Stock)
    };
    let mut out = Vec::new();
    Generator::new(spec).unwrap().write_lines(0..10_000, LineFormat::Csv, &mut out).unwrap();
    let text = String::from_utf8(out).unwrap();
    let late = text.lines().filter(|line| line.contains(",1969-12-")).count();
    assert!((1_800..2_250).contains(&late), "{late} of 10,000 rows are late");
}

#[test]
fn wrong_options_are_refused() {
    let cases = [
        ("users", "0", "generate: users is 0"),
        ("codes", "500000", "generate: codes is out of range"),
        ("late_share", "2", "generate: late_share is out of range"),
        ("start", "soon", "option start = 'soon' is not a timestamp such as '2024-01-02T09:30:00', or 'now'"),
        ("rat", "5", "unknown option \"rat\" for connector generate"),
    ];
    for (key, value, message) in cases {
        let error = open_source(&generated(StreamKind::Stock, &[(key, value)])).unwrap_err();
        assert_eq!(error.to_string(), message);
    }
    let error = open_source(&stream(&[("venue", DataType::Utf8)], &[("connector", "generate"), ("kind", "stock")]))
        .unwrap_err();
    assert_eq!(error.to_string(), "generate: stream stock has no column \"venue\"");
    assert!(open_source(&trades(&[("connector", "generate")])).is_ok(), "the kind is guessed");
}

#[tokio::test]
async fn a_rate_is_kept() {
    let with = [("rows", "100"), ("rate", "1000")];
    let start = std::time::Instant::now();
    let mut reader = open(&generated(StreamKind::Stock, &with)).await.unwrap();
    let mut rows = Rows::default();
    while let Some(split) = crate::common::next(reader.as_mut()).await.unwrap() {
        rows.push(split).unwrap();
    }
    assert_eq!(rows.good.len(), 100);
    assert!(start.elapsed() >= Duration::from_millis(95), "{:?}", start.elapsed());
}

#[tokio::test]
async fn the_server_sends_lines_at_every_pace() {
    let paces = [Pace::Full, Pace::Rate(10_000.0), Pace::Sleep(Duration::from_millis(1)), Pace::Sleep(Duration::ZERO)];
    for pace in paces {
        let generator = Generator::new(GeneratorSpec::new(StreamKind::Stock)).unwrap();
        let mut expected = generator.header().into_bytes();
        generator.write_lines(0..50, LineFormat::Csv, &mut expected).unwrap();
        let spec = ServerSpec { header: true, rows: Some(50), ..ServerSpec::new(pace) };
        let server = GeneratorServer::bind("127.0.0.1:0", generator, spec).await.unwrap();
        let address = server.local_addr();
        let client = async {
            let mut received = Vec::new();
            TcpStream::connect(address).await.unwrap().read_to_end(&mut received).await.unwrap();
            received
        };
        let (served, received) = tokio::join!(server.serve_one(), client);
        assert_eq!(served.unwrap().rows, 50);
        assert_eq!(received, expected, "{pace:?}");
    }
}

#[tokio::test]
async fn the_server_survives_clients_that_leave() {
    let spec = GeneratorSpec { clock: EventClock::Wall, ..GeneratorSpec::new(StreamKind::Transaction) };
    let generator = Generator::new(spec).unwrap();
    let server = GeneratorServer::bind("127.0.0.1:0", generator, ServerSpec::new(Pace::Full)).await.unwrap();
    let address = server.local_addr().to_string();
    let clients = async {
        for _ in 0..3 {
            let with = [("connector", "socket"), ("address", address.as_str()), ("reconnect", "false")];
            let mut reader = open(&stream(&columns(StreamKind::Transaction), &with)).await.unwrap();
            let split = crate::common::next(reader.as_mut()).await.unwrap().unwrap();
            let decoded = split.decode.decode().unwrap();
            assert!(decoded.batch.num_rows() > 0 && decoded.bad.is_empty(), "{:?}", decoded.bad.first());
            assert_eq!(texts(&decoded.batch).len(), decoded.batch.num_rows());
        }
    };
    tokio::select! { result = server.serve() => panic!("{result:?}"), () = clients => {} }
}

#[tokio::test]
async fn generated_rows_are_made_again_in_a_later_run() {
    let definition = generated(StreamKind::Transaction, &[("rows", "100000"), ("start", "now")]);
    let index = Arc::new(MemoryIndex::default());
    let open = async |from: u64| {
        let source = open_source(&definition).unwrap();
        assert!(source.is_replayable());
        source.open(&[Offset(from)], Arc::clone(&index) as _).await.unwrap().remove(0)
    };
    let mut first = open(0).await;
    let mut all = Vec::new();
    while let Some(split) = first.next(None).await.unwrap() {
        all.extend(texts(&split.decode.decode().unwrap().batch));
    }
    let mut again = open(12_345).await;
    let split = again.next(Some(Offset(20_000))).await.unwrap().unwrap();
    assert_eq!(split.offsets, Offset(12_345)..Offset(20_000));
    assert_eq!(texts(&split.decode.decode().unwrap().batch), all[12_345..20_000]);
    let split = again.next(None).await.unwrap().unwrap();
    assert_eq!(texts(&split.decode.decode().unwrap().batch)[..], all[20_000..20_000 + 32 * 1024]);
}
