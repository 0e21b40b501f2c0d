//! Windows as arithmetic: instants, panes, and which of them a row belongs to. Pure, no state.
//!
//! A window spec has instants at `origin + k · slide` from the Unix epoch; the window of instant `e` is
//! `[e − range, e)`. Panes are `gcd(range, slide)` wide and tile time, so that every window is a whole
//! number of panes (the *tiling* invariant).
//!
//! `CLOSED RIGHT` windows `(e − range, e]` are the same arithmetic on times one tick earlier: see [`WindowSpec::shift`].
//!
//! | window | contents at instant `e` | instants |
//! |---|---|---|
//! | sliding | `[e − range, e)` | multiples of the slide |
//! | cumulating | `[s, e)`, `s` the last multiple of the size before `e` | multiples of the step |
//! | by row | `(e − range, e]` | the event times of rows |
//! | latest | the last rows of each key before `e` | multiples of a slide, or the event times of rows |
//! | preceding | the rows at `e`, and those of their keys in a frame before | the event times of rows |
//! | counted | the last rows up to `e` | the event times of every so many rows |
//! | session | the rows of the sessions that end at `e` | the ends of sessions |
//!
//! Windows by row have a slide of one tick and panes as wide: the same arithmetic, of which only the instants with a
//! row of their own are evaluated.

use crate::error::{Error, Result};
use crate::time::{EventTime, Span, Watermark};

/// The range, slide, offset and closed side of a sliding window.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WindowSpec {
    range: Span,
    slide: Span,
    pane_width: Span,
    origin: Span,
    closed_right: bool,
    by_row: bool,
    contents: Contents,
}

/// What a window holds at an instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Contents {
    /// The rows of the range before it.
    Sliding,
    /// The rows since the last multiple of the range.
    Cumulating,
    /// The last so many rows of each key, however old.
    Latest(u64),
    /// The last so many rows whenever so many more have come.
    Counted {
        /// The rows of a window.
        rows: u64,
        /// The rows from one window to the next.
        slide: u64,
    },
    /// The rows of its time, each with the rows of its key before it as far as this reaches.
    Preceding(Frame),
    /// The rows of sessions that end there: rows of a key less than the range apart.
    Session,
}

/// How far back from a row others of its key matter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Frame {
    /// So many rows.
    Rows(u64),
    /// So much event time, both ends included.
    Range(Span),
}

/// A slice of event time, `[number · width, (number + 1) · width)` after the origin; the unit of state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct Pane(pub i64);

/// The extent of one window, `[start, end)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// The first point inside.
    pub start: EventTime,
    /// The instant: the first point after.
    pub end: EventTime,
}

impl WindowSpec {
    /// A window `range` long at every multiple of `slide`.
    ///
    /// # Errors
    /// Both must be positive.
    pub fn new(range: Span, slide: Span) -> Result<Self> {
        if range.0 <= 0 || slide.0 <= 0 {
            return Err(Error::query(
                format!("a window needs a positive range and slide, not {range} and {slide}"),
                "write for example [Range 5 minutes, Slide 1 minute]",
            ));
        }
        Ok(Self {
            range,
            slide,
            pane_width: greatest_common_divisor(range, slide),
            origin: Span(0),
            closed_right: false,
            by_row: false,
            contents: Contents::Sliding,
        })
    }

    /// A window that grows by `step` until it is `size` long and then begins anew.
    ///
    /// # Errors
    /// Both must be positive, and the size a multiple of the step.
    pub fn cumulating(step: Span, size: Span) -> Result<Self> {
        let spec = Self::new(size, step)?;
        if size.0 % step.0 != 0 {
            return Err(Error::query(
                format!("a window that grows by {step} never is {size} long"),
                "choose a size that is a multiple of the step",
            ));
        }
        Ok(Self { contents: Contents::Cumulating, ..spec })
    }

    /// A window `(t − range, t]` at the event time `t` of every row.
    ///
    /// # Errors
    /// The range must be positive.
    pub fn by_row(range: Span) -> Result<Self> {
        Ok(Self { by_row: true, ..Self::new(range, Span(1))?.closed_right() })
    }

    /// The window that holds the rows with the event time of its instant and no others.
    pub fn now() -> Self {
        let tick = Span(1);
        Self {
            range: tick,
            slide: tick,
            pane_width: tick,
            origin: Span(0),
            closed_right: true,
            by_row: true,
            contents: Contents::Sliding,
        }
    }

