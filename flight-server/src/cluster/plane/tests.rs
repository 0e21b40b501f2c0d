//! Jobs over loopback, between a driver and executors that are tasks of one process.

use std::future::pending;
use std::sync::Arc;
use std::time::Instant;

use datafusion::common::runtime::SpawnedTask;
use futures::future::join_all;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::{mpsc, oneshot};

use super::*;
use crate::cluster::link::Links;

const INCARNATION: u8 = 1;
const SPEC: u8 = 2;
const SENT: u8 = 7;
/// Far above what a job takes, so that only one that hangs reaches it.
const DEADLINE: Duration = Duration::from_secs(60);

type Bodies = Vec<Vec<u8>>;

/// What an executor of the tests does.
#[derive(Debug)]
enum Deed {
    /// Answers who it is, what its task was, and what it was sent.
    Echo(Uuid),
    Panic,
    Fail(&'static str),
    /// Says that it has begun, by what is closed when it is dropped, and never ends.
    Hang(mpsc::UnboundedSender<oneshot::Receiver<()>>),
}

#[async_trait]
impl Work for Deed {
    async fn apply(&self, spec: &[u8], sent: Vec<RecordBatch>) -> Result<Vec<RecordBatch>, WorkError> {
        match self {
            Self::Echo(incarnation) => {
                let who = frames([(INCARNATION, incarnation.as_bytes().as_slice()), (SPEC, spec)]).unwrap();
                Ok([vec![who], sent].concat())
            }
            Self::Panic => panic!("as asked"),
            Self::Fail(text) => Err(WorkError::Failed((*text).to_owned())),
            Self::Hang(begun) => {
                let (_alive, dropped) = oneshot::channel();
                begun.send(dropped).unwrap();
                pending().await
            }
        }
    }

    /// What is asked for, to as many tasks as the first byte says.
    async fn send(&self, _: &[u8], spec: &[u8]) -> Result<Vec<Vec<RecordBatch>>, WorkError> {
        match self {
            Self::Panic => panic!("as asked"),
            Self::Fail(text) => Err(WorkError::Failed((*text).to_owned())),
            _ => Ok((0..spec[0])
                .map(|task| vec![frames([(SPEC, [&[task], spec].concat().as_slice())]).unwrap()])
                .collect()),
        }
    }
}

/// An executor that ends with it.
#[derive(Debug)]
struct Executor {
    peer: Peer,
    _serving: SpawnedTask<crate::error::Result<()>>,
}

impl Executor {
    async fn start(runtimes: Runtimes, deed: impl FnOnce(Uuid) -> Deed) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let incarnation = Uuid::new_v4();
        let applier = Applier::new(incarnation, Arc::new(deed(incarnation)));
        let serving = SpawnedTask::spawn(serve(runtimes, Links::plain(), listener, applier, pending()));
        Self { peer: Peer { url, incarnation }, _serving: serving }
    }

    async fn doing(deed: Deed) -> Self {
        Self::start(here(), |_| deed).await
    }

    async fn echoing() -> Self {
        Self::start(here(), Deed::Echo).await
    }
}

fn here() -> Runtimes {
    Runtimes { io: Handle::current(), cpu: Handle::current() }
}

async fn driver() -> Plane {
    let any = "127.0.0.1:0".parse().unwrap();
    Plane::start(here(), Links::plain(), any, None, Compression::None).await.unwrap()
}

/// A job that sends `sent[i]` to a task at `peers[i]`, whose spec is `i`.
fn job(peers: &[Peer], sent: &[Bodies]) -> Job {
    let batch = |bodies: &Bodies| vec![frames(bodies.iter().map(|body| (SENT, body.as_slice()))).unwrap()];
    let apply = |(task, peer): (u8, &Peer)| Apply { executor: peer.clone(), spec: vec![task] };
    let (frames, applies) = (sent.iter().map(batch).collect(), (0..).zip(peers).map(apply).collect());
    Job { frames, routing: Bytes::new(), parts: Vec::new(), applies, deadline: DEADLINE }
}

