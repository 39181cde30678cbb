//! `WAIT FOR view [UNTIL TIMESTAMP '…'] [TIMEOUT …]`.

use std::sync::Arc;
use std::time::Duration;

use arrow::datatypes::{DataType, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::logical_expr::{ColumnarValue, Expr as PlanExpr, LogicalPlanBuilder, cast};
use sqlparser::ast::{Expr, ExprWithAlias, ObjectName};
use windrow_core::time::{ticks_to_micros, time_unit};
use windrow_core::{Error, ErrorKind, Result, Watermark};
use windrow_sql::diagnostics::from_datafusion;
use windrow_stream::Feed;
use windrow_stream::log::LogState;

use crate::catalog::{Materialized, Object, plain_name};
use crate::session::{Outcome, Session, UnusedRows};

impl Session {
    pub(super) async fn wait_for(
        &self,
        view: &ObjectName,
        until: Option<Expr>,
        timeout: Option<Duration>,
    ) -> Result<Outcome> {
        let name = plain_name(view)?;
        let view = self.engine.catalog.materialized(&name)?;
        // Also where it had come far enough: what it has is no answer any more.
        view.check()?;
        let wait = async {
            match until {
                Some(until) => {
                    self.wait_until(&view, self.micros(until, "WAIT FOR … UNTIL")?).await
                }
                None if view.bounded => view.ended().await,
                None => self.wait_consumed(&view).await,
            }
        };
        let wait = async {
            tokio::select! {
                done = wait => done,
                error = self.engine.failing_archive() => Err(error),
            }
        };
        match timeout {
            None => wait.await?,
            Some(timeout) => tokio::select! {
                done = wait => done?,
                () = self.engine.parts.clock.sleep(timeout) => {
                    let message = format!("view \"{name}\" is not there yet after {timeout:?}");
                    return Err(Error::new(ErrorKind::Unavailable, message)
                        .with_hint(format!("EXPLAIN WHY NOT {name} says what it waits for.")));
                }
            },
        }
        let rows = view.query.ledger.total();
        let unused = UnusedRows { late: rows.late, bad: rows.bad };
        Ok(Outcome::Done(format!("WAIT{}", unused.aside()).into()))
    }

    /// Waits until the view's watermark has passed a time in µs.
    async fn wait_until(&self, view: &Materialized, micros: i64) -> Result<()> {
        let column = view.stream.schema.event_time().ok_or_else(|| {
            Error::sql(format!("view \"{}\" has no event time to wait for", view.name))
                .with_hint("Select window_time or window_end in the view, or leave UNTIL out.")
        })?;
        let unit = time_unit(view.stream.schema.schema().field(column.index).data_type());
        let mut passes = view.query.watch_passes();
        loop {
            let watermark = view.query.state.lock().watermark;
            let passed =
                unit.is_some_and(|unit| ticks_to_micros(watermark.ticks(), unit) >= micros);
            if watermark == Watermark::END || passed {
                return Ok(());
            }
            if view.query.is_over() {
                return view.ended().await;
            }
            tokio::select! {
                changed = passes.changed() => if changed.is_err() { return Ok(()) },
                ended = view.ended() => return ended,
            }
        }
    }

    /// Waits until the view has taken in all that its inputs hold now.
    pub(super) async fn wait_consumed(&self, view: &Arc<Materialized>) -> Result<()> {
        for input in &view.reads {
            match self.engine.catalog.get(input) {
                Some(Object::Materialized(inner)) => {
                    Box::pin(self.wait_consumed(&inner)).await?;
                    if inner.log.is_unordered() {
                        // Its readers are given what is archived.
                        inner.query.checkpoint().await?;
                    }
                    let LogState { rows, watermark, .. } = inner.log.settled();
                    self.wait_for_offset(view, input, (rows, watermark)).await?;
                }
                Some(Object::Stream(stream)) => match &stream.feed {
                    Feed::Push(push) => {
                        let rows = push.log.state().rows;
                        self.wait_for_offset(view, input, (rows, Watermark::NONE)).await?;
                    }
                    Feed::Source(source) if source.is_bounded() => {}
                    Feed::Source(_) | Feed::View(_) => {
                        return Err(Error::sql(format!(
                            "view \"{}\" reads stream \"{input}\", which never ends",
                            view.name
                        ))
                        .with_hint("Say how far to wait: WAIT FOR … UNTIL TIMESTAMP '…'."));
                    }
                },
                Some(Object::View) | None => {}
            }
        }
        // One whole pass of the coordinator that began after the rows were in.
        let mut passes = view.query.watch_passes();
        for _ in 0..2 {
            if view.query.is_over() {
                return view.ended().await;
            }
            view.query.wake();
            tokio::select! {
                changed = passes.changed() => if changed.is_err() { return Ok(()) },
                ended = view.ended() => return ended,
            }
        }
        Ok(())
    }

    /// Waits until the view has taken in so many rows of an input, and knows its watermark.
    async fn wait_for_offset(
        &self,
        view: &Materialized,
        input: &str,
        (rows, watermark): (u64, Watermark),
    ) -> Result<()> {
        let mut passes = view.query.watch_passes();
        let knows = || view.query.tap_of(input).is_none_or(|tap| tap.own() >= watermark);
        loop {
            if view.consumed(input) >= rows && knows() {
                return Ok(());
            }
            if view.query.is_over() {
                return view.ended().await;
            }
            tokio::select! {
                changed = passes.changed() => if changed.is_err() { return Ok(()) },
                ended = view.ended() => return ended,
            }
        }
    }

    /// A constant timestamp in µs, for the clause `clause`: a literal, or what is computed without
    /// rows (`now() + INTERVAL '6 seconds'`).
    pub(super) fn micros(&self, constant: Expr, clause: &str) -> Result<i64> {
        let state = self.state();
        let expr = ExprWithAlias { expr: constant, alias: None };
        let empty = DFSchema::empty();
        let expr =
            state.create_logical_expr_from_sql_expr(expr, &empty).map_err(from_datafusion)?;
        let wanted = DataType::Timestamp(TimeUnit::Microsecond, None);
        let expr: PlanExpr = cast(expr, wanted).alias("time");
        let value = LogicalPlanBuilder::empty(true)
            .project([expr])
            .and_then(LogicalPlanBuilder::build)
            // It puts the time of now() in its place.
            .and_then(|plan| state.optimize(&plan))
            .and_then(|plan| {
                let Some(expr) = plan.expressions().into_iter().next() else { return Ok(None) };
                let none = arrow::record_batch::RecordBatch::new_empty(Arc::clone(empty.inner()));
                state.create_physical_expr(expr.unalias(), &empty)?.evaluate(&none).map(Some)
            })
            .map_err(from_datafusion)?;
        match value {
            Some(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(Some(v), _))) => Ok(v),
            _ => {
                let word = clause.rsplit(' ').next().unwrap_or_default();
                Err(Error::sql(format!("{clause} takes a constant timestamp")).with_hint(format!(
                    "Write {word} TIMESTAMP '2026-01-01 00:00:00', or now() + INTERVAL '1 minute'."
                )))
            }
        }
    }
}
