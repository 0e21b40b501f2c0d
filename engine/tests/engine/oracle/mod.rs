//! What the engine's answers are compared with: windows over a log, decided row by row from their definition.
//!
//! Nothing here uses the engine's window or watermark code. A row is looked at on its own: which watermark it saw
//! ([`Log::replay`]), which instants hold it and which of those were crossed before it came ([`Window::place`]).
//! [`plain`] then adds the rows of a window up one by one, [`batch`] gives them to DataFusion as a finite table.

pub(crate) mod batch;
pub(crate) mod check;
pub(crate) mod cut;
pub(crate) mod declared;
pub(crate) mod generate;
pub(crate) mod kinds;
pub(crate) mod plain;
pub(crate) mod table;

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Decimal128Array, Float64Array, Int64Array, StringViewArray, TimestampMillisecondArray,
    TimestampNanosecondArray,
};
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::plan::{BadData, EventTimeRule, StreamDefinition};
use millstream_engine::source::{BadRow, Offset, PartitionId};
use millstream_engine::testing::{LogEvent, StreamLogScript};
use millstream_engine::time::Span;
use millstream_engine::window::WindowSpec;

use kinds::Kind;

/// One row of a stream; times are nanoseconds.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// Its partition and its place there, which are columns of the stream too, so that SQL can name them.
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) time: i64,
    pub(crate) k: Option<String>,
    pub(crate) g: Option<i64>,
    pub(crate) i: Option<i64>,
    /// Hundredths.
    pub(crate) d: Option<i128>,
    pub(crate) f: Option<f64>,
}

/// Something that happens to a stream.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    Rows(u32, Vec<Row>),
    Bad(u32, u64),
    Idle(u32),
}

/// The log of one stream; every partition ends with it, in the order of their numbers.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) name: String,
    pub(crate) partitions: u32,
    pub(crate) delay: i64,
    pub(crate) skew: Option<i64>,
    /// The unit of the event-time column.
    pub(crate) unit: TimeUnit,
    pub(crate) events: Vec<Event>,
}

/// A row and the watermark of its partition as it came; `None` before there was one.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) row: Row,
    pub(crate) watermark: Option<i64>,
}

/// A log gone through row by row.
#[derive(Debug)]
pub(crate) struct Replay {
    /// The rows in order of partition and offset.
    pub(crate) rows: Vec<Seen>,
    /// The stream's watermark after each row, bad row, idling and end of a partition, in the order of the log.
    pub(crate) watermarks: Vec<Option<i64>>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Part {
    Active,
    Idle,
    Ended,
}

impl Log {
    /// Decides for every row which watermark it sees.
    pub(crate) fn replay(&self) -> Replay {
        let mut parts = vec![(Part::Active, None::<i64>); self.partitions as usize];
        let mut stream = None;
        let mut rows = Vec::new();
        let mut watermarks = Vec::new();
        for event in &self.events {
            match event {
                Event::Bad(..) => watermarks.push(stream),
                Event::Idle(partition) => {
                    parts[*partition as usize].0 = Part::Idle;
                    stream = stream_watermark(stream, &parts);
                    watermarks.push(stream);
                }
                Event::Rows(partition, batch) => {
                    for row in batch {
                        let (state, own) = &mut parts[*partition as usize];
                        if *state == Part::Idle {
                            *own = (*own).max(stream);
                            *state = Part::Active;
                        }
                        rows.push(Seen { row: row.clone(), watermark: *own });
                        *own = self.moved(*own, row.time);
                        stream = stream_watermark(stream, &parts);
                        watermarks.push(stream);
                    }
                }
            }
        }
        for partition in 0..parts.len() {
            parts[partition] = (Part::Ended, None);
            stream = stream_watermark(stream, &parts);
            watermarks.push(stream);
        }
        rows.sort_by_key(|seen| (seen.row.partition, seen.row.offset));
        Replay { rows, watermarks }
    }

    /// The watermark of a partition after a row: the skew bounds how far one row moves it, the first one excepted.
    fn moved(&self, own: Option<i64>, time: i64) -> Option<i64> {
        let reached = time - self.delay;
        match (own, self.skew) {
            (Some(own), Some(skew)) => Some(own.max(reached.min(own + skew))),
            (own, _) => own.max(Some(reached)),
        }
    }

