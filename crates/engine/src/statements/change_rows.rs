//! `DELETE FROM` and `UPDATE`: of a stream with a primary key; tables are DataFusion's.
//!
//! The rows to change are the result of a query over the current rows. While it runs, nothing else is written to the
//! stream, and one record of the log replaces or deletes all of these rows: after a crash, either all are changed or none.

use std::sync::Arc;

use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::sql::parser::Statement as EngineStatement;
use futures::TryStreamExt;
use windrow_core::{Error, ErrorKind, Result};
use windrow_sql::parse::ChangeRows as Change;
use windrow_sql::plan::{Parameters, parameters};
use windrow_stream::Stream;
use windrow_stream::push::PushStream;
use windrow_stream::target::Target;

use super::insert::{ATOMIC_ROWS_MAX, accepts_inserts, placeholder};
use super::select::explain_bounded;
use super::standard::Standard;
use super::{Answer, ExplainOptions, Statement, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::{Catalog, Object};
use crate::execution::buffered::buffered;
use crate::execution::context::StatementContext;
use crate::execution::outcome::{Done, Outcome};
use crate::names::plain_name;

/// `DELETE FROM target …` or `UPDATE target SET …`.
#[derive(Debug)]
pub(crate) struct ChangeRows {
    pub(super) change: Change,
    pub(super) statement: EngineStatement,
    pub(super) text: String,
}

impl Statement for ChangeRows {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        (self.verb(), Some(Weight::Query))
    }

    fn authorize(&self, access: &Access, _: &Catalog) -> Result<()> {
        need(access, Role::Write, &self.change.target)
    }

    fn parameters<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Parameters> {
        Box::pin(async move {
            let Some((_, push)) = self.stream(cx.catalog())? else {
                return self.standard().parameters(cx).await;
            };
            let query = self.change.query(&names(&push.physical()))?;
            let mut found = parameters(&cx.planner().unbound(&query).await?)?;
            // A parameter that is a value by itself has the type of its column.
            let physical = push.physical();
            for (column, value) in self.change.assignments.iter().flatten() {
                let field = physical.fields().find(column);
                if let (Some(number), Some((_, field))) = (placeholder(value), field) {
                    found.insert(number, Some(field.data_type().clone()));
                }
            }
            Ok(found)
        })
    }

    fn columns<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move {
            match self.stream(cx.catalog())? {
                Some(_) => Ok(None),
                None => self.standard().columns(cx).await,
            }
        })
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move {
            let Some((stream, push)) = self.stream(cx.catalog())? else {
                return self.standard().check(cx).await;
            };
            self.check_columns(&stream, &push)?;
            let query = self.change.query(&names(&push.physical()))?;
            cx.planner().query(&query, &[]).await.map(drop)
        })
    }

    fn explain<'a>(
        &'a self,
        cx: &'a StatementContext,
        options: ExplainOptions,
    ) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let Some((stream, push)) = self.stream(cx.catalog())? else {
                return self.standard().explain(cx, options).await;
            };
            self.check_columns(&stream, &push)?;
            let query = self.change.query(&names(&push.physical()))?;
            let plan = cx.planner().query(&query, &[]).await?;
            explain_bounded(cx, plan, ExplainOptions { analyze: false, ..options }).await
        })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let Some((stream, push)) = self.stream(cx.catalog())? else {
                return self.standard().execute(cx).await;
            };
            self.check_columns(&stream, &push)?;
            let query = self.change.query(&names(&push.physical()))?;
            let plan = cx.planner().query(&query, &[]).await?;
            let target = Target::all(&push).in_zone(cx.insert_zone());
            let deletes = self.change.assignments.is_none();
            let alone = push.changed_by().await?;
            let plan = buffered(cx.planner().physical_in_order(plan).await?, 2);
            let held = Arc::clone(&plan);
            let mut rows = cx.executor().stream(plan).skipping(&cx.skipped);
            let (mut batches, mut count) = (vec![], 0);
            while let Some(batch) = rows.try_next().await? {
                let batch = target.fit(&batch)?;
                if !deletes {
                    push.check(&batch)?;
                }
                count += batch.num_rows();
                if count > ATOMIC_ROWS_MAX {
                    return Err(too_many(self.verb()));
                }
                batches.push(batch);
            }
            if count > 0 {
                alone.put(&concat_batches(&push.physical(), &batches)?, deletes).await?;
            }
            drop(held);
            let said = format!("{} {count}", self.verb());
            Ok(Outcome::Done(Done { said, rows: Some(count as u64) }))
        })
    }
}

