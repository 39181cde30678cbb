//! `WAIT FOR view [UNTIL TIMESTAMP '…'] [TIMEOUT …]`.

use std::time::Duration;

use async_trait::async_trait;
use sqlparser::ast::{Expr, ObjectName};
use windrow_core::{Error, ErrorKind, Result};

use super::timestamp::constant_micros;
use super::{Statement, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::Catalog;
use crate::execution::context::StatementContext;
use crate::execution::outcome::{Outcome, UnusedRows};
use crate::names::plain_name;
use crate::views::wait::{wait_consumed, wait_until};

/// `WAIT FOR view [UNTIL TIMESTAMP '…'] [TIMEOUT …]`: waits until a view has consumed its inputs, or its watermark has passed a
/// time.
#[derive(Debug)]
pub(crate) struct WaitFor {
    pub(super) view: ObjectName,
    pub(super) until: Option<Expr>,
    pub(super) timeout: Option<Duration>,
}

#[async_trait]
impl Statement for WaitFor {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("WAIT FOR", Some(Weight::Stream))
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Read, &self.view)
    }

    async fn check(&self, cx: &StatementContext) -> Result<()> {
        cx.catalog().materialized(&plain_name(&self.view)?).map(drop)
    }

    async fn execute(&self, cx: &StatementContext) -> Result<Outcome> {
        let name = plain_name(&self.view)?;
        let view = cx.catalog().materialized(&name)?;
        // Even where it had come far enough: its rows are not valid any more.
        view.check()?;
        let wait = async {
            match self.until.clone() {
                Some(until) => {
                    let micros = constant_micros(&cx.state(), until, "WAIT FOR … UNTIL")?;
                    wait_until(&view, micros).await
                }
                None if view.bounded => view.ended().await,
                None => wait_consumed(cx.catalog(), &view).await,
            }
        };
        let wait = async {
            tokio::select! {
                done = wait => done,
                error = cx.instance.failing_archive() => Err(error),
            }
        };
        match self.timeout {
            None => wait.await?,
            Some(timeout) => tokio::select! {
                done = wait => done?,
                () = cx.instance.parts.clock.sleep(timeout) => {
                    let message = format!("waiting for view \"{name}\" timed out after {timeout:?}");
                    return Err(Error::new(ErrorKind::Unavailable, message)
                        .with_hint(format!("EXPLAIN WHY NOT {name} says what it waits for.")));
                }
            },
        }
        let rows = view.query.ledger.total();
        let unused = UnusedRows { late: rows.late, bad: rows.bad };
        Ok(Outcome::Done(format!("WAIT{}", unused.aside()).into()))
    }
}
