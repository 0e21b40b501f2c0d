//! A GROUP BY view over a stream that this program appends to, an epoch at a time.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use super::executors::start;
use crate::client::{Client, Server, ask, messages, put, trades};
use crate::progress::Progress;

const STREAM: &str = "CREATE STREAM trades (szcode VARCHAR, price DOUBLE, turnover BIGINT, ts TIMESTAMP(3),
                      WATERMARK FOR ts AS ts) WITH (connector = 'push')";
const VIEW: &str = "totals";
/// The longest time that an epoch may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often it is looked whether it has ended. The server measures it: looking seldom makes it no less exact.
const LOOK: Duration = Duration::from_millis(5);
/// Epochs before those that are measured.
const WARM_UP: usize = 20;

/// What is appended at a time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Push {
    pub(super) rows: usize,
    /// Pushes in a second of event time.
    pub(super) per_second: u64,
}

/// A server with the view.
pub(super) struct Pushed {
    pub(super) client: Client,
    push: Push,
    pushes: u64,
    /// Epochs that were waited for.
    epochs: u64,
    _server: Server,
}

impl Pushed {
    /// Starts a server with so many executors and its view over windows of such a range, which do not overlap.
    pub(super) async fn start(executors: usize, arguments: &[&str], range: &str, push: Push) -> anyhow::Result<Self> {
        let (server, mut client) = start(executors, arguments).await?;
        ask(&mut client, STREAM).await?;
        let view = format!(
            "CREATE MATERIALIZED VIEW {VIEW} AS SELECT window_end, szcode, SUM(turnover) AS turnover, COUNT(*) AS n
             FROM trades [Range {range}, Slide {range}] GROUP BY window_end, szcode"
        );
        ask(&mut client, &view).await?;
        let mut pushed = Self { client, push, pushes: 0, epochs: 0, _server: server };
        for _ in 0..WARM_UP {
            pushed.epoch_ms().await?;
        }
        Ok(pushed)
    }

    /// Appends rows; how long the epoch took that they came with, in milliseconds.
    pub(super) async fn epoch_ms(&mut self) -> anyhow::Result<f64> {
        let Push { rows, per_second } = self.push;
        let batch = trades(self.pushes * rows as u64, rows, rows as u64 * per_second)?;
        put(&mut self.client, messages(&[batch], None)?).await?;
        self.pushes += 1;
        let begun = Instant::now();
        loop {
            let progress = Progress::of(&mut self.client, VIEW).await?.context("the query has ended")?;
            if progress.epochs > self.epochs && progress.rows_read >= self.pushes * rows as u64 {
                self.epochs = progress.epochs;
                return progress.epoch_ms.context("an epoch without its time");
            }
            ensure!(begun.elapsed() < DEADLINE, "no epoch after {DEADLINE:?}: {progress:?}");
            tokio::time::sleep(LOOK).await;
        }
    }
}
