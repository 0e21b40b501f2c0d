//! The sink that posts rows to a web address.
//!
//! A receiver has no ledger that this side could read, so that after a crash, or when an answer is lost, rows come
//! twice. Each request says under `Idempotency-Key` which rows it has, and a repeated one says the same: receivers that
//! remember the keys have every row once.

use std::time::Duration;

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::batch::Epoch;
use millstream_engine::sink::{Guarantee, Sink, SinkWriter};
use millstream_engine::{Error, Result};
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};

use super::not_begun;
use super::staged::Staged;
use super::text::write_json_array;

/// How often a request is tried …
const ATTEMPTS: u32 = 10;
/// … and the longest pause between two attempts.
const MAX_PAUSE: Duration = Duration::from_secs(5);
/// The characters of an answer that an error quotes.
const QUOTED_CHARACTERS: usize = 200;
/// The bytes of an answer that are read for that.
const ANSWER_BYTES: usize = 4096;

/// Where and how rows are posted.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) url: Url,
    /// Its `Debug` shows nothing of it.
    pub(super) authorization: Option<HeaderValue>,
    /// The rows of a request at the most.
    pub(super) max_rows: usize,
    /// How long an answer may take.
    pub(super) timeout: Duration,
}

/// Posts the rows of each epoch as JSON arrays of objects, in order.
#[derive(Debug)]
pub struct WebhookSink {
    target: Target,
    client: Client,
    writer: Option<SinkWriter>,
    staged: Staged,
}

impl WebhookSink {
    /// A sink; nothing is connected yet.
    ///
    /// # Errors
    /// Fails if the machine's certificates cannot be used.
    pub(super) fn new(target: Target) -> Result<Self> {
        // Rows go where they were sent to and nowhere else.
        let client = Client::builder().timeout(target.timeout).redirect(Policy::none()).build();
        let client = client.map_err(|error| Error::external("preparing web requests", error))?;
        Ok(Self { target, client, writer: None, staged: Staged::default() })
    }

    /// Posts a body until the receiver has taken it.
    async fn post(&self, key: &str, body: Vec<u8>) -> Result<()> {
        let mut pause = Duration::from_millis(100);
        for attempt in 1.. {
            let failure = match self.post_once(key, body.clone()).await {
                Ok(response) if response.status().is_success() => return Ok(()),
                Ok(response) if !is_passing(response.status()) => return Err(self.refused(response).await),
                Ok(response) if attempt == ATTEMPTS => return Err(self.refused(response).await),
                Ok(response) => response.status().to_string(),
                Err(error) if attempt == ATTEMPTS => return Err(self.failed(error.without_url())),
                Err(error) => error.without_url().to_string(),
            };
            tracing::warn!(failure, attempt, "{} does not take rows, trying again", self.place());
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
        Err(Error::internal("attempts do not end"))
    }

    async fn post_once(&self, key: &str, body: Vec<u8>) -> reqwest::Result<Response> {
        let mut request = self.client.post(self.target.url.clone()).body(body);
        if let Some(authorization) = &self.target.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        request.header(CONTENT_TYPE, "application/json").header("Idempotency-Key", key).send().await
    }

    /// Where rows go, without what may be secret in an address: user, password, query.
    fn place(&self) -> String {
        let url = &self.target.url;
        let port = url.port().map_or_else(String::new, |port| format!(":{port}"));
        format!("{}://{}{port}{}", url.scheme(), url.host_str().unwrap_or_default(), url.path())
    }

    fn failed(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        Error::external(format!("posting rows to {}", self.place()), error)
    }

    async fn refused(&self, mut response: Response) -> Error {
        let mut answer = Vec::new();
        // What cannot be read is not quoted; the status says enough.
        while let (true, Ok(Some(part))) = (answer.len() < ANSWER_BYTES, response.chunk().await) {
            answer.extend_from_slice(&part);
        }
        let answer: String = String::from_utf8_lossy(&answer).chars().take(QUOTED_CHARACTERS).collect();
        let answer = answer.split_whitespace().collect::<Vec<_>>().join(" ");
        let colon = if answer.is_empty() { "" } else { ": " };
        self.failed(format!("the answer is {}{colon}{answer}", response.status()))
    }
}

/// Whether trying again may help: the receiver is overloaded or not there.
fn is_passing(status: StatusCode) -> bool {
    status.is_server_error() || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
}

#[async_trait]
impl Sink for WebhookSink {
    fn guarantee(&self) -> Guarantee {
        Guarantee::AtLeastOnce
    }

    async fn begin(&mut self, writer: &SinkWriter) -> Result<Option<Epoch>> {
        self.writer = Some(writer.clone());
        Ok(None)
    }

