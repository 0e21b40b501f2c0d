//! Executors in this process, which can be lost at any moment: for tests of queries that are spread.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::logical_expr::LogicalPlan;
use futures::future::join_all;
use tokio::sync::watch;

use crate::cluster::{Answer, Executors, Host, Member, Programs, Seat, Sender, Sending, Task};
use crate::durable::{Durability, StatePlace};
use crate::error::{Error, Result};
use crate::plan::{Emission, StreamDefinition};
use crate::query::{PlannedQuery, QueryOptions};
use crate::source::Source;
use crate::testing::NoSource;

/// When an executor is lost in an exchange.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// Before anybody has done anything.
    Before,
    /// While it does its task, which nobody gets to know of.
    During,
    /// After all tasks were done, before the driver has heard of it.
    After,
    /// After its task was done, and it is not lost for good: it comes back with what it held.
    Away,
}

/// Says which executor is lost in an exchange or a call, and when; asked once for each.
pub type Fate = Box<dyn FnMut(usize) -> Option<(usize, Moment)> + Send>;

/// Executors of one query.
pub struct LocalExecutors {
    programs: Arc<OneProgram>,
    hosts: Mutex<BTreeMap<String, (Member, Host)>>,
    away: Mutex<BTreeMap<String, (Member, Host)>>,
    changes: watch::Sender<u64>,
    fate: Mutex<Option<Fate>>,
}

impl fmt::Debug for LocalExecutors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalExecutors").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

/// The only query that these executors know.
#[derive(Debug)]
struct OneProgram {
    logical: LogicalPlan,
    emission: Emission,
    options: QueryOptions,
    /// What its streams are read from, by their names.
    sources: Mutex<BTreeMap<String, Arc<dyn Source>>>,
}

#[async_trait]
impl Programs for OneProgram {
    async fn plan(&self, _: &str) -> Result<PlannedQuery> {
        PlannedQuery::plan_emitting(&self.logical, self.emission, self.options.clone()).await
    }

    fn open(&self, definition: &Arc<StreamDefinition>) -> Result<Arc<dyn Source>> {
        let sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        let source = sources.get(&definition.name).cloned();
        Ok(source.unwrap_or_else(|| Arc::new(NoSource { is_replayable: true })))
    }
}

impl LocalExecutors {
    /// So many executors of `logical`, of which none is lost.
    pub fn new(count: usize, logical: &LogicalPlan, emission: Emission, options: &QueryOptions) -> Arc<Self> {
        let (logical, options) = (logical.clone(), QueryOptions { seat: None, ..options.clone() });
        let executors = Self {
            programs: Arc::new(OneProgram { logical, emission, options, sources: Mutex::default() }),
            hosts: Mutex::default(),
            away: Mutex::default(),
            changes: watch::channel(0).0,
            fate: Mutex::default(),
        };
        (0..count).for_each(|number| executors.start(&format!("executor-{number}")));
        Arc::new(executors)
    }

    /// Has them read a stream from `source` rather than from what scripts say.
    pub fn read(&self, stream: &str, source: Arc<dyn Source>) {
        let mut sources = self.programs.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.insert(stream.to_owned(), source);
    }

    /// Has `fate` decide who is lost.
    pub fn lose(&self, fate: Fate) {
        *self.fate.lock().unwrap_or_else(PoisonError::into_inner) = Some(fate);
    }

