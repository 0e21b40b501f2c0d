//! Window functions of a SELECT, resolved: the window goes to the relation in FROM, the calls become its columns.
//!
//! ```text
//! SELECT hop(s, n) AS w, k, sum(v) FROM t GROUP BY 1, k
//! SELECT named_struct('start', window_start, 'end', window_end) AS w, k, sum(v)
//!   FROM t [Range n, Slide s] GROUP BY window_start, window_end, k
//! ```
//!
//! So the plan is that of the brackets. It is done in the parsed query, where it is known which SELECT a call belongs
//! to; names and numbers keep their places in the text.
//! `window_time` of a windowed relation, and ksqlDB's `WINDOWSTART` and `WINDOWEND`, are resolved here too.

use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::sql::sqlparser::ast::{
    Expr, FunctionArg, FunctionArgExpr, GroupByExpr, Ident, OrderBy, Query, Select, SetExpr, TableFactor,
    TableFunctionArgs, Visit, VisitMut, VisitorMut,
};

use millstream_engine::plan::{WINDOW_END, WINDOW_START};

use crate::catalog::Catalog;
use crate::error::{Error, Result};
use crate::own_expressions::each_expression;
use crate::rewrite::WINDOW_ARGUMENT;
use crate::statement::ParsedQuery;
use crate::window::WindowClause;
use crate::window_call::{Part, WindowCall};
use crate::window_names::{WindowNames, first_name, folded, number_of};

/// The column that holds the last point of time inside a row's window.
pub(crate) const WINDOW_TIME: &str = "window_time";

/// A query without calls of window functions, and all its windows.
#[derive(Debug)]
pub(crate) struct Resolved {
    pub(crate) query: Box<Query>,
    pub(crate) windows: Arc<[WindowClause]>,
}

#[derive(Debug)]
struct Resolver<'a> {
    calls: &'a [WindowCall],
    catalog: &'a Catalog,
    windows: Vec<WindowClause>,
    /// Which of the calls belong to a SELECT.
    found: Vec<bool>,
}

/// The one relation of a FROM clause.
#[derive(Debug)]
struct Relation<'a> {
    args: &'a mut Option<TableFunctionArgs>,
    /// What its columns are qualified by.
    name: String,
}

/// Resolves the window functions of `query`.
///
/// # Errors
/// A call is not over a single relation without a window of its own, or what the calls of a SELECT say differs.
pub(crate) fn resolve(query: &ParsedQuery, catalog: &Catalog) -> Result<Resolved> {
    let found = vec![false; query.calls.len()];
    let mut resolver = Resolver { calls: &query.calls, catalog, windows: query.windows.to_vec(), found };
    let mut resolved = query.query.clone();
    if let ControlFlow::Break(error) = VisitMut::visit(&mut resolved, &mut resolver) {
        return Err(error);
    }
    let stray = query.calls.iter().zip(&resolver.found).find(|(_, found)| !**found);
    if let Some((call, _)) = stray {
        let error = Error::new(format!("{} stands outside of a SELECT over a stream", call.name));
        return Err(error
            .hint("write it in GROUP BY: SELECT … FROM t GROUP BY TUMBLE(ts, 5 minutes)")
            .at(call.location));
    }
    Ok(Resolved { query: resolved, windows: resolver.windows.into() })
}

impl VisitorMut for Resolver<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        let Query { body, order_by, .. } = query;
        let resolved = match body.as_mut() {
            SetExpr::Select(select) => self.select(select, order_by.as_mut()),
            body => self.branches(body),
        };
        resolved.map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }
}

