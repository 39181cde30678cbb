//! `PAUSE STREAM name`, `RESUME STREAM name`.

use sqlparser::ast::ObjectName;
use windrow_core::Result;

use super::{Answer, Statement, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::Catalog;
use crate::execution::context::StatementContext;
use crate::execution::outcome::Outcome;
use crate::names::plain_name;

/// `PAUSE STREAM name`: no continuous query and no view takes rows from the stream until `RESUME STREAM name`. Its rows stay
/// where they are, and INSERT appends to it as before.
#[derive(Debug)]
pub(crate) struct PauseStream {
    pub(super) stream: ObjectName,
    pub(super) resume: bool,
}

impl Statement for PauseStream {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        (if self.resume { "RESUME" } else { "PAUSE" }, None)
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Admin, &self.stream)
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move { cx.catalog().stream(&plain_name(&self.stream)?).map(drop) })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let name = plain_name(&self.stream)?;
            cx.catalog().stream(&name)?;
            if let Some(store) = &cx.instance.store {
                store.pause(&name, !self.resume)?;
            }
            cx.instance.parts.paused.send_modify(|paused| {
                match self.resume {
                    true => paused.remove(&name),
                    false => paused.insert(name),
                };
            });
            Ok(Outcome::Done(if self.resume { "RESUME STREAM" } else { "PAUSE STREAM" }.into()))
        })
    }
}
