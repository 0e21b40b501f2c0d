//! A GROUP BY over generated trades, and a materialized view of it.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::executors::start;
use crate::client::{ask, ask_number};
use crate::progress::Progress;

/// The name of the view and of its query.
pub(super) const VIEW: &str = "sums";
/// The longest time that a view has to be whole.
const DEADLINE: Duration = Duration::from_secs(600);
/// How often it is looked whether it is.
const LOOK: Duration = Duration::from_millis(5);

/// The windows of a query.
#[derive(Debug, Clone, Copy)]
pub(super) struct Windows {
    /// As they stand behind the stream.
    pub(super) sql: &'static str,
    /// How many of them each row is in.
    pub(super) of_a_row: u64,
}

/// Windows with which panes are merged.
pub(super) const SLIDING: Windows = Windows { sql: "Range 60 seconds, Slide 10 seconds", of_a_row: 6 };
/// Windows that come one by one.
pub(super) const TUMBLING: Windows = Windows { sql: "Range 1 second, Slide 1 second", of_a_row: 1 };

/// Trades that are taken as fast as they can be, and what is asked of them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Job {
    pub(super) rows: u64,
    /// Different `szcode`: the groups of a window.
    pub(super) codes: u32,
    /// Rows in a second of event time.
    pub(super) event_rate: u64,
    pub(super) windows: Windows,
}

impl Job {
    /// How long a server of its own with so many executors takes until the view is whole, from the statement on.
    ///
    /// # Errors
    /// Fails if a row is missing in the view.
    pub(super) async fn run(&self, executors: usize) -> anyhow::Result<Duration> {
        let (_server, mut client) = start(executors, &[]).await?;
        let Self { rows, codes, event_rate, windows } = self;
        let options = format!("rows = {rows}, codes = {codes}, event_rate = {event_rate}");
        ask(&mut client, &stream_statement(&options)).await?;
        let begun = Instant::now();
        ask(&mut client, &view_statement(*windows)).await?;
        while Progress::of(&mut client, VIEW).await?.is_some() {
            ensure!(begun.elapsed() < DEADLINE, "the view is not whole after {DEADLINE:?}");
            tokio::time::sleep(LOOK).await;
        }
        let elapsed = begun.elapsed();
        let counted = ask_number(&mut client, &format!("SELECT SUM(n) AS n FROM {VIEW}")).await?.unwrap_or_default();
        let expected = rows * windows.of_a_row;
        ensure!(counted == expected.cast_signed(), "the view has counted {counted} rows, not {expected}");
        Ok(elapsed)
    }
}

/// Declares the stream, with these options besides the kind of rows.
pub(super) fn stream_statement(options: &str) -> String {
    format!(
        "CREATE STREAM trades (
           szcode VARCHAR, userID VARCHAR, eventTime TIMESTAMP(3), Turnover BIGINT, Price DOUBLE,
           WATERMARK FOR eventTime AS eventTime
         ) WITH (connector = 'generate', kind = 'transaction', {options})"
    )
}

/// Begins the query.
pub(super) fn view_statement(windows: Windows) -> String {
    format!("CREATE MATERIALIZED VIEW {VIEW} AS {}", group_by(windows))
}

/// What is asked of the stream.
pub(super) fn group_by(windows: Windows) -> String {
    format!(
        "SELECT window_end, szcode, COUNT(*) AS n, SUM(Turnover) AS turnover
         FROM trades [{}] GROUP BY window_end, szcode",
        windows.sql
    )
}
