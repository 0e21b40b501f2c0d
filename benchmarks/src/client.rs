//! A server in a process of its own, and clients of it.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, ensure};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::client::FlightSqlServiceClient;
use arrow_flight::utils::batches_to_flight_data;
use arrow_flight::{FlightData, FlightDescriptor, PutResult};
use datafusion::arrow::array::{AsArray, Float64Array, Int64Array, StringArray, TimestampMillisecondArray};
use datafusion::arrow::datatypes::{DataType, Field, Int64Type, Schema, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use tonic::transport::{Channel, Endpoint};

use crate::process::kibibytes;

/// The stream that all measurements append to.
pub(crate) const TRADES: &str = "CREATE STREAM trades (szcode VARCHAR, price DOUBLE, turnover BIGINT, ts TIMESTAMP(3),
                                 WATERMARK FOR ts AS ts - INTERVAL '60 seconds') WITH (connector = 'push')";

/// A server over a folder of its own; it is killed in the end.
pub(crate) struct Server {
    child: Child,
    address: String,
    // One with executors says more than its address, and would fail if nobody could read it.
    _stdout: BufReader<ChildStdout>,
    _folder: tempfile::TempDir,
}

/// A client of it.
pub(crate) type Client = FlightSqlServiceClient<Channel>;

impl Server {
    /// Starts the `millstream` beside this program.
    pub(crate) fn start() -> anyhow::Result<Self> {
        Self::start_with(&[])
    }

    /// The same with more arguments of `millstream serve`.
    pub(crate) fn start_with(arguments: &[&str]) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("millstream");
        ensure!(program.exists(), "{} is not there: build the whole workspace", program.display());
        let folder = tempfile::tempdir()?;
        let mut child = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0", "--durability", "process_crash", "--data-dir"])
            .arg(folder.path())
            .args(arguments)
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        let mut stdout = BufReader::new(child.stdout.take().context("no stdout")?);
        stdout.read_line(&mut line)?;
        let (_, address) = line.trim().split_once("://").with_context(|| format!("the server said {line:?}"))?;
        Ok(Self { address: format!("http://{address}"), child, _stdout: stdout, _folder: folder })
    }

    /// Connects.
    pub(crate) async fn client(&self) -> anyhow::Result<Client> {
        let endpoint = Endpoint::from_shared(self.address.clone())?
            .tcp_nodelay(true)
            .initial_connection_window_size(8 << 20)
            .initial_stream_window_size(8 << 20);
        let channel = endpoint.connect().await?;
        let client = FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        Ok(FlightSqlServiceClient::new_from_inner(client))
    }

    /// The id of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that its process has had, in MiB.
    pub(crate) fn peak_memory(&self) -> anyhow::Result<u64> {
        Ok(kibibytes(self.pid(), "VmHWM")? >> 10)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended by itself only if it failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends messages and takes what is answered to each batch.
pub(crate) async fn put(
    client: &mut Client,
    messages: impl IntoIterator<Item = FlightData, IntoIter: Send + 'static>,
) -> anyhow::Result<Vec<PutResult>> {
    Ok(client.do_put(futures::stream::iter(messages)).await?.try_collect().await?)
}

/// Begins a statement; its rows come when they are there.
pub(crate) async fn begin(client: &mut Client, sql: &str) -> anyhow::Result<FlightRecordBatchStream> {
    let info = client.execute(sql.to_owned(), None).await?;
    let ticket = info.endpoint.first().and_then(|endpoint| endpoint.ticket.clone()).context("no ticket")?;
    Ok(client.do_get(ticket).await?)
}

/// The rows of a statement.
pub(crate) async fn ask(client: &mut Client, sql: &str) -> anyhow::Result<Vec<RecordBatch>> {
    Ok(begin(client, sql).await?.try_collect().await?)
}

/// The whole number in the first row and column of an answer; none for NULL.
pub(crate) async fn ask_number(client: &mut Client, sql: &str) -> anyhow::Result<Option<i64>> {
    let batches = ask(client, sql).await?;
    let column = batches.iter().find(|batch| batch.num_rows() > 0).map(|batch| Arc::clone(batch.column(0)));
    let column = column.context("no rows")?;
    let numbers = column.as_primitive_opt::<Int64Type>().context("no whole number")?;
    Ok(numbers.iter().next().flatten())
}

/// Trades of 4,000 codes; `per_second` of them in a second of event time, from the row `first` on.
pub(crate) fn trades(first: u64, rows: usize, per_second: u64) -> anyhow::Result<RecordBatch> {
    let numbers = || first..first + rows as u64;
    let codes: StringArray = numbers().map(|row| Some(format!("{:06}", row * 7_919 % 4_000))).collect();
    let price: Float64Array = numbers().map(|row| Some((row % 1_000) as f64 / 10.0)).collect();
    let turnover: Int64Array = numbers().map(|row| Some((row % 100).cast_signed())).collect();
    let ts: TimestampMillisecondArray = numbers().map(|row| Some((row * 1_000 / per_second).cast_signed())).collect();
    let schema = Schema::new(vec![
        Field::new("szcode", DataType::Utf8, true),
        Field::new("price", DataType::Float64, true),
        Field::new("turnover", DataType::Int64, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Millisecond, None), true),
    ]);
    Ok(RecordBatch::try_new(
        Arc::new(schema),
        vec![Arc::new(codes), Arc::new(price), Arc::new(turnover), Arc::new(ts)],
    )?)
}

/// The messages that put batches into the stream, each with the metadata of a producer if it has a name.
pub(crate) fn messages(batches: &[RecordBatch], producer: Option<(&str, u64)>) -> anyhow::Result<Vec<FlightData>> {
    let schema = batches.first().context("no batch")?.schema();
    let mut messages = batches_to_flight_data(&schema, batches.to_vec())?;
    if let Some(first) = messages.first_mut() {
        first.flight_descriptor = Some(FlightDescriptor::new_path(vec!["trades".to_owned()]));
    }
    if let Some((name, sequence)) = producer {
        for (message, number) in messages.iter_mut().skip(1).zip(sequence..) {
            message.app_metadata = format!(r#"{{"producer":"{name}","sequence":{number}}}"#).into();
        }
    }
    Ok(messages)
}
