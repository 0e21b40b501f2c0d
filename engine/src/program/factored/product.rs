//! Arguments of sums taken apart into factors, each an expression of one leaf.

use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable, Operator};

use super::decimal::Decimal;
use super::joined::{Joined, Side};
use super::safe::{digits_of, is_lossless, never_fails};

/// A product is evaluated at both ends of the range of each factor.
const MOST_DOUBLE_FACTORS: usize = 8;

/// A product.
#[derive(Debug)]
pub(super) enum Product {
    /// Of integers and decimals, in any order.
    Exact(Vec<Factor<Decimal>>),
    /// Of doubles, multiplied from the left to the right, no two of one leaf.
    Double(Vec<Factor<Expr>>),
}

/// A factor that reads one leaf, or none.
#[derive(Debug)]
pub(super) struct Factor<T> {
    pub(super) leaf: Option<usize>,
    pub(super) value: T,
}

impl Product {
    /// Takes `argument`, an expression over the columns of the leaves, apart; `None` if it is not such a product.
    pub(super) fn read(argument: &Expr, joined: &Joined) -> DataFusionResult<Option<Self>> {
        let kind = argument.get_type(&joined.schema)?;
        if is_exact(&kind) {
            return exact_product(argument, joined);
        }
        if kind != DataType::Float64 {
            return Ok(None);
        }
        if let Expr::Cast(Cast { expr, .. }) = argument
            && is_exact(&expr.get_type(&joined.schema)?)
            && let Some(product) = exact_product(expr, joined)?
        {
            // As of AVG over integers: the exact sum is as near to the sum of doubles as any.
            return Ok(Some(product));
        }
        let Some(factors) = double_factors(argument, joined)? else { return Ok(None) };
        let mut leaves: Vec<_> = factors.iter().filter_map(|factor| factor.leaf).collect();
        leaves.sort_unstable();
        let stand_together = leaves.windows(2).all(|pair| pair.first() != pair.last());
        Ok((stand_together && factors.len() <= MOST_DOUBLE_FACTORS).then_some(Self::Double(factors)))
    }

    /// The factors that read a leaf.
    pub(super) fn of_leaves(&self) -> Vec<(usize, Expr)> {
        match self {
            Self::Exact(factors) => {
                factors.iter().filter_map(|factor| Some((factor.leaf?, factor.value.expression.clone()))).collect()
            }
            Self::Double(factors) => {
                factors.iter().filter_map(|factor| Some((factor.leaf?, factor.value.clone()))).collect()
            }
        }
    }
}

fn is_exact(kind: &DataType) -> bool {
    digits_of(kind).is_some()
}

fn exact_product(expression: &Expr, joined: &Joined) -> DataFusionResult<Option<Product>> {
    let mut factors = Vec::new();
    Ok(add_exact(expression, joined, &mut factors)?.then_some(Product::Exact(factors)))
}

fn add_exact(expression: &Expr, joined: &Joined, factors: &mut Vec<Factor<Decimal>>) -> DataFusionResult<bool> {
    match expression {
        Expr::Alias(alias) => return add_exact(&alias.expr, joined, factors),
        Expr::Cast(Cast { expr, field }) => {
            let from = expr.get_type(&joined.schema)?;
            if is_exact(&from) && is_lossless(&from, field.data_type()) {
                return add_exact(expr, joined, factors);
            }
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Multiply, right })
            if is_exact(&left.get_type(&joined.schema)?) && is_exact(&right.get_type(&joined.schema)?) =>
        {
            return Ok(add_exact(left, joined, factors)? && add_exact(right, joined, factors)?);
        }
        _ => {}
    }
    let Some(leaf) = single_leaf(expression, joined) else { return Ok(false) };
    let Some(value) = decimal(expression, joined)? else { return Ok(false) };
    factors.push(Factor { leaf, value });
    Ok(true)
}

/// An expression of integers or decimals that never fails; arithmetic has the digits it needs.
fn decimal(expression: &Expr, joined: &Joined) -> DataFusionResult<Option<Decimal>> {
    let kind = expression.get_type(&joined.schema)?;
    if never_fails(expression, &joined.schema)? {
        return Ok(Decimal::new(expression.clone(), &kind));
    }
    match expression {
        Expr::Alias(alias) => decimal(&alias.expr, joined),
        Expr::Cast(Cast { expr, field }) if is_lossless(&expr.get_type(&joined.schema)?, field.data_type()) => {
            decimal(expr, joined)
        }
        Expr::Negative(inner) => Ok(decimal(inner, joined)?.map(Decimal::negated)),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let (Some(left), Some(right)) = (decimal(left, joined)?, decimal(right, joined)?) else { return Ok(None) };
            Ok(match op {
                Operator::Plus | Operator::Minus => left.plus_or_minus(*op, right),
                Operator::Multiply => Some(left.times(right)),
                _ => None,
            })
        }
        _ => Ok(None),
    }
}

/// The factors of a product of doubles as far as its order allows: `a.x * b.y * c.z` has three, `a.x * a.y * b.z` two.
fn double_factors(expression: &Expr, joined: &Joined) -> DataFusionResult<Option<Vec<Factor<Expr>>>> {
    if joined.side(expression) != Side::Many {
        return Ok(double_factor(expression, joined)?.map(|factor| vec![factor]));
    }
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Multiply, right }) = expression else { return Ok(None) };
    if left.get_type(&joined.schema)? != DataType::Float64 || right.get_type(&joined.schema)? != DataType::Float64 {
        return Ok(None);
    }
    // Two doubles may be exchanged, but not three regrouped.
    let (first, last) = if joined.side(right) == Side::Many { (right, left) } else { (left, right) };
    let (Some(mut factors), Some(last)) = (double_factors(first, joined)?, double_factor(last, joined)?) else {
        return Ok(None);
    };
    factors.push(last);
    Ok(Some(factors))
}

fn double_factor(expression: &Expr, joined: &Joined) -> DataFusionResult<Option<Factor<Expr>>> {
    let Some(leaf) = single_leaf(expression, joined) else { return Ok(None) };
    let is_safe = never_fails(expression, &joined.schema)?;
    Ok(is_safe.then(|| Factor { leaf, value: expression.clone() }))
}

/// The leaf that an expression reads, or that it reads none; `None` if there are several, and for NULL.
fn single_leaf(expression: &Expr, joined: &Joined) -> Option<Option<usize>> {
    match (joined.side(expression), expression) {
        (Side::One(leaf), _) => Some(Some(leaf)),
        (Side::None, Expr::Literal(value, _)) if !value.is_null() => Some(None),
        _ => None,
    }
}
