//! Integer arithmetic that fails instead of wrapping around.
//!
//! DataFusion's `+`, `-`, `*` and unary minus wrap; a result that is wrong by 2^64 is a wrong answer. Wherever they
//! stand on integers in an optimised plan, functions take their place that fail on overflow.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, Datum};
use datafusion::arrow::compute::kernels::numeric;
use datafusion::arrow::datatypes::DataType;
use datafusion::arrow::error::ArrowError;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{DFSchema, ScalarValue, internal_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Expr, ExprSchemable, LogicalPlan, Operator, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, Volatility,
};

/// `plan`, optimised already, with checked integer arithmetic in all its expressions.
pub(crate) fn check_arithmetic(plan: LogicalPlan) -> DataFusionResult<LogicalPlan> {
    let plan = plan.transform_up_with_subqueries(|node| {
        let names = NamePreserver::new(&node);
        let mut schema = DFSchema::empty();
        for input in node.inputs() {
            schema.merge(input.schema());
        }
        if let LogicalPlan::TableScan(scan) = &node {
            schema.merge(&scan.projected_schema);
        }
        let checked = |expression: Expr| {
            let name = names.save(&expression);
            let checked = expression.transform_up(|expression| check(expression, &schema))?;
            Ok(checked.update_data(|expression| name.restore(expression)))
        };
        node.map_expressions(|expression| match expression {
            // The groups of a ROLLUP have names, the ROLLUP has none: with one it is not known for what it is.
            Expr::GroupingSet(_) => expression.map_children(checked),
            _ => checked(expression),
        })
    })?;
    // Parents see the columns of their inputs as they are now.
    plan.map_data(LogicalPlan::recompute_schema).map(|plan| plan.data)
}

/// `expression` over columns of `schema`, its types made to agree already, with checked integer arithmetic.
pub(crate) fn check_expression(expression: Expr, schema: &DFSchema) -> DataFusionResult<Expr> {
    Ok(expression.transform_up(|expression| check(expression, schema))?.data)
}

fn check(expression: Expr, schema: &DFSchema) -> DataFusionResult<Transformed<Expr>> {
    let (operation, arguments) = match expression {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match Operation::of(op) {
            Some(operation) => (operation, vec![*left, *right]),
            None => return Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr { left, op, right }))),
        },
        Expr::Negative(inner) => (Operation::Negate, vec![*inner]),
        other => return Ok(Transformed::no(other)),
    };
    let are_integers = arguments
        .iter()
        .map(|argument| Ok(argument.get_type(schema)?.is_integer()))
        .collect::<DataFusionResult<Vec<_>>>()?;
    if are_integers.iter().all(|is_integer| *is_integer) {
        let function = ScalarUDF::from(CheckedArithmetic::new(operation));
        return Ok(Transformed::yes(function.call(arguments)));
    }
    operation.unchecked(arguments)
}

/// What is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Add,
    Subtract,
    Multiply,
    Negate,
}

impl Operation {
    const fn of(operator: Operator) -> Option<Self> {
        match operator {
            Operator::Plus => Some(Self::Add),
            Operator::Minus => Some(Self::Subtract),
            Operator::Multiply => Some(Self::Multiply),
            _ => None,
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Add => "checked_add",
            Self::Subtract => "checked_subtract",
            Self::Multiply => "checked_multiply",
            Self::Negate => "checked_negate",
        }
    }

    /// The plain expression again.
    fn unchecked(self, arguments: Vec<Expr>) -> DataFusionResult<Transformed<Expr>> {
        let mut arguments = arguments.into_iter();
        let (Some(first), second) = (arguments.next(), arguments.next()) else {
            return internal_err!("arithmetic without an operand");
        };
        let operator = match self {
            Self::Add => Operator::Plus,
            Self::Subtract => Operator::Minus,
            Self::Multiply => Operator::Multiply,
            Self::Negate => return Ok(Transformed::no(Expr::Negative(Box::new(first)))),
        };
        let Some(second) = second else { return internal_err!("arithmetic with one operand") };
        Ok(Transformed::no(Expr::BinaryExpr(BinaryExpr::new(Box::new(first), operator, Box::new(second)))))
    }

    fn compute(self, left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Add => numeric::add(left, right),
            Self::Subtract => numeric::sub(left, right),
            Self::Multiply => numeric::mul(left, right),
            Self::Negate => numeric::neg(left.get().0),
        }
    }
}

/// One of the functions.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedArithmetic {
    operation: Operation,
    signature: Signature,
}

impl CheckedArithmetic {
    fn new(operation: Operation) -> Self {
        Self { operation, signature: Signature::variadic_any(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for CheckedArithmetic {
    fn name(&self) -> &str {
        self.operation.name()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, arguments: &[DataType]) -> DataFusionResult<DataType> {
        match arguments {
            [kind] | [kind, _] => Ok(kind.clone()),
            _ => internal_err!("{} takes one or two integers", self.operation.name()),
        }
    }

    fn invoke_with_args(&self, arguments: ScalarFunctionArgs) -> DataFusionResult<ColumnarValue> {
        let (left, right) = match arguments.args.as_slice() {
            [only] => (only, only),
            [left, right] => (left, right),
            _ => return internal_err!("{} takes one or two integers", self.operation.name()),
        };
        let is_scalar = matches!((left, right), (ColumnarValue::Scalar(_), ColumnarValue::Scalar(_)));
        let result = self.operation.compute(datum(left)?.as_ref(), datum(right)?.as_ref())?;
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&result, 0)?));
        }
        Ok(ColumnarValue::Array(result))
    }
}

fn datum(value: &ColumnarValue) -> DataFusionResult<Box<dyn Datum>> {
    Ok(match value {
        ColumnarValue::Array(array) => Box::new(Arc::clone(array)),
        ColumnarValue::Scalar(scalar) => Box::new(scalar.to_scalar()?),
    })
}
