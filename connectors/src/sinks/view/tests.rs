//! What readers see of a view after every commit, and after the process has gone.

use datafusion::arrow::array::{ArrayRef, AsArray, Int64Array};
use datafusion::arrow::datatypes::Int64Type;
use datafusion::prelude::SessionContext;
use millstream_engine::time::EventTime;
use tempfile::TempDir;

use super::super::tests::writer;
use super::super::text::tests::numbers;
use super::*;

/// Two columns of numbers.
fn pairs(rows: &[(i64, i64)]) -> RecordBatch {
    let column = |values: Vec<i64>| Arc::new(Int64Array::from(values)) as ArrayRef;
    let (keys, values) = rows.iter().copied().unzip();
    RecordBatch::try_from_iter([("k", column(keys)), ("v", column(values))]).unwrap()
}

fn instants(retain: Option<i64>, file: Option<PathBuf>) -> ViewSink {
    ViewSink::open("w", &Results::Instants, numbers(&[]).schema(), retain.map(Span), file).unwrap()
}

fn groups(file: Option<PathBuf>) -> ViewSink {
    ViewSink::open("w", &Results::Groups(vec![0]), pairs(&[]).schema(), None, file).unwrap()
}

async fn read(rows: &Arc<dyn MaterializedRows>) -> Vec<RecordBatch> {
    let table = rows.snapshot(None).unwrap();
    SessionContext::new().read_table(table).unwrap().collect().await.unwrap()
}

/// The numbers in the last column, in order.
async fn seen(rows: &Arc<dyn MaterializedRows>) -> Vec<i64> {
    let last =
        |batch: &RecordBatch| batch.column(batch.num_columns() - 1).as_primitive::<Int64Type>().values().to_vec();
    let mut values: Vec<i64> = read(rows).await.iter().flat_map(last).collect();
    values.sort_unstable();
    values
}

async fn put(sink: &mut ViewSink, epoch: u64, instant: i64, values: &[i64]) -> Result<()> {
    sink.stage_instant(Epoch(epoch), EventTime(instant), &[numbers(values)]).await?;
    sink.commit(Epoch(epoch)).await?;
    sink.publish(EventTime(instant))
}

async fn put_groups(sink: &mut ViewSink, epoch: u64, rows: &[(i64, i64)]) {
    sink.stage(Epoch(epoch), &[pairs(rows)]).await.unwrap();
    sink.commit(Epoch(epoch)).await.unwrap();
    sink.publish(EventTime(0)).unwrap();
}

fn file_in(folder: &TempDir) -> PathBuf {
    folder.path().join("views").join("w.sqlite")
}

#[tokio::test]
async fn rows_are_seen_once_their_commit_is_on_record_and_a_snapshot_stays_what_it_is() {
    let mut sink = instants(None, None);
    let rows = sink.rows();
    sink.begin(&writer("q", 1)).await.unwrap();
    put(&mut sink, 0, 10, &[1, 2]).await.unwrap();
    let before = rows.snapshot(None).unwrap();
    sink.stage_instant(Epoch(1), EventTime(20), &[numbers(&[3])]).await.unwrap();
    assert_eq!(seen(&rows).await, [1, 2]);
    sink.commit(Epoch(1)).await.unwrap();
    assert_eq!(seen(&rows).await, [1, 2], "before the commit is on record");
    sink.publish(EventTime(20)).unwrap();
    assert_eq!(seen(&rows).await, [1, 2, 3]);
    assert_eq!(SessionContext::new().read_table(before).unwrap().count().await.unwrap(), 2);
}

#[tokio::test]
async fn what_is_older_than_the_view_retains_is_dropped() {
    let folder = tempfile::tempdir().unwrap();
    for (retain, expected) in [(10, vec![2, 3]), (0, vec![3]), (100, vec![1, 2, 3])] {
        let file = folder.path().join(format!("{retain}.sqlite"));
        let mut sink = instants(Some(retain), Some(file.clone()));
        let rows = sink.rows();
        sink.begin(&writer("q", 1)).await.unwrap();
        for (epoch, instant, value) in [(0, 10, 1), (1, 20, 2), (2, 30, 3)] {
            put(&mut sink, epoch, instant, &[value]).await.unwrap();
        }
        assert_eq!(seen(&rows).await, expected, "retain {retain}");
        drop(sink);
        let again = instants(Some(retain), Some(file));
        assert_eq!(seen(&again.rows()).await, expected, "retain {retain}, read again");
    }
}

#[tokio::test]
async fn the_last_row_of_a_group_stays() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = groups(Some(file_in(&folder)));
    let rows = sink.rows();
    sink.begin(&writer("q", 1)).await.unwrap();
    put_groups(&mut sink, 0, &[(1, 10), (2, 20), (1, 11)]).await;
    assert_eq!(seen(&rows).await, [11, 20]);
    put_groups(&mut sink, 1, &[(2, 21), (3, 30)]).await;
    assert_eq!(seen(&rows).await, [11, 21, 30]);
    drop(sink);
    assert_eq!(seen(&groups(Some(file_in(&folder))).rows()).await, [11, 21, 30]);
}

