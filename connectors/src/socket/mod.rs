//! Connector `socket`: lines of CSV or JSON from TCP, either side connecting.
//!
//! All connections feed one partition, in the order in which their complete lines arrive. Nothing is read ahead
//! beyond one piece per connection, so that a slow reader fills the kernel's buffers and makes the sender wait.
//! A socket cannot be replayed; offsets count the bytes since the start, over all connections.

mod connection;
mod reader;

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::source::{InputIndex, Offset, PartitionReader, Source};
use millstream_engine::{Error, Result};
use tokio::net::{TcpListener, TcpStream};

use crate::format::csv::CsvFormat;
use crate::format::rows::RowShape;
use crate::format::text::{Syntax, TextFormat};
use crate::format::{Format, timestamp_unit};
use crate::options::Options;
use connection::Connector;
use reader::SocketReader;

/// Which side opens the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Connect,
    Listen,
}

/// Lines from TCP connections.
#[derive(Debug)]
pub struct SocketSource {
    address: String,
    mode: Mode,
    reconnect: bool,
    format: Arc<TextFormat>,
    bound: OnceLock<SocketAddr>,
}

impl SocketSource {
    /// The source that `definition` describes.
    ///
    /// # Errors
    /// Fails for options that are unknown, missing or wrong.
    pub fn new(definition: &StreamDefinition) -> Result<Self> {
        let mut options = Options::new("socket", &definition.options)?;
        let address = read_address(&mut options)?;
        let modes = [("connect", Mode::Connect), ("listen", Mode::Listen)];
        let mode = options.choice("mode", &modes)?.unwrap_or(Mode::Connect);
        let formats = [("csv", Format::Csv), ("json", Format::Json)];
        let format = options.choice("format", &formats)?.unwrap_or(Format::Csv);
        let reconnect = options.boolean("reconnect")?.unwrap_or(true);
        let csv = CsvFormat::from_options(&mut options, Some(false))?;
        let shape = RowShape::new(definition, timestamp_unit(&mut options)?)?;
        options.finish()?;
        let syntax = if format == Format::Csv { Syntax::Csv(csv) } else { Syntax::Json };
        let format = TextFormat::new(shape, syntax)?;
        Ok(Self { address, mode, reconnect, format, bound: OnceLock::new() })
    }

    /// The address that is listened on, once the source is open in mode `listen`; tells the port chosen for port 0.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.bound.get().copied()
    }

    async fn listen(&self) -> Result<TcpListener> {
        let listener = TcpListener::bind(&self.address).await;
        let listener = listener.map_err(|error| Error::external(format!("listening on {}", self.address), error))?;
        let bound = listener.local_addr();
        let bound = bound.map_err(|error| Error::external(format!("listening on {}", self.address), error))?;
        let bound = *self.bound.get_or_init(|| bound);
        tracing::info!(address = %bound, "listening");
        Ok(listener)
    }

    async fn connect_once(&self) -> Result<TcpStream> {
        TcpStream::connect(&self.address).await.map_err(|error| {
            let remedy = "start the sender first, or set reconnect = 'true' to wait for it";
            Error::external(format!("connecting to {}: {remedy}", self.address), error)
        })
    }
}

#[async_trait]
impl Source for SocketSource {
    async fn open(&self, _: &[Offset], _: Arc<dyn InputIndex>) -> Result<Vec<Box<dyn PartitionReader>>> {
        let connector = Connector { address: self.address.clone(), format: Arc::clone(&self.format) };
        let reader = match (self.mode, self.reconnect) {
            (Mode::Listen, reconnect) => {
                let listener = self.listen().await?;
                SocketReader::spawn(|pieces| connector.accept_all(listener, pieces, reconnect))
            }
            (Mode::Connect, true) => SocketReader::spawn(|pieces| connector.connect_for_ever(pieces)),
            (Mode::Connect, false) => {
                let stream = self.connect_once().await?;
                SocketReader::spawn(|pieces| connector.read_once(stream, pieces))
            }
        };
        Ok(vec![Box::new(reader)])
    }

    fn is_replayable(&self) -> bool {
        false
    }

    fn describe(&self) -> String {
        format!("socket {}", self.address)
    }
}

fn read_address(options: &mut Options<'_>) -> Result<String> {
    let (address, host, port) = (options.string("address"), options.string("host"), options.string("port"));
    let address = match (address, host, port) {
        (Some(address), None, None) => address.trim().to_owned(),
        (None, host, Some(port)) => format!("{}:{}", host.unwrap_or("127.0.0.1").trim(), port.trim()),
        (Some(_), _, _) => {
            return Err(Error::query("connector socket has both address and host or port", "keep address only"));
        }
        (None, _, None) => {
            return Err(Error::query(
                "connector socket needs the option \"address\"",
                "add address = '127.0.0.1:9999'",
            ));
        }
    };
    let port = address.rsplit_once(':').map(|(_, port)| port.parse::<u16>());
    if matches!(port, Some(Ok(_))) {
        return Ok(address);
    }
    Err(Error::query(format!("socket address {address:?} is not a host and a port"), "write it as 'host:port'"))
}
