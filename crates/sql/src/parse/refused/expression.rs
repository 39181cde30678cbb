//! Expressions: calls of functions, windows, casts.

use sqlparser::ast::{
    CeilFloorKind, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
    FunctionArgumentList, FunctionArguments, WindowFrame, WindowSpec, WindowType,
};
use windrow_core::Result;

use super::super::spelling::no_window;
use super::{Walk, query};

pub(super) fn expression(walk: &Walk<'_>, expr: &Expr) -> Result<()> {
    match expr {
        Expr::Function(function) => call(walk, function),
        Expr::Cast { kind: _, expr: _, data_type: _, array, format } => {
            walk.without(
                *array,
                "ARRAY",
                "a cast to ARRAY is written INT[]",
                "Write CAST(x AS INT[]).",
            )?;
            let hint = "Write to_char(value, pattern) or to_timestamp(text, pattern).";
            walk.without(format.is_some(), "FORMAT", "CAST takes no FORMAT", hint)
        }
        Expr::Convert { .. } => {
            let hint = "Write CAST(value AS type), or TRY_CAST.";
            Err(walk.refused("CONVERT", "CONVERT is not supported", hint))
        }
        Expr::Collate { expr: _, collation: _ } => {
            let hint = "Text is ordered by its code points; compare lower(text) to ignore case.";
            Err(walk.refused("COLLATE", "COLLATE is not supported", hint))
        }
        Expr::Like { any, .. } | Expr::ILike { any, .. } => {
            let hint = "Join the conditions with OR, or use a regular expression: x ~ 'a|b'.";
            walk.without(*any, "ANY", "LIKE ANY is not supported", hint)
        }
        Expr::Ceil { expr: _, field } | Expr::Floor { expr: _, field } => {
            let is_scaled = matches!(field, CeilFloorKind::Scale(_));
            let name = if matches!(expr, Expr::Ceil { .. }) { "CEIL" } else { "FLOOR" };
            let hint = "Write date_trunc('day', ts), or round(x, digits).";
            walk.without(is_scaled, name, "FLOOR and CEIL take one value", hint)
        }
        Expr::OuterJoin(_) | Expr::Prior(_) => {
            let hint = "Write LEFT JOIN, or WITH RECURSIVE.";
            Err(walk.refused("SELECT", "(+) and PRIOR are not supported", hint))
        }
        Expr::MatchAgainst { .. } => {
            let hint = "Use LIKE, or a regular expression.";
            Err(walk.refused("MATCH", "MATCH … AGAINST is not supported", hint))
        }
        Expr::Prefixed { prefix, value: _ } => {
            let message = format!("text cannot have the prefix {}", prefix.value);
            Err(walk.refused(&prefix.value, &message, "Leave the prefix out."))
        }
        // The others have no parts that the planner ignores; it refuses those that it does not support.
        _ => Ok(()),
    }
}

fn call(walk: &Walk<'_>, function: &Function) -> Result<()> {
    let Function {
        name,
        uses_odbc_syntax: _,
        parameters,
        args,
        filter: _,
        null_treatment: _,
        over,
        within_group,
    } = function;
    let shown = name.to_string();
    let parametrized = !matches!(parameters, FunctionArguments::None);
    let message = format!("{shown} takes its arguments in one pair of parentheses");
    walk.without(parametrized, &shown, &message, "Write f(a, b), not f(a)(b).")?;
    within_group.iter().try_for_each(|expr| query::ordered(walk, expr))?;
    match args {
        FunctionArguments::None | FunctionArguments::Subquery(_) => {}
        FunctionArguments::List(list) => arguments(walk, &shown, list)?,
    }
    match over {
        None => Ok(()),
        Some(WindowType::NamedWindow(name)) => Err(no_window(name)),
        Some(WindowType::WindowSpec(spec)) => window(walk, spec),
    }
}

fn arguments(walk: &Walk<'_>, function: &str, list: &FunctionArgumentList) -> Result<()> {
    let FunctionArgumentList { duplicate_treatment: _, args, clauses } = list;
    for arg in args {
        let arg = match arg {
            FunctionArg::Named { arg, .. }
            | FunctionArg::ExprNamed { arg, .. }
            | FunctionArg::Unnamed(arg) => arg,
        };
        match arg {
            FunctionArgExpr::Expr(_)
            | FunctionArgExpr::QualifiedWildcard(_)
            | FunctionArgExpr::Wildcard => {}
            FunctionArgExpr::WildcardWithOptions(_) => {
                let message = format!("nothing may follow * in {function}");
                return Err(walk.refused(function, &message, "Write count(*)."));
            }
        }
    }
    for clause in clauses {
        let (words, what, hint) = match clause {
            FunctionArgumentClause::IgnoreOrRespectNulls(_) => continue,
            FunctionArgumentClause::OrderBy(exprs) => {
                exprs.iter().try_for_each(|expr| query::ordered(walk, expr))?;
                continue;
            }
            FunctionArgumentClause::Limit(_) => {
                ("LIMIT", "LIMIT", "Cut the list: array_slice(array_agg(x ORDER BY y), 1, n).")
            }
            FunctionArgumentClause::OnOverflow(_) => (
                "ON OVERFLOW",
                "ON OVERFLOW",
                "Leave it out: lists and texts are as long as they need.",
            ),
            FunctionArgumentClause::Having(_) => {
                ("HAVING", "HAVING", "Use first_value or last_value with ORDER BY.")
            }
            FunctionArgumentClause::Separator(_) => {
                ("SEPARATOR", "SEPARATOR", "Write string_agg(text, ',').")
            }
            FunctionArgumentClause::JsonNullClause(_) => {
                ("ON NULL", "NULL ON NULL", "Filter or COALESCE the values.")
            }
            FunctionArgumentClause::JsonReturningClause(_) => {
                ("RETURNING", "RETURNING", "Write CAST(… AS type).")
            }
        };
        return Err(walk.refused(words, &format!("{function} takes no {what}"), hint));
    }
    Ok(())
}

fn window(walk: &Walk<'_>, spec: &WindowSpec) -> Result<()> {
    let WindowSpec { window_name, partition_by: _, order_by, window_frame } = spec;
    if let Some(name) = window_name {
        return Err(no_window(name));
    }
    if let Some(WindowFrame { units: _, start_bound: _, end_bound: _ }) = window_frame {
        // All three are supported.
    }
    order_by.iter().try_for_each(|expr| query::ordered(walk, expr))
}
