//! `CREATE MODEL`: reads the file, loads the model, stores it, and makes it what new statements call.
//!
//! Invariant: a statement that was planned keeps the version that it was planned with, also after a restart.

use std::sync::Arc;

use windrow_core::limits::MODEL_BYTES_MAX;
use windrow_core::{Error, Result};
use windrow_sql::parse;

use super::{Answer, Statement, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::models::{ModelObject, ModelVersion};
use crate::catalog::{Catalog, Object, Rowless};
use crate::execution::context::StatementContext;
use crate::execution::creation::Creation;
use crate::execution::outcome::Outcome;
use crate::names::plain_name;

/// `CREATE [OR REPLACE] MODEL …`.
#[derive(Debug)]
pub(crate) struct CreateModel {
    pub(super) create: parse::CreateModel,
    pub(super) text: String,
}

impl Statement for CreateModel {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("CREATE MODEL", None)
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Admin, &self.create.name)
    }

    fn is_definition(&self) -> bool {
        true
    }

    fn starts_queued_views(&self) -> bool {
        false
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(self.create(cx))
    }
}

impl CreateModel {
    async fn create(&self, cx: &StatementContext) -> Result<Outcome> {
        let (create, catalog) = (&self.create, cx.catalog());
        let name = plain_name(&create.name)?;
        let creation = Creation::new(cx, &name);
        if creation.is_done(create.or_replace, create.if_not_exists, "model")? {
            return Ok(Outcome::Done("CREATE MODEL (exists already)".into()));
        }
        if let Some(definition) = &cx.restoring {
            let version = cx.stored_version(&name, definition.version)?;
            self.add(cx, version)?;
            return Ok(Outcome::Done("CREATE MODEL".into()));
        }
        let (version, bytes) = self.loaded(cx, &name).await?;
        let Some(Object::Model(old)) = catalog.get(&name) else {
            if let Some(store) = &cx.instance.store {
                store.record_model(&name, &self.text, &bytes)?;
            }
            creation.or_forget(self.add(cx, version))?;
            return Ok(Outcome::Done("CREATE MODEL".into()));
        };
        if old.newest().is_of(&bytes) {
            return Ok(Outcome::Done("CREATE MODEL (the same model)".into()));
        }
        let number = old.add(version, |number| match &cx.instance.store {
            Some(store) => store.record_version(&name, (number, &bytes), &self.text),
            None => Ok(()),
        })?;
        catalog.retext(&name, &self.text);
        Ok(Outcome::Done(format!("CREATE MODEL (version {number})").into()))
    }

    /// Reads the file and loads the model.
    async fn loaded(&self, cx: &StatementContext, name: &str) -> Result<(ModelVersion, Vec<u8>)> {
        let (name, path, reader) = (name.to_owned(), self.create.path.clone(), cx.clone());
        let work = async move {
            let bytes = reader.read_file(&path, MODEL_BYTES_MAX)?;
            Ok((ModelVersion::load(&name, 1, &bytes)?, bytes))
        };
        let placed = |e: Error| match e.place() {
            Some(_) => e,
            None => e.with_place(self.create.place),
        };
        cx.planner().run(work).await.map_err(placed)
    }

    /// Adds the model to the catalog.
    fn add(&self, cx: &StatementContext, version: ModelVersion) -> Result<()> {
        let name = version.name.clone();
        let table = Arc::new(Rowless::of_model(&name));
        let object = Object::Model(Arc::new(ModelObject::new(version)));
        cx.catalog().add(&name, object, table, (&self.text, vec![]))
    }
}
