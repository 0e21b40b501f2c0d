//! Back pressure that follows what the query can do: how much may wait for it, and how much it takes at once.
//!
//! Rows that wait are rows that are late in the result. So the input is read ahead, and micro-batches are made, only
//! as large as the query gets done in a set time. What an epoch costs is taken as a fixed part and a part for each row,
//! fitted to the last epochs. A fixed part that alone takes longer than the set time, such as a distant sink's commit,
//! must not make the micro-batches small: the smaller they are, the more of them pay it. They take twice its time then.

use std::time::Duration;

use crate::ingest::LOG_LIMIT_BYTES;

/// What the epochs before the latest count against it.
const MEMORY: f64 = 0.5;
/// How unlike in size the last epochs must be to tell the fixed cost, as a part of their mean.
const LEAST_SPREAD: f64 = 0.1;
/// The most of an epoch's time that is taken as fixed.
const MOST_FIXED: f64 = 0.95;
/// What may always wait, so that blocks of the usual size need not come one by one.
const LEAST_BYTES: usize = 4 << 20;
/// What a micro-batch may always have.
const LEAST_ROWS: usize = 1 << 10;

/// The speed of a query, and what follows from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    max_wait: Duration,
    recent: Recent,
    /// The fixed cost of an epoch, in seconds.
    fixed: f64,
}

/// Sums over the last epochs with rows, each weighing less than the one behind it; all zero before the first.
#[derive(Debug, Clone, Copy, Default)]
struct Recent {
    epochs: f64,
    rows: f64,
    bytes: f64,
    seconds: f64,
    rows_squared: f64,
    rows_seconds: f64,
}

impl Recent {
    fn add(&mut self, rows: f64, bytes: f64, seconds: f64) {
        let add = |sum: &mut f64, value: f64| *sum = *sum * MEMORY + value;
        add(&mut self.epochs, 1.0);
        add(&mut self.rows, rows);
        add(&mut self.bytes, bytes);
        add(&mut self.seconds, seconds);
        add(&mut self.rows_squared, rows * rows);
        add(&mut self.rows_seconds, rows * seconds);
    }

    /// The seconds that an epoch without rows would take, by least squares; none if the epochs are too much alike.
    fn fixed(&self) -> Option<f64> {
        let (rows, seconds) = (self.rows / self.epochs, self.seconds / self.epochs);
        let variance = self.rows_squared / self.epochs - rows * rows;
        if variance <= (rows * LEAST_SPREAD).powi(2) {
            return None;
        }
        let per_row = (self.rows_seconds / self.epochs - rows * seconds) / variance;
        Some(seconds - per_row * rows)
    }
}

impl Pace {
    /// A pace at which rows wait about this long at the most.
    pub(crate) fn new(max_wait: Duration) -> Self {
        Self { max_wait, recent: Recent::default(), fixed: 0.0 }
    }

    /// Takes in an epoch that had rows.
    pub(crate) fn note(&mut self, rows: u64, bytes: usize, took: Duration) {
        if rows == 0 {
            return;
        }
        self.recent.add(rows as f64, bytes as f64, took.as_secs_f64().max(1e-6));
        self.fixed = self.recent.fixed().unwrap_or(self.fixed);
    }

    /// The rows a micro-batch should have, `most` at the most: half of what may wait, as the other half comes meanwhile.
    pub(crate) fn batch_rows(&self, most: usize) -> usize {
        if self.recent.epochs == 0.0 {
            return most;
        }
        self.in_time(self.recent.rows, 0.5).clamp(LEAST_ROWS.min(most), most)
    }

    /// How much of a stream may be kept for the query, in bytes.
    pub(crate) fn log_bytes(&self) -> usize {
        if self.recent.epochs == 0.0 {
            return LOG_LIMIT_BYTES;
        }
        self.in_time(self.recent.bytes, 1.0).clamp(LEAST_BYTES, LOG_LIMIT_BYTES)
    }

    /// How many of what the last epochs had, together `sum`, are done in a share of the time that rows may wait.
    fn in_time(&self, sum: f64, share: f64) -> usize {
        let mean_seconds = self.recent.seconds / self.recent.epochs;
        let fixed = self.fixed.clamp(0.0, mean_seconds * MOST_FIXED);
        let per_second = sum / self.recent.epochs / (mean_seconds - fixed);
        let time = (self.max_wait.as_secs_f64() * share).max(fixed * 4.0 * share);
        (per_second * (time - fixed)) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// An epoch costs 20 ms and 10 µs a row.
    fn cost(rows: usize) -> Duration {
        Duration::from_millis(20) + Duration::from_micros(10) * u32::try_from(rows).unwrap()
    }

    #[test]
    fn a_fast_query_is_not_held_back() {
        let mut pace = Pace::new(SECOND);
        assert_eq!((pace.batch_rows(1 << 18), pace.log_bytes()), (1 << 18, LOG_LIMIT_BYTES));
        pace.note(1 << 18, 12 << 20, Duration::from_millis(40));
        assert_eq!((pace.batch_rows(1 << 18), pace.log_bytes()), (1 << 18, LOG_LIMIT_BYTES));
    }

    #[test]
    fn a_slow_query_takes_what_it_gets_done_in_time() {
        let mut pace = Pace::new(SECOND);
        for _ in 0..20 {
            let rows = pace.batch_rows(1 << 18);
            pace.note(rows as u64, rows * 50, cost(rows));
        }
        let rows = pace.batch_rows(1 << 18);
        assert!(cost(rows) < SECOND && cost(rows) > SECOND / 4, "{rows} rows take {:?}", cost(rows));
        assert!((4_500_000..5_500_000).contains(&pace.log_bytes()), "{}", pace.log_bytes());
    }

    #[test]
    fn a_high_fixed_cost_makes_no_small_batches() {
        let cost = |rows: usize| Duration::from_millis(600) + Duration::from_micros(u64::try_from(rows).unwrap());
        let mut pace = Pace::new(SECOND);
        for _ in 0..50 {
            let rows = pace.batch_rows(1 << 18);
            pace.note(rows as u64, rows * 50, cost(rows));
        }
        assert!(pace.batch_rows(1 << 18) > 200_000, "{}", pace.batch_rows(1 << 18));
        assert!(pace.log_bytes() > 50 * 400_000, "{}", pace.log_bytes());
    }

    #[test]
    fn a_query_that_had_little_to_do_grows_with_its_work() {
        let mut pace = Pace::new(SECOND);
        (0..50).for_each(|_| pace.note(10, 500, cost(10)));
        let before = pace.batch_rows(1 << 18);
        for _ in 0..10 {
            let rows = pace.batch_rows(1 << 18);
            pace.note(rows as u64, rows * 50, cost(rows));
        }
        assert!(before < 2_000 && pace.batch_rows(1 << 18) > 30_000, "{before} to {}", pace.batch_rows(1 << 18));
    }
}
