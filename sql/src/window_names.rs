//! How the expressions of one SELECT speak of its window, and the columns that they mean.
//!
//! | text | column |
//! |---|---|
//! | `TUMBLE_START(…)`, `window.start`, `w.start`, `WINDOWSTART` | `window_start` |
//! | `TUMBLE_END(…)`, `window.end`, `w.end`, `WINDOWEND` | `window_end` |
//! | `TUMBLE_ROWTIME(…)`, `window_time`, `window_time(window)` | `window_end` less one tick of the stream's event time |
//! | `hop(…)`, `window(…)`, `window`, `w` | a struct of start and end; in GROUP BY and ORDER BY the two columns |

use std::mem::take;

use datafusion::arrow::datatypes::{DataType, TimeUnit};
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, GroupByExpr, Ident, ObjectName,
    OrderBy, OrderByKind, Select, SelectItem, TableFactor, TableFunctionArgs, Value, Visit,
};
use datafusion::sql::sqlparser::dialect::GenericDialect;
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Span;
use millstream_engine::plan::{StreamDefinition, WINDOW_END, WINDOW_START};

use crate::catalog::{Catalog, Relation};
use crate::error::Result;
use crate::group_window::WINDOW_TIME;
use crate::own_expressions::{change_expressions, each_expression};
use crate::parse_error::syntax_error;
use crate::rewrite::WINDOW_ARGUMENT;
use crate::window_call::{CALL_MARKER, Part, WindowCall};

/// The names that one SELECT has for its windows.
#[derive(Debug)]
pub(crate) struct WindowNames<'a> {
    calls: &'a [WindowCall],
    /// Names of the whole window: aliases, and `window` as Spark has it.
    wholes: Vec<String>,
    /// Whether WINDOWSTART and WINDOWEND are columns.
    has_ksql_bounds: bool,
    relations: Vec<Windowed>,
    /// Whether FROM has nothing but one of them.
    is_sole: bool,
}

/// A relation with a window.
#[derive(Debug)]
struct Windowed {
    /// What its columns are qualified by.
    name: String,
    /// One tick of its event time, as an interval.
    tick: &'static str,
    /// Whether it has `window_time`: a stream without a column of that name.
    has_time: bool,
}

/// A part of the window that an expression speaks of.
#[derive(Debug)]
struct Mention<'a> {
    part: Part,
    /// The relation's name before that of the column.
    qualifier: &'a [Ident],
    tick: &'static str,
    span: Span,
    /// The column's name in the result, if not the one it has in the relation.
    shown_as: Option<String>,
}

impl<'a> WindowNames<'a> {
    /// The names in `select`, whose relation has the window of ksqlDB's clause or not.
    pub(crate) fn new(calls: &'a [WindowCall], select: &Select, has_ksql_bounds: bool) -> Self {
        let is_sole = matches!(select.from.as_slice(), [from] if from.joins.is_empty());
        let mut names = Self { calls, wholes: Vec::new(), has_ksql_bounds, relations: Vec::new(), is_sole };
        for item in &select.projection {
            let (expr, alias) = match item {
                SelectItem::UnnamedExpr(expr) => (expr, None),
                SelectItem::ExprWithAlias { expr, alias } => (expr, Some(folded(alias))),
                _ => continue,
            };
            if let Some(Part::Whole(name)) = call_of(calls, expr).map(|call| call.part) {
                names.wholes.push(alias.unwrap_or_else(|| name.to_owned()));
            }
        }
        each_expression(select, |expr| {
            let spark = call_of(calls, expr).filter(|call| call.name.to_lowercase().contains("window"));
            if let Some(Part::Whole(name)) = spark.map(|call| call.part) {
                names.wholes.push(name.to_owned());
            }
        });
        // These are what the others become.
        names.wholes.retain(|name| ![WINDOW_START, WINDOW_END].contains(&name.as_str()));
        names
    }

