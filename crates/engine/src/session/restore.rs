//! Opening and closing a data directory: definitions become objects again, views settle.

use std::sync::Arc;

use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::parse::parse_kept;
use windrow_stream::caught::caught;

use crate::catalog::Object;
use crate::durable::definitions::{Definition, Kind, LostRows};
use crate::session::Session;

impl Session {
    /// Makes all objects of the data directory again, in the order in which they were made, and
    /// starts their queries. Views that read the same stream read it once. An object that cannot
    /// be made again is broken: whoever uses it is told why, the others go on.
    pub(crate) async fn restore(&self) {
        let Some(store) = &self.engine.store else { return };
        let known = store.definitions();
        for definition in known.clone() {
            let what = || format!("opening \"{}\"", definition.name);
            let restored = caught(what, self.restore_one(&definition)).await;
            if let Err(error) = restored.and_then(|()| self.made(Some(&definition))) {
                // What was begun of it must not run on.
                self.engine.release(&definition.name).await;
                let error = named(error, &definition);
                tracing::error!("{error}");
                self.engine.catalog.mark_broken(&definition, error);
            }
        }
        for definition in store.definitions() {
            let before = known.iter().find(|d| d.id == definition.id).map_or(0, |d| d.lost.len());
            for lost in definition.lost.iter().skip(before) {
                self.tell_lost(&definition.name, lost);
            }
            self.engine.catalog.note_lost(&definition.name, definition.lost);
        }
        self.engine.start_pending();
        // What was dropped before the end of the last process is not to be read again.
        self.engine.drop_old().await;
    }

    /// Says that the loss of rows has been accepted, and which views had taken in some of them.
    fn tell_lost(&self, stream: &str, lost: &LostRows) {
        let LostRows { start, end, had, .. } = lost;
        let rows = end - start;
        self.engine.notice(format!(
            "stream \"{stream}\" has lost {rows} rows, from row {start} on; it goes on with row {end}"
        ));
        for (view, to) in had {
            let rows = (*to).min(*end).saturating_sub(*start);
            self.engine.notice(format!(
                "view \"{view}\" has taken in {rows} rows that \"{stream}\" has lost"
            ));
        }
    }

    async fn restore_one(&self, definition: &Definition) -> Result<()> {
        let Some(store) = &self.engine.store else { return Ok(()) };
        let mut session = self.clone();
        session.restoring = Some(Arc::new(definition.clone()));
        if definition.kind == Kind::Table && self.restore_table(definition).await? {
            return Ok(());
        }
        if store.is_from_before_zones(definition) {
            session = session.without_zone();
        }
        for statement in parse_kept(&definition.sql)? {
            let made = session.dispatch_statement(statement).await;
            made.map_err(|error| session.suggest(error))?;
        }
        Ok(())
    }

    /// Waits until the views that read push streams have taken in what those hold, so that what is
    /// finished can be archived. A view that fails meanwhile has nothing more to give.
    pub(crate) async fn settle(&self) {
        for object in self.engine.catalog.all() {
            if let Object::Materialized(view) = object
                && self.engine.catalog.waits_for_pushes(&view.name)
                && let Err(error) = self.wait_consumed(&view).await
            {
                tracing::debug!(view = view.name, %error, "a view did not settle");
            }
        }
    }
}

fn named(error: Error, definition: &Definition) -> Error {
    let message = format!(
        "{} \"{}\" of the data directory cannot be opened: {}",
        definition.kind.as_str().replace('_', " "),
        definition.name,
        error.message()
    );
    let mut named = Error::new(error.kind(), message);
    if let Some(detail) = error.detail() {
        named = named.with_detail(detail);
    }
    for hint in error.hints() {
        named = named.with_hint(hint);
    }
    if matches!(error.kind(), ErrorKind::Sql | ErrorKind::Config | ErrorKind::NotFound) {
        let (name, kind) = (&definition.name, drop_word(definition.kind));
        named = named.with_hint(format!(
            "SHOW CREATE {name} gives its statement; DROP {kind} {name} gives it up, so that it can be made anew."
        ));
    }
    named.with_source(error)
}

/// What `DROP` calls it.
fn drop_word(kind: Kind) -> &'static str {
    match kind {
        Kind::Stream => "STREAM",
        Kind::View => "VIEW",
        Kind::MaterializedView | Kind::Insert => "MATERIALIZED VIEW",
        Kind::Table => "TABLE",
    }
}

#[cfg(test)]
mod tests;
