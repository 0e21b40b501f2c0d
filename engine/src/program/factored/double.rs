//! Sums of doubles that multiply as the rows would have.
//!
//! The product of two sums is the sum of the products only for finite numbers. So the sum of each side is kept as the
//! sum of its finite values with its least and its greatest value, and a product of sums looks at the products of
//! these ends, which are products of rows that did meet. Every product of rows lies between them: if one is infinite
//! or NaN, so is one of theirs, and the sum of the rows' products is what the infinities and NaN among theirs say.
//! Where all are finite the result is the product of the finite sums; it is an error if that or one of the sums is
//! not a double, as the rows' sum may have been one.
//!
//! The ends are kept as ranks, integers in the order of the doubles, in which NaN stands beyond the infinities:
//! IEEE 754 totalOrder, as `f64::total_cmp`.

use std::sync::Arc;

use datafusion::arrow::array::{Array, ArrayRef, AsArray, Float64Array, Int64Array};
use datafusion::arrow::datatypes::{DataType, Float64Type, Int64Type};
use datafusion::common::{ScalarValue, exec_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::functions_aggregate::min_max::{max_udaf, min_udaf};
use datafusion::functions_aggregate::sum::sum_udaf;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast, lit,
};

use super::grouping::Grouping;

/// The sum of doubles: three expressions.
#[derive(Debug)]
pub(super) struct DoubleSum {
    finite: Expr,
    least: Expr,
    greatest: Expr,
}

impl DoubleSum {
    /// The sum of `value` over the rows of `grouping` that pass `filter`.
    pub(super) fn of(value: &Expr, filter: Option<&Expr>, grouping: &mut Grouping) -> Self {
        let finite = DoubleFunction::call(Kind::Finite, vec![value.clone()]);
        Self {
            finite: grouping.value(sum_udaf(), finite, filter.cloned()),
            least: grouping.value(min_udaf(), rank(value.clone()), filter.cloned()),
            greatest: grouping.value(max_udaf(), rank(value.clone()), filter.cloned()),
        }
    }

    /// The sum of `count` ones.
    pub(super) fn ones(count: Expr) -> Self {
        Self { finite: cast(count, DataType::Float64), least: rank(lit(1.0_f64)), greatest: rank(lit(1.0_f64)) }
    }

    /// The sum that is one double.
    pub(super) fn constant(value: Expr) -> Self {
        Self { finite: value.clone(), least: rank(value.clone()), greatest: rank(value) }
    }
}

/// The product of sums, multiplied from the left to the right as the values of the rows are; of one sum, its value.
pub(super) fn product(sums: Vec<DoubleSum>) -> Expr {
    let parts = sums.into_iter().flat_map(|sum| [sum.finite, sum.least, sum.greatest]);
    DoubleFunction::call(Kind::Product, parts.collect())
}

/// The rank of a double among the doubles.
pub(super) fn rank(value: Expr) -> Expr {
    DoubleFunction::call(Kind::Rank, vec![value])
}

