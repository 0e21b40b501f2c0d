//! Which instants a windowed stage evaluates, and when: as windows close, before, and again.

use crate::checkpoint::PaneTag;
use crate::error::{Error, Result};
use crate::executor::held::{Look, State};
use crate::executor::leaf::LeafState;
use crate::executor::partners::first_waiting;
use crate::executor::stage::{Emitted, Stage, StageInput};
use crate::plan::{Emission, EmissionMode, REVISION};
use crate::program::{Program, Shape};
use crate::state::Calendar;
use crate::time::{EventTime, Span, Watermark};
use crate::window::{Contents, WindowSpec};

/// Instants evaluated together; bounds the results held in memory when many windows close at once.
const INSTANTS_AT_ONCE: usize = 32;
/// The same where state is on disk: windows share what is in memory, but read copies of their own of what is not.
const INSTANTS_AT_ONCE_ON_DISK: usize = 1;
/// The same for sessions: each has few rows, and all open ones are read for the ends of some.
const SESSION_ENDS_AT_ONCE: usize = 4096;

/// Refuses what a query of this shape cannot give.
pub(super) fn check_emission(program: &Program, emission: Emission) -> Result<()> {
    if emission == Emission::default() {
        return Ok(());
    }
    let is_windowed = matches!(program.shape, Shape::Windows(_));
    // Rows that pass and groups without a window are given as they change; only groups can wait with it.
    let gives_changes = match (&program.shape, emission.mode) {
        (Shape::Unbounded(..), EmissionMode::Changes { .. }) => true,
        (_, mode) => mode == EmissionMode::Changes { every: None },
    };
    if !is_windowed && gives_changes && !emission.empty_windows && emission.lateness.is_none() {
        return Ok(());
    }
    let refuse = |message: &str, hint: &str| Err(Error::query(message, hint));
    if !is_windowed {
        return refuse(
            "how the results of windows are given says nothing about rows without a window",
            "leave it out, or give the stream a window: t [Range 5 minutes, Slide 1 minute]",
        );
    }
    if emission.lateness.is_some() && program.schema.column_with_name(REVISION).is_some() {
        return refuse("the query has a column called \"revision\" of its own", "give it another name: x AS r");
    }
    if emission.lateness.is_some() && emission.mode != EmissionMode::Results {
        return refuse(
            "a window that late rows correct is given whole again, and not how it differs from others",
            "leave ALLOW LATENESS out, or EMIT CHANGES, ISTREAM or DSTREAM",
        );
    }
    let windows = || program.inputs.iter().filter_map(|input| input.table().window());
    let has_sessions = windows().any(|window| window.contents() == Contents::Session);
    let by_row = windows().any(WindowSpec::is_by_row);
    let is_early = matches!(emission.mode, EmissionMode::Changes { .. });
    if (is_early || emission.lateness.is_some()) && windows().any(WindowSpec::is_latest) {
        return refuse(
            "a window of the latest rows has no last instant, so that every change would be one of all instants to come",
            "leave EMIT and ALLOW LATENESS out: SELECT ISTREAM gives what changes from one instant to the next",
        );
    }
    if has_sessions {
        return refuse("a session is given once, when it ends", "leave EMIT, ISTREAM and DSTREAM out");
    }
    if by_row && (is_early || emission.empty_windows || emission.lateness.is_some()) {
        return refuse(
            "a window at each row is given once, and has that row",
            "give the window a slide: t [Range 5 minutes, Slide 1 minute]",
        );
    }
    Ok(())
}

impl Stage {
    /// The end of time, to which windows are evaluated when no more rows come.
    const END: EventTime = EventTime(i64::MAX);

    /// Notes panes that have changed, for results of windows that are open or were given before.
    pub(super) fn touch(&mut self, leaf: usize, pairs: impl Iterator<Item = PaneTag>) {
        let evaluated = self.evaluated;
        match self.output.emission {
            Emission { mode: EmissionMode::Changes { .. }, .. } => self.touched.extend(pairs.map(|pair| (leaf, pair))),
            Emission { lateness: Some(_), .. } => {
                let late = pairs.filter(|(_, tag)| *tag <= evaluated);
                self.touched.extend(late.map(|pair| (leaf, pair)));
            }
            _ => {}
        }
    }

