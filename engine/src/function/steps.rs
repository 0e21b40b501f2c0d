//! The expressions of a declared aggregate, planned once and run on columns.
//!
//! A state is a row of its state columns; a list of arrays holds several states, all of one length.

use std::sync::Arc;

use datafusion::arrow::array::ArrayRef;
use datafusion::arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef};
use datafusion::arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result as DataFusionResult;
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{Expr, ExprSchemable, cast};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};

use crate::function::{AggregateDeclaration, other};
use crate::program::check_expression;

/// The steps of an aggregate.
#[derive(Debug)]
pub(super) struct Steps {
    initial: Vec<ScalarValue>,
    update: Step,
    merge: Step,
    inverse: Option<Step>,
    finish: Step,
}

/// Expressions over the same columns.
#[derive(Debug)]
struct Step {
    input: SchemaRef,
    expressions: Vec<Arc<dyn PhysicalExpr>>,
}

impl Steps {
    /// # Errors
    /// Fails if an expression names a column that it does not have, or has no type.
    pub(super) fn plan(declaration: &AggregateDeclaration) -> DataFusionResult<Self> {
        let state = &declaration.state;
        let types: Vec<_> = state.iter().map(|field| field.data_type().clone()).collect();
        let with_row: Vec<_> = state.iter().chain(&declaration.arguments).cloned().collect();
        let others = state.iter().map(|field| Arc::new(Field::clone(field).with_name(other(field.name()))));
        let with_other: Vec<_> = state.iter().cloned().chain(others).collect();
        let inverse = declaration.inverse.as_ref();
        Ok(Self {
            initial: declaration.initial.clone(),
            update: Step::plan(&declaration.update, &types, &with_row)?,
            merge: Step::plan(&declaration.merge, &types, &with_other)?,
            inverse: inverse.map(|inverse| Step::plan(inverse, &types, &with_row)).transpose()?,
            finish: Step::plan(
                std::slice::from_ref(&declaration.finish),
                std::slice::from_ref(&declaration.returns),
                state,
            )?,
        })
    }

    /// Whether a row can be taken out of a state.
    pub(super) const fn has_inverse(&self) -> bool {
        self.inverse.is_some()
    }

    /// `count` states of no rows.
    pub(super) fn initial(&self, count: usize) -> DataFusionResult<Vec<ArrayRef>> {
        self.initial.iter().map(|value| value.to_array_of_size(count)).collect()
    }

    /// Each state after the row of arguments beside it.
    pub(super) fn update(&self, states: Vec<ArrayRef>, arguments: &[ArrayRef]) -> DataFusionResult<Vec<ArrayRef>> {
        let rows = arguments.first().map_or(0, |column| column.len());
        self.update.run(states.into_iter().chain(arguments.iter().cloned()).collect(), rows)
    }

    /// Each state together with the one of `others` beside it.
    pub(super) fn merge(&self, states: Vec<ArrayRef>, others: Vec<ArrayRef>) -> DataFusionResult<Vec<ArrayRef>> {
        let rows = states.first().map_or(0, |column| column.len());
        self.merge.run(states.into_iter().chain(others).collect(), rows)
    }

    /// Each state without the row of arguments beside it; as it is if there is no inverse.
    pub(super) fn inverse(&self, states: Vec<ArrayRef>, arguments: &[ArrayRef]) -> DataFusionResult<Vec<ArrayRef>> {
        let rows = arguments.first().map_or(0, |column| column.len());
        match &self.inverse {
            Some(inverse) => inverse.run(states.into_iter().chain(arguments.iter().cloned()).collect(), rows),
            None => Ok(states),
        }
    }

    /// The result of each state.
    pub(super) fn finish(&self, states: Vec<ArrayRef>) -> DataFusionResult<ArrayRef> {
        let rows = states.first().map_or(0, |column| column.len());
        let mut results = self.finish.run(states, rows)?;
        results.pop().ok_or_else(|| datafusion::common::internal_datafusion_err!("an aggregate has no result"))
    }
}

impl Step {
    fn plan(expressions: &[Expr], types: &[DataType], input: &[FieldRef]) -> DataFusionResult<Self> {
        let input = Arc::new(Schema::new(input.to_vec()));
        let schema = Arc::new(DFSchema::try_from(Arc::clone(&input))?);
        let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(Arc::clone(&schema)).build());
        let plan = |(expression, kind): (&Expr, &DataType)| {
            let coerced = simplifier.coerce(expression.clone(), &schema)?;
            let cast = if coerced.get_type(&schema)? == *kind { coerced } else { cast(coerced, kind.clone()) };
            let checked = check_expression(simplifier.simplify(cast)?, &schema)?;
            create_physical_expr(&checked, &schema, &ExecutionProps::new(), &PhysicalPlanningContext::default())
        };
        let expressions = expressions.iter().zip(types).map(plan).collect::<DataFusionResult<_>>()?;
        Ok(Self { input, expressions })
    }

    fn run(&self, columns: Vec<ArrayRef>, rows: usize) -> DataFusionResult<Vec<ArrayRef>> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(&self.input), columns, &options)?;
        self.expressions.iter().map(|expression| expression.evaluate(&batch)?.into_array(rows)).collect()
    }
}
