//! What a materialized view holds: a fold over the parts that were committed.

use std::collections::BTreeMap;

use datafusion::arrow::compute::BatchCoalescer;
use datafusion::arrow::datatypes::SchemaRef;
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::results::Results;
use millstream_engine::time::{EventTime, Span};
use millstream_engine::{Error, Result};

use super::groups::Groups;
use super::{Part, StillCounts};

/// Rows of a batch that readers get.
const BATCH_ROWS: usize = 8192;

/// The rows of a view.
#[derive(Debug)]
pub(super) struct Contents {
    schema: SchemaRef,
    layout: Layout,
}

#[derive(Debug)]
enum Layout {
    /// The results of each instant, and how long before the last one they are kept.
    Instants(BTreeMap<EventTime, Vec<RecordBatch>>, Option<Span>),
    /// Every row that has passed.
    Rows(Vec<RecordBatch>),
    /// The last row of each group.
    Groups(Groups),
}

impl Contents {
    /// Nothing yet, of results of that kind.
    ///
    /// # Errors
    /// Fails for results that cannot be kept.
    pub(super) fn new(results: &Results, retain: Option<Span>, schema: &SchemaRef) -> Result<Self> {
        let layout = match results {
            Results::Instants => Layout::Instants(BTreeMap::new(), retain),
            Results::Rows => Layout::Rows(Vec::new()),
            Results::Groups(key) => Layout::Groups(Groups::new(schema, key)?),
            Results::ChangingGroups | Results::Once => {
                return Err(Error::internal(format!("a view keeps results of the kind {results:?}")));
            }
        };
        Ok(Self { schema: SchemaRef::clone(schema), layout })
    }

    /// Whether a part has rows of this kind of results.
    pub(super) const fn takes(&self, part: &Part) -> bool {
        match &self.layout {
            Layout::Instants(..) => part.instant.is_some(),
            Layout::Rows(_) => true,
            Layout::Groups(_) => part.instant.is_none(),
        }
    }

    /// Takes a part in.
    ///
    /// # Errors
    /// Fails if its rows are not those of the kind of results.
    pub(super) fn add(&mut self, part: &Part) -> Result<()> {
        match (&mut self.layout, part.instant) {
            (Layout::Instants(instants, _), Some(instant)) => {
                instants.entry(instant).or_default().push(part.rows.clone());
            }
            (Layout::Rows(rows), _) => rows.push(part.rows.clone()),
            (Layout::Groups(groups), None) => groups.add(&part.rows)?,
            _ => {
                return Err(Error::internal(
                    "a view got rows of an instant from a query without windows, or the other",
                ));
            }
        }
        Ok(())
    }

    /// Drops what is kept no longer; says what still counts of the parts so far.
    ///
    /// # Errors
    /// Fails if memory holds no batch of the groups.
    pub(super) fn tidy(&mut self) -> Result<StillCounts> {
        Ok(match &mut self.layout {
            Layout::Instants(instants, Some(retain)) => {
                let Some((last, _)) = instants.last_key_value() else { return Ok(StillCounts::All) };
                let oldest = EventTime(last.0.saturating_sub(retain.0));
                *instants = instants.split_off(&oldest);
                StillCounts::Since(oldest)
            }
            Layout::Groups(groups) if groups.is_wasteful() => {
                groups.compact()?;
                StillCounts::Only(groups.batches())
            }
            Layout::Instants(_, None) | Layout::Rows(_) | Layout::Groups(_) => StillCounts::All,
        })
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        match &mut self.layout {
            Layout::Instants(instants, _) => instants.clear(),
            Layout::Rows(rows) => rows.clear(),
            Layout::Groups(groups) => groups.clear(),
        }
    }

    /// Whether its rows belong to instants.
    pub(super) const fn has_instants(&self) -> bool {
        matches!(self.layout, Layout::Instants(..))
    }

    /// Whether there are rows of instants after this one.
    pub(super) fn goes_beyond(&self, instant: EventTime) -> bool {
        matches!(&self.layout, Layout::Instants(instants, _) if instants.last_key_value().is_some_and(|(last, _)| *last > instant))
    }

    /// The rows, in the order of their instants up to this one, in batches of a size that is good to work with.
    ///
    /// # Errors
    /// Fails only if memory holds no batch of them.
    pub(super) fn batches(&mut self, up_to: EventTime) -> Result<Vec<RecordBatch>> {
        match &mut self.layout {
            Layout::Instants(instants, _) => {
                coalesced(&self.schema, instants.range(..=up_to).flat_map(|(_, rows)| rows))
            }
            Layout::Rows(rows) => {
                *rows = coalesced(&self.schema, rows.iter())?;
                Ok(rows.clone())
            }
            Layout::Groups(groups) => {
                groups.compact()?;
                Ok(groups.batches())
            }
        }
    }
}

fn coalesced<'a>(schema: &SchemaRef, rows: impl Iterator<Item = &'a RecordBatch>) -> Result<Vec<RecordBatch>> {
    let mut coalescer = BatchCoalescer::new(SchemaRef::clone(schema), BATCH_ROWS);
    for batch in rows {
        coalescer.push_batch(batch.clone())?;
    }
    coalescer.finish_buffered_batch()?;
    Ok(std::iter::from_fn(|| coalescer.next_completed_batch()).collect())
}
