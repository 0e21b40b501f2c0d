//! Splits in words: another process makes the same rows of them.
#![expect(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::sync::Arc;

use crate::common::{stream, texts, timestamp, trades};
use crate::files::mixed_lines;
use datafusion::arrow::datatypes::DataType;
use millstream_connectors::open_source;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::source::{Decode, MemoryIndex};
use tempfile::TempDir;

/// Good rows and all there is to bad ones.
fn decoded(decode: Box<dyn Decode>) -> Vec<String> {
    let decoded = decode.decode().unwrap();
    let bad = decoded.bad.into_iter().map(|bad| format!("{bad:?}"));
    texts(&decoded.batch).into_iter().chain(bad).collect()
}

/// Reads a stream of at most `most` splits and has another source make them of their words; how many had some, of how
/// many.
async fn check(definition: &Arc<StreamDefinition>, most: usize) -> (usize, usize) {
    let index = Arc::new(MemoryIndex::default());
    let mut reader = open_source(definition).unwrap().open(&[], index).await.unwrap().remove(0);
    let other = open_source(definition).unwrap();
    let (mut spelled, mut splits) = (0, 0);
    while splits < most
        && let Some(split) = reader.next(None).await.unwrap()
    {
        splits += 1;
        let offsets = split.offsets.clone();
        let Some(recipe) = split.decode.recipe() else { continue };
        spelled += 1;
        assert_eq!(decoded(other.decoder(&recipe).unwrap()), decoded(split.decode), "{offsets:?}: {recipe}");
    }
    (spelled, splits)
}

#[tokio::test]
async fn pieces_of_text_files_are_read_again_by_their_place() {
    let folder = TempDir::new().unwrap();
    let with_returns = mixed_lines().replace('\n', "\r\n");
    for (name, text) in [("1.csv", mixed_lines()), ("2.csv", with_returns)] {
        // The last line has no end.
        fs::write(folder.path().join(name), text.trim_end()).unwrap();
    }
    let path = folder.path().display().to_string();
    let (spelled, splits) = check(&trades(&[("connector", "files"), ("path", &path)]), usize::MAX).await;
    // A line that is given up is kept only in part, and stays where it was read.
    assert!(splits > 8 && spelled < splits && spelled + 6 > splits, "{spelled} of {splits}");
}

#[tokio::test]
async fn pieces_of_json_files_are_read_again_by_their_place() {
    let folder = TempDir::new().unwrap();
    let lines = (0..40_000).map(|number| match number % 1_009 {
        0 => "{\"szcode\": 1".to_owned(),
        _ => format!(r#"{{"szcode":"{number}","eventTime":"2013-10-07T09:30:00","Turnover":{number},"Price":1.5}}"#),
    });
    fs::write(folder.path().join("1.json"), lines.collect::<Vec<_>>().join("\n")).unwrap();
    let path = folder.path().display().to_string();
    let (spelled, splits) = check(&trades(&[("connector", "files"), ("path", &path)]), usize::MAX).await;
    assert!(splits > 2 && spelled == splits, "{spelled} of {splits}");
}

#[tokio::test]
async fn packed_files_are_read_in_one_place() {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("1.csv.zst"), zstd::encode_all(mixed_lines().as_bytes(), 1).unwrap()).unwrap();
    let path = folder.path().display().to_string();
    let (spelled, splits) = check(&trades(&[("connector", "files"), ("path", &path)]), usize::MAX).await;
    assert!(spelled == 0 && splits > 2, "{spelled} of {splits}");
}

#[tokio::test]
async fn generated_rows_begin_when_they_did_wherever_they_are_made() {
    let generated = trades(&[("connector", "generate"), ("kind", "transaction"), ("start", "now"), ("rows", "100000")]);
    assert_eq!(check(&generated, 3).await, (3, 3));
    let columns = [("auction", DataType::Int64), ("price", DataType::Int64), ("date_time", timestamp())];
    let bids = stream(&columns, &[("connector", "nexmark"), ("table", "bid"), ("start", "now"), ("events", "200000")]);
    assert_eq!(check(&bids, 3).await, (3, 3));
}

#[tokio::test]
async fn a_piece_of_a_file_that_has_changed_is_refused() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("1.csv");
    fs::write(&file, mixed_lines()).unwrap();
    let definition = trades(&[("connector", "files"), ("path", &file.display().to_string())]);
    let source = open_source(&definition).unwrap();
    let mut reader = source.open(&[], Arc::new(MemoryIndex::default())).await.unwrap().remove(0);
    let recipe = reader.next(None).await.unwrap().unwrap().decode.recipe().unwrap();
    fs::write(&file, mixed_lines() + "one more,2013-10-07T09:30:00,1,1\n").unwrap();
    let refused = source.decoder(&recipe).map(drop).unwrap_err();
    assert!(refused.to_string().contains("1.csv is not what it was"), "{refused}");
    fs::remove_file(&file).unwrap();
    let refused = source.decoder(&recipe).map(drop).unwrap_err();
    assert!(refused.to_string().contains("1.csv"), "{refused}");
    assert!(source.decoder("nothing").is_err());
}
