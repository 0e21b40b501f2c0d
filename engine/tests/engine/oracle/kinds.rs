//! What each kind of window holds at an instant, row by row from its definition.
//!
//! Slow and plain: for every instant every row is asked. Nothing is taken over from one instant to the next.

use std::collections::{BTreeMap, BTreeSet};

use super::Window;

/// The kinds of windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The rows of a range.
    Sliding,
    /// The rows since the last multiple of the range.
    Cumulating,
    /// The rows of a range before each row, that row included.
    ByRow,
    /// The last rows of each key at every multiple of the slide.
    Latest(usize),
    /// The last rows of each key at the time of each row.
    LatestByRow(usize),
    /// The last so many rows whenever so many more have come, those of one time together.
    Counted(usize, usize),
    /// The rows of a key that are less than the range apart, once none can come any more.
    Session,
}

/// A row as windows see it.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) time: i64,
    /// The watermark of its partition as it came.
    pub(crate) watermark: Option<i64>,
    /// Its key, the same for all rows where a window has none.
    pub(crate) key: String,
}

/// A row that a window holds, and the bounds it shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) number: usize,
    pub(crate) start: i64,
    pub(crate) end: i64,
}

impl Window {
    /// The rows of the window at `instant`, which may be another window's; rows come in order of their position.
    pub(crate) fn contents(&self, rows: &[Placed], instant: i64) -> Vec<Held> {
        match self.kind {
            Kind::Session => sessions(rows, self.range).remove(&instant).unwrap_or_default(),
            Kind::Counted(count, slide) => {
                let mut ended = counted(rows, count, slide);
                let last = ended.range(..=instant).next_back().map(|(end, _)| *end);
                last.and_then(|end| ended.remove(&end)).unwrap_or_default()
            }
            Kind::Latest(count) | Kind::LatestByRow(count) => {
                let own = self.own_instant(instant);
                let seen = rows.iter().enumerate().filter(|(_, row)| self.is_before(own, row.time));
                let mut seen: Vec<_> = seen.filter(|(_, row)| !self.is_crossed(own, row.watermark)).collect();
                seen.sort_by_key(|(number, row)| (row.time, *number));
                let mut counts = BTreeMap::<&str, usize>::new();
                let latest = seen.into_iter().rev().filter(|(_, row)| {
                    let count_of_key = counts.entry(row.key.as_str()).or_default();
                    *count_of_key += 1;
                    *count_of_key <= count
                });
                let mut numbers: Vec<_> = latest.map(|(number, _)| number).collect();
                numbers.sort_unstable();
                numbers.into_iter().map(|number| Held { number, start: own, end: own }).collect()
            }
            Kind::Sliding | Kind::Cumulating | Kind::ByRow => {
                let own = self.own_instant(instant);
                let start = self.start_of(own);
                let held = rows
                    .iter()
                    .enumerate()
                    .filter(|(_, row)| self.holds(own, row.time) && !self.is_crossed(own, row.watermark));
                held.map(|(number, _)| Held { number, start, end: own }).collect()
            }
        }
    }

    /// The instant whose contents are shown at `instant`.
    fn own_instant(&self, instant: i64) -> i64 {
        match self.kind {
            Kind::ByRow | Kind::LatestByRow(_) => instant,
            _ => self.last_instant(instant),
        }
    }

    /// Whether a row comes before what `instant` shows ends.
    fn is_before(&self, instant: i64, time: i64) -> bool {
        if self.closed_right || matches!(self.kind, Kind::LatestByRow(_)) { time <= instant } else { time < instant }
    }

    /// Its own instants from `first` to `last`.
    fn own_instants(&self, rows: &[Placed], first: i64, last: i64) -> BTreeSet<i64> {
        let instants: BTreeSet<i64> = match self.kind {
            Kind::Session => sessions(rows, self.range).into_keys().collect(),
            Kind::Counted(count, slide) => counted(rows, count, slide).into_keys().collect(),
            Kind::ByRow | Kind::LatestByRow(_) => {
                rows.iter().filter(|row| !self.is_crossed(row.time, row.watermark)).map(|row| row.time).collect()
            }
            _ => {
                let start = self.last_instant(first);
                (0..).map(|step| start + step * self.slide).take_while(|instant| *instant <= last).collect()
            }
        };
        instants.into_iter().filter(|instant| (first..=last).contains(instant)).collect()
    }