    /// Learns which relations of FROM have a window, by now.
    pub(crate) fn learn_relations(&mut self, select: &Select, catalog: &Catalog) {
        let joined = select.from.iter().flat_map(|from| from.joins.iter().map(|join| &join.relation));
        for factor in select.from.iter().map(|from| &from.relation).chain(joined) {
            let TableFactor::Table { name, alias, args: Some(args), .. } = factor else { continue };
            if !has_window(args) {
                continue;
            }
            let stream = match catalog.relation(&object_name(name)) {
                Some(Relation::Stream(stream)) => Some(stream.as_ref()),
                _ => None,
            };
            let last = name.0.last().and_then(|part| part.as_ident());
            let name = alias.as_ref().map(|alias| &alias.name).or(last).map(folded).unwrap_or_default();
            let has_time = stream.is_some_and(|stream| stream.schema.column_with_name(WINDOW_TIME).is_none());
            self.relations.push(Windowed { name, tick: stream.map_or("1 nanosecond", tick), has_time });
        }
    }

    /// The elements of GROUP BY that are not the window, with the expressions that numbers stand for.
    pub(crate) fn other_keys(&self, select: &Select) -> Vec<Expr> {
        let GroupByExpr::Expressions(keys, _) = &select.group_by else { return Vec::new() };
        let keys = keys.iter().map(|key| item_of(key, &select.projection).unwrap_or(key));
        keys.filter(|key| self.mention(key).is_none()).cloned().collect()
    }

    /// Puts columns in place of every name of the window.
    ///
    /// # Errors
    /// None for text that the parser could read.
    pub(crate) fn replace(&self, select: &mut Select, order_by: Option<&mut OrderBy>) -> Result<()> {
        let is_mentioned =
            self.is_mentioned_in(select) || order_by.as_deref().is_some_and(|order| self.is_mentioned_in(order));
        let shows_bounds = self.has_ksql_bounds && is_mentioned;
        let items = select.projection.clone();
        if let GroupByExpr::Expressions(keys, _) = &mut select.group_by {
            let mut replaced = Vec::new();
            for key in take(keys) {
                push_new(&mut replaced, self.columns(&key, &items).unwrap_or_else(|| vec![key]));
            }
            if shows_bounds && !replaced.is_empty() {
                push_new(&mut replaced, both_bounds(Span::empty()));
            }
            *keys = replaced;
        }
        for item in &mut select.projection {
            self.name_item(item);
        }
        change_expressions(select, |expr| self.replace_one(expr))?;
        if let Some(order_by) = order_by {
            self.replace_order(order_by, &items);
            change_expressions(order_by, |expr| self.replace_one(expr))?;
        }
        Ok(())
    }

    fn is_mentioned_in<V: Visit>(&self, node: &V) -> bool {
        let mut found = false;
        each_expression(node, |expr| found |= self.mention(expr).is_some());
        found
    }

    /// Keeps the name that a column is shown under as typed.
    fn name_item(&self, item: &mut SelectItem) {
        let SelectItem::UnnamedExpr(expr) = item else { return };
        let Some(mention) = self.mention(expr) else { return };
        if let Some(name) = mention.shown_as {
            let alias = Ident::with_quote_and_span('"', mention.span, name);
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
        }
    }

    fn replace_order(&self, order_by: &mut OrderBy, items: &[SelectItem]) {
        let OrderByKind::Expressions(orders) = &mut order_by.kind else { return };
        for order in take(orders) {
            match self.columns(&order.expr, items) {
                Some(columns) => orders.extend(columns.into_iter().map(|expr| {
                    let mut order = order.clone();
                    order.expr = expr;
                    order
                })),
                None => orders.push(order),
            }
        }
    }

    fn replace_one(&self, expr: &mut Expr) -> Result<()> {
        if let Some(replaced) = self.mention(expr).map(|mention| mention.expression()).transpose()? {
            *expr = replaced;
        }
        Ok(())
    }

