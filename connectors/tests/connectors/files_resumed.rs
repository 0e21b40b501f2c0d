//! Files in a second run: what was put together, or has changed, between two runs and within one.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crate::common::{next, texts, trades};
use millstream_connectors::open_source;
use millstream_engine::Result;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::source::{InputIndex, MemoryIndex, Offset, PartitionReader, Split};
use tempfile::TempDir;

fn write(folder: &TempDir, name: &str, content: &str) {
    fs::write(folder.path().join(name), content).unwrap();
}

fn line(code: &str) -> String {
    format!("{code},2013-10-07T09:30:00,1,1\n")
}

fn definition(folder: &Path) -> Arc<StreamDefinition> {
    trades(&[("connector", "files"), ("path", &folder.display().to_string()), ("format", "csv")])
}

type Reader = Box<dyn PartitionReader>;

async fn open(definition: &Arc<StreamDefinition>, from: Offset, index: &Arc<MemoryIndex>) -> Result<Reader> {
    let source = open_source(definition)?;
    Ok(source.open(&[from], Arc::clone(index) as _).await?.remove(0))
}

/// The codes of a split.
fn codes(split: Split) -> Vec<String> {
    let rows = texts(&split.decode.decode().unwrap().batch);
    rows.iter().map(|row| row.split('|').next().unwrap().to_owned()).collect()
}

/// Reads to the end; the codes, and the offset reached.
async fn read(mut reader: Reader) -> Result<(Vec<String>, Offset)> {
    let (mut all, mut end) = (Vec::new(), Offset(0));
    while let Some(split) = next(reader.as_mut()).await? {
        end = split.offsets.end;
        all.extend(codes(split));
    }
    Ok((all, end))
}

/// Puts a file into the folder that a sink has made of several epochs.
fn compact(folder: &TempDir, epochs: &str, content: &str) {
    fs::create_dir_all(folder.path().join("_manifest")).unwrap();
    write(folder, &format!("_manifest/{epochs}.json"), "{}");
    write(folder, &format!("part-{epochs}.csv"), content);
}

#[tokio::test]
async fn a_file_put_together_of_files_that_an_earlier_run_read_is_refused() {
    let folder = TempDir::new().unwrap();
    for (name, code) in [("part-0000000000.csv", "a"), ("part-0000000001.csv", "b")] {
        write(&folder, name, &line(code));
    }
    let (definition, index) = (definition(folder.path()), Arc::new(MemoryIndex::default()));
    let (all, end) = read(open(&definition, Offset(0), &index).await.unwrap()).await.unwrap();
    assert_eq!(all, ["a", "b"]);
    // Of later epochs alone, it is new.
    compact(&folder, "0000000002-0000000003", &line("c"));
    let (all, end) = read(open(&definition, end, &index).await.unwrap()).await.unwrap();
    assert_eq!(all, ["c"]);
    compact(&folder, "0000000000-0000000001", &(line("a") + &line("b")));
    let error = open(&definition, end, &index).await.unwrap_err();
    assert!(error.to_string().ends_with("holds the rows of files that may have been read before"), "{error}");
    // A run that has read nothing takes all.
    for name in ["part-0000000000.csv", "part-0000000001.csv"] {
        fs::remove_file(folder.path().join(name)).unwrap();
    }
    let fresh = Arc::new(MemoryIndex::default());
    assert_eq!(read(open(&definition, Offset(0), &fresh).await.unwrap()).await.unwrap().0, ["a", "b", "c"]);
}

#[tokio::test]
async fn a_noted_file_that_changes_before_it_is_opened_again_is_refused() {
    let folder = TempDir::new().unwrap();
    write(&folder, "a.csv", &line("a"));
    write(&folder, "b.csv", &line("b"));
    let (definition, index) = (definition(folder.path()), Arc::new(MemoryIndex::default()));
    read(open(&definition, Offset(0), &index).await.unwrap()).await.unwrap();
    let notes = index.notes();
    let mut reader = open(&definition, Offset(0), &index).await.unwrap();
    assert_eq!(codes(next(reader.as_mut()).await.unwrap().unwrap()), ["a"]);
    write(&folder, "b.csv", &line("x"));
    let error = next(reader.as_mut()).await.unwrap_err();
    assert!(error.to_string().contains("b.csv has changed since an earlier run began to read it"), "{error}");
    assert_eq!(index.notes(), notes, "nothing new is noted");
}