    /// The columns: partition, offset, key, group, integer, decimal, double, event time.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("p", DataType::Int64, true),
            Field::new("o", DataType::Int64, true),
            Field::new("k", DataType::Utf8View, true),
            Field::new("g", DataType::Int64, true),
            Field::new("i", DataType::Int64, true),
            Field::new("d", DataType::Decimal128(12, 2), true),
            Field::new("f", DataType::Float64, true),
            Field::new("ts", DataType::Timestamp(self.unit, None), true),
        ]))
    }

    /// Rows as a batch of the stream's columns.
    pub(crate) fn batch<'a>(&self, rows: impl Iterator<Item = &'a Row> + Clone) -> RecordBatch {
        let all = || rows.clone();
        let decimals = all().map(|row| row.d).collect::<Decimal128Array>().with_precision_and_scale(12, 2).unwrap();
        let times: ArrayRef = match self.unit {
            TimeUnit::Nanosecond => Arc::new(TimestampNanosecondArray::from_iter_values(all().map(|row| row.time))),
            TimeUnit::Millisecond => Arc::new(TimestampMillisecondArray::from_iter_values(all().map(|row| {
                assert_eq!(row.time % 1_000_000, 0, "a time between two milliseconds");
                row.time / 1_000_000
            }))),
            other => panic!("no logs in {other:?}"),
        };
        let columns: Vec<ArrayRef> = vec![
            Arc::new(Int64Array::from_iter_values(all().map(|row| i64::from(row.partition)))),
            Arc::new(all().map(|row| i64::try_from(row.offset).ok()).collect::<Int64Array>()),
            Arc::new(all().map(|row| row.k.as_deref()).collect::<StringViewArray>()),
            Arc::new(all().map(|row| row.g).collect::<Int64Array>()),
            Arc::new(all().map(|row| row.i).collect::<Int64Array>()),
            Arc::new(decimals),
            Arc::new(all().map(|row| row.f).collect::<Float64Array>()),
            times,
        ];
        RecordBatch::try_new(self.schema(), columns).unwrap()
    }

    /// The stream as the engine knows it.
    pub(crate) fn definition(&self) -> Arc<StreamDefinition> {
        let schema = self.schema();
        Arc::new(StreamDefinition {
            name: self.name.clone(),
            declared: schema.fields().iter().map(|field| field.name().clone()).collect(),
            event_time: Some(EventTimeRule {
                column: schema.fields().len() - 1,
                delay: Span(self.delay),
                max_future_skew: self.skew.map(Span),
                idle_timeout: None,
            }),
            schema,
            bad_data: BadData::DeadLetter,
            durability: None,
            rate_limit: None,
            refresh: None,
            options: Vec::new(),
        })
    }

    /// The log as the engine's harness takes it.
    pub(crate) fn script(&self) -> StreamLogScript {
        let events = self.events.iter().map(|event| match event {
            Event::Rows(partition, rows) => LogEvent::Rows(PartitionId(*partition), self.batch(rows.iter())),
            Event::Idle(partition) => LogEvent::Idle(PartitionId(*partition)),
            Event::Bad(partition, offset) => LogEvent::Bad(PartitionId(*partition), bad_row(*offset)),
        });
        StreamLogScript {
            definition: self.definition(),
            partitions: self.partitions,
            events: events.collect(),
            ends: true,
        }
    }
}

fn bad_row(offset: u64) -> BadRow {
    BadRow {
        offset: Offset(offset),
        place: format!("line {offset}"),
        column: Some("i".to_owned()),
        raw: "x,y".to_owned(),
        reason: "not a number".to_owned(),
    }
}

/// The least watermark of the partitions that take part, never lower than it was; the end once all have ended.
fn stream_watermark(before: Option<i64>, parts: &[(Part, Option<i64>)]) -> Option<i64> {
    if parts.iter().all(|(part, _)| *part == Part::Ended) {
        return Some(i64::MAX);
    }
    let active = parts.iter().filter(|(part, _)| *part == Part::Active);
    active.map(|(_, own)| *own).min().flatten().max(before)
}

/// A window by its definition; all in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    pub(crate) range: i64,
    pub(crate) slide: i64,
    pub(crate) offset: i64,
    pub(crate) closed_right: bool,
    pub(crate) kind: Kind,
    /// Whether the values of `k` are kept apart.
    pub(crate) is_keyed: bool,
}

/// The rows of each window, by instant, as their numbers; only windows that have rows.
pub(crate) type Places = BTreeMap<i64, Vec<usize>>;

/// What became of the rows of a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Fates {
    pub(crate) used: u64,
    pub(crate) late: u64,
    pub(crate) outside: u64,
}