    async fn stage(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<()> {
        self.staged.add(epoch, rows);
        Ok(())
    }

    async fn commit(&mut self, epoch: Epoch) -> Result<()> {
        let Some(batches) = self.staged.take(epoch) else { return Ok(()) };
        let query = self.writer.as_ref().ok_or_else(|| not_begun("webhook"))?.query.clone();
        for (part, rows) in parts(&batches, self.target.max_rows).into_iter().enumerate() {
            self.post(&format!("{query}-{}-{part}", epoch.0), write_json_array(&rows)?).await?;
        }
        Ok(())
    }
}

/// The rows in requests of `max_rows` at the most. The cut follows the rows alone, so that a repeated epoch has the
/// same parts however it was staged.
fn parts(batches: &[RecordBatch], max_rows: usize) -> Vec<Vec<RecordBatch>> {
    let mut parts: Vec<Vec<RecordBatch>> = Vec::new();
    let mut room = 0;
    for batch in batches {
        let mut from = 0;
        while from < batch.num_rows() {
            if room == 0 {
                parts.push(Vec::new());
                room = max_rows.max(1);
            }
            let rows = room.min(batch.num_rows() - from);
            if let Some(part) = parts.last_mut() {
                part.push(batch.slice(from, rows));
            }
            (from, room) = (from + rows, room - rows);
        }
    }
    parts
}

/// Reads the option `url`.
///
/// # Errors
/// Fails if it is no address of the web; the error does not quote it, as it may hold a password.
pub(super) fn parse_url(text: &str) -> Result<Url> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| {
        Error::query("the option url is no address of the web", "write url = 'https://alerts.example/hook'")
    })
}

/// Reads the option `authorization`.
///
/// # Errors
/// Fails if no header can carry it; the error does not quote it.
pub(super) fn parse_authorization(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        Error::query("the option authorization has characters that no header takes", "write 'Bearer TOKEN'")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::super::tests::writer;
    use super::super::text::tests::numbers;
    use super::*;

    /// A request as it came: the lines of its head in lower case, and its body.
    type Request = (String, String);

    /// Answers one request after another, each on a connection of its own.
    async fn receiver(answers: &'static [&'static str]) -> (String, JoinHandle<Vec<Request>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://me:secret@{}/hook?key=hidden", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let mut requests = Vec::new();
            for answer in answers {
                let (connection, _) = listener.accept().await.unwrap();
                let mut connection = BufReader::new(connection);
                let (mut head, mut length) = (String::new(), 0);
                loop {
                    let mut line = String::new();
                    connection.read_line(&mut line).await.unwrap();
                    let line = line.trim_end().to_lowercase();
                    if line.is_empty() {
                        break;
                    }
                    if let Some(value) = line.strip_prefix("content-length: ") {
                        length = value.parse().unwrap();
                    }
                    head += &format!("{line}\n");
                }
                let mut body = vec![0; length];
                connection.read_exact(&mut body).await.unwrap();
                requests.push((head, String::from_utf8(body).unwrap()));
                let answer = format!("HTTP/1.1 {answer}\r\nContent-Length: 8\r\nConnection: close\r\n\r\nnot now\n");
                connection.write_all(answer.as_bytes()).await.unwrap();
            }
            requests
        });
        (url, serving)
    }

    fn sink(url: &str) -> WebhookSink {
        let authorization = Some(parse_authorization("Bearer token").unwrap());
        let timeout = Duration::from_secs(60);
        WebhookSink::new(Target { url: parse_url(url).unwrap(), authorization, max_rows: 3, timeout }).unwrap()
    }

    #[tokio::test]
    async fn rows_come_in_order_in_requests_with_keys() {
        let (url, serving) = receiver(&["200 OK", "503 Service Unavailable", "204 No Content"]).await;
        let mut sink = sink(&url);
        assert_eq!(sink.guarantee(), Guarantee::AtLeastOnce);
        sink.begin(&writer("q", 1)).await.unwrap();
        sink.stage(Epoch(7), &[numbers(&[1, 2]), numbers(&[3])]).await.unwrap();
        sink.stage(Epoch(7), &[numbers(&[4])]).await.unwrap();
        sink.commit(Epoch(7)).await.unwrap();
        let requests = serving.await.unwrap();
        let bodies: Vec<_> = requests.iter().map(|(_, body)| body.as_str()).collect();
        assert_eq!(bodies, ["[{\"n\":1},{\"n\":2},{\"n\":3}]", "[{\"n\":4}]", "[{\"n\":4}]"]);
        for ((head, _), key) in requests.iter().zip(["q-7-0", "q-7-1", "q-7-1"]) {
            assert!(head.contains(&format!("idempotency-key: {key}\n")), "{head}");
            assert!(head.contains("content-type: application/json\n"), "{head}");
            assert!(head.contains("authorization: bearer token\n"), "{head}");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_final_and_names_place_and_answer_but_no_secret() {
        let (url, serving) = receiver(&["400 Bad Request"]).await;
        let mut sink = sink(&url);
        sink.begin(&writer("q", 1)).await.unwrap();
        sink.stage(Epoch(0), &[numbers(&[1])]).await.unwrap();
        let Error::External { context, source } = sink.commit(Epoch(0)).await.unwrap_err() else { unreachable!() };
        serving.await.unwrap();
        assert!(context.starts_with("posting rows to http://127.0.0.1:") && context.ends_with("/hook"), "{context}");
        assert_eq!(source.to_string(), "the answer is 400 Bad Request: not now");
        let shown = format!("{context} {:?}", sink.target.authorization);
        assert!(!shown.contains("secret") && !shown.contains("hidden") && !shown.contains("token"), "{shown}");
    }

    #[test]
    fn an_address_that_is_none_is_not_quoted() {
        for url in ["ftp://me:secret@host/x", "secret", "http:///secret"] {
            if let Err(error) = parse_url(url) {
                assert!(!format!("{error:?}").contains("secret"), "{error:?}");
            }
        }
        assert!(parse_url("ftp://me:secret@host/x").is_err());
        assert!(parse_authorization("Bearer\nsecret").is_err());
    }
}
