//! `DROP`.

use sqlparser::ast::ObjectName;
use windrow_core::{Error, Result};
use windrow_sql::parse::{self, DropKind};

use super::refreshed_tables::check_unread;
use super::{Answer, Statement, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::{Catalog, Object};
use crate::execution::context::StatementContext;
use crate::execution::creation;
use crate::execution::outcome::Outcome;
use crate::names::plain_name;

/// `DROP kind [IF EXISTS] name, … [CASCADE]`.
#[derive(Debug)]
pub(crate) struct Drop(pub(super) parse::Drop);

impl Statement for Drop {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("DROP", None)
    }

    fn authorize(&self, access: &Access, catalog: &Catalog) -> Result<()> {
        self.0.names.iter().try_for_each(|name| {
            need(access, Role::Admin, name)?;
            self.authorize_cascade(access, catalog, name)
        })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            for name in &self.0.names {
                self.drop_one(cx, &plain_name(name)?).await?;
            }
            Ok(Outcome::Done(format!("DROP {}", kind_name(self.0.kind).to_uppercase()).into()))
        })
    }
}

impl Drop {
    /// CASCADE drops the objects that read this one as well.
    fn authorize_cascade(
        &self,
        access: &Access,
        catalog: &Catalog,
        name: &ObjectName,
    ) -> Result<()> {
        if !self.0.cascade || access.is_everything(Role::Admin) {
            return Ok(());
        }
        let mut todo = vec![plain_name(name)?];
        while let Some(name) = todo.pop() {
            access.need(Role::Admin, &name)?;
            todo.extend(catalog.readers(&name));
        }
        Ok(())
    }

    async fn drop_one(&self, cx: &StatementContext, name: &str) -> Result<()> {
        let catalog = cx.catalog();
        if catalog.forget_broken(name) {
            // An object that cannot be opened can be dropped.
            return forget(cx, name);
        }
        if !catalog.exists(name) {
            return match self.0.if_exists {
                true => Ok(()),
                false => Err(catalog.missing(kind_name(self.0.kind), name)),
            };
        }
        self.check_kind(catalog.get(name).as_ref(), name)?;
        let readers = catalog.readers(name);
        if let Some(reader) = readers.first() {
            if !self.0.cascade {
                let verb = match self.0.kind {
                    DropKind::Function => "called",
                    DropKind::Model => "used",
                    _ => "read",
                };
                return Err(Error::sql(format!("\"{name}\" is {verb} by \"{reader}\""))
                    .with_hint(format!("Drop \"{reader}\" first, or use CASCADE.")));
            }
            for reader in &readers {
                drop_with_readers(cx, reader).await?;
            }
        }
        if catalog.get(name).is_none() {
            check_unread(cx, name)?;
        }
        cx.instance.parts.bad_rows.forget(name);
        match catalog.exists(name) {
            true => remove(cx, name).await,
            // A sink has taken its own view with it.
            false => Ok(()),
        }
    }

    /// Checks that an object is of the kind that is to be dropped.
    fn check_kind(&self, found: Option<&Object>, name: &str) -> Result<()> {
        let fits = match (found, self.0.kind) {
            (Some(Object::Stream(_)), DropKind::Stream | DropKind::Table)
            | (Some(Object::View | Object::Materialized(_)), DropKind::View)
            | (Some(Object::Materialized(_)), DropKind::MaterializedView)
            | (Some(Object::Sink(_)), DropKind::Sink)
            | (Some(Object::Function(_)), DropKind::Function)
            | (Some(Object::Model(_)), DropKind::Model)
            | (None, DropKind::Table) => true,
            (Some(_) | None, _) => false,
        };
        if fits {
            return Ok(());
        }
        let (kind, wanted) = (found.map_or("table", Object::kind), kind_name(self.0.kind));
        Err(Error::sql(format!("\"{name}\" is a {kind}, not a {wanted}"))
            .with_hint(format!("Use DROP {} {name}.", kind.to_uppercase())))
    }
}

/// Drops an object and all that read it.
async fn drop_with_readers(cx: &StatementContext, name: &str) -> Result<()> {
    for reader in cx.catalog().readers(name) {
        Box::pin(drop_with_readers(cx, &reader)).await?;
    }
    if cx.catalog().forget_broken(name) {
        return forget(cx, name);
    }
    if cx.catalog().exists(name) { remove(cx, name).await } else { Ok(()) }
}

/// Removes an object from the catalog, and what is stored for it.
async fn remove(cx: &StatementContext, name: &str) -> Result<()> {
    if let Some(Object::Materialized(view)) = cx.catalog().get(name) {
        view.stop_checkpoints().await;
    }
    creation::remove(cx, name).await?;
    forget(cx, name)
}

/// Removes what is stored for an object.
fn forget(cx: &StatementContext, name: &str) -> Result<()> {
    // Another stream of its name begins unpaused.
    cx.instance.parts.paused.send_if_modified(|paused| paused.remove(name));
    match &cx.instance.store {
        Some(store) => store.forget(name),
        None => Ok(()),
    }
}

fn kind_name(kind: DropKind) -> &'static str {
    match kind {
        DropKind::Stream => "stream",
        DropKind::View => "view",
        DropKind::MaterializedView => "materialized view",
        DropKind::Table => "table",
        DropKind::Sink => "sink",
        DropKind::Function => "function",
        DropKind::Model => "model",
    }
}
