//! `SHOW FUNCTIONS [LIKE pattern]`, `DESCRIBE FUNCTION name`: functions with their syntax and a description. The description
//! of a user-defined function is its body.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use arrow::datatypes::SchemaRef;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Documentation, TypeSignature};
use sqlparser::ast::ObjectName;
use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::diagnostics::nearest;

use super::function_descriptions::{DESCRIBED_HERE, PREDICT, WINDOWS};
use super::show::rows;
use super::{Answer, Statement, columns_of};
use crate::access::Access;
use crate::access::admission::Weight;
use crate::catalog::Catalog;
use crate::execution::context::StatementContext;
use crate::execution::outcome::Outcome;
use crate::names::plain_name;

/// `SHOW FUNCTIONS [LIKE pattern]`.
#[derive(Debug)]
pub(crate) struct ShowFunctions(pub(super) Option<String>);

/// A row of the result.
#[derive(Debug)]
struct Function {
    syntax: String,
    description: String,
}

impl Statement for ShowFunctions {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("SHOW", None)
    }

    fn authorize(&self, _: &Access, _: &Catalog) -> Result<()> {
        Ok(())
    }

    fn columns<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move { Ok(columns_of(&self.execute(cx).await?)) })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let mut all = functions(&cx.state());
            if let Some(pattern) = &self.0 {
                let names = StringArray::from_iter_values(all.keys().map(|(name, _)| name));
                let pattern = StringArray::new_scalar(pattern.to_lowercase());
                let like = arrow::compute::like(&names, &pattern)?;
                let mut keeps = like.values().iter();
                all.retain(|_, _| keeps.next().unwrap_or(false));
            }
            listed(&all).await
        })
    }
}

/// `DESCRIBE FUNCTION name`.
#[derive(Debug)]
pub(crate) struct DescribeFunction(pub(super) ObjectName);

impl Statement for DescribeFunction {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("DESCRIBE", None)
    }

    fn authorize(&self, _: &Access, _: &Catalog) -> Result<()> {
        // User-defined functions without a grant are treated as unknown.
        Ok(())
    }

    fn columns<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move { Ok(columns_of(&self.execute(cx).await?)) })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move { function_described(cx, &plain_name(&self.0)?).await })
    }
}

/// Returns the rows of `SHOW FUNCTIONS` of one name.
///
/// # Errors
/// When there is no such function.
pub(super) async fn function_described(cx: &StatementContext, name: &str) -> Result<Outcome> {
    let mut all = functions(&cx.state());
    if !all.keys().any(|(known, _)| known == name) {
        let error = Error::new(ErrorKind::NotFound, format!("function \"{name}\" does not exist"));
        return Err(match nearest(name, all.keys().map(|(known, _)| known.as_str())) {
            Some(near) => error.with_hint(format!("Did you mean \"{near}\"?")),
            None => error.with_hint("SHOW FUNCTIONS lists all functions."),
        });
    }
    all.retain(|(known, _), _| known == name);
    listed(&all).await
}

async fn listed(all: &BTreeMap<(String, &'static str), Function>) -> Result<Outcome> {
    let text = |values: Vec<&str>| Arc::new(StringArray::from(values)) as ArrayRef;
    rows(vec![
        ("name", text(all.keys().map(|(name, _)| name.as_str()).collect())),
        ("kind", text(all.keys().map(|(_, kind)| *kind).collect())),
        ("syntax", text(all.values().map(|f| f.syntax.as_str()).collect())),
        ("description", text(all.values().map(|f| f.description.as_str()).collect())),
    ])
    .await
}

/// All functions, by name and kind, without those that only the parser uses (their names have a `$`).
fn functions(state: &SessionState) -> BTreeMap<(String, &'static str), Function> {
    let scalar = state.scalar_functions().iter().map(|(name, f)| {
        let takes = &f.signature().type_signature;
        ((name.clone(), "scalar"), described(name, f.documentation(), takes))
    });
    let aggregate = state.aggregate_functions().iter().map(|(name, f)| {
        let takes = &f.signature().type_signature;
        ((name.clone(), "aggregate"), described(name, f.documentation(), takes))
    });
    let window = state.window_functions().iter().map(|(name, f)| {
        let takes = &f.signature().type_signature;
        ((name.clone(), "window"), described(name, f.documentation(), takes))
    });
    let tables = WINDOWS.into_iter().map(|(name, syntax, description)| {
        let (syntax, description) = (syntax.to_owned(), description.to_owned());
        ((name.to_owned(), "table"), Function { syntax, description })
    });
    let predict = Function { syntax: PREDICT.0.to_owned(), description: PREDICT.1.to_owned() };
    let all = scalar.chain(aggregate).chain(window).chain(tables);
    // Those of models have names that no call has.
    let all = all.filter(|((name, _), _)| !name.contains(['$', '[']));
    all.chain([(("predict".to_owned(), "scalar"), predict)]).collect()
}

/// Returns the syntax and description of a function; `name`: its name or alias, which the syntax has.
fn described(name: &str, docs: Option<&Documentation>, takes: &TypeSignature) -> Function {
    let Some(docs) = docs else {
        if let Some((_, arguments, description)) = DESCRIBED_HERE.iter().find(|f| f.0 == name) {
            let syntax = format!("{name}{arguments}");
            return Function { syntax, description: (*description).to_owned() };
        }
        let none = matches!(takes, TypeSignature::Nullary)
            || matches!(takes, TypeSignature::Exact(types) if types.is_empty());
        let syntax = format!("{name}({})", if none { "" } else { "…" });
        return Function { syntax, description: String::new() };
    };
    let one_line = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let syntax = one_line(&docs.syntax_example);
    let syntax = match syntax.split_once('(') {
        Some((own, arguments)) if own != name && !own.contains(' ') => {
            format!("{name}({arguments}")
        }
        _ => syntax,
    };
    Function { syntax, description: one_line(&docs.description) }
}
