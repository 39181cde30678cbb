//! Distinguishes calls that differ only in casts.
//!
//! DataFusion names a cast like its argument, so `sum(CAST(x AS INT))` and `sum(CAST(x AS DOUBLE))` would be two columns of one
//! name in an aggregation. In a SELECT with such calls a cast becomes the argument of `coalesce`, once for the first type, twice
//! for the second, and so on. `coalesce` of one value is that value, and the planner removes it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

use sqlparser::ast::{
    Expr, GroupByExpr, OrderBy, Select, Value, Visit, VisitMut, Visitor, VisitorMut,
};

use crate::parse::call;

/// Distinguishes the calls of a SELECT and of its ORDER BY.
pub(super) fn tell_apart(select: &mut Select, mut order_by: Option<&mut OrderBy>) {
    let mut calls = Calls::default();
    let _never_breaks = Visit::visit(&*select, &mut calls);
    if let Some(order_by) = &order_by {
        let _never_breaks = Visit::visit(&**order_by, &mut calls);
    }
    if let GroupByExpr::Expressions(keys, _) = &select.group_by {
        keys.iter().for_each(|key| calls.add(key));
    }
    if calls.0.values().all(|calls| calls.len() < 2) {
        return;
    }
    let mut casts = Casts::default();
    let _never_breaks = VisitMut::visit(select, &mut casts);
    if let Some(order_by) = &mut order_by {
        let _never_breaks = VisitMut::visit(&mut **order_by, &mut casts);
    }
}

/// Calls as text, by their text without casts.
#[derive(Default)]
struct Calls(BTreeMap<String, BTreeSet<String>>);

impl Calls {
    fn add(&mut self, call: &Expr) {
        let (mut plain, mut bare) = (call.clone(), call.clone());
        let _never_breaks = VisitMut::visit(&mut plain, &mut Without { casts: false });
        let _never_breaks = VisitMut::visit(&mut bare, &mut Without { casts: true });
        let text = |expr: Expr| expr.to_string().to_lowercase();
        self.0.entry(text(bare)).or_default().insert(text(plain));
    }
}

impl Visitor for Calls {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if matches!(expr, Expr::Function(_)) {
            self.add(expr);
        }
        ControlFlow::Continue(())
    }
}

/// Removes parentheses, and casts if wanted.
struct Without {
    casts: bool,
}

impl VisitorMut for Without {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let inner = match expr {
            Expr::Nested(inner) => Some(inner),
            Expr::Cast { expr: inner, .. } if self.casts => Some(inner),
            _ => None,
        };
        if let Some(inner) = inner {
            let inner = std::mem::replace(inner.as_mut(), Expr::value(Value::Null));
            *expr = inner;
        }
        ControlFlow::Continue(())
    }
}

/// Wraps casts, and collects their types in order.
#[derive(Default)]
struct Casts(Vec<String>);

impl VisitorMut for Casts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        let Expr::Cast { kind, data_type, .. } = expr else { return ControlFlow::Continue(()) };
        let to = format!("{kind:?} {data_type}").to_lowercase();
        let depth = match self.0.iter().position(|known| *known == to) {
            Some(at) => at,
            None => {
                self.0.push(to);
                self.0.len() - 1
            }
        };
        for _ in 0..=depth {
            let inner = std::mem::replace(expr, Expr::value(Value::Null));
            *expr = call("coalesce", vec![inner]);
        }
        ControlFlow::Continue(())
    }
}