    /// Takes every pane as changed where results of open windows may wait for their time: some may not have been given.
    pub(super) fn touch_all(&mut self) {
        if self.output.holds_changes() {
            let entries = self.calendars.iter().enumerate();
            self.touched = entries.flat_map(|(leaf, panes)| panes.entries().map(move |pair| (leaf, pair))).collect();
        }
    }

    /// The next results: corrections of closed windows, then windows that close, then those that are open.
    pub(super) async fn evaluate_windows(&mut self, watermark: Watermark) -> Result<Vec<Emitted>> {
        let limit = EventTime(self.output_watermark(watermark).0);
        if self.output.emission.mode == EmissionMode::Pairs {
            return self.give_pairs(limit).await;
        }
        if self.output.emission.lateness.is_some() {
            let corrected = self.correct().await?;
            if !corrected.is_empty() {
                return Ok(corrected);
            }
        }
        let closed = self.close(limit).await?;
        if closed.is_empty() && matches!(self.output.emission.mode, EmissionMode::Changes { .. }) {
            return self.give_early().await;
        }
        Ok(closed)
    }

    /// Passes the instants that `watermark` crosses, whose results were given before.
    pub(super) async fn pass_windows(&mut self, watermark: Watermark) -> Result<()> {
        // Rows of an outer join are marked as their partners come, whether what that gives was given before or not.
        if !self.output.has_history() && self.program.outer.is_none() {
            let limit = EventTime(self.output_watermark(watermark).0);
            let mut leaves = self.state.leaves_mut().iter_mut().zip(&self.windows);
            leaves.try_for_each(|(leaf, window)| leaf.pass(window, limit))?;
            self.evaluated = self.evaluated.max(limit);
            self.evict()?;
            return Ok(());
        }
        let is_throttled = self.output.holds_changes();
        if is_throttled {
            // Which of the open windows' results were given is not known: they are given again.
            let limit = EventTime(self.output_watermark(watermark).0);
            while !self.close(limit).await?.is_empty() {}
            return Ok(());
        }
        while !self.evaluate_windows(watermark).await?.is_empty() {}
        Ok(())
    }

    /// Gives the combinations of rows of which the last came in since the last time, up to `limit`, and the rows of
    /// an outer join that have missed their last.
    async fn give_pairs(&mut self, limit: EventTime) -> Result<Vec<Emitted>> {
        let (before, limit) = (self.evaluated, if limit == Self::END { limit.minus(Span(1)) } else { limit });
        if limit <= before {
            return Ok(Vec::new());
        }
        self.evaluated = limit;
        let rows = if self.program.outer.is_some() {
            self.state.outer_pairs(&self.program, &self.windows, (before, limit)).await?
        } else {
            self.state.pairs(&self.program, &self.windows, (before, limit), self.options.tasks).await?
        };
        self.evict()?;
        self.stay_within_memory().await?;
        self.instants += 1;
        Ok(vec![Emitted { instant: Some(limit), rows }])
    }

    /// Evaluates the next instants up to `limit`, a bounded number of them; empty once all are done.
    async fn close(&mut self, limit: EventTime) -> Result<Vec<Emitted>> {
        let mut instants = Vec::new();
        let at_once = self.instants_at_once();
        while instants.len() < at_once {
            let Some(next) = self.next_instant(limit) else { break };
            self.evaluated = next.at;
            instants.push(next);
        }
        if instants.is_empty() {
            self.evaluated = self.evaluated.max(limit);
            self.evict()?;
            return Ok(Vec::new());
        }
        self.instants += instants.len() as u64;
        let times: Vec<_> = instants.iter().map(|instant| instant.at).collect();
        let results = self.results(&times, Look::Final).await?;
        self.state.spread(&self.options).await?;
        let mut emitted = Vec::with_capacity(instants.len());
        for (instant, rows) in instants.into_iter().zip(results) {
            let rows = if instant.is_absent && !self.output.emission.empty_windows { Vec::new() } else { rows };
            emitted.push(Emitted { instant: Some(instant.at), rows: self.output.close(instant.at, rows)? });
        }
        self.evict()?;
        self.stay_within_memory().await?;
        Ok(emitted)
    }

    async fn results(
        &mut self,
        instants: &[EventTime],
        look: Look,
    ) -> Result<Vec<Vec<datafusion::arrow::record_batch::RecordBatch>>> {
        self.state.evaluate(&self.program, &self.windows, instants, look, self.options.tasks).await
    }

