//! A stream that is read at executors, as its driver sees it.
//!
//! Splits are handed to whichever executor has the fewest in hand, so that slow ones get fewer; one that takes far longer
//! than usual is given to another as well, and the first answer counts. An executor that is lost costs nothing but its
//! work: what a split is, is in words, and any other makes the same rows of them, the driver too where executors fail.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::common::runtime::SpawnedTask;
use tokio::sync::{Notify, mpsc};

use super::message::{BlockKey, Reply, Request};
use super::placement::{MOST_ATTEMPTS, PAUSE};
use super::spread::{Seat, ask_rows};
use super::{Executors, Member};
use crate::error::{Error, Result};
use crate::ingest::{Absent, Found, Lateness, Lease, Piece, Scanned, Stretch, Taken, Timed};
use crate::plan::StreamDefinition;
use crate::source::{PartitionId, Source};
use crate::time::Watermark;

/// Splits in hand at an executor at once: some are on their way to it and back.
const SPLITS_EACH: usize = 4;
/// A split is given to another executor as well once it takes so many times the median …
const SLOW_TIMES: u32 = 4;
/// … and at least this long …
const SLOW_AT_LEAST: Duration = Duration::from_millis(200);
/// … or this long, before any time is known.
const SLOW_AT_FIRST: Duration = Duration::from_secs(2);
/// How many times are kept for the median.
const KEPT_TIMES: usize = 32;

/// The driver's end.
pub(crate) struct Readers {
    executors: Arc<dyn Executors>,
    /// What executors call the stream: of another run it is another.
    id: String,
    program: String,
    definition: Arc<StreamDefinition>,
    source: Arc<dyn Source>,
    known: Mutex<Known>,
    /// Told whenever a split is no longer in hand.
    freed: Notify,
}

/// What is known of the executors.
#[derive(Debug, Default)]
struct Known {
    /// Those that have opened the stream.
    opened: BTreeSet<Member>,
    /// Those that read it as long as there are some of them.
    preferred: BTreeSet<Member>,
    in_hand: BTreeMap<Member, usize>,
    /// How many splits have been given out, and which of them each executor was given last.
    given: u64,
    last_given: BTreeMap<Member, u64>,
    /// What executors may drop of what they hold.
    forgotten: BTreeMap<Member, Vec<BlockKey>>,
    times: VecDeque<Duration>,
}

/// What an executor says of a split.
type Answered = Result<(Member, Found)>;

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").field("stream", &self.definition.name).field("id", &self.id).finish_non_exhaustive()
    }
}

impl Readers {
    /// A stream that no executor has opened.
    pub(crate) fn new(seat: &Seat, definition: Arc<StreamDefinition>, source: Arc<dyn Source>) -> Self {
        Self {
            executors: Arc::clone(&seat.executors),
            id: uuid::Uuid::new_v4().to_string(),
            program: seat.program.clone(),
            definition,
            source,
            known: Mutex::default(),
            freed: Notify::new(),
        }
    }

    /// What executors call the stream.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Each change is whole by itself.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has these executors read it, as long as there are some of them.
    pub(super) fn prefer(&self, members: &[Member]) {
        let mut known = self.known();
        known.preferred = members.iter().cloned().collect();
        known.opened.retain(|member| members.contains(member));
        known.forgotten.retain(|member, _| members.contains(member));
        known.last_given.retain(|member, _| members.contains(member));
    }

    /// Those that read it now; waits until there are some.
    async fn members(&self) -> Vec<Member> {
        let ready = self.executors.ready().await;
        let known = self.known();
        let preferred: Vec<Member> = ready.iter().filter(|member| known.preferred.contains(member)).cloned().collect();
        if preferred.is_empty() { ready } else { preferred }
    }

    /// Has an executor read and decode a split and hold the rows; waits for one to be there. What executors fail at is
    /// tried here before it is given up.
    ///
    /// # Errors
    /// Fails if the input is not what it was, or executors are lost again and again.
    pub(crate) async fn read(self: &Arc<Self>, partition: PartitionId, piece: Piece) -> Result<Taken> {
        let stretch = Stretch { partition, pieces: vec![piece] };
        let mut attempts = 0;
        loop {
            match self.read_once(&stretch).await {
                Ok((holder, found)) => {
                    let lease = Lease::new(Arc::clone(self), holder, stretch);
                    return Ok(Taken::Away(Box::new(Absent { lease, found })));
                }
                Err(error) if error.is_lost() && attempts < MOST_ATTEMPTS => {
                    attempts += 1;
                    tokio::time::sleep(PAUSE * attempts).await;
                }
                Err(error) if error.is_lost() => return Err(error),
                Err(error) => {
                    tracing::warn!(stream = %self.definition.name, %error, "an executor cannot read, the driver does");
                    return self.take_here(&stretch).await;
                }
            }
        }
    }

