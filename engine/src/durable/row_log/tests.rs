//! The log through power cuts, with segments of a few appends, and its readers.

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::files::{Durability, LocalFiles};
use super::super::framing;
use super::super::fuzz::{Damage, disk, only_file};
use super::super::simulated::SimFiles;
use super::*;
use crate::testing::damaged;

/// Small enough for several segments.
const BYTES: u64 = 3000;

/// Rows that are their own numbers.
fn rows(start: u64, count: u64) -> RecordBatch {
    let schema = Schema::new(vec![Field::new("row", DataType::Int64, false)]);
    let column = Int64Array::from_iter_values((start..start + count).map(u64::cast_signed));
    RecordBatch::try_new(Arc::new(schema), vec![Arc::new(column)]).unwrap()
}

fn producer(sequence: u64) -> Option<Producer> {
    Some(Producer { id: "p".to_owned(), sequence })
}

/// All rows from `from` on; each must be its own number.
async fn check(log: &RowLog, from: u64, note: &str) {
    let mut reader = log.reader(from);
    while reader.place() < log.end() {
        let LoggedRows { start, rows } = reader.next().await.unwrap();
        for (index, row) in rows.column(0).as_primitive::<Int64Type>().values().iter().enumerate() {
            assert_eq!(row.cast_unsigned(), start + index as u64, "{note}");
        }
    }
}

#[tokio::test]
async fn what_was_acknowledged_survives_power_cuts_once() {
    for seed in 0..200 {
        let (mut rng, mut disk) = (StdRng::seed_from_u64(seed), SimFiles::new(seed));
        // What the producer knows: its rows up to `sent` are in the log, the next append may be.
        let (mut sent, mut sequence) = (0, 0);
        for start in 0..6 {
            let note = format!("seed {seed} start {start}");
            let files: Arc<dyn Files> = Arc::new(disk.clone());
            disk.cut_power_at(rng.random_range(1..60));
            let opened = RowLog::with_segments(&files, "rows", BYTES);
            assert!(opened.is_ok() || !disk.has_power(), "{note}: {opened:?}");
            if let Ok(log) = opened {
                assert!(log.end() >= sent, "{note}: acknowledged rows are gone");
                check(&log, rng.random_range(0..=log.end()), &note).await;
                for _ in 0..30 {
                    // Always the same rows under the same number, so that a repetition would be seen in the counting.
                    let count = 1 + sequence % 3;
                    if log.append(rows(sent, count), None, producer(sequence)).await.is_err() {
                        break;
                    }
                    (sent, sequence) = (sent + count, sequence + 1);
                    assert_eq!(log.end(), sent, "{note}: an append was taken twice or not at all");
                }
            }
            let seed = rng.random();
            disk = if rng.random_bool(0.5) { disk.crash(seed) } else { disk.kill(seed) };
        }
    }
}

#[tokio::test]
async fn groups_of_appends_survive_power_cuts_whole() {
    for seed in 0..200 {
        let (mut rng, mut disk) = (StdRng::seed_from_u64(seed), SimFiles::new(seed));
        let mut acknowledged = 0;
        for start in 0..4 {
            let note = format!("seed {seed} start {start}");
            let files: Arc<dyn Files> = Arc::new(disk.clone());
            disk.cut_power_at(rng.random_range(1..40));
            let opened = RowLog::with_segments(&files, "rows", BYTES);
            assert!(opened.is_ok() || !disk.has_power(), "{note}: {opened:?}");
            if let Ok(log) = opened {
                assert!(log.end() >= acknowledged, "{note}: acknowledged rows are gone");
                let appends: Vec<_> = (0..60)
                    .map(|_| {
                        let log = log.clone();
                        tokio::spawn(async move { drop(log.append(rows(0, 2), None, None).await) })
                    })
                    .collect();
                for append in appends {
                    append.await.unwrap();
                }
                // The end of the log is what it has acknowledged.
                acknowledged = log.end();
            }
            let seed = rng.random();
            disk = if rng.random_bool(0.5) { disk.crash(seed) } else { disk.kill(seed) };
        }
    }
}

#[tokio::test]
async fn a_log_that_is_closed_acknowledges_nothing() {
    let files: Arc<dyn Files> = Arc::new(SimFiles::new(5));
    let log = RowLog::open(&files, "rows").unwrap();
    log.append(rows(0, 1), None, None).await.unwrap();
    log.clone().close();
    assert!(log.append(rows(1, 1), None, None).await.is_err());
    let name = "p".repeat(MAX_ID_BYTES + 1);
    assert!(log.append(rows(1, 1), None, Some(Producer { id: name, sequence: 1 })).await.is_err());
}

