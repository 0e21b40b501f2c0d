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
//! Each leaf of a query is cut by itself. Where the lowest node above a leaf is not an aggregate, its pane state is the
//! rows themselves, and `post` is all of the plan above them, which is right for any SQL. So a join of two grouped
//! windows keeps the groups of each, and one of a grouped window with rows keeps groups and rows.
//!
//! Before that, joins under aggregates become joins of aggregates where they can (`factored`).

mod aggregate;
mod compile;
mod exact;
mod explain;
mod factored;
mod order;
mod outer;
mod overflow;
mod rename;
mod row_plan;
mod rows;
mod session;
mod template;
mod work;

pub(crate) use aggregate::{AggregatePlans, SlotState, rows_by_slot};
pub(crate) use compile::{InputPlan, Kept, Program, Shape};
pub use explain::{Explanation, OperatorState};
pub(crate) use outer::OuterJoin;
pub(crate) use overflow::check_expression;
pub(crate) use rows::{Bound, Rows, Selection};
pub(crate) use session::Planner;
pub(crate) use template::Template;
