//! The rows of an outer join within bounds of time: which of them have had a partner, and which never will.
//!
//! Each row of a preserved side is kept with a mark that says whether it has had a partner. A step takes in the rows of
//! new instants: it gives the combinations they are in, marks both rows of each, and gives the rows without a mark whose
//! last partner could have come by the end of the step. Both depend on the rows up to there alone, not on the steps
//! in which they came.

use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, UInt64Array};
use datafusion::arrow::compute::filter_record_batch;
use datafusion::arrow::record_batch::RecordBatch;

use crate::checkpoint::PaneTag;
use crate::error::{Error, Result};
use crate::executor::held::{State, blocking};
use crate::program::{OuterJoin, Program};
use crate::state::Batches;
use crate::time::EventTime;
use crate::window::{Pane, Window, WindowSpec};

/// Entries of pane state, unread.
type Entries = Vec<(PaneTag, Batches)>;
/// Entries whose rows have other marks than before.
type Marked = Vec<(PaneTag, Vec<RecordBatch>)>;

/// What a leaf keeps as a step begins.
struct Held {
    old: Entries,
    fresh: Entries,
    /// The first pane whose rows may still have a partner after the step.
    waiting: Pane,
    extent: Window,
}

/// The rows of a leaf, numbered from 0 in their order, the old ones first.
struct Rows {
    leaf: usize,
    entries: Vec<(PaneTag, Vec<RecordBatch>)>,
    old_entries: usize,
    waiting: Pane,
    extent: Window,
    has_met: Vec<bool>,
}

impl State {
    /// The combinations of rows of which the last was seen after the first of the instants and up to the second, and
    /// the preserved rows that can have no partner after that and have had none.
    ///
    /// # Errors
    /// As the disk or an expression of the query fails.
    pub(super) async fn outer_pairs(
        &mut self,
        program: &Arc<Program>,
        windows: &[WindowSpec],
        (before, until): (EventTime, EventTime),
    ) -> Result<Vec<RecordBatch>> {
        let mut held = Vec::with_capacity(windows.len());
        for (leaf, window) in self.leaves_mut().iter_mut().zip(windows) {
            let store = leaf.store().ok_or_else(|| Error::internal("combinations are of rows"))?;
            held.push(Held {
                old: store.seen_between(EventTime(i64::MIN), before),
                fresh: store.seen_between(before, until),
                waiting: first_waiting(window, until),
                extent: window.window(until),
            });
        }
        let program = Arc::clone(program);
        let (rows, marked) = blocking(move || step(&program, held)).await?;
        for (leaf, marked) in self.leaves_mut().iter_mut().zip(marked) {
            let Some(store) = leaf.store() else { continue };
            for ((pane, tag), rows) in marked {
                store.remove(pane, tag);
                store.add(pane, tag, rows);
            }
        }
        Ok(rows)
    }
}

/// The first pane of a side of a join whose rows may still be joined once the instants up to `passed` have been seen.
pub(super) fn first_waiting(window: &WindowSpec, passed: EventTime) -> Pane {
    window.panes_of(window.instant_at_or_before(EventTime(passed.0.saturating_add(1)))).0
}

/// The results of a step, and for each leaf what has other marks after it.
fn step(program: &Program, held: Vec<Held>) -> Result<(Vec<RecordBatch>, Vec<Marked>)> {
    let join =
        program.outer.as_deref().ok_or_else(|| Error::internal("a query without an outer join was asked for one"))?;
    let rows = held.into_iter().enumerate().map(|(leaf, held)| Rows::read(program, leaf, held));
    let rows: Vec<Rows> = rows.collect::<Result<_>>()?;
    let Ok([mut first, mut second]) = <[Rows; 2]>::try_from(rows) else {
        return Err(Error::internal("an outer join is of two leaves"));
    };
    let (old, fresh) = first.numbered(program, join)?;
    let (other_old, other_fresh) = second.numbered(program, join)?;
    // Each combination has a fresh row, and is met once.
    let others = other_old.iter().chain(&other_fresh).cloned().collect();
    let mut given = Vec::new();
    for met in join.meet([fresh, others])?.into_iter().chain(join.meet([old, other_fresh])?) {
        first.mark(&met.numbers[0]);
        second.mark(&met.numbers[1]);
        given.push(met.joined);
    }
    let mut marked = Vec::new();
    for rows in [&first, &second] {
        if join.preserves(rows.leaf) {
            given.extend(rows.alone(program, join)?);
        }
        marked.push(rows.marked(program)?);
    }
    Ok((join.results(given)?, marked))
}