impl ChangeRows {
    fn verb(&self) -> &'static str {
        if self.change.assignments.is_some() { "UPDATE" } else { "DELETE" }
    }

    /// The same statement for a reference table.
    fn standard(&self) -> Standard {
        Standard { statement: self.statement.clone(), text: self.text.clone() }
    }

    /// Returns the stream whose rows are changed; `None`: it is a table.
    ///
    /// # Errors
    /// When the rows of the target do not change.
    fn stream(&self, catalog: &Catalog) -> Result<Option<(Arc<Stream>, Arc<PushStream>)>> {
        let Ok(name) = plain_name(&self.change.target) else { return Ok(None) };
        match catalog.get(&name) {
            Some(Object::Stream(stream)) if stream.key.is_some() => {
                let push = accepts_inserts(&stream)?;
                Ok(Some((stream, push)))
            }
            Some(Object::Stream(_)) => Err(Error::sql(format!(
                "the rows of stream \"{name}\" cannot be changed: it is append-only"
            ))
            .with_hint(
                "Only a stream with a primary key takes changes: CREATE STREAM … (…, PRIMARY KEY (id)) WITH (changes = 'upsert').",
            )),
            Some(object) => Err(Error::sql(format!(
                "\"{name}\" is a {}, whose rows cannot be changed",
                object.kind()
            ))
            .with_hint("Change the rows of the streams that it reads.")),
            None if catalog.exists(&name) => Ok(None),
            None => Err(catalog.missing("stream or table", &name)),
        }
    }

    /// Checks the columns that are set.
    ///
    /// # Errors
    /// When one of them does not exist, is generated, or belongs to the key.
    fn check_columns(&self, stream: &Stream, push: &PushStream) -> Result<()> {
        self.change.check(&self.statement)?;
        let all = stream.schema.schema();
        let name = &stream.name;
        for (column, _) in self.change.assignments.iter().flatten() {
            let at = all.index_of(column).ok();
            if stream.key.iter().flatten().any(|key| Some(*key) == at) {
                return Err(Error::sql(format!(
                    "column \"{column}\" is part of the primary key of stream \"{name}\", which identifies its rows"
                ))
                .with_hint("DELETE the row, and INSERT it with its new key."));
            }
            let physical = push.physical();
            if physical.index_of(column).is_ok() {
                continue;
            }
            let known = names(&physical);
            let is_visible = at.is_some_and(|at| at + 2 < all.fields().len());
            return Err(match is_visible {
                true => {
                    Error::sql(format!("column \"{column}\" of stream \"{name}\" is generated"))
                        .with_hint("Omit it; the stream computes it.")
                }
                false => Error::sql(format!("stream \"{name}\" has no column \"{column}\""))
                    .with_hint(windrow_sql::diagnostics::did_you_mean(column, known, "columns")),
            });
        }
        Ok(())
    }
}

/// The columns that rows are inserted with.
fn names(columns: &Schema) -> Vec<&str> {
    columns.fields().iter().map(|field| field.name().as_str()).collect()
}

/// Returns the error for more rows than one statement may change.
fn too_many(verb: &str) -> Error {
    Error::new(
        ErrorKind::Limit,
        format!("{verb} would change more than {ATOMIC_ROWS_MAX} rows, the limit of one statement"),
    )
    .with_hint("Nothing was changed. Change fewer rows at a time, with a condition in WHERE.")
}
