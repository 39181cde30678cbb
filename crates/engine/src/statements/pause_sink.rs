//! `PAUSE SINK name`, `RESUME SINK name`.

use sqlparser::ast::ObjectName;
use windrow_core::Result;

use super::{Answer, Statement, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::Catalog;
use crate::execution::context::StatementContext;
use crate::execution::outcome::Outcome;
use crate::names::plain_name;

/// `PAUSE SINK name`: no row is written until `RESUME SINK name`, which also restarts a sink that has stopped.
#[derive(Debug)]
pub(crate) struct PauseSink {
    pub(super) sink: ObjectName,
    pub(super) resume: bool,
}

impl Statement for PauseSink {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        (if self.resume { "RESUME" } else { "PAUSE" }, None)
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Admin, &self.sink)
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move { cx.catalog().sink(&plain_name(&self.sink)?).map(drop) })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let sink = cx.catalog().sink(&plain_name(&self.sink)?)?;
            sink.pause(!self.resume).await?;
            Ok(Outcome::Done(if self.resume { "RESUME SINK" } else { "PAUSE SINK" }.into()))
        })
    }
}
