//! `millstream executor`: a process that holds state for a driver.

use std::fmt;
use std::io::Read as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::cluster::Host;
use millstream_engine::state::machine_bytes;
use millstream_engine::time::{Clock, SystemClock};
use tokio::net::TcpListener;
use tokio::sync::watch;
use uuid::Uuid;

use super::control::{ActionError, Actions, ControlClient, control_service};
use super::link::{Links, advertised, incoming, listen_on, next_port};
use super::membership::{Figures, Incarnation, RELEASE, Registration, keep_registered};
use super::plane::{self, Applier, Runtimes, Work, WorkError};
use super::programs::Planner;
use super::reach::{ASK, batches, frames_of};
use super::runtimes::runtimes;
use crate::cli::ExecutorArgs;
use crate::error::{Error, Result};
use crate::memory::Memory;

/// How long a new driver has to ask for what an earlier one has left: it may have much input to read again.
const FORSAKEN_AFTER: Duration = Duration::from_secs(1_800);
/// How long an executor that is to end waits until others have taken over what it holds.
const HAND_OVER: Duration = Duration::from_secs(30);

/// Runs an executor until `stop` becomes true and its state has been handed over.
///
/// # Errors
/// Fails if it cannot listen, or what it is told about its links cannot be used.
pub async fn run(args: &ExecutorArgs, stop: watch::Receiver<bool>) -> Result<()> {
    let memory = Memory::of_executor(args.memory_limit, args.spill_dir.as_deref())?;
    let executor = Executor::start(args, memory).await?;
    let stop = if args.end_with_parent { ended_with_parent(stop) } else { stop };
    tracing::info!(name = executor.me.name, data = executor.me.data, control = executor.me.control, "listens");
    executor.serve(stop).await
}

/// Becomes true with `stop`, and when stdin is at its end: the process that holds the other end of it is gone.
fn ended_with_parent(mut stop: watch::Receiver<bool>) -> watch::Receiver<bool> {
    std::thread::spawn(|| {
        let mut stdin = std::io::stdin().lock();
        while matches!(stdin.read(&mut [0; 64]), Ok(1..)) {}
        // There is nobody left to hand anything over to.
        std::process::exit(0);
    });
    let (sender, receiver) = watch::channel(false);
    tokio::spawn(async move {
        let _ = stop.wait_for(|stop| *stop).await;
        sender.send_replace(true);
        sender.closed().await;
    });
    receiver
}

/// Refuses to be open to strangers.
fn check_guarded(args: &ExecutorArgs) -> Result<()> {
    if args.listen.ip().is_loopback() || args.links.cluster_ca.is_some() || args.insecure {
        return Ok(());
    }
    Err(Error::Usage(format!(
        "{} is open to other machines: give --cluster-ca, --cluster-cert and --cluster-key, or say --insecure where the \
         network is trusted",
        args.listen
    )))
}

/// An executor that listens.
struct Executor {
    runtimes: Runtimes,
    links: Links,
    driver: ControlClient,
    me: Registration,
    data: TcpListener,
    control: TcpListener,
    answering: Arc<Answering>,
}