    async fn read_once(self: &Arc<Self>, stretch: &Stretch) -> Answered {
        let members = self.turn().await;
        let first = self.freest(&members, None).ok_or_else(|| Error::lost("there is no executor"))?;
        let (answers, mut answered) = mpsc::channel(2);
        self.begin_reading(&first, stretch, answers.clone());
        let patience = tokio::time::sleep(self.known().patience());
        tokio::pin!(patience);
        let (mut reading, mut may_repeat, mut failure) = (1, true, None);
        loop {
            tokio::select! {
                Some(answer) = answered.recv() => match answer {
                    Ok(read) => return Ok(read),
                    Err(error) => {
                        reading -= 1;
                        // What cannot be mended says more than that somebody is gone.
                        failure = match failure {
                            Some(known) if error.is_lost() => Some(known),
                            _ => Some(error),
                        };
                    }
                },
                () = &mut patience, if may_repeat => {
                    may_repeat = false;
                    if let Some(second) = self.freest(&members, Some(&first)) {
                        tracing::debug!(stream = %self.definition.name, slow = %first, by = %second, "a split is read twice");
                        reading += 1;
                        self.begin_reading(&second, stretch, answers.clone());
                    }
                }
            }
            if let (0, Some(error)) = (reading, failure.take_if(|_| reading == 0)) {
                return Err(error);
            }
        }
    }

    /// Waits until the executors have a hand free; who they are.
    async fn turn(&self) -> Vec<Member> {
        loop {
            let freed = self.freed.notified();
            let members = self.members().await;
            let in_hand: usize = self.known().in_hand.values().sum();
            if in_hand < members.len() * SPLITS_EACH {
                return members;
            }
            // Others may come meanwhile, who tell nobody here.
            let _ = tokio::time::timeout(SLOW_AT_FIRST, freed).await;
        }
    }

    /// The executor with the fewest splits in hand; of several the one that has had none for longest.
    fn freest(&self, members: &[Member], but: Option<&Member>) -> Option<Member> {
        let known = self.known();
        let others = members.iter().filter(|member| Some(*member) != but);
        others.min_by_key(|member| (known.in_hand.get(*member), known.last_given.get(*member))).cloned()
    }

    /// Has an executor read a stretch. Until it answers the stretch is in its hand, whoever waits for it; if nobody does,
    /// it may drop the rows.
    fn begin_reading(self: &Arc<Self>, member: &Member, stretch: &Stretch, answers: mpsc::Sender<Answered>) {
        let in_hand = InHand::begin(self, member);
        let (readers, member, stretch) = (Arc::clone(self), member.clone(), stretch.clone());
        tokio::spawn(async move {
            let answer = readers.read_at(&member, &stretch).await;
            drop(in_hand);
            let is_read = answer.is_ok();
            if answers.send(answer.map(|found| (member.clone(), found))).await.is_err() && is_read {
                readers.forget(&member, &stretch);
            }
        });
    }

    async fn read_at(&self, member: &Member, stretch: &Stretch) -> Result<Found> {
        let started = Instant::now();
        let forget = self.known().forgotten.remove(member).unwrap_or_default();
        let request = Request::Read { source: self.id.clone(), stretch: stretch.clone(), forget: forget.clone() };
        match self.ask(member, &request).await {
            Ok((Reply::Read(found), _)) => {
                self.known().note_time(started.elapsed());
                Ok(found)
            }
            Ok(_) => Err(no_answer()),
            Err(error) => {
                self.known().forgotten.entry(member.clone()).or_default().extend(forget);
                Err(error)
            }
        }
    }

    /// Scans the rows of a stretch from a watermark, where they are or where they can be had again.
    ///
    /// # Errors
    /// As [`Readers::read`].
    pub(crate) async fn scan(&self, lease: &Lease, lateness: Lateness, from: Watermark) -> Result<Scanned> {
        let source = self.id.clone();
        let request = Request::Scan { source, stretch: lease.stretch.clone(), lateness, from };
        let mut attempts = 0;
        loop {
            let members = self.members().await;
            let holder = members.iter().find(|member| **member == lease.holder).cloned();
            let scanned = match holder.or_else(|| self.freest(&members, None)) {
                Some(member) => self.ask(&member, &request).await,
                None => Err(Error::lost("there is no executor")),
            };
            match scanned {
                Ok((Reply::Scanned { after, behind }, rows)) => return Ok(Scanned { after, behind, rows }),
                Ok(_) => return Err(no_answer()),
                Err(error) if error.is_lost() && attempts < MOST_ATTEMPTS => {
                    attempts += 1;
                    tokio::time::sleep(PAUSE * attempts).await;
                }
                Err(error) if error.is_lost() => return Err(error),
                // It may be that more rows are behind than an answer can hold.
                Err(_) => return self.scan_here(&lease.stretch, lateness, from).await,
            }
        }
    }