#[tokio::test]
async fn appends_at_once_are_all_there_and_readers_follow() {
    let folder = tempfile::tempdir().unwrap();
    let files: Arc<dyn Files> = Arc::new(LocalFiles::open(folder.path(), Durability::ProcessCrash).unwrap());
    let log = RowLog::with_segments(&files, "rows", BYTES).unwrap();
    let mut live = log.reader(0);
    let following = tokio::spawn(async move {
        let mut seen = Vec::new();
        while live.place() < 200 {
            let rows = live.next().await.unwrap().rows;
            seen.extend(rows.column(0).as_primitive::<Int64Type>().values().to_vec());
        }
        seen
    });
    let appends = (0..70).map(|number| {
        let log = log.clone();
        tokio::spawn(async move { log.append(rows(number * 2, 2), None, None).await.unwrap() })
    });
    for append in appends.collect::<Vec<_>>() {
        assert_eq!(append.await.unwrap(), Appended::Logged);
    }
    // Those may have been one group: these are one each.
    for number in 70..100 {
        assert_eq!(log.append(rows(number * 2, 2), None, None).await.unwrap(), Appended::Logged);
    }
    let mut seen = following.await.unwrap();
    // In memory, and from the disk in the same order.
    drop(log);
    let log = RowLog::with_segments(&files, "rows", BYTES).unwrap();
    assert!(segment::firsts(files.as_ref(), "rows").unwrap().len() > 2);
    let (mut again, mut reader) = (Vec::new(), log.reader(0));
    while reader.place() < log.end() {
        let rows = reader.next().await.unwrap().rows;
        again.extend(rows.column(0).as_primitive::<Int64Type>().values().to_vec());
    }
    assert_eq!(seen, again);
    seen.sort_unstable();
    assert_eq!(seen, (0..200).collect::<Vec<i64>>());
}

#[tokio::test]
async fn a_repetition_is_taken_once_after_a_restart_too() {
    let files: Arc<dyn Files> = Arc::new(SimFiles::new(1));
    let log = RowLog::with_segments(&files, "rows", BYTES).unwrap();
    assert_eq!(log.append(rows(0, 3), None, producer(7)).await.unwrap(), Appended::Logged);
    assert_eq!(log.append(rows(0, 3), None, producer(7)).await.unwrap(), Appended::Repeated);
    drop(log);
    let log = RowLog::with_segments(&files, "rows", BYTES).unwrap();
    assert_eq!(log.append(rows(0, 3), None, producer(7)).await.unwrap(), Appended::Repeated);
    assert_eq!(log.append(rows(3, 1), None, producer(8)).await.unwrap(), Appended::Logged);
    assert_eq!(log.end(), 4);
    check(&log, 1, "from the middle of an append").await;
}

#[tokio::test]
async fn a_repetition_beside_the_first_one_is_taken_once() {
    let files: Arc<dyn Files> = Arc::new(SimFiles::new(2));
    let log = RowLog::with_segments(&files, "rows", BYTES).unwrap();
    for sequence in 0..50 {
        let start = log.end();
        let (first, second) = tokio::join!(
            log.append(rows(start, 2), None, producer(sequence)),
            log.append(rows(start, 2), None, producer(sequence))
        );
        assert_eq!((first.unwrap(), second.unwrap()), (Appended::Logged, Appended::Repeated), "{sequence}");
        assert_eq!(log.end(), start + 2, "{sequence}");
    }
    check(&log, 0, "each once").await;
}

#[tokio::test]
async fn rows_are_logged_as_they_were_received() {
    let files: Arc<dyn Files> = Arc::new(SimFiles::new(3));
    let log = RowLog::open(&files, "rows").unwrap();
    let words = StringArray::from(vec![Some("a"), None, Some("längere")]);
    let sent = RecordBatch::try_from_iter([
        ("row", Arc::new(Int64Array::from(vec![0, 1, 2])) as ArrayRef),
        ("w", Arc::new(words)),
    ])
    .unwrap();
    let encoded = IpcDataGenerator::default().encode(
        &sent,
        &mut DictionaryTracker::new(false),
        &IpcWriteOptions::default(),
        &mut IpcWriteContext::default(),
    );
    let encoded = encoded.unwrap().1;
    let received = ReceivedRows { header: encoded.ipc_message.into(), body: encoded.arrow_data.into() };
    // One whose header speaks of another body is encoded anew.
    let cut = ReceivedRows { body: received.body.slice(..8), ..received.clone() };
    for received in [None, Some(received), Some(cut)] {
        log.append(sent.clone(), received, None).await.unwrap();
    }
    drop(log);
    let log = RowLog::open(&files, "rows").unwrap();
    let mut reader = log.reader(0);
    for start in [0, 3, 6] {
        let logged = reader.next().await.unwrap();
        assert_eq!((logged.start, &logged.rows), (start, &sent));
    }
}

