//! An executor: it holds slots of queries and does what drivers ask of it.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use tokio::sync::Mutex as AsyncMutex;

use super::error::SentError;
use super::frame::{Frame, from_json};
use super::mapping::{failed_parts, map_parts};
use super::message::{
    ApplySpec, Assign, FAILED, MAPPED, MapSpec, MappedHead, REPLY, Reign, Reply, Request, Routing, WrittenSlot,
};
use super::owned::{Owned, deltas_of};
use super::shelf::Shelf;
use crate::error::{Error, Result};
use crate::executor::StageDelta;
use crate::ingest::Scanned;
use crate::plan::StreamDefinition;
use crate::query::PlannedQuery;
use crate::source::Source;

/// How an executor learns what a query is.
#[async_trait]
pub trait Programs: fmt::Debug + Send + Sync {
    /// The query that `program` says, as [`super::Seat::program`] has it.
    ///
    /// # Errors
    /// Fails if it cannot be planned here.
    async fn plan(&self, program: &str) -> Result<PlannedQuery>;

    /// What a stream is read from.
    ///
    /// # Errors
    /// Fails for options that cannot be used here.
    fn open(&self, definition: &Arc<StreamDefinition>) -> Result<Arc<dyn Source>>;
}

/// An executor's slots of all queries.
#[derive(Debug, Clone)]
pub struct Host {
    programs: Arc<dyn Programs>,
    queries: Arc<Mutex<HashMap<String, Query>>>,
    shelf: Arc<Shelf>,
    rows: Arc<AtomicU64>,
}

/// The slots of a query, and whether anybody needs them.
#[derive(Debug)]
struct Query {
    owned: Arc<AsyncMutex<Owned>>,
    /// Since when there is another driver that has not asked for them.
    forsaken: Option<Instant>,
}

/// What an executor holds, in figures.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Slots of all queries.
    pub slots: usize,
    /// The memory of their state, in bytes.
    pub state_bytes: u64,
    /// State rows that were taken in since its start.
    pub rows: u64,
    /// Rows of streams that were read since its start.
    pub rows_read: u64,
}

impl Host {
    /// An executor that holds nothing.
    pub fn new(programs: Arc<dyn Programs>) -> Self {
        Self { programs, queries: Arc::default(), shelf: Arc::default(), rows: Arc::default() }
    }

    /// Does a task of an exchange; failures of the query itself are among the frames it gives.
    ///
    /// It is done to its end also if nobody waits for that, and what it has done is not done twice.
    ///
    /// # Errors
    /// [`Error::Lost`] if it does not hold what it was asked about, or a later driver has begun.
    pub async fn apply(&self, spec: &[u8], frames: Vec<Frame>) -> Result<Vec<Frame>> {
        let (host, spec) = (self.clone(), from_json::<ApplySpec>(spec)?);
        // A slot that stopped halfway could neither go on nor begin again.
        let done = tokio::spawn(async move { host.apply_now(&spec, &frames).await }).await;
        match done.map_err(|error| Error::internal(format!("a task ended early: {error}")))? {
            Err(error) if !error.is_lost() => Ok(vec![Frame::of(FAILED, &SentError::from(&error), None)?]),
            ended => ended,
        }
    }

    async fn apply_now(&self, spec: &ApplySpec, frames: &[Frame]) -> Result<Vec<Frame>> {
        if let Some(failed) = frames.iter().find(|frame| frame.kind == FAILED) {
            return Ok(vec![failed.clone()]);
        }
        check_whole(spec, frames)?;
        let query = self.owned(&spec.reign)?;
        let mut owned = query.lock().await;
        check_term(&owned, &spec.reign)?;
        let deltas = deltas_of(frames, spec.slots.len(), owned.template())?;
        let rows: usize = deltas.iter().map(StageDelta::row_count).sum();
        let mut answer = owned.apply(spec, deltas).await?;
        self.rows.fetch_add(rows as u64, Ordering::Relaxed);
        answer.extend(frames.iter().filter(|frame| frame.kind == MAPPED).cloned());
        Ok(answer)
    }

