//! Rows by plain HTTP, for scripts: `curl --data-binary @trades.csv http://HOST:PORT/v1/streams/trades`.

use std::sync::Arc;

use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use datafusion::arrow::compute::concat_batches;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use millstream_connectors::push::{BodyFormat, read_body};
use millstream_engine::durable::{Appended, Producer};
use serde_json::json;
use tonic::metadata::MetadataMap;
use tonic::{Code, Status};

use super::ingest::append;
use super::status::status;
use super::{MAX_MESSAGE_BYTES, Server};
use crate::error::Error;

/// Who sends, and the number of the request among theirs: one that was taken is not taken again.
const PRODUCER: &str = "x-producer";
const SEQUENCE: &str = "x-sequence";

/// What HTTP clients find.
pub(super) fn routes(server: Arc<Server>) -> Router {
    Router::new().route("/health", get(async || "ok\n")).route("/v1/streams/{name}", post(take)).with_state(server)
}

async fn take(State(server): State<Arc<Server>>, Path(name): Path<String>, request: Request) -> Response {
    match taken(&server, &name, request).await {
        Ok((rows, appended)) => {
            let repeated = appended == Appended::Repeated;
            let json = json!({ "rows": rows, "repeated": repeated });
            (StatusCode::OK, [("content-type", "application/json")], format!("{json}\n")).into_response()
        }
        Err(status) => {
            let json = json!({ "error": status.message() });
            (http_code(status.code()), [("content-type", "application/json")], format!("{json}\n")).into_response()
        }
    }
}

async fn taken(server: &Server, name: &str, request: Request) -> Result<(usize, Appended), Status> {
    let (head, body) = request.into_parts();
    let by = producer(&head.headers)?;
    let format = format_of(&head.headers)?;
    let session = server.session(&MetadataMap::from_headers(head.headers), None).await?;
    let (definition, stream) = server.pushed(&session, name)?;
    // Only now, when it is known who sends: the body may be large, and so are only some at once.
    let _turn = server.bodies.acquire().await.map_err(|_| Status::unavailable("the server stops"))?;
    let body = to_bytes(body, MAX_MESSAGE_BYTES).await.map_err(|error| {
        Status::invalid_argument(format!(
            "the body cannot be read, or has more than {MAX_MESSAGE_BYTES} bytes: {error}"
        ))
    })?;
    let reading = SpawnedTask::spawn_blocking(move || read_body(&definition, format, body.to_vec()));
    let batches = reading.join().await.map_err(|error| Status::internal(error.to_string()))?;
    let batches = batches.map_err(|error| status(&Error::Engine(error)))?;
    let Some(rows) = one_batch(&batches)? else { return Ok((0, Appended::Logged)) };
    // All of them or none: a request is one append.
    let appended = append(&stream, &rows, by).await?;
    Ok((rows.num_rows(), appended))
}

fn one_batch(batches: &[RecordBatch]) -> Result<Option<RecordBatch>, Status> {
    let Some(first) = batches.first() else { return Ok(None) };
    let rows = concat_batches(&first.schema(), batches).map_err(|error| Status::invalid_argument(error.to_string()))?;
    Ok(Some(rows))
}

fn producer(headers: &HeaderMap) -> Result<Option<Producer>, Status> {
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or_default().to_owned());
    match (text(PRODUCER), text(SEQUENCE)) {
        (None, None) => Ok(None),
        (Some(id), Some(sequence)) => {
            let sequence = sequence.parse().map_err(|_| {
                Status::invalid_argument(format!("the header {SEQUENCE} is {sequence:?}, which is no number"))
            })?;
            Ok(Some(Producer { id, sequence }))
        }
        _ => Err(Status::invalid_argument(format!("the headers {PRODUCER} and {SEQUENCE} go together"))),
    }
}

fn format_of(headers: &HeaderMap) -> Result<BodyFormat, Status> {
    let given = headers.get("content-type").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = given.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    match kind.as_str() {
        "text/csv" => Ok(BodyFormat::Csv),
        "application/json" | "application/x-ndjson" | "application/jsonl" => Ok(BodyFormat::Json),
        "application/vnd.apache.arrow.stream" => Ok(BodyFormat::Arrow),
        _ => {
            let known = "text/csv, application/x-ndjson or application/vnd.apache.arrow.stream";
            Err(Status::invalid_argument(format!("the content type is {given:?}: send {known}")))
        }
    }
}

const fn http_code(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::AlreadyExists | Code::FailedPrecondition => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::INSUFFICIENT_STORAGE,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}
