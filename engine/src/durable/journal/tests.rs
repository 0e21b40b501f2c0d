//! Journals through damage, crashes and second writers.

use datafusion::object_store::memory::InMemory;

use super::super::files::{Durability, LocalFiles};
use super::super::object_files::ObjectFiles;
use super::super::simulated::SimFiles;
use super::*;

fn disk() -> (tempfile::TempDir, Arc<dyn Files>) {
    let folder = tempfile::tempdir().unwrap();
    let files = LocalFiles::open(folder.path(), Durability::PowerLoss).unwrap();
    (folder, Arc::new(files))
}

fn values(files: &Arc<dyn Files>) -> Result<Vec<u64>> {
    let (_, entries) = Journal::open::<u64>(files, "j", "id")?;
    Ok(entries.into_iter().map(|entry| entry.value).collect())
}

fn filled(files: &Arc<dyn Files>) {
    let (mut journal, _) = Journal::open::<u64>(files, "j", "id").unwrap();
    for value in 0..10_u64 {
        if value % 4 == 0 {
            journal.roll().unwrap();
        }
        journal.append(&value).unwrap();
    }
    journal.sync().unwrap();
}

#[test]
fn records_come_back_in_order_and_go_on() {
    let (_folder, files) = disk();
    filled(&files);
    let (mut journal, entries) = Journal::open::<u64>(&files, "j", "id").unwrap();
    assert_eq!(entries.last(), Some(&Entry { number: 9, value: 9 }));
    journal.append(&10_u64).unwrap();
    journal.trim(6).unwrap();
    drop(journal);
    assert_eq!(values(&files).unwrap(), (4..=10).collect::<Vec<_>>());
}

#[test]
fn every_truncation_of_the_last_segment_leaves_a_prefix() {
    let (folder, files) = disk();
    filled(&files);
    let path = folder.path().join("j/00000000000000000008.log");
    let whole = std::fs::read(&path).unwrap();
    for length in 0..whole.len() {
        std::fs::write(&path, &whole[..length]).unwrap();
        let values = values(&files).unwrap();
        assert!(values.len() >= 8 && values.len() < 10, "{length}: {values:?}");
        std::fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_flipped_bit_before_the_last_records_is_an_error_with_its_place() {
    let (folder, files) = disk();
    filled(&files);
    for name in ["00000000000000000000.log", "00000000000000000004.log"] {
        let path = folder.path().join("j").join(name);
        let whole = std::fs::read(&path).unwrap();
        for bit in 0..whole.len() * 8 {
            let mut changed = whole.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            std::fs::write(&path, &changed).unwrap();
            let error = values(&files).unwrap_err().to_string();
            assert!(error.contains(name) || error.contains(".log is damaged"), "bit {bit}: {error}");
        }
        std::fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_flipped_bit_of_the_last_records_is_no_torn_end() {
    let (folder, files) = disk();
    filled(&files);
    let path = folder.path().join("j/00000000000000000008.log");
    let whole = std::fs::read(&path).unwrap();
    for bit in 0..whole.len() * 8 {
        let mut changed = whole.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&path, &changed).unwrap();
        let error = values(&files).unwrap_err().to_string();
        assert!(error.contains("00008.log is damaged at byte "), "bit {bit}: {error}");
    }
}

#[test]
fn what_a_dead_process_did_not_sync_is_synced_before_it_is_used() {
    let disk = SimFiles::new(1);
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    Journal::open::<u64>(&files, "j", "id").unwrap().0.append(&1_u64).unwrap();
    let disk = disk.kill(2);
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    assert_eq!(values(&files).unwrap(), [1]);
    for seed in 0..20 {
        let files: Arc<dyn Files> = Arc::new(disk.crash(seed));
        assert_eq!(values(&files).unwrap(), [1], "seed {seed}");
    }
}

#[test]
fn a_segment_without_header_does_not_come_back() {
    let disk = SimFiles::new(1);
    let files: Arc<dyn Files> = Arc::new(disk.clone());
    let (mut journal, _) = Journal::open::<u64>(&files, "j", "id").unwrap();
    journal.append(&1_u64).unwrap();
    disk.cut_power_at(disk.operations() + 3);
    journal.roll().unwrap_err();
    for cut in 1..8 {
        let disk = disk.crash(cut);
        disk.cut_power_at(cut);
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        drop(Journal::open::<u64>(&files, "j", "id"));
        let disk = disk.kill(cut);
        let files: Arc<dyn Files> = Arc::new(disk.clone());
        Journal::open::<u64>(&files, "j", "id").unwrap().0.append(&2_u64).unwrap();
        for seed in 0..20 {
            let files: Arc<dyn Files> = Arc::new(disk.crash(seed));
            assert!([vec![1], vec![1, 2]].contains(&values(&files).unwrap()), "cut {cut} seed {seed}");
        }
    }
}

#[test]
fn a_segment_of_another_journal_is_refused() {
    let (_folder, files) = disk();
    filled(&files);
    assert!(Journal::open::<u64>(&files, "j", "other").is_err());
}

fn shared(store: &Arc<InMemory>) -> Arc<dyn Files> {
    Arc::new(ObjectFiles::new(Arc::clone(store) as _, "p".into(), "memory").unwrap())
}

#[test]
fn a_writer_that_was_thought_dead_stops_at_its_next_step_and_spoils_nothing() {
    for step in 0..3 {
        let store = Arc::<InMemory>::default();
        let (one, other) = (shared(&store), shared(&store));
        let (mut first, _) = Journal::open::<u64>(&one, "j", "id").unwrap();
        for value in 0..3_u64 {
            first.append(&value).unwrap();
            first.sync().unwrap();
        }
        let (mut second, entries) = Journal::open::<u64>(&other, "j", "id").unwrap();
        assert_eq!(entries.len(), 3);
        let stopped = match step {
            0 => first.append(&99_u64).and_then(|()| first.sync()),
            1 => first.roll(),
            _ => {
                second.append(&3_u64).unwrap();
                second.roll().unwrap();
                second.trim(second.next()).unwrap();
                first.append(&99_u64).and_then(|()| first.sync()).ok();
                first.roll()
            }
        };
        assert!(stopped.is_err() || step == 2, "step {step}");
        second.append(&4_u64).unwrap();
        second.sync().unwrap();
        let oldest = second.first();
        let (_, entries) = Journal::open_from::<u64>(&shared(&store), "j", "id", oldest).unwrap();
        let values: Vec<_> = entries.iter().map(|entry| entry.value).collect();
        assert_eq!(values, if step == 2 { vec![4] } else { vec![0, 1, 2, 4] }, "step {step}");
    }
}

#[test]
fn a_segment_that_was_closed_and_not_followed_is_followed_by_whoever_comes_next() {
    let store = Arc::<InMemory>::default();
    let (mut first, _) = Journal::open::<u64>(&shared(&store), "j", "id").unwrap();
    first.append(&1_u64).unwrap();
    first.append(&Marked { journal: Mark::Closed }).unwrap();
    first.sync().unwrap();
    let (mut second, entries) = Journal::open::<u64>(&shared(&store), "j", "id").unwrap();
    assert_eq!(entries.len(), 1);
    assert!(first.begin_segment().is_err(), "the next segment is there");
    second.append(&2_u64).unwrap();
    second.sync().unwrap();
    assert_eq!(values(&shared(&store)).unwrap(), [1, 2]);
}
