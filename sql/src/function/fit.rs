//! Which types go where without being asked: an argument into its parameter, an expression into what it is for.

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::Expr;

/// Whether every value of `from` is one of `to`.
pub(crate) fn widens(from: &DataType, to: &DataType) -> bool {
    use DataType::{
        Binary, BinaryView, Date32, Float32, Float64, LargeBinary, LargeUtf8, Null, Timestamp, Utf8, Utf8View,
    };
    if from == to {
        return true;
    }
    match (from, to) {
        (Null, _) | (Float32, Float64) | (Date32, Timestamp(_, None)) => true,
        (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View)
        | (Binary | LargeBinary | BinaryView, Binary | LargeBinary | BinaryView) => true,
        (Timestamp(coarse, None), Timestamp(fine, None)) => digits_of_unit(coarse) <= digits_of_unit(fine),
        // As everywhere in SQL, exact numbers become doubles where doubles are asked for.
        (from, Float32 | Float64) => from.is_integer() || is_decimal(from),
        (from, to) => match (digits(from), digits(to)) {
            (Some((before, behind)), Some((room_before, room_behind))) => {
                // A DECIMAL(3, 0) holds what no TINYINT does, and a TINYINT UNSIGNED what no signed one does.
                let same_kind = from.is_unsigned_integer() == to.is_unsigned_integer() || is_decimal(to);
                let has_room = if same_kind { before <= room_before } else { before < room_before };
                let is_narrower = to.is_unsigned_integer() && !from.is_unsigned_integer();
                has_room && behind <= room_behind && !is_narrower && (is_decimal(to) || from.is_integer())
            }
            _ => false,
        },
    }
}

/// Whether `from` may be stored as `to`: what widens, and exact numbers that are checked or rounded as they are stored.
pub(crate) fn stores(from: &DataType, to: &DataType) -> bool {
    widens(from, to)
        || (from.is_integer() && to.is_integer())
        || ((from.is_integer() || is_decimal(from)) && is_decimal(to))
}

/// Whether the expression is a literal that can be written as a `to` without loss.
pub(crate) fn is_literal_of(expression: &Expr, to: &DataType) -> bool {
    let Expr::Literal(value, _) = expression else { return false };
    let Ok(cast) = value.cast_to(to) else { return false };
    let is_exact = |value: &ScalarValue| cast.cast_to(&value.data_type()).is_ok_and(|back| back == *value);
    value.data_type().is_string() || matches!(to, DataType::Float32 | DataType::Float64) || is_exact(value)
}

fn is_decimal(kind: &DataType) -> bool {
    matches!(kind, DataType::Decimal128(..) | DataType::Decimal256(..))
}

/// The most digits that an exact number has before and behind the point.
fn digits(kind: &DataType) -> Option<(u32, u32)> {
    Some(match kind {
        DataType::Int8 | DataType::UInt8 => (3, 0),
        DataType::Int16 | DataType::UInt16 => (5, 0),
        DataType::Int32 | DataType::UInt32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::UInt64 => (20, 0),
        DataType::Decimal128(precision, scale) | DataType::Decimal256(precision, scale) => {
            let behind = u32::from(scale.unsigned_abs());
            (u32::from(*precision).saturating_sub(behind), behind)
        }
        _ => return None,
    })
}

const fn digits_of_unit(unit: &TimeUnit) -> u32 {
    match unit {
        TimeUnit::Second => 0,
        TimeUnit::Millisecond => 3,
        TimeUnit::Microsecond => 6,
        TimeUnit::Nanosecond => 9,
    }
}

#[cfg(test)]
mod tests {
    use datafusion::logical_expr::lit;

    use super::*;

    #[test]
    fn what_loses_nothing_widens() {
        use DataType::*;
        let fits = [
            (Null, Date32),
            (Int32, Int64),
            (UInt8, Int16),
            (UInt32, Int64),
            (UInt8, UInt32),
            (Int64, Decimal128(19, 0)),
            (UInt8, Decimal128(3, 0)),
            (Decimal128(10, 2), Decimal128(12, 3)),
            (Int64, Float64),
            (Decimal128(10, 2), Float64),
            (Float32, Float64),
            (Utf8, Utf8View),
            (Date32, Timestamp(TimeUnit::Second, None)),
            (Timestamp(TimeUnit::Millisecond, None), Timestamp(TimeUnit::Nanosecond, None)),
        ];
        for (from, to) in &fits {
            assert!(widens(from, to), "{from} to {to}");
        }
        let misfits = [
            (Int64, Int32),
            (UInt8, Int8),
            (Int8, UInt8),
            (Int8, UInt64),
            (Int64, Decimal128(20, 2)),
            (Decimal128(3, 0), Int64),
            (Decimal128(10, 3), Decimal128(12, 2)),
            (Float64, Float32),
            (Float64, Int64),
            (Float64, Decimal128(38, 10)),
            (Utf8, Float64),
            (Int64, Utf8View),
            (Boolean, Int64),
            (Timestamp(TimeUnit::Nanosecond, None), Timestamp(TimeUnit::Millisecond, None)),
        ];
        for (from, to) in &misfits {
            assert!(!widens(from, to), "{from} to {to}");
        }
        assert!(stores(&Int64, &Int8) && stores(&Decimal128(38, 8), &Decimal128(10, 2)));
        assert!(!stores(&Float64, &Int64) && !stores(&Decimal128(3, 0), &Int64));
    }

    #[test]
    fn literals_are_what_they_can_be_written_as() {
        assert!(is_literal_of(&lit(7_i64), &DataType::Int8));
        assert!(!is_literal_of(&lit(700_i64), &DataType::Int8));
        assert!(is_literal_of(&lit(1.5), &DataType::Decimal128(4, 2)));
        assert!(!is_literal_of(&lit(1.5), &DataType::Int64));
        assert!(is_literal_of(&lit(0.1), &DataType::Float32));
        assert!(is_literal_of(&lit("2024-01-02"), &DataType::Date32));
        assert!(!is_literal_of(&lit("x"), &DataType::Date32));
    }
}
