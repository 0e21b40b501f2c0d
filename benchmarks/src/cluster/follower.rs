//! A client that follows a view and notes when windows come.

use std::time::Duration;

use anyhow::{Context, bail};
use datafusion::arrow::array::AsArray;
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, TimeUnit, TimestampNanosecondType};
use datafusion::arrow::record_batch::RecordBatch;
use futures::StreamExt;
use millstream_engine::time::{Clock, EventTime, SystemClock};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::arrivals::Arrivals;
use super::generated::VIEW;
use crate::client::{Client, begin};

/// The pause before the view is followed again.
const PAUSE: Duration = Duration::from_millis(10);

/// A client that follows the view until it is dropped.
#[derive(Debug)]
pub(super) struct Follower {
    arrivals: watch::Receiver<Arrivals>,
    _following: JoinSet<()>,
}

impl Follower {
    pub(super) fn start(client: Client) -> Self {
        let (sender, arrivals) = watch::channel(Arrivals::default());
        let mut following = JoinSet::new();
        following.spawn(follow(client, sender));
        Self { arrivals, _following: following }
    }

    /// Windows that have come.
    pub(super) fn count(&self) -> usize {
        self.arrivals.borrow().count()
    }

    /// Waits, for some time at the most, until what has come is enough; what that is.
    pub(super) async fn until(
        &mut self,
        limit: Duration,
        is_enough: impl FnMut(&Arrivals) -> bool,
    ) -> anyhow::Result<Arrivals> {
        let waited = tokio::time::timeout(limit, self.arrivals.wait_for(is_enough)).await;
        let Ok(arrivals) = waited.map(|arrivals| arrivals.map(|arrivals| Arrivals::clone(&arrivals))) else {
            let Arrivals { trouble, .. } = self.arrivals.borrow().clone();
            let trouble = trouble.unwrap_or_else(|| "it is still followed".to_owned());
            bail!("windows of {VIEW} did not come in {limit:?}: {trouble}");
        };
        arrivals.context("nobody follows the view")
    }
}

/// Follows the view, and again when that ends, as it may for a query that is begun anew.
async fn follow(mut client: Client, arrivals: watch::Sender<Arrivals>) {
    loop {
        let trouble = match follow_once(&mut client, &arrivals).await {
            Ok(()) => "its rows have ended".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        arrivals.send_modify(|arrivals| arrivals.trouble = Some(trouble));
        tokio::time::sleep(PAUSE).await;
    }
}

/// Notes windows until there are no more rows.
async fn follow_once(client: &mut Client, arrivals: &watch::Sender<Arrivals>) -> anyhow::Result<()> {
    let mut rows = begin(client, &format!("SUBSCRIBE {VIEW}")).await?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let (at, ends) = (SystemClock.now(), window_ends(&batch)?);
        arrivals.send_modify(|arrivals| ends.into_iter().for_each(|end| arrivals.note(end, at)));
    }
    Ok(())
}

/// The end of the window of each row, none twice in a row.
fn window_ends(batch: &RecordBatch) -> anyhow::Result<Vec<EventTime>> {
    let column = batch.column_by_name("window_end").context("no window_end")?;
    let ends = cast(column, &DataType::Timestamp(TimeUnit::Nanosecond, None))?;
    let mut ends = ends.as_primitive::<TimestampNanosecondType>().values().to_vec();
    ends.dedup();
    Ok(ends.into_iter().map(EventTime).collect())
}
