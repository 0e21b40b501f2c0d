//! Rows as pure functions of seed and number.

use std::time::Duration;

use millstream_engine::time::{EventTime, NANOS_PER_SECOND, Span};
use millstream_engine::{Error, Result};

use crate::choice::{below, mix};

const NANOS_PER_MILLI: i64 = 1_000_000;
/// The number of the first stock code, as Shanghai numbers them.
const FIRST_CODE: u32 = 600_000;
/// The most codes there can be and still have six digits.
const MAX_CODES: u32 = 400_000;

/// Which of the three streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// Trades: szcode, userID, eventTime, Turnover, Price.
    Transaction,
    /// Price changes: szcode, eventTime, lastPrice.
    Stock,
    /// What a user holds: userID, szcode, eventTime, lastPrice, openInterest.
    Position,
}

/// What a column holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Content {
    Code,
    User,
    EventTime,
    Quantity,
    Price,
}

impl StreamKind {
    /// The streams by their names.
    pub const NAMES: [(&'static str, Self); 3] =
        [("transaction", Self::Transaction), ("stock", Self::Stock), ("position", Self::Position)];

    /// The name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Transaction => "transaction",
            Self::Stock => "stock",
            Self::Position => "position",
        }
    }

    pub(super) const fn columns(self) -> &'static [(&'static str, Content)] {
        match self {
            Self::Transaction => &[
                ("szcode", Content::Code),
                ("userID", Content::User),
                ("eventTime", Content::EventTime),
                ("Turnover", Content::Quantity),
                ("Price", Content::Price),
            ],
            Self::Stock => {
                &[("szcode", Content::Code), ("eventTime", Content::EventTime), ("lastPrice", Content::Price)]
            }
            Self::Position => &[
                ("userID", Content::User),
                ("szcode", Content::Code),
                ("eventTime", Content::EventTime),
                ("lastPrice", Content::Price),
                ("openInterest", Content::Quantity),
            ],
        }
    }
}

/// Where event times come from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EventClock {
    /// Row `i` happens at `start + i / event_rate` seconds.
    Simulated {
        /// The event time of row 0.
        start: EventTime,
        /// Rows per second of event time, at least 1.
        event_rate: u64,
    },
    /// A row happens when it is made; two runs differ.
    Wall,
}

/// What to generate. [`GeneratorSpec::new`] has the defaults.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratorSpec {
    /// Which stream.
    pub kind: StreamKind,
    /// How many stocks, at most 400,000; the first ones are traded more.
    pub codes: u32,
    /// How many users.
    pub users: u32,
    /// What all choices come from.
    pub seed: u64,
    /// Where event times come from.
    pub clock: EventClock,
    /// The most that an event time is moved back, evenly spread.
    pub disorder: Duration,
    /// The share of rows, from 0 to 1, that are moved back by `late_by` as well.
    pub late_share: f64,
    /// How far late rows are moved back.
    pub late_by: Duration,
}

impl GeneratorSpec {
    /// 4,000 codes, 10,000 users, seed 42, 10,000 rows a second from 2024-01-02T09:30:00 on, in order.
    pub const fn new(kind: StreamKind) -> Self {
        const START: EventTime = EventTime(1_704_187_800 * NANOS_PER_SECOND);
        Self {
            kind,
            codes: 4_000,
            users: 10_000,
            seed: 42,
            clock: EventClock::Simulated { start: START, event_rate: 10_000 },
            disorder: Duration::ZERO,
            late_share: 0.0,
            late_by: Duration::from_secs(60),
        }
    }
}

/// One generated row; each stream shows some of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Row {
    /// Index into the generator's codes.
    pub(super) code: u32,
    /// The user's number, from 1.
    pub(super) user: u32,
    /// Milliseconds since 1970.
    pub(super) event_millis: i64,
    /// Traded or held volume.
    pub(super) quantity: u32,
    /// The price in hundredths.
    pub(super) cents: u32,
}

/// Makes rows of one stream.
#[derive(Debug, Clone)]
pub struct Generator {
    pub(super) spec: GeneratorSpec,
    pub(super) codes: Vec<String>,
}

impl Generator {
    /// A generator for `spec`.
    ///
    /// # Errors
    /// Fails if a number of `spec` is out of its range.
    pub fn new(spec: GeneratorSpec) -> Result<Self> {
        let refuse = |message: &str, hint: &str| Err(Error::query(message, hint));
        if spec.codes == 0 || spec.codes > MAX_CODES {
            return refuse("generate: codes is out of range", "set it from 1 to 400000");
        }
        if spec.users == 0 {
            return refuse("generate: users is 0", "set it to 1 or more");
        }
        if !(0.0..=1.0).contains(&spec.late_share) {
            return refuse("generate: late_share is out of range", "set it from 0 to 1");
        }
        if matches!(spec.clock, EventClock::Simulated { event_rate: 0, .. }) {
            return refuse("generate: event_rate is 0", "set it to 1 or more rows per second");
        }
        let codes = (FIRST_CODE..FIRST_CODE + spec.codes).map(|code| code.to_string()).collect();
        Ok(Self { spec, codes })
    }

    /// What is generated.
    pub const fn spec(&self) -> &GeneratorSpec {
        &self.spec
    }

    /// Row number `index`; `now` is its event time by the wall clock.
    pub(super) fn row(&self, index: u64, now: EventTime) -> Row {
        let spec = &self.spec;
        let choice = |salt: u64| mix(spec.seed ^ mix(index.wrapping_mul(8).wrapping_add(salt)));
        // The square of an even choice makes low numbers likelier: the first tenth of the codes gets a third of rows.
        let even = choice(0) >> 32;
        let code = below((even * even) >> 32, spec.codes);
        let user = below(choice(1) >> 32, spec.users) + 1;
        let quantity = 100 * (below(choice(2) >> 32, 50) + 1);
        let base = 500 + below(mix(spec.seed ^ u64::from(code)) >> 32, 30_000);
        let cents = base + below(choice(3) >> 32, base / 50 + 1);
        let event = self.event_time(index, now).minus(self.delay(choice(4), choice(5)));
        Row { code, user, event_millis: event.0.div_euclid(NANOS_PER_MILLI), quantity, cents }
    }

    fn event_time(&self, index: u64, now: EventTime) -> EventTime {
        match self.spec.clock {
            EventClock::Wall => now,
            EventClock::Simulated { start, event_rate } => {
                let nanos = u128::from(index) * u128::from(NANOS_PER_SECOND.unsigned_abs()) / u128::from(event_rate);
                start.plus(Span(i64::try_from(nanos).unwrap_or(i64::MAX)))
            }
        }
    }

    fn delay(&self, jitter: u64, late: u64) -> Span {
        let nanos = |time: Duration| i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
        let disorder = (i128::from(nanos(self.spec.disorder)) * i128::from(jitter >> 32)) >> 32;
        let jitter = i64::try_from(disorder).unwrap_or_default();
        #[expect(clippy::cast_precision_loss, reason = "32 bits fit a double")]
        let is_late = ((late >> 32) as f64) < self.spec.late_share * f64::from(u32::MAX);
        let late = if is_late { nanos(self.spec.late_by) } else { 0 };
        Span(jitter.saturating_add(late))
    }
}
