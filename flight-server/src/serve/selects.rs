//! Endless SELECTs that run for clients: started for one connection, gone on with over another.
//!
//! Every batch has metadata, `{"query":"…","epoch":n,"watermark":"…"}`: all rows up to epoch `n` have been sent. Where
//! nothing comes for a while an empty batch with it does. Where rows were left out for a slow reader, `left_out` says
//! how many.
//!
//! A query whose connection is lost runs on for `resume_seconds`; one that its client has left, over a connection that
//! is still there, ends.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arrow_flight::FlightData;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use futures::StreamExt;
use millstream_engine::batch::Epoch;
use millstream_engine::query::{PlannedQuery, QueryProgress};
use serde::Serialize;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tonic::Status;

use super::listen::Connection;
use super::results::{HEARTBEAT, Messages, client_batch, client_schema, empty_message, encoded_rows};
use super::spool::{Entry, Found, SlowReader, Spool, SpoolSink};
use super::status::{bad_arrow, status};
use crate::embed::{Engine, Stopping};

/// How long it takes at the most until it is seen that a connection is lost, or a reader is there again.
const LOOK: Duration = Duration::from_secs(1);

/// The SELECTs that run, by what the metadata of their rows call them.
#[derive(Debug)]
pub(super) struct Selects {
    running: Mutex<HashMap<String, Arc<Select>>>,
    /// How long one runs without a connection.
    patience: Duration,
}

/// A SELECT that runs; it is stopped when this is dropped.
#[derive(Debug)]
pub(super) struct Select {
    id: String,
    user: String,
    pub(super) schema: SchemaRef,
    spool: Arc<Spool>,
    progress: watch::Receiver<QueryProgress>,
    /// The message with the columns, and an empty batch.
    empty: (FlightData, FlightData),
    _stopping: Stopping,
    /// Its place among the queries that run at once.
    _place: OwnedSemaphorePermit,
}

impl Selects {
    pub(super) fn new(patience: Duration) -> Arc<Self> {
        Arc::new(Self { running: Mutex::default(), patience })
    }

    fn running(&self) -> MutexGuard<'_, HashMap<String, Arc<Select>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a query for a user.
    ///
    /// # Errors
    /// A stream of it cannot be opened.
    pub(super) fn start(
        &self,
        engine: &Engine,
        planned: PlannedQuery,
        user: &str,
        slow_reader: SlowReader,
        place: OwnedSemaphorePermit,
    ) -> Result<Arc<Select>, Status> {
        let (schema, spool) = (client_schema(&planned.schema()), Spool::new());
        let empty = empty_message(&schema)?;
        let into = Arc::clone(&spool);
        let query = engine
            .start_into(planned, |stop| Box::new(SpoolSink::new(into, slow_reader, stop)))
            .map_err(|error| status(&error))?;
        let select = Arc::new(Select {
            id: uuid::Uuid::new_v4().simple().to_string(),
            user: user.to_owned(),
            schema,
            spool: Arc::clone(&spool),
            progress: query.watch(),
            empty,
            _stopping: query.stopping(),
            _place: place,
        });
        tokio::spawn(async move {
            let ended = query.wait().await;
            spool.end(ended.map(drop).map_err(|error| status(&error)));
        });
        self.running().insert(select.id.clone(), Arc::clone(&select));
        Ok(select)
    }

    /// The query of that name, if it is one of the user's.
    ///
    /// # Errors
    /// There is none, or no longer.
    pub(super) fn find(&self, id: &str, user: &str) -> Result<Arc<Select>, Status> {
        let found = self.running().get(id).filter(|select| select.user == user).cloned();
        found.ok_or_else(|| {
            let patience = self.patience.as_secs();
            Status::not_found(format!(
                "no SELECT {id:?} of yours runs: it has ended, or its connection was lost more than {patience} s ago"
            ))
        })
    }

    /// Ends the query whose connection was lost first, if one runs on without.
    pub(super) fn give_way(&self) -> bool {
        let mut running = self.running();
        let left = running.values().filter_map(|select| Some((select.spool.left()?, select.id.clone())));
        let Some((_, id)) = left.min() else { return false };
        running.remove(&id).is_some()
    }

    fn forget(&self, id: &str) {
        self.running().remove(id);
    }

    /// Forgets a query if nobody has come for its rows since; whether that is settled.
    fn forget_left(&self, select: &Select, is_wanted: impl Fn(Instant) -> bool) -> bool {
        // Whoever comes for it holds this too.
        let mut running = self.running();
        match select.spool.left() {
            None => true,
            Some(left) if is_wanted(left) => false,
            Some(_) => {
                running.remove(&select.id);
                true
            }
        }
    }