/// The double of a rank.
pub(super) fn of_rank(rank: Expr) -> Expr {
    DoubleFunction::call(Kind::OfRank, vec![rank])
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Kind {
    /// The double, or NULL if it is infinite or NaN.
    Finite,
    Rank,
    OfRank,
    /// The product of sums of three arguments each.
    Product,
}

/// One of the functions.
#[derive(Debug, PartialEq, Eq, Hash)]
struct DoubleFunction {
    kind: Kind,
    signature: Signature,
}

impl DoubleFunction {
    fn call(kind: Kind, arguments: Vec<Expr>) -> Expr {
        let signature = Signature::variadic_any(Volatility::Immutable);
        ScalarUDF::from(Self { kind, signature }).call(arguments)
    }
}

impl ScalarUDFImpl for DoubleFunction {
    fn name(&self) -> &str {
        match self.kind {
            Kind::Finite => "finite_double",
            Kind::Rank => "double_rank",
            Kind::OfRank => "double_of_rank",
            Kind::Product => "product_of_sums",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DataFusionResult<DataType> {
        Ok(if self.kind == Kind::Rank { DataType::Int64 } else { DataType::Float64 })
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let are_scalars = arguments.args.iter().all(|value| matches!(value, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&arguments.args)?;
        let result = self.kind.compute(&arrays)?;
        if are_scalars {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

impl Kind {
    fn compute(self, arrays: &[ArrayRef]) -> DataFusionResult<ArrayRef> {
        let doubles = || arrays.first().and_then(|array| array.as_primitive_opt::<Float64Type>());
        let ranks = || arrays.first().and_then(|array| array.as_primitive_opt::<Int64Type>());
        Ok(match (self, doubles(), ranks()) {
            (Self::Finite, Some(doubles), _) => {
                let finite = doubles.iter().map(|value| value.filter(|value| value.is_finite()));
                Arc::new(finite.collect::<Float64Array>())
            }
            (Self::Rank, Some(doubles), _) => Arc::new(doubles.unary::<_, Int64Type>(rank_of)),
            (Self::OfRank, _, Some(ranks)) => Arc::new(ranks.unary::<_, Float64Type>(double_of)),
            (Self::Product, Some(doubles), _) => Arc::new(products(doubles.len(), arrays)?),
            _ => return exec_err!("a function of doubles is called with other values"),
        })
    }
}

fn rank_of(value: f64) -> i64 {
    flip(value.to_bits().cast_signed())
}

fn double_of(rank: i64) -> f64 {
    f64::from_bits(flip(rank).cast_unsigned())
}

/// Turns the order of the negative numbers around, of which the bits grow with the size; its own inverse.
const fn flip(bits: i64) -> i64 {
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

/// The sum of one side in one row.
#[derive(Debug, Clone, Copy)]
struct Sum {
    finite: f64,
    least: f64,
    greatest: f64,
}

type SumArrays<'a> = (&'a Float64Array, &'a Int64Array, &'a Int64Array);

fn products(rows: usize, arrays: &[ArrayRef]) -> DataFusionResult<Float64Array> {
    let mut sums = Vec::new();
    for part in arrays.chunks(3) {
        let [finite, least, greatest] = part else { return exec_err!("a sum of doubles has three parts") };
        let ranks = (least.as_primitive_opt::<Int64Type>(), greatest.as_primitive_opt::<Int64Type>());
        let (Some(finite), (Some(least), Some(greatest))) = (finite.as_primitive_opt::<Float64Type>(), ranks) else {
            return exec_err!("a sum of doubles has parts of other types");
        };
        sums.push((finite, least, greatest));
    }
    (0..rows).map(|row| product_at(row, &sums)).collect()
}

/// The product in one row; NULL if a side has no values.
fn product_at(row: usize, arrays: &[SumArrays<'_>]) -> DataFusionResult<Option<f64>> {
    let mut sums = Vec::with_capacity(arrays.len());
    for (finite, least, greatest) in arrays {
        if least.is_null(row) || greatest.is_null(row) {
            return Ok(None);
        }
        sums.push(Sum {
            // Where all values are infinite or NaN there is no sum of finite ones.
            finite: if finite.is_null(row) { 0.0 } else { finite.value(row) },
            least: double_of(least.value(row)),
            greatest: double_of(greatest.value(row)),
        });
    }
    product_of(&sums).map(Some)
}

fn product_of(sums: &[Sum]) -> DataFusionResult<f64> {
    let mut ends = vec![1.0];
    for sum in sums {
        let values = [sum.least, sum.greatest];
        let distinct = if sum.least.to_bits() == sum.greatest.to_bits() { 1 } else { 2 };
        ends = values.iter().take(distinct).flat_map(|value| ends.iter().map(move |end| end * value)).collect();
    }
    if ends.iter().any(|end| !end.is_finite()) {
        // The infinities among them add up to what they add up to among the rows.
        return Ok(ends.into_iter().filter(|end| !end.is_finite()).sum());
    }
    let product: f64 = sums.iter().map(|sum| sum.finite).product();
    if product.is_finite() {
        return Ok(product);
    }
    exec_err!(
        "a sum of doubles over a join overflows: the values of one key add up to more than 1.8e308; \
         scale them down, or cast them to DECIMAL"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: [f64; 11] =
        [f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 0.0, -0.0, 1.0, -2.5, 1e200, -1e200, 1e-200, f64::MAX];

    fn sum_of(values: &[f64]) -> Sum {
        let ranks = || values.iter().copied().map(rank_of);
        let finite = values.iter().filter(|value| value.is_finite()).sum();
        Sum { finite, least: double_of(ranks().min().unwrap()), greatest: double_of(ranks().max().unwrap()) }
    }

    #[test]
    fn ranks_are_in_the_order_of_doubles() {
        for a in VALUES {
            assert_eq!(double_of(rank_of(a)).to_bits(), a.to_bits());
            for b in VALUES {
                assert_eq!(rank_of(a).cmp(&rank_of(b)), a.total_cmp(&b), "{a} {b}");
            }
        }
    }

    /// Checks `actual`, the product of the sums of `sides`, against the products of their values.
    fn check(sides: [&[f64]; 3], actual: Option<f64>) {
        let [x, y, z] = sides;
        let products = || x.iter().flat_map(|x| y.iter().flat_map(move |y| z.iter().map(move |z| x * y * z)));
        let size: f64 = products().map(f64::abs).sum();
        let is_right = match actual {
            _ if !products().all(f64::is_finite) => {
                // Finite products before an infinite one may overflow as they are added, which decides nothing.
                let expected: f64 = products().filter(|product| !product.is_finite()).sum();
                actual.is_some_and(|actual| actual == expected || actual.is_nan() && expected.is_nan())
            }
            Some(actual) => (actual - products().sum::<f64>()).abs() <= 1e-12 * size || !size.is_finite(),
            None => {
                let [x, y] = [x, y].map(|side| side.iter().sum::<f64>());
                size > 1e300 || ![x, y, x * y].iter().all(|sum| sum.is_finite())
            }
        };
        assert!(is_right, "{sides:?}: {actual:?}");
    }

    #[test]
    fn a_product_of_sums_is_not_finite_exactly_where_a_product_of_rows_is_not() {
        let pairs = VALUES.iter().flat_map(|a| VALUES.iter().map(move |b| vec![*a, *b]));
        let sides: Vec<_> = pairs.chain(VALUES.iter().map(|a| vec![*a])).collect();
        for x in &sides {
            for y in &sides {
                for z in [&[1.0][..], &[1e-300, -0.0], &[f64::INFINITY, 3.0]] {
                    check([x, y, z], product_of(&[sum_of(x), sum_of(y), sum_of(z)]).ok());
                }
            }
        }
    }
}