    /// The first time at which a row is seen, and the last at which one comes or goes.
    fn extent(&self, rows: &[Placed]) -> Option<(i64, i64)> {
        let seen: Vec<(i64, i64)> = match self.kind {
            Kind::Session => sessions(rows, self.range).into_keys().map(|end| (end, end)).collect(),
            Kind::Counted(count, slide) => counted(rows, count, slide).into_keys().map(|end| (end, end)).collect(),
            Kind::Latest(_) | Kind::LatestByRow(_) => {
                rows.iter().map(|row| self.first_seen(row)).map(|first| (first, first)).collect()
            }
            Kind::ByRow => {
                let last = |row: &Placed| row.time + self.range - 1;
                rows.iter().map(|row| (self.first_seen(row), last(row))).filter(|(first, last)| first <= last).collect()
            }
            Kind::Sliding | Kind::Cumulating => {
                let instants = rows.iter().flat_map(|row| {
                    let held = self.instants_of(row.time).into_iter();
                    held.filter(|instant| !self.is_crossed(*instant, row.watermark))
                });
                instants.map(|instant| (instant, instant + self.slide - 1)).collect()
            }
        };
        Some((seen.iter().map(|(first, _)| *first).min()?, seen.iter().map(|(_, last)| *last).max()?))
    }

    /// The first instant that shows a row of a window without an end, or one by row.
    fn first_seen(&self, row: &Placed) -> i64 {
        let by_row = matches!(self.kind, Kind::ByRow | Kind::LatestByRow(_));
        let step = if by_row { 1 } else { self.slide };
        let start = if by_row { row.time } else { self.last_instant(row.time) };
        let late =
            row.watermark.map_or(start, |watermark| if by_row { watermark } else { self.last_instant(watermark) });
        let start = start.max(late) - step;
        (0..)
            .map(|number| start + number * step)
            .find(|instant| {
                let holds =
                    if self.kind == Kind::ByRow { row.time <= *instant } else { self.is_before(*instant, row.time) };
                holds && !self.is_crossed(*instant, row.watermark)
            })
            .unwrap()
    }
}

/// The last `count` rows after every `slide` rows, by the time of the last one; rows behind the watermark do not count.
fn counted(rows: &[Placed], count: usize, slide: usize) -> BTreeMap<i64, Vec<Held>> {
    let in_time =
        rows.iter().enumerate().filter(|(_, row)| row.watermark.is_none_or(|watermark| row.time >= watermark));
    let mut in_order: Vec<_> = in_time.map(|(number, row)| (row.time, number)).collect();
    in_order.sort_unstable();
    let mut windows = BTreeMap::<i64, BTreeSet<usize>>::new();
    for last in (slide..=in_order.len()).step_by(slide) {
        let held = in_order[last.saturating_sub(count)..last].iter().map(|(_, number)| *number);
        windows.entry(in_order[last - 1].0).or_default().extend(held);
    }
    let held = |end: i64, numbers: BTreeSet<usize>| {
        numbers.into_iter().map(|number| Held { number, start: end, end }).collect()
    };
    windows.into_iter().map(|(end, numbers)| (end, held(end, numbers))).collect()
}

/// The rows of each session by its end; rows behind the watermark belong to none.
fn sessions(rows: &[Placed], gap: i64) -> BTreeMap<i64, Vec<Held>> {
    let mut by_key = BTreeMap::<&str, Vec<(i64, usize)>>::new();
    for (number, row) in rows.iter().enumerate() {
        if row.watermark.is_none_or(|watermark| row.time >= watermark) {
            by_key.entry(&row.key).or_default().push((row.time, number));
        }
    }
    let mut sessions = BTreeMap::<i64, Vec<Held>>::new();
    for mut times in by_key.into_values() {
        times.sort_unstable();
        for session in times.chunk_by(|a, b| b.0 - a.0 < gap) {
            let (start, end) = (session[0].0, session[session.len() - 1].0 + gap);
            let held = session.iter().map(|(_, number)| Held { number: *number, start, end });
            sessions.entry(end).or_default().extend(held);
        }
    }
    for held in sessions.values_mut() {
        held.sort_by_key(|held| held.number);
    }
    sessions
}

/// The instants of `windows` together at which there may be something to see.
pub(crate) fn instants_of_all(windows: &[(Window, &[Placed])]) -> BTreeSet<i64> {
    let extents: Vec<_> = windows.iter().filter_map(|(window, rows)| window.extent(rows)).collect();
    let first = extents.iter().map(|(first, _)| *first).min();
    let last = extents.iter().map(|(_, last)| *last).max();
    let (Some(first), Some(last)) = (first, last) else { return BTreeSet::new() };
    windows.iter().flat_map(|(window, rows)| window.own_instants(rows, first, last)).collect()
}