/// A job with one frame for its only task.
fn small(peer: &Peer) -> Job {
    job(std::slice::from_ref(peer), &[vec![vec![1, 2, 3]]])
}

fn rows(batches: &[RecordBatch]) -> Vec<(u8, Vec<u8>)> {
    let mut rows = Vec::new();
    for batch in batches {
        let (kinds, bodies) = (frame::kinds(batch).unwrap(), frame::bodies(batch).unwrap());
        rows.extend((0..batch.num_rows()).map(|row| (kinds.value(row), bodies.value(row).to_vec())));
    }
    rows
}

/// Every task answers from where it was placed, with its own spec and exactly what it was sent.
async fn check_echo(plane: &Plane, peers: &[Peer], sent: &[Bodies]) {
    let answers = plane.run(job(peers, sent)).await.unwrap();
    assert_eq!(answers.len(), peers.len());
    for (task, answer) in answers.iter().enumerate() {
        let mut wanted = vec![(INCARNATION, peers[task].incarnation.as_bytes().to_vec()), (SPEC, vec![task as u8])];
        wanted.extend(sent[task].iter().map(|body| (SENT, body.clone())));
        assert!(rows(&answer.frames) == wanted, "task {task} of {}", peers.len());
    }
}

/// Bodies by which it shows whose they are: `task` of job `number` has `task + 1` of them.
fn bodies(number: usize, tasks: usize) -> Vec<Bodies> {
    let body = |task: usize, row: usize| format!("job {number}, task {task}, frame {row}").into_bytes();
    (0..tasks).map(|task| (0..=task).map(|row| body(task, row)).collect()).collect()
}

async fn three() -> Vec<Executor> {
    join_all((0..3).map(|_| Executor::echoing())).await
}

