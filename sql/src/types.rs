//! SQL column types and their Arrow types, both ways.

use datafusion::arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, TimeUnit};
use datafusion::sql::sqlparser::ast::{DataType as SqlType, ExactNumberInfo, TimezoneInfo};

use crate::error::{Error, Result};

const KNOWN: &str = "BOOLEAN, TINYINT, SMALLINT, INT, BIGINT (each also UNSIGNED), REAL, DOUBLE, DECIMAL(p, s), \
                     VARCHAR, DATE, TIME, TIMESTAMP(p) and BYTEA";

/// The Arrow type of a column declared with `sql_type`.
///
/// # Errors
/// There is none.
pub(crate) fn arrow_type(sql_type: &SqlType) -> Result<DataType> {
    Ok(match sql_type {
        SqlType::Boolean | SqlType::Bool => DataType::Boolean,
        SqlType::TinyInt(_) => DataType::Int8,
        SqlType::SmallInt(_) | SqlType::Int2(_) => DataType::Int16,
        SqlType::Int(_) | SqlType::Integer(_) | SqlType::Int4(_) => DataType::Int32,
        SqlType::BigInt(_) | SqlType::Int8(_) => DataType::Int64,
        SqlType::TinyIntUnsigned(_) => DataType::UInt8,
        SqlType::SmallIntUnsigned(_) | SqlType::Int2Unsigned(_) => DataType::UInt16,
        SqlType::IntUnsigned(_) | SqlType::IntegerUnsigned(_) | SqlType::Int4Unsigned(_) => DataType::UInt32,
        SqlType::BigIntUnsigned(_) | SqlType::Int8Unsigned(_) => DataType::UInt64,
        SqlType::Real | SqlType::Float4 | SqlType::Float(_) => DataType::Float32,
        SqlType::Double(_) | SqlType::DoublePrecision | SqlType::Float8 => DataType::Float64,
        SqlType::Varchar(_)
        | SqlType::Nvarchar(_)
        | SqlType::Char(_)
        | SqlType::Character(_)
        | SqlType::CharacterVarying(_)
        | SqlType::CharVarying(_)
        | SqlType::Text
        | SqlType::String(_) => DataType::Utf8View,
        SqlType::Bytea | SqlType::Binary(_) | SqlType::Varbinary(_) | SqlType::Blob(_) => DataType::Binary,
        SqlType::Date => DataType::Date32,
        SqlType::Time(None, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            DataType::Time64(TimeUnit::Nanosecond)
        }
        SqlType::Timestamp(precision, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
            DataType::Timestamp(time_unit(*precision, sql_type)?, None)
        }
        SqlType::Numeric(info) | SqlType::Decimal(info) | SqlType::Dec(info) => decimal_type(info, sql_type)?,
        SqlType::Timestamp(..) => {
            let error = Error::unsupported(format!("the type {sql_type}"), "write TIMESTAMP(3): all times are UTC");
            return Err(error);
        }
        other => return Err(Error::unsupported(format!("the type {other}"), format!("the types are {KNOWN}"))),
    })
}

/// The coarsest unit that holds `precision` digits below the second.
fn time_unit(precision: Option<u64>, sql_type: &SqlType) -> Result<TimeUnit> {
    match precision {
        Some(0) => Ok(TimeUnit::Second),
        Some(1..=3) => Ok(TimeUnit::Millisecond),
        Some(4..=6) => Ok(TimeUnit::Microsecond),
        None | Some(7..=9) => Ok(TimeUnit::Nanosecond),
        Some(_) => {
            Err(Error::new(format!("the type {sql_type} is finer than a nanosecond")).hint("write TIMESTAMP(9)"))
        }
    }
}

/// A decimal of up to 38 digits; 38 digits and 10 of them below the point unless said otherwise.
fn decimal_type(info: &ExactNumberInfo, sql_type: &SqlType) -> Result<DataType> {
    let (precision, scale) = match *info {
        ExactNumberInfo::None => (u64::from(DECIMAL128_MAX_PRECISION), 10),
        ExactNumberInfo::Precision(precision) => (precision, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => (precision, scale),
    };
    let limits = u8::try_from(precision).ok().zip(i8::try_from(scale).ok());
    match limits {
        Some((precision, scale @ 0..))
            if (1..=DECIMAL128_MAX_PRECISION).contains(&precision) && precision >= scale.unsigned_abs() =>
        {
            Ok(DataType::Decimal128(precision, scale))
        }
        _ => Err(Error::new(format!("the type {sql_type} is out of range"))
            .hint("write DECIMAL(p, s) with p from 1 to 38 and s from 0 to p")),
    }
}

/// The type as a user would declare it.
pub fn sql_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Boolean => "BOOLEAN".into(),
        DataType::Int8 => "TINYINT".into(),
        DataType::Int16 => "SMALLINT".into(),
        DataType::Int32 => "INT".into(),
        DataType::Int64 => "BIGINT".into(),
        DataType::UInt8 => "TINYINT UNSIGNED".into(),
        DataType::UInt16 => "SMALLINT UNSIGNED".into(),
        DataType::UInt32 => "INT UNSIGNED".into(),
        DataType::UInt64 => "BIGINT UNSIGNED".into(),
        DataType::Float32 => "REAL".into(),
        DataType::Float64 => "DOUBLE".into(),
        DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 => "VARCHAR".into(),
        DataType::Binary | DataType::BinaryView | DataType::LargeBinary => "BYTEA".into(),
        DataType::Date32 => "DATE".into(),
        DataType::Time64(_) => "TIME".into(),
        DataType::Timestamp(TimeUnit::Second, None) => "TIMESTAMP(0)".into(),
        DataType::Timestamp(TimeUnit::Millisecond, None) => "TIMESTAMP(3)".into(),
        DataType::Timestamp(TimeUnit::Microsecond, None) => "TIMESTAMP(6)".into(),
        DataType::Timestamp(TimeUnit::Nanosecond, None) => "TIMESTAMP(9)".into(),
        DataType::Decimal128(precision, scale) => format!("DECIMAL({precision}, {scale})"),
        other => other.to_string(),
    }
}