    fn instants_at_once(&self) -> usize {
        if self.output.decides_one_by_one() {
            return 1;
        }
        let is_session = self.windows.iter().any(|window| window.contents() == Contents::Session);
        match (is_session, self.state.is_on_disk()) {
            (true, _) => SESSION_ENDS_AT_ONCE,
            (false, true) => INSTANTS_AT_ONCE_ON_DISK,
            (false, false) => INSTANTS_AT_ONCE,
        }
    }

    /// Gives the windows again that rows have come to since they closed.
    async fn correct(&mut self) -> Result<Vec<Emitted>> {
        let touched = std::mem::take(&mut self.touched);
        let mut instants = std::collections::BTreeSet::new();
        for (leaf, pair) in touched {
            instants.extend(self.instants_of(leaf, pair).take_while(|instant| *instant <= self.evaluated));
        }
        let instants: Vec<_> = instants.into_iter().collect();
        let results = self.results(&instants, Look::Again).await?;
        let output = &mut self.output;
        let corrected = instants.into_iter().zip(results);
        corrected.map(|(at, rows)| Ok(Emitted { instant: Some(at), rows: output.correct(at, rows)? })).collect()
    }

    /// Gives what is new in the windows that have changed and are open.
    async fn give_early(&mut self) -> Result<Vec<Emitted>> {
        if self.touched.is_empty() || self.output.early_due().is_some_and(|due| std::time::Instant::now() < due) {
            return Ok(Vec::new());
        }
        self.output.note_early();
        let touched = std::mem::take(&mut self.touched);
        let mut instants = std::collections::BTreeSet::new();
        for (leaf, pair) in touched {
            instants.extend(self.instants_of(leaf, pair).filter(|instant| *instant > self.evaluated));
        }
        let mut emitted = Vec::new();
        for instants in instants.into_iter().collect::<Vec<_>>().chunks(INSTANTS_AT_ONCE) {
            let results = self.results(instants, Look::Again).await?;
            for (at, rows) in instants.iter().zip(results) {
                emitted.push(Emitted { instant: Some(*at), rows: self.output.early(*at, rows)? });
            }
        }
        Ok(emitted)
    }

    /// When early results that wait for their time are due.
    pub(crate) fn early_due(&self) -> Option<std::time::Instant> {
        let waits = match &self.state {
            State::Unbounded { state, .. } => state.is_waiting(),
            _ => !self.touched.is_empty(),
        };
        self.output.early_due().filter(|_| waits)
    }

    /// The instants at which a pane's rows are in a window, ascending.
    fn instants_of(&self, leaf: usize, (pane, tag): PaneTag) -> impl Iterator<Item = EventTime> {
        let gone = self.windows.get(leaf).map_or(tag, |window| window.instant_after(window.last_instant(pane)));
        let mut after = tag.minus(Span(1));
        std::iter::from_fn(move || {
            let instant = self.windows.iter().map(|window| window.instant_after(after)).min()?;
            after = instant;
            (instant < gone).then_some(instant)
        })
    }

    /// The last instant that may be evaluated when the query's streams have come to `watermark`; no result to come
    /// will have an event time below it.
    ///
    /// Windows that are closed on the right wait for one tick more, and so do all windows above them.
    pub(super) fn output_watermark(&self, watermark: Watermark) -> Watermark {
        if watermark == Watermark::END {
            return watermark;
        }
        let inputs = self.inputs.iter().filter_map(|input| match input {
            StageInput::Stream(_) => Some(watermark),
            StageInput::View(index) => Some(self.views.get(*index)?.stage.output_watermark(watermark)),
        });
        let reached = EventTime(inputs.min().unwrap_or(watermark).0);
        let shift = self.windows.iter().map(WindowSpec::shift).max().unwrap_or(Span(0));
        Watermark(reached.minus(shift).0)
    }

