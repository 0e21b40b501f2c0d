//! The connections to other processes, and what is made of their failures.
//!
//! Each process needs them in its own sessions: an executor fetches from senders with its own, not with the driver's.

use std::collections::HashMap;
use std::error::Error as _;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::error::{DataFusionError, Result as DataFusionResult};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion_distributed::grpc::{BoxCloneSyncChannel, create_worker_client};
use datafusion_distributed::{
    ChannelResolver, CoordinatorToWorkerMsg, ExecuteTaskRequest, GetWorkerInfoRequest, GetWorkerInfoResponse,
    SetPlanRequest, WorkerChannel, WorkerToCoordinatorMsg,
};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tonic::codegen::http::HeaderMap;
use tonic::{Code, Status};
use url::Url;

use super::problem::{JobError, lost};
use crate::cluster::link::Links;

/// The connections of a process, by the data address of the peer; clones share them.
#[derive(Clone)]
pub(crate) struct Channels {
    links: Links,
    io: Handle,
    open: Arc<Mutex<HashMap<Url, BoxCloneSyncChannel>>>,
}

impl Channels {
    /// None yet; those to come run on `io`.
    pub(crate) fn new(links: Links, io: Handle) -> Self {
        Self { links, io, open: Arc::default() }
    }

    /// The connection to `url`, which is made when it is first used.
    fn channel(&self, url: &Url) -> DataFusionResult<BoxCloneSyncChannel> {
        if let Some(channel) = self.open().get(url).cloned() {
            return Ok(channel);
        }
        let endpoint =
            self.links.endpoint(&address(url)).map_err(|error| DataFusionError::External(Box::new(error)))?;
        // The tasks of a connection run where it is made.
        let _entered = self.io.enter();
        let channel = BoxCloneSyncChannel::new(endpoint.connect_lazy());
        self.open().insert(url.clone(), channel.clone());
        Ok(channel)
    }

    /// The error of a connection to `url`; the next attempt gets a new one, as an old one may keep an error for it.
    fn failed(&self, url: &Url, error: DataFusionError) -> DataFusionError {
        if !is_of_connection(&error) {
            return error;
        }
        self.open().remove(url);
        lost(url, &error)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<Url, BoxCloneSyncChannel>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channels").field("links", &self.links).finish_non_exhaustive()
    }
}

#[async_trait]
impl ChannelResolver for Channels {
    async fn get_worker_client_for_url(&self, url: &Url) -> Result<Box<dyn WorkerChannel>, DataFusionError> {
        let inner = create_worker_client(self.channel(url)?);
        Ok(Box::new(Hop { url: url.clone(), inner, channels: self.clone() }))
    }
}

/// One connection to one process, whose failures say which process.
struct Hop {
    url: Url,
    inner: Box<dyn WorkerChannel>,
    channels: Channels,
}

impl Hop {
    /// What the errors of a stream become.
    fn failed(&self) -> impl Fn(DataFusionError) -> DataFusionError + Send + use<> {
        let (channels, url) = (self.channels.clone(), self.url.clone());
        move |error| channels.failed(&url, error)
    }
}

#[async_trait]
impl WorkerChannel for Hop {
    async fn coordinator_channel(
        &mut self,
        headers: HeaderMap,
        set_plan_request: SetPlanRequest,
        c2w_stream: BoxStream<'static, CoordinatorToWorkerMsg>,
        metrics: ExecutionPlanMetricsSet,
        task_ctx: &Arc<TaskContext>,
    ) -> DataFusionResult<BoxStream<'static, DataFusionResult<WorkerToCoordinatorMsg>>> {
        let (failed, context) = (self.failed(), Arc::clone(task_ctx));
        let fatal = move |error| JobAbort::fire(&context, failed(error));
        match self.inner.coordinator_channel(headers, set_plan_request, c2w_stream, metrics, task_ctx).await {
            Ok(messages) => Ok(messages.map_err(fatal).boxed()),
            Err(error) => Err(fatal(error)),
        }
    }

    async fn execute_task(
        &mut self,
        headers: HeaderMap,
        request: ExecuteTaskRequest,
        metrics: ExecutionPlanMetricsSet,
        task_ctx: &Arc<TaskContext>,
    ) -> DataFusionResult<Vec<BoxStream<'static, DataFusionResult<RecordBatch>>>> {
        let streams = self.inner.execute_task(headers, request, metrics, task_ctx).await.map_err(self.failed())?;
        Ok(streams.into_iter().map(|rows| rows.map_err(self.failed()).boxed()).collect())
    }

    async fn get_worker_info(&mut self, request: GetWorkerInfoRequest) -> DataFusionResult<GetWorkerInfoResponse> {
        self.inner.get_worker_info(request).await.map_err(self.failed())
    }
}

/// Ends a job whose plan did not reach an executor; an extension of the job's session at the driver.
///
/// Without it the executor, if it has only restarted, is asked for rows and waits 10 s for the plan.
#[derive(Debug)]
pub(crate) struct JobAbort(mpsc::Sender<JobError>);

impl JobAbort {
    /// One for a job, and where it says why.
    pub(crate) fn new() -> (Arc<Self>, mpsc::Receiver<JobError>) {
        let (sender, receiver) = mpsc::channel(1);
        (Arc::new(Self(sender)), receiver)
    }

    fn fire(context: &TaskContext, error: DataFusionError) -> DataFusionError {
        if let Some(abort) = context.session_config().get_extension::<Self>() {
            // The first reason is enough.
            let _ = abort.0.try_send(JobError::read(&error));
        }
        error
    }
}

/// With the port, which URLs leave out if it is that of their scheme.
fn address(url: &Url) -> String {
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    format!("{}://{host}:{port}", url.scheme())
}

/// Errors that the other process has told of are of other types, or of codes that are not those of connections.
fn is_of_connection(error: &DataFusionError) -> bool {
    let DataFusionError::External(source) = error else { return false };
    let Some(status) = source.downcast_ref::<Status>() else { return false };
    match status.code() {
        Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded => true,
        // Of HTTP/2 if it has a cause; the other process uses it for rows that cannot be encoded.
        Code::Internal => status.source().is_some(),
        _ => false,
    }
}
