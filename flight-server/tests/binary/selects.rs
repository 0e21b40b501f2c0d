//! Endless SELECTs over connections that are lost, by the client of the Arrow crate.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "tests")]

use arrow_flight::FlightData;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::{FlightInfo, Ticket};
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::Int64Type;
use futures::{StreamExt, TryStreamExt};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::process::Folder;
use super::serve::{FIRST, Server, TRADES};

/// Rows that come, with what is said about them.
struct Coming {
    messages: Streaming<FlightData>,
    seen: Vec<FlightData>,
}

/// Where a client is in the rows of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    query: String,
    epoch: u64,
}

async fn channel(server: &Server) -> Channel {
    Endpoint::from_shared(format!("http://{}", server.address)).unwrap().connect().await.unwrap()
}

async fn ask(channel: &Channel, sql: &str) -> Result<Coming, Status> {
    let mut client = FlightSqlServiceClient::new(channel.clone());
    let info: FlightInfo = client.execute(sql.to_owned(), None).await.map_err(|error| match error {
        arrow_flight::error::FlightError::Tonic(status) => *status,
        other => Status::internal(other.to_string()),
    })?;
    let ticket: Ticket = info.endpoint[0].ticket.clone().unwrap();
    let messages = FlightServiceClient::new(channel.clone()).do_get(ticket).await?.into_inner();
    Ok(Coming { messages, seen: Vec::new() })
}

impl Coming {
    /// The numbers in the first column, as many as are wanted, and where the client is then.
    async fn numbers(&mut self, count: usize) -> (Vec<i64>, Place) {
        loop {
            let rows = FlightRecordBatchStream::new_from_flight_data(futures::stream::iter(
                self.seen.clone().into_iter().map(Ok),
            ));
            let batches: Vec<_> = rows.try_collect().await.unwrap();
            let numbers: Vec<i64> =
                batches.iter().flat_map(|rows| rows.column(0).as_primitive::<Int64Type>().values().to_vec()).collect();
            let said = self.seen.last().map(|message| message.app_metadata.clone()).unwrap_or_default();
            let said: serde_json::Value = serde_json::from_slice(&said).unwrap_or_default();
            if numbers.len() >= count
                && let Some(epoch) = said["epoch"].as_u64()
            {
                assert!(said["watermark"].is_string(), "{said}");
                return (numbers, Place { query: said["query"].as_str().unwrap().to_owned(), epoch });
            }
            self.seen.push(self.messages.next().await.unwrap().unwrap());
        }
    }
}

#[test]
fn a_select_goes_on_after_its_connection_was_lost() {
    let folder = Folder::new();
    let server = Server::start(&folder, &[]);
    server.ask(TRADES);
    server.push(FIRST);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let first = channel(&server).await;
        let mut coming = ask(&first, "SELECT turnover FROM trades").await.unwrap();
        let (numbers, place) = coming.numbers(3).await;
        assert_eq!(numbers, [10, 20, 30]);
        // The connection goes, and rows come while nobody takes them.
        drop((coming, first));
        server.push("A,4,40,2026-01-01T00:00:13\n");
        let second = channel(&server).await;
        let resume = format!("SUBSCRIBE QUERY '{}' AS OF EPOCH {}", place.query, place.epoch);
        let mut coming = ask(&second, &resume).await.unwrap();
        let (numbers, later) = coming.numbers(1).await;
        assert_eq!((numbers, &later.query), (vec![40], &place.query));
        assert!(later.epoch > place.epoch, "{later:?} {place:?}");
        // Rows that did not arrive are sent again, and the connection before hears that it has them no more.
        let third = channel(&server).await;
        let mut again = ask(&third, &resume).await.unwrap();
        assert_eq!(again.numbers(1).await.0, [40]);
        let refused = coming.messages.next().await.unwrap().unwrap_err();
        assert_eq!(refused.code(), Code::Aborted, "{refused}");
        server.push("A,5,50,2026-01-01T00:00:14\n");
        assert_eq!(again.numbers(2).await.0, [40, 50]);
        // Who leaves it over a connection that is still there does not want it any more.
        drop(again);
        server.ask_until("SHOW QUERIES", |rows| rows.lines().count() == 1);
        let refused = ask(&third, &resume).await.err().unwrap();
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
    });
}

#[test]
fn a_select_without_patience_ends_with_its_connection() {
    let folder = Folder::new();
    let server = Server::start(&folder, &["--resume-seconds", "0"]);
    server.ask(TRADES);
    server.push(FIRST);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let first = channel(&server).await;
        let mut coming = ask(&first, "SELECT turnover FROM trades").await.unwrap();
        let (_, place) = coming.numbers(3).await;
        drop((coming, first));
        server.ask_until("SHOW QUERIES", |rows| rows.lines().count() == 1);
        let resume = format!("SUBSCRIBE QUERY '{}' AS OF EPOCH {}", place.query, place.epoch);
        let refused = ask(&channel(&server).await, &resume).await.err().unwrap();
        assert_eq!(refused.code(), Code::NotFound, "{refused}");
    });
}