#[tokio::test]
async fn old_segments_are_dropped_that_nobody_needs() {
    let folder = tempfile::tempdir().unwrap();
    let files: Arc<dyn Files> = Arc::new(LocalFiles::open(folder.path(), Durability::ProcessCrash).unwrap());
    let open = || RowLog::with_segments(&files, "rows", BYTES).unwrap();
    let log = open();
    for number in 0..60 {
        log.append(rows(number * 2, 2), None, None).await.unwrap();
    }
    let firsts = segment::firsts(files.as_ref(), "rows").unwrap();
    assert!(firsts.len() > 3, "{firsts:?}");
    log.trim(u64::MAX, Duration::from_secs(3600)).unwrap();
    assert_eq!(log.start(), 0, "none is so old");
    log.trim(firsts[2] + 1, Duration::ZERO).unwrap();
    assert_eq!(log.start(), firsts[2], "of the third one a row is needed");
    drop(log);
    let log = open();
    assert_eq!((log.start(), log.end()), (firsts[2], 120));
    check(&log, firsts[2], "what is left").await;
    let refused = log.reader(0).next().await.unwrap_err().to_string();
    assert!(refused.contains("no longer kept"), "{refused}");
    log.trim(u64::MAX, Duration::ZERO).unwrap();
    assert_eq!(log.start(), firsts[firsts.len() - 1], "the last one is written to");
    log.append(rows(120, 2), None, None).await.unwrap();
    check(&log, log.start(), "it goes on").await;
}

#[tokio::test]
async fn damage_is_named_and_a_full_disk_is_no_loss() {
    let disk = SimFiles::new(3);
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let log = RowLog::with_segments(&files, "rows", BYTES).unwrap();
    log.append(rows(0, 3), None, None).await.unwrap();
    disk.fill_at(disk.operations(), 1);
    assert!(log.append(rows(3, 1), None, None).await.unwrap_err().is_disk_full());
    log.append(rows(3, 1), None, None).await.unwrap();
    assert_eq!(log.end(), 4);
    check(&log, 0, "after a full disk").await;

    let mut bytes = files.read("rows/00000000000000000000.rows").unwrap();
    bytes[60] ^= 1;
    let other: Arc<dyn Files> = Arc::new(SimFiles::new(4));
    other.create_folder("rows").unwrap();
    other.create("rows/00000000000000000000.rows", &bytes).unwrap();
    let error = RowLog::open(&other, "rows").unwrap_err().to_string();
    assert!(error.contains("00000000000000000000.rows"), "{error}");
}

#[tokio::test]
async fn a_changed_byte_is_an_error_or_a_shorter_log_and_never_other_rows() {
    let files: Arc<dyn Files> = Arc::new(SimFiles::new(6));
    let log = RowLog::open(&files, "rows").unwrap();
    for sequence in 0..20 {
        log.append(rows(sequence * 2, 2), None, producer(sequence)).await.unwrap();
    }
    drop(log);
    let path = "rows/00000000000000000000.rows";
    let whole = files.read(path).unwrap();
    for seed in 0..400 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut bytes = whole.clone();
        if rng.random_bool(0.5) {
            bytes.truncate(rng.random_range(0..whole.len()));
        }
        if let Some(byte) =
            (!bytes.is_empty()).then(|| rng.random_range(0..bytes.len())).and_then(|at| bytes.get_mut(at))
        {
            *byte ^= 1 << rng.random_range(0..8);
        }
        let changed: Arc<dyn Files> = Arc::new(SimFiles::new(seed));
        changed.create_folder("rows").unwrap();
        changed.create(path, &bytes).unwrap();
        if let Ok(log) = RowLog::open(&changed, "rows") {
            check(&log, 0, &format!("seed {seed}")).await;
        }
    }
}

/// Reads all of a log whose only segment has these bytes.
fn read_all(runtime: &tokio::runtime::Runtime, path: &str, bytes: &[u8]) {
    let Ok(log) = RowLog::open(&disk(path, bytes), "rows") else { return };
    let (end, mut reader) = (log.end(), log.reader(0));
    runtime.block_on(async { while reader.place() < end && reader.next().await.is_ok() {} });
}

#[test]
fn fuzz_a_damaged_log() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let files: Arc<dyn Files> = Arc::new(SimFiles::new(1));
    runtime.block_on(async {
        let log = RowLog::open(&files, "rows").unwrap();
        for sequence in 0..3 {
            log.append(rows(sequence * 2, 2), None, producer(sequence)).await.unwrap();
        }
    });
    let (path, whole) = only_file(&files, "rows");
    bolero::check!()
        .with_type::<Damage>()
        .for_each(|(edits, length)| read_all(&runtime, &path, &damaged(&whole, edits, *length)));
}

#[test]
fn fuzz_an_append_whose_checksum_fits() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let start = segment::write_start(&Sequences::new()).unwrap();
    let append = segment::write_append(&rows(0, 3), None, producer(1).as_ref()).unwrap();
    let append = append.parts().collect::<Vec<_>>().concat();
    bolero::check!().with_type::<Damage>().for_each(|(edits, length)| {
        let group = framing::framed(&[&damaged(&append, edits, *length)]).unwrap();
        let bytes = [segment::MAGIC.as_slice(), &start, &group].concat();
        read_all(&runtime, &segment::path("rows", 0), &bytes);
    });
}
