//! `PAUSE SINK name`, `RESUME SINK name`.

use async_trait::async_trait;
use sqlparser::ast::ObjectName;
use windrow_core::Result;

use super::{Statement, need};
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

#[async_trait]
impl Statement for PauseSink {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        (if self.resume { "RESUME" } else { "PAUSE" }, None)
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Admin, &self.sink)
    }

    async fn check(&self, cx: &StatementContext) -> Result<()> {
        cx.catalog().sink(&plain_name(&self.sink)?).map(drop)
    }

    async fn execute(&self, cx: &StatementContext) -> Result<Outcome> {
        let sink = cx.catalog().sink(&plain_name(&self.sink)?)?;
        sink.pause(!self.resume).await?;
        Ok(Outcome::Done(if self.resume { "RESUME SINK" } else { "PAUSE SINK" }.into()))
    }
}
