//! The end of the plane that other processes connect to: an executor's, and a driver's for what it sends.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::runtime::SpawnedTask;
use datafusion::error::DataFusionError;
use datafusion::execution::SessionState;
use datafusion_distributed::{DistributedExt, Worker, WorkerQueryContext, WorkerSessionBuilder};
use tokio::net::TcpListener;

use super::codec::Codec;
use super::nodes::Applier;
use super::outbox::Outbox;
use super::resolver::Channels;
use super::runtimes::{Runtimes, spawn_on};
use super::service::OnCpu;
use crate::cluster::link::{Links, incoming};
use crate::error::{Error, Result};

/// Runs apply tasks that come to `listener` until `shutdown`, then ends when those that run have ended.
///
/// Dropping it ends it at once for new connections.
///
/// # Errors
/// Fails for certificates that cannot be used, and if the listener fails.
pub(crate) async fn serve(
    runtimes: Runtimes,
    links: Links,
    listener: TcpListener,
    applier: Applier,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<()> {
    let channels = Channels::new(links.clone(), runtimes.io.clone());
    let sessions = Sessions { channels, outbox: Arc::default(), applier: Some(Arc::new(applier)) };
    let serving = listen(&runtimes, &links, sessions.into_worker(), listener, shutdown)?;
    serving.await.map_err(|error| unserved(io::Error::other(error)))?
}

/// Serves `worker` on `listener` until `shutdown`, or until what it gives is dropped.
///
/// # Errors
/// Fails for certificates and a listener that cannot be used.
pub(crate) fn listen(
    runtimes: &Runtimes,
    links: &Links,
    worker: Worker,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<SpawnedTask<Result<()>>> {
    let mut server = links.server()?;
    let service = OnCpu::new(worker.into_worker_server(), runtimes.cpu.clone());
    // A listener belongs to the runtime that it was made on, which need not be the one for connections.
    let listener = listener.into_std().map_err(unserved)?;
    Ok(spawn_on(&runtimes.io, async move {
        let incoming = incoming(TcpListener::from_std(listener).map_err(unserved)?);
        let serving = server.add_service(service).serve_with_incoming_shutdown(incoming, shutdown);
        serving.await.map_err(|error| unserved(io::Error::other(error)))
    }))
}

fn unserved(source: io::Error) -> Error {
    Error::Io { context: "the data address of the cluster cannot be served".to_owned(), source }
}

/// What the sessions of a process' tasks have.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    /// For fetching from other processes.
    pub(crate) channels: Channels,
    /// For sending.
    pub(crate) outbox: Arc<Outbox>,
    /// For applying, which a driver does not.
    pub(crate) applier: Option<Arc<Applier>>,
}

impl Sessions {
    /// What runs the tasks; its clones share them.
    pub(crate) fn into_worker(self) -> Worker {
        Worker::from_session_builder(self)
    }
}

#[async_trait]
impl WorkerSessionBuilder for Sessions {
    async fn build_session_state(&self, query: WorkerQueryContext) -> Result<SessionState, DataFusionError> {
        let builder = query.builder.with_distributed_user_codec(Codec);
        let mut builder = builder.with_distributed_channel_resolver(self.channels.clone());
        let config = builder.config().get_or_insert_default();
        config.set_extension(Arc::clone(&self.outbox));
        if let Some(applier) = &self.applier {
            config.set_extension(Arc::clone(applier));
        }
        Ok(builder.build())
    }
}
