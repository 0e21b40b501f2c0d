//! Aggregates that are declared by expressions: how a row changes their state, and how two states become one.
//!
//! ```text
//! rows ─ update ─► states of one row ─ merge, pair by pair ─► one state a group ─ finish ─► results
//!                                          ▲
//!                  states of panes ────────┘
//! ```
//!
//! State is kept over panes and merged in whatever parts the log was cut into, so a declared aggregate must be one
//! for which that makes no difference: `merge` is associative and commutative, the initial state changes nothing when
//! it is merged, and updating a state by a row is the same as merging it with the state of that row alone.
//! The last is what makes it fast: all rows of a batch are updated at once, each from the initial state, and the
//! states are merged in pairs, so that every expression runs on whole columns and never on one row.
//!
//! [`DeclaredAggregate`] is the function for plans; `steps` evaluates its expressions, `fold` merges states in pairs,
//! `one` and `groups` are DataFusion's two kinds of accumulators.

mod fold;
mod groups;
mod one;
mod steps;

use std::collections::BTreeSet;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::tree_node::{TreeNode, TreeNodeRecursion};
use datafusion::common::{ScalarValue, not_impl_err};
use datafusion::error::Result as DataFusionResult;
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::{AggregateOrderSensitivity, format_state_name};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Expr, GroupsAccumulator, LogicalPlan, Signature, Volatility,
    WindowFunctionDefinition,
};

use self::groups::GroupStates;
use self::one::OneState;
use self::steps::Steps;

/// The column of `merge` that holds a column of the second state: `other.s`.
pub fn other(column: &str) -> String {
    format!("other.{column}")
}

/// How an aggregate is declared.
///
/// All expressions name columns without a qualifier; the caller has checked that their types can be cast to those of
/// the state and the result.
#[derive(Debug, Clone)]
pub struct AggregateDeclaration {
    /// The name it is called by.
    pub name: String,
    /// The names and types of its arguments, at least one.
    pub arguments: Vec<FieldRef>,
    /// The type of its result.
    pub returns: DataType,
    /// The columns of its state, at least one.
    pub state: Vec<FieldRef>,
    /// The state of no rows, of the types of the state.
    pub initial: Vec<ScalarValue>,
    /// The state after a row, over the columns of the state and the arguments.
    pub update: Vec<Expr>,
    /// The state of two states together, over the columns of the one and, under [`other`] names, of the other.
    pub merge: Vec<Expr>,
    /// The state before a row, over the columns of the state and the arguments.
    pub inverse: Option<Vec<Expr>>,
    /// The result, over the columns of the state.
    pub finish: Expr,
}

/// A declared aggregate as DataFusion's plans call it.
#[derive(Debug)]
pub struct DeclaredAggregate {
    declaration: AggregateDeclaration,
    signature: Signature,
    /// The declaration as text, which decides whether two are the same.
    text: String,
    steps: Arc<Steps>,
}

impl DeclaredAggregate {
    /// Plans the expressions of `declaration`.
    ///
    /// # Errors
    /// Fails if an expression cannot be computed over the columns it may name.
    pub fn new(declaration: AggregateDeclaration) -> DataFusionResult<Self> {
        let names = declaration.arguments.iter().map(|argument| argument.name().clone()).collect::<Vec<_>>();
        let signature = Signature::any(declaration.arguments.len(), Volatility::Immutable);
        Ok(Self {
            signature: signature.with_parameter_names(names)?,
            steps: Arc::new(Steps::plan(&declaration)?),
            text: declaration.to_string(),
            declaration,
        })
    }

    /// The declared aggregate that `function` is, if it is one.
    pub fn of(function: &AggregateUDF) -> Option<&Self> {
        function.inner().downcast_ref()
    }

    /// How it was declared.
    pub const fn declaration(&self) -> &AggregateDeclaration {
        &self.declaration
    }

    /// The declaration as text: two of the same text are the same.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }
}

/// The texts of the declared aggregates in `plan`.
pub(crate) fn declarations_in(plan: &LogicalPlan) -> DataFusionResult<BTreeSet<String>> {
    let mut texts = BTreeSet::new();
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expression| {
            expression.apply(|expression| {
                let declared = called(expression).and_then(DeclaredAggregate::of);
                texts.extend(declared.map(|declared| declared.text.clone()));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(texts)
}

/// The aggregate that the expression calls, if it does.
fn called(expression: &Expr) -> Option<&AggregateUDF> {
    match expression {
        Expr::AggregateFunction(AggregateFunction { func, .. }) => Some(func),
        Expr::WindowFunction(call) => match call.as_ref() {
            WindowFunction { fun: WindowFunctionDefinition::AggregateUDF(func), .. } => Some(func),
            WindowFunction { .. } => None,
        },
        _ => None,
    }
}

impl fmt::Display for AggregateDeclaration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields = |fields: &[FieldRef]| {
            fields.iter().map(|field| format!("{} {}", field.name(), field.data_type())).collect::<Vec<_>>().join(", ")
        };
        let list = |list: &[Expr]| list.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let initial = self.initial.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        write!(f, "aggregate {}({}) {}", self.name, fields(&self.arguments), self.returns)?;
        write!(f, " state ({}) = ({initial})", fields(&self.state))?;
        write!(f, " update ({}) merge ({})", list(&self.update), list(&self.merge))?;
        if let Some(inverse) = &self.inverse {
            write!(f, " inverse ({})", list(inverse))?;
        }
        write!(f, " finish {}", self.finish)
    }
}

impl PartialEq for DeclaredAggregate {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for DeclaredAggregate {}

impl Hash for DeclaredAggregate {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl AggregateUDFImpl for DeclaredAggregate {
    fn name(&self) -> &str {
        &self.declaration.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _arguments: &[DataType]) -> DataFusionResult<DataType> {
        Ok(self.declaration.returns.clone())
    }

    fn state_fields(&self, args: StateFieldsArgs<'_>) -> DataFusionResult<Vec<FieldRef>> {
        let field = |column: &FieldRef| {
            Arc::new(Field::new(format_state_name(args.name, column.name()), column.data_type().clone(), true))
        };
        Ok(self.declaration.state.iter().map(field).collect())
    }

    fn order_sensitivity(&self) -> AggregateOrderSensitivity {
        AggregateOrderSensitivity::Insensitive
    }

    fn accumulator(&self, args: AccumulatorArgs<'_>) -> DataFusionResult<Box<dyn Accumulator>> {
        if args.is_distinct {
            return not_impl_err!("DISTINCT in the declared aggregate {}", self.declaration.name);
        }
        Ok(Box::new(OneState::new(&self.steps)))
    }

    fn groups_accumulator_supported(&self, args: AccumulatorArgs<'_>) -> bool {
        !args.is_distinct
    }

    fn create_groups_accumulator(&self, _args: AccumulatorArgs<'_>) -> DataFusionResult<Box<dyn GroupsAccumulator>> {
        Ok(Box::new(GroupStates::new(&self.steps)))
    }
}