impl Resolver<'_> {
    /// The SELECTs of a UNION or the like; queries inside are visited by themselves.
    fn branches(&mut self, body: &mut SetExpr) -> Result<()> {
        match body {
            SetExpr::Select(select) => self.select(select, None),
            SetExpr::SetOperation { left, right, .. } => {
                self.branches(left)?;
                self.branches(right)
            }
            _ => Ok(()),
        }
    }

    fn select(&mut self, select: &mut Select, order_by: Option<&mut OrderBy>) -> Result<()> {
        let clause = clause_number(select);
        let mut numbers = marker_numbers(select);
        numbers.extend(order_by.as_deref().into_iter().flat_map(marker_numbers));
        numbers.retain(|number| Some(*number) != clause);
        for number in numbers.iter().copied().chain(clause) {
            if let Some(found) = self.found.get_mut(number) {
                *found = true;
            }
        }
        let mut names = WindowNames::new(self.calls, select, clause.is_some());
        self.place_window(select, &names, clause, &numbers)?;
        names.learn_relations(select, self.catalog);
        names.replace(select, order_by)?;
        match numbers.first().and_then(|first| self.calls.get(*first)) {
            Some(call) => check_grouped(select, call),
            None => Ok(()),
        }
    }

    /// Gives the relation of `select` the window of its calls, if it has any.
    fn place_window(
        &mut self,
        select: &mut Select,
        names: &WindowNames<'_>,
        clause: Option<usize>,
        numbers: &[usize],
    ) -> Result<()> {
        let calls: Vec<&WindowCall> = numbers.iter().filter_map(|number| self.calls.get(*number)).collect();
        let Some(call) = clause.and_then(|number| self.calls.get(number)).or(calls.first().copied()) else {
            return Ok(());
        };
        if let Some(other) = calls.first().filter(|_| clause.is_some()) {
            return Err(other.second_window());
        }
        if let Some(other) = calls.iter().find(|other| !call.agrees_with(other)) {
            return Err(other.differs_from(call));
        }
        let timed = calls.iter().copied().find(|call| call.time_column.is_some()).unwrap_or(call);
        let window = timed.clause(&names.other_keys(select))?;
        let relation = sole_relation(select, call)?;
        for call in &calls {
            relation.check_qualifier(call, self.catalog)?;
        }
        if relation.args.is_some() && clause.is_none() {
            return Err(call.second_window());
        }
        *relation.args = Some(window_argument(self.windows.len()));
        self.windows.push(window);
        Ok(())
    }
}

impl Relation<'_> {
    /// Checks that `t.ts` of a call is of this relation.
    fn check_qualifier(&self, call: &WindowCall, catalog: &Catalog) -> Result<()> {
        let Some((qualifier, (column, place))) = call.qualifier.as_ref().zip(call.time_column.as_ref()) else {
            return Ok(());
        };
        if *qualifier == self.name {
            return Ok(());
        }
        let column = catalog.spelling(column);
        let error = Error::new(format!("undefined alias \"{qualifier}\" in {qualifier}.{column}"));
        Err(error.hint(format!("the query has {name}: write {name}.{column}", name = self.name)).at(*place))
    }
}

/// The call of ksqlDB's clause behind the relation of `select`.
fn clause_number(select: &Select) -> Option<usize> {
    let [from] = select.from.as_slice() else { return None };
    let TableFactor::Table { args: Some(args), .. } = &from.relation else { return None };
    match args.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] => first_name(expr).and_then(number_of),
        _ => None,
    }
}

/// The calls that stand in `node`, but not in its subqueries.
fn marker_numbers<V: Visit>(node: &V) -> Vec<usize> {
    let mut numbers = Vec::new();
    each_expression(node, |expr| numbers.extend(first_name(expr).and_then(number_of)));
    numbers
}

fn sole_relation<'a>(select: &'a mut Select, call: &WindowCall) -> Result<Relation<'a>> {
    match select.from.as_mut_slice() {
        [] => {
            let error = Error::new(format!("{} needs a stream in FROM", call.name));
            Err(error.hint("write SELECT … FROM t GROUP BY TUMBLE(ts, 5 minutes)").at(call.location))
        }
        [from] if from.joins.is_empty() => match &mut from.relation {
            TableFactor::Table { name, alias, args, .. } => {
                let last = name.0.last().and_then(|part| part.as_ident());
                let name = alias.as_ref().map(|alias| &alias.name).or(last).map(folded).unwrap_or_default();
                Ok(Relation { args, name })
            }
            TableFactor::NestedJoin { .. } => Err(call.over("a join")),
            _ => Err(call.over("a subquery")),
        },
        _ => Err(call.over("a join")),
    }
}

/// The argument by which the planner finds the window of a relation.
pub(crate) fn window_argument(number: usize) -> TableFunctionArgs {
    let name = Expr::Identifier(Ident::with_quote('"', format!("{WINDOW_ARGUMENT}{number}")));
    TableFunctionArgs { args: vec![FunctionArg::Unnamed(FunctionArgExpr::Expr(name))], settings: None }
}

/// Checks that a SELECT with groups is grouped by its window, and that one with a bound of a group has groups.
fn check_grouped(select: &Select, call: &WindowCall) -> Result<()> {
    let GroupByExpr::Expressions(keys, _) = &select.group_by else { return Ok(()) };
    let is_row_wise = keys.is_empty() && matches!(call.part, Part::Whole(_));
    let is_bound =
        |key: &Expr| first_name(key).is_some_and(|name| [WINDOW_START, WINDOW_END].contains(&name.value.as_str()));
    if is_row_wise || keys.iter().any(is_bound) {
        return Ok(());
    }
    let error = Error::new(format!("{} needs its window in GROUP BY", call.name));
    let hint =
        "group by the window: GROUP BY TUMBLE(ts, 5 minutes), HOP(ts, 1 minute, 5 minutes) or the window's alias";
    Err(error.hint(hint).at(call.location))
}
