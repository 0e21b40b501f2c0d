//! What is in the folder after every step, and after every step that is never taken.

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::{TempDir, tempdir};

use super::super::tests::writer;
use super::super::text::tests::numbers;
use super::*;

/// The names in the folder, without the ledger.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| name != "_manifest");
    names.sort();
    names
}

fn create(folder: &Path, format: FileFormat) -> FilesSink {
    FilesSink::new(folder, format, numbers(&[]).schema())
}

async fn begun(folder: &Path, format: FileFormat, term: u64) -> FilesSink {
    let mut sink = create(folder, format);
    sink.begin(&writer("q", term)).await.unwrap();
    sink
}

async fn put(sink: &mut FilesSink, epoch: u64, values: &[i64]) -> Result<()> {
    sink.stage(Epoch(epoch), &[numbers(values)]).await?;
    sink.commit(Epoch(epoch)).await
}

/// A folder with epochs 0 and 1 of query `q`, written in term 1.
async fn with_two_epochs() -> TempDir {
    let folder = tempdir().unwrap();
    let mut sink = begun(folder.path(), FileFormat::Csv, 1).await;
    put(&mut sink, 0, &[1]).await.unwrap();
    put(&mut sink, 1, &[2]).await.unwrap();
    folder
}

#[tokio::test]
async fn an_epoch_staged_in_parts_gets_its_name_at_the_commit() {
    let folder = tempdir().unwrap();
    let mut sink = begun(folder.path(), FileFormat::Csv, 1).await;
    sink.stage(Epoch(12), &[numbers(&[1]), numbers(&[2])]).await.unwrap();
    sink.stage(Epoch(12), &[numbers(&[3])]).await.unwrap();
    assert_eq!(names(folder.path()), [".part-0000000012.csv.q.1.tmp"]);
    sink.commit(Epoch(12)).await.unwrap();
    assert_eq!(names(folder.path()), ["part-0000000012.csv"]);
    assert_eq!(fs::read_to_string(folder.path().join("part-0000000012.csv")).unwrap(), "n\n1\n2\n3\n");
    let manifest = fs::read_to_string(folder.path().join("_manifest/0000000012.json")).unwrap();
    let sum = crc32fast::hash(b"n\n1\n2\n3\n");
    let file = format!("{{\"name\":\"part-0000000012.csv\",\"bytes\":8,\"rows\":3,\"crc32\":{sum}}}");
    assert_eq!(manifest, format!("{{\"query\":\"q\",\"term\":1,\"epoch\":12,\"files\":[{file}]}}"));
}

#[tokio::test]
async fn a_repeated_epoch_changes_nothing() {
    let folder = tempdir().unwrap();
    let mut sink = begun(folder.path(), FileFormat::Json, 1).await;
    for value in [1, 2] {
        put(&mut sink, 0, &[value]).await.unwrap();
        sink.commit(Epoch(0)).await.unwrap();
    }
    assert_eq!(names(folder.path()), ["part-0000000000.json"]);
    assert_eq!(fs::read_to_string(folder.path().join("part-0000000000.json")).unwrap(), "{\"n\":1}\n");
}

#[tokio::test]
async fn results_of_another_query_are_refused_and_our_own_are_continued() {
    let folder = with_two_epochs().await;
    let error = create(folder.path(), FileFormat::Csv).begin(&writer("other", 9)).await.unwrap_err();
    assert!(error.to_string().contains("holds the results of an earlier run"), "{error}");
    let mut sink = create(folder.path(), FileFormat::Csv);
    assert_eq!(sink.begin(&writer("q", 2)).await.unwrap(), Some(Epoch(1)));
    put(&mut sink, 1, &[9]).await.unwrap();
    put(&mut sink, 2, &[3]).await.unwrap();
    assert_eq!(names(folder.path()), ["part-0000000000.csv", "part-0000000001.csv", "part-0000000002.csv"]);
    assert_eq!(fs::read_to_string(folder.path().join("part-0000000001.csv")).unwrap(), "n\n2\n");
}

#[tokio::test]
async fn part_files_without_a_ledger_are_refused() {
    let folder = tempdir().unwrap();
    fs::write(folder.path().join("part-0000000000.csv"), "n\n1\n").unwrap();
    let error = create(folder.path(), FileFormat::Csv).begin(&writer("q", 1)).await.unwrap_err();
    assert!(error.to_string().contains("holds the results of an earlier run"), "{error}");
    assert_eq!(names(folder.path()), ["part-0000000000.csv"]);
    assert!(!folder.path().join("_manifest").exists());
}

