//! The driver's end of the plane, which runs jobs and sends their frames.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use datafusion::common::runtime::SpawnedTask;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::TaskContext;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::prelude::SessionConfig;
use datafusion_distributed::{CompressionType, DistributedExt, LocalWorkerContext};
use url::Url;
use uuid::Uuid;

use super::attempt::Attempt;
use super::codec::Codec;
use super::nodes::Assignment;
use super::outbox::Outbox;
use super::plan::{self, Placement};
use super::resolver::{Channels, JobAbort};
use super::runtimes::{Runtimes, spawn_on};
use super::worker::{Sessions, listen};
use super::{Answer, Apply, Job, JobError, Part, Peer};
use crate::cluster::link::{Links, advertised, listen_on};
use crate::error::{Error, Result};

/// What frames are compressed by between processes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    /// Nothing: the fastest on one machine, and for bodies that are compressed already.
    None,
    /// LZ4.
    Lz4,
}

/// The driver's end; executors fetch what it sends from its data address.
pub(crate) struct Plane {
    runtimes: Runtimes,
    url: Url,
    outbox: Arc<Outbox>,
    /// Of every job, to which what is the job's own is added.
    config: SessionConfig,
    memory: Arc<RuntimeEnv>,
    _serving: SpawnedTask<Result<()>>,
}

impl Plane {
    /// Listens at `address`; `advertise` is the name of this machine for executors, if that is not the address.
    ///
    /// # Errors
    /// Fails if the address cannot be listened at, or executors could not use it.
    pub(crate) async fn start(
        runtimes: Runtimes,
        links: Links,
        address: SocketAddr,
        advertise: Option<&str>,
        compression: Compression,
    ) -> Result<Self> {
        let listener = listen_on(address).await?;
        let url = advertised(&links, &listener, advertise)?;
        let url = Url::parse(&url).map_err(|error| Error::Usage(format!("{url:?} is no URL: {error}")))?;
        let channels = Channels::new(links.clone(), runtimes.io.clone());
        let outbox = Arc::<Outbox>::default();
        let sessions = Sessions { channels: channels.clone(), outbox: Arc::clone(&outbox), applier: None };
        let worker = sessions.into_worker();
        // The plan of what the driver sends reaches this worker without a connection.
        let here = worker.to_local_worker_context(url.clone());
        let config = config(channels, here, compression).map_err(misconfigured)?;
        let serving = listen(&runtimes, &links, worker, listener, std::future::pending())?;
        Ok(Self { runtimes, url, outbox, config, memory: Arc::default(), _serving: serving })
    }

    /// Runs a job: what its tasks answer, in their order.
    ///
    /// Nothing is tried twice. Dropping it gives the job up.
    ///
    /// # Errors
    /// Fails as [`JobError`] says; some tasks may have done their work all the same.
    pub(crate) async fn run(&self, job: Job) -> Result<Vec<Answer>, JobError> {
        let Job { frames, routing, parts, applies, deadline } = job;
        let tasks = applies.len();
        if frames.len() != tasks {
            return Err(JobError::Failed(format!("a job has frames for {} of {tasks} tasks", frames.len())));
        }
        if tasks == 0 {
            return Ok(Vec::new());
        }
        let (executors, assignments): (Vec<_>, Vec<_>) =
            applies.into_iter().map(|Apply { executor, spec }| placed(executor, spec)).unzip();
        let parts = parts.into_iter().map(|Part { executor, spec }| placed(executor, spec));
        let (mut senders, mut parts): (Vec<_>, Vec<_>) = parts.map(|(url, part)| (url, Some(part))).unzip();
        if parts.is_empty() || frames.iter().any(|of_task| !of_task.is_empty()) {
            senders.push(self.url.clone());
            parts.push(None);
        }
        let placement = Placement { senders, executors };
        let id = Uuid::new_v4();
        let plan = plan::of_job(id, routing, parts.into(), assignments.into())?;
        let (abort, aborted) = JobAbort::new();
        let attempt = Attempt { plan, context: self.context(id, placement, abort), tasks, aborted };
        let _held = self.outbox.hold(id, frames);
        let run = async move { tokio::time::timeout(deadline, attempt.run()).await };
        match spawn_on(&self.runtimes.cpu, run).await {
            Ok(Ok(ended)) => ended,
            Ok(Err(_)) => Err(JobError::Deadline),
            Err(error) => Err(JobError::Failed(format!("the job was ended at the driver: {error}"))),
        }
    }

    /// Where executors fetch what it sends.
    pub(crate) const fn url(&self) -> &Url {
        &self.url
    }

    /// For how many jobs frames are held.
    #[cfg(test)]
    pub(crate) fn jobs_held(&self) -> usize {
        self.outbox.jobs_held()
    }

    fn context(&self, job: Uuid, placement: Placement, abort: Arc<JobAbort>) -> Arc<TaskContext> {
        let config = self.config.clone().with_extension(abort).with_distributed_route_tasks_handler(placement);
        // Plans of jobs call no functions.
        Arc::new(TaskContext::new(
            None,
            job.to_string(),
            config,
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            HashMap::new(),
            Arc::clone(&self.memory),
        ))
    }
}

impl fmt::Debug for Plane {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Plane").field("url", &self.url.as_str()).finish_non_exhaustive()
    }
}

fn placed(executor: Peer, spec: Vec<u8>) -> (Url, Assignment) {
    let Peer { url, incarnation } = executor;
    (url, Assignment { incarnation, spec: spec.into() })
}

fn config(channels: Channels, here: LocalWorkerContext, compression: Compression) -> DataFusionResult<SessionConfig> {
    let compression = match compression {
        Compression::None => None,
        Compression::Lz4 => Some(CompressionType::LZ4_FRAME),
    };
    SessionConfig::new()
        .with_distributed_channel_resolver(channels)
        .with_distributed_user_codec(Codec)
        .with_distributed_local_worker_context(here)
        .with_distributed_metrics_collection(false)?
        .with_distributed_dynamic_task_count(false)?
        // Batches are sized by their senders: put together by rows, those of large bodies would outgrow Arrow.
        .with_distributed_shuffle_batch_size(1)?
        .with_distributed_compression(compression)
}

fn misconfigured(error: DataFusionError) -> Error {
    Error::Io { context: "the data plane cannot be set up".to_owned(), source: std::io::Error::other(error) }
}