    /// Maps rows that it holds: frames for each task of an exchange. It changes no slot, and may be done again.
    ///
    /// # Errors
    /// [`Error::Lost`] as for [`Host::apply`]; other failures are among the frames.
    pub async fn send(&self, routing: &[u8], spec: &[u8]) -> Result<Vec<Vec<Frame>>> {
        let (routing, spec): (Routing, MapSpec) = (from_json(routing)?, from_json(spec)?);
        let query = self.owned_in(&routing.reign).await?;
        match map_parts(&routing, &spec, &query, &self.shelf).await {
            Err(error) if !error.is_lost() => failed_parts(&routing, &error),
            ended => ended,
        }
    }

    /// Answers a driver's question.
    ///
    /// # Errors
    /// [`Error::Lost`] as for [`Host::apply`]; other failures are in the answer.
    pub async fn call(&self, request: &[u8]) -> Result<Bytes> {
        let (host, request) = (self.clone(), from_json::<Request>(request)?);
        let answered = tokio::spawn(async move { host.answer(request).await }).await;
        let (reply, rows) =
            match answered.map_err(|error| Error::internal(format!("an answer ended early: {error}")))? {
                Err(error) if error.is_lost() => return Err(error),
                Err(error) => (Reply::Failed(SentError::from(&error)), None),
                Ok(answer) => answer,
            };
        Ok(Frame::of(REPLY, &reply, rows.as_ref())?.body)
    }

    /// The answer, and rows that come with it.
    async fn answer(&self, request: Request) -> Result<(Reply, Option<RecordBatch>)> {
        let reply = match request {
            Request::Scan { source, stretch, lateness, from } => {
                let Scanned { after, behind, rows } = self.shelf.scan(&source, &stretch, lateness, from).await?;
                return Ok((Reply::Scanned { after, behind }, rows));
            }
            Request::Open { source, program, stream } => self.open(&source, &program, &stream).await,
            Request::Read { source, stretch, forget } => {
                self.shelf.forget(&source, forget);
                self.shelf.read(&source, stretch).await.map(Reply::Read)
            }
            Request::Close { source } => {
                self.shelf.close(&source);
                Ok(Reply::Done)
            }
            asked => self.answer_of_slots(asked).await,
        };
        Ok((reply?, None))
    }

    async fn open(&self, id: &str, program: &str, stream: &str) -> Result<Reply> {
        if !self.shelf.has(id) {
            let planned = self.programs.plan(program).await?;
            let definition = planned.streams().iter().find(|definition| definition.name == stream);
            let definition = definition.ok_or_else(|| Error::internal(format!("a query does not read {stream}")))?;
            self.shelf.open(id, Arc::clone(definition), self.programs.open(definition)?);
        }
        Ok(Reply::Done)
    }

    async fn answer_of_slots(&self, request: Request) -> Result<Reply> {
        match request {
            Request::Hold(reign) => self.hold(&reign).await,
            Request::Assign(assign) => self.assign(&assign).await,
            Request::Image { reign, epoch, everything } => {
                self.owned_in(&reign).await?.lock().await.image(epoch, everything)?;
                Ok(Reply::Done)
            }
            Request::Write { reign, epoch } => {
                let query = self.owned_in(&reign).await?;
                let work = query.lock().await.writing(epoch)?;
                let written: Result<Vec<WrittenSlot>> = SpawnedTask::spawn_blocking(work)
                    .join()
                    .await
                    .map_err(|error| Error::internal(format!("a checkpoint ended early: {error}")))?;
                let written = written?;
                query.lock().await.note_written(epoch, &written);
                Ok(Reply::Written(written))
            }
            Request::Release(reign) => {
                if let Ok(query) = self.owned(&reign) {
                    check_term(&*query.lock().await, &reign)?;
                    self.queries().remove(&reign.query);
                }
                Ok(Reply::Done)
            }
            other => Err(Error::internal(format!("{other:?} is not about slots"))),
        }
    }

    /// Begins a term of a query, and tells what is held of it.
    async fn hold(&self, reign: &Reign) -> Result<Reply> {
        let Ok(query) = self.owned(reign) else { return Ok(Reply::Held(Vec::new())) };
        let mut owned = query.lock().await;
        if owned.term > reign.term {
            return Err(outdated(&owned, reign));
        }
        let held = owned.held();
        if owned.term < reign.term {
            owned.begin_term(reign.term);
        }
        Ok(Reply::Held(held))
    }

