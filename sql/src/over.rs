//! `OVER (PARTITION BY k ORDER BY ts … PRECEDING)` on an endless stream: each row with those before it, once.
//!
//! The frame says how long a row matters, and so how much is kept. The query becomes one over a window at each row,
//! [`WindowSpec::preceding`], that holds the rows of its time and those in their frames; of its results those of the
//! rows of its time are given.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, IntervalUnit, TimeUnit};
use datafusion::common::tree_node::{Transformed, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, Result as DataFusionResult, ScalarValue};
use datafusion::logical_expr::expr::{Sort, WindowFunction};
use datafusion::logical_expr::{
    Expr, LogicalPlan, LogicalPlanBuilder, Window, WindowFrameBound, WindowFrameUnits, cast,
};
use millstream_engine::plan::{Input, WINDOW_END};
use millstream_engine::time::Span;
use millstream_engine::window::{Frame, WindowSpec};

use crate::error::{Error, Result};
use crate::interval::{nanoseconds, node_name};
use crate::push_window::Passing;
use crate::statement::ParsedQuery;

const EXAMPLE: &str = "say how far back it looks: OVER (PARTITION BY k ORDER BY ts ROWS BETWEEN 10 PRECEDING AND CURRENT \
                       ROW), or RANGE BETWEEN INTERVAL '5' MINUTE PRECEDING AND CURRENT ROW";

/// What the functions of a query look at.
#[derive(Debug, Default)]
struct Frames {
    frame: Option<Frame>,
    /// The columns of the stream that all of them keep apart; `None` if they differ.
    keys: Option<Vec<usize>>,
    is_first: bool,
}

/// `plan` as one over windows at rows, if functions with OVER stand over the rows of an endless stream in it.
///
/// # Errors
/// One of them looks at more rows than can be kept, or not in the order of event time.
pub(crate) fn over_rows(plan: &LogicalPlan, query: &ParsedQuery) -> Result<Option<LogicalPlan>> {
    let place = query.find_last(&["over"]);
    let Some(functions) = over_stream(plan) else {
        let Some(other) = beyond_rows(plan) else { return Ok(None) };
        let error = Error::unsupported(format!("{other} over functions with OVER on an endless stream"), "");
        let hint = "only filters and expressions may stand over them; or give the stream a window";
        return Err(error.hint(hint).at(place));
    };
    let input = below(functions);
    let Some(passing) = Passing::of(input) else { return Ok(None) };
    let Some(frames) = Frames::of(functions, passing).map_err(|error| error.at(place))? else { return Ok(None) };
    let Some(frame) = frames.frame else { return Ok(None) };
    if matches!(frame, Frame::Rows(_)) && !passing.keeps_rows() {
        let error = Error::unsupported("OVER rows of an endless stream that are filtered or joined before", "");
        let hint =
            "filter what it gives, in a query around it; or look back by time, RANGE BETWEEN INTERVAL … PRECEDING";
        return Err(error.hint(hint).at(place));
    }
    let window = WindowSpec::preceding(frame);
    let windowed = give_window(plan, functions, passing, window, &frames.keys.unwrap_or_default());
    windowed
        .map(Some)
        .map_err(|error| Error { source: Some(Arc::new(error)), ..Error::new("the query with OVER cannot be planned") })
}

/// The first node of functions with OVER, if only filters and expressions stand above it.
fn over_stream(plan: &LogicalPlan) -> Option<&LogicalPlan> {
    match plan {
        LogicalPlan::Window(_) => Some(plan),
        LogicalPlan::Projection(_) | LogicalPlan::Filter(_) | LogicalPlan::SubqueryAlias(_) => {
            plan.inputs().first().and_then(|input| over_stream(input))
        }
        _ => None,
    }
}

/// The node that makes more of functions with OVER on an endless stream than rows by themselves.
fn beyond_rows(plan: &LogicalPlan) -> Option<String> {
    let is_over_stream =
        |input: &&LogicalPlan| over_stream(input).is_some_and(|functions| Passing::of(below(functions)).is_some());
    if plan.inputs().iter().any(is_over_stream) {
        return Some(node_name(plan));
    }
    plan.inputs().into_iter().find_map(beyond_rows)
}

