//! A bound on how many rows a stream takes in per second.

use std::time::Duration;

use tokio::time::Instant;

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
        if rows == 0 {
            return;
        }
        let now = Instant::now();
        // What was not used while there were no rows is not made up for.
        let begin = self.next.unwrap_or(now).max(now);
        tokio::time::sleep_until(begin).await;
        self.next = Some(begin + Duration::from_secs_f64(rows as f64 / self.rows_per_second));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rows_pass_at_their_rate_and_pauses_are_not_made_up_for() {
        let (mut limit, begun) = (RateLimit::new(100.0), Instant::now());
        for _ in 0..10 {
            limit.pass(50).await;
        }
        assert_eq!(begun.elapsed().as_millis(), 4_500);
        tokio::time::sleep(Duration::from_secs(60)).await;
        let begun = Instant::now();
        limit.pass(10).await;
        limit.pass(10).await;
        assert_eq!(begun.elapsed().as_millis(), 100);
    }
}
