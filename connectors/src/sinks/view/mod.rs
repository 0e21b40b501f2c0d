//! The sink that keeps the results of a materialized view, which queries read while they grow.
//!
//! The rows are in memory, and where there is a state directory in an SQLite file of it too: with the ledger, so that
//! they go on with the query after a crash.

mod contents;
mod file;
mod groups;
mod recent;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use millstream_engine::batch::Epoch;
use millstream_engine::results::{Changes, MaterializedRows, Results};
use millstream_engine::sink::{Guarantee, Sink, SinkWriter};
use millstream_engine::time::{EventTime, Span};
use millstream_engine::{Error, Result};

use tokio::sync::watch;

use super::staged::Staged;
use super::{blocking, when_there_is_room};
use contents::Contents;
use file::ViewFile;
use recent::Recent;

/// Rows of one instant, or of none where the query has no windows, and the epoch that brought them.
#[derive(Debug, Clone)]
struct Part {
    epoch: Epoch,
    instant: Option<EventTime>,
    rows: RecordBatch,
}

/// The rows that a materialized view keeps, as its readers see them.
#[derive(Debug)]
struct ViewRows {
    schema: SchemaRef,
    kept: Mutex<Kept>,
    /// Whether a row takes the place of an earlier one.
    has_groups: bool,
    commits: watch::Receiver<Option<Epoch>>,
}

#[derive(Debug)]
struct Kept {
    contents: Contents,
    recent: Recent,
    /// All results up to here are there.
    closed_to: EventTime,
    /// Its rows in a table; none after a change.
    table: Option<Arc<MemTable>>,
}

/// Keeps the results of a query over streams.
#[derive(Debug)]
pub struct ViewSink {
    name: String,
    rows: Arc<ViewRows>,
    staged: Staged<Part>,
    /// What was committed, for readers once that is on record.
    committed: Vec<Part>,
    /// What still counts of the parts in the file.
    counting: StillCounts,
    /// None where nothing outlives the process.
    file: Option<Arc<Mutex<ViewFile>>>,
    /// Tells those who follow the view; they are at its end when the sink is gone.
    commits: watch::Sender<Option<Epoch>>,
}

impl ViewSink {
    /// A sink for the results of the query of the view `name`, which are of that kind and have those columns.
    ///
    /// With `retain` the results of an instant are dropped once there are rows of one that is more than so much later.
    /// With a `file` its rows are read from there first.
    ///
    /// # Errors
    /// Fails if the results are no relation that can be kept, or the file cannot be read.
    pub fn open(
        name: &str,
        results: &Results,
        schema: SchemaRef,
        retain: Option<Span>,
        file: Option<PathBuf>,
    ) -> Result<Self> {
        check(name, results, retain)?;
        let mut contents = Contents::new(results, retain, &schema)?;
        let mut file = file.map(|path| ViewFile::new(path, Arc::clone(&schema)));
        let (mut counting, mut recent) = (StillCounts::All, Recent::default());
        if let Some(file) = &mut file {
            file.read(|part| {
                let is_taken = contents.takes(&part);
                if is_taken {
                    if let (None, Some(_)) = (recent.last, retain) {
                        // What came before is kept no longer, perhaps with some of what came with it.
                        recent.forget_to(part.epoch);
                    }
                    contents.add(&part)?;
                    recent.push(part.epoch, &part.rows);
                }
                Ok(is_taken)
            })?;
            // A crash may have come before what is kept no longer was dropped.
            counting = contents.tidy()?;
        }
        let file = file.map(|file| Arc::new(Mutex::new(file)));
        let (commits, followed) = watch::channel(recent.last);
        let kept = Mutex::new(Kept { contents, recent, closed_to: EventTime(i64::MIN), table: None });
        let has_groups = matches!(results, Results::Groups(_));
        let rows = Arc::new(ViewRows { schema, kept, has_groups, commits: followed });
        Ok(Self {
            name: name.to_owned(),
            rows,
            staged: Staged::default(),
            committed: Vec::new(),
            counting,
            file,
            commits,
        })
    }

    /// The rows, for queries that read the view.
    pub fn rows(&self) -> Arc<dyn MaterializedRows> {
        Arc::clone(&self.rows) as Arc<dyn MaterializedRows>
    }

    fn stage_part(&mut self, epoch: Epoch, instant: Option<EventTime>, rows: &[RecordBatch]) {
        let parts = rows.iter().filter(|rows| rows.num_rows() > 0).cloned().map(|rows| Part { epoch, instant, rows });
        self.staged.add(epoch, &parts.collect::<Vec<_>>());
    }
}

/// Refuses results that are no relation that can be kept.
fn check(name: &str, results: &Results, retain: Option<Span>) -> Result<()> {
    match results {
        Results::ChangingGroups => {
            let message = format!("the materialized view \"{name}\" cannot tell which rows take the place of others");
            let hint = "select every column of the GROUP BY, and put HAVING into the query that reads the view";
            Err(Error::query(message, hint))
        }
        Results::Once => {
            let message = format!("the materialized view \"{name}\" reads no stream");
            Err(Error::query(message, "write CREATE VIEW: it is computed when it is read"))
        }
        Results::Rows | Results::Groups(_) if retain.is_some() => {
            let message = format!("RETAIN of the view \"{name}\", whose rows belong to no window");
            Err(Error::query(message, "leave RETAIN out, or give its streams windows"))
        }
        Results::Instants | Results::Rows | Results::Groups(_) => Ok(()),
    }
}

