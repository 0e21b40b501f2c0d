//! A bound on how many rows a stream takes in per second.

use std::time::Duration;

use tokio::time::Instant;

/// The longest that rows wait, however low the rate.
const LONGEST: Duration = Duration::from_secs(365 * 86_400);

/// Lets rows pass at a rate, which holds from the first row on and on average: a block that is larger than what a
/// second brings passes whole and makes the next one wait.
#[derive(Debug)]
pub(super) struct RateLimit {
    rows_per_second: f64,
    /// When the next rows may pass.
    next: Option<Instant>,
}

impl RateLimit {
    pub(super) const fn new(rows_per_second: f64) -> Self {
        Self { rows_per_second, next: None }
    }

    /// Waits until rows may pass, and lets so many of them.
    pub(super) async fn pass(&mut self, rows: usize) {
        if let Some(begin) = self.enter(rows, Instant::now()) {
            tokio::time::sleep_until(begin).await;
        }
    }

    /// When rows that are there `now` may pass: what was not used while there were none is not made up for.
    fn enter(&mut self, rows: usize, now: Instant) -> Option<Instant> {
        if rows == 0 {
            return None;
        }
        let begin = self.next.unwrap_or(now).max(now);
        let seconds = Duration::try_from_secs_f64(rows as f64 / self.rows_per_second);
        self.next = Some(begin + seconds.unwrap_or(LONGEST).min(LONGEST));
        Some(begin)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_pass_at_their_rate_and_pauses_are_not_made_up_for() {
        let (mut limit, begun) = (RateLimit::new(100.0), Instant::now());
        let at = |millis| Some(begun + Duration::from_millis(millis));
        assert_eq!(limit.enter(0, begun), None);
        for block in 0..10 {
            assert_eq!(limit.enter(50, begun), at(500 * block));
        }
        let mut slow = RateLimit::new(1e-300);
        assert_eq!(slow.enter(1, begun), at(0));
        assert_eq!(slow.enter(1, begun), Some(begun + LONGEST));
        let later = begun + Duration::from_secs(60);
        assert_eq!(limit.enter(10, later), at(60_000));
        assert_eq!(limit.enter(10, later), at(60_100));
    }
}
