//! What each leaf and the aggregate above the join compute for one aggregate of the query.

use std::sync::Arc;

use datafusion::arrow::datatypes::DataType;
use datafusion::error::Result as DataFusionResult;
use datafusion::functions_aggregate::count::count_udaf;
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::utils::{conjunction, split_conjunction};
use datafusion::logical_expr::{
    AggregateUDF, BinaryExpr, Cast, Expr, ExprSchemable, Operator, binary_expr, cast, is_not_null, lit, when,
};

use super::decimal::Decimal;
use super::double::{self, DoubleSum};
use super::grouping::Grouping;
use super::joined::{Joined, Side};
use super::product::{Factor, Product};
use super::safe::{digits_of, never_fails};

/// Aggregates to which it is the same how often a value occurs.
const EXTREMES: [&str; 6] = ["bit_and", "bit_or", "bool_and", "bool_or", "max", "min"];
/// How many digits a decimal average has behind the point beyond those of its argument.
const AVERAGE_DIGITS: i8 = 4;
/// The most digits behind the point that a decimal in 128 bits can have.
const MOST_SCALE: i8 = 38;

/// An aggregate of the query, over the columns of the leaves.
#[derive(Debug)]
pub(super) struct Call {
    function: Arc<AggregateUDF>,
    argument: Expr,
    /// For each leaf, which of its rows take part.
    filters: Vec<Option<Expr>>,
    result: DataType,
}

impl Call {
    /// Reads `expression`, whose type is `result`; `None` if it is not an aggregate of one argument that could factor.
    pub(super) fn read(expression: &Expr, result: DataType, joined: &Joined) -> DataFusionResult<Option<Self>> {
        let Expr::AggregateFunction(AggregateFunction { func, params }) = expression.clone().unalias() else {
            return Ok(None);
        };
        let is_plain = params.order_by.is_empty() && params.null_treatment.is_none();
        let [argument] = params.args.as_slice() else { return Ok(None) };
        if !is_plain || (params.distinct && !EXTREMES.contains(&func.name())) {
            return Ok(None);
        }
        let argument = joined.over_leaves(argument)?;
        let Some(filters) = filters(params.filter.as_deref(), joined)? else { return Ok(None) };
        Ok(Some(Self { function: func, argument, filters, result }))
    }

    /// Adds what it needs to the groupings of the leaves and to `top`; the result over the columns of `top`.
    pub(super) fn measure(&self, joined: &mut Joined, top: &mut Grouping) -> DataFusionResult<Option<Expr>> {
        match self.function.name() {
            "count" => self.count(joined, top),
            "sum" => self.sum(joined, top),
            "avg" => self.average(joined, top),
            name if EXTREMES.contains(&name) => self.extreme(joined, top),
            _ => Ok(None),
        }
    }

    fn count(&self, joined: &mut Joined, top: &mut Grouping) -> DataFusionResult<Option<Expr>> {
        let mut parts = Vec::new();
        if !add_nullable_parts(&self.argument, joined, &mut parts)? {
            return Ok(None);
        }
        let pairs = self.pairs(&parts, joined, top).expression;
        // Over no pairs at all a sum is NULL, a count is 0.
        let count = cast(pairs.clone(), self.result.clone());
        when(is_not_null(pairs), count).otherwise(lit(0_i64)).map(Some)
    }

    fn sum(&self, joined: &mut Joined, top: &mut Grouping) -> DataFusionResult<Option<Expr>> {
        let Some(product) = Product::read(&self.argument, joined)? else { return Ok(None) };
        Ok(match &product {
            Product::Double(factors) => Some(self.double_sum(factors, joined, top)),
            Product::Exact(factors) => {
                self.exact_sum(factors, joined, top).map(|sum| cast(sum.expression, self.result.clone()))
            }
        })
    }

