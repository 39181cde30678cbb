//! Waiting for materialized views: until one has consumed its inputs, or its watermark has passed a time.

use std::sync::Arc;

use futures::future::BoxFuture;
use windrow_core::time::{ticks_to_micros, time_unit};
use windrow_core::{Error, Result, Watermark};
use windrow_stream::log::LogState;

use crate::catalog::{Catalog, Materialized, Object};

/// Waits until the watermark of a view has passed a time in µs since the Unix epoch.
///
/// # Errors
/// When the view has no event time, or fails.
pub(crate) async fn wait_until(view: &Materialized, micros: i64) -> Result<()> {
    let column = view.stream.schema.event_time().ok_or_else(|| {
        Error::sql(format!("view \"{}\" has no event time to wait for", view.name))
            .with_hint("Select window_time or window_end in the view, or leave UNTIL out.")
    })?;
    let unit = time_unit(view.stream.schema.schema().field(column.index).data_type());
    wait_for(view, || {
        let watermark = view.query.state.lock().watermark;
        let passed = unit.is_some_and(|unit| ticks_to_micros(watermark.ticks(), unit) >= micros);
        watermark == Watermark::END || passed
    })
    .await
}

/// Waits until `is_reached`, which is asked after each pass of the view's coordinator.
async fn wait_for(view: &Materialized, is_reached: impl Fn() -> bool) -> Result<()> {
    let mut passes = view.query.watch_passes();
    loop {
        if is_reached() {
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

/// Waits until a view has consumed what its inputs hold now.
///
/// # Errors
/// When an input never ends, or the view fails.
pub(crate) fn wait_consumed<'a>(
    catalog: &'a Catalog,
    view: &'a Arc<Materialized>,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        for input in &view.reads {
            match catalog.get(input) {
                Some(Object::Materialized(inner)) => {
                    Box::pin(wait_consumed(catalog, &inner)).await?;
                    if inner.log.is_unordered() {
                        // Its readers only get archived rows.
                        inner.query.checkpoint().await?;
                    }
                    let LogState { rows, watermark, .. } = inner.log.settled();
                    wait_for_offset(view, input, (rows, watermark)).await?;
                }
                Some(Object::Stream(stream)) => match stream.push() {
                    Some(push) => {
                        if let Some(feed) = catalog.feed_of(input) {
                            wait_fed(catalog, &feed).await?;
                        }
                        let rows = push.log.state().rows;
                        wait_for_offset(view, input, (rows, Watermark::NONE)).await?;
                    }
                    None if stream.is_bounded() => {}
                    None => {
                        return Err(Error::sql(format!(
                            "view \"{}\" reads stream \"{input}\", which never ends",
                            view.name
                        ))
                        .with_hint("Say how far to wait: WAIT FOR … UNTIL TIMESTAMP '…'."));
                    }
                },
                Some(Object::View | Object::Sink(_) | Object::Function(_) | Object::Model(_))
                | None => {}
            }
        }
        // Two passes of the coordinator: the second one began after the rows were consumed.
        let mut passes = view.query.watch_passes();
        for _ in 0..2 {
            if view.query.is_over() {
                return view.ended().await;
            }
            view.query.ask_emission();
            tokio::select! {
                changed = passes.changed() => if changed.is_err() { return Ok(()) },
                ended = view.ended() => return ended,
            }
        }
        Ok(())
    })
}

/// Waits until a stream has the final rows of the view that feeds it, after that has consumed what its inputs hold now.
///
/// # Errors
/// When an input never ends, or the view fails.
pub(crate) fn wait_fed<'a>(
    catalog: &'a Catalog,
    feed: &'a Arc<Materialized>,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        match feed.bounded {
            true => feed.ended().await?,
            false => wait_consumed(catalog, feed).await?,
        }
        match feed.pump.get() {
            Some(pump) => pump.catch_up().await,
            None => Ok(()),
        }
    })
}

/// Waits until a view has consumed an input up to a row and knows its watermark.
async fn wait_for_offset(
    view: &Materialized,
    input: &str,
    (rows, watermark): (u64, Watermark),
) -> Result<()> {
    let knows = || view.query.tap_of(input).is_none_or(|tap| tap.own() >= watermark);
    wait_for(view, || view.consumed(input) >= rows && knows()).await
}

/// Waits until the views among `reads`, and those that streams among them replay, have consumed the rows that were pushed.
///
/// # Errors
/// When one of the views fails.
pub(crate) fn wait_for_pushes<'a>(
    catalog: &'a Catalog,
    reads: &'a [String],
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        for name in reads {
            if let Some(feed) = catalog.feed_of(name) {
                if catalog.waits_for_pushes(name) {
                    wait_fed(catalog, &feed).await?;
                }
            } else if let Some(Object::Stream(_)) = catalog.get(name) {
                Box::pin(wait_for_pushes(catalog, &catalog.reads(name))).await?;
            }
            if let Some(Object::Materialized(view)) = catalog.get(name)
                && catalog.waits_for_pushes(name)
            {
                wait_consumed(catalog, &view).await?;
            }
        }
        Ok(())
    })
}

/// Waits until all views over push streams have consumed what those hold, so that final rows can be archived. A view that
/// fails meanwhile is not waited for.
pub(crate) async fn settle(catalog: &Catalog) {
    for object in catalog.all() {
        if let Object::Materialized(view) = object
            && catalog.waits_for_pushes(&view.name)
            && let Err(error) = wait_consumed(catalog, &view).await
        {
            tracing::debug!(view = view.name, %error, "a view did not settle");
        }
    }
}
