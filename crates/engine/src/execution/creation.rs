//! Shared parts of the statements that create objects: checks of names, definitions in the data directory, retention.

use std::sync::Arc;
use std::time::Duration;

use windrow_core::time::{ticks_per_second, time_unit};
use windrow_core::{Error, Result, StreamSchema};
use windrow_stream::log::StreamLog;
use windrow_stream::retention::Retention;
use windrow_stream::spill::Spiller;

use crate::catalog::sinks::SinkObject;
use crate::catalog::{Object, dropped, exists, read_by};
use crate::durable::definitions::{Definition, Kind};
use crate::execution::context::StatementContext;
use crate::execution::options::timeless;

/// The creation of one object.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Creation<'a> {
    cx: &'a StatementContext,
    name: &'a str,
}

impl<'a> Creation<'a> {
    /// Creates the object `name`.
    pub(crate) fn new(cx: &'a StatementContext, name: &'a str) -> Self {
        Self { cx, name }
    }

    /// Whether `IF NOT EXISTS` leaves nothing to do. `kind`: what is created, for messages.
    ///
    /// # Errors
    /// When the name is taken, by something that is not to be replaced.
    pub(crate) fn is_done(self, replace: bool, if_not_exists: bool, kind: &str) -> Result<bool> {
        let (catalog, name) = (self.cx.catalog(), self.name);
        if let Some(error) = catalog.broken(name) {
            return Err(error.with_hint(format!("DROP {} {name} removes it.", kind.to_uppercase())));
        }
        if !catalog.exists(name) {
            return Ok(false);
        }
        match catalog.get(name) {
            _ if if_not_exists => Ok(true),
            Some(object) if replace && object.kind() == kind => Ok(false),
            Some(object) if replace => {
                Err(Error::sql(format!("\"{name}\" is a {}, not a {kind}", object.kind())))
            }
            _ => Err(exists(name)),
        }
    }

    /// Removes the object that `OR REPLACE` replaces, if there is one.
    ///
    /// # Errors
    /// When another object reads it.
    pub(crate) async fn replace(self) -> Result<()> {
        let catalog = self.cx.catalog();
        if !catalog.exists(self.name) {
            return Ok(());
        }
        if let [reader, ..] = catalog.readers(self.name).as_slice() {
            return Err(read_by(self.name, reader));
        }
        remove(self.cx, self.name).await
    }

    /// Makes the definition durable; `None` without a data directory. While a data directory is opened, the definition
    /// exists already.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn record(self, kind: Kind, text: &str) -> Result<Option<Definition>> {
        let models = self.cx.versions_used(text);
        self.cx.catalog().pin(self.name, models.clone());
        match (&self.cx.instance.store, &self.cx.restoring) {
            (Some(_), Some(definition)) => Ok(Some(definition.as_ref().clone())),
            (Some(store), None) => {
                let what = (self.name, kind, text);
                store.record_using(what, self.cx.files().base(), models).map(Some)
            }
            (None, _) => Ok(None),
        }
    }

    /// Marks everything that is stored for the object as created: what is missing at the next start has been lost.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn complete(self, definition: Option<&Definition>) -> Result<()> {
        match (&self.cx.instance.store, definition) {
            (Some(store), Some(definition)) => store.mark_created(definition),
            _ => Ok(()),
        }
    }

    /// Removes the definition again when the object could not be created.
    ///
    /// # Errors
    /// As `created`; when the definition cannot be removed.
    pub(crate) fn or_forget<T>(self, created: Result<T>) -> Result<T> {
        if created.is_err()
            && self.cx.restoring.is_none()
            && let Some(store) = &self.cx.instance.store
        {
            store.forget(self.name)?;
        }
        created
    }
}

/// Removes an object from the catalog; queries that read it get an error. What is stored for it stays.
///
/// # Errors
/// When the catalog refuses it.
pub(crate) async fn remove(cx: &StatementContext, name: &str) -> Result<()> {
    let kind = match cx.catalog().get(name) {
        Some(Object::Stream(stream)) => {
            if let Some(receiver) = &stream.receiver {
                receiver.end();
            }
            if let Some(feed) = cx.catalog().feed_of(name) {
                feed.stop_checkpoints().await;
                Box::pin(remove(cx, &feed.name)).await?;
            }
            "stream"
        }
        Some(Object::View | Object::Materialized(_)) => "view",
        Some(Object::Sink(sink)) => return remove_sink(cx, &sink).await,
        // Queries that call it have it.
        Some(Object::Function(_) | Object::Model(_)) => return cx.catalog().remove(name),
        None => "table",
    };
    cx.instance.release(name).await;
    cx.catalog().remove(name)?;
    cx.instance.parts.paused.send_if_modified(|paused| paused.remove(name));
    cx.instance.parts.fail_readers(name, &Arc::new(dropped(kind, name)));
    Ok(())
}

/// Ends a sink and removes it, with the view that exists for it alone.
async fn remove_sink(cx: &StatementContext, sink: &SinkObject) -> Result<()> {
    sink.tell(|control| control.dropped = true);
    sink.gone().await;
    cx.catalog().remove(&sink.name)?;
    if !sink.owns_view {
        return Ok(());
    }
    if let Some(Object::Materialized(view)) = cx.catalog().get(&sink.view) {
        view.stop_checkpoints().await;
    }
    Box::pin(remove(cx, &sink.view)).await
}

/// Starts to drop the rows of a log that are older than `keep` (`None`: all are retained), or truncated. `name` is the object,
/// `key` identifies the retention in the instance.
///
/// # Errors
/// When rows are to be dropped by their age, and the object has no event time.
pub(crate) fn start_retention(
    cx: &StatementContext,
    (name, key): (&str, &str),
    log: (&Arc<StreamLog>, Option<&Arc<Spiller>>),
    schema: &StreamSchema,
    keep: Option<Duration>,
) -> Result<Arc<Retention>> {
    let ticks = keep.map(|keep| retention_ticks(name, schema, keep)).transpose()?;
    let retention = Retention::new(name, log, schema.event_time().map(|time| time.index), ticks);
    cx.instance.retain(key, &retention);
    Ok(retention)
}

/// Returns a retention in ticks of the event time.
///
/// # Errors
/// When there is no event time.
pub(crate) fn retention_ticks(name: &str, schema: &StreamSchema, keep: Duration) -> Result<i64> {
    let Some(time) = schema.event_time() else {
        return Err(timeless(name));
    };
    let unit = time_unit(schema.schema().field(time.index).data_type());
    let per_second = unit.map_or(1, ticks_per_second);
    // Rounded up: rather a tick too much than one too few.
    let ticks = (keep.as_nanos() * u128::from(per_second.unsigned_abs())).div_ceil(1_000_000_000);
    Ok(i64::try_from(ticks).unwrap_or(i64::MAX))
}
