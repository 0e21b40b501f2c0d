//! Expressions that never fail: only those may be computed for rows that a join would have dropped.

use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{Case, InList, Like, ScalarFunction};
use datafusion::logical_expr::{Between, BinaryExpr, Cast, Expr, ExprSchemable, Operator};

/// Functions that give a value for all arguments.
const TOTAL_FUNCTIONS: [&str; 4] = ["coalesce", "lower", "nullif", "upper"];

/// Whether `expression` gives a value for every row of `schema`; what is not known to does not.
pub(super) fn never_fails(expression: &Expr, schema: &DFSchema) -> DataFusionResult<bool> {
    let all = |parts: &[&Expr]| all_never_fail(parts, schema);
    match expression {
        Expr::Column(_) | Expr::Literal(..) => Ok(true),
        Expr::Alias(alias) => all(&[&alias.expr]),
        Expr::Cast(Cast { expr, field }) => {
            let from = expr.get_type(schema)?;
            Ok(is_total_cast(&from, field.data_type()) && all(&[expr])?)
        }
        Expr::Not(inner)
        | Expr::IsNull(inner)
        | Expr::IsNotNull(inner)
        | Expr::IsTrue(inner)
        | Expr::IsFalse(inner)
        | Expr::IsUnknown(inner)
        | Expr::IsNotTrue(inner)
        | Expr::IsNotFalse(inner)
        | Expr::IsNotUnknown(inner) => all(&[inner]),
        Expr::Negative(inner) => Ok(inner.get_type(schema)?.is_floating() && all(&[inner])?),
        Expr::BinaryExpr(binary) => Ok(is_total(binary, schema)? && all(&[&binary.left, &binary.right])?),
        Expr::Between(Between { expr, low, high, .. }) => all(&[expr, low, high]),
        Expr::InList(InList { expr, list, .. }) => all(&std::iter::once(expr.as_ref()).chain(list).collect::<Vec<_>>()),
        // A pattern that is not well formed is a mistake of the query, whatever the rows.
        Expr::Like(Like { expr, pattern, .. }) => Ok(matches!(**pattern, Expr::Literal(..)) && all(&[expr])?),
        Expr::Case(case) => all(&parts_of(case)),
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            Ok(TOTAL_FUNCTIONS.contains(&func.name()) && all(&args.iter().collect::<Vec<_>>())?)
        }
        _ => Ok(false),
    }
}

fn all_never_fail(parts: &[&Expr], schema: &DFSchema) -> DataFusionResult<bool> {
    for part in parts {
        if !never_fails(part, schema)? {
            return Ok(false);
        }
    }
    Ok(true)
}

fn parts_of(case: &Case) -> Vec<&Expr> {
    let branches = case.when_then_expr.iter().flat_map(|(when, then)| [when.as_ref(), then.as_ref()]);
    case.expr.as_deref().into_iter().chain(branches).chain(case.else_expr.as_deref()).collect()
}

fn is_total(binary: &BinaryExpr, schema: &DFSchema) -> DataFusionResult<bool> {
    use Operator::{And, Divide, Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq, Or, StringConcat};
    use Operator::{Minus, Modulo, Multiply, Plus};
    match binary.op {
        And | Or | Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom | StringConcat => Ok(true),
        Plus | Minus | Multiply | Divide | Modulo => {
            let [left, right] = [binary.left.get_type(schema)?, binary.right.get_type(schema)?];
            let by_constant = matches!(binary.op, Divide | Modulo) && is_plain_divisor(&binary.right);
            Ok((left.is_floating() && right.is_floating()) || (left.is_integer() && right.is_integer() && by_constant))
        }
        _ => Ok(false),
    }
}

/// Whether integers can all be divided by it: by 0 none can, by -1 the least cannot.
fn is_plain_divisor(divisor: &Expr) -> bool {
    let Expr::Literal(value, _) = divisor else { return false };
    matches!(value.cast_to(&DataType::Int64), Ok(ScalarValue::Int64(Some(value))) if value != 0 && value != -1)
}

/// Whether a cast from one type to the other succeeds for all values, rounded where the other is a double.
fn is_total_cast(from: &DataType, to: &DataType) -> bool {
    let is_number = from.is_numeric();
    is_lossless(from, to) || (*to == DataType::Float64 && is_number) || (is_text(from) && is_text(to))
}

/// Whether a cast from one type to the other keeps all values as they are.
pub(super) fn is_lossless(from: &DataType, to: &DataType) -> bool {
    if from == to || from.is_null() {
        return true;
    }
    match (digits_of(from), digits_of(to)) {
        (Some(_), Some(_)) if from.is_integer() && to.is_integer() => is_wider_integer(from, to),
        (Some(_), Some(_)) if to.is_integer() => false,
        (Some((from, from_scale)), Some((to, to_scale))) => {
            to_scale >= from_scale && i16::from(to) - i16::from(to_scale) >= i16::from(from) - i16::from(from_scale)
        }
        _ => false,
    }
}

fn is_wider_integer(from: &DataType, to: &DataType) -> bool {
    let (Some(from_bytes), Some(to_bytes)) = (from.primitive_width(), to.primitive_width()) else { return false };
    let fits_sign = from.is_signed_integer() == to.is_signed_integer() || to.is_signed_integer();
    to_bytes > from_bytes && fits_sign
}

fn is_text(kind: &DataType) -> bool {
    matches!(kind, DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View)
}

/// How many decimal digits the values of an exact numeric type have at the most, and how many of them are behind the
/// point; `None` for other types.
pub(super) const fn digits_of(kind: &DataType) -> Option<(u8, i8)> {
    Some(match kind {
        DataType::Int8 | DataType::UInt8 => (3, 0),
        DataType::Int16 | DataType::UInt16 => (5, 0),
        DataType::Int32 | DataType::UInt32 => (10, 0),
        DataType::Int64 => (19, 0),
        DataType::UInt64 => (20, 0),
        DataType::Decimal32(digits, scale)
        | DataType::Decimal64(digits, scale)
        | DataType::Decimal128(digits, scale)
        | DataType::Decimal256(digits, scale) => (*digits, *scale),
        _ => return None,
    })
}