/// What functions with OVER, of which some may stand on others, have below them.
fn below(functions: &LogicalPlan) -> &LogicalPlan {
    match functions {
        LogicalPlan::Window(window) => below(&window.input),
        other => other,
    }
}

impl Frames {
    /// What all `functions` over a stream need; none if it has no event time.
    fn of(functions: &LogicalPlan, passing: Passing<'_>) -> Result<Option<Self>> {
        let time = passing.stream().and_then(|leaf| match leaf.input() {
            Input::Stream(stream) => stream.event_time.map(|rule| rule.column),
            Input::View(_) => None,
        });
        let Some(time) = time else {
            let error = Error::new("OVER an endless stream needs a watermark, which says when a row's time has come");
            return Err(error.hint("add WATERMARK FOR ts AS ts - INTERVAL '5 seconds' to its CREATE STREAM"));
        };
        let mut frames = Self { is_first: true, ..Self::default() };
        let mut node = functions;
        while let LogicalPlan::Window(window) = node {
            for expression in &window.window_expr {
                if let Expr::WindowFunction(function) = expression.clone().unalias() {
                    frames.take(&function, time, passing)?;
                }
            }
            node = &window.input;
        }
        Ok(Some(frames))
    }

    fn take(&mut self, function: &WindowFunction, time: usize, passing: Passing<'_>) -> Result<()> {
        let source = |expression: &Expr| match expression {
            Expr::Column(column) => passing.source_of(column),
            _ => None,
        };
        let is_time = |sort: &Sort| sort.asc && source(&sort.expr) == Some(time);
        let params = &function.params;
        match params.order_by.as_slice() {
            [sort] if is_time(sort) => {}
            [] => return Err(Error::new("OVER without ORDER BY looks at all rows of an endless stream").hint(EXAMPLE)),
            _ => {
                let error = Error::new("OVER an endless stream goes by event time, and its ORDER BY says otherwise");
                return Err(error.hint("write ORDER BY and the column of the watermark, ascending"));
            }
        }
        let keys: Option<Vec<usize>> = params.partition_by.iter().map(source).collect();
        let frame = frame_of(function)?;
        let is_mixed = match (self.frame, frame) {
            (Some(Frame::Rows(_)), Frame::Range(_)) | (Some(Frame::Range(_)), Frame::Rows(_)) => true,
            (_, Frame::Rows(_)) => keys.is_none() || (!self.is_first && self.keys != keys),
            _ => false,
        };
        if is_mixed {
            let what =
                "functions with OVER that look back by rows of different keys, or by rows and by time, in one query";
            return Err(Error::unsupported(what, "").hint("make them queries of their own; keys of rows are columns"));
        }
        self.frame = Some(self.frame.map_or(frame, |known| known.max(frame)));
        self.keys = if self.is_first || self.keys == keys { keys } else { None };
        self.is_first = false;
        Ok(())
    }
}