    /// The columns that an element of GROUP BY or ORDER BY stands for, if it is of the window.
    ///
    /// The last point of a window tells as much as its end, and needs no computing.
    fn columns(&self, key: &Expr, items: &[SelectItem]) -> Option<Vec<Expr>> {
        let mention = self.mention(item_of(key, items).unwrap_or(key))?;
        match mention.part {
            Part::Whole(_) => Some(both_bounds(mention.span)),
            Part::Bound(name) => Some(vec![mention.column(name)]),
            Part::Time => Some(vec![mention.column(WINDOW_END)]),
        }
    }

    /// What `expr` says of the window, if it is nothing but that.
    fn mention<'e>(&self, expr: &'e Expr) -> Option<Mention<'e>> {
        match expr {
            Expr::Identifier(name) => self.simple(name),
            Expr::CompoundIdentifier(names) => match names.as_slice() {
                [_, last] => self.qualified(names.get(..1)?, last),
                _ => None,
            },
            Expr::Function(function) => self.time_of(function),
            _ => None,
        }
    }

    /// `w`, `WINDOWSTART`, `window_time` or the marker of a call.
    fn simple<'e>(&self, name: &Ident) -> Option<Mention<'e>> {
        let sole = self.relations.first().filter(|_| self.is_sole);
        let tick = sole.map_or("1 nanosecond", |relation| relation.tick);
        let mention = |part, shown_as| Some(Mention { part, qualifier: &[], tick, span: name.span, shown_as });
        if let Some(call) = number_of(name).and_then(|number| self.calls.get(number)) {
            let shown_as = match call.part {
                Part::Whole(name) => Some(name),
                Part::Time => Some(WINDOW_TIME),
                Part::Bound(_) => None,
            };
            return mention(call.part, shown_as.map(str::to_owned));
        }
        let folded = folded(name);
        if self.wholes.contains(&folded) {
            return mention(Part::Whole("window"), Some(folded));
        }
        let part = self.column_part(&folded, sole)?;
        mention(part, Some(folded))
    }

    /// `w.start` or `t.window_time`.
    fn qualified<'e>(&self, qualifier: &'e [Ident], last: &Ident) -> Option<Mention<'e>> {
        let [first] = qualifier else { return None };
        let (before, name) = (folded(first), folded(last));
        let call = number_of(first).and_then(|number| self.calls.get(number));
        if call.is_some_and(|call| matches!(call.part, Part::Whole(_))) || self.wholes.contains(&before) {
            let column = match name.as_str() {
                "start" => WINDOW_START,
                "end" => WINDOW_END,
                _ => return None,
            };
            let (part, tick) = (Part::Bound(column), "1 nanosecond");
            return Some(Mention { part, qualifier: &[], tick, span: first.span, shown_as: Some(name) });
        }
        let relation = self.relations.iter().find(|relation| relation.name == before)?;
        let part = self.column_part(&name, Some(relation))?;
        Some(Mention { part, qualifier, tick: relation.tick, span: last.span, shown_as: Some(name) })
    }

    /// The part of a window that a column of `relation` is, if a relation is meant.
    fn column_part(&self, name: &str, relation: Option<&Windowed>) -> Option<Part> {
        match name {
            "windowstart" if self.has_ksql_bounds => Some(Part::Bound(WINDOW_START)),
            "windowend" if self.has_ksql_bounds => Some(Part::Bound(WINDOW_END)),
            WINDOW_TIME if relation.is_some_and(|relation| relation.has_time) => Some(Part::Time),
            _ => None,
        }
    }

    /// `window_time(window)`.
    fn time_of<'e>(&self, function: &'e Function) -> Option<Mention<'e>> {
        let FunctionArguments::List(list) = &function.args else { return None };
        let [FunctionArg::Unnamed(FunctionArgExpr::Expr(argument))] = list.args.as_slice() else { return None };
        if object_name(&function.name) != WINDOW_TIME {
            return None;
        }
        let whole = self.mention(argument).filter(|mention| matches!(mention.part, Part::Whole(_)))?;
        Some(Mention { part: Part::Time, shown_as: Some(WINDOW_TIME.to_owned()), ..whole })
    }
}