    /// A window of the last `rows` rows of each key before every multiple of `slide`, or up to the event time of every
    /// row without one.
    ///
    /// # Errors
    /// Both must be positive.
    pub fn latest(rows: u64, slide: Option<Span>) -> Result<Self> {
        if rows == 0 {
            return Err(Error::query("a window of no rows", "write for example [Rows 10]"));
        }
        let spec = match slide {
            Some(slide) => Self::new(slide, slide)?,
            None => Self::now(),
        };
        Ok(Self { contents: Contents::Latest(rows), ..spec })
    }

    /// A window of the last `rows` rows whenever `slide` more have come, at the event time of the last of them.
    ///
    /// # Errors
    /// Both must be positive.
    pub fn counted(rows: u64, slide: u64) -> Result<Self> {
        if slide == 0 {
            return Err(Error::query("a slide of no rows", "write for example [Rows 10, Slide 10]"));
        }
        Ok(Self { contents: Contents::Counted { rows, slide }, ..Self::latest(rows, None)? })
    }

    /// A window at the event time of every row: the rows of that time, and those of their keys in `frame` before.
    pub fn preceding(frame: Frame) -> Self {
        Self { contents: Contents::Preceding(frame), ..Self::now() }
    }

    /// Windows of the rows of a key that are less than `gap` apart; each ends `gap` after its last row.
    ///
    /// # Errors
    /// The gap must be positive.
    pub fn session(gap: Span) -> Result<Self> {
        Ok(Self { contents: Contents::Session, ..Self::new(gap, gap)? })
    }

    /// The same window with its instants moved by `offset`.
    pub fn with_offset(mut self, offset: Span) -> Self {
        let period = if self.contents == Contents::Cumulating { self.range } else { self.slide };
        self.origin = Span(offset.0.rem_euclid(period.0));
        self
    }

    /// What it holds.
    pub const fn contents(&self) -> Contents {
        self.contents
    }

    /// Whether its instants are the event times of rows.
    pub const fn is_by_row(&self) -> bool {
        self.by_row
    }

    /// Whether rows leave it only when others come, so that its state is not dropped by time.
    pub const fn is_latest(&self) -> bool {
        matches!(self.contents, Contents::Latest(_) | Contents::Counted { .. } | Contents::Preceding(_))
    }

    /// Whether rows that are behind the watermark can be too late for it.
    pub const fn has_late_rows(&self) -> bool {
        !matches!(self.contents, Contents::Latest(_))
    }

    /// Whether which rows a window holds depends on other rows of their key, so that all must be kept as rows.
    pub const fn selects_rows(&self) -> bool {
        self.is_latest() || matches!(self.contents, Contents::Session)
    }

    /// The same window closed at its right end: `(e − range, e]`.
    pub fn closed_right(mut self) -> Self {
        self.closed_right = true;
        self
    }

    /// The length of each window.
    pub const fn range(&self) -> Span {
        self.range
    }

    /// The distance between instants.
    pub const fn slide(&self) -> Span {
        self.slide
    }

    /// How far the instants are moved from multiples of the slide.
    pub const fn offset(&self) -> Span {
        self.origin
    }

    /// Whether a row exactly at the instant belongs to the window.
    pub const fn is_closed_right(&self) -> bool {
        self.closed_right
    }

    /// The ticks by which event times and watermarks are moved before any other function of this type sees them.
    ///
    /// `(e − R, e]` on `t` is `[e − R, e)` on `t − 1`.
    pub const fn shift(&self) -> Span {
        Span(if self.closed_right { 1 } else { 0 })
    }

    /// The width of a pane: the greatest common divisor of range and slide.
    pub const fn pane_width(&self) -> Span {
        self.pane_width
    }

    /// The number of panes in a window.
    pub fn panes_per_window(&self) -> i64 {
        self.range.0 / self.pane_width.0
    }

    /// The pane that holds `time`.
    pub fn pane_of(&self, time: EventTime) -> Pane {
        Pane(time.0.saturating_sub(self.origin.0).div_euclid(self.pane_width.0))
    }

