//! The bounded form of OVER with an expression in PARTITION BY: the expression becomes a column first. The underlying
//! engine otherwise loses the order of the rows, and its RANGE frames then fail.
//!
//! Invariant: rows and columns do not change.

use std::sync::Arc;

use datafusion::common::Result;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, Window};

use super::bounded::named;

/// The name of a column for an expression in PARTITION BY.
fn name(index: usize) -> String {
    format!("__partition{index}")
}

/// Moves the expressions in PARTITION BY below the node; `None` if there are none.
///
/// # Errors
/// Those of the plan.
pub(crate) fn with_columns(window: &Window) -> Result<Option<LogicalPlan>> {
    let mut computed: Vec<Expr> = vec![];
    let exprs: Vec<Expr> = window
        .window_expr
        .iter()
        .map(|expr| {
            let Expr::WindowFunction(mut function) = expr.clone().unalias() else {
                return expr.clone();
            };
            for key in &mut function.params.partition_by {
                if matches!(key, Expr::Column(_) | Expr::Literal(..)) {
                    continue;
                }
                let index = computed.iter().position(|known| known == key).unwrap_or_else(|| {
                    computed.push(key.clone());
                    computed.len() - 1
                });
                *key = datafusion::logical_expr::col(name(index));
            }
            Expr::WindowFunction(function)
        })
        .collect();
    if computed.is_empty() {
        return Ok(None);
    }
    let columns = window.input.schema().columns().into_iter().map(Expr::Column);
    let keys = computed.into_iter().enumerate().map(|(i, key)| key.alias(name(i)));
    let input = LogicalPlanBuilder::from(window.input.as_ref().clone())
        .project(columns.chain(keys).collect::<Vec<_>>())?
        .build()?;
    let before = input.schema().fields().len();
    let over = Window::try_new(exprs, Arc::new(input))?;
    let own = window.input.schema().fields().len();
    let places = (0..own).chain(before..over.schema.fields().len());
    let columns = over.schema.columns();
    let renamed = places.zip(window.schema.iter()).filter_map(|(place, (qualifier, field))| {
        let column = Expr::Column(columns.get(place)?.clone());
        Some(named(column, qualifier.cloned(), field.name()))
    });
    let renamed: Vec<Expr> = renamed.collect();
    LogicalPlanBuilder::from(LogicalPlan::Window(over)).project(renamed)?.build().map(Some)
}