#[async_trait]
impl Sink for ViewSink {
    fn guarantee(&self) -> Guarantee {
        // What is in memory alone does not outlive the query.
        Guarantee::ExactlyOnce
    }

    async fn begin(&mut self, writer: &SinkWriter) -> Result<Option<Epoch>> {
        self.staged = Staged::default();
        let Some(file) = self.file.clone() else { return Ok(None) };
        let writer = writer.clone();
        let begun = blocking(move || when_there_is_room(|| locked(&file).begin(&writer))).await?;
        if begun.is_emptied {
            tracing::info!(view = self.name, "dropped the rows of another query of that name");
            self.rows.clear();
        }
        Ok(begun.last)
    }

    async fn stage(&mut self, epoch: Epoch, rows: &[RecordBatch]) -> Result<()> {
        self.stage_part(epoch, None, rows);
        Ok(())
    }

    async fn stage_instant(&mut self, epoch: Epoch, instant: EventTime, rows: &[RecordBatch]) -> Result<()> {
        self.stage_part(epoch, Some(instant), rows);
        Ok(())
    }

    fn publish(&mut self, instant: EventTime) -> Result<()> {
        let parts = std::mem::take(&mut self.committed);
        if let Some(counting) = self.rows.add(&parts, instant)? {
            self.counting = counting;
            self.commits.send_replace(self.rows.kept().recent.last);
        }
        Ok(())
    }

    async fn commit(&mut self, epoch: Epoch) -> Result<()> {
        let Some(parts) = self.staged.take(epoch) else { return Ok(()) };
        let Some(file) = self.file.clone() else {
            self.committed = parts;
            return Ok(());
        };
        let counting = std::mem::replace(&mut self.counting, StillCounts::All);
        let written = blocking(move || {
            let mut file = locked(&file);
            if file.has(epoch) {
                // They were read with the file.
                return Ok(Vec::new());
            }
            when_there_is_room(|| file.write(epoch, &parts, &counting))?;
            Ok(parts)
        });
        self.committed = written.await?;
        Ok(())
    }
}

fn locked(file: &Mutex<ViewFile>) -> MutexGuard<'_, ViewFile> {
    // The file is whole after every step: a transaction that was broken off is none.
    file.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What of the parts written so far still counts.
#[derive(Debug)]
enum StillCounts {
    All,
    /// Those of this instant and of later ones.
    Since(EventTime),
    /// None: these are the rows.
    Only(Vec<RecordBatch>),
}

impl ViewRows {
    /// Takes in the parts of a commit, which readers see all at once, with all results up to the instant; what still
    /// counts of the parts so far, if there were any.
    fn add(&self, parts: &[Part], closed_to: EventTime) -> Result<Option<StillCounts>> {
        if parts.is_empty() {
            self.kept().closed_to = closed_to;
            return Ok(None);
        }
        let mut kept = self.kept();
        (kept.table, kept.closed_to) = (None, closed_to);
        for part in parts {
            kept.contents.add(part)?;
            kept.recent.push(part.epoch, &part.rows);
        }
        kept.contents.tidy().map(Some)
    }

    /// Drops everything.
    fn clear(&self) {
        let mut kept = self.kept();
        kept.table = None;
        kept.contents.clear();
        kept.recent = Recent::default();
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        // A reader changes nothing, and a writer that failed ends the query.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MaterializedRows for ViewRows {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn closed_to(&self) -> Option<EventTime> {
        let kept = self.kept();
        kept.contents.has_instants().then_some(kept.closed_to)
    }

    fn snapshot(&self, up_to: Option<EventTime>) -> Result<Arc<dyn TableProvider>> {
        let mut kept = self.kept();
        let up_to = up_to.unwrap_or(EventTime(i64::MAX));
        let is_whole = !kept.contents.goes_beyond(up_to);
        if let (Some(table), true) = (&kept.table, is_whole) {
            return Ok(Arc::clone(table) as Arc<dyn TableProvider>);
        }
        let batches = kept.contents.batches(up_to)?;
        let table = Arc::new(MemTable::try_new(Arc::clone(&self.schema), vec![batches])?);
        if is_whole {
            kept.table = Some(Arc::clone(&table));
        }
        Ok(table)
    }

    fn since(&self, after: Option<Epoch>) -> Result<Option<Changes>> {
        let mut kept = self.kept();
        let Some(epoch) = kept.recent.last.filter(|last| after < Some(*last)) else { return Ok(None) };
        let changed = after.map(|after| kept.recent.after(after));
        let rows = match changed {
            Some(Some(rows)) => rows,
            Some(None) if !self.has_groups => {
                let message = "rows after that epoch are no longer known";
                return Err(Error::query(message, "subscribe without an epoch: the rows that are kept come first"));
            }
            Some(None) | None => kept.contents.batches(EventTime(i64::MAX))?,
        };
        Ok(Some(Changes { epoch, rows }))
    }

    fn commits(&self) -> watch::Receiver<Option<Epoch>> {
        self.commits.clone()
    }
}

#[cfg(test)]
mod tests;
