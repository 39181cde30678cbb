//! `CREATE FUNCTION`: checks the name and the callers, plans the function, records and registers it.
//!
//! Invariant: a function that something calls is never replaced with another definition.

use std::sync::Arc;

use windrow_core::{Error, Result};
use windrow_sql::parse::{self, called, is_rewritten};
use windrow_sql::plan::UserFunction;

use super::function_names::is_taken;
use super::{Answer, Statement, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::{Catalog, Object, Rowless};
use crate::durable::definitions::Kind;
use crate::execution::context::StatementContext;
use crate::execution::creation::Creation;
use crate::execution::outcome::Outcome;
use crate::names::plain_name;

/// `CREATE [OR REPLACE] FUNCTION …`.
#[derive(Debug)]
pub(crate) struct CreateFunction {
    pub(super) create: parse::CreateFunction,
    pub(super) text: String,
}

impl Statement for CreateFunction {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("CREATE FUNCTION", None)
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Admin, &self.create.name)
    }

    fn is_definition(&self) -> bool {
        true
    }

    fn starts_queued_views(&self) -> bool {
        false
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(self.create(cx))
    }
}

impl CreateFunction {
    async fn create(&self, cx: &StatementContext) -> Result<Outcome> {
        let (create, catalog) = (&self.create, cx.catalog());
        let name = plain_name(&create.name)?;
        let creation = Creation::new(cx, &name);
        if creation.is_done(create.or_replace, create.if_not_exists, "function")? {
            return Ok(Outcome::Done("CREATE FUNCTION (exists already)".into()));
        }
        let old = match catalog.get(&name) {
            Some(Object::Function(old)) => Some(old),
            _ => None,
        };
        // One that was there before the engine had a function of its name keeps it, unless calls are rewritten.
        if old.is_none() && (cx.restoring.is_none() || is_rewritten(&name)) {
            is_free(cx, &name)?;
        }
        let statement = parse::Statement::CreateFunction(Box::new(create.clone()));
        if called(&statement).contains(&name) {
            return Err(Error::sql(format!("function \"{name}\" would call itself"))
                .with_place(create.place)
                .with_hint("Functions do not recur; use WITH RECURSIVE over a table."));
        }
        let function = {
            let (state, name, create) = (cx.state(), name.clone(), create.clone());
            let planned = async move { UserFunction::define(&state, &name, &create).await };
            cx.planner().run(planned).await?
        };
        if old.is_some_and(|old| old == function) {
            return Ok(Outcome::Done("CREATE FUNCTION (the same definition)".into()));
        }
        if let Some(caller) = catalog.readers(&name).first() {
            return Err(Error::sql(format!("\"{name}\" is called by \"{caller}\""))
                .with_hint(format!(
                    "What \"{caller}\" has computed would not fit: drop it first, or give the new function another name."
                )));
        }
        creation.replace().await?;
        creation.record(Kind::Function, &self.text)?;
        let table = Arc::new(Rowless::of_function(&name));
        catalog.add(&name, Object::Function(function), table, (&self.text, vec![]))?;
        Ok(Outcome::Done("CREATE FUNCTION".into()))
    }
}

/// Checks that no function of the engine or of the embedding program has this name.
fn is_free(cx: &StatementContext, name: &str) -> Result<()> {
    if !is_taken(&cx.state(), name) {
        return Ok(());
    }
    Err(Error::sql(format!("\"{name}\" is a function that is built in"))
        .with_hint(format!("Choose another name, such as my_{name}.")))
}
