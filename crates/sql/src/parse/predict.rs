//! Calls of models: `predict(m, a, b)` is a call of the function of `m`, whose name no text can have.

use sqlparser::ast::{
    Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, ObjectName,
};
use windrow_core::{Error, Result};

use super::relation::{name_place, placed, plain};

/// The function that is called with a model.
pub(super) const PREDICT: &str = "predict";
/// What the names of the functions of models begin with.
const PREFIX: &str = "predict$";

/// Returns the name of the function of a model.
pub fn function_of_model(model: &str) -> String {
    format!("{PREFIX}{model}")
}

/// Returns the model that a function is of; `None`: it is of none.
pub fn model_of_function(function: &str) -> Option<&str> {
    function.strip_prefix(PREFIX)
}

/// Whether a call is one of `predict`.
pub(super) fn is_predict(function: &Function) -> bool {
    plain(&function.name)
        .is_some_and(|name| name.quote_style.is_none() && name.value.eq_ignore_ascii_case(PREDICT))
}

/// Rewrites `predict(m, a, b)` as a call of the function of the model.
///
/// # Errors
/// When its first argument is no name.
pub(super) fn predict(function: &mut Function) -> Result<()> {
    if !is_predict(function) {
        return Ok(());
    }
    let place = name_place(&function.name);
    let model = match &function.args {
        FunctionArguments::List(list) => match list.args.first() {
            Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Identifier(name)))) => {
                Some(name.clone())
            }
            _ => None,
        },
        _ => None,
    };
    let (Some(model), FunctionArguments::List(list)) = (model, &mut function.args) else {
        let error = Error::sql("predict takes the name of a model first").with_hint(
            "Write predict(m, a, b): the model, then the values that it takes, in order.",
        );
        return Err(placed(error, place));
    };
    list.args.remove(0);
    let name = match model.quote_style {
        Some(_) => function_of_model(&model.value),
        None => function_of_model(&model.value.to_lowercase()),
    };
    function.name =
        ObjectName::from(vec![Ident { value: name, quote_style: Some('"'), span: model.span }]);
    Ok(())
}
