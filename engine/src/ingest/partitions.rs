//! The partitions of a stream being read side by side, first along a log that is there already, then freely.

use std::collections::VecDeque;
use std::ops::Range;
use std::task::Poll;

use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::error::{Error, Result};
use crate::ingest::Progress;
use crate::ingest::event::LoggedEvent;
use crate::ingest::reading::{Event, ReadingRules, Taken, read_partition};
use crate::source::{Offset, PartitionId, PartitionReader};

/// Events between a partition and the log.
const EVENT_QUEUE: usize = 4;

/// The readers of all partitions.
#[derive(Debug)]
pub(super) struct Partitions {
    stream: String,
    receivers: Vec<Option<mpsc::Receiver<Event>>>,
    /// Partitions that fell silent while the log was followed and have had no rows since.
    silent: Vec<bool>,
    /// What is added to the offsets of each partition.
    moved_by: Vec<Offset>,
    /// The partition that is asked first, in turns.
    turn: usize,
    tasks: JoinSet<()>,
}

impl Partitions {
    /// Starts reading; splits end where those of `replay` do.
    pub(super) fn spawn(
        stream: &str,
        readers: Vec<Box<dyn PartitionReader>>,
        replay: &[LoggedEvent],
        rules: &ReadingRules,
    ) -> Self {
        let mut tasks = JoinSet::new();
        let mut receivers = Vec::new();
        for (number, reader) in (0..).map(PartitionId).zip(readers) {
            let limits: VecDeque<Offset> = replay.iter().filter_map(|event| end_in(event, number)).collect();
            let (events, received) = mpsc::channel(EVENT_QUEUE);
            tasks.spawn(read_partition(number, reader, limits, rules.clone(), events));
            receivers.push(Some(received));
        }
        let silent = vec![false; receivers.len()];
        Self { stream: stream.to_owned(), receivers, silent, moved_by: Vec::new(), turn: 0, tasks }
    }

    /// Makes a logged event happen again.
    ///
    /// # Errors
    /// Fails if the input no longer gives what it gave then.
    pub(super) async fn again(&mut self, logged: &LoggedEvent) -> Result<Event> {
        Ok(match logged {
            LoggedEvent::Rows { partition, start, end, arrival } => {
                let taken = self.rows_again(*partition, *start..*end).await?;
                Event::Rows { partition: *partition, offsets: *start..*end, taken, arrival: *arrival }
            }
            LoggedEvent::Idle(partition) => Event::Idle(*partition),
            LoggedEvent::End(partition) => {
                // What a partition that has ended would give now is no part of this log.
                if let Some(receiver) = self.receivers.get_mut(index_of(*partition)) {
                    *receiver = None;
                }
                Event::End(*partition)
            }
            LoggedEvent::Tick(time) => Event::Tick(*time),
            LoggedEvent::Closed => Event::Closed,
        })
    }

    async fn rows_again(&mut self, partition: PartitionId, offsets: Range<Offset>) -> Result<Taken> {
        let mut reached = offsets.start;
        let mut parts: Vec<Taken> = Vec::new();
        while reached < offsets.end || parts.is_empty() {
            let receiver = self.receivers.get_mut(index_of(partition)).and_then(Option::as_mut);
            let event = match receiver {
                Some(receiver) => receiver.recv().await,
                None => None,
            };
            match event {
                Some(Event::Rows { offsets: got, taken, .. }) if got.start == reached && got.end <= offsets.end => {
                    reached = got.end;
                    parts.push(taken);
                    self.set_silent(partition, false);
                }
                Some(Event::Idle(_)) => self.set_silent(partition, true),
                Some(Event::Failed(error)) => return Err(error),
                other => return Err(self.changed(partition, &offsets, other.as_ref())),
            }
        }
        Taken::whole(parts).await
    }

    fn set_silent(&mut self, partition: PartitionId, is_silent: bool) {
        if let Some(silent) = self.silent.get_mut(index_of(partition)) {
            *silent = is_silent;
        }
    }

    fn changed(&self, partition: PartitionId, wanted: &Range<Offset>, got: Option<&Event>) -> Error {
        let got = match got {
            Some(Event::Rows { offsets, .. }) => format!("gave offsets {} to {}", offsets.start.0, offsets.end.0),
            _ => "ended".to_owned(),
        };
        Error::state(
            format!(
                "the input of stream \"{}\" changed: partition {} has logged offsets {} to {}, but reading them again \
                 it {got}",
                self.stream, partition.0, wanted.start.0, wanted.end.0
            ),
            "restore the input as it was, or start again with a new state directory",
        )
    }

    /// Says where partitions whose offsets begin at 0 in every run have come to in all runs.
    pub(super) fn move_to(&mut self, offsets: &[Offset]) {
        self.moved_by = offsets.to_vec();
    }

    /// Reads partitions that had ended before no further: what they would give is no part of this log.
    pub(super) fn leave_ended(&mut self, progress: &Progress) {
        for (number, receiver) in (0..).map(PartitionId).zip(&mut self.receivers) {
            if progress.has_ended(number) {
                *receiver = None;
            }
        }
    }

    fn moved(&self, event: Event) -> Event {
        match event {
            Event::Rows { partition, offsets, taken, arrival } => {
                let by = self.moved_by.get(index_of(partition)).map_or(0, |offset| offset.0);
                let offsets = Offset(offsets.start.0 + by)..Offset(offsets.end.0 + by);
                Event::Rows { partition, offsets, taken, arrival }
            }
            other => other,
        }
    }

    /// The next event of any partition; `None` once all have ended.
    pub(super) async fn next(&mut self) -> Option<Event> {
        if let Some(index) = self.silent.iter().position(|silent| *silent) {
            let partition = PartitionId(u32::try_from(index).unwrap_or(u32::MAX));
            self.set_silent(partition, false);
            return Some(Event::Idle(partition));
        }
        let event = std::future::poll_fn(|context| {
            let count = self.receivers.len();
            let mut is_open = false;
            for step in 0..count {
                let index = (self.turn + step) % count.max(1);
                let Some(slot) = self.receivers.get_mut(index) else { continue };
                let Some(receiver) = slot else { continue };
                match receiver.poll_recv(context) {
                    Poll::Ready(Some(event)) => {
                        self.turn = index + 1;
                        return Poll::Ready(Some(event));
                    }
                    Poll::Ready(None) => *slot = None,
                    Poll::Pending => is_open = true,
                }
            }
            if is_open { Poll::Pending } else { Poll::Ready(None) }
        })
        .await;
        event.map(|event| self.moved(event))
    }

    /// An event that is there already.
    pub(super) fn try_next(&mut self) -> Option<Event> {
        let event = self.receivers.iter_mut().flatten().find_map(|receiver| receiver.try_recv().ok());
        event.map(|event| self.moved(event))
    }

    /// Waits for the readers, of which none has more to say.
    pub(super) async fn finish(mut self) -> Result<()> {
        // Readers of partitions that the log calls ended are not waited for.
        if self.receivers.iter().any(Option::is_some) {
            self.tasks.abort_all();
        }
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Err(error) if !error.is_cancelled() => {
                    return Err(Error::internal(format!("a reader ended early: {error}")));
                }
                _ => {}
            }
        }
        Ok(())
    }
}

fn index_of(partition: PartitionId) -> usize {
    usize::try_from(partition.0).unwrap_or(usize::MAX)
}

fn end_in(event: &LoggedEvent, number: PartitionId) -> Option<Offset> {
    match event {
        LoggedEvent::Rows { partition, end, .. } if *partition == number => Some(*end),
        _ => None,
    }
}