    /// Starts an executor of this name; one that there is loses what it holds.
    pub fn start(&self, name: &str) {
        let member = Member { name: name.to_owned(), incarnation: uuid::Uuid::new_v4() };
        let programs: Arc<dyn Programs> = Arc::<OneProgram>::clone(&self.programs);
        self.hosts().insert(name.to_owned(), (member, Host::new(programs)));
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Has the executors come back that cannot be reached for a while, unless others of their names have been started.
    pub fn come_back(&self) {
        let away = std::mem::take(&mut *self.away.lock().unwrap_or_else(PoisonError::into_inner));
        let mut hosts = self.hosts();
        for (name, host) in away {
            hosts.entry(name).or_insert(host);
        }
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Ends the executor of this name.
    pub fn end(&self, name: &str) {
        self.hosts().remove(name);
        self.changes.send_modify(|changes| *changes += 1);
    }

    /// Queries whose state lies here, and in `state` if they are kept.
    pub fn seat(self: &Arc<Self>, state: Option<StatePlace>) -> Seat {
        let executors: Arc<dyn Executors> = Arc::<Self>::clone(self);
        Seat { executors, program: "query".to_owned(), store: state.map(|place| (place, Durability::ProcessCrash)) }
    }

    /// How many slots each executor has, by name.
    pub fn slots(&self) -> BTreeMap<String, usize> {
        self.hosts().iter().map(|(name, (_, host))| (name.clone(), host.held().slots)).collect()
    }

    fn hosts(&self) -> MutexGuard<'_, BTreeMap<String, (Member, Host)>> {
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn decide(&self) -> Option<(String, Moment)> {
        let names: Vec<String> = self.hosts().keys().cloned().collect();
        let mut fate = self.fate.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, moment) = fate.as_mut()?(names.len())?;
        Some((names.get(number)?.clone(), moment))
    }

    fn host(&self, member: &Member) -> Result<Host> {
        let known = self.hosts().get(&member.name).filter(|(known, _)| known == member).map(|(_, host)| host.clone());
        known.ok_or_else(|| Error::lost(format!("{member} is gone")))
    }
}

#[async_trait]
impl Executors for LocalExecutors {
    fn live(&self) -> Vec<Member> {
        self.hosts().values().map(|(member, _)| member.clone()).collect()
    }

    async fn ready(&self) -> Vec<Member> {
        let mut changes = self.changes.subscribe();
        // Its sender is here.
        let _ = changes.wait_for(|_| !self.live().is_empty()).await;
        self.live()
    }

    async fn changed(&self, known: &[Member]) {
        let mut changes = self.changes.subscribe();
        let _ = changes.wait_for(|_| self.live() != known).await;
    }

    async fn exchange(&self, mut tasks: Vec<Task>, sending: Sending) -> Result<Vec<Answer>> {
        let lost = self.decide();
        let is_at = |moment: Moment| lost.as_ref().filter(|(_, at)| *at == moment).map(|(name, _)| name.clone());
        if let Some(name) = is_at(Moment::Before) {
            self.start(&name);
        }
        // In another order than they were asked in: what comes first must not matter.
        for Sender { member, spec } in sending.senders.into_iter().rev() {
            let sent = self.host(&member)?.send(&sending.routing, &spec).await?;
            tasks.iter_mut().zip(sent).for_each(|(task, frames)| task.frames.extend(frames));
        }
        let doing = tasks.into_iter().map(async |task| {
            let host = self.host(&task.member)?;
            if is_at(Moment::During).is_some_and(|name| name == task.member.name) {
                self.start(&task.member.name);
                return Err(Error::lost(format!("{} is gone", task.member)));
            }
            let started = Instant::now();
            let frames = host.apply(&task.spec, task.frames).await?;
            Ok(Answer { frames, took: started.elapsed() })
        });
        let done = join_all(doing).await;
        if let Some(name) = is_at(Moment::Away) {
            let mut hosts = self.hosts();
            if let Some(host) = hosts.remove(&name) {
                self.away.lock().unwrap_or_else(PoisonError::into_inner).insert(name.clone(), host);
            }
            if hosts.is_empty() {
                drop(hosts);
                self.start("executor-0");
            }
            self.changes.send_modify(|changes| *changes += 1);
            return Err(Error::lost(format!("{name} cannot be reached")));
        }
        if let Some(name) = is_at(Moment::After) {
            self.start(&name);
            return Err(Error::lost(format!("{name} is gone")));
        }
        done.into_iter().collect()
    }

    async fn call(&self, member: &Member, request: Bytes) -> Result<Bytes> {
        self.host(member)?.call(&request).await
    }
}
