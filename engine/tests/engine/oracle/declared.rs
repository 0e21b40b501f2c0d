//! Aggregates that are declared by expressions, for queries to be compared with the built-in ones they imitate.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Column, ScalarValue};
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::{AggregateUDF, Expr, col, lit, when};
use millstream_engine::function::{AggregateDeclaration, DeclaredAggregate, other};

/// `total`, which is `SUM` of integers, and `wavg(value, weight)`, which is `SUM(value * weight) / SUM(weight)`.
pub(crate) fn aggregates() -> impl Iterator<Item = AggregateUDF> {
    [total(), wavg()]
        .into_iter()
        .map(|declaration| AggregateUDF::new_from_impl(DeclaredAggregate::new(declaration).unwrap()))
}

fn fields(kind: &DataType, names: &[&str]) -> Vec<FieldRef> {
    names.iter().map(|name| Arc::new(Field::new(*name, kind.clone(), true))).collect()
}

fn of_other(column: &str) -> Expr {
    Expr::Column(Column::new_unqualified(other(column)))
}

fn total() -> AggregateDeclaration {
    let one = || when(col("v").is_null(), lit(0_i64)).otherwise(lit(1_i64)).unwrap();
    let value = || coalesce(vec![col("v"), lit(0_i64)]);
    AggregateDeclaration {
        name: "total".to_owned(),
        arguments: fields(&DataType::Int64, &["v"]),
        returns: DataType::Int64,
        state: fields(&DataType::Int64, &["s", "n"]),
        initial: vec![ScalarValue::Int64(Some(0)); 2],
        update: vec![col("s") + value(), col("n") + one()],
        merge: vec![col("s") + of_other("s"), col("n") + of_other("n")],
        inverse: Some(vec![col("s") - value(), col("n") - one()]),
        finish: when(col("n").gt(lit(0)), col("s")).end().unwrap(),
    }
}

fn wavg() -> AggregateDeclaration {
    AggregateDeclaration {
        name: "wavg".to_owned(),
        arguments: fields(&DataType::Float64, &["v", "w"]),
        returns: DataType::Float64,
        state: fields(&DataType::Float64, &["s", "n"]),
        initial: vec![ScalarValue::Float64(Some(0.0)); 2],
        update: vec![col("s") + col("v") * col("w"), col("n") + col("w")],
        merge: vec![col("s") + of_other("s"), col("n") + of_other("n")],
        inverse: None,
        finish: col("s") / col("n"),
    }
}
