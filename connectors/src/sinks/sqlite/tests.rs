//! What is in the file after every step.

use std::sync::Arc;

use datafusion::arrow::array::{Decimal128Array, Float64Array, Int64Array, UInt64Array};
use tempfile::{TempDir, tempdir};

use super::super::tests::writer;
use super::super::text::tests::{numbers, prices};
use super::*;

fn append() -> Relation {
    Relation { table: "t".to_owned(), key: Vec::new() }
}

fn create(folder: &TempDir) -> SqliteSink {
    SqliteSink::new(folder.path().join("r.db"), append(), numbers(&[]).schema()).unwrap()
}

async fn begun(folder: &TempDir, term: u64) -> SqliteSink {
    let mut sink = create(folder);
    sink.begin(&writer("q", term)).await.unwrap();
    sink
}

async fn put(sink: &mut SqliteSink, epoch: u64, values: &[i64]) -> Result<()> {
    sink.stage(Epoch(epoch), &[numbers(values)]).await?;
    sink.commit(Epoch(epoch)).await
}

/// Every row as one text, in order.
fn rows(folder: &TempDir) -> Vec<String> {
    let connection = Connection::open(folder.path().join("r.db")).unwrap();
    let mut statement = connection.prepare("SELECT * FROM t ORDER BY 1").unwrap();
    let columns = statement.column_count();
    let text = |row: &rusqlite::Row<'_>| {
        let values = (0..columns).map(|column| format!("{:?}", row.get_ref(column).unwrap().to_owned_value()));
        Ok(values.collect::<Vec<_>>().join(" "))
    };
    statement.query_map([], text).unwrap().map(std::result::Result::unwrap).collect()
}

trait Owned {
    fn to_owned_value(&self) -> rusqlite::types::Value;
}

impl Owned for rusqlite::types::ValueRef<'_> {
    fn to_owned_value(&self) -> rusqlite::types::Value {
        (*self).try_into().unwrap()
    }
}

#[tokio::test]
async fn an_epoch_is_there_after_its_commit_and_once() {
    let folder = tempdir().unwrap();
    let mut sink = begun(&folder, 1).await;
    sink.stage(Epoch(3), &[numbers(&[1])]).await.unwrap();
    sink.stage(Epoch(3), &[numbers(&[2])]).await.unwrap();
    assert!(rows(&folder).is_empty());
    sink.commit(Epoch(3)).await.unwrap();
    put(&mut sink, 3, &[9]).await.unwrap();
    assert_eq!(rows(&folder), ["Integer(1)", "Integer(2)"]);
}

#[tokio::test]
async fn a_later_run_goes_on_and_an_earlier_one_is_refused() {
    let folder = tempdir().unwrap();
    let mut old = begun(&folder, 1).await;
    put(&mut old, 0, &[1]).await.unwrap();
    let mut new = create(&folder);
    assert_eq!(new.begin(&writer("q", 2)).await.unwrap(), Some(Epoch(0)));
    let error = put(&mut old, 1, &[2]).await.unwrap_err();
    assert!(error.to_string().contains("a newer run of this query has taken over"), "{error}");
    put(&mut new, 0, &[3]).await.unwrap();
    put(&mut new, 1, &[4]).await.unwrap();
    assert_eq!(rows(&folder), ["Integer(1)", "Integer(4)"]);
    assert!(create(&folder).begin(&writer("q", 1)).await.is_err());
    let error = create(&folder).begin(&writer("other", 9)).await.unwrap_err();
    assert!(error.to_string().contains("holds the results of an earlier run"), "{error}");
}

#[tokio::test]
async fn another_spelling_of_a_table_is_the_same_table() {
    let folder = tempdir().unwrap();
    let named = |table: &str| {
        let relation = Relation { table: table.to_owned(), key: Vec::new() };
        SqliteSink::new(folder.path().join("r.db"), relation, numbers(&[]).schema()).unwrap()
    };
    let mut sink = named("r");
    sink.begin(&writer("q", 1)).await.unwrap();
    put(&mut sink, 0, &[1]).await.unwrap();
    for table in ["R", "main.r", "Main.R"] {
        let error = named(table).begin(&writer("other", 9)).await.unwrap_err();
        assert!(error.to_string().contains("holds the results of an earlier run"), "{table}: {error}");
    }
    assert_eq!(named("main.R").begin(&writer("q", 2)).await.unwrap(), Some(Epoch(0)));
}

#[tokio::test]
async fn a_row_that_fails_leaves_nothing_of_its_epoch() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("r.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (n INTEGER CHECK (n < 10))").unwrap();
    let mut sink = begun(&folder, 1).await;
    let error = put(&mut sink, 0, &[1, 11]).await.unwrap_err();
    assert_eq!(error.to_string(), format!("writing table t of SQLite file {}", path.display()));
    assert!(rows(&folder).is_empty());
    let mut sink = create(&folder);
    assert_eq!(sink.begin(&writer("q", 2)).await.unwrap(), None);
    put(&mut sink, 0, &[1]).await.unwrap();
    assert_eq!(rows(&folder), ["Integer(1)"]);
}

