//! Expressions of exact numbers, as decimals whose number of digits is kept in view.

use datafusion::arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType};
use datafusion::logical_expr::{Expr, Operator, binary_expr, cast, lit};

use super::safe::digits_of;

/// Decimals up to this many digits can be summed 2^60 times in 128 bits.
const NARROW_DIGITS: u8 = 20;
/// Decimals up to this many digits can be summed 2^63 times in 256 bits.
pub(super) const WIDE_DIGITS: u8 = 57;
/// What DataFusion adds to the digits of a sum.
const SUM_DIGITS: u8 = 10;

/// An expression whose value is a decimal in 128 bits, or in 256 if it is wide.
#[derive(Debug, Clone)]
pub(super) struct Decimal {
    pub(super) expression: Expr,
    digits: u8,
    scale: i8,
    is_wide: bool,
}

impl Decimal {
    /// The integer or decimal `expression` of type `kind`; `None` for other types and for more than 38 digits.
    pub(super) fn new(expression: Expr, kind: &DataType) -> Option<Self> {
        let (digits, scale) = digits_of(kind)?;
        if digits > DECIMAL128_MAX_PRECISION || scale < 0 {
            return None;
        }
        let decimal = DataType::Decimal128(digits, scale);
        let expression = if *kind == decimal { expression } else { cast(expression, decimal) };
        Some(Self { expression, digits, scale, is_wide: false })
    }

    /// The number 1.
    pub(super) fn one() -> Self {
        Self { expression: cast(lit(1_i64), DataType::Decimal128(1, 0)), digits: 1, scale: 0, is_wide: false }
    }

    /// The column of a `COUNT`.
    pub(super) fn count(column: Expr) -> Self {
        Self { expression: cast(column, DataType::Decimal128(19, 0)), digits: 19, scale: 0, is_wide: false }
    }

    /// The product. Beyond 76 digits the multiplication itself fails where the value does not fit.
    pub(super) fn times(self, other: Self) -> Self {
        let digits = self.digits + other.digits + 1;
        let is_wide = self.is_wide || other.is_wide || digits > DECIMAL128_MAX_PRECISION;
        let (left, right) = if is_wide { (self.widened(), other.widened()) } else { (self, other) };
        Self {
            expression: binary_expr(left.expression, Operator::Multiply, right.expression),
            digits: digits.min(DECIMAL256_MAX_PRECISION),
            scale: left.scale + right.scale,
            is_wide,
        }
    }

    /// The sum or difference; `None` where 38 digits would not do.
    pub(super) fn plus_or_minus(self, operator: Operator, other: Self) -> Option<Self> {
        let scale = self.scale.max(other.scale);
        let whole =
            (i16::from(self.digits) - i16::from(self.scale)).max(i16::from(other.digits) - i16::from(other.scale));
        let digits = u8::try_from(whole + i16::from(scale) + 1).ok()?;
        if self.is_wide || other.is_wide || digits > DECIMAL128_MAX_PRECISION {
            return None;
        }
        let expression = binary_expr(self.expression, operator, other.expression);
        Some(Self { expression, digits, scale, is_wide: false })
    }

    /// The negated number.
    pub(super) fn negated(self) -> Self {
        Self { expression: Expr::Negative(Box::new(self.expression)), ..self }
    }

    /// Whether 2^63 of them have a sum that fits in 256 bits.
    pub(super) const fn is_summable(&self) -> bool {
        self.digits <= WIDE_DIGITS
    }

    /// The sum; `column` makes the column that holds the sum of an expression.
    pub(super) fn sum(self, column: impl FnOnce(Expr) -> Expr) -> Self {
        let summand = if self.digits > NARROW_DIGITS { self.widened() } else { self };
        let most = if summand.is_wide { DECIMAL256_MAX_PRECISION } else { DECIMAL128_MAX_PRECISION };
        let digits = most.min(summand.digits + SUM_DIGITS);
        Self { expression: column(summand.expression), digits, ..summand }
    }

    /// The same value with at most [`WIDE_DIGITS`] digits, or an error: a product of sums that is to be summed again.
    pub(super) fn limited(self) -> Self {
        let wide = self.widened();
        Self {
            expression: cast(wide.expression, DataType::Decimal256(WIDE_DIGITS, wide.scale)),
            digits: WIDE_DIGITS,
            ..wide
        }
    }

    /// The same value in 256 bits with `scale` digits behind the point, no fewer than it has.
    pub(super) fn scaled(self, scale: i8) -> Expr {
        cast(self.expression, DataType::Decimal256(DECIMAL256_MAX_PRECISION, scale))
    }

    fn widened(self) -> Self {
        if self.is_wide {
            return self;
        }
        let expression = cast(self.expression, DataType::Decimal256(self.digits, self.scale));
        Self { expression, is_wide: true, ..self }
    }
}
