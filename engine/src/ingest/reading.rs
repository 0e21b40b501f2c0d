//! Reading one partition: splits are fetched in order, decoded several at a time, and handed on in order.

use std::collections::VecDeque;
use std::ops::Range;
use std::pin::pin;

use datafusion::common::runtime::SpawnedTask;
use tokio::sync::mpsc;

use crate::error::{Error, Result};
use crate::source::{Decoded, Offset, PartitionId, PartitionReader, Split};
use crate::time::{EventTime, Span};

/// What happens to a stream, in order within a partition.
#[derive(Debug)]
pub(crate) enum Event {
    /// Rows; with their event time if they were logged before and have none of their own.
    Rows {
        partition: PartitionId,
        offsets: Range<Offset>,
        decoded: Decoded,
        arrival: Option<EventTime>,
    },
    Idle(PartitionId),
    End(PartitionId),
    Tick(EventTime),
    Closed,
    Failed(Error),
}

impl Event {
    /// The rows it brings, those that cannot be used included.
    pub(super) fn row_count(&self) -> usize {
        match self {
            Self::Rows { decoded, .. } => decoded.batch.num_rows() + decoded.bad.len(),
            _ => 0,
        }
    }
}

/// What was read and is perhaps still being decoded.
enum Pending {
    Split(Range<Offset>, SpawnedTask<Result<Decoded>>),
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
    idle_timeout: Option<Span>,
    events: mpsc::Sender<Event>,
) {
    let decoding = std::thread::available_parallelism().map_or(2, usize::from);
    let (pending, mut started) = mpsc::channel(decoding);
    let reading = async move {
        loop {
            let (next, promise) = next_split(reader.as_mut(), limits.front().copied(), idle_timeout, &pending).await;
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
    limit: Option<Offset>,
    idle_timeout: Option<Span>,
    pending: &mpsc::Sender<Pending>,
) -> (Pending, Option<EventTime>) {
    let mut next = pin!(reader.next(limit));
    let mut timeout = idle_timeout.map(|span| std::time::Duration::from_nanos(span.0.unsigned_abs()));
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
            (Pending::Split(offsets, SpawnedTask::spawn_blocking(move || decode.decode())), promise)
        }
        Ok(None) => (Pending::End, None),
        Err(error) => (Pending::Failed(error), None),
    }
}

async fn decoded(partition: PartitionId, pending: Pending) -> Event {
    match pending {
        Pending::Promise(time) => Event::Tick(time),
        Pending::Idle => Event::Idle(partition),
        Pending::End => Event::End(partition),
        Pending::Failed(error) => Event::Failed(error),
        Pending::Split(offsets, task) => match task.join().await {
            Ok(Ok(decoded)) => Event::Rows { partition, offsets, decoded, arrival: None },
            Ok(Err(error)) => Event::Failed(error),
            Err(error) => Event::Failed(Error::internal(format!("decoding stopped: {error}"))),
        },
    }
}
