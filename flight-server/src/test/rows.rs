//! Rows that a test writes down, as columns of declared types, and rows that a query gives, as cells to compare.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef};
use datafusion::arrow::compute::kernels::cmp::distinct;
use datafusion::arrow::compute::{CastOptions, cast_with_options, concat_batches};
use datafusion::arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::arrow::error::ArrowError;
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::SessionContext;
use millstream_sql::{Session as Language, sql_name};

/// A value as it is shown, and as a number where two may differ in their last bits.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) number: Option<f64>,
}

/// A row of a result.
pub(super) type Row = Vec<Cell>;

/// Runs a plan over no relation.
///
/// # Errors
/// Fails as an expression of it does.
pub(super) async fn evaluated(language: &Language, plan: LogicalPlan) -> Result<RecordBatch, millstream_engine::Error> {
    let ctx = SessionContext::new_with_state(language.state().as_ref().clone());
    let schema = Arc::clone(plan.schema().inner());
    let batches = ctx.execute_logical_plan(plan).await?.collect().await?;
    Ok(concat_batches(&schema, &batches)?)
}

/// The values of a column as the type of `field`; whole numbers are milliseconds where it is a time.
///
/// # Errors
/// Says which value does not fit.
pub(super) fn typed(values: &ArrayRef, field: &Field) -> Result<ArrayRef, String> {
    let refused = |error: ArrowError| {
        let kind = sql_name(field.data_type());
        format!("column \"{}\" is {kind}: {error}", field.name())
    };
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let cast = |array: &ArrayRef, kind: &DataType| cast_with_options(array, kind, &options).map_err(refused);
    let values = match field.data_type() {
        DataType::Timestamp(_, zone) if values.data_type().is_integer() => {
            let millis = cast(values, &DataType::Int64)?;
            &cast(&millis, &DataType::Timestamp(TimeUnit::Millisecond, zone.clone()))?
        }
        _ => values,
    };
    let typed = cast(values, field.data_type())?;
    if is_rounded(values.data_type(), field.data_type()) {
        let back = cast(&typed, values.data_type())?;
        let differ = distinct(values, &back).map_err(refused)?;
        if let Some(row) = (0..differ.len()).find(|row| differ.value(*row)) {
            let value = shown(values, row).map_err(refused)?;
            return Err(format!(
                "column \"{}\" is {}: {value} does not fit",
                field.name(),
                sql_name(field.data_type())
            ));
        }
    }
    Ok(typed)
}

/// Whether a conversion would round numbers in silence.
fn is_rounded(from: &DataType, to: &DataType) -> bool {
    let is_exact = |kind: &DataType| kind.is_integer() || kind.is_decimal();
    (from.is_floating() || from.is_decimal()) && is_exact(to)
}

fn shown(values: &ArrayRef, row: usize) -> Result<String, ArrowError> {
    let options = FormatOptions::default();
    Ok(ArrayFormatter::try_new(values.as_ref(), &options)?.value(row).to_string())
}

/// The rows of a result.
///
/// # Errors
/// Fails for a type that cannot be shown.
pub(super) fn rows_of(batches: &[RecordBatch]) -> Result<Vec<Row>, millstream_engine::Error> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in batches {
        let columns = batch.columns();
        let formatters = columns.iter().map(|column| ArrayFormatter::try_new(column.as_ref(), &options));
        let formatters = formatters.collect::<Result<Vec<_>, _>>()?;
        for row in 0..batch.num_rows() {
            let cells = columns.iter().zip(&formatters).map(|(column, formatter)| {
                let text = formatter.value(row).to_string();
                let number = column.data_type().is_floating().then(|| text.parse().ok()).flatten();
                Cell { text, number }
            });
            rows.push(cells.collect());
        }
    }
    Ok(rows)
}
