//! `SUBSCRIBE TO view [AFTER n] [WITH (snapshot = true)]`.
//!
//! A snapshot is the current rows of an updating result as `insert` changes, folded from the changes up to a sequence number;
//! the changes behind that number follow. Of other views it is the rows that they hold.
//!
//! Invariant: a client gets the changes behind a number only when they, and the snapshot at that number, remain the same after
//! a crash. So `AFTER n` never means other changes than those that had these numbers before.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use sqlparser::ast::ObjectName;
use windrow_core::{Change, Error, Result, ScanRequest, Source, change};
use windrow_query::promise::Promise;
use windrow_query::queue::RowSender;
use windrow_stream::answer::{CurrentRows, LiveAnswer};
use windrow_stream::log_reader::{LogSource, dropped};

use super::{Answer, Statement, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::{Catalog, Materialized};
use crate::execution::context::StatementContext;
use crate::execution::outcome::{Following, Outcome, ResultStream, Stop};
use crate::names::plain_name;
use crate::views::wait::wait_consumed;

/// Maximum number of rows per batch of a subscription: a reader that has stopped reading holds up to two batches.
const BATCH_ROWS_MAX: usize = 8_192;

/// `SUBSCRIBE TO view [AFTER n] [WITH (snapshot = true)]`: follows a view from now on, from after row n (rows are counted
/// from 1), or from its current rows on.
#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(super) view: ObjectName,
    pub(super) after: Option<u64>,
    pub(super) snapshot: bool,
}

/// Where a subscription begins.
#[derive(Debug)]
struct Begin {
    /// The rows that come first.
    snapshot: Option<CurrentRows>,
    /// The number of rows before the first one that is followed.
    from: u64,
}

impl Statement for Subscribe {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("SUBSCRIBE", Some(Weight::Stream))
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Read, &self.view)
    }

    fn columns<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move {
            let view = cx.catalog().materialized(&plain_name(&self.view)?)?;
            Ok(Some(view.log.schema()))
        })
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move { cx.catalog().materialized(&plain_name(&self.view)?).map(drop) })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let view = cx.catalog().materialized(&plain_name(&self.view)?)?;
            view.check_retains()?;
            let Begin { snapshot, from } = self.begin(cx, &view).await?;
            let source = LogSource::follow(Arc::clone(&view.log), Some(from), true);
            let request = ScanRequest {
                projection: (0..view.log.schema().fields().len()).collect(),
                predicates: vec![],
                event_time: None,
                from: None,
                place: None,
                past: 0,
                until_now: false,
                batch_rows_max: cx.limits().batch_rows_max.min(BATCH_ROWS_MAX),
            };
            // A slow reader holds the batch that it reads and the next one, and not a queue of them.
            let (sender, receiver) = cx.executor().queue(1);
            let time =
                view.event_time.map(|t| view.log.schema().field(t.column).data_type().clone());
            let batches = snapshot.as_ref().map(|rows| rows.batches.as_slice()).unwrap_or_default();
            let rows = batches.iter().map(|batch| batch.num_rows() as u64).sum();
            let following = Following::new(from, time).after_snapshot(rows);
            let to = (following.promise(), sender.clone());
            let follow = follow(view.log.schema(), snapshot, (source, request), to);
            let query = Arc::clone(&view.query);
            let task = cx.instance.parts.cpu.spawn(async move {
                if let Err(error) = follow.await {
                    tracing::warn!(query = query.name, %error, "subscription ended");
                    // A reader that is gone needs no error.
                    drop(sender.send(Err(error)).await);
                }
            });
            let schema = view.log.schema();
            let stop = Stop::Task(task);
            Ok(Outcome::Rows(ResultStream::new(schema, Some(following), receiver, stop)))
        })
    }
}

