//! Generated rows as batches of the declared columns.

use std::ops::Range;
use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Decimal128Array, Int64Array, StringViewArray, TimestampMillisecondArray};
use datafusion::arrow::compute::{can_cast_types, cast};
use datafusion::arrow::datatypes::{DataType, SchemaRef, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::time::EventTime;
use millstream_engine::{Error, Result};

use super::row::{Content, Generator, Row, StreamKind};
use crate::format::column::sql_name;

/// Which generated value each declared column shows.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    schema: SchemaRef,
    contents: Vec<Content>,
}

impl Columns {
    /// Matches the declared columns with those of the stream by name, regardless of case.
    ///
    /// # Errors
    /// Fails for a column that the stream does not have or that cannot have the declared type.
    pub(super) fn new(definition: &StreamDefinition, kind: StreamKind) -> Result<Self> {
        let mut contents = Vec::new();
        for (name, field) in definition.declared.iter().zip(definition.schema.fields()) {
            let found = kind.columns().iter().find(|(column, _)| column.eq_ignore_ascii_case(name));
            let Some((_, content)) = found else { return Err(unknown_column(name, kind)) };
            if !can_cast_types(&content.data_type(), field.data_type()) {
                let message = format!("generate: column {name:?} cannot be {}", sql_name(field.data_type()));
                return Err(Error::query(message, format!("declare it {}", sql_name(&content.data_type()))));
            }
            contents.push(*content);
        }
        Ok(Self { schema: Arc::clone(&definition.schema), contents })
    }

    /// The rows with these numbers.
    pub(super) fn batch(&self, generator: &Generator, rows: Range<u64>, now: EventTime) -> Result<RecordBatch> {
        let rows: Vec<Row> = rows.map(|index| generator.row(index, now)).collect();
        let mut arrays = Vec::with_capacity(self.contents.len());
        for (content, field) in self.contents.iter().zip(self.schema.fields()) {
            let array = content.array(generator, &rows)?;
            arrays.push(cast(&array, field.data_type())?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), arrays)?)
    }
}

impl Content {
    fn data_type(self) -> DataType {
        match self {
            Self::Code => DataType::Utf8View,
            Self::User | Self::Quantity => DataType::Int64,
            Self::EventTime => DataType::Timestamp(TimeUnit::Millisecond, None),
            Self::Price => DataType::Decimal128(10, 2),
        }
    }

    fn array(self, generator: &Generator, rows: &[Row]) -> Result<ArrayRef> {
        let rows = rows.iter();
        Ok(match self {
            Self::Code => Arc::new(rows.map(|row| Some(generator.code(row))).collect::<StringViewArray>()),
            Self::User => Arc::new(rows.map(|row| i64::from(row.user)).collect::<Int64Array>()),
            Self::Quantity => Arc::new(rows.map(|row| i64::from(row.quantity)).collect::<Int64Array>()),
            Self::EventTime => Arc::new(rows.map(|row| Some(row.event_millis)).collect::<TimestampMillisecondArray>()),
            Self::Price => {
                let values = rows.map(|row| Some(i128::from(row.cents))).collect::<Decimal128Array>();
                Arc::new(values.with_precision_and_scale(10, 2)?)
            }
        })
    }
}

fn unknown_column(name: &str, kind: StreamKind) -> Error {
    let names: Vec<_> = kind.columns().iter().map(|(name, _)| *name).collect();
    let message = format!("generate: stream {} has no column {name:?}", kind.name());
    Error::query(message, format!("it has: {}", names.join(", ")))
}
