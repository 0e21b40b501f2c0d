//! What is in the table after every step, and after every step that is never taken.

use std::fs::File;

use datafusion::arrow::array::{ArrayRef, AsArray, UInt64Array, new_null_array};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use datafusion::object_store::path::Path as Location;
use datafusion::object_store::{ObjectStore, PutMultipartOptions, PutOptions};
use datafusion::parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use deltalake_core::kernel::transaction::CommitBuilder;
use deltalake_core::kernel::{Action, DataType as DeltaType, MetadataExt, Remove, StructField};
use deltalake_core::protocol::DeltaOperation;
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

/// Another program commits to the table.
async fn commit_elsewhere(folder: &TempDir, action: Action) {
    let (table, _) = read(folder).await;
    let commit = CommitBuilder::default().with_actions(vec![action]).build(
        Some(table.snapshot().unwrap()),
        table.log_store(),
        DeltaOperation::Delete { predicate: None },
    );
    commit.await.unwrap();
}

/// Another program sets a property of the table.
async fn set_elsewhere(folder: &TempDir, key: &str, value: &str) {
    let (table, _) = read(folder).await;
    let metadata = table.snapshot().unwrap().metadata().clone();
    let changed = metadata.add_config_key(key.to_owned(), value.to_owned()).unwrap();
    commit_elsewhere(folder, Action::Metadata(changed)).await;
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
async fn a_writer_begins_over_a_commit_of_the_one_before_but_not_of_the_next() {
    let folder = tempdir().unwrap();
    let (mut first, _) = begun(&folder, "q", 1).await.unwrap();
    let target = first.target.clone();
    let table = target.open("q").await.unwrap();
    put(&mut first, 0, &[1]).await.unwrap();
    let second = Reign::begin(&target, &table, &writer("q", 2)).await.unwrap();
    assert_eq!(second.last, Some(Epoch(0)));
    let error = Reign::begin(&target, &table, &writer("q", 1)).await.unwrap_err().to_string();
    assert!(error.contains("a newer run of this query has taken over"), "{error}");
}

#[tokio::test]
async fn an_epoch_that_is_in_already_is_not_put_in_again() {
    let folder = tempdir().unwrap();
    let (sink, _) = begun(&folder, "q", 1).await.unwrap();
    let (target, mut reign) = (sink.target, sink.reign.unwrap());
    let table = target.open("q").await.unwrap();
    let mut same = Reign::begin(&target, &table, &writer("q", 1)).await.unwrap();
    let file = Add { path: "file.parquet".to_owned(), data_change: true, ..Add::default() };
    same.commit(Epoch(0), &file).await.unwrap();
    reign.commit(Epoch(0), &file).await.unwrap();
    assert_eq!(reign.last, Some(Epoch(0)));
    // The table is made, twice a term is entered, and once the epoch.
    assert_eq!(target.open("q").await.unwrap().version(), Some(3));
}

#[tokio::test]
async fn an_epoch_goes_in_after_another_program_has_deleted_rows() {
    let folder = tempdir().unwrap();
    let (mut sink, _) = begun(&folder, "q", 1).await.unwrap();
    put(&mut sink, 0, &[1]).await.unwrap();
    put(&mut sink, 1, &[2]).await.unwrap();
    let path = sink.target.file_name(&writer("q", 1), Epoch(0));
    commit_elsewhere(&folder, Action::Remove(Remove { path, data_change: true, ..Remove::default() })).await;
    put(&mut sink, 2, &[3]).await.unwrap();
    put(&mut sink, 3, &[4]).await.unwrap();
    assert_eq!(read(&folder).await.1, [2, 3, 4]);
    assert_eq!(begun(&folder, "q", 2).await.unwrap().1, Some(Epoch(3)));
}

#[tokio::test]
async fn an_epoch_goes_in_after_another_program_has_changed_the_table_if_it_still_fits() {
    let folder = tempdir().unwrap();
    let (mut sink, _) = begun(&folder, "q", 1).await.unwrap();
    set_elsewhere(&folder, "delta.logRetentionDuration", "interval 60 days").await;
    put(&mut sink, 0, &[1]).await.unwrap();
    set_elsewhere(&folder, "delta.constraints.positive", "n > 0").await;
    let error = put(&mut sink, 1, &[-1]).await.unwrap_err().to_string();
    assert!(error.contains("has the CHECK constraint \"positive\""), "{error}");
    assert_eq!(read(&folder).await.1, [1]);
}

#[tokio::test]
async fn a_writer_is_taken_over_whatever_another_program_has_committed_before() {
    let folder = tempdir().unwrap();
    let (mut first, _) = begun(&folder, "q", 1).await.unwrap();
    set_elsewhere(&folder, "delta.logRetentionDuration", "interval 60 days").await;
    begun(&folder, "q", 2).await.unwrap();
    let error = put(&mut first, 0, &[1]).await.unwrap_err().to_string();
    assert!(error.contains("a newer run of this query has taken over"), "{error}");
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
async fn a_commit_is_in_though_the_log_gets_no_checkpoint() {
    let folder = tempdir().unwrap();
    let (mut sink, _) = begun(&folder, "q", 1).await.unwrap();
    set_elsewhere(&folder, "delta.checkpointInterval", "2").await;
    // A folder in the place of the checkpoint, which no file can be renamed to.
    fs::create_dir(folder.path().join("_delta_log/00000000000000000003.checkpoint.parquet")).unwrap();
    put(&mut sink, 0, &[1]).await.unwrap();
    assert!(!folder.path().join("_delta_log/_last_checkpoint").exists());
    put(&mut sink, 1, &[2]).await.unwrap();
    put(&mut sink, 2, &[3]).await.unwrap();
    assert!(folder.path().join("_delta_log/00000000000000000005.checkpoint.parquet").is_file());
    assert_eq!(read(&folder).await.1, [1, 2, 3]);
}

#[tokio::test]
async fn a_file_of_the_store_is_replaced_whole() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("log/_last_checkpoint");
    let content = || fs::read_to_string(&path).unwrap();
    let (store, location) = (SyncedStore::new().unwrap(), Location::from_absolute_path(&path).unwrap());
    for text in ["first", "second"] {
        store.put_opts(&location, text.into(), PutOptions::default()).await.unwrap();
        assert_eq!(content(), text);
    }
    let mut upload = store.put_multipart_opts(&location, PutMultipartOptions::default()).await.unwrap();
    upload.put_part("in ".into()).await.unwrap();
    upload.put_part("parts".into()).await.unwrap();
    assert_eq!(content(), "second");
    upload.complete().await.unwrap();
    assert_eq!(content(), "in parts");
    assert_eq!(fs::read_dir(folder.path().join("log")).unwrap().count(), 1);
}

#[tokio::test]
async fn tables_with_partitions_or_with_rules_for_values_are_refused() {
    let number = StructField::nullable("n", DeltaType::LONG);
    let ruled =
        |key: &str, value: &str| CreateBuilder::new().with_columns([number.clone().with_metadata([(key, value)])]);
    let identity = number.clone().with_metadata([("delta.identity.start", 1_i64)]);
    let day = StructField::nullable("day", DeltaType::STRING);
    let constraint = [("delta.constraints.positive", Some("n > 0"))];
    let constrained = CreateBuilder::new().with_columns([number.clone()]).with_raise_if_key_not_exists(false);
    let cases = [
        (
            CreateBuilder::new().with_columns([number.clone(), day]).with_partition_columns(["day"]),
            "is partitioned by \"day\"",
        ),
        (CreateBuilder::new().with_columns([StructField::not_null("n", DeltaType::LONG)]), "is NOT NULL"),
        (ruled("delta.invariants", r#"{"expression": {"expression": "n > 0"}}"#), "has an invariant"),
        (ruled("delta.generationExpression", "1 + 1"), "is generated"),
        (CreateBuilder::new().with_columns([identity]), "is an identity"),
        (constrained.with_configuration(constraint), "has the CHECK constraint \"positive\""),
    ];
    for (create, expected) in cases {
        let folder = tempdir().unwrap();
        create.with_location(folder.path().to_str().unwrap()).await.unwrap();
        let error = begun(&folder, "q", 1).await.unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
        assert!(error.hint().unwrap().contains("name another path"));
    }
}

#[test]
fn a_column_name_that_delta_lake_does_not_allow_is_refused() {
    for name in ["sum(t.price * t.turnover)", "a b", "a=b", "a\tb"] {
        let schema = Schema::new(vec![Field::new(name, DataType::Int64, true)]);
        let error = DeltaSink::new("nowhere", Arc::new(schema)).unwrap_err();
        assert!(error.to_string().contains(&format!("column {name:?} has ")), "{error}");
        assert!(error.hint().unwrap().contains(" AS "));
    }
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