impl Window {
    pub(crate) const fn new(range: i64, slide: i64) -> Self {
        Self { range, slide, offset: 0, closed_right: false, kind: Kind::Sliding, is_keyed: false }
    }

    /// A window of another kind.
    pub(crate) const fn kind(self, kind: Kind) -> Self {
        Self { kind, ..self }
    }

    /// The same window for each value of `k`.
    pub(crate) const fn keyed(self) -> Self {
        Self { is_keyed: true, ..self }
    }

    /// Where the window of `instant` begins.
    pub(crate) const fn start_of(&self, instant: i64) -> i64 {
        match self.kind {
            Kind::Cumulating => floor(instant - 1 - self.offset, self.range) * self.range + self.offset,
            _ => instant - self.range,
        }
    }

    pub(crate) const fn offset(self, offset: i64) -> Self {
        Self { offset, ..self }
    }

    pub(crate) const fn closed_right(self) -> Self {
        Self { closed_right: true, ..self }
    }

    /// The same window with all lengths that many times longer.
    pub(crate) const fn times(self, scale: i64) -> Self {
        Self { range: self.range * scale, slide: self.slide * scale, offset: self.offset * scale, ..self }
    }

    /// The window as the engine knows it.
    pub(crate) fn spec(&self) -> WindowSpec {
        let (range, slide) = (Span(self.range), Span(self.slide));
        let spec = match self.kind {
            Kind::Sliding => WindowSpec::new(range, slide),
            Kind::Cumulating => WindowSpec::cumulating(slide, range),
            Kind::ByRow if self.range == 1 => return WindowSpec::now(),
            Kind::ByRow => return WindowSpec::by_row(range).unwrap(),
            Kind::Latest(rows) => WindowSpec::latest(rows as u64, Some(slide)),
            Kind::LatestByRow(rows) => return WindowSpec::latest(rows as u64, None).unwrap(),
            Kind::Counted(rows, slide) => return WindowSpec::counted(rows as u64, slide as u64).unwrap(),
            Kind::Session => return WindowSpec::session(range).unwrap(),
        };
        let spec = spec.unwrap().with_offset(Span(self.offset));
        if self.closed_right { spec.closed_right() } else { spec }
    }

    /// The last instant at or before `time`.
    pub(crate) const fn last_instant(&self, time: i64) -> i64 {
        floor(time - self.offset, self.slide) * self.slide + self.offset
    }

    /// Whether the window of `instant` holds `time`.
    pub(crate) const fn holds(&self, instant: i64, time: i64) -> bool {
        let start = self.start_of(instant);
        if self.is_closed_right() { start < time && time <= instant } else { start <= time && time < instant }
    }

    const fn is_closed_right(&self) -> bool {
        self.closed_right || matches!(self.kind, Kind::ByRow | Kind::LatestByRow(_))
    }

    /// Whether no row of the window of `instant` can come once there is this watermark.
    pub(crate) fn is_crossed(&self, instant: i64, watermark: Option<i64>) -> bool {
        watermark
            .is_some_and(|watermark| if self.is_closed_right() { watermark > instant } else { watermark >= instant })
    }

    /// All instants whose windows hold `time`.
    pub(crate) fn instants_of(&self, time: i64) -> Vec<i64> {
        let first = self.last_instant(time) - self.slide;
        let candidates = (0..).map(|step| first + step * self.slide).take_while(|e| *e <= time + self.range + 1);
        candidates.filter(|instant| self.holds(*instant, time)).collect()
    }

    /// Puts every row into the windows that hold it and were not crossed as it came.
    pub(crate) fn place(&self, rows: impl Iterator<Item = (i64, Option<i64>)>) -> (Places, Fates) {
        let mut places = Places::new();
        let mut fates = Fates::default();
        for (number, (time, watermark)) in rows.enumerate() {
            let held = self.instants_of(time);
            let seen: Vec<_> = held.iter().filter(|instant| !self.is_crossed(**instant, watermark)).collect();
            if held.is_empty() {
                fates.outside += 1;
            } else if seen.is_empty() {
                fates.late += 1;
            } else {
                fates.used += 1;
            }
            for instant in seen {
                places.entry(*instant).or_default().push(number);
            }
        }
        (places, fates)
    }
}

/// Division that rounds down, for a positive divisor.
const fn floor(value: i64, divisor: i64) -> i64 {
    let quotient = value / divisor;
    if value % divisor < 0 { quotient - 1 } else { quotient }
}
