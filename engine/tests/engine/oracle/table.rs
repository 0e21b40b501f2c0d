//! Results as plain cells, compared as multisets.

use std::collections::BTreeMap;

use datafusion::arrow::array::{Array, AsArray};
use datafusion::arrow::compute::cast;
use datafusion::arrow::datatypes::{DataType, Decimal128Type, Float64Type, Int64Type};
use datafusion::arrow::record_batch::RecordBatch;
use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};

/// A value of a result.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Null,
    /// Integers and times as their number, decimals as their unscaled number, all else as text.
    Exact(String),
    /// A double and how far another may be from it to be the same.
    Double(f64, f64),
}

/// One row of a result.
pub(crate) type Cells = Vec<Cell>;

impl Cell {
    /// An exact value.
    pub(crate) fn exact(value: impl ToString) -> Self {
        Self::Exact(value.to_string())
    }

    /// An exact value, or null.
    pub(crate) fn maybe(value: Option<impl ToString>) -> Self {
        value.map_or(Self::Null, Self::exact)
    }

    fn text(&self) -> String {
        match self {
            Self::Null => "null".to_owned(),
            Self::Exact(text) => text.clone(),
            Self::Double(value, _) => format!("~{value}"),
        }
    }

    /// What sorting and matching go by: doubles only take part as such.
    fn key(&self) -> Option<&str> {
        match self {
            Self::Null => None,
            Self::Exact(text) => Some(text),
            Self::Double(..) => Some("a double"),
        }
    }
}

/// The rows of `batches`; their doubles may be `slack` apart from others.
pub(crate) fn cells_of(batches: &[RecordBatch], slack: f64) -> Vec<Cells> {
    let mut rows = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch.columns().iter().map(|column| column_cells(column.as_ref(), slack)).collect();
        rows.extend((0..batch.num_rows()).map(|row| columns.iter().map(|column| column[row].clone()).collect()));
    }
    rows
}

fn column_cells(column: &dyn Array, slack: f64) -> Cells {
    let rows = 0..column.len();
    let kind = column.data_type();
    let cell: Box<dyn Fn(usize) -> Cell> = match kind {
        DataType::Float64 => {
            let values = column.as_primitive::<Float64Type>().clone();
            Box::new(move |row| Cell::Double(values.value(row), slack))
        }
        DataType::Decimal128(..) => {
            let values = column.as_primitive::<Decimal128Type>().clone();
            Box::new(move |row| Cell::exact(values.value(row)))
        }
        DataType::Timestamp(..) => {
            let numbers = cast(column, &DataType::Int64).unwrap();
            Box::new(move |row| Cell::exact(numbers.as_primitive::<Int64Type>().value(row)))
        }
        _ => {
            let options = FormatOptions::default().with_null("null");
            let text = ArrayFormatter::try_new(column, &options).unwrap();
            return rows
                .map(|row| if column.is_null(row) { Cell::Null } else { Cell::exact(text.value(row)) })
                .collect();
        }
    };
    rows.map(|row| if column.is_null(row) { Cell::Null } else { cell(row) }).collect()
}

/// The names and types of the columns, of results that have rows.
pub(crate) fn columns_of(batches: &[RecordBatch]) -> Option<Vec<(String, DataType)>> {
    let schema = batches.first()?.schema();
    Some(schema.fields().iter().map(|field| (field.name().clone(), field.data_type().clone())).collect())
}

/// Says what differs between two multisets of rows.
pub(crate) fn difference(actual: &[Cells], expected: &[Cells]) -> Result<(), String> {
    let mut counts = BTreeMap::<Vec<Option<&str>>, (usize, usize)>::new();
    for row in actual {
        counts.entry(row.iter().map(Cell::key).collect()).or_default().0 += 1;
    }
    for row in expected {
        counts.entry(row.iter().map(Cell::key).collect()).or_default().1 += 1;
    }
    let wrong: Vec<_> = counts.iter().filter(|(_, (actual, expected))| actual != expected).take(6).collect();
    if !wrong.is_empty() {
        let lines: Vec<_> = wrong
            .iter()
            .map(|(row, (actual, expected))| {
                let row: Vec<_> = row.iter().map(|cell| cell.unwrap_or("null")).collect();
                format!("  {actual} times, not {expected}: {}", row.join(" | "))
            })
            .collect();
        return Err(format!("{} rows, {} expected\n{}", actual.len(), expected.len(), lines.join("\n")));
    }
    let (actual, expected) = (sorted(actual), sorted(expected));
    match actual.iter().zip(&expected).find(|(actual, expected)| !are_near(actual, expected)) {
        Some((actual, expected)) => Err(format!("  {}\n  is not\n  {}", line(actual), line(expected))),
        None => Ok(()),
    }
}

fn sorted(rows: &[Cells]) -> Vec<&Cells> {
    let mut rows: Vec<_> = rows.iter().collect();
    let doubles = |row: &Cells| -> Vec<f64> {
        row.iter().filter_map(|cell| if let Cell::Double(value, _) = cell { Some(*value) } else { None }).collect()
    };
    rows.sort_by(|a, b| {
        let exact = a.iter().map(Cell::key).cmp(b.iter().map(Cell::key));
        exact.then_with(|| doubles(a).partial_cmp(&doubles(b)).unwrap_or(std::cmp::Ordering::Equal))
    });
    rows
}

fn are_near(actual: &Cells, expected: &Cells) -> bool {
    actual.iter().zip(expected).all(|(actual, expected)| match (actual, expected) {
        (Cell::Double(actual, _), Cell::Double(expected, slack)) => {
            (actual - expected).abs() <= *slack || actual == expected || (actual.is_nan() && expected.is_nan())
        }
        _ => true,
    })
}

/// A row as text.
pub(crate) fn line(row: &Cells) -> String {
    row.iter().map(Cell::text).collect::<Vec<_>>().join(" | ")
}
