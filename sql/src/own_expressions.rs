//! The expressions of a part of a query that belong to none of its subqueries.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, Query, Visit, VisitMut, Visitor, VisitorMut};

use crate::error::{Error, Result};

/// Walks with `act` and counts how many subqueries are around.
struct Walk<F> {
    depth: usize,
    act: F,
}

/// Shows `see` every expression of `node`, outer ones first.
pub(crate) fn each_expression<V: Visit>(node: &V, see: impl FnMut(&Expr)) {
    let walked = node.visit(&mut Walk { depth: 0, act: see });
    debug_assert!(walked.is_continue(), "the walk never stops");
}

/// Lets `change` change every expression of `node`, outer ones first; what it puts in is walked as well.
///
/// # Errors
/// The first error of `change`.
pub(crate) fn change_expressions<V: VisitMut>(node: &mut V, change: impl FnMut(&mut Expr) -> Result<()>) -> Result<()> {
    match node.visit(&mut Walk { depth: 0, act: change }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

impl<F: FnMut(&Expr)> Visitor for Walk<F> {
    type Break = ();

    fn pre_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &Query) -> ControlFlow<()> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if self.depth == 0 {
            (self.act)(expr);
        }
        ControlFlow::Continue(())
    }
}

impl<F: FnMut(&mut Expr) -> Result<()>> VisitorMut for Walk<F> {
    type Break = Error;

    fn pre_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _query: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if self.depth > 0 {
            return ControlFlow::Continue(());
        }
        (self.act)(expr).map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }
}
