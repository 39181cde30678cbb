//! Rewrites expressions of PostgreSQL, DuckDB and Flink as the engine has them: `(s).b`, `x::json`,
//! `json_extract_string(x, '$.a')`, `time_bucket(…)`, `year(ts)`, `mod(a, b)`; and the calls of
//! models.

use sqlparser::ast::{
    AccessExpr, BinaryOperator, CastKind, CharacterLength, DataType, Expr, Function, FunctionArg,
    FunctionArgExpr, FunctionArgumentList, FunctionArguments, Ident, ObjectName, Value,
};
use windrow_core::{Error, Result};

use super::buckets::time_bucket;
use super::foreign_functions;
use super::predict::{PREDICT, predict};
use super::relation::{name_place, placed, plain, unnamed};

/// Rewrites one expression.
///
/// # Errors
/// When a call has arguments that make no sense.
pub(super) fn expression(expr: &mut Expr) -> Result<()> {
    match expr {
        Expr::Function(function) => {
            predict(function)?;
            time_bucket(function)?;
            extract(function)?;
            if let Some(same) =
                operator(function).or_else(|| foreign_functions::rewritten(function))
            {
                *expr = same;
            }
            Ok(())
        }
        Expr::Floor { .. } | Expr::Ceil { .. } => {
            if let Some(same) = foreign_functions::rounded(expr) {
                *expr = same;
            }
            Ok(())
        }
        Expr::CompoundFieldAccess { root, access_chain } => {
            if let Some(accessed) = accessed(root, access_chain) {
                *expr = accessed;
            }
            Ok(())
        }
        Expr::Cast { kind, data_type, .. } => {
            if matches!(data_type, DataType::JSON | DataType::JSONB) {
                let name = match kind {
                    CastKind::TryCast | CastKind::SafeCast => "try_json",
                    CastKind::Cast | CastKind::DoubleColon => "json",
                };
                *data_type = DataType::Varchar(None::<CharacterLength>);
                let text = std::mem::replace(expr, Expr::Value(Value::Null.into()));
                *expr = call(name, vec![text]);
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// `(s).b` as `s.b`; a field of any other expression as a call. `None` for other accesses.
fn accessed(root: &Expr, chain: &[AccessExpr]) -> Option<Expr> {
    let names = chain.iter().map(|access| match access {
        AccessExpr::Dot(Expr::Identifier(name)) => Some(name.clone()),
        _ => None,
    });
    let names = names.collect::<Option<Vec<Ident>>>()?;
    let Expr::Nested(inner) = root else { return None };
    let before = match inner.as_ref() {
        Expr::Identifier(name) => vec![name.clone()],
        Expr::CompoundIdentifier(parts) => parts.clone(),
        other => {
            let field = |expr, name: &Ident| {
                let folded = match name.quote_style {
                    Some(_) => name.value.clone(),
                    None => name.value.to_lowercase(),
                };
                call("get_field", vec![expr, text(&folded)])
            };
            return Some(names.iter().fold(other.clone(), field));
        }
    };
    Some(Expr::CompoundIdentifier([before, names].concat()))
}

pub(super) fn text(text: &str) -> Expr {
    Expr::Value(Value::SingleQuotedString(text.to_owned()).into())
}

/// Returns a call of a function.
pub(crate) fn call(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(name)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: args.into_iter().map(unnamed).collect(),
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    })
}

/// The parts of a time that DuckDB and Flink have functions of the same name for, but for one, and what EXTRACT calls them.
const PARTS: &[(&str, &str)] = &[
    ("year", "year"),
    ("quarter", "quarter"),
    ("month", "month"),
    ("week", "week"),
    ("day", "day"),
    ("dayofmonth", "day"),
    ("dayofyear", "doy"),
    ("hour", "hour"),
    ("minute", "minute"),
];

/// Whether calls of this function are rewritten, so that no user-defined function of the name would be called.
pub fn is_rewritten(name: &str) -> bool {
    let extracts = EXTRACTS.iter().map(|(called, ..)| *called);
    let mut names = PARTS.iter().map(|(called, _)| *called).chain(extracts).chain(["mod", PREDICT]);
    names.any(|called| name.eq_ignore_ascii_case(called)) || foreign_functions::is_rewritten(name)
}

/// `year(ts)` as `date_part('year', ts)`, `mod(a, b)` as `(a % b)`.
fn operator(function: &Function) -> Option<Expr> {
    let name = plain(&function.name)?.value.to_ascii_lowercase();
    let part = PARTS.iter().find(|(called, _)| *called == name);
    match (foreign_functions::arguments(function)?.as_slice(), part) {
        ([time], Some((_, part))) => Some(call("date_part", vec![text(part), time.clone()])),
        ([left, right], None) if name == "mod" => {
            Some(foreign_functions::binary(left, BinaryOperator::Modulo, right))
        }
        _ => None,
    }
}

/// Functions of DuckDB, PostgreSQL and Flink that extract from JSON, and ours for each.
const EXTRACTS: &[(&str, &str, bool)] = &[
    ("json_extract", "json_get_json", true),
    ("json_extract_string", "json_as_text", true),
    ("json_value", "json_as_text", true),
    ("json_query", "json_get_json", true),
    ("json_exists", "json_contains", true),
    ("json_extract_path", "json_get_json", false),
    ("json_extract_path_text", "json_as_text", false),
];

/// Rewrites `json_extract_string(x, '$.a.b')` as `json_as_text(x, 'a', 'b')`, and functions like it.
fn extract(function: &mut Function) -> Result<()> {
    let Some(name) = plain(&function.name).cloned() else { return Ok(()) };
    let found = EXTRACTS.iter().find(|(called, ..)| name.value.eq_ignore_ascii_case(called));
    let Some((called, ours, by_path)) = found else { return Ok(()) };
    let FunctionArguments::List(list) = &mut function.args else { return Ok(()) };
    if *by_path {
        let steps = match list.args.as_slice() {
            [_, FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(path)))] => {
                match &path.value {
                    Value::SingleQuotedString(path) => steps(path),
                    Value::Number(..) => Some(vec![Expr::Value(path.clone())]),
                    _ => None,
                }
            }
            _ => None,
        };
        let Some(steps) = steps else {
            let error = Error::sql(format!("{called} takes a text and a path that is written out"))
                .with_hint(format!("Write {called}(x, '$.a.b[0]'), or x -> 'a' -> 'b'."));
            return Err(placed(error, name_place(&function.name)));
        };
        list.args.truncate(1);
        list.args.extend(steps.into_iter().map(unnamed));
    }
    function.name = ObjectName::from(vec![Ident { value: (*ours).to_owned(), ..name }]);
    Ok(())
}

