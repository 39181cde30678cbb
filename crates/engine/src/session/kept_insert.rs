//! `INSERT INTO s SELECT … EMIT` that goes on after a restart, and gives each row once.
//!
//! ```text
//! query ─► view insert_into_s: finished windows, archived ─► pump ─► write-ahead log of s
//!          (checkpoints, one order of rows)                 (producer: the INSERT; number: the row)
//! ```
//! Its results are a materialized view of their own, which brings all that survives: definition, checkpoints,
//! and rows that have the same number for ever once they are archived. The pump copies those to the
//! stream as batches of a producer, so the stream itself knows how far it got.
//!
//! Invariants: a row is copied only when it is archived, because then it never changes; the position is
//! kept with the rows it speaks of, in one record of the log.

use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::plan::ContinuousPlan;
use windrow_storage::wal::producers::Stamp;
use windrow_stream::push::PushStream;
use windrow_stream::target::Target;

use crate::catalog::{Materialized, Object};
use crate::durable::definitions::Kind;
use crate::engine::pump::Pump;
use crate::session::create_view::NewView;
use crate::session::{Outcome, Session};

/// An INSERT before it runs.
pub(super) struct NewInsert<'a> {
    pub(super) push: &'a Arc<PushStream>,
    pub(super) target: Target,
    pub(super) text: &'a str,
    pub(super) reads: Vec<String>,
    /// Its query, as the bounded form has it.
    pub(super) bounded: LogicalPlan,
}

impl Session {
    /// Whether an INSERT can go on after a restart.
    pub(super) fn insert_is_kept(
        &self,
        push: &PushStream,
        (reads, has_late_to): (&[String], bool),
    ) -> bool {
        let durable = self.engine.store.is_some() && push.wal.is_some();
        durable && self.resumes(reads, has_late_to)
    }

    /// Starts such an INSERT, or goes on with it.
    pub(super) async fn keep_insert(
        &self,
        insert: NewInsert<'_>,
        plan: ContinuousPlan,
    ) -> Result<Outcome> {
        let NewInsert { push, target, text, reads, bounded } = insert;
        let catalog = &self.engine.catalog;
        let name = match &self.restoring {
            Some(definition) => definition.name.clone(),
            None => {
                if let Some(same) = self.same_insert(text) {
                    let said = format!("INSERT (continuous, \"{same}\" does it already)");
                    return Ok(Outcome::Done(said.into()));
                }
                self.free_name(&push.name)
            }
        };
        let definition = self.record(&name, Kind::Insert, text)?;
        let Some(id) = definition.as_ref().map(|d| d.id) else {
            return Err(Error::internal("an INSERT that is kept has no definition"));
        };
        let view = NewView::of_insert(&name, &push.name, text, (reads, bounded));
        let started = self.start_view(view, plan, definition).await;
        self.or_forget(&name, started)?;
        let Some(Object::Materialized(view)) = catalog.get(&name) else {
            return Err(Error::internal("the view of an INSERT is not there"));
        };
        self.or_lost(&view, push, id).await?;
        let pump = Pump::new(&view, (push, target), id);
        if let Some(pump) = pump {
            self.engine.pump(&pump);
        }
        let said =
            format!("INSERT (continuous, as \"{name}\"; DROP MATERIALIZED VIEW {name} ends it)");
        Ok(Outcome::Done(said.into()))
    }

    /// Refuses to go on where the stream has more rows of the INSERT than its own archive: only archived rows are
    /// copied. In one order the same rows come again, with the same numbers.
    async fn or_lost(&self, view: &Materialized, push: &PushStream, id: u64) -> Result<()> {
        let (taken, rows) = (push.taken(&Stamp::insert(id)), view.log.state().rows);
        let unordered = view.log.is_unordered();
        if self.restoring.is_none() || taken <= rows {
            return Ok(());
        }
        let (name, stream) = (&view.name, &push.name);
        let said = format!("\"{stream}\" has {taken} rows of it, and its archive has {rows}");
        if !unordered {
            self.engine
                .notice(format!("INSERT \"{name}\": {said}: the others are worked out again"));
            return Ok(());
        }
        self.engine.release(name).await;
        self.engine.catalog.remove(name)?;
        Err(Error::new(ErrorKind::Corrupt, format!("it has lost rows: {said}")).with_hint(format!(
            "Restore its archive from a backup, or DROP MATERIALIZED VIEW {name} and insert what is missing."
        )))
    }

    /// The INSERT with the same text that runs already.
    fn same_insert(&self, text: &str) -> Option<String> {
        let definitions = self.engine.store.as_ref()?.definitions();
        let same = definitions.into_iter().find(|d| d.kind == Kind::Insert && d.sql == text)?;
        self.engine.catalog.exists(&same.name).then_some(same.name)
    }

    fn free_name(&self, stream: &str) -> String {
        let first = format!("insert_into_{stream}");
        let further = (2_u64..).map(|n| format!("{first}_{n}"));
        let mut names = std::iter::once(first.clone()).chain(further);
        let free = |name: &String| {
            !self.engine.catalog.exists(name) && self.engine.catalog.broken(name).is_none()
        };
        names.find(free).unwrap_or(first)
    }
}
