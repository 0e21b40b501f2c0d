//! Showing a program: its three plans, and what state each operator holds.

use std::fmt;

use crate::program::compile::{InputPlan, Kept, Program, Shape};
use crate::program::template::Template;
use crate::window::{Contents, Frame};

/// What `EXPLAIN` shows of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Rows to pane state, for every micro-batch.
    pub update: String,
    /// State to state.
    pub merge: String,
    /// Pane state to result rows, for every instant.
    pub evaluate: String,
    /// The state each operator holds.
    pub state: Vec<OperatorState>,
}

/// The state of one operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorState {
    /// The operator.
    pub operator: String,
    /// Whether its state stays finite on endless input.
    pub is_bounded: bool,
    /// Why.
    pub reason: String,
}

impl Program {
    /// Describes the program.
    pub(crate) fn explain(&self) -> Explanation {
        let lines = |input: &InputPlan| indented(&input.head.display());
        let mut update = String::new();
        let mut merge = String::new();
        let mut evaluate = match &self.shape {
            Shape::Windows(post) | Shape::Unbounded(_, post) => {
                post.as_ref().map(Template::display).unwrap_or_default()
            }
            Shape::Stateless(plan) | Shape::Finite(plan) => {
                update = plan.display();
                String::new()
            }
        };
        for input in &self.inputs {
            match &input.keeps {
                Kept::Aggregate(plans) => {
                    let [partial, reduce, finish] = plans.display();
                    update += &(partial + &lines(input));
                    merge += &reduce;
                    evaluate += &finish;
                }
                Kept::Rows => update += &lines(input),
            }
        }
        if merge.is_empty() {
            merge = match &self.shape {
                Shape::Windows(_) => "concatenation of rows\n".to_owned(),
                _ => NOTHING.to_owned(),
            };
        }
        if evaluate.is_empty() {
            evaluate = NOTHING.to_owned();
        }
        Explanation { update, merge, evaluate, state: self.operator_states() }
    }

    fn operator_states(&self) -> Vec<OperatorState> {
        let mut states: Vec<_> = self.inputs.iter().map(|input| head_state(&input.head.table.scan_name())).collect();
        match &self.shape {
            Shape::Finite(_) | Shape::Stateless(_) => {}
            Shape::Unbounded(..) => states.push(OperatorState {
                operator: "group by over endless rows".to_owned(),
                is_bounded: false,
                reason: "one partial aggregate for each group ever seen".to_owned(),
            }),
            Shape::Windows(_) => states.extend(self.inputs.iter().filter_map(window_state)),
        }
        states
    }
}

/// What a windowed leaf keeps, and why that stays finite.
fn window_state(input: &InputPlan) -> Option<OperatorState> {
    let window = input.table().window()?;
    let what = match (&input.keeps, window.selects_rows()) {
        (Kept::Aggregate(_), _) => "one partial aggregate for each group and pane",
        (Kept::Rows, false) => "the filtered and projected rows of each pane",
        (Kept::Rows, true) => "rows",
    };
    let keys = if input.table().keys().is_empty() { "" } else { " of each key" };
    let reason = match window.contents() {
        Contents::Sliding | Contents::Cumulating if window.is_by_row() => {
            let marks = if input.marks_partners { ", each with a mark whether it has had a partner" } else { "" };
            format!("{what}{marks}; those of the last {} are live", window.range())
        }
        Contents::Sliding | Contents::Cumulating => format!(
            "{what}; {} panes of {} are live, each is dropped when its last window has closed",
            window.panes_per_window(),
            window.pane_width(),
        ),
        Contents::Latest(1) => format!("the last row{keys}; as many as there are keys"),
        Contents::Latest(rows) => format!("the last {rows} rows{keys}"),
        Contents::Preceding(Frame::Rows(rows)) => format!("the last {rows} rows{keys}"),
        Contents::Preceding(Frame::Range(range)) => format!("the rows{keys} of the last {range}"),
        Contents::Counted { rows, slide } => {
            format!("the {rows} rows of the last window, and those since; after every {slide} rows comes another")
        }
        Contents::Session => {
            format!("the rows{keys} until none came for {}; then the session is dropped", window.range())
        }
    };
    let is_of_a_time = !window.is_latest() || matches!(window.contents(), Contents::Preceding(Frame::Range(_)));
    let is_bounded = is_of_a_time || input.table().keys().is_empty();
    Some(OperatorState { operator: format!("window {}", input.table().scan_name()), is_bounded, reason })
}

const NOTHING: &str = "nothing\n";

fn head_state(name: &str) -> OperatorState {
    OperatorState {
        operator: format!("scan, filter, project {name}"),
        is_bounded: true,
        reason: "no state, row by row".to_owned(),
    }
}

/// The lines of a head, innermost last, indented as DataFusion indents plans.
fn indented(lines: &[String]) -> String {
    lines.iter().rev().enumerate().map(|(depth, line)| format!("{}{line}\n", "  ".repeat(depth))).collect()
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = [("update", &self.update), ("merge", &self.merge), ("evaluate", &self.evaluate)];
        for (name, plan) in parts {
            writeln!(f, "{name}")?;
            for line in plan.lines() {
                writeln!(f, "  {line}")?;
            }
        }
        writeln!(f, "state")?;
        for state in &self.state {
            let bound = if state.is_bounded { "bounded" } else { "unbounded" };
            writeln!(f, "  {}: {bound}: {}", state.operator, state.reason)?;
        }
        Ok(())
    }
}
