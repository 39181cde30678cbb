//! `SUBSCRIBE TO view [AFTER n]`.

use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use sqlparser::ast::ObjectName;
use windrow_core::{Error, Result, ScanRequest, Source};
use windrow_query::promise::Promise;
use windrow_query::queue::RowSender;
use windrow_stream::log_reader::{LogSource, dropped};

use super::{Answer, Statement, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::Catalog;
use crate::execution::context::StatementContext;
use crate::execution::outcome::{Following, Outcome, ResultStream, Stop};
use crate::names::plain_name;
use crate::views::wait::wait_consumed;

/// Maximum number of rows per batch of a subscription: a reader that has stopped reading holds up to two batches.
const BATCH_ROWS_MAX: usize = 8_192;

/// `SUBSCRIBE TO view [AFTER n]`: follows a view from now on, or from after row n (rows are counted from 1).
#[derive(Debug)]
pub(crate) struct Subscribe {
    pub(super) view: ObjectName,
    pub(super) after: Option<u64>,
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
            Ok(Some(Arc::clone(view.log.schema())))
        })
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move { cx.catalog().materialized(&plain_name(&self.view)?).map(drop) })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let (name, catalog) = (plain_name(&self.view)?, cx.catalog());
            let view = catalog.materialized(&name)?;
            let mut state = view.log.state();
            let from = self.after.unwrap_or(state.rows);
            if from > state.rows && catalog.waits_for_pushes(&name) {
                // Rows that were not archived when the process ended are recomputed.
                wait_consumed(catalog, &view).await?;
            }
            state = view.log.state();
            if from > state.rows && (state.ended || catalog.waits_for_pushes(&name)) {
                return Err(no_such_row(&name, from, state.rows));
            }
            if from < state.first {
                return Err(dropped(from, state.first));
            }
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
            let following = Following::new(from, time);
            let follow = follow(source, request, following.promise(), sender.clone());
            let query = Arc::clone(&view.query);
            let task = cx.instance.parts.cpu.spawn(async move {
                if let Err(error) = follow.await {
                    tracing::warn!(query = query.name, %error, "subscription ended");
                    // A reader that is gone needs no error.
                    drop(sender.send(Err(error)).await);
                }
            });
            let schema = Arc::clone(view.log.schema());
            let stop = Stop::Task(task);
            Ok(Outcome::Rows(ResultStream::new(schema, Some(following), receiver, stop)))
        })
    }
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

/// Sends all rows of a source until it ends or the reader is gone.
async fn follow(
    source: LogSource,
    request: ScanRequest,
    promise: Arc<Promise>,
    sender: RowSender,
) -> Result<()> {
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