fn peers(executors: &[Executor], tasks: &[usize]) -> Vec<Peer> {
    tasks.iter().map(|executor| executors[*executor].peer.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_task_gets_its_frames_where_it_was_placed() {
    let (plane, executors) = (driver().await, three().await);
    for tasks in [[1].as_slice(), &[2, 0], &[0, 0], &[0, 1, 2], &[2, 1, 2, 0, 1]] {
        check_echo(&plane, &peers(&executors, tasks), &bodies(0, tasks.len())).await;
    }
    assert_eq!(plane.jobs_held(), 0);
}

/// A job of two tasks with frames of `senders` besides, and of the driver if there are some.
fn job_sent_by(senders: &[&Peer], peers: &[Peer], bodies: &[Bodies]) -> Job {
    let mut job = job(peers, bodies);
    if bodies.iter().all(Vec::is_empty) {
        job.frames.iter_mut().for_each(Vec::clear);
    }
    let spec = |number: usize| vec![peers.len() as u8, number as u8];
    let sends = senders.iter().enumerate();
    job.parts = sends.map(|(number, peer)| Part { executor: (*peer).clone(), spec: spec(number) }).collect();
    job
}

#[tokio::test(flavor = "multi_thread")]
async fn executors_send_to_each_other_with_the_driver_and_without() {
    let (plane, executors) = (driver().await, three().await);
    let tasks = peers(&executors, &[0, 2]);
    for from_driver in [bodies(0, 2), vec![Vec::new(), Vec::new()]] {
        let senders: Vec<&Peer> = executors.iter().map(|executor| &executor.peer).collect();
        let answers = plane.run(job_sent_by(&senders, &tasks, &from_driver)).await.unwrap();
        for (task, answer) in answers.iter().enumerate() {
            let mut got: Vec<_> = rows(&answer.frames).split_off(2);
            got.sort();
            let mut wanted: Vec<_> = from_driver[task].iter().map(|body| (SENT, body.clone())).collect();
            wanted.extend((0..3).map(|number| (SPEC, vec![task as u8, 2, number])));
            wanted.sort();
            assert_eq!(got, wanted, "task {task}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_fails_panics_or_is_another_fails_the_job() {
    let (plane, executors) = (driver().await, three().await);
    let tasks = peers(&executors, &[0, 1]);
    let (fails, panics) = (Executor::doing(Deed::Fail("no room")).await, Executor::doing(Deed::Panic).await);
    let other = Peer { incarnation: Uuid::new_v4(), ..executors[2].peer.clone() };
    let error = async |sender: &Peer| {
        let senders = [&executors[2].peer, sender];
        plane.run(job_sent_by(&senders, &tasks, &bodies(0, 2))).await.unwrap_err()
    };
    let failed = error(&fails.peer).await;
    assert!(matches!(&failed, JobError::Failed(message) if message.contains("no room")), "{failed:?}");
    let panicked = error(&panics.peer).await;
    assert!(matches!(&panicked, JobError::Failed(message) if message.contains("as asked")), "{panicked:?}");
    let stale = error(&other).await;
    assert!(matches!(&stale, JobError::Stale { .. }), "{stale:?}");
    assert_eq!(plane.jobs_held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_one_after_the_other_do_not_get_each_others_frames() {
    let (plane, executors) = (driver().await, three().await);
    let peers = peers(&executors, &[0, 1, 2]);
    for number in 0..300 {
        check_echo(&plane, &peers, &bodies(number, 3)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_at_the_same_time_do_not_get_each_others_frames() {
    let (plane, executors) = (driver().await, three().await);
    for round in 0..10 {
        let jobs = (0..8).map(|number| {
            let (plane, peers) = (&plane, peers(&executors, &[0, 1, 2, 0]));
            async move { check_echo(plane, &peers, &bodies(round * 8 + number, 4)).await }
        });
        join_all(jobs).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_frames_answers_too() {
    let (plane, executors) = (driver().await, three().await);
    let peers = peers(&executors, &[0, 1, 2]);
    check_echo(&plane, &peers, &[vec![], vec![b"only".to_vec()], vec![]]).await;
    let mut job = job(&peers, &[vec![], vec![], vec![]]);
    job.frames = vec![vec![]; 3];
    assert_eq!(plane.run(job).await.unwrap().len(), 3);
    let none = Job { frames: vec![], routing: Bytes::new(), parts: vec![], applies: vec![], deadline: DEADLINE };
    assert!(plane.run(none).await.unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn many_and_large_bodies_come_whole_and_in_order() {
    let (plane, executors) = (driver().await, three().await);
    let many = (0..3 * 1024_u32).map(|row| row.to_le_bytes().repeat(256)).collect();
    let large = vec![vec![1; 3 << 20], vec![2; 10], vec![3; 9 << 20]];
    check_echo(&plane, &peers(&executors, &[0, 1]), &[many, large]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_may_be_compressed() {
    let any = "127.0.0.1:0".parse().unwrap();
    let plane = Plane::start(here(), Links::plain(), any, None, Compression::Lz4).await.unwrap();
    let executors = three().await;
    check_echo(&plane, &peers(&executors, &[0, 1]), &[vec![vec![1; 1 << 20]], vec![]]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_is_a_failure_and_not_a_lack_of_rows() {
    let (plane, panics, well) = (driver().await, Executor::doing(Deed::Panic).await, Executor::echoing().await);
    let peers = [well.peer.clone(), panics.peer.clone()];
    let error = plane.run(job(&peers, &bodies(0, 2))).await.unwrap_err();
    assert!(matches!(&error, JobError::Failed(text) if text.contains("as asked")), "{error:?}");
    // The process has gone on.
    let error = plane.run(small(&panics.peer)).await.unwrap_err();
    assert!(matches!(&error, JobError::Failed(_)), "{error:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_text_of_a_failure_reaches_the_driver() {
    let (plane, fails) = (driver().await, Executor::doing(Deed::Fail("no pane 7\nof query q")).await);
    let error = plane.run(small(&fails.peer)).await.unwrap_err();
    assert!(matches!(&error, JobError::Failed(text) if text == "no pane 7\nof query q"), "{error:?}");
    assert_eq!(plane.jobs_held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_incarnation_does_nothing() {
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (plane, other) = (driver().await, Executor::doing(Deed::Hang(begun)).await);
    let meant = Peer { incarnation: Uuid::new_v4(), ..other.peer.clone() };
    let error = plane.run(small(&meant)).await.unwrap_err();
    let named = |reason: &str| reason.contains(&meant.incarnation.to_string());
    assert!(matches!(&error, JobError::Stale { reason } if named(reason)), "{error:?}");
    assert!(begins.try_recv().is_err());
    assert_eq!(plane.jobs_held(), 0);
}

/// An executor with a runtime of its own, which can be killed as a process can.
async fn mortal(deed: impl FnOnce(Uuid) -> Deed) -> (Runtime, Executor) {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let runtimes = Runtimes { io: runtime.handle().clone(), cpu: runtime.handle().clone() };
    (runtime, Executor::start(runtimes, deed).await)
}

#[track_caller]
fn check_lost(error: &JobError, peer: &Peer, since: Instant) {
    assert!(matches!(error, JobError::Lost { url, .. } if url == peer.url.as_str()), "{error:?}");
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_is_gone_is_named() {
    let (plane, well, (runtime, dies)) = (driver().await, Executor::echoing().await, mortal(Deed::Echo).await);
    let peers = [well.peer.clone(), dies.peer.clone()];
    check_echo(&plane, &peers, &bodies(0, 2)).await;
    runtime.shutdown_background();
    for number in 1..4 {
        let since = Instant::now();
        let error = plane.run(job(&peers, &bodies(number, 2))).await.unwrap_err();
        check_lost(&error, &dies.peer, since);
    }
    check_echo(&plane, &peers[..1], &bodies(9, 1)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_executor_that_goes_in_the_middle_of_a_job_is_named() {
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (plane, well, (runtime, dies)) =
        (driver().await, Executor::echoing().await, mortal(|_| Deed::Hang(begun)).await);
    let peers = [well.peer.clone(), dies.peer.clone()];
    let kill = async {
        begins.recv().await.unwrap();
        runtime.shutdown_background();
        Instant::now()
    };
    let (ended, since) = tokio::join!(plane.run(job(&peers, &bodies(0, 2))), kill);
    check_lost(&ended.unwrap_err(), &dies.peer, since);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_dropped_holds_no_frames() {
    // It takes connections, as the system does that for it, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}", silent.local_addr().unwrap())).unwrap();
    let plane = driver().await;
    let mut run = Box::pin(plane.run(small(&Peer { url, incarnation: Uuid::new_v4() })));
    assert!(futures::poll!(&mut run).is_pending());
    assert_eq!(plane.jobs_held(), 1);
    drop(run);
    assert_eq!(plane.jobs_held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_dropped_drops_the_work_of_its_tasks() {
    let (begun, mut begins) = mpsc::unbounded_channel();
    let (plane, hangs) = (driver().await, Executor::doing(Deed::Hang(begun)).await);
    let mut run = Box::pin(plane.run(small(&hangs.peer)));
    let dropped = tokio::select! {
        ended = &mut run => panic!("{ended:?}"),
        begun = begins.recv() => begun.unwrap(),
    };
    drop(run);
    assert_eq!(plane.jobs_held(), 0);
    // It is closed and not sent to.
    assert!(tokio::time::timeout(DEADLINE, dropped).await.unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_hangs_ends_at_its_deadline() {
    let (begun, _begins) = mpsc::unbounded_channel();
    let (plane, hangs) = (driver().await, Executor::doing(Deed::Hang(begun)).await);
    let job = Job { deadline: Duration::from_millis(200), ..small(&hangs.peer) };
    let error = plane.run(job).await.unwrap_err();
    assert!(matches!(&error, JobError::Deadline), "{error:?}");
    assert_eq!(plane.jobs_held(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_executors_cannot_use_is_refused() {
    let all = "0.0.0.0:0".parse().unwrap();
    let refused = Plane::start(here(), Links::plain(), all, None, Compression::None).await.unwrap_err().to_string();
    assert!(refused.contains("--advertise"), "{refused}");
}
