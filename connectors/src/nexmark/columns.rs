//! Rows as batches of the declared columns.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Int64Array, StringViewBuilder, TimestampMillisecondArray};
use datafusion::arrow::compute::{CastOptions, cast_with_options};
use datafusion::arrow::datatypes::{Field, SchemaRef};
use datafusion::arrow::record_batch::RecordBatch;
use millstream_engine::plan::StreamDefinition;
use millstream_engine::{Error, Result};

use super::house::House;
use super::tables::{Content, Table};
use crate::format::column::sql_name;

/// What each declared column holds.
#[derive(Debug)]
pub(super) struct Columns {
    schema: SchemaRef,
    contents: Vec<Content>,
}

impl Columns {
    /// Matches the declared columns with those of the table by name, regardless of case.
    ///
    /// # Errors
    /// Fails for a column that the table does not have or that cannot have the declared type.
    pub(super) fn new(definition: &StreamDefinition, table: Table) -> Result<Self> {
        let mut contents = Vec::new();
        for (name, field) in definition.declared.iter().zip(definition.schema.fields()) {
            let found = table.columns().iter().find(|(column, _)| column.eq_ignore_ascii_case(name));
            let Some((_, content)) = found else { return Err(unknown_column(name, table)) };
            if !content.fits(field.data_type()) {
                let message = format!("nexmark: column {name:?} cannot be {}", sql_name(field.data_type()));
                return Err(Error::query(message, format!("declare it {}", sql_name(&content.data_type()))));
            }
            contents.push(*content);
        }
        Ok(Self { schema: Arc::clone(&definition.schema), contents })
    }

    /// The rows that these events are.
    ///
    /// # Errors
    /// Fails if a number does not fit the declared type of its column.
    pub(super) fn batch(&self, house: &House, events: &[u64]) -> Result<RecordBatch> {
        let exact = CastOptions { safe: false, ..CastOptions::default() };
        let mut arrays = Vec::with_capacity(self.contents.len());
        for (content, field) in self.contents.iter().zip(self.schema.fields()) {
            let array = content.array(house, events)?;
            arrays.push(cast_with_options(&array, field.data_type(), &exact).map_err(|_| too_large(field))?);
        }
        Ok(RecordBatch::try_new(Arc::clone(&self.schema), arrays)?)
    }
}

impl Content {
    fn array(&self, house: &House, events: &[u64]) -> Result<ArrayRef> {
        Ok(match self {
            Self::Number(number) => {
                let mut values = Vec::with_capacity(events.len());
                for event in events {
                    let value = i64::try_from(number(house, *event));
                    values.push(value.map_err(|_| Error::internal("a number of Nexmark beyond 2^63"))?);
                }
                Arc::new(Int64Array::from(values))
            }
            Self::Text(append) => {
                let (mut values, mut text) = (StringViewBuilder::with_capacity(events.len()), String::new());
                for event in events {
                    text.clear();
                    append(house, *event, &mut text);
                    values.try_append_value(&text)?;
                }
                Arc::new(values.finish())
            }
            Self::Time(millis) => {
                let values = events.iter().map(|event| Some(millis(house, *event)));
                Arc::new(values.collect::<TimestampMillisecondArray>())
            }
        })
    }
}

fn too_large(field: &Field) -> Error {
    let message = format!("nexmark: a value of column {:?} is no {}", field.name(), sql_name(field.data_type()));
    Error::data(message, "declare it BIGINT")
}

fn unknown_column(name: &str, table: Table) -> Error {
    let names: Vec<_> = table.columns().iter().map(|(name, _)| *name).collect();
    let message = format!("nexmark: table {} has no column {name:?}", table.name());
    Error::query(message, format!("it has: {}", names.join(", ")))
}
