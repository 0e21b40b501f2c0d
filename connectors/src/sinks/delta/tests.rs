//! What is in the table after every step, and after every step that is never taken.

use std::fs::File;

use datafusion::arrow::array::{ArrayRef, AsArray, UInt64Array, new_null_array};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use tempfile::{TempDir, tempdir};

use super::super::tests::writer;
use super::super::text::tests::numbers;
use super::*;

async fn begun(folder: &TempDir, query: &str, term: u64) -> Result<(DeltaSink, Option<Epoch>)> {
    let mut sink = DeltaSink::new(folder.path(), numbers(&[]).schema()).unwrap();
    let last = sink.begin(&writer(query, term)).await?;
    Ok((sink, last))
}

async fn put(sink: &mut DeltaSink, epoch: u64, values: &[i64]) -> Result<()> {
    sink.stage(Epoch(epoch), &[numbers(values)]).await?;
    sink.commit(Epoch(epoch)).await
}

/// The table as another program reads it, through a store of its own.
async fn read(folder: &TempDir) -> (DeltaTable, Vec<i64>) {
    let url = ensure_table_uri(folder.path().to_str().unwrap()).unwrap();
    let table = DeltaTableBuilder::from_url(url).unwrap().load().await.unwrap();
    let mut values = Vec::new();
    for uri in table.get_file_uris().unwrap() {
        let file = File::open(uri.trim_start_matches("file://")).unwrap();
        for batch in ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap() {
            values.extend(batch.unwrap().column(0).as_primitive::<Int64Type>().values());
        }
    }
    values.sort_unstable();
    (table, values)
}

#[tokio::test]
async fn an_epoch_is_there_once_it_is_committed() {
    let folder = tempdir().unwrap();
    let (mut sink, last) = begun(&folder, "q", 1).await.unwrap();
    assert_eq!(last, None);
    sink.stage(Epoch(0), &[numbers(&[1, 2])]).await.unwrap();
    sink.stage(Epoch(0), &[numbers(&[3])]).await.unwrap();
    assert_eq!(read(&folder).await.1, [0; 0]);
    sink.commit(Epoch(0)).await.unwrap();
    put(&mut sink, 2, &[4]).await.unwrap();
    assert_eq!(read(&folder).await.1, [1, 2, 3, 4]);
}

#[tokio::test]
async fn the_next_writer_goes_on_and_the_one_before_is_refused() {
    let folder = tempdir().unwrap();
    let (mut first, _) = begun(&folder, "q", 1).await.unwrap();
    put(&mut first, 0, &[1]).await.unwrap();
    // Staged by a writer that never commits it.
    first.stage(Epoch(1), &[numbers(&[99])]).await.unwrap();
    let (mut second, last) = begun(&folder, "q", 2).await.unwrap();
    assert_eq!(last, Some(Epoch(0)));
    let error = first.commit(Epoch(1)).await.unwrap_err().to_string();
    assert!(error.contains("a newer run of this query has taken over"), "{error}");
    let error = begun(&folder, "q", 1).await.unwrap_err().to_string();
    assert!(error.contains("a newer run of this query has taken over"), "{error}");
    // What is in is not put in again.
    put(&mut second, 0, &[1]).await.unwrap();
    put(&mut second, 1, &[2]).await.unwrap();
    assert_eq!(read(&folder).await.1, [1, 2]);
    let parts = fs::read_dir(folder.path()).unwrap().filter(|entry| entry.as_ref().unwrap().path().is_file());
    assert_eq!(parts.count(), 2);
}

#[tokio::test]
async fn a_long_log_has_checkpoints_and_reads_the_same() {
    let folder = tempdir().unwrap();
    let (mut sink, _) = begun(&folder, "q", 1).await.unwrap();
    for epoch in 0..120 {
        put(&mut sink, epoch, &[epoch as i64]).await.unwrap();
    }
    assert!(folder.path().join("_delta_log/_last_checkpoint").is_file());
    let (table, values) = read(&folder).await;
    assert_eq!(values, (0..120).collect::<Vec<_>>());
    assert_eq!(table.version(), Some(121));
    assert_eq!(begun(&folder, "q", 2).await.unwrap().1, Some(Epoch(119)));
}

#[tokio::test]
async fn another_query_and_other_columns_are_refused() {
    let folder = tempdir().unwrap();
    begun(&folder, "q", 1).await.unwrap();
    let error = begun(&folder, "other", 1).await.unwrap_err().to_string();
    assert!(error.contains("holds the results of an earlier run"), "{error}");
    let schema = Schema::new(vec![Field::new("m", DataType::Int64, true)]);
    let mut sink = DeltaSink::new(folder.path(), Arc::new(schema)).unwrap();
    let error = sink.begin(&writer("q", 2)).await.unwrap_err().to_string();
    assert!(error.contains("has the columns n long, the result m"), "{error}");
}

#[tokio::test]
async fn columns_become_what_delta_lake_has() {
    let folder = tempdir().unwrap();
    let kinds = [
        DataType::UInt64,
        DataType::Utf8View,
        DataType::Timestamp(TimeUnit::Millisecond, None),
        DataType::Timestamp(TimeUnit::Nanosecond, Some("+02:00".into())),
        DataType::Date32,
        DataType::Decimal128(20, 4),
    ];
    let fields: Vec<_> =
        kinds.iter().enumerate().map(|(i, kind)| Field::new(format!("c{i}"), kind.clone(), true)).collect();
    let schema = Arc::new(Schema::new(fields));
    let mut sink = DeltaSink::new(folder.path(), Arc::clone(&schema)).unwrap();
    sink.begin(&writer("q", 1)).await.unwrap();
    let number: ArrayRef = Arc::new(UInt64Array::from(vec![Some(u64::MAX), None]));
    let columns = kinds.iter().enumerate().map(|(i, kind)| match i {
        0 => Arc::clone(&number),
        _ => new_null_array(kind, 2),
    });
    sink.stage(Epoch(0), &[RecordBatch::try_new(schema, columns.collect()).unwrap()]).await.unwrap();
    sink.commit(Epoch(0)).await.unwrap();
    let url = ensure_table_uri(folder.path().to_str().unwrap()).unwrap();
    let table = DeltaTableBuilder::from_url(url).unwrap().load().await.unwrap();
    let schema = table.snapshot().unwrap().schema();
    let kinds: Vec<_> = schema.fields().map(|field| field.data_type().to_string()).collect();
    assert_eq!(kinds, ["decimal(20,0)", "string", "timestamp_ntz", "timestamp", "date", "decimal(20,4)"]);
    let interval = Schema::new(vec![Field::new("i", DataType::Duration(TimeUnit::Second), true)]);
    let error = DeltaSink::new(folder.path(), Arc::new(interval)).unwrap_err().to_string();
    assert!(error.contains("column \"i\" has the type"), "{error}");
}
