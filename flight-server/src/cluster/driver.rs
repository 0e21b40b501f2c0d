//! The driver's end of a cluster: it waits for executors, or starts some on this machine.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use millstream_engine::cluster::{Executors, Seat};
use millstream_engine::durable::{Durability, StateDirectory, StatePlace};
use millstream_engine::state::machine_bytes;
use millstream_engine::time::{Clock, SystemClock};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::control::{Actions, control_service};
use super::link::{Links, advertised, incoming, listen_on, next_port};
use super::membership::{Members, Membership, Pace, executors_table};
use super::plane::{Compression, Plane};
use super::programs::Program;
use super::reach::Reach;
use super::runtimes::runtimes;
use super::spawn::LocalExecutors;
use crate::error::{Error, Result};

/// How long executors of this machine have until they have registered.
const STARTUP: Duration = Duration::from_secs(60);

/// How a cluster is set up.
#[derive(Debug, Clone)]
pub(crate) struct ClusterOptions {
    /// How many executors to start on this machine; none if they are started elsewhere.
    pub(crate) local: Option<usize>,
    /// Where executors register.
    pub(crate) listen: SocketAddr,
    /// The name of this machine for them, if that is not the address.
    pub(crate) advertise: Option<String>,
    /// How long an executor may be silent.
    pub(crate) timeout: Duration,
    /// How long executors of other machines have until queries are begun with those that have registered.
    pub(crate) settling: Duration,
    /// The memory of each local executor for state.
    pub(crate) memory: Option<u64>,
    pub(crate) links: Links,
    /// The arguments by which local executors use the same links.
    pub(crate) link_arguments: Vec<OsString>,
    /// For the files of local executors, and of queries that nobody keeps.
    pub(crate) folder: PathBuf,
}

/// The executors of a driver.
#[derive(Debug)]
pub(crate) struct Cluster {
    reach: Arc<Reach>,
    /// Where queries are kept that end with this process.
    scratch: StateDirectory,
    scratch_place: StatePlace,
    local: Mutex<Option<LocalExecutors>>,
    url: String,
    /// Becomes true when it ends.
    stop: watch::Sender<bool>,
    _serving: Vec<SpawnedTask<()>>,
}

impl Cluster {
    /// Listens for executors, and starts those of this machine.
    ///
    /// # Errors
    /// Fails if an address cannot be listened on, a folder cannot be used, or an executor cannot be started.
    pub(crate) async fn start(options: ClusterOptions) -> Result<Self> {
        let threads = runtimes()?;
        // The clock does not go back by as long as a driver lives.
        let term = u64::try_from(SystemClock.now().0).unwrap_or_default();
        let pace = Pace { timeout: options.timeout, interval: options.timeout / 4 };
        let membership = Membership::new(term, pace);
        let listener = listen_on(options.listen).await?;
        let advertise = options.advertise.as_deref();
        let url = advertised(&options.links, &listener, advertise)?;
        // Within a machine it costs more than it saves.
        let compression = if options.listen.ip().is_loopback() { Compression::None } else { Compression::Lz4 };
        let data = next_port(options.listen);
        let plane = Plane::start(threads.clone(), options.links.clone(), data, advertise, compression).await?;
        let (stop, stopped) = watch::channel(false);
        let serving = serve(&threads.io, &options.links, listener, &membership, stopped)?;
        let scratch = options.folder.join("scratch");
        // What an earlier process has left of queries that ended with it.
        match std::fs::remove_dir_all(&scratch) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::Io { context: format!("cannot remove {}", scratch.display()), source });
            }
            _ => {}
        }
        let scratch_place = StatePlace::Folder(scratch);
        let scratch = StateDirectory::open(&scratch_place, Durability::ProcessCrash)?;
        let start = |count: usize| {
            let spill = options.folder.join("executors");
            let part = machine_bytes() as u64 / 2 / count.max(1) as u64;
            LocalExecutors::spawn(count, &url, &spill, options.memory.unwrap_or(part), &options.link_arguments)
        };
        let local = options.local.map(start).transpose()?;
        // Executors that look for a driver again and again need a moment, and may hold what would be made again.
        let settles_at = Instant::now() + if options.local.is_some() { Duration::ZERO } else { options.settling };
        let reach = Arc::new(Reach::new(options.links, membership, plane, settles_at));
        let local = Mutex::new(local);
        let cluster = Self { reach, scratch, scratch_place, local, url, stop, _serving: serving };
        if let Some(count) = options.local {
            cluster.wait_for(count).await?;
        }
        Ok(cluster)
    }

    /// Waits until so many executors have registered.
    ///
    /// # Errors
    /// They do not in time.
    pub(super) async fn wait_for(&self, count: usize) -> Result<()> {
        match self.reach.membership().wait_for(count, STARTUP).await {
            Some(_) => Ok(()),
            None => {
                let ids = self.local().as_ref().map(LocalExecutors::process_ids).unwrap_or_default();
                let ids: Vec<_> = ids.into_iter().map(|id| id.map_or("none".to_owned(), |id| id.to_string())).collect();
                let message = format!("not all of {count} executors have registered within {} s", STARTUP.as_secs());
                Err(Error::Usage(format!("{message}; their processes are {}, their messages above", ids.join(", "))))
            }
        }
    }

    fn local(&self) -> MutexGuard<'_, Option<LocalExecutors>> {
        // It is there or not.
        self.local.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where executors register.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// A place for a query.
    pub(crate) fn seat(&self, program: &Program) -> Result<Seat> {
        let executors: Arc<dyn Executors> = Arc::<Reach>::clone(&self.reach);
        Ok(Seat { executors, program: program.to_text()?, store: None })
    }

    /// Where queries are kept that end with this process, and what that survives.
    pub(crate) const fn scratch(&self) -> (&StateDirectory, &StatePlace) {
        (&self.scratch, &self.scratch_place)
    }

    /// What SHOW EXECUTORS tells.
    pub(crate) fn table(&self) -> Result<RecordBatch> {
        executors_table(&self.reach.membership().newest())
    }

    /// What SHOW EXECUTORS tells where there are none.
    pub(crate) fn no_table() -> Result<RecordBatch> {
        executors_table(&Members::default())
    }

    /// Ends the executors of this machine.
    pub(crate) async fn end(&self) {
        let local = self.local().take();
        if let Some(local) = local {
            local.stop().await;
        }
        self.stop.send_replace(true);
    }
}

/// Serves control and looks for silent executors, on threads that plans do not keep busy.
fn serve(
    io: &tokio::runtime::Handle,
    links: &Links,
    listener: TcpListener,
    membership: &Membership,
    stop: watch::Receiver<bool>,
) -> Result<Vec<SpawnedTask<()>>> {
    let mut server = links.server()?;
    let actions: Arc<dyn Actions> = Arc::new(membership.clone());
    let failed = |source| Error::Io { context: "the cluster's address cannot be served".to_owned(), source };
    let listener = listener.into_std().map_err(failed)?;
    let watched = membership.clone();
    let _entered = io.enter();
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    let serving = SpawnedTask::spawn(async move {
        let served = server.add_service(control_service(actions)).serve_with_incoming(incoming(listener)).await;
        if let Err(error) = served {
            tracing::error!(%error, "executors cannot reach this driver any more");
        }
    });
    Ok(vec![serving, SpawnedTask::spawn(async move { watched.watch_over(stop).await })])
}
