//! How a driver reaches its executors: questions over control, rows over the plane.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::array::AsArray;
use datafusion::arrow::datatypes::UInt8Type;
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::Error as EngineError;
use millstream_engine::cluster::{Answer, Executors, Frame, Member, Sender, Sending, Task};

use super::control::{CallError, ControlClient};
use super::link::Links;
use super::membership::{self, Members, Membership};
use super::plane::{self, Apply, Job, JobError, Part, Peer, Plane};

/// The action by which a driver asks an executor.
pub(super) const ASK: &str = "ask";
/// How long an executor may take for an answer: it reads and writes checkpoints.
const ANSWER_DEADLINE: Duration = Duration::from_secs(600);
/// How long an exchange may take at the most; executors that are gone are noticed long before.
const EXCHANGE_DEADLINE: Duration = Duration::from_secs(600);

/// The executors of a driver.
pub(super) struct Reach {
    links: Links,
    membership: Membership,
    plane: Plane,
    /// Until then more executors may come that have been there before.
    settles_at: Instant,
    clients: Mutex<HashMap<String, ControlClient>>,
}

impl fmt::Debug for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reach").field("plane", &self.plane).finish_non_exhaustive()
    }
}

impl Reach {
    pub(super) fn new(links: Links, membership: Membership, plane: Plane, settles_at: Instant) -> Self {
        Self { links, membership, plane, settles_at, clients: Mutex::default() }
    }

    pub(super) const fn membership(&self) -> &Membership {
        &self.membership
    }

    /// The executor as it is now, if it is still the same process.
    fn find(&self, member: &Member) -> Result<membership::Member, EngineError> {
        let members = self.membership.members();
        let known = members.find(&member.name).filter(|_| is_present(&members, member));
        known.cloned().ok_or_else(|| EngineError::lost(format!("{member} is gone")))
    }

    fn peer(&self, member: &Member) -> Result<Peer, EngineError> {
        let known = self.find(member)?;
        let url = known.data.parse();
        let url = url.map_err(|error| EngineError::external(format!("the address {}", known.data), error))?;
        Ok(Peer { url, incarnation: known.process })
    }

    fn client(&self, url: &str) -> Result<ControlClient, EngineError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = clients.get(url) {
            return Ok(known.clone());
        }
        let client = ControlClient::new(&self.links, url);
        let client = client.map_err(|error| EngineError::external(format!("connecting to {url}"), error))?;
        // Addresses of executors that are gone are of no use.
        let members = self.membership.members();
        clients.retain(|url, _| members.executors.iter().any(|member| member.control == *url));
        clients.insert(url.to_owned(), client.clone());
        Ok(client)
    }

    /// What `work` gives, or the executor that was given up meanwhile: nobody waits for that one to say why.
    async fn unless_gone<T>(&self, members: &[Member], work: impl Future<Output = T>) -> Result<T, Member> {
        let mut watched = self.membership.watch();
        let gone = async {
            let is_gone = |known: &Members| members.iter().find(|member| !is_present(known, member)).cloned();
            match watched.wait_for(|known| is_gone(known).is_some()).await.map(|known| is_gone(&known)) {
                Ok(Some(member)) => member,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            ended = work => Ok(ended),
            member = gone => Err(member),
        }
    }

    async fn run(&self, job: Job, members: &[Member]) -> Result<Vec<plane::Answer>, JobError> {
        let ended = self.unless_gone(members, self.plane.run(job)).await;
        ended.unwrap_or_else(|member| Err(JobError::Stale { reason: format!("{member} is gone") }))
    }

    /// Whether it is the driver that gives rows at that address.
    fn is_own(&self, url: &str) -> bool {
        self.plane.url().as_str().trim_end_matches('/') == url.trim_end_matches('/')
    }

    fn failed(&self, error: JobError) -> EngineError {
        match error {
            JobError::Lost { url, reason } if self.is_own(&url) => EngineError::external(
                format!("executors cannot reach the driver at {url}: open that port, or correct --advertise"),
                reason,
            ),
            JobError::Lost { url, reason } => {
                self.membership.report_lost(&url, &reason);
                EngineError::lost(format!("the executor at {url} is lost: {reason}"))
            }
            JobError::Stale { reason } => EngineError::lost(reason),
            JobError::Failed(message) => EngineError::external("an exchange with executors failed", message),
            JobError::Deadline => EngineError::lost("an exchange with executors came to no end"),
        }
    }
}

#[async_trait]
impl Executors for Reach {
    fn live(&self) -> Vec<Member> {
        live(&self.membership.members())
    }

    async fn ready(&self) -> Vec<Member> {
        tokio::time::sleep_until(self.settles_at.into()).await;
        let mut members = self.membership.watch();
        // Its sender is here.
        let _ = members.wait_for(|members| members.live().next().is_some()).await;
        self.live()
    }