#[tokio::test]
async fn groups_that_change_all_the_time_take_no_more_room_than_they_need() {
    let folder = tempfile::tempdir().unwrap();
    let file = file_in(&folder);
    let mut sink = groups(Some(file.clone()));
    let rows = sink.rows();
    sink.begin(&writer("q", 1)).await.unwrap();
    let epoch_rows = |epoch: i64| (0..30_000).map(|key| (key, epoch)).collect::<Vec<_>>();
    for epoch in 0..12 {
        put_groups(&mut sink, epoch, &epoch_rows(epoch.cast_signed())).await;
    }
    let values = seen(&rows).await;
    assert_eq!((values.len(), values.iter().all(|value| *value == 11)), (30_000, true));
    let connection = rusqlite::Connection::open(&file).unwrap();
    let parts: i64 = connection.query_row("SELECT COUNT(*) FROM part", [], |row| row.get(0)).unwrap();
    assert!(parts < 12, "{parts} parts");
    let mut one = ViewSink::open("n", &Results::Groups(Vec::new()), numbers(&[]).schema(), None, None).unwrap();
    for epoch in 0..3000_u32 {
        one.stage(Epoch(u64::from(epoch)), &[numbers(&[i64::from(epoch)])]).await.unwrap();
        one.commit(Epoch(u64::from(epoch))).await.unwrap();
        one.publish(EventTime(0)).unwrap();
    }
    assert_eq!(seen(&one.rows()).await, [2999]);
    drop(sink);
    assert_eq!(seen(&groups(Some(file)).rows()).await, values);
}

#[tokio::test]
async fn the_ledger_goes_on_with_the_query_and_knows_who_reigns() {
    let folder = tempfile::tempdir().unwrap();
    let mut old = instants(None, Some(file_in(&folder)));
    assert_eq!(old.begin(&writer("q", 1)).await.unwrap(), None);
    put(&mut old, 0, 10, &[1]).await.unwrap();
    let mut new = instants(None, Some(file_in(&folder)));
    assert_eq!(new.begin(&writer("q", 2)).await.unwrap(), Some(Epoch(0)));
    // An epoch that is in the ledger is not there twice.
    put(&mut new, 0, 10, &[1]).await.unwrap();
    put(&mut new, 1, 20, &[2]).await.unwrap();
    assert_eq!(seen(&new.rows()).await, [1, 2]);
    assert!(put(&mut old, 1, 20, &[9]).await.unwrap_err().to_string().contains("a newer run of this query"));
    assert_eq!(seen(&instants(None, Some(file_in(&folder))).rows()).await, [1, 2]);
}

#[tokio::test]
async fn another_query_of_the_name_begins_with_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = instants(None, Some(file_in(&folder)));
    sink.begin(&writer("q", 1)).await.unwrap();
    put(&mut sink, 0, 10, &[1]).await.unwrap();
    let mut other = instants(None, Some(file_in(&folder)));
    assert_eq!(other.begin(&writer("other", 1)).await.unwrap(), None);
    assert!(seen(&other.rows()).await.is_empty());
    put(&mut other, 0, 10, &[5]).await.unwrap();
    assert_eq!(seen(&instants(None, Some(file_in(&folder))).rows()).await, [5]);
}

#[test]
fn results_that_are_no_relation_are_refused() {
    let refused = |results: Results, retain: Option<i64>| {
        let schema = pairs(&[]).schema();
        ViewSink::open("w", &results, schema, retain.map(Span), None).unwrap_err().to_string()
    };
    assert!(refused(Results::ChangingGroups, None).contains("cannot tell which rows take the place of others"));
    assert!(refused(Results::Once, None).contains("reads no stream"));
    assert!(refused(Results::Rows, Some(1)).contains("belong to no window"));
    assert!(refused(Results::Groups(vec![0]), Some(1)).contains("belong to no window"));
}

