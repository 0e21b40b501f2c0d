//! Back pressure that follows what the query can do: how much may wait for it, and how much it takes at once.
//!
//! Rows that wait are rows that are late in the result. So the input is read ahead, and micro-batches are made, only
//! as large as the query gets done in a set time, by the speed of its last epochs. A micro-batch has costs of its own,
//! which larger ones spread over more rows: a query that falls behind is measured faster with each larger one until
//! rows alone decide.

use std::time::Duration;

use crate::ingest::LOG_LIMIT_BYTES;

/// What the latest epoch counts in the speed.
const WEIGHT: f64 = 0.5;
/// What may always wait, so that blocks of the usual size need not come one by one.
const LEAST_BYTES: usize = 4 << 20;
/// What a micro-batch may always have.
const LEAST_ROWS: usize = 1 << 10;

/// The speed of a query, and what follows from it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pace {
    max_wait: Duration,
    /// Rows and bytes per second of work; none before the first epoch with rows.
    speed: Option<(f64, f64)>,
}

impl Pace {
    /// A pace at which rows wait about this long at the most.
    pub(crate) const fn new(max_wait: Duration) -> Self {
        Self { max_wait, speed: None }
    }

    /// Takes in an epoch that had rows.
    pub(crate) fn note(&mut self, rows: u64, bytes: usize, took: Duration) {
        if rows == 0 {
            return;
        }
        let seconds = took.as_secs_f64().max(1e-6);
        let (rows, bytes) = (rows as f64 / seconds, bytes as f64 / seconds);
        let mixed = |known: f64, latest: f64| known + (latest - known) * WEIGHT;
        self.speed = Some(match self.speed {
            Some((known_rows, known_bytes)) => (mixed(known_rows, rows), mixed(known_bytes, bytes)),
            None => (rows, bytes),
        });
    }

    /// The rows a micro-batch should have, `most` at the most: half of what may wait, as the other half comes meanwhile.
    pub(crate) fn batch_rows(&self, most: usize) -> usize {
        let Some((rows, _)) = self.speed else { return most };
        in_time(rows, self.max_wait / 2).clamp(LEAST_ROWS.min(most), most)
    }

    /// How much of a stream may be kept for the query, in bytes.
    pub(crate) fn log_bytes(&self) -> usize {
        let Some((_, bytes)) = self.speed else { return LOG_LIMIT_BYTES };
        in_time(bytes, self.max_wait).clamp(LEAST_BYTES, LOG_LIMIT_BYTES)
    }
}

fn in_time(per_second: f64, time: Duration) -> usize {
    (per_second * time.as_secs_f64()) as usize
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
        assert_eq!(pace.log_bytes(), 4_840_000.clamp(LEAST_BYTES, pace.log_bytes()));
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