/// The steps of a path: `$.a.b[0]`, `$."a b"`, `/a/b/0`, or one key. `None` where it has others.
fn steps(path: &str) -> Option<Vec<Expr>> {
    let number = |digits: &str| {
        let is_index = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit());
        is_index.then(|| Expr::Value(Value::Number(digits.to_owned(), false).into()))
    };
    if let Some(pointer) = path.strip_prefix('/') {
        let step = |step: &str| {
            number(step).unwrap_or_else(|| text(&step.replace("~1", "/").replace("~0", "~")))
        };
        return Some(pointer.split('/').map(step).collect());
    }
    let Some(mut rest) = path.strip_prefix('$') else { return Some(vec![text(path)]) };
    let mut steps = vec![];
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix('[') {
            let (digits, after) = after.split_once(']')?;
            steps.push(number(digits)?);
            rest = after;
        } else if let Some(after) = rest.strip_prefix(".\"") {
            let (key, after) = after.split_once('"')?;
            steps.push(text(key));
            rest = after;
        } else {
            let after = rest.strip_prefix('.')?;
            let end = after.find(['.', '[']).unwrap_or(after.len());
            let (key, after) = after.split_at(end);
            if key.is_empty() || key.contains('*') {
                return None;
            }
            steps.push(text(key));
            rest = after;
        }
    }
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_steps() {
        let shown = |path: &str| {
            steps(path).map(|steps| steps.iter().map(ToString::to_string).collect::<Vec<_>>())
        };
        assert_eq!(shown("$.a.b[0]").unwrap(), ["'a'", "'b'", "0"]);
        assert_eq!(shown("$.\"a b\"").unwrap(), ["'a b'"]);
        assert_eq!(shown("/a/1").unwrap(), ["'a'", "1"]);
        assert_eq!(shown("a").unwrap(), ["'a'"]);
        assert_eq!(shown("$").unwrap(), [""; 0]);
        assert_eq!(shown("$.*"), None);
        assert_eq!(shown("$[x]"), None);
    }
}
