//! As-of and temporal joins: each row of a stream with the row of another relation that was current at its time.
//!
//! ```text
//! FROM t ASOF JOIN q MATCH_CONDITION (t.ts >= q.ts) ON t.k = q.k
//! FROM t JOIN q FOR SYSTEM_TIME AS OF t.ts ON t.k = q.k
//! FROM t [Now] JOIN q [Partition By k Rows 1] ON t.k = q.k        is what both mean
//! ```
//!
//! A static table is current at all times: the join with it is a plain one. The marker that stands for the clause is
//! put in token by token (see [`rewrite`](crate::rewrite)); what it belongs to is found in the parsed query.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, FunctionArg, FunctionArgExpr, GroupByExpr, Ident, JoinConstraint, JoinOperator, Query,
    Select, SetExpr, TableFactor, TableFunctionArgs, TableWithJoins, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::tokenizer::Token;
use millstream_engine::plan::Location;
use millstream_engine::window::WindowSpec;

use crate::catalog::{Catalog, Relation};
use crate::error::{Error, Result, location};
use crate::group_window::{Resolved, window_argument};
use crate::own_expressions::each_expression;
use crate::token::{Cursor, fold};
use crate::window::{ColumnName, WindowClause};
use crate::window_names::folded;

/// The argument that stands for an as-of clause starts with this; its number follows.
pub(crate) const AS_OF_ARGUMENT: &str = "$asof ";

const EXAMPLE: &str = "write FROM t ASOF JOIN q MATCH_CONDITION (t.ts >= q.ts) ON t.k = q.k";

/// A column with what it is qualified by.
#[derive(Debug, Clone)]
pub(crate) struct Qualified {
    qualifier: Option<String>,
    column: String,
    location: Option<Location>,
}

/// When the other relation is looked at.
#[derive(Debug, Clone)]
pub(crate) struct AsOf {
    /// Whether the clause is complete.
    is_said: bool,
    /// The event time of the stream's rows; none for the time of processing.
    time: Option<Qualified>,
    /// The event time of the other relation, where it is named.
    other: Option<Qualified>,
    location: Option<Location>,
}

impl AsOf {
    /// A clause whose condition is still to come.
    pub(crate) const fn without_condition(location: Option<Location>) -> Self {
        Self { is_said: false, time: None, other: None, location }
    }
}

/// Whether `FOR SYSTEM_TIME AS OF` is next.
pub(crate) fn at_system_time(cursor: &Cursor<'_>) -> bool {
    cursor.at_words(&["for", "system_time", "as", "of"])
}

/// Reads `FOR SYSTEM_TIME AS OF t.ts`.
///
/// # Errors
/// No column follows.
pub(crate) fn parse_system_time(cursor: &mut Cursor<'_>) -> Result<AsOf> {
    let location = cursor.location();
    cursor.eat_words(&["for", "system_time", "as", "of"]);
    if cursor.at_word("proctime") && *cursor.peek_nth(1) == Token::LParen {
        cursor.next();
        cursor.next();
        cursor.expect(&Token::RParen)?;
        return Ok(AsOf { is_said: true, time: None, other: None, location });
    }
    Ok(AsOf { is_said: true, time: Some(parse_qualified(cursor)?), other: None, location })
}

/// Reads `(t.ts >= q.ts)` behind MATCH_CONDITION.
///
/// # Errors
/// It compares other things, or in another way.
pub(crate) fn parse_match_condition(cursor: &mut Cursor<'_>) -> Result<AsOf> {
    let location = cursor.location();
    cursor.expect(&Token::LParen)?;
    let left = parse_qualified(cursor)?;
    let (time, other) = match cursor.peek() {
        Token::GtEq => {
            cursor.next();
            (left, parse_qualified(cursor)?)
        }
        Token::LtEq => {
            cursor.next();
            (parse_qualified(cursor)?, left)
        }
        _ => return Err(cursor.expected("\">=\" between the two event times").hint(EXAMPLE)),
    };
    cursor.expect(&Token::RParen).map_err(|error| error.hint(EXAMPLE))?;
    Ok(AsOf { is_said: true, time: Some(time), other: Some(other), location })
}

fn parse_qualified(cursor: &mut Cursor<'_>) -> Result<Qualified> {
    let mut location = cursor.location();
    let mut column = fold(cursor.expect_name("the stream's watermark column")?);
    let mut qualifier = None;
    while cursor.eat(&Token::Period) {
        location = cursor.location();
        qualifier = Some(std::mem::replace(&mut column, fold(cursor.expect_name("a column")?)));
    }
    Ok(Qualified { qualifier, column, location })
}

