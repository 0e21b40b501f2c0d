//! An aggregate in the making: keys and functions are asked for one by one, each is computed once.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Aggregate, AggregateUDF, Expr, LogicalPlan};

/// The keys and functions of an aggregate; its columns are `name_key_1`, …, `name_value_1`, ….
#[derive(Debug)]
pub(super) struct Grouping {
    name: String,
    keys: Vec<Expr>,
    values: Vec<Expr>,
}

impl Grouping {
    /// An aggregate without any; `name` tells its columns from those of others in the plan.
    pub(super) const fn new(name: String) -> Self {
        Self { name, keys: Vec::new(), values: Vec::new() }
    }

    /// Groups by `key` too; the column that holds it.
    pub(super) fn key(&mut self, key: Expr) -> Expr {
        let position = position_of(&mut self.keys, key);
        Expr::Column(Column::from_name(format!("{}_key_{position}", self.name)))
    }

    /// Computes `function` of the values of `argument` in rows that pass `filter` too; the column that holds it.
    pub(super) fn value(&mut self, function: Arc<AggregateUDF>, argument: Expr, filter: Option<Expr>) -> Expr {
        let call = AggregateFunction::new_udf(function, vec![argument], false, filter.map(Box::new), Vec::new(), None);
        let position = position_of(&mut self.values, Expr::AggregateFunction(call));
        Expr::Column(Column::from_name(format!("{}_value_{position}", self.name)))
    }

    /// The aggregate over `input`.
    pub(super) fn over(self, input: LogicalPlan) -> DataFusionResult<LogicalPlan> {
        let named = |kind: &str, expressions: Vec<Expr>| -> Vec<Expr> {
            let numbered = expressions.into_iter().zip(1..);
            numbered.map(|(expression, number)| expression.alias(format!("{}_{kind}_{number}", self.name))).collect()
        };
        let (keys, values) = (named("key", self.keys), named("value", self.values));
        Ok(LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input), keys, values)?))
    }
}

/// Where `expression` stands in `list`, counted from 1; it is added if it does not.
fn position_of(list: &mut Vec<Expr>, expression: Expr) -> usize {
    if let Some(position) = list.iter().position(|known| *known == expression) {
        return position + 1;
    }
    list.push(expression);
    list.len()
}
