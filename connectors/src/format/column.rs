//! One column under construction: takes values as text and refuses those that are not of its type.

use std::sync::Arc;

use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, BooleanBuilder, Date32Builder, Decimal128Builder, Float32Builder, Float64Builder,
    Int64Builder, StringArray, StringBuilder, StringViewBuilder, new_null_array,
};
use datafusion::arrow::compute::{CastOptions, cast, cast_with_options, concat};
use datafusion::arrow::datatypes::{
    DataType, Int64Type, TimeUnit, TimestampMicrosecondType, TimestampMillisecondType, TimestampNanosecondType,
    TimestampSecondType,
};
use millstream_engine::{Error, Result};

use super::number::{parse_double, parse_exact_decimal, parse_integer};
use super::timestamp::{TimestampParser, parse_date};

/// A column under construction.
#[derive(Debug)]
pub(crate) struct Column {
    kind: DataType,
    values: Values,
}

/// The builders that have a fast way from text; any other type goes through Arrow's cast, value by value.
#[derive(Debug)]
enum Values {
    Text(StringBuilder),
    TextView(StringViewBuilder),
    Boolean(BooleanBuilder),
    Integer { values: Int64Builder, min: i64, max: i64 },
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal { values: Decimal128Builder, precision: u8, scale: i8 },
    Timestamp { values: Int64Builder, parser: TimestampParser },
    Date(Date32Builder),
    Other(Vec<ArrayRef>),
}