/// Gives the relations of as-of joins their windows.
///
/// # Errors
/// A join has no equality to find the current row by, or is over something that has no current rows.
pub(crate) fn resolve_as_of(
    mut resolved: Resolved,
    clauses: &[AsOf],
    catalog: &Catalog,
    is_aggregate: &dyn Fn(&str) -> bool,
) -> Result<Resolved> {
    if clauses.is_empty() {
        return Ok(resolved);
    }
    let mut resolver = Resolver { clauses, catalog, is_aggregate, windows: resolved.windows.to_vec() };
    if let ControlFlow::Break(error) = VisitMut::visit(&mut resolved.query, &mut resolver) {
        return Err(error);
    }
    resolved.windows = resolver.windows.into();
    Ok(resolved)
}

struct Resolver<'a> {
    clauses: &'a [AsOf],
    catalog: &'a Catalog,
    is_aggregate: &'a dyn Fn(&str) -> bool,
    windows: Vec<WindowClause>,
}

impl VisitorMut for Resolver<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.branches(&mut query.body).map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }
}

impl Resolver<'_> {
    fn branches(&mut self, body: &mut SetExpr) -> Result<()> {
        match body {
            SetExpr::Select(select) => self.select(select),
            SetExpr::SetOperation { left, right, .. } => {
                self.branches(left)?;
                self.branches(right)
            }
            _ => Ok(()),
        }
    }

    fn select(&mut self, select: &mut Select) -> Result<()> {
        let mut found = None;
        for from in &mut select.from {
            if let Some(number) = as_of_number(&from.relation) {
                let place = self.clauses.get(number).and_then(|clause| clause.location);
                return Err(Error::new("an as-of relation stands behind JOIN").hint(EXAMPLE).at(place));
            }
            for index in 0..from.joins.len() {
                let number = from.joins.get(index).and_then(|join| as_of_number(&join.relation));
                if let Some(clause) = number.and_then(|number| self.clauses.get(number)).cloned() {
                    self.join(from, index, &clause).map_err(|error| error.at(clause.location))?;
                    found = Some(clause.location);
                }
            }
        }
        match found {
            Some(place) if self.groups(select) => {
                let error = Error::unsupported("groups right over an as-of join", "");
                let hint = "make the join a view, and give the view a window: v [Range 5 minutes, Slide 1 minute]";
                Err(error.hint(hint).at(place))
            }
            _ => Ok(()),
        }
    }

    /// Whether a SELECT groups its rows, with or without GROUP BY.
    fn groups(&self, select: &Select) -> bool {
        let mut groups = !matches!(&select.group_by, GroupByExpr::Expressions(keys, _) if keys.is_empty());
        each_expression(select, |expression| {
            if let Expr::Function(function) = expression {
                let name = function.name.to_string().to_lowercase();
                groups |= function.over.is_none() && (self.is_aggregate)(&name);
            }
        });
        groups
    }

    fn join(&mut self, from: &mut TableWithJoins, index: usize, clause: &AsOf) -> Result<()> {
        if !clause.is_said {
            return Err(Error::new("an ASOF JOIN has no MATCH_CONDITION").hint(EXAMPLE));
        }
        let Some((join, before)) = from.joins.get_mut(..=index).and_then(<[_]>::split_last_mut) else { return Ok(()) };
        let condition = match &join.join_operator {
            JoinOperator::Join(condition)
            | JoinOperator::Inner(condition)
            | JoinOperator::Left(condition)
            | JoinOperator::LeftOuter(condition) => condition,
            _ => return Err(Error::unsupported("an as-of join of this kind", "write JOIN or LEFT JOIN")),
        };
        let TableFactor::Table { name, alias, args, .. } = &mut join.relation else { return Ok(()) };
        let shown = shown_name(name.0.last().and_then(|part| part.as_ident()), alias.as_ref().map(|alias| &alias.name));
        let relation = name.to_string().to_lowercase();
        if let Ok(Relation::Table { .. }) = self.catalog.expect_relation(&relation) {
            *args = None;
            return Ok(());
        }
        let keys = keys_of(condition, &shown)?;
        let Some(time) = &clause.time else {
            let error = Error::unsupported("PROCTIME() of a stream", "");
            return Err(error.hint("write the event time of the rows: FOR SYSTEM_TIME AS OF t.ts"));
        };
        let latest = WindowSpec::latest(1, None).map_err(|error| Error::new(error.to_string()))?;
        let other = clause.other.as_ref().map(|other| (other.column.clone(), other.location));
        *args = Some(self.window(latest, keys, other, clause));
        let earlier = std::iter::once(&mut from.relation).chain(before.iter_mut().map(|join| &mut join.relation));
        self.give_now(earlier, time, clause)
    }

    /// Gives the stream whose rows are looked up the window of its current rows.
    fn give_now<'a>(
        &mut self,
        relations: impl Iterator<Item = &'a mut TableFactor>,
        time: &Qualified,
        clause: &AsOf,
    ) -> Result<()> {
        for relation in relations {
            let TableFactor::Table { name, alias, args, .. } = relation else { continue };
            let ident = name.0.last().and_then(|part| part.as_ident());
            let shown = shown_name(ident, alias.as_ref().map(|alias| &alias.name));
            if time.qualifier.as_ref().is_some_and(|qualifier| *qualifier != shown) {
                continue;
            }
            match args.as_ref().and_then(window_number) {
                None => {
                    let column = Some((time.column.clone(), time.location));
                    *args = Some(self.window(WindowSpec::now(), Vec::new(), column, clause));
                }
                Some(number) if self.is_now(number) => {}
                Some(_) => {
                    let error = Error::new(format!("\"{shown}\" has a window, and its rows are looked up one by one"));
                    return Err(error.hint("leave its window out").at(time.location));
                }
            }
            return Ok(());
        }
        let name = time.qualifier.clone().unwrap_or_default();
        Err(Error::new(format!("no relation \"{name}\" stands before the as-of join")).hint(EXAMPLE).at(time.location))
    }

    fn is_now(&self, number: usize) -> bool {
        self.windows.get(number).is_some_and(|window| window.spec == Some(WindowSpec::now()))
    }

    fn window(
        &mut self,
        spec: WindowSpec,
        keys: Vec<ColumnName>,
        time_column: Option<ColumnName>,
        clause: &AsOf,
    ) -> TableFunctionArgs {
        self.windows.push(WindowClause { spec: Some(spec), keys, time_column, location: clause.location });
        window_argument(self.windows.len() - 1)
    }
}

