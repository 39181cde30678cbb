//! The event-time properties of a column: the window that it identifies, and how far it may lie behind the watermark.

use datafusion::common::Column;
use datafusion::logical_expr::{Expr, LogicalPlan};

use super::relation::ToEnd;

/// The event-time properties of a column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Known {
    /// Its value determines the end of the row's window.
    pub(crate) to_end: Option<ToEnd>,
    /// It carries event time, and lies at most this many ticks behind the watermark.
    pub(crate) lag: Option<i64>,
}

/// The properties of a column of `plan` that an expression names.
pub(crate) fn of_column(known: &[Known], plan: &LogicalPlan, column: &Column) -> Known {
    plan.schema().maybe_index_of_column(column).map_or_else(Known::default, |i| at(known, i))
}

/// The properties of an expression over `plan`: none unless it is a column, or the greatest of several event times,
/// which is no further behind the watermark than any of them.
pub(crate) fn of_expr(known: &[Known], plan: &LogicalPlan, expr: &Expr) -> Known {
    match expr {
        Expr::Alias(alias) => of_expr(known, plan, &alias.expr),
        Expr::Column(column) => of_column(known, plan, column),
        Expr::ScalarFunction(call) if call.func.name() == "greatest" => {
            let lags = call.args.iter().map(|arg| of_expr(known, plan, arg).lag);
            let lags: Option<Vec<i64>> = lags.collect();
            Known { to_end: None, lag: lags.and_then(|lags| lags.into_iter().min()) }
        }
        _ => Known::default(),
    }
}

/// The properties of the column at `index`.
pub(crate) fn at(known: &[Known], index: usize) -> Known {
    known.get(index).copied().unwrap_or_default()
}