    fn average(&self, joined: &mut Joined, top: &mut Grouping) -> DataFusionResult<Option<Expr>> {
        let Some(product) = Product::read(&self.argument, joined)? else { return Ok(None) };
        let pairs = self.pairs(&product.of_leaves(), joined, top);
        let factors = match &product {
            Product::Exact(factors) => factors,
            Product::Double(factors) => {
                let sum = self.double_sum(factors, joined, top);
                return Ok(Some(divided(sum, cast(pairs.expression, DataType::Float64))));
            }
        };
        let Some(sum) = self.exact_sum(factors, joined, top) else { return Ok(None) };
        if self.result == DataType::Float64 {
            let [sum, pairs] = [sum, pairs].map(|decimal| cast(decimal.expression, DataType::Float64));
            return Ok(Some(divided(sum, pairs)));
        }
        // The division gives four digits more than the sum has and cuts the rest off, as AVG does.
        let kind = self.argument.get_type(&joined.schema)?;
        let scale = digits_of(&kind).map(|(_, scale)| scale).filter(|scale| scale + AVERAGE_DIGITS <= MOST_SCALE);
        Ok(scale.map(|scale| cast(divided(sum.scaled(scale), pairs.scaled(0)), self.result.clone())))
    }

    /// One side's least or greatest value.
    fn extreme(&self, joined: &mut Joined, top: &mut Grouping) -> DataFusionResult<Option<Expr>> {
        let Side::One(number) = joined.side(&self.argument) else { return Ok(None) };
        let others = self.filters.iter().enumerate().filter(|(leaf, _)| *leaf != number);
        let is_filtered_elsewhere = others.map(|(_, filter)| filter).any(Option::is_some);
        if is_filtered_elsewhere || !never_fails(&self.argument, &joined.schema)? {
            return Ok(None);
        }
        let kind = self.argument.get_type(&joined.schema)?;
        let filter = self.filters.get(number).cloned().flatten();
        let Some(leaf) = joined.leaves.get_mut(number) else { return Ok(None) };
        let mut twice = |argument: Expr| {
            let column = leaf.grouping.value(Arc::clone(&self.function), argument, filter.clone());
            top.value(Arc::clone(&self.function), column, None)
        };
        if !kind.is_floating() {
            return Ok(Some(twice(self.argument.clone())));
        }
        // In groups, DataFusion's MIN and MAX of doubles depend on the order of rows where there are NaN, and do not
        // know the infinities; the ranks of the doubles are integers.
        let rank = twice(double::rank(cast(self.argument.clone(), DataType::Float64)));
        Ok(Some(cast(double::of_rank(rank), self.result.clone())))
    }

    /// How many combinations of rows have no NULL among `parts`.
    fn pairs(&self, parts: &[(usize, Expr)], joined: &mut Joined, top: &mut Grouping) -> Decimal {
        let leaves = joined.leaves.iter_mut().zip(&self.filters).enumerate();
        let counts = leaves.map(|(number, (leaf, filter))| {
            let mut of_leaf = parts.iter().filter(|(leaf, _)| *leaf == number).map(|(_, part)| part.clone());
            let first = of_leaf.next().unwrap_or_else(|| lit(1_i64));
            let passes = of_leaf.map(is_not_null).chain(filter.clone());
            Decimal::count(leaf.grouping.value(count_udaf(), first, conjunction(passes)))
        });
        total(counts.fold(Decimal::one(), Decimal::times), top)
    }

    /// The sum of a product of integers and decimals; `None` where 256 bits might not do.
    fn exact_sum(&self, factors: &[Factor<Decimal>], joined: &mut Joined, top: &mut Grouping) -> Option<Decimal> {
        let of = |leaf: Option<usize>| {
            let factors = factors.iter().filter(move |factor| factor.leaf == leaf);
            factors.map(|factor| factor.value.clone()).reduce(Decimal::times)
        };
        let mut product = of(None).unwrap_or_else(Decimal::one);
        for (number, (leaf, filter)) in joined.leaves.iter_mut().zip(&self.filters).enumerate() {
            let grouping = &mut leaf.grouping;
            // Where no row passes its filter a leaf's sum is NULL and so is the product, which a count would not be.
            let value = of(Some(number)).or_else(|| filter.as_ref().map(|_| Decimal::one()));
            product = product.times(match value {
                Some(value) if !value.is_summable() => return None,
                Some(value) => value.sum(|summand| grouping.value(sum_udaf(), summand, filter.clone())),
                None => Decimal::count(grouping.value(count_udaf(), lit(1_i64), None)),
            });
        }
        Some(total(product, top))
    }