#[tokio::test]
async fn what_an_earlier_run_left_staged_is_gone() {
    let folder = tempdir().unwrap();
    begun(folder.path(), FileFormat::Csv, 1).await.stage(Epoch(0), &[numbers(&[1])]).await.unwrap();
    let mut sink = begun(folder.path(), FileFormat::Csv, 2).await;
    assert!(names(folder.path()).is_empty());
    put(&mut sink, 0, &[2]).await.unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("part-0000000000.csv")).unwrap(), "n\n2\n");
}

#[tokio::test]
async fn a_rename_that_a_crash_left_undone_is_done_at_the_begin() {
    let folder = with_two_epochs().await;
    let (temporary, path) = (".part-0000000001.csv.q.1.tmp", "part-0000000001.csv");
    fs::rename(folder.path().join(path), folder.path().join(temporary)).unwrap();
    fs::write(folder.path().join("_manifest/.0000000002.json.q.1.tmp"), "{\"que").unwrap();
    let mut sink = create(folder.path(), FileFormat::Csv);
    assert_eq!(sink.begin(&writer("q", 2)).await.unwrap(), Some(Epoch(1)));
    assert_eq!(names(folder.path()), ["part-0000000000.csv", path]);
    let mut ledger = names(&folder.path().join("_manifest"));
    assert_eq!(ledger.pop().unwrap(), "term-0000000002");
    assert_eq!(ledger, ["0000000000.json", "0000000001.json"]);
}

#[tokio::test]
async fn a_committed_file_that_is_gone_or_cut_is_an_error_that_names_it() {
    let folder = with_two_epochs().await;
    let path = folder.path().join("part-0000000000.csv");
    fs::write(&path, "n").unwrap();
    let error = create(folder.path(), FileFormat::Csv).begin(&writer("q", 2)).await.unwrap_err();
    assert!(error.to_string().contains("part-0000000000.csv, which epoch 0 was written to, does not"), "{error}");
    fs::remove_file(&path).unwrap();
    let error = create(folder.path(), FileFormat::Csv).begin(&writer("q", 3)).await.unwrap_err();
    assert!(error.to_string().contains("part-0000000000.csv, which epoch 0 was written to, is missing"), "{error}");
}

#[tokio::test]
async fn the_writer_of_an_older_term_is_refused() {
    let folder = with_two_epochs().await;
    let mut old = begun(folder.path(), FileFormat::Csv, 2).await;
    old.stage(Epoch(2), &[numbers(&[3])]).await.unwrap();
    let mut new = begun(folder.path(), FileFormat::Csv, 3).await;
    let error = old.commit(Epoch(2)).await.unwrap_err();
    assert!(error.to_string().contains("a newer run of this query has taken over"), "{error}");
    let error = create(folder.path(), FileFormat::Csv).begin(&writer("q", 2)).await.unwrap_err();
    assert!(error.to_string().contains("a newer run of this query has taken over"), "{error}");
    put(&mut new, 2, &[4]).await.unwrap();
    assert_eq!(fs::read_to_string(folder.path().join("part-0000000002.csv")).unwrap(), "n\n4\n");
}

#[tokio::test]
async fn of_two_queries_in_one_folder_the_one_that_began_first_is_refused() {
    for terms in [(1, 1), (1, 2), (2, 1)] {
        let folder = tempdir().unwrap();
        let mut first = begun(folder.path(), FileFormat::Csv, terms.0).await;
        let mut second = create(folder.path(), FileFormat::Csv);
        assert_eq!(second.begin(&writer("other", terms.1)).await.unwrap(), None);
        first.stage(Epoch(0), &[numbers(&[1])]).await.unwrap();
        second.stage(Epoch(0), &[numbers(&[2])]).await.unwrap();
        assert_eq!(names(folder.path()).len(), 2, "each has a file of its own");
        let error = first.commit(Epoch(0)).await.unwrap_err();
        assert!(error.to_string().ends_with("another query has begun to write there"), "{error}");
        assert_eq!(error.hint(), Some("give each query a sink with a path of its own"));
        second.commit(Epoch(0)).await.unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("part-0000000000.csv")).unwrap(), "n\n2\n");
        let error = create(folder.path(), FileFormat::Csv).begin(&writer("q", 9)).await.unwrap_err();
        assert!(error.to_string().contains("holds the results of an earlier run"), "{error}");
    }
}

#[tokio::test]
async fn a_folder_is_made_with_those_above_it() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("a/b/c");
    let mut sink = begun(&path, FileFormat::Csv, 1).await;
    put(&mut sink, 0, &[1]).await.unwrap();
    assert_eq!(names(&path), ["part-0000000000.csv"]);
}

