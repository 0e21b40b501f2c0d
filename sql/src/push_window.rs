//! A window over a view that has none inside: it is that of the stream whose rows pass through the view.
//!
//! Filters, projections and joins with static tables keep the event times of a stream's rows as they are, so that the
//! rows of a range of time are the same whether it is taken below them or above. Which rows are the latest, or where a
//! session ends, does depend on what filters and joins do; expressions alone change nothing there.

use std::sync::Arc;

use datafusion::common::{Column, JoinType, Result as DataFusionResult, TableReference};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::logical_expr::{Expr, Join, LogicalPlan, LogicalPlanBuilder};
use millstream_engine::plan::{Input, StreamTable, WINDOW_END, WINDOW_START};
use millstream_engine::window::WindowSpec;

/// A plan through which the rows of one stream pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passing<'a>(&'a LogicalPlan);

impl<'a> Passing<'a> {
    /// The plan as such; none if it is another.
    pub(crate) fn of(plan: &'a LogicalPlan) -> Option<Self> {
        let names = [WINDOW_START, WINDOW_END];
        let shows_bounds = plan.schema().fields().iter().any(|field| names.contains(&field.name().as_str()));
        let passing = Self(plan);
        (!shows_bounds && passing.stream().is_some()).then_some(passing)
    }

    /// The stream.
    pub(crate) fn stream(self) -> Option<StreamTable> {
        match self.0 {
            LogicalPlan::TableScan(scan) if scan.projection.is_none() && scan.filters.is_empty() => {
                let leaf = source_as_provider(&scan.source).ok()?.downcast_ref::<StreamTable>().cloned()?;
                leaf.window().is_none().then_some(leaf)
            }
            LogicalPlan::Join(join) => stream_side(join).and_then(Self::stream),
            LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
                Self(self.0.inputs().first()?).stream()
            }
            _ => None,
        }
    }

    /// Whether each row of the stream is one row of the view.
    pub(crate) fn keeps_rows(self) -> bool {
        match self.0 {
            LogicalPlan::Filter(_) | LogicalPlan::Join(_) => false,
            other => other.inputs().first().is_none_or(|input| Self(input).keeps_rows()),
        }
    }

    /// The stream's column that an output column shows as it is.
    pub(crate) fn source_column(self, index: usize) -> Option<usize> {
        match self.0 {
            LogicalPlan::TableScan(_) => Some(index),
            LogicalPlan::Projection(projection) => {
                let column = projection.expr.get(index)?.clone().unalias();
                let Expr::Column(column) = column else { return None };
                let below = projection.input.schema().maybe_index_of_column(&column)?;
                Self(&projection.input).source_column(below)
            }
            LogicalPlan::Join(join) => {
                let side = stream_side(join)?;
                let is_left = std::ptr::eq(side.0, join.left.as_ref());
                let below = if is_left { index } else { index.checked_sub(join.left.schema().fields().len())? };
                (below < side.0.schema().fields().len()).then(|| side.source_column(below))?
            }
            _ => Self(self.0.inputs().first()?).source_column(index),
        }
    }

    /// The stream's column that a column of the output shows as it is.
    pub(crate) fn source_of(self, column: &Column) -> Option<usize> {
        self.source_column(self.0.schema().maybe_index_of_column(column)?)
    }

    /// Whether an output column shows the event time as it is.
    pub(crate) fn is_event_time(self, index: usize) -> bool {
        let stream = self.stream();
        let rule = stream.as_ref().and_then(|leaf| match leaf.input() {
            Input::Stream(stream) => stream.event_time,
            Input::View(_) => None,
        });
        rule.is_some_and(|rule| self.source_column(index) == Some(rule.column))
    }

    /// The same rows seen through a window that keeps those columns of the stream apart; its bounds are columns too.
    ///
    /// # Errors
    /// Fails only if the planner cannot plan what it has planned before.
    pub(crate) fn windowed(self, window: Option<WindowSpec>, keys: &[usize]) -> DataFusionResult<LogicalPlan> {
        match self.0 {
            LogicalPlan::TableScan(scan) => {
                let leaf = source_as_provider(&scan.source)?.downcast_ref::<StreamTable>().cloned();
                let Some(leaf) = leaf else { return Ok(self.0.clone()) };
                let leaf = StreamTable::new(leaf.input().clone(), window).keyed_by(keys.to_vec());
                let name = TableReference::bare(leaf.scan_name());
                LogicalPlanBuilder::scan(name, provider_as_source(Arc::new(leaf)), None)?
                    .alias(scan.table_name.clone())?
                    .build()
            }
            LogicalPlan::Projection(projection) => {
                let input = Self(&projection.input).windowed(window, keys)?;
                let bounds = bounds(&input);
                LogicalPlanBuilder::from(input).project(projection.expr.iter().cloned().chain(bounds))?.build()
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = Self(&alias.input).windowed(window, keys)?;
                LogicalPlanBuilder::from(input).alias(alias.alias.clone())?.build()
            }
            other => {
                let inputs = other.inputs().into_iter().map(|input| match Self(input).stream() {
                    Some(_) => Self(input).windowed(window, keys),
                    None => Ok(input.clone()),
                });
                let inputs = inputs.collect::<DataFusionResult<Vec<_>>>()?;
                other.with_new_exprs(other.expressions(), inputs)
            }
        }
    }
}

/// The side of a join with a static table whose rows are those of a stream; none if rows of the table stand alone.
fn stream_side(join: &Join) -> Option<Passing<'_>> {
    let (left, right) = (Passing(&join.left), Passing(&join.right));
    match (left.stream(), right.stream(), join.join_type) {
        (Some(_), None, JoinType::Inner | JoinType::Left) => Some(left),
        (None, Some(_), JoinType::Inner | JoinType::Right) => Some(right),
        _ => None,
    }
}

/// The columns that hold the bounds of the window.
fn bounds(plan: &LogicalPlan) -> Vec<Expr> {
    let names = [WINDOW_START, WINDOW_END];
    let bounds = plan.schema().iter().filter(|(_, field)| names.contains(&field.name().as_str()));
    bounds.map(|(qualifier, field)| Expr::Column(Column::from((qualifier, field)))).collect()
}
