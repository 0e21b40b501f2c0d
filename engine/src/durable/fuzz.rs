//! Fuzz targets of whatever reads the state directory: damage is an error that says where, never a crash.
//!
//! Those of the two logs of rows are with their tests.

use std::sync::Arc;

use super::files::Files;
use super::journal::Journal;
use super::record::{FIRST, check_line, read_single, write_single};
use super::simulated::SimFiles;
use crate::testing::damaged;

/// Bytes that are changed, and where what remains is cut off.
pub(super) type Damage = (Vec<(u16, u8)>, u16);

/// A disk with one file.
pub(super) fn disk(path: &str, bytes: &[u8]) -> Arc<dyn Files> {
    let files = SimFiles::new(1);
    let (folder, _) = path.rsplit_once('/').unwrap();
    files.create_folder(folder).unwrap();
    files.create(path, bytes).unwrap();
    Arc::new(files)
}

/// The only file of a folder.
pub(super) fn only_file(files: &Arc<dyn Files>, folder: &str) -> (String, Vec<u8>) {
    let names = files.list(folder).unwrap();
    let path = format!("{folder}/{}", names.last().unwrap());
    let bytes = files.read(&path).unwrap();
    (path, bytes)
}

#[test]
fn a_damaged_journal() {
    let files: Arc<dyn Files> = Arc::new(SimFiles::new(1));
    let (mut journal, _) = Journal::open::<Vec<u64>>(&files, "j", "id").unwrap();
    (0..5_u64).for_each(|value| journal.append(&vec![value; 3]).unwrap());
    journal.sync().unwrap();
    let (path, whole) = only_file(&files, "j");
    bolero::check!().with_type::<Damage>().for_each(|(edits, length)| {
        let files = disk(&path, &damaged(&whole, edits, *length));
        drop(Journal::open::<Vec<u64>>(&files, "j", "id"));
    });
}

#[test]
fn a_record_of_any_bytes() {
    let whole = write_single(&vec![Some("text"), None]).unwrap();
    bolero::check!().with_type::<Damage>().for_each(|(edits, length)| {
        let bytes = damaged(&whole, edits, *length);
        drop(read_single::<Vec<Option<String>>>("a file", &bytes));
        assert!(check_line(FIRST, &bytes).is_none_or(|(json, _)| whole.starts_with(&bytes[..9 + json.len()])));
    });
}
