//! The connector `nexmark`: the same auction house for the same options, in any order of reading.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::common::{next, open, read, stream, texts, timestamp};
use datafusion::arrow::datatypes::DataType;
use millstream_connectors::open_source;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::source::{MemoryIndex, Offset};

const TEXT: DataType = DataType::Utf8View;
const NUMBER: DataType = DataType::Int64;

fn columns(table: &str) -> Vec<(&'static str, DataType)> {
    match table {
        "person" => vec![
            ("id", NUMBER),
            ("name", TEXT),
            ("email_address", TEXT),
            ("credit_card", TEXT),
            ("city", TEXT),
            ("state", TEXT),
            ("date_time", timestamp()),
            ("extra", TEXT),
        ],
        "auction" => vec![
            ("id", NUMBER),
            ("item_name", TEXT),
            ("description", TEXT),
            ("initial_bid", NUMBER),
            ("reserve", NUMBER),
            ("date_time", timestamp()),
            ("expires", timestamp()),
            ("seller", NUMBER),
            ("category", NUMBER),
            ("extra", TEXT),
        ],
        _ => vec![
            ("auction", NUMBER),
            ("bidder", NUMBER),
            ("price", NUMBER),
            ("channel", TEXT),
            ("url", TEXT),
            ("date_time", timestamp()),
            ("extra", TEXT),
        ],
    }
}

fn table(table: &str, with: &[(&str, &str)]) -> Arc<StreamDefinition> {
    let mut options = vec![("connector", "nexmark"), ("table", table)];
    options.extend(with);
    stream(&columns(table), &options)
}

/// The first rows of each table, so that a change of the generator, which changes every result, is seen.
#[tokio::test]
async fn rows_are_as_documented() {
    let with = [("events", "100"), ("start", "2024-01-01"), ("event_rate", "10"), ("seed", "1")];
    let first = async |name| read(&table(name, &with)).await.unwrap().good;
    let people = first("person").await;
    assert_eq!(people.len(), 2);
    let person =
        "1000|luke walton|qutqsxz@nveiv.com|5653 7491 6641 1188|boise|az|2024-01-01T00:00:00|iemjkfppbgljgpeuts";
    assert!(people[0].starts_with(person), "{}", people[0]);
    let auctions = first("auction").await;
    let ids: Vec<&str> = auctions.iter().map(|row| &row[..5]).collect();
    assert_eq!(ids, ["1000|", "1001|", "1002|", "1003|", "1004|", "1005|"]);
    let auction = "1005|wygfoenoscyevoskjbpj|axzzcvuurkxozbpsyrjj";
    assert!(auctions[5].starts_with(auction), "{}", auctions[5]);
    assert!(auctions[5].contains("|174|4791|2024-01-01T00:00:05.300|2024-01-01T00:04:06.989|1000|12|"));
    let bids = first("bid").await;
    assert_eq!(bids.len(), 92);
    let bid =
        "1010|1001|27585579|Google|https://www.nexmark.com/hrw/qfd/aq_q/item.htm?query=1|2024-01-01T00:00:09.900|";
    assert!(bids[91].starts_with(bid), "{}", bids[91]);
}

#[tokio::test]
async fn rows_are_made_again_from_any_offset() {
    let definition = table("bid", &[("events", "100000"), ("start", "now"), ("out_of_order_group_size", "100")]);
    let index = Arc::new(MemoryIndex::default());
    let open = async |from: u64| {
        let source = open_source(&definition).unwrap();
        assert!(source.is_replayable());
        source.open(&[Offset(from)], Arc::clone(&index) as _).await.unwrap().remove(0)
    };
    let mut first = open(0).await;
    let mut all = Vec::new();
    while let Some(split) = first.next(None).await.unwrap() {
        all.extend(texts(&split.decode.decode().unwrap().batch));
    }
    assert_eq!(all.len(), 92_000);
    let mut again = open(12_345).await;
    let split = again.next(Some(Offset(20_000))).await.unwrap().unwrap();
    assert_eq!(split.offsets, Offset(12_345)..Offset(20_000));
    assert_eq!(texts(&split.decode.decode().unwrap().batch), all[12_345..20_000]);
}

#[tokio::test]
async fn a_seed_gives_the_same_rows_and_another_seed_others() {
    let with = |seed| [("events", "1000"), ("seed", seed)];
    for name in ["person", "auction", "bid"] {
        let first = read(&table(name, &with("1"))).await.unwrap().good;
        assert_eq!(first, read(&table(name, &with("1"))).await.unwrap().good);
        assert_ne!(first, read(&table(name, &with("18446744073709551615"))).await.unwrap().good);
    }
}