impl Executor {
    async fn start(args: &ExecutorArgs, memory: Memory) -> Result<Self> {
        let links = args.links.links()?;
        check_guarded(args)?;
        let (data, control) = (listen_on(args.listen).await?, listen_on(next_port(args.listen)).await?);
        let url = |listener: &TcpListener| advertised(&links, listener, args.advertise.as_deref());
        let process = Uuid::new_v4();
        let me = Registration {
            name: args.name.clone().unwrap_or_else(|| format!("executor-{}", process.simple())),
            data: url(&data)?,
            control: url(&control)?,
            incarnation: Incarnation::new(SystemClock.now()),
            process,
            version: RELEASE.to_owned(),
            cores: std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1)),
            memory_bytes: args.memory_limit.unwrap_or(machine_bytes() as u64 / 2),
            pid: std::process::id(),
        };
        let answering = Answering { host: Host::new(Arc::new(Planner::new(memory))), tasks: AtomicU32::new(0) };
        Ok(Self {
            runtimes: runtimes()?,
            driver: ControlClient::new(&links, &args.driver)?,
            links,
            me,
            data,
            control,
            answering: Arc::new(answering),
        })
    }

    /// Serves until `stop`, and then until nothing is held any more, or for [`HAND_OVER`].
    async fn serve(self, stop: watch::Receiver<bool>) -> Result<()> {
        let Self { runtimes, links, driver, me, data, control, answering } = self;
        let cpu = runtimes.cpu.clone();
        let work: Arc<dyn Work> = Arc::clone(&answering) as _;
        let applier = Applier::new(me.process, work);
        let plane = plane::serve(runtimes.clone(), links.clone(), data, applier, std::future::pending());
        let actions: Arc<dyn Actions> = Arc::new(Control { answering: Arc::clone(&answering), cpu });
        let mut server = links.server()?;
        let failed = |error: tonic::transport::Error| Error::Io {
            context: "the control address of the executor cannot be served".to_owned(),
            source: std::io::Error::other(error),
        };
        let control = server.add_service(control_service(actions)).serve_with_incoming(incoming(control));
        let host = answering.host.clone();
        let figures = move || answering.figures();
        // Queries may have ended while the driver did not reach this process.
        let heart = keep_registered(driver, me, figures, stop.clone(), move |_, _| host.meet_driver());
        let mut stopped = stop;
        tokio::select! {
            ended = plane => ended,
            ended = control => ended.map_err(failed),
            () = heart => Ok(()),
            () = async {
                let _ = stopped.wait_for(|stop| *stop).await;
                tokio::time::sleep(HAND_OVER).await;
            } => {
                tracing::warn!("ends with state that nobody has taken over");
                Ok(())
            }
        }
    }
}

/// What an executor does for drivers.
struct Answering {
    host: Host,
    /// Tasks that are being done.
    tasks: AtomicU32,
}

impl fmt::Debug for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answering").field("host", &self.host).finish_non_exhaustive()
    }
}

impl Answering {
    fn figures(&self) -> Figures {
        self.host.forget_forsaken(FORSAKEN_AFTER);
        let held = self.host.held();
        Figures {
            state_bytes: held.state_bytes,
            rows: held.rows,
            rows_read: held.rows_read,
            slots: u32::try_from(held.slots).unwrap_or(u32::MAX),
            jobs: self.tasks.load(Ordering::Relaxed),
        }
    }
}

/// Counts a task for as long as it is there.
struct Counted<'a>(&'a AtomicU32);

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[async_trait]
impl Work for Answering {
    async fn apply(&self, spec: &[u8], frames: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, WorkError> {
        self.tasks.fetch_add(1, Ordering::Relaxed);
        let _counted = Counted(&self.tasks);
        let frames = frames_of(&frames).map_err(work_error)?;
        let answer = self.host.apply(spec, frames).await.map_err(work_error)?;
        batches(&answer).map_err(work_error)
    }

    async fn send(&self, routing: &[u8], spec: &[u8]) -> Result<Vec<Vec<RecordBatch>>, WorkError> {
        self.tasks.fetch_add(1, Ordering::Relaxed);
        let _counted = Counted(&self.tasks);
        let made = self.host.send(routing, spec).await.map_err(work_error)?;
        made.iter().map(|frames| batches(frames).map_err(work_error)).collect()
    }
}

fn work_error(error: millstream_engine::Error) -> WorkError {
    if error.is_lost() { WorkError::Stale(error.to_string()) } else { WorkError::Failed(error.to_string()) }
}

/// Answers questions on the threads for work: plans are made and checkpoints read for them.
struct Control {
    answering: Arc<Answering>,
    cpu: tokio::runtime::Handle,
}

#[async_trait]
impl Actions for Control {
    async fn act(&self, action: &str, body: &[u8]) -> Result<Vec<u8>, ActionError> {
        if action != ASK {
            return Err(ActionError::unknown(action));
        }
        let (answering, body) = (Arc::clone(&self.answering), Bytes::copy_from_slice(body));
        let answered = self.cpu.spawn(async move { answering.host.call(&body).await }).await;
        match answered {
            Ok(Ok(answer)) => Ok(answer.to_vec()),
            Ok(Err(error)) if error.is_lost() => Err(ActionError::stale(error.to_string())),
            Ok(Err(error)) => Err(ActionError::failed(error.to_string())),
            Err(error) => Err(ActionError::failed(format!("an answer ended early: {error}"))),
        }
    }
}
