//! How fast clean CSV is decoded on one core: `cargo test --release --workspace --test connectors decode_speed -- --ignored --nocapture`.

use std::time::Instant;

use crate::common::{next, open, stream, timestamp};
use datafusion::arrow::datatypes::DataType;
use millstream_connectors::generate::{Generator, GeneratorSpec, LineFormat, StreamKind, write_files};
use tempfile::TempDir;

#[tokio::test]
#[ignore = "a measurement, not a check"]
async fn two_million_rows_of_csv_are_decoded() {
    const ROWS: u64 = 2_000_000;
    let folder = TempDir::new().unwrap();
    let generator = Generator::new(GeneratorSpec::new(StreamKind::Transaction)).unwrap();
    write_files(folder.path(), &generator, ROWS, 1, LineFormat::Csv, |_| {}).unwrap();
    let path = folder.path().display().to_string();
    let columns = [
        ("szcode", DataType::Utf8View),
        ("userID", DataType::Int64),
        ("eventTime", timestamp()),
        ("Turnover", DataType::Int64),
        ("Price", DataType::Float64),
    ];
    for _ in 0..3 {
        let mut reader = open(&stream(&columns, &[("connector", "files"), ("path", &path)])).await.unwrap();
        let start = Instant::now();
        let mut splits = Vec::new();
        while let Some(split) = next(reader.as_mut()).await.unwrap() {
            splits.push(split);
        }
        let read = start.elapsed();
        let (start, mut rows) = (Instant::now(), 0);
        for split in splits {
            rows += split.decode.decode().unwrap().batch.num_rows() as u64;
        }
        assert_eq!(rows, ROWS);
        let rate = |seconds: f64| 2.0 / seconds;
        println!(
            "read {:.1} M rows/s, decoded {:.1} M rows/s",
            rate(read.as_secs_f64()),
            rate(start.elapsed().as_secs_f64())
        );
    }
}
