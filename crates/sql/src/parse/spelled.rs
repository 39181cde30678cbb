//! Rewrites expressions of streams (checks, generated columns, watermarks, defaults) like those of queries.

use std::ops::ControlFlow;

use sqlparser::ast::{ColumnDef, ColumnOption, Expr, Ident, visit_expressions};
use windrow_core::{Error, Place, Result};

use super::cursor::place_of;
use super::predict::is_predict;
use super::statement::CheckClause;
use super::{canonical, spelling};

impl CheckClause {
    /// Returns a check with a condition as it was written.
    ///
    /// # Errors
    /// As [`spelled`].
    pub(super) fn new(name: Option<Ident>, mut expr: Expr, place: Place) -> Result<Self> {
        let text = expr.to_string();
        spelled(&mut expr, "a check", place)?;
        Ok(Self { name, expr, text, place })
    }
}

/// Rewrites an expression of a stream like those of queries: `year(ts)`, `mod(a, b)`, `x::JSON`. `what` names it in
/// messages; `place` is where it is.
///
/// # Errors
/// When it calls a model, or a call has invalid arguments.
pub(super) fn spelled(expr: &mut Expr, what: &str, place: Place) -> Result<()> {
    if calls_model(expr) {
        return Err(Error::sql(format!("{what} cannot call a model")).with_place(place).with_hint(
            "Models can be replaced. Call it in a view, whose WHERE can leave rows out: SELECT *, predict(m, a) FROM s.",
        ));
    }
    let spell = |expr: &mut Expr| spelling::tree(expr).and_then(|()| canonical::canonicalize(expr));
    spell(expr).map_err(|e| if e.place().is_none() { e.with_place(place) } else { e })
}

/// Whether an expression calls `predict`.
fn calls_model(expr: &Expr) -> bool {
    let called = visit_expressions(expr, |part| match part {
        Expr::Function(function) if is_predict(function) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    called.is_break()
}

/// Rewrites the expressions among the options of a column like those of queries.
///
/// # Errors
/// As [`spelled`].
pub(super) fn spelled_options(column: &mut ColumnDef) -> Result<()> {
    let place = place_of(column.name.span);
    for option in &mut column.options {
        match &mut option.option {
            ColumnOption::Generated { generation_expr: Some(expr), .. } => {
                spelled(expr, "a generated column", place)
            }
            ColumnOption::Default(expr) => spelled(expr, "a default", place),
            _ => Ok(()),
        }?;
    }
    Ok(())
}
