//! Windows as arithmetic: instants, panes, and which of them a row belongs to. Pure, no state.
//!
//! A window spec has instants at `origin + k · slide` from the Unix epoch; the window of instant `e` is
//! `[e − range, e)`. Panes are `gcd(range, slide)` wide and tile time, so that every window is a whole
//! number of panes (the *tiling* invariant).
//!
//! `CLOSED RIGHT` windows `(e − range, e]` are the same arithmetic on times one tick earlier: see [`WindowSpec::shift`].

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
        })
    }

    /// The same window with its instants moved by `offset`.
    pub fn with_offset(mut self, offset: Span) -> Self {
        self.origin = Span(offset.0.rem_euclid(self.slide.0));
        self
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
        (Pane(end - self.panes_per_window()), Pane(end))
    }

    /// The first instant strictly after `time`.
    pub fn instant_after(&self, time: EventTime) -> EventTime {
        let step = time.0.saturating_sub(self.origin.0).div_euclid(self.slide.0).saturating_add(1);
        EventTime(step.saturating_mul(self.slide.0).saturating_add(self.origin.0))
    }

    /// The last instant at or before `time`.
    pub fn instant_at_or_before(&self, time: EventTime) -> EventTime {
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
        let start = pane.0.saturating_mul(self.pane_width.0).saturating_add(self.origin.0);
        self.instant_at_or_before(EventTime(start).plus(self.range))
    }

    /// The extent of the window at `instant`.
    pub fn window(&self, instant: EventTime) -> Window {
        Window { start: instant.minus(self.range), end: instant }
    }

    /// The first instant a row of `pane` may appear in, when the watermark of its partition was `watermark`
    /// as it arrived: its tag. `None` if that is after the last window of the pane (too late for all, or in a gap
    /// between windows).
    pub fn tag(&self, pane: Pane, watermark: Watermark) -> Option<EventTime> {
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
