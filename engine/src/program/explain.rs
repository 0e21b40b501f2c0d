//! Showing a program: its three plans, and what state each operator holds.

use std::fmt;

use crate::program::compile::{Program, Shape};

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
        let heads = self.inputs.iter().map(|input| indented(&input.head.display())).collect::<Vec<_>>().join("");
        let (update, merge, evaluate) = match &self.shape {
            Shape::Aggregate(plans) | Shape::Unbounded(plans) => {
                let [update, merge, evaluate] = plans.display();
                (update + &heads, merge, evaluate)
            }
            Shape::Rows(plan) => (heads, "concatenation of rows\n".to_owned(), plan.display()),
            Shape::Stateless(plan) | Shape::Finite(plan) => {
                (plan.display() + &heads, NOTHING.to_owned(), NOTHING.to_owned())
            }
        };
        Explanation { update, merge, evaluate, state: self.operator_states() }
    }

    fn operator_states(&self) -> Vec<OperatorState> {
        let mut states: Vec<_> = self.inputs.iter().map(|input| head_state(&input.head.table.scan_name())).collect();
        match &self.shape {
            Shape::Finite(_) | Shape::Stateless(_) => {}
            Shape::Unbounded(_) => states.push(OperatorState {
                operator: "group by over endless rows".to_owned(),
                is_bounded: false,
                reason: "one partial aggregate for each group ever seen".to_owned(),
            }),
            Shape::Aggregate(_) => states.extend(self.window_states("one partial aggregate for each group and pane")),
            Shape::Rows(_) => states.extend(self.window_states("the filtered and projected rows of each pane")),
        }
        states
    }

    fn window_states(&self, what: &str) -> Vec<OperatorState> {
        self.inputs
            .iter()
            .filter_map(|input| Some((input.head.table.scan_name(), input.head.table.window()?)))
            .map(|(name, window)| OperatorState {
                operator: format!("window {name}"),
                is_bounded: true,
                reason: format!(
                    "{what}; {} panes of {} are live, each is dropped when its last window has closed",
                    window.panes_per_window(),
                    window.pane_width(),
                ),
            })
            .collect()
    }
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
