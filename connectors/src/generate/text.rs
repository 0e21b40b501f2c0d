//! Generated rows as lines of CSV or JSON.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::ops::Range;

use millstream_engine::time::{Clock, EventTime, SystemClock};

use super::row::{Content, EventClock, Generator, Row};

/// How many rows are written at a time.
const ROWS_PER_WRITE: u64 = 4_096;

/// How rows are written as lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineFormat {
    /// Comma-separated values.
    Csv,
    /// One JSON object per line.
    Json,
}

impl Generator {
    /// The first line of a CSV file: the names of the columns.
    pub fn header(&self) -> String {
        let names: Vec<_> = self.spec.kind.columns().iter().map(|(name, _)| *name).collect();
        names.join(",") + "\n"
    }

    /// Writes the rows with these numbers, one per line, without a header.
    ///
    /// By the wall clock, rows happen when they are written.
    ///
    /// # Errors
    /// Fails if `out` does.
    pub fn write_lines(&self, rows: Range<u64>, format: LineFormat, out: &mut impl Write) -> io::Result<()> {
        let mut text = String::new();
        let mut start = rows.start;
        while start < rows.end {
            let end = rows.end.min(start + ROWS_PER_WRITE);
            text.clear();
            self.push_lines(start..end, format, &mut text).map_err(io::Error::other)?;
            out.write_all(text.as_bytes())?;
            start = end;
        }
        Ok(())
    }

    fn push_lines(&self, rows: Range<u64>, format: LineFormat, out: &mut String) -> std::fmt::Result {
        let now = match self.spec.clock {
            EventClock::Wall => SystemClock.now(),
            EventClock::Simulated { start, .. } => start,
        };
        for index in rows {
            let row = self.row(index, now);
            match format {
                LineFormat::Csv => self.push_csv(&row, out)?,
                LineFormat::Json => self.push_json(&row, out)?,
            }
        }
        Ok(())
    }

    fn push_csv(&self, row: &Row, out: &mut String) -> std::fmt::Result {
        for (index, (_, content)) in self.spec.kind.columns().iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            self.push_value(row, *content, out)?;
        }
        out.push('\n');
        Ok(())
    }

    fn push_json(&self, row: &Row, out: &mut String) -> std::fmt::Result {
        for (index, (name, content)) in self.spec.kind.columns().iter().enumerate() {
            let quote = if matches!(content, Content::Code | Content::User | Content::EventTime) { "\"" } else { "" };
            write!(out, "{}\"{name}\":{quote}", if index > 0 { "," } else { "{" })?;
            self.push_value(row, *content, out)?;
            out.push_str(quote);
        }
        out.push_str("}\n");
        Ok(())
    }

    fn push_value(&self, row: &Row, content: Content, out: &mut String) -> std::fmt::Result {
        match content {
            Content::Code => out.push_str(self.code(row)),
            Content::User => write!(out, "{}", row.user)?,
            Content::Quantity => write!(out, "{}", row.quantity)?,
            Content::Price => write!(out, "{}.{:02}", row.cents / 100, row.cents % 100)?,
            Content::EventTime => push_time(row.event_millis, out)?,
        }
        Ok(())
    }

    pub(super) fn code(&self, row: &Row) -> &str {
        usize::try_from(row.code).ok().and_then(|index| self.codes.get(index)).map_or("", String::as_str)
    }
}

/// Writes a time to the millisecond, always with three decimals, so that lines have one length.
fn push_time(millis: i64, out: &mut String) -> std::fmt::Result {
    let whole = EventTime(millis.div_euclid(1_000).saturating_mul(1_000_000_000));
    write!(out, "{whole}.{:03}", millis.rem_euclid(1_000))
}