impl Column {
    /// An empty column of type `kind` with room for `capacity` values.
    ///
    /// # Errors
    /// Fails if the type cannot be made of text: a list, a struct, an unknown time zone.
    pub(crate) fn new(kind: &DataType, number_unit: Option<TimeUnit>, capacity: usize) -> Result<Self> {
        let integers = |min, max| Values::Integer { values: Int64Builder::with_capacity(capacity), min, max };
        let values = match kind {
            DataType::Utf8 => Values::Text(StringBuilder::with_capacity(capacity, capacity * 8)),
            DataType::Utf8View => Values::TextView(StringViewBuilder::with_capacity(capacity)),
            DataType::Boolean => Values::Boolean(BooleanBuilder::with_capacity(capacity)),
            DataType::Int8 => integers(i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => integers(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => integers(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => integers(i64::MIN, i64::MAX),
            DataType::UInt8 => integers(0, u8::MAX.into()),
            DataType::UInt16 => integers(0, u16::MAX.into()),
            DataType::UInt32 => integers(0, u32::MAX.into()),
            DataType::Float32 => Values::Float32(Float32Builder::with_capacity(capacity)),
            DataType::Float64 => Values::Float64(Float64Builder::with_capacity(capacity)),
            DataType::Decimal128(precision, scale) => {
                let values = Decimal128Builder::with_capacity(capacity).with_data_type(kind.clone());
                Values::Decimal { values, precision: *precision, scale: *scale }
            }
            DataType::Timestamp(unit, zone) => {
                let parser = TimestampParser::new(*unit, zone.as_deref(), number_unit).ok_or_else(|| {
                    let zone = zone.as_deref().unwrap_or_default();
                    Error::query(format!("unknown time zone {zone:?}"), "use UTC or an offset such as +02:00")
                })?;
                Values::Timestamp { values: Int64Builder::with_capacity(capacity), parser }
            }
            DataType::Date32 => Values::Date(Date32Builder::with_capacity(capacity)),
            other if is_scalar(other) => Values::Other(Vec::new()),
            other => return Err(Error::query(format!("text cannot be read as {other}"), "declare VARCHAR instead")),
        };
        Ok(Self { kind: kind.clone(), values })
    }

    /// Appends the value that `text` says; gives false and appends nothing if it is not of the column's type.
    #[must_use]
    pub(crate) fn append(&mut self, text: &str) -> bool {
        self.try_append(text).is_some() || (text.trim().len() < text.len() && self.try_append(text.trim()).is_some())
    }

    fn try_append(&mut self, text: &str) -> Option<()> {
        match &mut self.values {
            Values::Text(values) => values.append_value(text),
            Values::TextView(values) => values.try_append_value(text).ok()?,
            Values::Boolean(values) => values.append_value(parse_boolean(text)?),
            Values::Integer { values, min, max } => {
                values.append_value(parse_integer(text).filter(|value| (*min..=*max).contains(value))?);
            }
            Values::Float32(values) => values.append_value(text.parse().ok()?),
            Values::Float64(values) => values.append_value(parse_double(text)?),
            Values::Decimal { values, precision, scale } => {
                values.append_value(parse_exact_decimal(text, *precision, *scale)?);
            }
            Values::Timestamp { values, parser } => values.append_value(parser.parse(text)?),
            Values::Date(values) => values.append_value(parse_date(text)?),
            Values::Other(values) => values.push(cast_one(text, &self.kind)?),
        }
        Some(())
    }

    /// Appends a null.
    pub(crate) fn append_null(&mut self) {
        match &mut self.values {
            Values::Text(values) => values.append_null(),
            Values::TextView(values) => values.append_null(),
            Values::Boolean(values) => values.append_null(),
            Values::Integer { values, .. } | Values::Timestamp { values, .. } => values.append_null(),
            Values::Float32(values) => values.append_null(),
            Values::Float64(values) => values.append_null(),
            Values::Decimal { values, .. } => values.append_null(),
            Values::Date(values) => values.append_null(),
            Values::Other(values) => values.push(new_null_array(&self.kind, 1)),
        }
    }

    /// Whether a JSON string may stand for a value: for text, times and exact decimals, not for other numbers.
    pub(crate) const fn takes_json_strings(&self) -> bool {
        !matches!(self.values, Values::Boolean(_) | Values::Integer { .. } | Values::Float32(_) | Values::Float64(_))
    }

    /// Whether a JSON number may stand for a value.
    pub(crate) const fn takes_json_numbers(&self) -> bool {
        !matches!(self.values, Values::Text(_) | Values::TextView(_) | Values::Boolean(_) | Values::Date(_))
    }

    /// Whether JSON's `true` and `false` may stand for a value.
    pub(crate) const fn takes_json_booleans(&self) -> bool {
        matches!(self.values, Values::Boolean(_))
    }

    /// The finished array.
    pub(crate) fn finish(self) -> Result<ArrayRef> {
        let array: ArrayRef = match self.values {
            Values::Text(mut values) => Arc::new(values.finish()),
            Values::TextView(mut values) => Arc::new(values.finish()),
            Values::Boolean(mut values) => Arc::new(values.finish()),
            Values::Integer { mut values, .. } => Arc::new(values.finish()),
            Values::Float32(mut values) => Arc::new(values.finish()),
            Values::Float64(mut values) => Arc::new(values.finish()),
            Values::Decimal { mut values, .. } => Arc::new(values.finish()),
            Values::Timestamp { mut values, .. } => as_timestamps(&values.finish(), &self.kind),
            Values::Date(mut values) => Arc::new(values.finish()),
            Values::Other(values) if values.is_empty() => new_null_array(&self.kind, 0),
            Values::Other(values) => concat(&values.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
        };
        Ok(if array.data_type() == &self.kind { array } else { cast(&array, &self.kind)? })
    }
}

/// The name of a type as SQL has it, for messages.
pub(crate) fn sql_name(kind: &DataType) -> String {
    match kind {
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "VARCHAR".to_owned(),
        DataType::Boolean => "BOOLEAN".to_owned(),
        DataType::Int8 => "TINYINT".to_owned(),
        DataType::Int16 => "SMALLINT".to_owned(),
        DataType::Int32 => "INT".to_owned(),
        DataType::Int64 => "BIGINT".to_owned(),
        DataType::UInt8 => "TINYINT UNSIGNED".to_owned(),
        DataType::UInt16 => "SMALLINT UNSIGNED".to_owned(),
        DataType::UInt32 => "INT UNSIGNED".to_owned(),
        DataType::UInt64 => "BIGINT UNSIGNED".to_owned(),
        DataType::Float32 => "FLOAT".to_owned(),
        DataType::Float64 => "DOUBLE".to_owned(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision},{scale})"),
        DataType::Timestamp(_, _) => "TIMESTAMP".to_owned(),
        DataType::Date32 => "DATE".to_owned(),
        other => other.to_string(),
    }
}

fn is_scalar(kind: &DataType) -> bool {
    kind.is_primitive() || matches!(kind, DataType::LargeUtf8 | DataType::Dictionary(_, _) | DataType::Null)
}

fn parse_boolean(text: &str) -> Option<bool> {
    const YES: [&str; 3] = ["true", "t", "1"];
    const NO: [&str; 3] = ["false", "f", "0"];
    let is_any = |words: [&str; 3]| words.iter().any(|word| word.eq_ignore_ascii_case(text));
    if is_any(YES) { Some(true) } else { is_any(NO).then_some(false) }
}

fn cast_one(text: &str, kind: &DataType) -> Option<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let array = cast_with_options(&StringArray::from(vec![text]), kind, &options).ok()?;
    (array.null_count() == 0).then_some(array)
}

fn as_timestamps(values: &dyn Array, kind: &DataType) -> ArrayRef {
    let values = values.as_primitive::<Int64Type>();
    let DataType::Timestamp(unit, zone) = kind else { return Arc::new(values.clone()) };
    match unit {
        TimeUnit::Second => Arc::new(values.reinterpret_cast::<TimestampSecondType>().with_timezone_opt(zone.clone())),
        TimeUnit::Millisecond => {
            Arc::new(values.reinterpret_cast::<TimestampMillisecondType>().with_timezone_opt(zone.clone()))
        }
        TimeUnit::Microsecond => {
            Arc::new(values.reinterpret_cast::<TimestampMicrosecondType>().with_timezone_opt(zone.clone()))
        }
        TimeUnit::Nanosecond => {
            Arc::new(values.reinterpret_cast::<TimestampNanosecondType>().with_timezone_opt(zone.clone()))
        }
    }
}
