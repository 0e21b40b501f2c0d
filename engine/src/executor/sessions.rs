//! Sessions: the rows of a key that are less than a gap apart, `[Session Gap g Partition By k]`.
//!
//! A session is `[first row, last row + gap)` and ends, is evaluated and is dropped once the watermark has come to its
//! end: from then on no row may come that would belong to it. Which sessions are open is known in memory, by key;
//! their rows lie in panes of the gap's width, and an end takes its rows out of them.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, RecordBatch, TimestampNanosecondArray, UInt32Array};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::datatypes::SchemaRef;

use crate::arrays::{concat_rows, take_rows, without_waste};
use crate::checkpoint::PaneTag;
use crate::error::{Error, Result};
use crate::executor::latest::{in_order, times_of};
use crate::executor::leaf::BoundedRows;
use crate::executor::row_keys::RowKeys;
use crate::program::Selection;
use crate::state::PaneStore;
use crate::time::{EventTime, Span};
use crate::window::Pane;

type Key = Arc<[u8]>;
/// Sessions that have ended, by key and the time of their first row.
type EndedSessions = HashMap<Key, BTreeMap<i64, Ended>>;

/// The state of a session window.
#[derive(Debug)]
pub(crate) struct Sessions {
    panes: PaneStore,
    selection: Selection,
    schema: SchemaRef,
    keys: RowKeys,
    gap: Span,
    /// The open sessions of each key: from the first row's time to the last one's.
    open: HashMap<Key, BTreeMap<i64, i64>>,
    /// The same by their end: end, key, time of the first row.
    ends: BTreeSet<(i64, Key, i64)>,
}

/// A session that has ended: its last row, and the number of its instant.
#[derive(Debug, Clone, Copy)]
struct Ended {
    last: i64,
    instant: usize,
}

impl Sessions {
    /// Sessions with this gap, of rows with the columns of `schema`.
    pub(crate) fn new(selection: Selection, gap: Span, schema: SchemaRef) -> Result<Self> {
        let keys = RowKeys::new(&selection, &schema)?;
        let (open, ends) = (HashMap::new(), BTreeSet::new());
        Ok(Self { panes: PaneStore::default(), selection, schema, keys, gap, open, ends })
    }

    /// Opens or extends the sessions of `rows`, which are added to the panes besides.
    pub(crate) fn note(&mut self, rows: &[RecordBatch]) -> Result<()> {
        for batch in rows {
            let keys = self.keys.of(batch)?;
            for (row, time) in times_of(batch, &self.selection)?.iter().enumerate() {
                self.note_row(keys.get(row), *time);
            }
        }
        Ok(())
    }

    fn note_row(&mut self, key: &[u8], time: i64) {
        let gap = self.gap.0;
        let key: Key = match self.open.get_key_value(key) {
            Some((known, _)) => Arc::clone(known),
            None => key.into(),
        };
        let sessions = self.open.entry(Arc::clone(&key)).or_default();
        let (mut start, mut last) = (time, time);
        let before = sessions.range(..=time).next_back().map(|(start, last)| (*start, *last));
        let after = sessions.range(time..).next().map(|(start, last)| (*start, *last));
        if let Some((first, latest)) = before.filter(|(_, latest)| time < latest.saturating_add(gap)) {
            if latest >= time {
                return;
            }
            start = first;
        }
        if let Some((first, latest)) = after.filter(|(first, _)| *first < time.saturating_add(gap)) {
            sessions.remove(&first);
            self.ends.remove(&(latest.saturating_add(gap), Arc::clone(&key), first));
            last = latest;
        }
        if let Some(replaced) = sessions.insert(start, last) {
            self.ends.remove(&(replaced.saturating_add(gap), Arc::clone(&key), start));
        }
        self.ends.insert((last.saturating_add(gap), key, start));
    }

    /// The first end after `time`.
    pub(crate) fn next_end(&self, time: EventTime) -> Option<EventTime> {
        let after = time.0.checked_add(1)?;
        self.ends.range((after, Key::from([]), i64::MIN)..).next().map(|(end, ..)| EventTime(*end))
    }

    /// The last end as known now.
    pub(crate) fn last_end(&self) -> Option<EventTime> {
        self.ends.last().map(|(end, ..)| EventTime(*end))
    }

    /// Takes the sessions out that end at `instants`, which ascend.
    pub(crate) fn take(&mut self, instants: &[EventTime]) -> Result<Vec<BoundedRows>> {
        let (ended, bounds) = self.close(instants);
        let mut parts: Vec<Vec<RecordBatch>> = vec![Vec::new(); instants.len()];
        let pairs: Vec<PaneTag> = match bounds {
            Some((first, last)) => self.panes.tags(self.pane_of(first), Pane(self.pane_of(last).0 + 1)).collect(),
            None => Vec::new(),
        };
        for pair in pairs {
            self.take_from(pair, &ended, &mut parts)?;
        }
        let ended = &ended;
        parts.into_iter().enumerate().map(|(instant, rows)| self.session(instant, rows, ended)).collect()
    }

