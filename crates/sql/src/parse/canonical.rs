//! The walk that brings every window of a query into canonical form, at any depth, and every CAST to a text type with a
//! length.

use std::ops::ControlFlow;

use sqlparser::ast::{Expr, Query, Select, SetExpr, TableFactor, VisitMut, VisitorMut};
use windrow_core::{Error, Result};

use super::grouped::{self, Mention, mention};
use super::length;
use super::relation::{self, name_place, placed};

/// Rewrites all windows in `tree`, and all CASTs that shorten a text.
///
/// # Errors
/// When a window is not written correctly; the error has its place.
pub(super) fn canonicalize<T: VisitMut>(tree: &mut T) -> Result<()> {
    match tree.visit(&mut Walk) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

struct Walk;

impl VisitorMut for Walk {
    type Break = Box<Error>;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Self::Break> {
        let Query { body, order_by, .. } = query;
        match body.as_mut() {
            SetExpr::Select(select) => flow(grouped::rewrite(select, order_by.as_mut())),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Self::Break> {
        flow(grouped::rewrite(select, None))
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<Self::Break> {
        flow(relation::canonical(factor))
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Self::Break> {
        length::cut_cast(expr);
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let Some((window, mentioned)) = mention(&function.name) else {
            return ControlFlow::Continue(());
        };
        let title = window.title();
        let (what, hint) = match mentioned {
            Mention::Bound(column) => (
                format!("{} needs GROUP BY {title}(…)", function.name),
                format!("Group by the window, or read FROM {title}(…) and select {column}."),
            ),
            Mention::Window { .. } => (
                format!("{title} is used where it is neither a relation nor a group"),
                format!("Use it in FROM, as {title}(t, ts, …), or in GROUP BY."),
            ),
        };
        let error = placed(Error::sql(what).with_hint(hint), name_place(&function.name));
        ControlFlow::Break(Box::new(error))
    }
}

fn flow(result: Result<()>) -> ControlFlow<Box<Error>> {
    match result {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => ControlFlow::Break(Box::new(error)),
    }
}