#[tokio::test]
async fn parquet_files_can_be_read_back() {
    let folder = tempdir().unwrap();
    let mut sink = begun(folder.path(), FileFormat::Parquet, 1).await;
    sink.stage(Epoch(3), &[numbers(&[1, 2])]).await.unwrap();
    sink.stage(Epoch(3), &[numbers(&[3])]).await.unwrap();
    sink.commit(Epoch(3)).await.unwrap();
    let file = File::open(folder.path().join("part-0000000003.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), [numbers(&[1, 2, 3])]);
}

/// Large enough is a CSV file of three rows of seven digits, or a JSON file of two.
const BY_SIZE: Compaction = Compaction { bytes: 26, age: Duration::MAX };

#[tokio::test]
async fn small_files_become_one_that_is_large_enough() {
    let csv = "n\n1000000\n1000001\n1000002\n";
    let json = "{\"n\":1000000}\n{\"n\":1000001}\n";
    for (format, whole) in [(FileFormat::Csv, csv), (FileFormat::Json, json)] {
        let folder = tempdir().unwrap();
        let mut sink = create(folder.path(), format).compacted(BY_SIZE);
        sink.begin(&writer("q", 1)).await.unwrap();
        let count = whole.lines().filter(|line| *line != "n").count();
        for epoch in 0..=count {
            put(&mut sink, epoch as u64, &[1_000_000 + epoch as i64]).await.unwrap();
        }
        let extension = format.extension();
        let (first, rest) =
            (format!("part-0000000000-{:010}.{extension}", count - 1), format!("part-{count:010}.{extension}"));
        assert_eq!(names(folder.path()), [first.clone(), rest]);
        assert_eq!(fs::read_to_string(folder.path().join(&first)).unwrap(), whole);
        let ledger = names(&folder.path().join("_manifest"));
        assert_eq!(ledger.len(), 3, "{ledger:?}");
    }
}

#[tokio::test]
async fn old_files_become_one_whatever_their_size_and_again_with_those_that_follow() {
    let folder = tempdir().unwrap();
    let at_once = Compaction { bytes: 1 << 20, age: Duration::ZERO };
    let mut sink = create(folder.path(), FileFormat::Parquet).compacted(at_once);
    sink.begin(&writer("q", 1)).await.unwrap();
    for epoch in 0..5 {
        put(&mut sink, epoch, &[epoch as i64]).await.unwrap();
    }
    assert_eq!(names(folder.path()), ["part-0000000000-0000000004.parquet"]);
    let mut sink = create(folder.path(), FileFormat::Parquet).compacted(at_once);
    assert_eq!(sink.begin(&writer("q", 2)).await.unwrap(), Some(Epoch(4)));
    put(&mut sink, 4, &[99]).await.unwrap();
    put(&mut sink, 6, &[6]).await.unwrap();
    assert_eq!(names(folder.path()), ["part-0000000000-0000000006.parquet"]);
    let file = File::open(folder.path().join("part-0000000000-0000000006.parquet")).unwrap();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    assert_eq!(reader.map(Result::unwrap).collect::<Vec<_>>(), [numbers(&[0, 1, 2, 3, 4, 6])]);
}

#[tokio::test]
async fn what_a_crash_left_of_a_compaction_is_finished_or_undone() {
    let folder = with_two_epochs().await;
    let old = ["part-0000000000.csv", "part-0000000001.csv", "_manifest/0000000000.json", "_manifest/0000000001.json"];
    let kept: Vec<_> = old.iter().map(|name| (name, fs::read(folder.path().join(name)).unwrap())).collect();
    let at_once = Compaction { bytes: 1 << 20, age: Duration::ZERO };
    let mut sink = create(folder.path(), FileFormat::Csv).compacted(at_once);
    sink.begin(&writer("q", 2)).await.unwrap();
    put(&mut sink, 2, &[3]).await.unwrap();
    let whole = "part-0000000000-0000000002.csv";
    assert_eq!(names(folder.path()), [whole]);
    // The removals are undone, and the file has its temporary name again.
    kept.iter().for_each(|(name, bytes)| fs::write(folder.path().join(name), bytes).unwrap());
    fs::rename(folder.path().join(whole), folder.path().join(format!(".{whole}.q.2.tmp"))).unwrap();
    assert_eq!(create(folder.path(), FileFormat::Csv).begin(&writer("q", 3)).await.unwrap(), Some(Epoch(2)));
    assert_eq!(names(folder.path()), [whole]);
    assert_eq!(fs::read_to_string(folder.path().join(whole)).unwrap(), "n\n1\n2\n3\n");
    // Without the manifest of the whole, what there is of it is undone.
    let folder = with_two_epochs().await;
    fs::write(folder.path().join(".part-0000000000-0000000001.csv.q.1.tmp"), "n\n1\n").unwrap();
    create(folder.path(), FileFormat::Csv).begin(&writer("q", 2)).await.unwrap();
    assert_eq!(names(folder.path()), ["part-0000000000.csv", "part-0000000001.csv"]);
}
