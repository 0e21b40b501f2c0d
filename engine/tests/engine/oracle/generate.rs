//! Random logs: partitions of unequal progress, one that idles and comes back, rows late for some or all windows.

use datafusion::arrow::datatypes::TimeUnit;
use rand::Rng;
use rand::rngs::StdRng;

use super::{Event, Log, Row};

/// What a random log is like; times are in ticks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) rows: usize,
    pub(crate) partitions: u32,
    /// The share of rows that lie behind, and how far at the most.
    pub(crate) late_share: f64,
    pub(crate) lag: i64,
    /// Whether a partition idles and comes back.
    pub(crate) idles: bool,
    pub(crate) delay: i64,
    pub(crate) skew: Option<i64>,
    pub(crate) bad_share: f64,
    /// Nanoseconds in a tick: 1, or a million, which makes the event-time column one of milliseconds.
    pub(crate) tick: i64,
}

impl Default for Shape {
    fn default() -> Self {
        Self {
            rows: 240,
            partitions: 3,
            late_share: 0.2,
            lag: 16,
            idles: true,
            delay: 2,
            skew: None,
            bad_share: 0.0,
            tick: 1,
        }
    }
}

/// The seeds to test with: `count` from 1 on, unless `MILLSTREAM_SEED` and `MILLSTREAM_CASES` say others.
pub(crate) fn seeds(count: u64) -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let first = number("MILLSTREAM_SEED");
    let count = number("MILLSTREAM_CASES").unwrap_or(if first.is_some() { 1 } else { count });
    let first = first.unwrap_or(1);
    first..first + count
}

/// A random log of that shape. Its first rows lie before 1970, where rounding towards zero would show.
pub(crate) fn random_log(name: &str, shape: &Shape, rng: &mut StdRng) -> Log {
    let partitions = shape.partitions as usize;
    let mut clocks = vec![-20_i64; partitions];
    let mut offsets = vec![0_u64; partitions];
    let mut events = Vec::new();
    let mut made = 0;
    let (sleeps, wakes) = (shape.rows / 4, shape.rows * 5 / 8);
    let mut is_asleep = false;
    while made < shape.rows {
        if shape.idles && !is_asleep && (sleeps..wakes).contains(&made) {
            events.push(Event::Idle(0));
            is_asleep = true;
        }
        let asleep = is_asleep && made < wakes;
        let partition = rng.random_range(usize::from(asleep)..partitions);
        if rng.random_bool(shape.bad_share) {
            events.push(Event::Bad(partition as u32, offsets[partition]));
            offsets[partition] += 1;
            continue;
        }
        let mut rows = Vec::new();
        for _ in 0..rng.random_range(1..=8) {
            // The last partition lags behind the others and the one that slept starts where it was.
            let steps = if partition + 1 == partitions { rng.random_range(0..=1) } else { rng.random_range(0..=2) };
            clocks[partition] += steps;
            let far = shape.skew.is_some() && rng.random_bool(0.02);
            let late = rng.random_bool(shape.late_share);
            let moved = match (late, far) {
                (true, _) => -rng.random_range(1..=shape.lag),
                (_, true) => 500,
                _ => rng.random_range(0..=1),
            };
            let time = (clocks[partition] + moved) * shape.tick;
            rows.push(random_row(partition as u32, offsets[partition], time, rng));
            offsets[partition] += 1;
        }
        made += rows.len();
        events.push(Event::Rows(partition as u32, rows));
    }
    Log {
        name: name.to_owned(),
        partitions: shape.partitions,
        delay: shape.delay * shape.tick,
        skew: shape.skew.map(|skew| skew * shape.tick),
        unit: if shape.tick == 1 { TimeUnit::Nanosecond } else { TimeUnit::Millisecond },
        events,
    }
}

fn random_row(partition: u32, offset: u64, time: i64, rng: &mut StdRng) -> Row {
    const KEYS: [&str; 6] = ["A", "B", "C", "600519", "a key longer than twelve bytes", ""];
    let is_null = |rng: &mut StdRng| rng.random_bool(0.1);
    let null = is_null(rng);
    let k = (!null).then(|| KEYS[rng.random_range(0..KEYS.len())].to_owned());
    let g = (!is_null(rng)).then(|| rng.random_range(-2..4));
    let i = (!is_null(rng)).then(|| match rng.random_range(0..20) {
        0 => rng.random_range(-1_000_000_000_000..1_000_000_000_000),
        _ => rng.random_range(-9..20),
    });
    let d = (!is_null(rng)).then(|| rng.random_range(-1_000_000_i128..1_000_000));
    let f = (!is_null(rng)).then(|| rng.random_range(-1.0..1.0) * 10_f64.powi(rng.random_range(-6..6)));
    Row { partition, offset, time, k, g, i, d, f }
}
