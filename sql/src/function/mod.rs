//! Functions and aggregates declared in SQL: `CREATE FUNCTION`, `CREATE AGGREGATE`.
//!
//! ```text
//! text ─ parse ─► FunctionDefinition ─ scalar, aggregate ─► what plans call ─ registry
//!                                                                │
//!                              plan with calls ─ expand ─► plan without calls of functions
//! ```
//!
//! A function is replaced by its expression in every plan that calls it, before the plan is checked: it runs as the
//! expression typed by hand does, and the state of a query is bound to what the function was. An aggregate becomes a
//! [`DeclaredAggregate`](millstream_engine::function::DeclaredAggregate), whose declaration is part of that too.

mod aggregate;
mod expand;
mod fit;
mod parse;
mod registry;
mod scalar;

use datafusion::arrow::datatypes::{DataType, FieldRef};
use datafusion::sql::sqlparser::ast::Expr as SqlExpr;
use millstream_engine::plan::Location;

pub(crate) use self::expand::{expand_expression, expand_plan};
pub(crate) use self::parse::{parse_aggregate, parse_function};
pub(crate) use self::registry::Functions;
use crate::statement::{ParsedQuery, RelationKind};
use crate::token::fold;
use crate::types::sql_name;
use datafusion::sql::sqlparser::tokenizer::Token;

/// A function or aggregate as declared.
#[derive(Debug, Clone)]
pub struct FunctionDefinition {
    /// The name, folded to lower case unless it was quoted.
    pub name: String,
    /// The names and types of the arguments.
    pub arguments: Vec<FieldRef>,
    /// The type of the result.
    pub returns: DataType,
    /// The expression, or the clauses of an aggregate, as typed.
    pub text: String,
    pub(crate) body: Body,
}

/// What a definition computes.
#[derive(Debug, Clone)]
pub(crate) enum Body {
    Function(ParsedExpressions),
    Aggregate(Box<AggregateBody>),
}

/// The clauses of an aggregate.
#[derive(Debug, Clone)]
pub(crate) struct AggregateBody {
    /// The columns of the state and what each holds before the first row, NULL unless said.
    pub(crate) state: Vec<(FieldRef, Option<ParsedExpressions>)>,
    pub(crate) update: ParsedExpressions,
    pub(crate) merge: ParsedExpressions,
    pub(crate) inverse: Option<ParsedExpressions>,
    pub(crate) finish: ParsedExpressions,
}

/// Expressions in a list, whose names are not looked up yet.
#[derive(Debug, Clone)]
pub(crate) struct ParsedExpressions {
    /// The tokens and the text; its query selects the expressions from nothing.
    pub(crate) query: ParsedQuery,
    pub(crate) list: Vec<SqlExpr>,
}

impl FunctionDefinition {
    /// Which of the two it is.
    pub const fn kind(&self) -> RelationKind {
        match self.body {
            Body::Function(_) => RelationKind::Function,
            Body::Aggregate(_) => RelationKind::Aggregate,
        }
    }

    /// `name(a DOUBLE, b BIGINT) RETURNS DOUBLE`.
    pub fn signature(&self) -> String {
        let arguments = self.arguments.iter().map(|field| format!("{} {}", field.name(), sql_name(field.data_type())));
        let arguments = arguments.collect::<Vec<_>>().join(", ");
        format!("{}({arguments}) RETURNS {}", self.name, sql_name(&self.returns))
    }

    /// The expressions, clause by clause.
    fn parts(&self) -> Vec<&ParsedExpressions> {
        match &self.body {
            Body::Function(expression) => vec![expression],
            Body::Aggregate(body) => {
                let initial = body.state.iter().filter_map(|(_, initial)| initial.as_ref());
                let inverse = body.inverse.as_ref();
                initial.chain([&body.update, &body.merge]).chain(inverse).chain([&body.finish]).collect()
            }
        }
    }

    /// The first place where it calls the function `name`.
    fn call_of(&self, name: &str) -> Option<Option<Location>> {
        self.parts().into_iter().find_map(|part| {
            part.query.tokens.windows(2).find_map(|pair| match pair {
                [token, next] if next.token == Token::LParen => match &token.token {
                    Token::Word(word) if fold(word) == name => Some(crate::error::location(token.span.start)),
                    _ => None,
                },
                _ => None,
            })
        })
    }
}
