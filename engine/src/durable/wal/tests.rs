//! The log through power cuts, with segments of a few records.

use std::sync::Arc;

use datafusion::arrow::array::{AsArray, Int64Array};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema};
use datafusion::arrow::record_batch::RecordBatch;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::super::files::{Durability, LocalFiles};
use super::super::framing;
use super::super::fuzz::{Damage, disk, only_file};
use super::super::simulated::SimFiles;
use super::*;
use crate::ingest::LoggedEvent;
use crate::source::{Offset, PartitionId};
use crate::testing::damaged;

/// Small enough for several segments.
const BYTES: u64 = 2000;

/// A record whose one row is its own number.
fn frame(seq: u64) -> Frame {
    let schema = Schema::new(vec![Field::new("seq", DataType::Int64, false)]);
    let column = Arc::new(Int64Array::from_value(seq.cast_signed(), 1));
    let rows = RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap();
    let event =
        LoggedEvent::Rows { partition: PartitionId(0), start: Offset(seq), end: Offset(seq + 1), arrival: None };
    Frame { seq, event, bad: 0, rows: Some(rows) }
}

fn open(files: &Arc<dyn Files>) -> Result<Wal> {
    let mut wal = Wal::open(files, "w")?;
    wal.segment_bytes = BYTES;
    Ok(wal)
}

/// Appends and trims until the power goes off; the number after the last record that was acknowledged.
fn work(wal: &mut Wal, rng: &mut StdRng) -> u64 {
    for _ in 0..30 {
        let end = wal.next + rng.random_range(1..4);
        let frames: Vec<Frame> = (wal.next..end).map(frame).collect();
        if wal.append(&frames).is_err() || wal.trim(end.saturating_sub(12)).is_err() {
            break;
        }
    }
    wal.next
}

#[test]
fn what_a_log_acknowledged_survives_power_cuts() {
    for seed in 0..300 {
        let (mut rng, mut disk, mut acknowledged) = (StdRng::seed_from_u64(seed), SimFiles::new(seed), 0);
        for start in 0..6 {
            let files: Arc<dyn Files> = Arc::new(disk.clone());
            disk.cut_power_at(rng.random_range(1..60));
            if let Ok(mut wal) = open(&files) {
                assert!(wal.next >= acknowledged, "seed {seed} start {start}");
                for seq in acknowledged.saturating_sub(10)..wal.next {
                    let rows = wal.frame(seq).unwrap().and_then(|frame| frame.rows).unwrap();
                    assert_eq!(rows.column(0).as_primitive::<Int64Type>().value(0), seq.cast_signed(), "seed {seed}");
                }
                acknowledged = work(&mut wal, &mut rng);
            }
            let seed = rng.random();
            disk = if rng.random_bool(0.5) { disk.crash(seed) } else { disk.kill(seed) };
            let files: Arc<dyn Files> = Arc::new(disk.clone());
            check_log(&files, "w").unwrap();
        }
    }
}

#[test]
fn a_flipped_bit_of_a_log_is_an_error_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let files: Arc<dyn Files> = Arc::new(LocalFiles::open(folder.path(), Durability::ProcessCrash).unwrap());
    let mut wal = open(&files).unwrap();
    for seq in 0..6 {
        wal.append(&[frame(seq)]).unwrap();
    }
    assert!(wal.segments.len() > 1);
    check_log(&files, "w").unwrap();
    for (first, _) in &wal.segments {
        let path = folder.path().join(wal.path(*first));
        let whole = std::fs::read(&path).unwrap();
        for bit in (0..whole.len() * 8).step_by(3) {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &changed).unwrap();
            let error = check_log(&files, "w").unwrap_err().to_string();
            assert!(error.contains(".wal is damaged at byte "), "bit {bit} of {first}: {error}");
        }
        std::fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_log_that_ends_before_what_a_query_has_used_is_refused() {
    let files: Arc<dyn Files> = Arc::new(SimFiles::new(1));
    let wal = SharedWal::open(&files, "w", WAL_LIMIT_BYTES).unwrap();
    wal.wal.lock().unwrap().append(&[frame(0), frame(1)]).unwrap();
    wal.check_reaches(2).unwrap();
    let error = wal.check_reaches(3).unwrap_err().to_string();
    assert!(error.contains(".wal is damaged at byte "), "{error}");
}

#[test]
fn fuzz_a_damaged_log() {
    let files: Arc<dyn Files> = Arc::new(SimFiles::new(1));
    let mut wal = open(&files).unwrap();
    wal.append(&[frame(0), frame(1)]).unwrap();
    wal.append(&[frame(2)]).unwrap();
    let (path, whole) = only_file(&files, "w");
    bolero::check!().with_type::<Damage>().for_each(|(edits, length)| {
        let Ok(mut wal) = open(&disk(&path, &damaged(&whole, edits, *length))) else { return };
        (0..wal.next).for_each(|seq| drop(wal.frame(seq)));
    });
}

#[test]
fn fuzz_a_group_whose_checksum_fits() {
    let group = write_group(0, &[frame(0), frame(1)]).unwrap();
    let whole = framing::body_at(&group, 0).unwrap();
    bolero::check!().with_type::<Damage>().for_each(|(edits, length)| {
        let body = framing::framed(&[&damaged(whole, edits, *length)]).unwrap();
        drop(frames_from("a file", &[MAGIC.as_slice(), &body].concat(), 0));
    });
}
