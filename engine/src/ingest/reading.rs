//! Reading one partition: splits are fetched in order, decoded several at a time, and handed on in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;

use datafusion::arrow::compute::concat_batches;
use datafusion::common::runtime::SpawnedTask;
use tokio::sync::{Semaphore, mpsc};

use crate::cluster::Readers;
use crate::error::{Error, Result};
use crate::ingest::away::{Absent, Piece};
use crate::source::{Decode, Decoded, Offset, PartitionId, PartitionReader, Source, Split};
use crate::time::{EventTime, Span};

/// What happens to a stream, in order within a partition.
#[derive(Debug)]
pub(crate) enum Event {
    /// Rows; with their event time if they were logged before and have none of their own.
    Rows {
        partition: PartitionId,
        offsets: Range<Offset>,
        taken: Taken,
        arrival: Option<EventTime>,
    },
    Idle(PartitionId),
    End(PartitionId),
    Tick(EventTime),
    Closed,
    Failed(Error),
}

/// The rows of a split.
#[derive(Debug)]
pub(crate) enum Taken {
    /// In this process.
    Here(Decoded),
    /// At an executor.
    Away(Box<Absent>),
}

impl Taken {
    /// The rows of pieces of a source, in this process; keeps a thread busy.
    pub(crate) fn of_pieces(source: &dyn Source, pieces: &[Piece]) -> Result<Self> {
        let decoded = pieces.iter().map(|piece| source.decoder(&piece.recipe)?.decode());
        whole_here(decoded.collect::<Result<_>>()?).map(Self::Here)
    }

    /// The parts of what was one split. If some of them are here and others at executors, all are decoded here.
    pub(super) async fn whole(mut parts: Vec<Self>) -> Result<Self> {
        if parts.len() == 1
            && let Some(only) = parts.pop()
        {
            return Ok(only);
        }
        if parts.iter().any(|part| matches!(part, Self::Here(_))) {
            let mut here = Vec::new();
            for part in parts {
                here.push(part.brought().await?);
            }
            return whole_here(here).map(Self::Here);
        }
        let mut away =
            parts.into_iter().filter_map(|part| if let Self::Away(absent) = part { Some(*absent) } else { None });
        let first = away.next().ok_or_else(|| Error::internal("no part"))?;
        Ok(Self::Away(Box::new(first.with(away.collect()))))
    }

    async fn brought(self) -> Result<Decoded> {
        match self {
            Self::Here(decoded) => Ok(decoded),
            Self::Away(absent) => match absent.lease.readers.take_here(&absent.lease.stretch).await? {
                Self::Here(decoded) => Ok(decoded),
                Self::Away(_) => Err(Error::internal("a split was brought here and is not here")),
            },
        }
    }

    fn row_count(&self) -> usize {
        match self {
            Self::Here(decoded) => decoded.batch.num_rows() + decoded.bad.len(),
            Self::Away(absent) => absent.found.rows + absent.found.bad.len(),
        }
    }
}

impl Event {
    /// The rows it brings, those that cannot be used included.
    pub(super) fn row_count(&self) -> usize {
        match self {
            Self::Rows { taken, .. } => taken.row_count(),
            _ => 0,
        }
    }
}

/// Splits of a partition that are read ahead where executors decode them.
const AHEAD_OF_EXECUTORS: usize = 32;

/// How the partitions of a stream are read.
#[derive(Debug, Clone)]
pub(super) struct ReadingRules {
    /// How long a partition may be silent before that is said.
    idle_timeout: Option<Span>,
    /// The executors that decode, if some do.
    readers: Option<Arc<Readers>>,
    /// How many splits may be decoded here at once …
    width: usize,
    /// … and who may begin another one.
    cores: Arc<Semaphore>,
}

impl ReadingRules {
    pub(super) fn new(idle_timeout: Option<Span>, readers: Option<Arc<Readers>>) -> Self {
        let width = std::thread::available_parallelism().map_or(2, usize::from);
        Self { idle_timeout, readers, width, cores: Arc::new(Semaphore::new(width)) }
    }
}

/// What was read and is perhaps still being decoded.
enum Pending {
    Split(Range<Offset>, SpawnedTask<Result<Taken>>),
    Promise(EventTime),
    Idle,
    End,
    Failed(Error),
}