    async fn scan_here(&self, stretch: &Stretch, lateness: Lateness, from: Watermark) -> Result<Scanned> {
        let timed = self.decode_here(stretch.clone()).await?;
        match stretch.block(timed) {
            Some(block) => Scanned::of(&block, lateness, from),
            None => Ok(Scanned { after: from, behind: Vec::new(), rows: None }),
        }
    }

    /// Reads and decodes a stretch in this process.
    ///
    /// # Errors
    /// Fails if the input is not what it was.
    pub(crate) async fn decode_here(&self, stretch: Stretch) -> Result<Timed> {
        let (definition, source) = (Arc::clone(&self.definition), Arc::clone(&self.source));
        let decoded = SpawnedTask::spawn_blocking(move || stretch.decode(&definition, source.as_ref())).join().await;
        decoded.map_err(|error| Error::internal(format!("decoding stopped: {error}")))?
    }

    /// The same as what a source gives.
    pub(crate) async fn take_here(&self, stretch: &Stretch) -> Result<Taken> {
        let (source, pieces) = (Arc::clone(&self.source), stretch.pieces.clone());
        let decoding = SpawnedTask::spawn_blocking(move || Taken::of_pieces(source.as_ref(), &pieces));
        decoding.join().await.map_err(|error| Error::internal(format!("decoding stopped: {error}")))?
    }

    /// Asks an executor that has the stream open, or opens it.
    async fn ask(&self, member: &Member, request: &Request) -> Result<(Reply, Option<RecordBatch>)> {
        self.open_at(member).await?;
        let answered = ask_rows(self.executors.as_ref(), member, request).await;
        if answered.as_ref().is_err_and(Error::is_lost) {
            // It may have closed what nobody has asked for in a while.
            self.known().opened.remove(member);
        }
        answered
    }

    /// Has an executor open the stream, unless it has.
    pub(super) async fn open_at(&self, member: &Member) -> Result<()> {
        if self.known().opened.contains(member) {
            return Ok(());
        }
        let (source, program) = (self.id.clone(), self.program.clone());
        let request = Request::Open { source, program, stream: self.definition.name.clone() };
        ask_rows(self.executors.as_ref(), member, &request).await?;
        self.known().opened.insert(member.clone());
        Ok(())
    }

    /// Has every executor open the stream again before it is asked the next time.
    pub(super) fn doubt(&self) {
        self.known().opened.clear();
    }

    /// Notes that nobody needs the rows of a stretch any more.
    pub(crate) fn forget(&self, holder: &Member, stretch: &Stretch) {
        let mut known = self.known();
        if known.opened.contains(holder) {
            known.forgotten.entry(holder.clone()).or_default().push(BlockKey::of(stretch));
        }
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        let opened = std::mem::take(&mut self.known().opened);
        let (executors, source) = (Arc::clone(&self.executors), self.id.clone());
        // Without a runtime the process is ending, and executors drop what a driver does not ask for.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            for member in opened {
                let request = Request::Close { source: source.clone() };
                let _ = ask_rows(executors.as_ref(), &member, &request).await;
            }
        });
    }
}

impl Known {
    /// How long a split may take before another executor is given it too.
    fn patience(&self) -> Duration {
        let mut times: Vec<Duration> = self.times.iter().copied().collect();
        times.sort_unstable();
        let median = times.get(times.len() / 2);
        median.map_or(SLOW_AT_FIRST, |median| (*median * SLOW_TIMES).max(SLOW_AT_LEAST))
    }

    fn note_time(&mut self, time: Duration) {
        self.times.push_back(time);
        if self.times.len() > KEPT_TIMES {
            self.times.pop_front();
        }
    }
}

/// A split in the hand of an executor.
struct InHand {
    readers: Arc<Readers>,
    member: Member,
}

impl InHand {
    fn begin(readers: &Arc<Readers>, member: &Member) -> Self {
        {
            let mut known = readers.known();
            known.given += 1;
            let given = known.given;
            known.last_given.insert(member.clone(), given);
            *known.in_hand.entry(member.clone()).or_default() += 1;
        }
        Self { readers: Arc::clone(readers), member: member.clone() }
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        {
            let mut known = self.readers.known();
            if let Some(count) = known.in_hand.get_mut(&self.member) {
                *count -= 1;
                if *count == 0 {
                    known.in_hand.remove(&self.member);
                }
            }
        }
        self.readers.freed.notify_waiters();
    }
}

fn no_answer() -> Error {
    Error::internal("an executor says not what it has read")
}
