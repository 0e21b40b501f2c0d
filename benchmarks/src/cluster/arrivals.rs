//! When windows came, and how long after their end.

use std::collections::BTreeMap;

use millstream_engine::time::{EventTime, Span};

/// Windows before the query runs evenly.
const FIRST: usize = 2;

/// When each window came. Event time is the time of the machine.
#[derive(Debug, Clone, Default)]
pub(super) struct Arrivals {
    /// By the end of the window.
    windows: BTreeMap<EventTime, EventTime>,
    /// What the follower last had to begin again for.
    pub(super) trouble: Option<String>,
}

impl Arrivals {
    /// Takes in that rows of a window have come. A window comes whole, so that its first row tells.
    pub(super) fn note(&mut self, end: EventTime, at: EventTime) {
        self.windows.entry(end).or_insert(at);
    }

    /// Windows that have come.
    pub(super) fn count(&self) -> usize {
        self.windows.len()
    }

    /// Whether windows have come up to this time.
    pub(super) fn have_reached(&self, time: EventTime) -> bool {
        self.windows.last_key_value().is_some_and(|(end, _)| *end >= time)
    }

    /// The delays of all windows but for the first ones.
    pub(super) fn delays(&self) -> Vec<Span> {
        self.windows.iter().skip(FIRST).map(delay).collect()
    }

    /// The longest delay of the windows that came since `time`.
    pub(super) fn worst_since(&self, time: EventTime) -> Option<Span> {
        self.windows.iter().filter(|(_, at)| **at >= time).map(delay).max()
    }
}

/// How long after its end a window came.
fn delay((end, at): (&EventTime, &EventTime)) -> Span {
    Span(at.0 - end.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_count_from_the_end_of_a_window_to_its_first_row() {
        let mut arrivals = Arrivals::default();
        for (end, at) in [(10, 19), (20, 28), (30, 31), (40, 42), (40, 49), (50, 75), (60, 76)] {
            arrivals.note(EventTime(end), EventTime(at));
        }
        assert_eq!(arrivals.count(), 6);
        assert_eq!(arrivals.delays(), [Span(1), Span(2), Span(25), Span(16)]);
        assert_eq!(arrivals.worst_since(EventTime(43)), Some(Span(25)));
        assert_eq!(arrivals.worst_since(EventTime(77)), None);
        assert!(arrivals.have_reached(EventTime(60)) && !arrivals.have_reached(EventTime(61)));
    }
}