    fn pane_of(&self, time: i64) -> Pane {
        Pane(time.div_euclid(self.gap.0))
    }

    /// Forgets the sessions that end at `instants`; those, and the times of the first and the last of their rows.
    fn close(&mut self, instants: &[EventTime]) -> (EndedSessions, Option<(i64, i64)>) {
        let mut ended = HashMap::<Key, BTreeMap<i64, Ended>>::new();
        let mut bounds: Option<(i64, i64)> = None;
        for (instant, end) in instants.iter().enumerate() {
            while let Some((first_end, key, start)) = self.ends.first().cloned() {
                if first_end != end.0 {
                    break;
                }
                self.ends.pop_first();
                let last = end.0.saturating_sub(self.gap.0);
                if let Some(sessions) = self.open.get_mut(&key) {
                    sessions.remove(&start);
                    if sessions.is_empty() {
                        self.open.remove(&key);
                    }
                }
                ended.entry(key).or_default().insert(start, Ended { last, instant });
                bounds = Some(bounds.map_or((start, last), |(low, high)| (low.min(start), high.max(last))));
            }
        }
        (ended, bounds)
    }

    /// Moves the rows of ended sessions out of an entry.
    fn take_from(&mut self, (pane, tag): PaneTag, ended: &EndedSessions, parts: &mut [Vec<RecordBatch>]) -> Result<()> {
        let batches = self.panes.read(pane, tag)?;
        let mut left = Vec::new();
        let mut has_taken = false;
        for batch in batches {
            let keys = self.keys.of(&batch)?;
            let times = times_of(&batch, &self.selection)?;
            let mut taken = BTreeMap::<usize, Vec<u32>>::new();
            let mut stays = vec![true; batch.num_rows()];
            for ((row, time), stays) in (0..).zip(times).zip(&mut stays) {
                let sessions = ended.get(keys.get(row as usize));
                let session = sessions.and_then(|sessions| sessions.range(..=*time).next_back());
                if let Some((_, session)) = session.filter(|(_, session)| *time <= session.last) {
                    taken.entry(session.instant).or_default().push(row);
                    *stays = false;
                }
            }
            if taken.is_empty() {
                left.push(batch);
                continue;
            }
            has_taken = true;
            for (instant, rows) in taken {
                if let Some(part) = parts.get_mut(instant) {
                    part.push(take_rows(&batch, &UInt32Array::from(rows))?);
                }
            }
            let rest = filter_record_batch(&batch, &BooleanArray::from(stays))?;
            if rest.num_rows() > 0 {
                left.push(without_waste(rest)?);
            }
        }
        if has_taken {
            self.panes.remove(pane, tag);
            if !left.is_empty() {
                self.panes.add(pane, tag, left);
            }
        }
        Ok(())
    }

    /// The rows of an instant in order, with the bounds of their sessions.
    fn session(&self, instant: usize, rows: Vec<RecordBatch>, ended: &EndedSessions) -> Result<BoundedRows> {
        let none = || Arc::new(TimestampNanosecondArray::from(Vec::<i64>::new())) as ArrayRef;
        if rows.is_empty() {
            return Ok(BoundedRows { rows: None, starts: none(), ends: none() });
        }
        let rows = in_order(&concat_rows(&self.schema, &rows)?, &self.selection)?;
        let keys = self.keys.of(&rows)?;
        let mut starts = Vec::with_capacity(rows.num_rows());
        let mut ends = Vec::with_capacity(rows.num_rows());
        for (row, time) in times_of(&rows, &self.selection)?.iter().enumerate() {
            let sessions = ended.get(keys.get(row));
            let session = sessions.and_then(|sessions| sessions.range(..=*time).next_back());
            let Some((start, session)) = session.filter(|(_, session)| session.instant == instant) else {
                return Err(Error::internal("a row has no session"));
            };
            starts.push(*start);
            ends.push(session.last.saturating_add(self.gap.0));
        }
        let column = |times: Vec<i64>| Arc::new(TimestampNanosecondArray::from(times)) as ArrayRef;
        Ok(BoundedRows { rows: Some(rows), starts: column(starts), ends: column(ends) })
    }

    /// Its rows by pane.
    pub(crate) const fn panes(&mut self) -> &mut PaneStore {
        &mut self.panes
    }

    pub(crate) const fn is_on_disk(&self) -> bool {
        self.panes.is_on_disk()
    }

    pub(crate) const fn bytes(&self) -> usize {
        self.panes.bytes()
    }
}