impl Mention<'_> {
    fn column(&self, name: &str) -> Expr {
        let column = Ident::with_span(self.span, name);
        match self.qualifier {
            [] => Expr::Identifier(column),
            qualifier => Expr::CompoundIdentifier(qualifier.iter().cloned().chain([column]).collect()),
        }
    }

    fn expression(&self) -> Result<Expr> {
        match self.part {
            Part::Bound(name) => Ok(self.column(name)),
            Part::Whole(_) => parsed("named_struct('start', window_start, 'end', window_end)", self.span),
            Part::Time => {
                let left = Box::new(self.column(WINDOW_END));
                let right = Box::new(parsed(&format!("INTERVAL '{}'", self.tick), self.span)?);
                Ok(Expr::Nested(Box::new(Expr::BinaryOp { left, op: BinaryOperator::Minus, right })))
            }
        }
    }
}

/// The name as the planner looks it up.
pub(crate) fn folded(name: &Ident) -> String {
    if name.quote_style.is_none() { name.value.to_lowercase() } else { name.value.clone() }
}

/// The number of the call that a marker stands for.
pub(crate) fn number_of(name: &Ident) -> Option<usize> {
    name.value.strip_prefix(CALL_MARKER)?.parse().ok()
}

/// The call whose marker `expr` is, or is a field of.
fn call_of<'a>(calls: &'a [WindowCall], expr: &Expr) -> Option<&'a WindowCall> {
    calls.get(number_of(first_name(expr)?)?)
}

/// The name, or the first of the names, that `expr` is.
pub(crate) fn first_name(expr: &Expr) -> Option<&Ident> {
    match expr {
        Expr::Identifier(name) => Some(name),
        Expr::CompoundIdentifier(names) => names.first(),
        _ => None,
    }
}

/// The item of SELECT that a number stands for.
fn item_of<'a>(key: &Expr, items: &'a [SelectItem]) -> Option<&'a Expr> {
    let Expr::Value(value) = key else { return None };
    let Value::Number(number, _) = &value.value else { return None };
    match items.get(number.to_string().parse::<usize>().ok()?.checked_sub(1)?)? {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => Some(expr),
        _ => None,
    }
}

fn has_window(args: &TableFunctionArgs) -> bool {
    let argument = match args.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(name)))] => name,
        _ => return false,
    };
    argument.value.starts_with(WINDOW_ARGUMENT)
}

fn object_name(name: &ObjectName) -> String {
    let parts: Vec<String> = name.0.iter().filter_map(|part| part.as_ident()).map(folded).collect();
    parts.join(".")
}

/// The shortest time between two event times of a stream.
fn tick(stream: &StreamDefinition) -> &'static str {
    let column = stream.event_time.and_then(|rule| stream.schema.fields().get(rule.column));
    match column.map(|column| column.data_type()) {
        Some(DataType::Timestamp(TimeUnit::Second, _)) => "1 second",
        Some(DataType::Timestamp(TimeUnit::Millisecond, _)) => "1 millisecond",
        Some(DataType::Timestamp(TimeUnit::Microsecond, _)) => "1 microsecond",
        _ => "1 nanosecond",
    }
}

fn both_bounds(span: Span) -> Vec<Expr> {
    [WINDOW_START, WINDOW_END].map(|name| Expr::Identifier(Ident::with_span(span, name))).to_vec()
}

fn push_new(keys: &mut Vec<Expr>, more: Vec<Expr>) {
    for key in more {
        if !keys.contains(&key) {
            keys.push(key);
        }
    }
}

/// An expression of our own, its names at the place of the words they stand for.
fn parsed(text: &str, span: Span) -> Result<Expr> {
    let parser = Parser::new(&GenericDialect).try_with_sql(text);
    let mut expr = parser.and_then(|mut parser| parser.parse_expr()).map_err(|error| syntax_error(&error, &[]))?;
    change_expressions(&mut expr, |part| {
        if let Expr::Identifier(name) = part {
            name.span = span;
        }
        Ok(())
    })?;
    Ok(expr)
}