/// Reads a partition to its end; its first splits end at `limits`, ascending.
pub(super) async fn read_partition(
    partition: PartitionId,
    mut reader: Box<dyn PartitionReader>,
    mut limits: VecDeque<Offset>,
    rules: ReadingRules,
    events: mpsc::Sender<Event>,
) {
    // How many executors there are, and so how many splits they take at once, is asked for each.
    let decoding = if rules.readers.is_some() { AHEAD_OF_EXECUTORS } else { rules.width };
    let (pending, mut started) = mpsc::channel(decoding);
    let reading = async move {
        loop {
            let (next, promise) =
                next_split(reader.as_mut(), partition, limits.front().copied(), &rules, &pending).await;
            let is_last = !matches!(next, Pending::Split(..));
            if let Pending::Split(offsets, _) = &next {
                while limits.front().is_some_and(|limit| *limit <= offsets.end) {
                    limits.pop_front();
                }
            }
            if pending.send(next).await.is_err() || is_last {
                return;
            }
            if let Some(promise) = promise
                && pending.send(Pending::Promise(promise)).await.is_err()
            {
                return;
            }
        }
    };
    let handing_on = async move {
        while let Some(pending) = started.recv().await {
            if events.send(decoded(partition, pending).await).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(reading, handing_on);
}

/// Waits for the next split and starts decoding it; says so once if it takes longer than the idle timeout.
///
/// Gives what the split promises besides.
async fn next_split(
    reader: &mut dyn PartitionReader,
    partition: PartitionId,
    limit: Option<Offset>,
    rules: &ReadingRules,
    pending: &mpsc::Sender<Pending>,
) -> (Pending, Option<EventTime>) {
    let mut next = pin!(reader.next(limit));
    let mut timeout = rules.idle_timeout.map(|span| std::time::Duration::from_nanos(span.0.unsigned_abs()));
    let split = loop {
        let idle = async {
            match timeout {
                Some(timeout) => tokio::time::sleep(timeout).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            split = &mut next => break split,
            () = idle => {
                timeout = None;
                if pending.send(Pending::Idle).await.is_err() {
                    return (Pending::End, None);
                }
            }
        }
    };
    match split {
        Ok(Some(Split { offsets, decode, .. })) => {
            let promise = decode.promise();
            (Pending::Split(offsets.clone(), begin_decoding(partition, offsets, decode, rules)), promise)
        }
        Ok(None) => (Pending::End, None),
        Err(error) => (Pending::Failed(error), None),
    }
}

/// Has a split decoded, at an executor if it can be.
fn begin_decoding(
    partition: PartitionId,
    offsets: Range<Offset>,
    decode: Box<dyn Decode>,
    rules: &ReadingRules,
) -> SpawnedTask<Result<Taken>> {
    let recipe = rules.readers.as_ref().and_then(|readers| Some((Arc::clone(readers), decode.recipe()?)));
    match recipe {
        Some((readers, recipe)) => {
            let piece = Piece { start: offsets.start, end: offsets.end, recipe };
            SpawnedTask::spawn(async move { readers.read(partition, piece).await })
        }
        None => {
            let cores = Arc::clone(&rules.cores);
            SpawnedTask::spawn(async move {
                // It is never closed.
                let _core = cores.acquire().await.ok();
                let decoding = SpawnedTask::spawn_blocking(move || Ok(Taken::Here(decode.decode()?)));
                decoding.join().await.map_err(|error| Error::internal(format!("decoding stopped: {error}")))?
            })
        }
    }
}

async fn decoded(partition: PartitionId, pending: Pending) -> Event {
    match pending {
        Pending::Promise(time) => Event::Tick(time),
        Pending::Idle => Event::Idle(partition),
        Pending::End => Event::End(partition),
        Pending::Failed(error) => Event::Failed(error),
        Pending::Split(offsets, task) => match task.join().await {
            Ok(Ok(taken)) => Event::Rows { partition, offsets, taken, arrival: None },
            Ok(Err(error)) => Event::Failed(error),
            Err(error) => Event::Failed(Error::internal(format!("decoding stopped: {error}"))),
        },
    }
}

fn whole_here(mut parts: Vec<Decoded>) -> Result<Decoded> {
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return Ok(only);
    }
    let schema = parts.first().map(|part| part.batch.schema()).ok_or_else(|| Error::internal("no part"))?;
    let batch = concat_batches(&schema, parts.iter().map(|part| &part.batch))?;
    Ok(Decoded { batch, bad: parts.into_iter().flat_map(|part| part.bad).collect() })
}
