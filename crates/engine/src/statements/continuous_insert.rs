//! `INSERT INTO s SELECT … EMIT` that resumes after a restart and inserts each row exactly once.
//!
//! ```text
//! query ─► view insert_into_s: final rows, archived ─► pump ─► write-ahead log of s
//!          (checkpoints, one order of rows)           (producer: the INSERT; sequence number: the row)
//! ```
//! Its results are a materialized view of their own, which provides everything that survives a restart: the definition, the
//! checkpoints, and rows that keep their number once they are archived. The pump copies those rows to the stream as batches
//! of a producer, so the stream itself stores how far the pump got.
//!
//! Invariants: a row is copied only once it is archived, because then it never changes; the position is stored with the rows
//! that it is about, in one record of the log.

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::plan::ContinuousPlan;
use windrow_storage::wal::producers::Stamp;
use windrow_stream::push::PushStream;
use windrow_stream::target::Target;

use crate::catalog::{Materialized, Object};
use crate::durable::definitions::Kind;
use crate::execution::context::StatementContext;
use crate::execution::creation::Creation;
use crate::execution::outcome::Outcome;
use crate::instance::pump::Pump;
use crate::views::build::NewView;
use crate::views::storage::is_resumable;

/// A durable continuous INSERT that is to be started.
pub(super) struct NewInsert<'a> {
    /// The stream that receives its rows.
    pub(super) push: &'a Arc<PushStream>,
    /// The mapping of its columns to those of the stream.
    pub(super) target: Target,
    /// The statement.
    pub(super) text: &'a str,
    /// The streams and views that it reads.
    pub(super) reads: Vec<String>,
    /// The bounded form of its query.
    pub(super) bounded: LogicalPlan,
}

/// Whether a continuous INSERT over `reads` can resume after a restart. `has_late_to`: whether it sends late rows to a stream.
pub(super) fn is_durable(
    cx: &StatementContext,
    push: &PushStream,
    (reads, has_late_to): (&[String], bool),
) -> bool {
    cx.instance.store.is_some() && push.wal.is_some() && is_resumable(cx, reads, has_late_to)
}

impl NewInsert<'_> {
    /// Starts the INSERT, or resumes it.
    ///
    /// # Errors
    /// When its view cannot be built, or has lost rows.
    pub(super) async fn start(
        self,
        cx: &StatementContext,
        plan: ContinuousPlan,
    ) -> Result<Outcome> {
        let NewInsert { push, target, text, reads, bounded } = self;
        let name = match &cx.restoring {
            Some(definition) => definition.name.clone(),
            None => {
                if let Some(same) = running_already(cx, text) {
                    let done = format!("INSERT (continuous, runs already as \"{same}\")");
                    return Ok(Outcome::Done(done.into()));
                }
                free_name(cx, &push.name)
            }
        };
        let creation = Creation::new(cx, &name);
        let definition = creation.record(Kind::Insert, text)?;
        let Some(id) = definition.as_ref().map(|d| d.id) else {
            return Err(Error::internal("a durable INSERT has no definition"));
        };
        let view = NewView::of_insert(&name, &push.name, text, (reads, bounded));
        creation.or_forget(view.start(cx, plan, definition).await)?;
        let Some(Object::Materialized(view)) = cx.catalog().get(&name) else {
            return Err(Error::internal("the view of an INSERT is not in the catalog"));
        };
        check_archive(cx, &view, push, id).await?;
        // Only archived rows keep their numbers.
        if view.spiller.is_some() {
            cx.instance.start_pump(
                &view,
                Pump::new(
                    (&view.name, &view.query),
                    (&view.log, view.spiller.as_ref()),
                    (push, target),
                    id,
                ),
            );
        }
        let done =
            format!("INSERT (continuous, as \"{name}\"; DROP MATERIALIZED VIEW {name} ends it)");
        Ok(Outcome::Done(done.into()))
    }
}

/// Checks that a resumed INSERT does not have fewer rows in its archive than in the stream, where its rows have no fixed order:
/// rows that come again would have other numbers. In a fixed order they are recomputed with the same numbers.
pub(super) async fn check_archive(
    cx: &StatementContext,
    view: &Materialized,
    push: &PushStream,
    id: u64,
) -> Result<()> {
    let (taken, rows) = (push.taken(&Stamp::insert(id)), view.log.state().rows);
    let unordered = view.log.is_unordered();
    if cx.restoring.is_none() || taken <= rows {
        return Ok(());
    }
    let (name, stream) = (&view.name, &push.name);
    let lost = format!("\"{stream}\" has {taken} rows of it, and its archive has {rows}");
    if !unordered {
        cx.instance.notice(format!("INSERT \"{name}\": {lost}: the others are recomputed"));
        return Ok(());
    }
    cx.instance.release(name).await;
    cx.catalog().remove(name)?;
    Err(Error::new(ErrorKind::Corrupt, format!("it has lost rows: {lost}")).with_hint(format!(
        "Restore its archive from a backup, or DROP MATERIALIZED VIEW {name} and insert what is missing."
    )))
}

/// Returns the name of the INSERT with the same text that is running already.
fn running_already(cx: &StatementContext, text: &str) -> Option<String> {
    let definitions = cx.instance.store.as_ref()?.definitions();
    let same = definitions.into_iter().find(|d| d.kind == Kind::Insert && d.sql == text)?;
    cx.catalog().exists(&same.name).then_some(same.name)
}

/// Returns a free name for the view of an INSERT into a stream.
fn free_name(cx: &StatementContext, stream: &str) -> String {
    let first = format!("insert_into_{stream}");
    let further = (2_u64..).map(|n| format!("{first}_{n}"));
    let mut names = std::iter::once(first.clone()).chain(further);
    let is_free = |name: &String| !cx.catalog().exists(name) && cx.catalog().broken(name).is_none();
    names.find(is_free).unwrap_or(first)
}
