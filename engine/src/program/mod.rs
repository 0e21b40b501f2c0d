//! A query's plans: made once from its logical plan, run for every micro-batch and every window.
//!
//! A plan is optimised as a whole by DataFusion and then taken apart:
//!
//! ```text
//!     post                  rows of a window → result rows      ┐
//!   aggregate   →  Final    state → rows of a window            ├ evaluate
//!               →  Reduce   state → state                       ┘ merge
//!               →  Partial  rows → state                        ┐
//!   filter, projection      row by row (`rows`)                 ├ update
//!   stream leaf             a slot, bound anew for each run     ┘
//! ```
//!
//! Where the lowest node above the leaves is not an aggregate, pane state is the rows themselves and `evaluate` is
//! the whole plan over the rows of a window, which is right for any SQL.

mod aggregate;
mod compile;
mod exact;
mod explain;
mod order;
mod overflow;
mod rename;
mod row_plan;
mod rows;
mod session;
mod template;

pub(crate) use aggregate::{AggregatePlans, SlotState, rows_by_slot};
pub(crate) use compile::{InputPlan, Program, Shape};
pub use explain::{Explanation, OperatorState};
pub(crate) use overflow::check_expression;
pub(crate) use rows::Rows;
pub(crate) use template::Template;
