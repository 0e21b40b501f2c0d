//! A declared aggregate for the planner: its clauses as expressions over state and arguments.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result as DataFusionResult, ScalarValue};
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{AggregateUDF, Expr, cast};
use datafusion::optimizer::simplify_expressions::ExprSimplifier;
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Ident, visit_expressions_mut};
use millstream_engine::function::{AggregateDeclaration, DeclaredAggregate, other};

use crate::error::{Error, Result};
use crate::function::scalar::{convert, plan_list};
use crate::function::{AggregateBody, FunctionDefinition, ParsedExpressions, fit};
use crate::repeatable::is_unrepeatable;
use crate::scope::Names;
use crate::types::sql_name;

/// Plans the clauses of an aggregate.
///
/// # Errors
/// A clause names something that is not there, is of a type that does not fit, or depends on when it runs.
pub(super) fn compile(names: &Names, definition: &FunctionDefinition, body: &AggregateBody) -> Result<AggregateUDF> {
    let clauses = Clauses { names, definition };
    let state: Vec<FieldRef> = body.state.iter().map(|(field, _)| Arc::clone(field)).collect();
    let with_row: Vec<FieldRef> = state.iter().chain(&definition.arguments).cloned().collect();
    let others = state.iter().map(|field| Arc::new(Field::clone(field).with_name(other(field.name()))));
    let with_other: Vec<FieldRef> = state.iter().cloned().chain(others).collect();
    let initial = |(field, value): &(FieldRef, Option<ParsedExpressions>)| match value {
        Some(value) => clauses.constant(field, value),
        None => ScalarValue::try_from(field.data_type()).map_err(broken),
    };
    let inverse = body.inverse.as_ref();
    let mut finish = clauses.plan("FINISH", &body.finish, &state, std::slice::from_ref(&result(definition)))?;
    let declaration = AggregateDeclaration {
        name: definition.name.clone(),
        arguments: definition.arguments.clone(),
        returns: definition.returns.clone(),
        initial: body.state.iter().map(initial).collect::<Result<_>>()?,
        update: clauses.plan("UPDATE", &body.update, &with_row, &state)?,
        merge: clauses.plan("MERGE", &with_other_names(&body.merge), &with_other, &state)?,
        inverse: inverse.map(|inverse| clauses.plan("INVERSE", inverse, &with_row, &state)).transpose()?,
        finish: finish.pop().ok_or_else(|| Error::new("the aggregate has no FINISH"))?,
        state,
    };
    Ok(AggregateUDF::new_from_impl(DeclaredAggregate::new(declaration).map_err(broken)?))
}

fn broken(error: DataFusionError) -> Error {
    let message = format!("the aggregate cannot be computed: {}", error.message());
    Error { source: Some(Arc::new(error)), ..Error::new(message) }
}

/// The result as FINISH sees it.
fn result(definition: &FunctionDefinition) -> FieldRef {
    Arc::new(Field::new("the result", definition.returns.clone(), true))
}

/// `other.s` as the one name that the column of the other state has.
fn with_other_names(merge: &ParsedExpressions) -> ParsedExpressions {
    let mut merge = merge.clone();
    for expression in &mut merge.list {
        let _: ControlFlow<()> = visit_expressions_mut(expression, |expression| {
            if let SqlExpr::CompoundIdentifier(parts) = expression
                && let [first, column] = parts.as_slice()
                && first.quote_style.is_none()
                && first.value.eq_ignore_ascii_case("other")
            {
                let name =
                    if column.quote_style.is_some() { column.value.clone() } else { column.value.to_lowercase() };
                let span = first.span.union(&column.span);
                *expression = SqlExpr::Identifier(Ident { value: other(&name), quote_style: Some('"'), span });
            }
            ControlFlow::Continue(())
        });
    }
    merge
}

struct Clauses<'a> {
    names: &'a Names,
    definition: &'a FunctionDefinition,
}

impl Clauses<'_> {
    /// The expressions of a clause over `columns`, each for the one of `targets` beside it.
    fn plan(
        &self,
        clause: &str,
        parsed: &ParsedExpressions,
        columns: &[FieldRef],
        targets: &[FieldRef],
    ) -> Result<Vec<Expr>> {
        let schema = DFSchema::from_unqualified_fields(columns.to_vec().into(), Default::default()).map_err(broken)?;
        let what = format!("{clause} of the aggregate \"{}\"", self.definition.name);
        let mut expressions = Vec::with_capacity(targets.len());
        for ((expression, kind, place), target) in
            plan_list(self.names, parsed, &schema, &what)?.into_iter().zip(targets)
        {
            check_repeatable(&expression, &what).map_err(|error| error.at(place))?;
            let wanted = target.data_type();
            if !fit::stores(&kind, wanted) && !fit::is_literal_of(&expression, wanted) {
                let (kind, name, wanted_name) = (sql_name(&kind), target.name(), sql_name(wanted));
                let name = if name.contains(' ') { name.clone() } else { format!("\"{name}\"") };
                let message = format!("{clause} gives {kind} for {name}, which is {wanted_name}");
                return Err(Error::new(message).hint(convert(wanted)).at(place));
            }
            expressions.push(expression);
        }
        Ok(expressions)
    }

    /// What a column of the state holds before the first row.
    fn constant(&self, field: &FieldRef, value: &ParsedExpressions) -> Result<ScalarValue> {
        let planned = self.plan("STATE", value, &[], std::slice::from_ref(field))?;
        let place = value.query.tokens.first().and_then(|token| crate::error::location(token.span.start));
        let constant = planned.into_iter().next().map(|expression| evaluated(expression, field.data_type()));
        match constant.transpose() {
            Ok(Some(Some(value))) => Ok(value),
            Ok(_) => {
                let error =
                    Error::new(format!("the value of \"{}\" before the first row is no constant", field.name()));
                Err(error.hint("write a literal, or leave it out for NULL").at(place))
            }
            Err(error) => Err(broken(error).at(place)),
        }
    }
}

/// The value of a constant expression.
fn evaluated(expression: Expr, kind: &DataType) -> DataFusionResult<Option<ScalarValue>> {
    let schema = Arc::new(DFSchema::empty());
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(Arc::clone(&schema)).build());
    let coerced = simplifier.coerce(cast(expression, kind.clone()), &schema)?;
    Ok(match simplifier.simplify(coerced)? {
        Expr::Literal(value, _) => Some(value),
        _ => None,
    })
}

/// State outlives the run of a query: what makes it must give the same again.
fn check_repeatable(expression: &Expr, what: &str) -> Result<()> {
    let mut found = None;
    let visited: DataFusionResult<_> = expression.apply(|expression| {
        Ok(match expression {
            Expr::ScalarFunction(call) if is_unrepeatable(&call.func) => {
                found = Some(call.func.name().to_owned());
                TreeNodeRecursion::Stop
            }
            _ => TreeNodeRecursion::Continue,
        })
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    let Some(name) = found else { return Ok(()) };
    let error = Error::new(format!("{name} in {what} would make the result depend on when the query runs"));
    Err(error.hint("give the aggregate the value as an argument"))
}
