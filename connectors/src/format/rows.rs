//! Rows under construction: good ones go into columns, bad ones are set aside whole with a reason.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray};
use datafusion::arrow::compute::filter;
use datafusion::arrow::datatypes::{SchemaRef, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::source::{BadRow, Decoded, Offset};
use millstream_engine::{Error, Result};

use super::column::{Column, sql_name};

/// How much of a bad row's text is kept, in bytes.
pub(crate) const MAX_RAW_BYTES: usize = 4 * 1024;
/// How much of a wrong value a message quotes, in characters.
const MAX_QUOTED_CHARS: usize = 80;

/// What the rows of a stream look like.
#[derive(Debug, Clone)]
pub(crate) struct RowShape {
    /// The declared columns.
    pub(crate) schema: SchemaRef,
    /// Their names as declared, for headers, keys and messages.
    pub(crate) declared: Vec<String>,
    /// The event-time column.
    pub(crate) event_time: Option<usize>,
    /// The unit of timestamps that are numbers; without it a number is no timestamp.
    pub(crate) timestamp_unit: Option<TimeUnit>,
}

impl RowShape {
    /// The shape that `definition` declares.
    ///
    /// # Errors
    /// Fails if the definition has not one declared name per column.
    pub(crate) fn new(definition: &StreamDefinition, timestamp_unit: Option<TimeUnit>) -> Result<Self> {
        let (columns, names) = (definition.schema.fields().len(), definition.declared.len());
        if columns != names {
            return Err(Error::internal(format!("{} has {columns} columns and {names} names", definition.name)));
        }
        Ok(Self {
            schema: Arc::clone(&definition.schema),
            declared: definition.declared.clone(),
            event_time: definition.event_time.map(|rule| rule.column),
            timestamp_unit,
        })
    }

    /// The name of a column as declared.
    pub(crate) fn name(&self, column: usize) -> &str {
        self.declared.get(column).map_or("", String::as_str)
    }

    /// Why a null in `column` makes a row unusable, if it does.
    pub(crate) fn refuse_null(&self, column: usize) -> Option<String> {
        if self.event_time == Some(column) {
            return Some("event time is null".to_owned());
        }
        let refuses = self.schema.fields().get(column).is_some_and(|field| !field.is_nullable());
        refuses.then(|| format!("column {:?} is NOT NULL and the value is null", self.name(column)))
    }

    /// Why `text` makes a row unusable as the value of `column`.
    pub(crate) fn refuse_value(&self, column: usize, text: &str) -> String {
        let mut quoted: String = text.chars().take(MAX_QUOTED_CHARS).collect();
        if quoted.len() < text.len() {
            quoted.push('…');
        }
        if self.event_time == Some(column) {
            return format!("event time {quoted:?} is not a timestamp");
        }
        let kind = self.schema.fields().get(column).map(|field| sql_name(field.data_type())).unwrap_or_default();
        let article = if kind.starts_with('I') { "an" } else { "a" };
        format!("{quoted:?} is not {article} {kind}")
    }
}

/// Why a row cannot be used.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The column at fault, where it is a single one.
    pub(crate) column: Option<usize>,
    /// What is wrong, in the user's words.
    pub(crate) reason: String,
}

impl Refusal {
    /// A fault of the row as a whole.
    pub(crate) fn row(reason: impl Into<String>) -> Self {
        Self { column: None, reason: reason.into() }
    }
}

/// Rows under construction.
#[derive(Debug)]
pub(crate) struct RowsBuilder<'a> {
    shape: &'a RowShape,
    columns: Vec<Column>,
    rows: usize,
    /// Rows that stand in the columns but are bad, in order; they are filtered out at the end.
    dropped: Vec<usize>,
    bad: Vec<BadRow>,
}

impl<'a> RowsBuilder<'a> {
    /// An empty builder with room for `capacity` rows.
    pub(crate) fn new(shape: &'a RowShape, capacity: usize) -> Result<Self> {
        let fields = shape.schema.fields().iter();
        let columns = fields.map(|field| Column::new(field.data_type(), shape.timestamp_unit, capacity));
        let columns = columns.collect::<Result<_>>()?;
        Ok(Self { shape, columns, rows: 0, dropped: Vec::new(), bad: Vec::new() })
    }

    /// Appends a row: `append` gives each column its value; after a refusal the row is left out.
    pub(crate) fn append_row(
        &mut self,
        mut append: impl FnMut(usize, &mut Column, &RowShape) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut refusal = None;
        for (index, column) in self.columns.iter_mut().enumerate() {
            if refusal.is_none() {
                refusal = append(index, column, self.shape).err();
            }
            if refusal.is_some() {
                column.append_null();
            }
        }
        self.rows += 1;
        let Some(refusal) = refusal else { return Ok(()) };
        self.dropped.push(self.rows - 1);
        Err(refusal)
    }

    /// Sets a row aside.
    pub(crate) fn refuse(&mut self, refusal: Refusal, offset: Offset, place: String, raw: &[u8]) {
        let column = refusal.column.map(|column| self.shape.name(column).to_owned());
        self.bad.push(BadRow { offset, place, column, raw: cut_raw(raw), reason: refusal.reason });
    }

    /// The good rows as a batch, and the bad ones.
    pub(crate) fn finish(self) -> Result<Decoded> {
        let mut arrays = self.columns.into_iter().map(Column::finish).collect::<Result<Vec<_>>>()?;
        if !self.dropped.is_empty() {
            arrays = drop_rows(&arrays, self.rows, &self.dropped)?;
        }
        let batch = RecordBatch::try_new(Arc::clone(&self.shape.schema), arrays)?;
        Ok(Decoded { batch, bad: self.bad })
    }
}

/// Text for a bad row: invalid UTF-8 replaced, the end cut off.
pub(crate) fn cut_raw(raw: &[u8]) -> String {
    String::from_utf8_lossy(raw.get(..MAX_RAW_BYTES).unwrap_or(raw)).into_owned()
}

/// The arrays without the rows at `dropped`, which are in order.
pub(crate) fn drop_rows(arrays: &[ArrayRef], rows: usize, dropped: &[usize]) -> Result<Vec<ArrayRef>> {
    let mut next = dropped.iter().copied().peekable();
    let kept: Vec<bool> = (0..rows).map(|row| next.next_if_eq(&row).is_none()).collect();
    let kept = BooleanArray::from(kept);
    let filtered = arrays.iter().map(|array| filter(array, &kept));
    Ok(filtered.collect::<Result<_, _>>()?)
}
