//! Refuses calls with clauses that their function would ignore: `upper(x) FILTER (…)`, `rank() IGNORE NULLS`.
//!
//! This is not part of the parser, because only the session has the list of aggregates.

use std::ops::ControlFlow;

use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::{CopyToSource, Statement as EngineStatement};
use sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArgumentClause, FunctionArgumentList,
    FunctionArguments, NullTreatment, Query, Spanned, Visit, Visitor,
};
use windrow_core::{Error, ErrorKind, Result};

use super::tvf::place;
use crate::parse::model_of_function;

/// The window functions that support IGNORE NULLS.
const SKIP_NULLS: &[&str] = &["first_value", "last_value", "nth_value", "lead", "lag"];

/// Refuses clauses that the functions called in `tree` would ignore.
///
/// # Errors
/// The first such call.
pub(crate) fn check<T: Visit>(state: &SessionState, tree: &T) -> Result<()> {
    match tree.visit(&mut Calls { state }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(*error),
    }
}

/// Like [`check`], for a statement of the underlying engine.
///
/// # Errors
/// As [`check`].
pub(crate) fn check_engine(state: &SessionState, statement: &EngineStatement) -> Result<()> {
    match statement {
        EngineStatement::Statement(statement) => check(state, &**statement),
        EngineStatement::CopyTo(copy) => match &copy.source {
            CopyToSource::Query(query) => check::<Query>(state, query),
            CopyToSource::Relation(_) => Ok(()),
        },
        EngineStatement::Explain(explain) => check_engine(state, &explain.statement),
        EngineStatement::CreateExternalTable(_) | EngineStatement::Reset(_) => Ok(()),
    }
}

struct Calls<'s> {
    state: &'s SessionState,
}

impl Visitor for Calls<'_> {
    type Break = Box<Error>;

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Self::Break> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        if let Some(missing) = self.missing_model(function) {
            return ControlFlow::Break(Box::new(missing));
        }
        let Some((message, hint)) = self.unheard(function) else {
            return ControlFlow::Continue(());
        };
        let error = Error::sql(message).with_hint(hint);
        ControlFlow::Break(Box::new(match place(function.name.span()) {
            Some(place) => error.with_place(place),
            None => error,
        }))
    }
}

impl Calls<'_> {
    /// The error of a call of a model that does not exist, or that the user has no grant on.
    fn missing_model(&self, call: &Function) -> Option<Error> {
        let [part] = call.name.0.as_slice() else { return None };
        let function = &part.as_ident()?.value;
        let model = model_of_function(function)?;
        if self.state.scalar_functions().contains_key(function) {
            return None;
        }
        let message = format!("model \"{model}\" does not exist");
        let error =
            Error::new(ErrorKind::NotFound, message).with_hint("SHOW MODELS lists all models.");
        Some(match place(call.name.span()) {
            Some(place) => error.with_place(place),
            None => error,
        })
    }

    /// The error and the hint for a clause that the function would ignore.
    fn unheard(&self, call: &Function) -> Option<(String, &'static str)> {
        let [part] = call.name.0.as_slice() else { return None };
        let name = part.as_ident()?;
        let name = match name.quote_style {
            Some(_) => name.value.clone(),
            None => name.value.to_lowercase(),
        };
        let clauses = said(call);
        // As in the planner, a scalar function takes precedence.
        let scalar = self.state.scalar_functions().contains_key(&name)
            || self.state.higher_order_functions().contains_key(&name)
            || matches!(name.as_str(), "unnest" | "unnest_outer");
        if scalar {
            let clause = clauses.first()?;
            let hint = match *clause {
                "OVER" => "OVER belongs to aggregates and window functions.",
                "FILTER" => "Write CASE WHEN … THEN … END.",
                _ => "It belongs to aggregates.",
            };
            return Some((format!("{name} is computed row by row: it takes no {clause}"), hint));
        }
        call.over.as_ref()?;
        let aggregate = self.state.aggregate_functions().get(&name);
        let nulls = clauses.iter().find(|c| c.ends_with("NULLS"));
        let skips = match aggregate {
            Some(function) => function.supports_null_handling_clause(),
            None => SKIP_NULLS.contains(&name.as_str()),
        };
        if let Some(nulls) = nulls.filter(|_| !skips) {
            let hint = "Of the window functions, first_value, last_value, nth_value, lead and lag take it.";
            return Some((format!("{name} takes no {nulls}"), hint));
        }
        let distinct = clauses.contains(&"DISTINCT") && aggregate.is_none();
        distinct.then(|| (format!("{name} takes no DISTINCT"), "Leave it out."))
    }
}

/// The clauses of a call that not every function supports.
fn said(call: &Function) -> Vec<&'static str> {
    let Function {
        name: _,
        uses_odbc_syntax: _,
        parameters: _,
        args,
        filter,
        null_treatment,
        over,
        within_group,
    } = call;
    let nulls = |treatment: &NullTreatment| match treatment {
        NullTreatment::IgnoreNulls => "IGNORE NULLS",
        NullTreatment::RespectNulls => "RESPECT NULLS",
    };
    let mut said = vec![];
    if let FunctionArguments::List(list) = args {
        let FunctionArgumentList { duplicate_treatment, args: _, clauses } = list;
        if matches!(duplicate_treatment, Some(DuplicateTreatment::Distinct)) {
            said.push("DISTINCT");
        }
        for clause in clauses {
            match clause {
                FunctionArgumentClause::IgnoreOrRespectNulls(t) => said.push(nulls(t)),
                FunctionArgumentClause::OrderBy(_) => said.push("ORDER BY"),
                // The parser has refused it.
                _ => {}
            }
        }
    }
    if filter.is_some() {
        said.push("FILTER");
    }
    said.extend(null_treatment.as_ref().map(nulls));
    if !within_group.is_empty() {
        said.push("WITHIN GROUP");
    }
    if over.is_some() {
        said.push("OVER");
    }
    said
}
