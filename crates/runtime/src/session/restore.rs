//! Opening and closing a data directory: definitions become objects again, views settle.

use std::sync::Arc;

use windrow_core::{Error, Result};
use windrow_sql::parse::parse;

use crate::catalog::Object;
use crate::durable::definitions::Definition;
use crate::session::Session;
use crate::session::tables::TABLE;

impl Session {
    /// Makes all objects of the data directory again, in the order in which they were made, and
    /// starts their queries. Views that read the same stream read it once.
    ///
    /// # Errors
    /// When a definition cannot be made again; it is named.
    pub(crate) async fn restore(&self) -> Result<()> {
        let Some(store) = &self.engine.store else { return Ok(()) };
        for definition in store.definitions() {
            self.restore_one(&definition).await.map_err(|e| named(e, &definition))?;
        }
        self.engine.start_pending();
        Ok(())
    }

    async fn restore_one(&self, definition: &Definition) -> Result<()> {
        let mut session = self.clone();
        session.restoring = Some(Arc::new(definition.clone()));
        if definition.kind == TABLE && self.restore_table(definition).await? {
            return Ok(());
        }
        for statement in parse(&definition.sql)? {
            session.dispatch_statement(statement).await?;
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
        definition.kind,
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
    named.with_source(error)
}
