//! The columns of a result as Delta Lake has them: signed integers, timestamps in microseconds, plain text.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use datafusion::arrow::record_batch::RecordBatch;
use deltalake_core::kernel::engine::arrow_conversion::TryIntoKernel;
use deltalake_core::kernel::{StructField, StructType};
use millstream_engine::{Error, Result};

use super::super::relation::{converted, names, unsupported};

/// The characters that names have only in tables with column mapping, which this sink does not make.
const FORBIDDEN: [char; 10] = [' ', ',', ';', '{', '}', '(', ')', '\n', '\t', '='];

/// The columns of a table.
#[derive(Debug, Clone)]
pub(super) struct Columns {
    schema: SchemaRef,
}

impl Columns {
    /// The columns for rows of `schema`.
    ///
    /// # Errors
    /// Names a column whose type Delta Lake has no place for, or whose name it does not allow.
    pub(super) fn new(schema: &Schema) -> Result<Self> {
        let mut fields = Vec::new();
        for field in schema.fields() {
            check_name(field.name())?;
            let kind = delta_type(field.data_type())
                .ok_or_else(|| unsupported(field.name(), field.data_type(), "Delta Lake"))?;
            fields.push(Field::new(field.name(), kind, true));
        }
        Ok(Self { schema: Arc::new(Schema::new(fields)) })
    }

    /// What the files of the table have.
    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// Rows as the files have them.
    ///
    /// # Errors
    /// Names a column with a value that does not fit.
    pub(super) fn convert(&self, rows: &RecordBatch) -> Result<RecordBatch> {
        let fields = self.schema.fields().iter().zip(rows.columns());
        let columns = fields.map(|(field, array)| converted(field.name(), array, field.data_type()));
        let columns: Vec<ArrayRef> = columns.collect::<Result<_>>()?;
        Ok(RecordBatch::try_new(self.schema(), columns)?)
    }

    /// What the table's own schema says.
    pub(super) fn delta_fields(&self) -> Result<Vec<StructField>> {
        Ok(self.delta_schema()?.fields().cloned().collect())
    }

    /// Refuses a table with other columns.
    ///
    /// # Errors
    /// Names the columns of both.
    pub(super) fn check(&self, table: &StructType, place: &str) -> Result<()> {
        let own = self.delta_schema()?;
        let is_same = own.fields().len() == table.fields().len()
            && own.fields().zip(table.fields()).all(|(a, b)| a.name() == b.name() && a.data_type() == b.data_type());
        if is_same {
            return Ok(());
        }
        let have: Vec<_> = table.fields().map(|field| format!("{} {}", field.name(), field.data_type())).collect();
        let message =
            format!("{place} has the columns {}, the result {}", have.join(", "), names(&self.schema).join(", "));
        Err(Error::query(message, "name another path, or cast and rename the columns in the query"))
    }

    fn delta_schema(&self) -> Result<StructType> {
        self.schema
            .as_ref()
            .try_into_kernel()
            .map_err(|error| Error::external("making the schema of a Delta table", error))
    }
}

/// Refuses a name that readers of the table would refuse.
fn check_name(name: &str) -> Result<()> {
    let Some(character) = name.chars().find(|character| FORBIDDEN.contains(character)) else { return Ok(()) };
    let message = format!("column {name:?} has {character:?} in its name, which Delta Lake does not allow");
    Err(Error::query(message, "give the column a name of its own: sum(x) AS a"))
}

/// The type that Delta Lake has for values of a type; none if it has no place for them.
fn delta_type(kind: &DataType) -> Option<DataType> {
    Some(match kind {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(_, 0..)
        | DataType::Date32
        | DataType::Utf8
        | DataType::Binary => kind.clone(),
        DataType::UInt8 => DataType::Int16,
        DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::UInt64 => DataType::Decimal128(20, 0),
        DataType::Timestamp(_, zone) => {
            // The only zone that it knows; the moment is the same.
            DataType::Timestamp(TimeUnit::Microsecond, zone.as_ref().map(|_| "UTC".into()))
        }
        DataType::LargeUtf8 | DataType::Utf8View => DataType::Utf8,
        DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        _ => return None,
    })
}
