//! Which panes have rows, and from which instant on: what decides the next instant worth evaluating. Pure.

use std::collections::BTreeMap;

use crate::time::{EventTime, Span};
use crate::window::{Pane, WindowSpec};

/// The live panes of one input, each with the first instant at which some of its rows may appear.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calendar {
    first_instants: BTreeMap<Pane, EventTime>,
}

impl Calendar {
    /// Notes that `pane` has rows that may appear from `tag` on.
    pub(crate) fn note(&mut self, pane: Pane, tag: EventTime) {
        self.first_instants.entry(pane).and_modify(|first| *first = tag.min(*first)).or_insert(tag);
    }

    /// The first time at or after `time` at which some row is in the input's current window; `None` if no known row
    /// ever will be.
    pub(crate) fn next_presence(&self, window: &WindowSpec, time: EventTime) -> Option<EventTime> {
        let mut next: Option<EventTime> = None;
        for (pane, first) in &self.first_instants {
            // A window's contents stay until the instant after the last one that holds the pane.
            let gone = window.instant_after(window.last_instant(*pane));
            if gone <= time {
                continue;
            }
            let present = (*first).max(time);
            next = Some(next.map_or(present, |known| known.min(present)));
            if present == time {
                break;
            }
        }
        next
    }

    /// The first instant after `time` that is the natural one of a pane with rows in time.
    pub(crate) fn next_natural(&self, window: &WindowSpec, time: EventTime) -> Option<EventTime> {
        let from = window.pane_of(time);
        let panes = self.first_instants.range(from..);
        let natural = panes.map(|(pane, first)| (window.first_instant(*pane), *first));
        natural.filter(|(natural, first)| natural == first && *natural > time).map(|(natural, _)| natural).next()
    }

    /// The last instant after `time` and up to `limit` that is the natural one of a pane; the first behind if there is none.
    pub(crate) fn last_natural(&self, window: &WindowSpec, time: EventTime, limit: EventTime) -> Option<EventTime> {
        let panes = self.first_instants.range(..=window.pane_of(limit)).rev();
        let mut natural = panes.map(|(pane, _)| window.first_instant(*pane)).take_while(|natural| *natural > time);
        let last = natural.find(|natural| *natural <= limit);
        last.or_else(|| self.next_natural(window, time))
    }

    /// The last time at which a row is in the input's current window, or, where rows never leave, at which one comes in.
    pub(crate) fn last_change(&self, window: &WindowSpec) -> Option<EventTime> {
        if window.is_latest() {
            return self.first_instants.values().max().copied();
        }
        let (pane, _) = self.first_instants.last_key_value()?;
        Some(window.instant_after(window.last_instant(*pane)).minus(Span(1)))
    }

    /// Takes the panes before `pane` together, where rows never leave: all of them have been seen.
    pub(crate) fn unite(&mut self, pane: Pane) {
        let kept = self.first_instants.split_off(&pane);
        let united = std::mem::replace(&mut self.first_instants, kept);
        if let Some(first) = united.into_values().min() {
            self.note(Pane(i64::MIN), first);
        }
    }

    /// The panes and their first instants, ascending.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (Pane, EventTime)> + '_ {
        self.first_instants.iter().map(|(pane, first)| (*pane, *first))
    }

    /// Forgets panes before `pane`.
    pub(crate) fn evict(&mut self, pane: Pane) {
        self.first_instants = self.first_instants.split_off(&pane);
    }
}
