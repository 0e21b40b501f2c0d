//! The sink that keeps the results of a materialized view, which queries read while they grow.
//!
//! The rows are in memory, and where there is a state directory in an SQLite file of it too: with the ledger, so that
//! they go on with the query after a crash.

mod contents;
mod file;
mod groups;

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::datasource::MemTable;
use millstream_engine::batch::Epoch;
use millstream_engine::results::{MaterializedRows, Results};
use millstream_engine::sink::{Guarantee, Sink, SinkWriter};
use millstream_engine::time::{EventTime, Span};
use millstream_engine::{Error, Result};

use super::staged::Staged;
use super::{blocking, when_there_is_room};
use contents::Contents;
use file::ViewFile;

/// Rows of one instant, or of none where the query has no windows.
#[derive(Debug, Clone)]
struct Part {
    instant: Option<EventTime>,
    rows: RecordBatch,
}

/// The rows that a materialized view keeps, as its readers see them.
#[derive(Debug)]
struct ViewRows {
    schema: SchemaRef,
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    contents: Contents,
    /// Its rows in a table; none after a change.
    table: Option<Arc<MemTable>>,
}

/// Keeps the results of a query over streams.
#[derive(Debug)]
pub struct ViewSink {
    name: String,
    rows: Arc<ViewRows>,
    staged: Staged<Part>,
    /// None where nothing outlives the process.
    file: Option<Arc<Mutex<ViewFile>>>,
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
        if let Some(file) = &mut file {
            file.read(|part| contents.add(&part))?;
        }
        let file = file.map(|file| Arc::new(Mutex::new(file)));
        let kept = Mutex::new(Kept { contents, table: None });
        let rows = Arc::new(ViewRows { schema, kept });
        Ok(Self { name: name.to_owned(), rows, staged: Staged::default(), file })
    }

    /// The rows, for queries that read the view.
    pub fn rows(&self) -> Arc<dyn MaterializedRows> {
        Arc::clone(&self.rows) as Arc<dyn MaterializedRows>
    }

    fn stage_part(&mut self, epoch: Epoch, instant: Option<EventTime>, rows: &[RecordBatch]) {
        let parts = rows.iter().filter(|rows| rows.num_rows() > 0).cloned().map(|rows| Part { instant, rows });
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
            self.rows.change(|contents| {
                contents.clear();
                Ok(())
            })?;
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

    async fn commit(&mut self, epoch: Epoch) -> Result<()> {
        let Some(parts) = self.staged.take(epoch) else { return Ok(()) };
        let Some(file) = self.file.clone() else { return self.rows.add(&parts).map(drop) };
        let rows = Arc::clone(&self.rows);
        // What is on the disk may be read, and never the other way round.
        blocking(move || {
            let mut file = locked(&file);
            if file.has(epoch) {
                return Ok(());
            }
            when_there_is_room(|| file.write(epoch, &parts))?;
            let counting = rows.add(&parts)?;
            when_there_is_room(|| file.keep_to(&counting))
        })
        .await
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
    /// Takes in the parts of a commit, which readers see all at once.
    fn add(&self, parts: &[Part]) -> Result<StillCounts> {
        self.change(|contents| {
            for part in parts {
                contents.add(part)?;
            }
            contents.tidy()
        })
    }

    fn change<T>(&self, change: impl FnOnce(&mut Contents) -> Result<T>) -> Result<T> {
        let mut kept = self.kept();
        kept.table = None;
        change(&mut kept.contents)
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

    fn snapshot(&self) -> Result<Arc<dyn TableProvider>> {
        let mut kept = self.kept();
        if let Some(table) = &kept.table {
            return Ok(Arc::clone(table) as Arc<dyn TableProvider>);
        }
        let batches = kept.contents.batches()?;
        let table = Arc::new(MemTable::try_new(Arc::clone(&self.schema), vec![batches])?);
        kept.table = Some(Arc::clone(&table));
        Ok(table)
    }
}

#[cfg(test)]
mod tests;
