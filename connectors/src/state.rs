//! Connector `state`: the state of a query that does not run, as a table.

use std::sync::Arc;

use datafusion::arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::runtime::SpawnedTask;
use datafusion::datasource::MemTable;
use millstream_engine::durable::{KeptState, StatePlace, read_state};
use millstream_engine::plan::StreamDefinition;
use millstream_engine::source::{Decode, Decoded, Offset};
use millstream_engine::{Error, Result};

use crate::format::conform::{ColumnarPiece, find_columns};
use crate::format::rows::RowShape;
use crate::options::Options;
use crate::table::TableRows;

/// Reads the rows that `definition` asks for: those of the newest checkpoint of `query` in the state directory `path`.
///
/// # Errors
/// Fails for options that are unknown or missing, if there is no such checkpoint, and for columns that it lacks.
pub(crate) async fn read(definition: &StreamDefinition) -> Result<TableRows> {
    let mut options = Options::new("state", &definition.options)?;
    let directory: StatePlace = options.required("path", "state")?.parse()?;
    let query = options.required("query", "results")?.to_owned();
    let input = options.string("input").map(str::to_owned);
    options.finish()?;
    let shape = Arc::new(RowShape::new(definition, None)?);
    let place = format!("the state of query {query:?}");
    let read = SpawnedTask::spawn_blocking(move || {
        let kept = chosen(read_state(&directory, &query)?, input.as_deref(), &place)?;
        let mut rows = TableRows { batches: vec![RecordBatch::new_empty(Arc::clone(&shape.schema))], bad: Vec::new() };
        for batch in kept.rows {
            let decoded = conformed(&batch, &shape, &place)?;
            rows.batches.push(decoded.batch);
            rows.bad.extend(decoded.bad);
        }
        Ok(rows)
    });
    read.join().await.map_err(|error| Error::external("reading state", error))?
}

/// The state of a query as its newest checkpoint has it, with the columns that it has there.
///
/// # Errors
/// Fails if there is no such checkpoint, the query has several inputs and none is named, or it holds nothing.
pub fn state_table(directory: &StatePlace, query: &str, input: Option<&str>) -> Result<Arc<dyn TableProvider>> {
    let place = format!("the state of query {query:?}");
    let kept = chosen(read_state(directory, query)?, input, &place)?;
    let Some(first) = kept.rows.first() else {
        return Err(Error::query(format!("{place} has no rows now"), "wait for the next checkpoint"));
    };
    Ok(Arc::new(MemTable::try_new(first.schema(), vec![kept.rows.clone()])?))
}

/// The state of the input that is meant: the only one that there is, or the one that is named.
fn chosen(kept: Vec<KeptState>, input: Option<&str>, place: &str) -> Result<KeptState> {
    let names: Vec<_> = kept.iter().map(|state| format!("'{}'", state.input)).collect();
    let hint = format!("its inputs are {}", names.join(", "));
    let mut meant = kept.into_iter().filter(|state| input.is_none_or(|input| state.input == input));
    match (meant.next(), meant.next()) {
        (Some(only), None) => Ok(only),
        (Some(_), Some(_)) => Err(Error::query(format!("{place} is that of several inputs"), hint)),
        (None, _) => Err(Error::query(format!("{place} has no input {:?}", input.unwrap_or_default()), hint)),
    }
}

fn conformed(batch: &RecordBatch, shape: &Arc<RowShape>, place: &str) -> Result<Decoded> {
    let columns = find_columns(shape, &batch.schema(), place)?;
    let arrays = columns.iter().map(|index| Arc::clone(batch.column(*index))).collect();
    let (shape, rows) = (Arc::clone(shape), batch.num_rows());
    Box::new(ColumnarPiece { shape, arrays, rows, start: Offset(0), place: (place.into(), 0) }).decode()
}