    /// The sum of a product of doubles.
    fn double_sum(&self, factors: &[Factor<Expr>], joined: &mut Joined, top: &mut Grouping) -> Expr {
        let mut sums = Vec::new();
        for Factor { leaf, value } in factors {
            let place = leaf.and_then(|leaf| Some((joined.leaves.get_mut(leaf)?, self.filters.get(leaf)?)));
            sums.push(match place {
                Some((leaf, filter)) => DoubleSum::of(value, filter.as_ref(), &mut leaf.grouping),
                None => DoubleSum::constant(value.clone()),
            });
        }
        for (number, (leaf, filter)) in joined.leaves.iter_mut().zip(&self.filters).enumerate() {
            if factors.iter().any(|factor| factor.leaf == Some(number)) {
                continue;
            }
            sums.push(match filter {
                Some(filter) => DoubleSum::of(&lit(1.0_f64), Some(filter), &mut leaf.grouping),
                None => DoubleSum::ones(leaf.grouping.value(count_udaf(), lit(1_i64), None)),
            });
        }
        double::product(vec![DoubleSum::of(&double::product(sums), None, top)])
    }
}

/// The sum over all combinations of groups.
fn total(product: Decimal, top: &mut Grouping) -> Decimal {
    product.limited().sum(|summand| top.value(sum_udaf(), summand, None))
}

fn divided(sum: Expr, count: Expr) -> Expr {
    binary_expr(sum, Operator::Divide, count)
}

/// The conditions of `filter` by leaf; `None` if one is of several leaves or may fail.
fn filters(filter: Option<&Expr>, joined: &Joined) -> DataFusionResult<Option<Vec<Option<Expr>>>> {
    let mut by_leaf = vec![Vec::new(); joined.leaves.len()];
    let filter = filter.map(|filter| joined.over_leaves(filter)).transpose()?;
    for condition in filter.iter().flat_map(split_conjunction) {
        let Side::One(number) = joined.side(condition) else { return Ok(None) };
        if !never_fails(condition, &joined.schema)? {
            return Ok(None);
        }
        by_leaf.get_mut(number).into_iter().for_each(|conditions| conditions.push(condition.clone()));
    }
    Ok(Some(by_leaf.into_iter().map(conjunction).collect()))
}

/// Adds the parts of `argument` whose being NULL makes it NULL, by leaf; false if there is something else in it.
fn add_nullable_parts(argument: &Expr, joined: &Joined, parts: &mut Vec<(usize, Expr)>) -> DataFusionResult<bool> {
    match argument {
        Expr::Literal(value, _) => return Ok(!value.is_null()),
        Expr::Alias(alias) => return add_nullable_parts(&alias.expr, joined, parts),
        Expr::Cast(Cast { expr, .. }) if is_number(argument, joined)? && is_number(expr, joined)? => {
            return add_nullable_parts(expr, joined, parts);
        }
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::Plus | Operator::Minus | Operator::Multiply, right })
            if is_number(left, joined)? && is_number(right, joined)? =>
        {
            return Ok(add_nullable_parts(left, joined, parts)? && add_nullable_parts(right, joined, parts)?);
        }
        _ => {}
    }
    let Side::One(leaf) = joined.side(argument) else { return Ok(false) };
    let is_safe = never_fails(argument, &joined.schema)?;
    parts.push((leaf, argument.clone()));
    Ok(is_safe)
}

fn is_number(expression: &Expr, joined: &Joined) -> DataFusionResult<bool> {
    Ok(expression.get_type(&joined.schema)?.is_numeric())
}