#[tokio::test]
async fn rows_out_of_order_are_the_same_rows() {
    let mut ordered = read(&table("auction", &[("events", "2000")])).await.unwrap().good;
    let mut shuffled =
        read(&table("auction", &[("events", "2000"), ("out_of_order_group_size", "50")])).await.unwrap().good;
    assert_ne!(shuffled, ordered);
    ordered.sort_unstable();
    shuffled.sort_unstable();
    assert_eq!(shuffled, ordered);
}

#[tokio::test]
async fn some_columns_may_be_declared_in_other_order_and_number_types() {
    let columns = [("PRICE", DataType::Decimal128(12, 2)), ("auction", DataType::Int32), ("channel", DataType::Utf8)];
    let options = [("connector", "nexmark"), ("table", "bid"), ("events", "10"), ("start", "2024-01-01")];
    let some = read(&stream(&columns, &options)).await.unwrap().good;
    let all = read(&table("bid", &[("events", "10"), ("start", "2024-01-01")])).await.unwrap().good;
    let expected = all.iter().map(|row| {
        let values: Vec<&str> = row.split('|').collect();
        format!("{}.00|{}|{}", values[2], values[0], values[3])
    });
    assert_eq!(some, expected.collect::<Vec<_>>());
}

#[test]
fn wrong_options_and_columns_are_refused() {
    let cases = [
        ("event_rate", "0", "nexmark: event_rate is 0"),
        ("out_of_order_group_size", "0", "nexmark: out_of_order_group_size is out of range"),
        ("out_of_order_group_size", "1906", "nexmark: out_of_order_group_size is out of range"),
        ("start", "soon", "option start = 'soon' is not a timestamp such as '2024-01-02T09:30:00', or 'now'"),
        ("seed", "-1", "option seed = '-1' is not a whole number"),
        ("event", "5", "unknown option \"event\" for connector nexmark"),
        ("table", "sellers", "option \"table\" is given twice"),
    ];
    for (key, value, message) in cases {
        assert_eq!(open_source(&table("bid", &[(key, value)])).unwrap_err().to_string(), message);
    }
    let refused = |columns: &[(&str, DataType)], options: &[(&str, &str)]| {
        let options = [&[("connector", "nexmark")], options].concat();
        let error = open_source(&stream(columns, &options)).unwrap_err();
        (error.to_string(), error.hint().unwrap_or_default().to_owned())
    };
    let (message, hint) = refused(&[("price", TEXT)], &[("table", "bid")]);
    assert_eq!((message.as_str(), hint.as_str()), ("nexmark: column \"price\" cannot be VARCHAR", "declare it BIGINT"));
    let (message, hint) = refused(&[("date_time", NUMBER)], &[("table", "person")]);
    let expected = ("nexmark: column \"date_time\" cannot be BIGINT", "declare it TIMESTAMP");
    assert_eq!((message.as_str(), hint.as_str()), expected);
    let (message, hint) = refused(&[("seller", NUMBER)], &[("table", "bid")]);
    assert_eq!(message, "nexmark: table bid has no column \"seller\"");
    assert_eq!(hint, "it has: auction, bidder, price, channel, url, date_time, extra");
    let (message, _) = refused(&[("id", NUMBER)], &[("table", "sellers")]);
    assert_eq!(message, "option table = 'sellers' is not one of 'person', 'auction', 'bid'");
    let (message, hint) = refused(&[("id", NUMBER)], &[]);
    assert_eq!(
        (message.as_str(), hint.as_str()),
        ("connector nexmark needs the option \"table\"", "add table = 'bid'")
    );
}

#[tokio::test]
async fn a_number_that_does_not_fit_its_column_is_an_error() {
    let options = [("connector", "nexmark"), ("table", "bid"), ("events", "1000")];
    let error = read(&stream(&[("price", DataType::Int8)], &options)).await.unwrap_err();
    assert_eq!(error.to_string(), "nexmark: a value of column \"price\" is no TINYINT");
}

/// A rate counts events of all tables, so that streams with the same options keep up with each other.
#[tokio::test]
async fn a_rate_is_kept() {
    let start = Instant::now();
    let mut reader = open(&table("auction", &[("events", "5000"), ("rate", "50000")])).await.unwrap();
    let mut rows = 0;
    while let Some(split) = next(reader.as_mut()).await.unwrap() {
        rows += split.decode.decode().unwrap().batch.num_rows();
    }
    assert_eq!(rows, 300);
    assert!(start.elapsed() >= Duration::from_millis(95), "{:?}", start.elapsed());
}