    async fn changed(&self, known: &[Member]) {
        let mut members = self.membership.watch();
        if members.wait_for(|members| live(members) != known).await.is_err() {
            std::future::pending().await
        }
    }

    async fn exchange(&self, tasks: Vec<Task>, sending: Sending) -> millstream_engine::Result<Vec<Answer>> {
        let members = tasks.iter().map(|task| &task.member).chain(sending.senders.iter().map(|sender| &sender.member));
        let members: Vec<Member> = members.cloned().collect();
        let (mut frames, mut applies) = (Vec::new(), Vec::new());
        for Task { member, spec, frames: of_task } in tasks {
            applies.push(Apply { executor: self.peer(&member)?, spec: spec.to_vec() });
            frames.push(batches(&of_task)?);
        }
        let Sending { routing, senders } = sending;
        let parts = senders
            .into_iter()
            .map(|Sender { member, spec }| Ok(Part { executor: self.peer(&member)?, spec: spec.to_vec() }));
        let parts: Vec<Part> = parts.collect::<Result<_, EngineError>>()?;
        let job = || Job {
            frames: frames.clone(),
            routing: routing.clone(),
            parts: parts.clone(),
            applies: applies.clone(),
            deadline: EXCHANGE_DEADLINE,
        };
        let answers = match self.run(job(), &members).await {
            // A connection from before an executor was started again fails once; a task that was done is not done twice.
            Err(JobError::Lost { .. }) if members.iter().all(|member| self.find(member).is_ok()) => {
                self.run(job(), &members).await
            }
            ended => ended,
        };
        let answers = answers.map_err(|error| self.failed(error))?.into_iter();
        answers.map(|answer| Ok(Answer { frames: frames_of(&answer.frames)?, took: answer.took })).collect()
    }

    async fn call(&self, member: &Member, request: Bytes) -> millstream_engine::Result<Bytes> {
        let known = self.find(member)?;
        let client = self.client(&known.control)?;
        let asking = client.call_with(ASK, request, ANSWER_DEADLINE);
        let answered = self.unless_gone(std::slice::from_ref(member), asking).await;
        match answered.map_err(|member| EngineError::lost(format!("{member} is gone")))? {
            Ok(answer) => Ok(answer),
            Err(CallError::Unreachable { url, reason }) => {
                self.membership.report_lost(&member.name, &reason);
                Err(EngineError::lost(format!("{member} at {url} is lost: {reason}")))
            }
            Err(CallError::Stale(reason)) => Err(EngineError::lost(reason)),
            Err(CallError::Refused(reason) | CallError::Failed(reason)) => {
                Err(EngineError::external(format!("asking {member}"), reason))
            }
        }
    }
}

/// Whether an executor is there and the same process.
fn is_present(members: &Members, member: &Member) -> bool {
    members.find(&member.name).is_some_and(|known| known.is_present() && known.process == member.incarnation)
}

fn live(members: &Arc<Members>) -> Vec<Member> {
    members.live().map(|member| Member { name: member.name.clone(), incarnation: member.process }).collect()
}

/// Frames as the plane takes them.
pub(super) fn batches(frames: &[Frame]) -> millstream_engine::Result<Vec<RecordBatch>> {
    if let Some(large) = frames.iter().find(|frame| frame.body.len() > plane::MAX_BODY) {
        let message = format!("one row of state has {} bytes, and {} can travel", large.body.len(), plane::MAX_BODY);
        return Err(EngineError::query(message, "collect fewer values in one group, or SET executors = 'off'"));
    }
    let (mut batches, mut rest) = (Vec::new(), frames);
    while !rest.is_empty() {
        // As many as make no more bytes than one frame may have, or Arrow cannot count them.
        let mut bytes = 0;
        let fits = |frame: &&Frame| {
            bytes += frame.body.len();
            bytes <= plane::MAX_BODY
        };
        let (part, others) = rest.split_at(rest.iter().take_while(fits).count().max(1));
        batches.push(plane::frames(part.iter().map(|frame| (frame.kind, frame.body.as_ref())))?);
        rest = others;
    }
    Ok(batches)
}

/// The frames of batches of the plane.
pub(super) fn frames_of(batches: &[RecordBatch]) -> millstream_engine::Result<Vec<Frame>> {
    let mut frames = Vec::new();
    for batch in batches {
        let kinds = batch.column_by_name("kind").and_then(|kinds| kinds.as_primitive_opt::<UInt8Type>());
        let bodies = batch.column_by_name("body").and_then(|bodies| bodies.as_binary_opt::<i32>());
        let (Some(kinds), Some(bodies)) = (kinds, bodies) else {
            return Err(EngineError::internal("frames have other columns"));
        };
        let rows = kinds.values().iter().zip(bodies.iter().flatten());
        frames.extend(rows.map(|(kind, body)| Frame { kind: *kind, body: Bytes::copy_from_slice(body) }));
    }
    Ok(frames)
}