#[tokio::test]
async fn rows_of_other_columns_are_refused_and_not_lost_in_silence() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = instants(None, Some(file_in(&folder)));
    sink.begin(&writer("q", 1)).await.unwrap();
    put(&mut sink, 0, 10, &[1]).await.unwrap();
    let changed = || {
        let file = Some(file_in(&folder));
        ViewSink::open("w", &Results::Instants, pairs(&[]).schema(), None, file).unwrap()
    };
    let error = changed().begin(&writer("q", 2)).await.unwrap_err().to_string();
    assert!(error.contains("have other columns than its query has now"), "{error}");
    assert_eq!(seen(&instants(None, Some(file_in(&folder))).rows()).await, [1]);
    // A query that begins anew has nothing to lose.
    assert_eq!(changed().begin(&writer("other", 1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_snapshot_may_end_at_an_instant() {
    let mut sink = instants(None, None);
    let rows = sink.rows();
    sink.begin(&writer("q", 1)).await.unwrap();
    assert_eq!(rows.closed_to(), Some(EventTime(i64::MIN)));
    put(&mut sink, 0, 10, &[1]).await.unwrap();
    put(&mut sink, 1, 20, &[2]).await.unwrap();
    sink.publish(EventTime(25)).unwrap();
    assert_eq!(rows.closed_to(), Some(EventTime(25)));
    for (up_to, count) in [(9, 0), (10, 1), (19, 1), (20, 2), (9, 0)] {
        let table = rows.snapshot(Some(EventTime(up_to))).unwrap();
        assert_eq!(SessionContext::new().read_table(table).unwrap().count().await.unwrap(), count, "up to {up_to}");
    }
    assert_eq!(seen(&rows).await, [1, 2]);
    assert_eq!(groups(None).rows().closed_to(), None);
}

#[tokio::test]
async fn what_is_retained_is_a_matter_of_the_view_that_reads_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut sink = instants(None, Some(file_in(&folder)));
    sink.begin(&writer("q", 1)).await.unwrap();
    for (epoch, instant, value) in [(0, 10, 1), (1, 20, 2), (2, 30, 3)] {
        put(&mut sink, epoch, instant, &[value]).await.unwrap();
    }
    drop(sink);
    let mut shorter = instants(Some(10), Some(file_in(&folder)));
    assert_eq!(seen(&shorter.rows()).await, [2, 3]);
    shorter.begin(&writer("q", 2)).await.unwrap();
    put(&mut shorter, 3, 40, &[4]).await.unwrap();
    assert_eq!(seen(&shorter.rows()).await, [3, 4]);
    // Rows of another kind are those of another query, which says so when it begins.
    let file = Some(file_in(&folder));
    let mut other = ViewSink::open("w", &Results::Groups(vec![0]), numbers(&[]).schema(), None, file).unwrap();
    assert!(other.begin(&writer("q", 3)).await.unwrap_err().to_string().contains("are of another kind"));
}

/// The values that came after an epoch, and the epoch to go on after.
fn came(rows: &Arc<dyn MaterializedRows>, after: Option<u64>) -> Option<(u64, Vec<i64>)> {
    let changes = rows.since(after.map(Epoch)).unwrap()?;
    let last =
        |batch: &RecordBatch| batch.column(batch.num_columns() - 1).as_primitive::<Int64Type>().values().to_vec();
    Some((changes.epoch.0, changes.rows.iter().flat_map(last).collect()))
}

#[tokio::test]
async fn whoever_follows_a_view_gets_each_row_once_over_a_restart_too() {
    let folder = TempDir::new().unwrap();
    let mut sink = instants(None, Some(file_in(&folder)));
    sink.begin(&writer("q", 1)).await.unwrap();
    let rows = sink.rows();
    let mut commits = rows.commits();
    put(&mut sink, 0, 10, &[1, 2]).await.unwrap();
    assert!(commits.has_changed().unwrap());
    assert_eq!(came(&rows, None), Some((0, vec![1, 2])));
    // An epoch without rows is none that brings any.
    sink.commit(Epoch(1)).await.unwrap();
    sink.publish(EventTime(15)).unwrap();
    assert_eq!(came(&rows, Some(0)), None);
    put(&mut sink, 2, 20, &[3]).await.unwrap();
    put(&mut sink, 3, 30, &[4]).await.unwrap();
    assert_eq!(came(&rows, Some(0)), Some((3, vec![3, 4])));
    drop(sink);
    commits.borrow_and_update();
    assert!(commits.changed().await.is_err(), "its end is not told");
    let rows = instants(None, Some(file_in(&folder))).rows();
    assert_eq!(came(&rows, Some(0)), Some((3, vec![3, 4])));
    assert_eq!(came(&rows, Some(3)), None);
}

#[tokio::test]
async fn rows_that_are_no_longer_kept_are_refused_and_not_passed_over() {
    let folder = TempDir::new().unwrap();
    let mut sink = instants(Some(10), Some(file_in(&folder)));
    sink.begin(&writer("q", 1)).await.unwrap();
    for epoch in 0..5 {
        put(&mut sink, epoch, 10 * epoch.cast_signed(), &[epoch.cast_signed()]).await.unwrap();
    }
    // Dropped from the file with the commit after it.
    drop(sink);
    let rows = instants(Some(10), Some(file_in(&folder))).rows();
    assert_eq!(came(&rows, Some(3)), Some((4, vec![4])));
    assert!(rows.since(Some(Epoch(0))).is_err());
    assert!(came(&rows, None).is_some_and(|(epoch, _)| epoch == 4));
}

#[tokio::test]
async fn changes_of_groups_are_single_ones_while_they_are_known() {
    let mut sink = groups(None);
    let rows = sink.rows();
    put_groups(&mut sink, 0, &[(1, 10), (2, 20)]).await;
    put_groups(&mut sink, 1, &[(2, 21)]).await;
    assert_eq!(came(&rows, Some(0)), Some((1, vec![21])));
    assert_eq!(came(&rows, None), Some((1, vec![10, 21])));
}
