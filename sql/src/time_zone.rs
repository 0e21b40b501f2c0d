//! Time zones of windows: days from midnight to midnight in Shanghai.
//!
//! A window's instants are evenly spaced, so a zone is an offset of them. A zone whose clock changes has none, unless
//! the slide divides every change: windows of an hour are the same in Paris in summer and in winter.

use chrono::{DateTime, FixedOffset, Offset, TimeZone as _};
use datafusion::arrow::array::timezone::Tz;
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_engine::plan::Location;
use millstream_engine::time::Span;

use crate::error::{Error, Result};
use crate::token::Cursor;

/// The first and last second since 1970 at which a zone's clock is looked at: the years 2000 to 2099.
///
/// Nearly every zone has changed its clock at some time before.
const LOOKED_AT: (i64, i64) = (946_684_800, 4_102_444_800);

/// The seconds between two looks; a zone that changes its clock keeps it longer than a week.
const STEP: i64 = 7 * 86_400;

const EXAMPLE: &str = "write a name such as 'Asia/Shanghai', or an offset from UTC such as '+08:00'";

/// A time zone as written.
#[derive(Debug)]
pub(crate) struct TimeZone {
    name: String,
    zone: Tz,
    location: Option<Location>,
}

/// Reads `'Asia/Shanghai'` or `'+08:00'` at the cursor.
///
/// # Errors
/// There is no such zone.
pub(crate) fn parse_time_zone(cursor: &mut Cursor<'_>) -> Result<TimeZone> {
    let location = cursor.location();
    let Token::SingleQuotedString(name) = cursor.peek() else {
        return Err(cursor.expected("a time zone in single quotes").hint(EXAMPLE));
    };
    let zone =
        name.parse().map_err(|_| Error::new(format!("unknown time zone '{name}'")).hint(EXAMPLE).at(location))?;
    cursor.next();
    Ok(TimeZone { name: name.clone(), zone, location })
}

impl TimeZone {
    /// How far instants that are multiples of `slide` on the zone's clock lie from those in UTC.
    ///
    /// # Errors
    /// That is not the same all the year.
    pub(crate) fn offset(&self, slide: Span) -> Result<Span> {
        let (least, greatest) = self.clock_range();
        let change = greatest.0 - least.0;
        // A slide that is not positive is refused where the window is made.
        if slide.0 <= 0 || self.clocks().all(|clock| (clock.0 - least.0) % slide.0 == 0) {
            return Ok(Span(-least.0));
        }
        let message = format!(
            "the clock of '{}' changes by {}, so windows that slide by {slide} would not all have the same length",
            self.name,
            Span(change)
        );
        let hint = format!(
            "write Offset {} for one clock all the year, or a slide that divides {}",
            Span(-least.0),
            Span(change)
        );
        Err(Error::new(message).hint(hint).at(self.location))
    }

    /// The zone's distances from UTC over the years.
    fn clocks(&self) -> impl Iterator<Item = Span> {
        let seconds = (0..).map(|step| LOOKED_AT.0 + step * STEP).take_while(|second| *second < LOOKED_AT.1);
        let moments = seconds.filter_map(|second| DateTime::from_timestamp(second, 0));
        moments.map(|moment| {
            let clock: FixedOffset = self.zone.offset_from_utc_datetime(&moment.naive_utc()).fix();
            Span::seconds(i64::from(clock.local_minus_utc()))
        })
    }

    /// The least and the greatest distance.
    fn clock_range(&self) -> (Span, Span) {
        let mut clocks = self.clocks();
        let first = clocks.next().unwrap_or(Span(0));
        clocks.fold((first, first), |(least, greatest), clock| (least.min(clock), greatest.max(clock)))
    }
}