impl Subscribe {
    /// Determines where the subscription begins.
    ///
    /// # Errors
    /// When the view does not have the row to continue after; when the snapshot takes more memory than there is.
    async fn begin(&self, cx: &StatementContext, view: &Arc<Materialized>) -> Result<Begin> {
        match &view.answer {
            Some(answer) if self.snapshot => {
                let snapshot = snapshot(cx, view, answer).await?;
                Ok(Begin { from: snapshot.sequence, snapshot: Some(snapshot) })
            }
            None if self.snapshot => Ok(Begin { snapshot: None, from: view.log.state().first }),
            // The numbers of later changes are not final.
            Some(_) if self.after.is_none() => {
                Ok(Begin { snapshot: None, from: view.log.settled().rows })
            }
            _ => Ok(Begin { snapshot: None, from: self.resume(cx.catalog(), view).await? }),
        }
    }

    /// Returns the row to continue after, which the view has.
    async fn resume(&self, catalog: &Catalog, view: &Arc<Materialized>) -> Result<u64> {
        let name = &view.name;
        let mut state = view.log.state();
        let from = self.after.unwrap_or(state.rows);
        if from > state.rows && catalog.waits_for_pushes(name) {
            // Rows that were not archived when the process ended are recomputed.
            wait_consumed(catalog, view).await?;
        }
        state = view.log.state();
        if from > state.rows && (state.ended || catalog.waits_for_pushes(name)) {
            return Err(no_such_row(name, from, state.rows));
        }
        if from < state.first && view.answer.is_some() {
            return Err(too_old(name, from, state.first));
        }
        if from < state.first {
            return Err(dropped(from, state.first));
        }
        Ok(from)
    }
}

/// Returns the current rows of a view, once all changes in them are settled.
async fn snapshot(
    cx: &StatementContext,
    view: &Materialized,
    answer: &LiveAnswer,
) -> Result<CurrentRows> {
    view.check()?;
    let rows = answer.rows(&cx.instance.parts.env.memory_pool)?;
    let mut changed = view.log.watch();
    if view.log.settled().rows < rows.sequence {
        view.query.checkpoint().await?;
    }
    while view.log.settled().rows < rows.sequence {
        view.check()?;
        if changed.changed().await.is_err() {
            break;
        }
    }
    Ok(rows)
}

/// Returns the error of continuing after a change that is no longer kept.
fn too_old(view: &str, after: u64, first: u64) -> Error {
    Error::data(format!("view \"{view}\" no longer has all changes after {after}"))
        .with_detail(format!("The first change that it keeps follows number {first}."))
        .with_hint(format!(
            "Begin with the current rows: SUBSCRIBE TO {view} WITH (snapshot = true)."
        ))
}

/// Returns the error of continuing after a row that a view does not have.
fn no_such_row(view: &str, after: u64, rows: u64) -> Error {
    Error::data(format!("view \"{view}\" has {rows} rows, and none after row {after}"))
        .with_detail(
            "If it had more before, they have been lost, or the view has been created again since: new rows may have \
             the numbers of other ones.",
        )
        .with_hint(format!("Read what it holds: SUBSCRIBE TO {view} AFTER 0."))
}

/// Sends a snapshot, then all rows of a source until it ends or the reader is gone.
async fn follow(
    schema: SchemaRef,
    snapshot: Option<CurrentRows>,
    (source, request): (LogSource, ScanRequest),
    (promise, sender): (Arc<Promise>, RowSender),
) -> Result<()> {
    for rows in snapshot.iter().flat_map(|snapshot| &snapshot.batches) {
        promise.count(rows.num_rows());
        if sender.send(Ok(inserts(&schema, rows)?)).await.is_err() {
            return Ok(());
        }
    }
    drop(snapshot);
    for partition in source.discover().await? {
        for split in &partition.splits {
            let mut reader = source.open(split, &request).await?;
            while let Some(batch) = reader.next().await? {
                promise.count(batch.rows.num_rows());
                if batch.rows.num_rows() > 0 && sender.send(Ok(batch.rows)).await.is_err() {
                    return Ok(());
                }
                if let Some(watermark) = batch.watermark {
                    promise.advance(watermark);
                }
            }
        }
    }
    Ok(())
}

/// Returns rows as changes that insert them; `schema`: the columns of the changes.
fn inserts(schema: &SchemaRef, rows: &RecordBatch) -> Result<RecordBatch> {
    let kinds = change::column(std::iter::repeat_n(Change::Insert, rows.num_rows()));
    let columns = std::iter::once(kinds).chain(rows.columns().iter().cloned());
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect())?)
}