    async fn assign(&self, assign: &Assign) -> Result<Reply> {
        let known = self.owned(&assign.reign).ok();
        let query = match known {
            Some(query) if query.lock().await.is_of(&assign.program) => query,
            _ => self.begin(assign).await?,
        };
        let mut owned = query.lock().await;
        if owned.term > assign.reign.term {
            return Err(outdated(&owned, &assign.reign));
        }
        owned.term = assign.reign.term;
        owned.assign(assign).await?;
        Ok(Reply::Done)
    }

    /// Plans a query that is new here.
    async fn begin(&self, assign: &Assign) -> Result<Arc<AsyncMutex<Owned>>> {
        let Assign { reign, program, .. } = assign;
        let planned = self.programs.plan(program).await?;
        let owned = Owned::new(reign.term, program.clone(), planned.stage, assign.store.as_ref())?;
        let contracts: Vec<String> = owned.contracts()?.into_iter().map(|(contract, _)| contract).collect();
        if contracts != assign.contracts {
            let hint =
                "have all processes of the cluster read the same version of files and tables, or SET executors = 'off'";
            return Err(Error::query("an executor plans the query otherwise than the driver", hint));
        }
        let owned = Arc::new(AsyncMutex::new(owned));
        self.queries().insert(reign.query.clone(), Query { owned: Arc::clone(&owned), forsaken: None });
        Ok(owned)
    }

    /// Notes that a driver has met this process, perhaps again: what that does not ask for is of no use to anybody.
    pub fn meet_driver(&self) {
        let now = Instant::now();
        self.queries().values_mut().for_each(|query| query.forsaken = query.forsaken.or(Some(now)));
    }

    /// Forgets queries that a new driver has not asked for in so long.
    pub fn forget_forsaken(&self, patience: Duration) {
        let is_needed = |query: &Query| query.forsaken.is_none_or(|since| since.elapsed() < patience);
        self.queries().retain(|_, query| is_needed(query));
        self.shelf.close_forsaken(patience);
    }

    fn queries(&self) -> MutexGuard<'_, HashMap<String, Query>> {
        // An insertion or a removal is whole.
        self.queries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn owned(&self, reign: &Reign) -> Result<Arc<AsyncMutex<Owned>>> {
        let mut queries = self.queries();
        let known = queries.get_mut(&reign.query).map(|query| {
            query.forsaken = None;
            Arc::clone(&query.owned)
        });
        known.ok_or_else(|| Error::lost(format!("query {} is not held", reign.query)))
    }

    async fn owned_in(&self, reign: &Reign) -> Result<Arc<AsyncMutex<Owned>>> {
        let query = self.owned(reign)?;
        check_term(&*query.lock().await, reign)?;
        Ok(query)
    }

    /// What it holds; of a query that is at work just now not all is said.
    pub fn held(&self) -> Held {
        let queries: Vec<_> = self.queries().values().map(|query| Arc::clone(&query.owned)).collect();
        let (rows, rows_read) = (self.rows.load(Ordering::Relaxed), self.shelf.rows_read());
        let mut held = Held { rows, rows_read, ..Held::default() };
        for query in queries {
            // One that is at work holds a slot at least.
            let (slots, bytes) = query.try_lock().map_or((1, 0), |owned| owned.figures());
            held.slots += slots;
            held.state_bytes += bytes;
        }
        held
    }
}

/// Whether all that was sent for a task has come.
fn check_whole(spec: &ApplySpec, frames: &[Frame]) -> Result<()> {
    let ends = frames.iter().filter(|frame| frame.kind == MAPPED).map(|frame| Ok(frame.read::<MappedHead>()?.0));
    let ends = ends.collect::<Result<Vec<MappedHead>>>()?;
    let mapped: usize = ends.iter().map(|end| end.frames).sum();
    let come = frames.len() - ends.len();
    if (ends.len(), come) == (spec.senders, spec.frames + mapped) {
        return Ok(());
    }
    let (parts, wanted) = (ends.len(), spec.frames + mapped);
    Err(Error::lost(format!("{come} of {wanted} frames and {parts} of {} senders have ended", spec.senders)))
}

fn check_term(owned: &Owned, reign: &Reign) -> Result<()> {
    if owned.term == reign.term { Ok(()) } else { Err(outdated(owned, reign)) }
}

fn outdated(owned: &Owned, reign: &Reign) -> Error {
    Error::lost(format!("query {} is in term {}, not {}", reign.query, owned.term, reign.term))
}
