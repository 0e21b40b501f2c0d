//! Puts the expressions of declared functions in the place of their calls, and arguments into their types.
//!
//! The expression stands under the name of the call, `f(t.x)`, wherever that was: the names of columns stay, and what
//! refers to them. Calls of declared aggregates stay; what they cannot do is refused here.

use std::sync::Arc;

use datafusion::arrow::datatypes::FieldRef;
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result as DataFusionResult};
use datafusion::logical_expr::expr::{AggregateFunction, ScalarFunction, WindowFunction};
use datafusion::logical_expr::{
    Expr, ExprSchemable, LogicalPlan, Projection, WindowFrameBound, WindowFunctionDefinition, cast,
};
use millstream_engine::function::DeclaredAggregate;

use crate::error::Error;
use crate::function::fit;
use crate::function::scalar::{DeclaredFunction, convert};
use crate::statement::ParsedQuery;
use crate::types::sql_name;

/// The most parts that one expression may have once functions are replaced; arguments count as often as they are used.
const MAX_PARTS: usize = 10_000;
/// How deep they may nest.
const MAX_DEPTH: usize = 300;

/// `plan` without calls of declared functions.
///
/// # Errors
/// An argument does not fit, a call grows too large, or an aggregate is asked for what it cannot do.
pub(crate) fn expand_plan(plan: LogicalPlan, query: &ParsedQuery) -> DataFusionResult<LogicalPlan> {
    if !calls_declared(&plan)? {
        return Ok(plan);
    }
    let plan = plan.transform_up_with_subqueries(|node| {
        let mut schema = DFSchema::empty();
        for input in node.inputs() {
            schema.merge(input.schema());
        }
        let names = Arc::clone(node.schema());
        let node = node
            .map_expressions(|expression| expression.transform_up(|expression| expand(expression, &schema, query)))?;
        // A function may be NULL where its expression never is.
        node.map_data(|node| with_names(node.recompute_schema()?, &names))
    })?;
    Ok(plan.data)
}

/// `plan` with the names that its columns had: those of window functions are made of how their order is written.
fn with_names(plan: LogicalPlan, names: &DFSchema) -> DataFusionResult<LogicalPlan> {
    let columns = plan.schema().columns();
    if columns == names.columns() {
        return Ok(plan);
    }
    let renamed = columns.into_iter().zip(names.iter()).map(|(column, (qualifier, field))| {
        let is_named = column.name == *field.name();
        let column = Expr::Column(column);
        if is_named { column } else { column.alias_qualified(qualifier.cloned(), field.name()) }
    });
    Ok(LogicalPlan::Projection(Projection::try_new(renamed.collect(), Arc::new(plan))?))
}

/// The same for one expression over columns of `schema`.
///
/// # Errors
/// As [`expand_plan`].
pub(crate) fn expand_expression(expression: Expr, schema: &DFSchema, query: &ParsedQuery) -> DataFusionResult<Expr> {
    Ok(expression.transform_up(|expression| expand(expression, schema, query))?.data)
}

fn calls_declared(plan: &LogicalPlan) -> DataFusionResult<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            found = found || expression.exists(|expression| Ok(is_declared(expression)))?;
            Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        })
    })?;
    Ok(found)
}

fn is_declared(expression: &Expr) -> bool {
    match expression {
        Expr::ScalarFunction(call) => call.func.inner().is::<DeclaredFunction>(),
        Expr::AggregateFunction(call) => DeclaredAggregate::of(&call.func).is_some(),
        Expr::WindowFunction(call) => declared_over(call).is_some(),
        _ => false,
    }
}

fn declared_over(call: &WindowFunction) -> Option<&DeclaredAggregate> {
    match &call.fun {
        WindowFunctionDefinition::AggregateUDF(function) => DeclaredAggregate::of(function),
        WindowFunctionDefinition::WindowUDF(_) => None,
    }
}

