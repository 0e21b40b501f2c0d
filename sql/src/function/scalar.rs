//! A declared function for the planner: a name and types to resolve calls by, and the expression that replaces them.

use std::hash::{Hash, Hasher};
use std::ops::ControlFlow;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{DFSchema, DataFusionError, Result as DataFusionResult, internal_err};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, cast,
};
use datafusion::sql::sqlparser::ast::{Expr as SqlExpr, Spanned, visit_expressions};

use crate::error::{Error, Result, location};
use crate::function::{FunctionDefinition, ParsedExpressions, fit};
use crate::scope::Names;
use crate::statement::ParsedQuery;
use crate::types::sql_name;

/// A declared function; it never runs, as its expression takes the place of each call.
#[derive(Debug)]
pub(super) struct DeclaredFunction {
    name: String,
    pub(super) arguments: Vec<FieldRef>,
    signature: Signature,
    returns: DataType,
    /// Over columns named as the arguments, of the type of the result.
    pub(super) body: Expr,
}

/// Plans the expression of a function.
///
/// # Errors
/// It names something that is not there, needs more than one row, or is of a type that does not fit.
pub(super) fn compile(names: &Names, definition: &FunctionDefinition, body: &ParsedExpressions) -> Result<ScalarUDF> {
    let fail = |error: DataFusionError| Error { source: Some(error.into()), ..Error::new("the function is broken") };
    let schema = DFSchema::from_unqualified_fields(definition.arguments.clone().into(), Default::default());
    let what = format!("the function \"{}\"", definition.name);
    let planned = plan_list(names, body, &schema.map_err(fail)?, &what)?;
    let Some((planned, kind, place)) = planned.into_iter().next() else {
        return Err(Error::new("the function has no expression"));
    };
    let returns = definition.returns.clone();
    if !fit::stores(&kind, &returns) && !fit::is_literal_of(&planned, &returns) {
        let message = format!("the expression is {}, not {}", sql_name(&kind), sql_name(&returns));
        return Err(Error::new(message).hint(convert(&returns)).at(place));
    }
    let count = definition.arguments.len();
    let signature = match count {
        0 => Ok(Signature::nullary(Volatility::Immutable)),
        _ => Signature::any(count, Volatility::Immutable)
            .with_parameter_names(definition.arguments.iter().map(|field| field.name().clone()).collect()),
    };
    Ok(ScalarUDF::new_from_impl(DeclaredFunction {
        name: definition.name.clone(),
        arguments: definition.arguments.clone(),
        signature: signature.map_err(fail)?,
        body: if kind == returns { planned } else { cast(planned, returns.clone()) },
        returns,
    }))
}

/// What to type for an expression of another type.
pub(super) fn convert(to: &DataType) -> String {
    format!("convert it: CAST(… AS {})", sql_name(to))
}

/// An expression with its type and its place.
pub(super) type Planned = (Expr, DataType, Option<millstream_engine::plan::Location>);

/// Plans expressions over columns of `schema`, each of one row.
///
/// # Errors
/// As [`compile`]; `what` is named as what cannot have them.
pub(super) fn plan_list(
    names: &Names,
    parsed: &ParsedExpressions,
    schema: &DFSchema,
    what: &str,
) -> Result<Vec<Planned>> {
    let plan = |sql: &SqlExpr| {
        let place = location(sql.span().start)
            .or_else(|| parsed.query.tokens.first().and_then(|token| location(token.span.start)));
        refuse_subqueries(sql, what).map_err(|error| error.at(place))?;
        let (expression, kind) = names.plan_expression(&parsed.query, sql, schema).map_err(of_arguments)?;
        refuse_other_rows(&expression, what, &parsed.query).map_err(|error| error.at(place))?;
        Ok((expression, kind, place))
    };
    parsed.list.iter().map(plan).collect()
}

/// The planner speaks of columns where a function has arguments.
fn of_arguments(error: Error) -> Error {
    let message = error.message.replace("unknown column", "unknown argument");
    let hint = error.hint.map(|hint| hint.replace("the columns are", "there is"));
    Error { message, hint, ..error }
}

fn refuse_subqueries(sql: &SqlExpr, what: &str) -> Result<()> {
    let has_subquery = visit_expressions(sql, |expression| match expression {
        SqlExpr::Subquery(_) | SqlExpr::Exists { .. } | SqlExpr::InSubquery { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    if has_subquery.is_continue() {
        return Ok(());
    }
    Err(Error::unsupported(format!("a subquery in {what}"), "join the relation in the query that calls it"))
}

/// Refuses what cannot be computed of one row.
fn refuse_other_rows(expression: &Expr, what: &str, query: &ParsedQuery) -> Result<()> {
    let mut refusal = None;
    let visited: DataFusionResult<_> = expression.apply(|expression| {
        let found = match expression {
            Expr::AggregateFunction(call) => Some((call.func.name().to_owned(), "an aggregate")),
            Expr::WindowFunction(call) => Some((call.fun.name().to_owned(), "a function of rows around a row")),
            Expr::Unnest(_) => Some(("unnest".to_owned(), "a function that makes several rows of one")),
            Expr::Placeholder(_) => Some(("a parameter".to_owned(), "a value of each query")),
            _ => None,
        };
        refusal = found;
        Ok(if refusal.is_some() { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    debug_assert!(visited.is_ok(), "the visitor never fails");
    let Some((name, kind)) = refusal else { return Ok(()) };
    let error = Error::new(format!("{what} is computed of one row, and {name} is {kind}"));
    let hint = "call it in the query, around this function; or declare an aggregate: CREATE AGGREGATE";
    Err(error.hint(hint).at(query.find(&[&name])))
}

impl PartialEq for DeclaredFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name && self.arguments == other.arguments && self.body == other.body
    }
}

impl Eq for DeclaredFunction {}

impl Hash for DeclaredFunction {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
        self.body.hash(state);
    }
}

impl ScalarUDFImpl for DeclaredFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(self.returns.clone())
    }

    fn invoke_with_args(&self, _args: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        internal_err!("the declared function {} was not replaced by its expression", self.name)
    }
}