    /// The messages with the rows behind an epoch, for one connection; whoever had them before gets no more.
    ///
    /// # Errors
    /// Rows behind the epoch are no longer kept.
    pub(super) fn read(
        self: &Arc<Self>,
        select: Arc<Select>,
        after: Option<u64>,
        connection: Option<Connection>,
        cancelled: watch::Receiver<bool>,
    ) -> Result<Messages, Status> {
        let after = after.map(Epoch);
        let number = {
            let running = self.running();
            if !running.contains_key(&select.id) {
                return Err(Status::not_found("the query has just ended"));
            }
            select.spool.attach(after)?
        };
        let (columns, empty) = select.empty.clone();
        let changes = select.spool.changes();
        let reader = Reader {
            selects: Arc::clone(self),
            select,
            connection,
            cancelled,
            number,
            after,
            waiting: VecDeque::from([columns]),
            empty,
            changes,
            is_over: false,
        };
        let messages = futures::stream::unfold(reader, async |mut reader| {
            let message = reader.next().await?;
            Some((message, reader))
        });
        Ok(messages.boxed())
    }
}

/// A connection that takes the rows of a query.
#[derive(Debug)]
struct Reader {
    selects: Arc<Selects>,
    select: Arc<Select>,
    connection: Option<Connection>,
    /// Becomes true when the client cancels the query by another call.
    cancelled: watch::Receiver<bool>,
    number: u64,
    /// The last epoch that was sent whole.
    after: Option<Epoch>,
    /// Messages to be sent.
    waiting: VecDeque<FlightData>,
    /// An empty batch.
    empty: FlightData,
    changes: watch::Receiver<()>,
    /// Whether the client has all that there is.
    is_over: bool,
}

/// What the metadata of a batch say.
#[derive(Debug, Serialize)]
struct Said<'a> {
    query: &'a str,
    epoch: Option<u64>,
    watermark: String,
    #[serde(skip_serializing_if = "is_zero")]
    left_out: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Reader {
    async fn next(&mut self) -> Option<Result<FlightData, Status>> {
        loop {
            if let Some(message) = self.waiting.pop_front() {
                return Some(Ok(message));
            }
            if self.is_over {
                return None;
            }
            self.changes.borrow_and_update();
            match self.select.spool.next(self.number, self.after) {
                Found::Rows(entry) => match self.messages(&entry).await {
                    Ok(messages) => self.waiting.extend(messages),
                    Err(status) => return self.over(Err(status)),
                },
                Found::End(ended) => return self.over(ended),
                Found::Nothing => tokio::select! {
                    // The spool is held: it changes until it is not.
                    _ = self.changes.changed() => {}
                    () = tokio::time::sleep(HEARTBEAT) => return Some(Ok(self.marked(self.empty.clone(), 0))),
                },
            }
        }
    }

    fn over(&mut self, ended: Result<(), Status>) -> Option<Result<FlightData, Status>> {
        self.is_over = true;
        ended.err().map(Err)
    }

    /// The rows of an epoch; the last message says that they are all there.
    async fn messages(&mut self, entry: &Entry) -> Result<VecDeque<FlightData>, Status> {
        let schema = &self.select.schema;
        let rows = entry.rows.iter().map(|rows: &RecordBatch| client_batch(rows, schema));
        let rows = rows.collect::<Result<Vec<_>, _>>().map_err(|error| bad_arrow(&error))?;
        let mut messages = encoded_rows(schema, rows).await?;
        let last = messages.pop_back();
        let mut messages: VecDeque<_> = messages.into_iter().map(|message| self.marked(message, 0)).collect();
        self.after = Some(entry.epoch);
        messages.extend(last.map(|message| self.marked(message, entry.left_out)));
        Ok(messages)
    }

    /// A message that says after which epoch to go on.
    fn marked(&self, mut message: FlightData, left_out: u64) -> FlightData {
        let said = Said {
            query: &self.select.id,
            epoch: self.after.map(|epoch| epoch.0),
            watermark: self.select.progress.borrow().watermark.to_string(),
            left_out,
        };
        message.app_metadata = json!(said).to_string().into();
        message
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        if !self.select.spool.leave(self.number) {
            // Another one has its place.
            return;
        }
        let is_over = self.is_over || *self.cancelled.borrow();
        if is_over || self.selects.patience.is_zero() || self.connection.is_none() {
            return self.selects.forget(&self.select.id);
        }
        let waiting = wait(Arc::downgrade(&self.selects), Arc::downgrade(&self.select), self.connection.clone());
        // Not where the process ends.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(waiting);
        }
    }
}

/// Waits for another reader of a query, and forgets the query if none comes, or its client has just left it.
async fn wait(selects: Weak<Selects>, select: Weak<Select>, connection: Option<Connection>) {
    loop {
        tokio::time::sleep(LOOK).await;
        let (Some(selects), Some(select)) = (selects.upgrade(), select.upgrade()) else { return };
        let is_connected = connection.as_ref().is_some_and(Connection::is_open);
        if selects.forget_left(&select, |left| !is_connected && left.elapsed() < selects.patience) {
            return;
        }
    }
}
