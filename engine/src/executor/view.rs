//! The results of a view as rows of the stage above it.

use datafusion::arrow::array::Int64Array;
use datafusion::arrow::compute::{SortColumn, lexsort_to_indices};
use datafusion::arrow::datatypes::SchemaRef;

use crate::arrays::{concat_rows, take_rows};
use crate::error::Result;
use crate::executor::stage::Emitted;
use crate::ingest::Block;
use crate::source::{Offset, PartitionId};
use crate::time::Span;

/// The results of a view at an instant as a block of the stage above: in one order, whatever order they came in.
///
/// Their event time is the last one that the instant's windows hold: the instant itself where windows are by row.
pub(super) fn view_block(emission: Emitted, schema: &SchemaRef, first: u64, by_row: bool) -> Result<Option<Block>> {
    let rows = concat_rows(schema, &emission.rows)?;
    let (Some(instant), 1..) = (emission.instant, rows.num_rows()) else { return Ok(None) };
    let columns: Vec<_> = rows
        .columns()
        .iter()
        .filter(|column| !column.data_type().is_nested())
        .map(|column| SortColumn { values: std::sync::Arc::clone(column), options: None })
        .collect();
    let rows = if columns.is_empty() { rows } else { take_rows(&rows, &lexsort_to_indices(&columns, None)?)? };
    let time = if by_row { instant } else { instant.minus(Span(1)) };
    Ok(Some(Block {
        partition: PartitionId(0),
        offsets: Offset(first)..Offset(first + rows.num_rows() as u64),
        times: Int64Array::from_value(time.0, rows.num_rows()),
        rows,
        earliest: time,
        latest: time,
        behind: Vec::new(),
        numbers: None,
    }))
}