impl Rows {
    fn read(program: &Program, leaf: usize, held: Held) -> Result<Self> {
        let input = program.input(leaf)?;
        let mut rows = Self {
            leaf,
            entries: Vec::with_capacity(held.old.len() + held.fresh.len()),
            old_entries: held.old.len(),
            waiting: held.waiting,
            extent: held.extent,
            has_met: Vec::new(),
        };
        for (pair, batches) in held.old.into_iter().chain(held.fresh) {
            let batches = batches.read()?;
            for batch in &batches {
                match input.partner_marks(batch)? {
                    Some(marks) => rows.has_met.extend(marks.values()),
                    None => rows.has_met.resize(rows.has_met.len() + batch.num_rows(), false),
                }
            }
            rows.entries.push((pair, batches));
        }
        Ok(rows)
    }

    /// The old and the fresh rows for the join.
    fn numbered(&self, program: &Program, join: &OuterJoin) -> Result<(Vec<RecordBatch>, Vec<RecordBatch>)> {
        let input = program.input(self.leaf)?;
        let (mut old, mut fresh) = (Vec::new(), Vec::new());
        let mut number = 0;
        for (index, (_, batches)) in self.entries.iter().enumerate() {
            for batch in batches {
                let end = number + batch.num_rows() as u64;
                let rows = input.with_bounds(batch, self.extent)?;
                let rows = join.numbered(self.leaf, &rows, UInt64Array::from_iter_values(number..end))?;
                if index < self.old_entries {
                    old.push(rows)
                } else {
                    fresh.push(rows)
                }
                number = end;
            }
        }
        Ok((old, fresh))
    }

    fn mark(&mut self, numbers: &UInt64Array) {
        for number in numbers.values() {
            if let Some(has_met) = usize::try_from(*number).ok().and_then(|number| self.has_met.get_mut(number)) {
                *has_met = true;
            }
        }
    }

    /// The batches of each entry with the marks of their rows.
    fn with_marks(&self) -> impl Iterator<Item = (PaneTag, Vec<(&RecordBatch, &[bool])>)> {
        let mut rest = self.has_met.as_slice();
        self.entries.iter().map(move |(pair, batches)| {
            let marks = batches.iter().map(|batch| {
                let (marks, behind) = rest.split_at_checked(batch.num_rows()).unwrap_or((rest, &[]));
                rest = behind;
                (batch, marks)
            });
            (*pair, marks.collect())
        })
    }

    /// The rows beside NULLs that have had no partner and can have none after this step.
    fn alone(&self, program: &Program, join: &OuterJoin) -> Result<Vec<RecordBatch>> {
        let input = program.input(self.leaf)?;
        let mut alone = Vec::new();
        for (_, batches) in self.with_marks().filter(|((pane, _), _)| *pane < self.waiting) {
            for (batch, marks) in batches {
                let is_alone: BooleanArray = marks.iter().map(|has_met| Some(!has_met)).collect();
                let rows = input.with_bounds(&filter_record_batch(batch, &is_alone)?, self.extent)?;
                if rows.num_rows() > 0 {
                    alone.push(join.alone(self.leaf, &rows)?);
                }
            }
        }
        Ok(alone)
    }

    /// The entries that stay after this step and of which some row has met its first partner in it.
    fn marked(&self, program: &Program) -> Result<Marked> {
        let input = program.input(self.leaf)?;
        let mut marked = Vec::new();
        for (pair, batches) in self.with_marks().filter(|((pane, _), _)| *pane >= self.waiting) {
            let mut is_changed = false;
            for (batch, marks) in &batches {
                let Some(before) = input.partner_marks(batch)? else { return Ok(Vec::new()) };
                is_changed |= before.values().iter().ne(marks.iter().copied());
            }
            if is_changed {
                let entry =
                    batches.into_iter().map(|(batch, marks)| input.with_partner_marks(batch, marks.to_vec().into()));
                marked.push((pair, entry.collect::<Result<_>>()?));
            }
        }
        Ok(marked)
    }
}
