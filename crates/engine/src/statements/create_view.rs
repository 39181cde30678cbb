//! `CREATE [MATERIALIZED] VIEW`.

use std::sync::Arc;

use datafusion::catalog::view::ViewTable;
use datafusion::logical_expr::LogicalPlan;
use windrow_core::{Error, Result};
use windrow_query::shared::Status;
use windrow_sql::parse;
use windrow_sql::plan::distinct_columns;

use super::select::{explain_bounded, explain_continuous};
use super::{Answer, ExplainOptions, Statement, authorize_late_rows, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::{Catalog, Materialized, Object, read_by, streams_read};
use crate::durable::definitions::Kind;
use crate::execution::context::StatementContext;
use crate::execution::creation::Creation;
use crate::execution::options::timeless;
use crate::execution::outcome::Outcome;
use crate::names::plain_name;
use crate::views::build::{NewView, check_resumable};
use crate::views::late_rows::late_stream;
use crate::views::options::ViewOptions;
use crate::views::rebuild::{check_late_stream, rebuild};
use crate::views::shape::fingerprint;

/// `CREATE [OR REPLACE] [MATERIALIZED] VIEW …`.
#[derive(Debug)]
pub(crate) struct CreateView {
    pub(super) create: parse::CreateView,
    pub(super) text: String,
}

impl Statement for CreateView {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("CREATE VIEW", None)
    }

    fn authorize(&self, access: &Access, catalog: &Catalog) -> Result<()> {
        need(access, Role::Admin, &self.create.name)?;
        authorize_late_rows(access, catalog, &self.create.query)
    }

    fn is_definition(&self) -> bool {
        true
    }

    fn starts_queued_views(&self) -> bool {
        false
    }

    fn explain<'a>(
        &'a self,
        cx: &'a StatementContext,
        options: ExplainOptions,
    ) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let (create, query) = (&self.create, &self.create.query);
            if !create.materialized {
                let plan = cx.planner().query(&query.query, &[]).await?;
                return explain_bounded(cx, plan, ExplainOptions { analyze: false, ..options })
                    .await;
            }
            let plan = cx.planner().query(&query.query, &create.columns).await?;
            let plan = ViewOptions::read(&create.options)?.restrict(plan)?;
            explain_continuous(cx, plan, &query.tail).await
        })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let create = &self.create;
            let name = plain_name(&create.name)?;
            let kind = if create.materialized { "materialized view" } else { "view" };
            let tag = format!("CREATE {}", kind.to_uppercase());
            let creation = Creation::new(cx, &name);
            if creation.is_done(create.or_replace, create.if_not_exists, kind)? {
                return Ok(Outcome::Done(format!("{tag} (exists already)").into()));
            }
            let plan = cx.planner().query(&create.query.query, &create.columns).await?;
            distinct_columns(&plan)?;
            let reads = streams_read(&plan)?;
            if reads.contains(&name) {
                return Err(Error::sql(format!("{kind} \"{name}\" would read itself")));
            }
            let remark = match create.materialized {
                true => self.create_materialized(cx, name, (plan, reads)).await?,
                false => self.create_named_query(cx, &name, (plan, reads)).await?,
            };
            Ok(Outcome::Done((tag + remark).into()))
        })
    }
}

impl CreateView {
    /// Creates a view that only names a query. Returns a remark for the command tag.
    async fn create_named_query(
        &self,
        cx: &StatementContext,
        name: &str,
        (plan, reads): (LogicalPlan, Vec<String>),
    ) -> Result<&'static str> {
        if !self.create.query.tail.is_empty() {
            return Err(Error::sql(format!("view \"{name}\" only names a query, it has no EMIT"))
                .with_hint("Use CREATE MATERIALIZED VIEW, or give EMIT where the view is read."));
        }
        let creation = Creation::new(cx, name);
        if self.create.or_replace {
            creation.replace().await?;
        }
        let table = Arc::new(ViewTable::new(plan, Some(self.text.clone())));
        creation.record(Kind::View, &self.text)?;
        cx.catalog().add(name, Object::View, table, (&self.text, reads))?;
        Ok("")
    }

    /// Creates a materialized view, or replaces one. Returns a remark for the command tag.
    async fn create_materialized(
        &self,
        cx: &StatementContext,
        name: String,
        (plan, reads): (LogicalPlan, Vec<String>),
    ) -> Result<&'static str> {
        let tail = &self.create.query.tail;
        if cx.restoring.is_none() {
            cx.catalog().check_reads(&reads)?;
        }
        let options = ViewOptions::read(&self.create.options)?;
        let bounded = options.restrict(plan)?;
        let from = options.start_offsets(cx, &reads).await?;
        let plan = cx.planner().continuous(bounded.clone(), tail).await?;
        check_resumable(cx, &plan)?;
        if let (Some((_, place)), true) = (options.retention, plan.event_times.is_empty()) {
            return Err(timeless(&name).with_place(place));
        }
        let old = self.replaced(cx.catalog(), &name)?;
        let late_to = late_stream(cx, tail, &reads)?;
        let fingerprint = fingerprint(&options, &plan, &bounded, late_to.is_some())?;
        if let Some(old) = old.as_ref().filter(|old| {
            let lives = matches!(old.query.status(), Status::Running | Status::Finished);
            // What is recorded with the definition stays as it was: with how many columns the old text reads streams.
            let same = fingerprint.is_some() && old.fingerprint == fingerprint;
            lives && same && !cx.reads_widened(&self.text)
        }) {
            // Its state is that of the new text as well.
            if let Some(store) = &cx.instance.store {
                store.retext(&name, &self.text)?;
            }
            cx.catalog().retext(&old.name, &self.text);
            return Ok(" (the same plan: it continues unchanged)");
        }
        let view = NewView {
            name: name.clone(),
            text: self.text.clone(),
            reads,
            bounded,
            late_to,
            from,
            starts_late: options.starts_late(),
            retention: options.retention,
            skips_rows: options.skips_rows,
            fingerprint,
            feeds: None,
        };
        if let Some(old) = old {
            rebuild(cx, view, plan, old).await?;
            return Ok("");
        }
        let creation = Creation::new(cx, &name);
        let definition = creation.record(Kind::MaterializedView, &self.text)?;
        creation.or_forget(view.start(cx, plan, definition).await)?;
        Ok("")
    }

    /// Returns the materialized view that is replaced, if there is one.
    fn replaced(&self, catalog: &Catalog, name: &str) -> Result<Option<Arc<Materialized>>> {
        let Some(Object::Materialized(old)) = catalog.get(name) else { return Ok(None) };
        if let Some(reader) = catalog.readers(name).first() {
            return Err(read_by(name, reader));
        }
        if let Some(late) = &self.create.query.tail.late_data_to {
            check_late_stream(catalog, &plain_name(late)?)?;
        }
        Ok(Some(old))
    }
}