/// How far back a function looks.
fn frame_of(function: &WindowFunction) -> Result<Frame> {
    let params = &function.params;
    let name = function.fun.name();
    match name {
        "lag" => {
            let count = match params.args.get(1) {
                None => Some(1),
                Some(Expr::Literal(count, _)) => count.cast_to(&DataType::UInt64).ok().and_then(|count| match count {
                    ScalarValue::UInt64(count) => count,
                    _ => None,
                }),
                Some(_) => None,
            };
            return count.map(Frame::Rows).ok_or_else(|| {
                Error::new("lag looks back by a number of rows").hint("write for example lag(price, 1) OVER (…)")
            });
        }
        "lead" => {
            let error = Error::new("lead looks at rows of an endless stream that may not be there yet");
            return Err(error.hint("look back instead, with lag"));
        }
        "row_number" | "rank" | "dense_rank" | "percent_rank" | "cume_dist" | "ntile" => {
            let error = Error::new(format!("{name} counts from the first row of an endless stream on"));
            return Err(error.hint("give the stream a window: t [Range 5 minutes, Slide 1 minute]"));
        }
        _ => {}
    }
    let frame = &params.window_frame;
    let reaches_now = match &frame.end_bound {
        WindowFrameBound::CurrentRow | WindowFrameBound::Preceding(_) => true,
        WindowFrameBound::Following(length) => is_zero(length),
    };
    if !reaches_now {
        let error = Error::new("OVER looks at rows of an endless stream that may not be there yet");
        return Err(error.hint("let it end at the current row: … PRECEDING AND CURRENT ROW"));
    }
    let reach = match (&frame.start_bound, frame.units) {
        (WindowFrameBound::CurrentRow, WindowFrameUnits::Rows) => Some(Frame::Rows(0)),
        (WindowFrameBound::CurrentRow, WindowFrameUnits::Range) => Some(Frame::Range(Span(0))),
        (WindowFrameBound::Preceding(ScalarValue::UInt64(Some(rows))), WindowFrameUnits::Rows) => {
            Some(Frame::Rows(*rows))
        }
        (WindowFrameBound::Preceding(length), WindowFrameUnits::Range) => length_of(length).map(Frame::Range),
        _ => None,
    };
    reach.ok_or_else(|| Error::new("OVER an endless stream would keep all its rows for ever").hint(EXAMPLE))
}

fn is_zero(length: &ScalarValue) -> bool {
    matches!(length, ScalarValue::UInt64(Some(0)))
}

/// The length of a range, which may still be text.
fn length_of(length: &ScalarValue) -> Option<Span> {
    let interval = length.cast_to(&DataType::Interval(IntervalUnit::MonthDayNano)).ok()?;
    nanoseconds(&interval).filter(|nanos| *nanos >= 0).map(Span)
}

/// `plan` with its stream seen through `window` below `functions`, of whose results those of the rows at the instant are
/// left; the columns stay.
fn give_window(
    plan: &LogicalPlan,
    functions: &LogicalPlan,
    passing: Passing<'_>,
    window: WindowSpec,
    keys: &[usize],
) -> DataFusionResult<LogicalPlan> {
    let given = rows_at_the_instant(functions, passing.windowed(Some(window), keys)?, passing)?;
    let replaced = plan.clone().transform_down(|node| {
        Ok(if matches!(node, LogicalPlan::Window(_)) {
            Transformed::new(given.clone(), true, TreeNodeRecursion::Stop)
        } else {
            Transformed::no(node)
        })
    })?;
    replaced.data.recompute_schema()
}

/// `functions` over `input`, and of its results the columns and rows that they give for the time of the instant.
fn rows_at_the_instant(
    functions: &LogicalPlan,
    input: LogicalPlan,
    passing: Passing<'_>,
) -> DataFusionResult<LogicalPlan> {
    let mut chain = Vec::new();
    let mut node = functions;
    while let LogicalPlan::Window(window) = node {
        chain.push(window);
        node = &window.input;
    }
    let column = |plan: &LogicalPlan, index: usize| Expr::Column(Column::from(plan.schema().qualified_field(index)));
    let end = input.schema().iter().position(|(_, field)| field.name() == WINDOW_END);
    let time = (0..node.schema().fields().len()).find(|index| passing.is_event_time(*index));
    let (Some(end), Some(time)) = (end, time) else {
        return datafusion::common::internal_err!("a window at rows shows no event time or no end");
    };
    let nanos = DataType::Timestamp(TimeUnit::Nanosecond, None);
    let is_now = cast(column(&input, time), nanos).eq(column(&input, end));
    let mut over = input;
    for window in chain.into_iter().rev() {
        over = LogicalPlan::Window(Window::try_new(window.window_expr.clone(), Arc::new(over))?);
    }
    let shown = functions.schema().columns().into_iter().map(Expr::Column);
    // Functions leave rows by their keys; who reads them wants them as they came.
    let in_time = column(&over, time).sort(true, false);
    LogicalPlanBuilder::from(over).filter(is_now)?.sort([in_time])?.project(shown)?.build()
}
