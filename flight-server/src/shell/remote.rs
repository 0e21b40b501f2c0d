//! A server as the shell sees it, by Flight SQL.

use std::sync::{Arc, Mutex, PoisonError};

use arrow_flight::FlightInfo;
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::flight_service_client::FlightServiceClient;
use arrow_flight::sql::CommandGetTables;
use arrow_flight::sql::client::FlightSqlServiceClient;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::ipc::convert::try_schema_from_ipc_buffer;
use datafusion::arrow::record_batch::RecordBatch;
use futures::TryStreamExt;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};

use super::backend::{Answered, Found};
use crate::cli::SqlArgs;
use crate::error::{Error, Result};

/// A connection to a server.
#[derive(Debug)]
pub(super) struct Remote {
    client: FlightSqlServiceClient<Channel>,
    pub(super) names: Arc<Mutex<Vec<String>>>,
}

/// What stands in `grpc://user:password@host:port`.
#[derive(Debug, PartialEq)]
struct Target<'a> {
    is_encrypted: bool,
    user: Option<(&'a str, &'a str)>,
    host: &'a str,
}

impl<'a> Target<'a> {
    fn parse(url: &'a str) -> Result<Self> {
        let (scheme, rest) = url.split_once("://").unwrap_or(("grpc", url));
        let is_encrypted = match scheme {
            "grpc" | "grpc+tcp" | "http" => false,
            "grpc+tls" | "grpcs" | "https" => true,
            _ => return Err(Error::Usage(format!("{scheme}:// is no server: write grpc:// or grpc+tls://"))),
        };
        let (user, host) = match rest.rsplit_once('@') {
            Some((user, host)) => (Some(user.split_once(':').unwrap_or((user, ""))), host),
            None => (None, rest),
        };
        Ok(Self { is_encrypted, user, host: host.trim_end_matches('/') })
    }
}

impl Remote {
    /// Connects to the server at `url`.
    ///
    /// # Errors
    /// It cannot be reached, or does not let the user in.
    pub(super) async fn connect(url: &str, args: &SqlArgs) -> Result<Self> {
        let target = Target::parse(url)?;
        let host = target.host;
        let scheme = if target.is_encrypted { "https" } else { "http" };
        let cannot = |error: tonic::transport::Error| Error::Io {
            context: format!("cannot connect to {host}"),
            source: std::io::Error::other(error),
        };
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{host}")).map_err(cannot)?;
        if target.is_encrypted {
            endpoint = endpoint.tls_config(encryption(args)?).map_err(cannot)?;
        }
        let channel = endpoint.connect().await.map_err(cannot)?;
        // Rows may be wide, and the server is one that somebody chose.
        let client = FlightServiceClient::new(channel).max_decoding_message_size(usize::MAX);
        let mut client = FlightSqlServiceClient::new_from_inner(client);
        match (target.user, &args.token) {
            (Some((name, password)), _) => {
                client
                    .handshake(name, password)
                    .await
                    .map_err(|error| Error::Server(format!("{host} does not let {name} in: {error}")))?;
            }
            (None, Some(token)) => client.set_token(token.clone()),
            (None, None) => {}
        }
        let mut remote = Self { client, names: Arc::default() };
        remote.learn_names().await;
        Ok(remote)
    }

    /// Carries out a statement.
    pub(super) async fn answer(&mut self, text: &str) -> Result<Answered> {
        let found = self.query(text).await?;
        let is_explained = text.trim_start().get(..7).is_some_and(|word| word.eq_ignore_ascii_case("explain"));
        if found.schema().fields().is_empty() {
            return Ok(Answered::Done);
        }
        if is_explained { lines(found).await.map(Answered::Text) } else { Ok(Answered::Rows(found)) }
    }

    /// The rows of a statement.
    pub(super) async fn query(&mut self, text: &str) -> Result<Found> {
        let info = self.client.execute(text.to_owned(), None).await.map_err(|error| said(&error))?;
        self.fetch(info).await
    }

    async fn fetch(&mut self, info: FlightInfo) -> Result<Found> {
        let ticket = info.endpoint.first().and_then(|endpoint| endpoint.ticket.clone());
        let ticket = ticket.ok_or_else(|| Error::Server("the server gives no rows and no reason".to_owned()))?;
        let schema = info.try_decode_schema().map_err(|error| said(&FlightError::Arrow(error)))?;
        let stream = self.client.do_get(ticket).await.map_err(|error| said(&error))?;
        Ok(Found::There(Arc::new(schema), Some(Box::new(stream))))
    }

    /// Learns what is declared; what cannot be learnt is not completed.
    pub(super) async fn learn_names(&mut self) {
        if let Ok(names) = self.declared().await {
            *self.names.lock().unwrap_or_else(PoisonError::into_inner) = names;
        }
    }

    async fn declared(&mut self) -> Result<Vec<String>> {
        let request = CommandGetTables { include_schema: true, ..CommandGetTables::default() };
        let info = self.client.get_tables(request).await.map_err(|error| said(&error))?;
        let Found::There(_, Some(stream)) = self.fetch(info).await? else { return Ok(Vec::new()) };
        let batches: Vec<RecordBatch> = collect(*stream).await?;
        let mut names = Vec::new();
        for batch in &batches {
            let (Some(tables), Some(schemas)) =
                (batch.column_by_name("table_name"), batch.column_by_name("table_schema"))
            else {
                continue;
            };
            names.extend(tables.as_string::<i32>().iter().flatten().map(str::to_owned));
            for schema in schemas.as_binary::<i32>().iter().flatten() {
                if let Ok(columns) = try_schema_from_ipc_buffer(schema) {
                    names.extend(columns.fields().iter().map(|field| field.name().clone()));
                }
            }
        }
        Ok(names)
    }
}

async fn collect(stream: FlightRecordBatchStream) -> Result<Vec<RecordBatch>> {
    stream.try_collect().await.map_err(|error| said(&error))
}

/// Rows of one text as text.
async fn lines(mut found: Found) -> Result<String> {
    let mut text = String::new();
    while let Some(batch) = found.next().await {
        let batch = batch?;
        let lines = batch.columns().first().and_then(|column| column.as_string_opt::<i32>().cloned());
        for line in lines.iter().flat_map(|lines| lines.iter().flatten()) {
            text.push_str(line);
            text.push('\n');
        }
    }
    Ok(text)
}

fn encryption(args: &SqlArgs) -> Result<ClientTlsConfig> {
    let Some(path) = &args.tls_ca else {
        return Err(Error::Usage(
            "an encrypted connection needs --tls-ca, who has signed the server's certificate".to_owned(),
        ));
    };
    let pem = std::fs::read(path)
        .map_err(|source| Error::Io { context: format!("cannot read {}", path.display()), source })?;
    Ok(ClientTlsConfig::new().ca_certificate(Certificate::from_pem(pem)))
}

/// What a server has said.
pub(super) fn said(error: &FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => Error::Server(status.message().to_owned()),
        other => Error::Server(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_say_how_and_as_whom_to_connect() {
        let parsed = |url| Target::parse(url).unwrap();
        assert_eq!(parsed("127.0.0.1:1"), Target { is_encrypted: false, user: None, host: "127.0.0.1:1" });
        let expected = Target { is_encrypted: true, user: Some(("ann", "a:b@c")), host: "db:1" };
        assert_eq!(parsed("grpc+tls://ann:a:b@c@db:1/"), expected);
        assert!(Target::parse("ftp://x").is_err());
    }
}
