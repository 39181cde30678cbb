//! `WAIT FOR view [UNTIL TIMESTAMP '…'] [TIMEOUT …]`, and the same for a sink.

use std::time::Duration;

use sqlparser::ast::{Expr, ObjectName};
use windrow_core::{Error, ErrorKind, Result};

use super::timestamp::constant_micros;
use super::{Answer, Statement, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::sinks::SinkObject;
use crate::catalog::{Catalog, Materialized, Object};
use crate::execution::context::StatementContext;
use crate::execution::outcome::{Outcome, UnusedRows};
use crate::names::plain_name;
use crate::views::wait::{wait_consumed, wait_until};

/// `WAIT FOR view [UNTIL TIMESTAMP '…'] [TIMEOUT …]`: waits until a view has consumed its inputs, or its watermark has passed a
/// time. For a stream that was created AS SELECT, until it has the rows of its query then. For a sink, until the rows that its view has then are committed.
#[derive(Debug)]
pub(crate) struct WaitFor {
    pub(super) view: ObjectName,
    pub(super) until: Option<Expr>,
    pub(super) timeout: Option<Duration>,
}

impl Statement for WaitFor {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("WAIT FOR", Some(Weight::Stream))
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Read, &self.view)
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move {
            let (name, catalog) = (plain_name(&self.view)?, cx.catalog());
            match catalog.get(&name) {
                Some(Object::Sink(_)) => Ok(()),
                Some(Object::Stream(_)) if catalog.feed_of(&name).is_some() => Ok(()),
                _ => catalog.materialized(&name).map(drop),
            }
        })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let name = plain_name(&self.view)?;
            let sink = match cx.catalog().get(&name) {
                Some(Object::Sink(sink)) => Some(sink),
                _ => None,
            };
            let view = sink.as_ref().map_or(&name, |sink| &sink.view);
            let view = match cx.catalog().feed_of(view) {
                Some(feed) => feed,
                None => cx.catalog().materialized(view)?,
            };
            // Even where it had come far enough: its rows are not valid any more.
            view.check()?;
            if let Some(stream) = paused_input(cx, &view) {
                let message = format!(
                    "view \"{}\" waits for stream \"{stream}\", which is paused",
                    view.name
                );
                return Err(Error::new(ErrorKind::Unavailable, message)
                    .with_hint(format!("RESUME STREAM {stream} first.")));
            }
            let wait = async {
                match self.until.clone() {
                    Some(until) => {
                        let micros = constant_micros(&cx.state(), until, "WAIT FOR … UNTIL")?;
                        wait_until(&view, micros).await
                    }
                    None if view.bounded => view.ended().await,
                    None => wait_consumed(cx.catalog(), &view).await,
                }?;
                if let Some(pump) = view.pump.get() {
                    pump.catch_up().await?;
                }
                let Some(sink) = &sink else { return Ok(()) };
                let to = sink.rows.finish().await?;
                let gives_up = self.timeout.is_none();
                sink.committed(to, |since| gives_up && cx.instance.fails_for_long(since)).await
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
                        return Err(timed_out(&name, sink.as_deref(), timeout));
                    }
                },
            }
            let rows = view.query.ledger.total();
            let unused = UnusedRows { late: rows.late, bad: rows.bad };
            Ok(Outcome::Done(format!("WAIT{}", unused.aside()).into()))
        })
    }
}

/// Returns a stream that a view reads, itself or through other views, and that is paused.
fn paused_input(cx: &StatementContext, view: &Materialized) -> Option<String> {
    view.reads.iter().find_map(|name| match cx.catalog().get(name) {
        Some(Object::Materialized(inner)) => paused_input(cx, &inner),
        _ if cx.instance.parts.paused.borrow().contains(name) => Some(name.clone()),
        _ => cx.catalog().feed_of(name).and_then(|feed| paused_input(cx, &feed)),
    })
}

fn timed_out(name: &str, sink: Option<&SinkObject>, timeout: Duration) -> Error {
    let kind = if sink.is_some() { "sink" } else { "view" };
    let message = format!("waiting for {kind} \"{name}\" timed out after {timeout:?}");
    let error = Error::new(ErrorKind::Unavailable, message);
    match sink.and_then(|sink| sink.state().last_error) {
        Some(why) => error.with_detail(format!("The last error of its destination: {why}.")),
        None => {
            let view = sink.map_or(name, |sink| &sink.view);
            error.with_hint(format!("EXPLAIN WHY NOT {view} says what it waits for."))
        }
    }
}