    /// The extent of `pane`, `[start, end)`.
    pub fn pane_bounds(&self, pane: Pane) -> (EventTime, EventTime) {
        let start = EventTime(pane.0.saturating_mul(self.pane_width.0)).plus(self.origin);
        (start, start.plus(self.pane_width()))
    }

    /// The panes of the window at `instant`, first and one past the last.
    pub fn panes_of(&self, instant: EventTime) -> (Pane, Pane) {
        let end = (instant.0 - self.origin.0).div_euclid(self.pane_width.0);
        let first = match self.contents {
            Contents::Sliding | Contents::Session => end - self.panes_per_window(),
            Contents::Cumulating => self.block_of(end - 1),
            Contents::Latest(_) | Contents::Counted { .. } | Contents::Preceding(_) => i64::MIN,
        };
        (Pane(first), Pane(end))
    }

    /// The first pane of the cumulating window that `pane` belongs to.
    fn block_of(&self, pane: i64) -> i64 {
        pane.div_euclid(self.panes_per_window()).saturating_mul(self.panes_per_window())
    }

    /// The first instant strictly after `time`.
    pub fn instant_after(&self, time: EventTime) -> EventTime {
        let step = time.0.saturating_sub(self.origin.0).div_euclid(self.slide.0).saturating_add(1);
        EventTime(step.saturating_mul(self.slide.0).saturating_add(self.origin.0))
    }

    /// The last instant at or before `time`; any time may be one of a session window.
    pub fn instant_at_or_before(&self, time: EventTime) -> EventTime {
        if self.contents == Contents::Session {
            return time;
        }
        let step = time.0.saturating_sub(self.origin.0).div_euclid(self.slide.0);
        EventTime(step.saturating_mul(self.slide.0).saturating_add(self.origin.0))
    }

    /// The first instant whose window may hold rows of `pane`.
    pub fn first_instant(&self, pane: Pane) -> EventTime {
        let last_tick = pane.0.saturating_add(1).saturating_mul(self.pane_width.0).saturating_add(self.origin.0 - 1);
        self.instant_after(EventTime(last_tick))
    }

    /// The last instant whose window may hold rows of `pane`.
    pub fn last_instant(&self, pane: Pane) -> EventTime {
        match self.contents {
            Contents::Latest(_) | Contents::Counted { .. } | Contents::Preceding(_) => return EventTime(i64::MAX),
            Contents::Cumulating => {
                let end = Pane(self.block_of(pane.0).saturating_add(self.panes_per_window()));
                return self.pane_bounds(end).0;
            }
            Contents::Sliding | Contents::Session => {}
        }
        let start = pane.0.saturating_mul(self.pane_width.0).saturating_add(self.origin.0);
        self.instant_at_or_before(EventTime(start).plus(self.range))
    }

    /// The extent of the window at `instant`; a window of the latest rows has no start, and gives its end for it.
    pub fn window(&self, instant: EventTime) -> Window {
        let start = match self.contents {
            Contents::Sliding | Contents::Session => instant.minus(self.range),
            Contents::Cumulating => self.pane_bounds(self.panes_of(instant).0).0,
            Contents::Latest(_) | Contents::Counted { .. } | Contents::Preceding(_) => instant,
        };
        Window { start, end: instant }
    }

    /// The first instant a row of `pane` may appear in, when the watermark of its partition was `watermark`
    /// as it arrived: its tag. `None` if that is after the last window of the pane (too late for all, or in a gap
    /// between windows).
    ///
    /// Sessions, windows that count rows and rows with those before them take none behind the watermark: which window
    /// it would be in may depend on rows of other partitions.
    pub fn tag(&self, pane: Pane, watermark: Watermark) -> Option<EventTime> {
        if matches!(self.contents, Contents::Session | Contents::Counted { .. } | Contents::Preceding(_)) {
            return None;
        }
        let natural = self.first_instant(pane);
        let tag = if watermark.crosses(natural) { self.instant_after(EventTime(watermark.0)) } else { natural };
        (tag <= self.last_instant(pane)).then_some(tag)
    }

    /// Whether `pane` lies in a gap between windows, which only a slide above the range has.
    pub fn is_gap(&self, pane: Pane) -> bool {
        self.first_instant(pane) > self.last_instant(pane)
    }
}

fn greatest_common_divisor(Span(mut a): Span, Span(mut b): Span) -> Span {
    while b != 0 {
        (a, b) = (b, a % b);
    }
    Span(a)
}