    /// The next instant after the evaluated ones, up to `limit`, at which some window has rows, or had until then.
    fn next_instant(&self, limit: EventTime) -> Option<Instant> {
        let is_end = limit == EventTime(i64::MAX);
        if self.evaluated == EventTime(i64::MAX) {
            return None;
        }
        let limit = if is_end { self.last_change().unwrap_or(EventTime(i64::MIN)) } else { limit };
        let mut after = self.evaluated;
        loop {
            let at = self.leaves().filter_map(|leaf| leaf.next_own_instant(after, limit)).min()?;
            let present = self.leaves().filter_map(|leaf| leaf.next_presence(at)).min();
            let is_absent = present.is_none_or(|present| present > at);
            if is_absent && self.output.wants_absent() {
                // At the end of input the rows given last go too, and nothing follows that.
                let goes = is_end && !self.output.emission.empty_windows;
                return (at <= limit || goes).then_some(Instant { at, is_absent });
            }
            if at > limit {
                return None;
            }
            if !is_absent {
                return Some(Instant { at, is_absent });
            }
            after = EventTime(present?.0.saturating_sub(1));
        }
    }

    /// The last time worth evaluating when no more rows come: windows that rows never leave go on for ever.
    fn last_change(&self) -> Option<EventTime> {
        self.leaves().filter_map(|leaf| leaf.last_change()).max()
    }

    fn leaves(&self) -> impl Iterator<Item = LeafClock<'_>> {
        let held = self.state.leaves();
        let parts = self.windows.iter().zip(&self.calendars).zip(held);
        parts.map(|((window, calendar), state)| LeafClock { window, calendar, state })
    }

    /// Drops the panes that no instant to come can see, nor one that may be corrected.
    fn evict(&mut self) -> Result<()> {
        let is_single = self.windows.len() == 1;
        if self.evaluated.0 == i64::MIN || self.evaluated.0 >= i64::MAX - 1 {
            return Ok(());
        }
        let lateness = self.output.emission.lateness;
        let passed = self.evaluated.minus(lateness.unwrap_or(Span(0)));
        for (leaf, (window, calendar)) in self.windows.iter().zip(&mut self.calendars).enumerate() {
            if window.is_latest() {
                let end = window.panes_of(window.instant_at_or_before(passed)).1;
                calendar.unite(end);
                self.state.settle(leaf, end)?;
                continue;
            }
            // A side of a join keeps its last contents until its own next instant.
            let first = if is_single && lateness.is_none() {
                window.panes_of(window.instant_after(passed)).0
            } else {
                first_waiting(window, passed)
            };
            calendar.evict(first);
            self.state.evict(leaf, first);
        }
        self.output.forget_before(passed);
        Ok(())
    }
}

/// An instant to be evaluated.
#[derive(Debug, Clone, Copy)]
struct Instant {
    at: EventTime,
    /// Whether no window has a row there.
    is_absent: bool,
}

/// When a leaf has something to show.
struct LeafClock<'a> {
    window: &'a WindowSpec,
    calendar: &'a Calendar,
    state: &'a LeafState,
}

impl LeafClock<'_> {
    /// The first instant of its window after `time`; the last one up to `limit` if what rows are given is the same.
    fn next_own_instant(&self, time: EventTime, limit: EventTime) -> Option<EventTime> {
        match self.window.contents() {
            Contents::Preceding(_) => self.calendar.last_natural(self.window, time, limit),
            contents if makes_instants(contents) => self.state.next_end(self.window, time),
            _ if self.window.is_by_row() => self.calendar.next_natural(self.window, time),
            _ => Some(self.window.instant_after(time)),
        }
    }

    /// The first time at or after `time` at which it has rows.
    fn next_presence(&self, time: EventTime) -> Option<EventTime> {
        match self.window.contents() {
            Contents::Counted { .. } if self.state.has_shown() => Some(time),
            Contents::Counted { .. } => self.state.next_end(self.window, EventTime(i64::MIN)).map(|end| end.max(time)),
            Contents::Session => self.state.next_end(self.window, time.minus(Span(1))),
            _ => self.calendar.next_presence(self.window, time),
        }
    }

    /// The last time at which what it has changes by itself.
    fn last_change(&self) -> Option<EventTime> {
        match self.window.contents() {
            contents if makes_instants(contents) => self.state.last_end(self.window),
            _ => self.calendar.last_change(self.window),
        }
    }
}

/// Whether it takes the rows themselves to know the instants of such a window.
pub(super) const fn makes_instants(contents: Contents) -> bool {
    matches!(contents, Contents::Session | Contents::Counted { .. })
}