fn expand(expression: Expr, schema: &DFSchema, query: &ParsedQuery) -> DataFusionResult<Transformed<Expr>> {
    if !is_declared(&expression) {
        return Ok(Transformed::no(expression));
    }
    let refuse = |name: &str, error: Error| {
        let name = name.to_owned();
        DataFusionError::External(Box::new(error.at(query.find(&[&name]))))
    };
    match expression {
        Expr::ScalarFunction(call) => {
            let name = call.func.name().to_owned();
            Ok(Transformed::yes(inlined(call, schema)?.map_err(|error| refuse(&name, error))?))
        }
        Expr::AggregateFunction(mut call) => {
            check_aggregate(&call).map_err(|error| refuse(call.func.name(), error))?;
            if let Some(declared) = DeclaredAggregate::of(&call.func) {
                let declaration = declared.declaration();
                call.params.args = fitted(&declaration.name, call.params.args, &declaration.arguments, schema)?
                    .map_err(|error| refuse(&declaration.name, error))?;
            }
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        Expr::WindowFunction(mut call) => {
            check_over(&call).map_err(|error| refuse(call.fun.name(), error))?;
            if let WindowFunctionDefinition::AggregateUDF(function) = &call.fun
                && let Some(declared) = DeclaredAggregate::of(function)
            {
                let declaration = declared.declaration();
                call.params.args = fitted(&declaration.name, call.params.args, &declaration.arguments, schema)?
                    .map_err(|error| refuse(&declaration.name, error))?;
            }
            Ok(Transformed::yes(Expr::WindowFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    }
}

/// Refusals in the user's words inside of failures of the planner.
type Refusable<T> = DataFusionResult<Result<T, Error>>;

/// The expression of the function over the arguments of the call, under the call's name.
fn inlined(call: ScalarFunction, schema: &DFSchema) -> Refusable<Expr> {
    let name = Expr::ScalarFunction(call.clone()).schema_name().to_string();
    let ScalarFunction { func, args } = call;
    let Some(function) = func.inner().downcast_ref::<DeclaredFunction>() else {
        return Ok(Ok(Expr::ScalarFunction(ScalarFunction { func, args })));
    };
    let args = match fitted(func.name(), args, &function.arguments, schema)? {
        Ok(args) => args,
        Err(refusal) => return Ok(Err(refusal)),
    };
    if let Err(refusal) = check_growth(func.name(), function, &args) {
        return Ok(Err(refusal));
    }
    let argument = |name: &str| {
        let position = function.arguments.iter().position(|argument| argument.name() == name)?;
        args.get(position)
    };
    let body = function.body.clone().transform_up(|part| match &part {
        Expr::Column(column) if column.relation.is_none() => match argument(&column.name) {
            Some(value) => Ok(Transformed::yes(value.clone())),
            None => Ok(Transformed::no(part)),
        },
        _ => Ok(Transformed::no(part)),
    })?;
    Ok(Ok(body.data.alias(name)))
}

/// The arguments as values of the types that were declared.
fn fitted(function: &str, args: Vec<Expr>, parameters: &[FieldRef], schema: &DFSchema) -> Refusable<Vec<Expr>> {
    let mut fitted = Vec::with_capacity(args.len());
    for (value, parameter) in args.into_iter().zip(parameters) {
        let (kind, wanted) = (value.get_type(schema)?, parameter.data_type());
        if kind == *wanted {
            fitted.push(value);
        } else if fit::widens(&kind, wanted) || fit::is_literal_of(&value, wanted) {
            fitted.push(cast(value, wanted.clone()));
        } else {
            let (kind, name, wanted_name) = (sql_name(&kind), parameter.name(), sql_name(wanted));
            let message = format!("{function} takes {wanted_name} for \"{name}\", not {kind}");
            return Ok(Err(Error::new(message).hint(convert(wanted))));
        }
    }
    Ok(Ok(fitted))
}

/// Refuses calls in calls that double each time.
fn check_growth(name: &str, function: &DeclaredFunction, args: &[Expr]) -> Result<(), Error> {
    let (mut size, mut depth) = (Size::of(&function.body), 0);
    for (value, argument) in args.iter().zip(&function.arguments) {
        let uses = uses(&function.body, argument.name());
        if uses > 1 && value.is_volatile() {
            let message =
                format!("{name} uses its argument \"{}\" {uses} times, each with another value", argument.name());
            return Err(
                Error::new(message).hint("compute the value in a subquery: SELECT f(x) FROM (SELECT random() AS x)")
            );
        }
        let of_value = Size::of(value);
        size.parts += uses * of_value.parts;
        depth = depth.max(of_value.depth);
    }
    if size.parts > MAX_PARTS || size.depth + depth > MAX_DEPTH {
        let message = format!("calls of {name} in each other make an expression of over {MAX_PARTS} parts");
        return Err(Error::new(message).hint("compute the inner call in a subquery"));
    }
    Ok(())
}

/// How large an expression is.
#[derive(Debug, Clone, Copy)]
struct Size {
    parts: usize,
    depth: usize,
}

impl Size {
    fn of(expression: &Expr) -> Self {
        let mut size = Self { parts: 1, depth: 0 };
        let visited: DataFusionResult<_> = expression.apply_children(|child| {
            let child = Self::of(child);
            size.parts += child.parts;
            size.depth = size.depth.max(child.depth);
            Ok(TreeNodeRecursion::Continue)
        });
        debug_assert!(visited.is_ok(), "the visitor never fails");
        Self { depth: size.depth + 1, ..size }
    }
}

/// How often the expression names the argument.
fn uses(expression: &Expr, argument: &str) -> usize {
    let mut count = 0;
    let visited: DataFusionResult<_> = expression.apply(|part| {
        let is_it = matches!(part, Expr::Column(column) if column.relation.is_none() && column.name == argument);
        count += usize::from(is_it);
        Ok(TreeNodeRecursion::Continue)
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    count
}

/// Refuses clauses of a call that a declared aggregate has no answer to.
fn check_aggregate(call: &AggregateFunction) -> Result<(), Error> {
    let name = call.func.name();
    if call.params.distinct {
        let error = Error::unsupported(format!("DISTINCT in the declared aggregate {name}"), "");
        return Err(error.hint("take the distinct rows in a subquery first"));
    }
    if !call.params.order_by.is_empty() {
        return Err(Error::new(format!("ORDER BY in {name}, to which the order of rows makes no difference"))
            .hint("leave it out"));
    }
    Ok(())
}

/// Refuses frames from which rows leave that the aggregate cannot take out of its state.
fn check_over(call: &WindowFunction) -> Result<(), Error> {
    let Some(declared) = declared_over(call) else { return Ok(()) };
    let name = &declared.declaration().name;
    if call.params.distinct {
        let error = Error::unsupported(format!("DISTINCT in the declared aggregate {name}"), "");
        return Err(error.hint("take the distinct rows in a subquery first"));
    }
    let is_fixed =
        matches!(&call.params.window_frame.start_bound, WindowFrameBound::Preceding(value) if value.is_null());
    if is_fixed || declared.declaration().inverse.is_some() {
        return Ok(());
    }
    Err(Error::new(format!("rows leave the frame of {name}, which has no INVERSE"))
        .hint("declare how a row is taken out, INVERSE (…); or start the frame at UNBOUNDED PRECEDING"))
}
