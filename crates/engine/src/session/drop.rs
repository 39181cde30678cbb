//! `DROP`.

use std::sync::Arc;

use windrow_core::{Error, Result};
use windrow_sql::parse::{Drop, DropKind};

use crate::catalog::{Object, dropped, plain_name};
use crate::session::{Outcome, Session};

impl Session {
    pub(super) async fn drop_objects(&self, drop: &Drop) -> Result<Outcome> {
        for name in &drop.names {
            self.drop_object(drop, &plain_name(name)?).await?;
        }
        Ok(Outcome::Done(format!("DROP {}", kind_name(drop.kind).to_uppercase()).into()))
    }

    async fn drop_object(&self, drop: &Drop, name: &str) -> Result<()> {
        let catalog = &self.engine.catalog;
        let wanted = kind_name(drop.kind);
        if catalog.forget_broken(name) {
            // What cannot be opened can be given up.
            return match &self.engine.store {
                Some(store) => store.forget(name),
                None => Ok(()),
            };
        }
        if !catalog.exists(name) {
            return if drop.if_exists { Ok(()) } else { Err(catalog.missing(wanted, name)) };
        }
        let found = catalog.get(name);
        let fits = match (&found, drop.kind) {
            (Some(Object::Stream(_)), DropKind::Stream | DropKind::Table)
            | (Some(Object::View | Object::Materialized(_)), DropKind::View)
            | (Some(Object::Materialized(_)), DropKind::MaterializedView)
            | (None, DropKind::Table) => true,
            (Some(_) | None, _) => false,
        };
        if !fits {
            let kind = found.map_or("table", |o| o.kind());
            return Err(Error::sql(format!("\"{name}\" is a {kind}, not a {wanted}"))
                .with_hint(format!("Use DROP {} {name}.", kind.to_uppercase())));
        }
        let readers = catalog.readers(name);
        if let Some(reader) = readers.first() {
            if !drop.cascade {
                return Err(Error::sql(format!("\"{name}\" is read by \"{reader}\""))
                    .with_hint(format!("Drop \"{reader}\" first, or use CASCADE.")));
            }
            for reader in &readers {
                self.drop_any(reader).await?;
            }
        }
        self.engine.parts.bad_rows.forget(name);
        self.remove(name).await
    }

    /// Removes an object from the catalog, and what is kept of it.
    async fn remove(&self, name: &str) -> Result<()> {
        if let Some(Object::Materialized(view)) = self.engine.catalog.get(name) {
            view.stop_checkpoints().await;
        }
        self.take_away(name).await?;
        match &self.engine.store {
            Some(store) => store.forget(name),
            None => Ok(()),
        }
    }

    /// Removes an object from the catalog; queries that read it get an error.
    pub(super) async fn take_away(&self, name: &str) -> Result<()> {
        let kind = match self.engine.catalog.get(name) {
            Some(Object::Stream(_)) => "stream",
            Some(Object::View | Object::Materialized(_)) => "view",
            None => "table",
        };
        self.engine.release(name).await;
        self.engine.catalog.remove(name)?;
        self.engine.parts.fail_readers(name, &Arc::new(dropped(kind, name)));
        Ok(())
    }

    /// Drops a view and all that read it.
    async fn drop_any(&self, name: &str) -> Result<()> {
        let catalog = &self.engine.catalog;
        for reader in catalog.readers(name) {
            Box::pin(self.drop_any(&reader)).await?;
        }
        if catalog.exists(name) { self.remove(name).await } else { Ok(()) }
    }
}

fn kind_name(kind: DropKind) -> &'static str {
    match kind {
        DropKind::Stream => "stream",
        DropKind::View => "view",
        DropKind::MaterializedView => "materialized view",
        DropKind::Table => "table",
        DropKind::Sink => "sink",
    }
}