/// The columns of `relation` that the condition holds equal to others.
fn keys_of(condition: &JoinConstraint, relation: &str) -> Result<Vec<ColumnName>> {
    let mut keys = Vec::new();
    match condition {
        JoinConstraint::On(condition) => collect_keys(condition, relation, &mut keys),
        JoinConstraint::Using(columns) => {
            let idents = columns.iter().filter_map(|column| column.0.last().and_then(|part| part.as_ident()));
            keys.extend(idents.map(|ident| (folded(ident), location(ident.span.start))));
        }
        JoinConstraint::Natural | JoinConstraint::None => {}
    }
    if keys.is_empty() {
        let error = Error::new(format!("nothing says which row of \"{relation}\" is the current one"));
        return Err(error.hint("compare a key of it in ON: t.k = q.k"));
    }
    Ok(keys)
}

fn collect_keys(condition: &Expr, relation: &str, keys: &mut Vec<ColumnName>) {
    match condition {
        Expr::Nested(inner) => collect_keys(inner, relation, keys),
        Expr::BinaryOp { left, op: BinaryOperator::And, right } => {
            collect_keys(left, relation, keys);
            collect_keys(right, relation, keys);
        }
        Expr::BinaryOp { left, op: BinaryOperator::Eq, right } => {
            let (left, right) = (column_of(left, relation), column_of(right, relation));
            // A comparison within the relation tells nothing about the other side.
            if left.is_some() != right.is_some() {
                keys.extend(left.or(right));
            }
        }
        _ => {}
    }
}

/// The column of `relation` that an expression is.
fn column_of(expression: &Expr, relation: &str) -> Option<ColumnName> {
    let Expr::CompoundIdentifier(names) = expression else { return None };
    let [.., qualifier, column] = names.as_slice() else { return None };
    (folded(qualifier) == relation).then(|| (folded(column), location(column.span.start)))
}

fn shown_name(name: Option<&Ident>, alias: Option<&Ident>) -> String {
    alias.or(name).map(folded).unwrap_or_default()
}

fn as_of_number(relation: &TableFactor) -> Option<usize> {
    let TableFactor::Table { args: Some(args), .. } = relation else { return None };
    argument(args)?.strip_prefix(AS_OF_ARGUMENT)?.parse().ok()
}

fn window_number(args: &TableFunctionArgs) -> Option<usize> {
    argument(args)?.strip_prefix(crate::rewrite::WINDOW_ARGUMENT)?.parse().ok()
}

fn argument(args: &TableFunctionArgs) -> Option<&str> {
    match args.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(name)))] => Some(&name.value),
        _ => None,
    }
}