#[tokio::test]
async fn a_table_that_lacks_a_column_is_refused_at_the_begin() {
    let folder = tempdir().unwrap();
    Connection::open(folder.path().join("r.db")).unwrap().execute_batch("CREATE TABLE t (m INTEGER)").unwrap();
    let error = create(&folder).begin(&writer("q", 1)).await.unwrap_err();
    let Error::External { source, .. } = error else { panic!("{error}") };
    assert!(source.to_string().contains("no column named n"), "{source}");
}

#[tokio::test]
async fn an_upsert_keeps_the_last_row_of_a_key() {
    let folder = tempdir().unwrap();
    let batch = |keys: &[i64], values: &[i64]| {
        let array = |values: &[i64]| Arc::new(Int64Array::from(values.to_vec())) as _;
        RecordBatch::try_from_iter([("k", array(keys)), ("v", array(values))]).unwrap()
    };
    let relation = Relation { table: "t".to_owned(), key: vec!["k".to_owned()] };
    let path = folder.path().join("r.db");
    let mut sink = SqliteSink::new(path, relation, batch(&[], &[]).schema()).unwrap();
    sink.begin(&writer("q", 1)).await.unwrap();
    sink.stage(Epoch(0), &[batch(&[1, 2, 1], &[10, 20, 11])]).await.unwrap();
    sink.commit(Epoch(0)).await.unwrap();
    sink.stage(Epoch(1), &[batch(&[2], &[21])]).await.unwrap();
    sink.commit(Epoch(1)).await.unwrap();
    assert_eq!(rows(&folder), ["Integer(1) Integer(11)", "Integer(2) Integer(21)"]);
}

#[tokio::test]
async fn an_upsert_of_a_row_without_a_key_is_refused_with_its_epoch() {
    let folder = tempdir().unwrap();
    let path = folder.path().join("r.db");
    Connection::open(&path).unwrap().execute_batch("CREATE TABLE t (k INTEGER UNIQUE, v INTEGER)").unwrap();
    let array = |values: Vec<Option<i64>>| Arc::new(Int64Array::from(values)) as _;
    let columns = [("k", array(vec![Some(1), None])), ("v", array(vec![Some(10), Some(20)]))];
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let relation = Relation { table: "t".to_owned(), key: vec!["k".to_owned()] };
    let mut sink = SqliteSink::new(path, relation, batch.schema()).unwrap();
    sink.begin(&writer("q", 1)).await.unwrap();
    sink.stage(Epoch(0), &[batch.slice(0, 1), batch]).await.unwrap();
    let error = sink.commit(Epoch(0)).await.unwrap_err();
    assert_eq!(error.to_string(), "the key column \"k\" is NULL in a row of the result");
    assert_eq!(error.hint(), Some("filter with WHERE k IS NOT NULL"));
    assert!(rows(&folder).is_empty());
}

#[tokio::test]
async fn every_type_is_written_as_it_reads() {
    let folder = tempdir().unwrap();
    let batch = prices();
    let mut sink = SqliteSink::new(folder.path().join("r.db"), append(), batch.schema()).unwrap();
    sink.begin(&writer("q", 1)).await.unwrap();
    sink.stage(Epoch(0), &[batch]).await.unwrap();
    sink.commit(Epoch(0)).await.unwrap();
    let expected = [
        "Text(\"2013-10-07T09:30:00\") Text(\"600519,A\") Integer(7) Real(12.5)",
        "Text(\"2013-10-07T09:30:00.500\") Null Null Null",
    ];
    assert_eq!(rows(&folder), expected);
}

#[test]
fn decimals_are_exact_and_what_does_not_fit_is_refused() {
    let decimal = Decimal128Array::from(vec![1_725]).with_precision_and_scale(12, 2).unwrap();
    let value = Column::new("d", &(Arc::new(decimal) as _)).unwrap().value(0).unwrap();
    assert_eq!(value, rusqlite::types::Value::Text("17.25".to_owned()));
    let nan = Float64Array::from(vec![f64::NAN]);
    let error = Column::new("f", &(Arc::new(nan) as _)).unwrap().value(0).unwrap_err();
    assert!(error.to_string().contains("column \"f\" holds NaN"), "{error}");
    let big = UInt64Array::from(vec![u64::MAX]);
    let error = Column::new("u", &(Arc::new(big) as _)).unwrap_err();
    assert!(error.to_string().contains("column \"u\" cannot be written"), "{error}");
}
