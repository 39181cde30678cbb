//! `INSERT INTO`: into a stream without connector, or into a reference table.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::concat_batches;
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use futures::TryStreamExt;
use sqlparser::ast::{Expr, SetExpr, Value};
use windrow_core::{Error, Result};
use windrow_query::output::Output;
use windrow_query::start::QuerySetup;
use windrow_sql::parse;
use windrow_sql::plan::{Parameters, parameters, plan_values};
use windrow_stream::Stream;
use windrow_stream::push::PushStream;
use windrow_stream::target::Target;

use super::continuous_insert::{NewInsert, is_durable};
use super::select::{check_query, explain_bounded, explain_continuous, start_query};
use super::standard::Standard;
use super::{Answer, ExplainOptions, Statement, authorize_late_rows, need};
use crate::access::admission::Weight;
use crate::access::{Access, Role};
use crate::catalog::{Catalog, Object, streams_read};
use crate::execution::buffered::buffered;
use crate::execution::context::StatementContext;
use crate::execution::outcome::{Done, Outcome, UnusedRows};
use crate::names::{ident_name, plain_name};
use crate::views::late_rows::late_stream;

/// Maximum number of rows of an INSERT that is written as one record of the log.
pub(super) const ATOMIC_ROWS_MAX: usize = 1 << 20;

/// `INSERT INTO target query`.
#[derive(Debug)]
pub(crate) struct Insert {
    pub(super) insert: parse::Insert,
    pub(super) text: String,
}

/// The target of an INSERT.
enum Into {
    Stream(Arc<Stream>),
    /// A reference table.
    Table,
}

impl Statement for Insert {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        ("INSERT", Some(Weight::Query))
    }

    fn authorize(&self, access: &Access, catalog: &Catalog) -> Result<()> {
        need(access, Role::Write, &self.insert.target)?;
        authorize_late_rows(access, catalog, &self.insert.query)
    }

    fn is_definition(&self) -> bool {
        self.is_continuous()
    }

    fn parameters<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Parameters> {
        Box::pin(async move {
            let insert = &self.insert;
            let Some(Object::Stream(stream)) = cx.catalog().get(&plain_name(&insert.target)?)
            else {
                return parameters(
                    &cx.planner().statement(insert.clone().into_datafusion()).await?,
                );
            };
            let plan = cx.planner().unbound(&insert.query.query).await?;
            let mut found = parameters(&plan)?;
            // A parameter that is a value by itself has the type of its column.
            let (Some(push), SetExpr::Values(values)) = (stream.push(), &*insert.query.query.body)
            else {
                return Ok(found);
            };
            let physical = push.physical();
            let fields = physical.fields();
            let column = |at: usize| match insert.columns.get(at) {
                Some(ident) => fields.find(&ident_name(ident)).map(|(_, field)| field),
                None => fields.get(at),
            };
            for (at, value) in values.rows.iter().flat_map(|row| row.iter().enumerate()) {
                if let (Some(number), Some(field)) = (placeholder(value), column(at)) {
                    found.insert(number, Some(field.data_type().clone()));
                }
            }
            Ok(found)
        })
    }

    fn columns<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move {
            let name = plain_name(&self.insert.target)?;
            if !cx.catalog().exists(&name) {
                return Err(cx.catalog().missing("stream", &name));
            }
            cx.planner().query(&self.insert.query.query, &[]).await?;
            Ok(None)
        })
    }

    fn takes_value_rows<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, bool> {
        Box::pin(async move {
            let target = cx.catalog().get(&plain_name(&self.insert.target)?);
            let is_push = matches!(&target, Some(Object::Stream(s)) if s.push().is_some());
            if !is_push || self.is_continuous() {
                return Ok(false);
            }
            // By the plan and not by the text: VALUES may be below a LIMIT.
            let plan = cx.planner().unbound(&self.insert.query.query).await?;
            Ok(matches!(plan, LogicalPlan::Values(values) if values.values.len() == 1))
        })
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move {
            let insert = &self.insert;
            let name = plain_name(&insert.target)?;
            let Into::Stream(stream) = self.target(cx.catalog(), &name)? else {
                return self.standard().check(cx).await;
            };
            let push = accepts_inserts(&stream)?;
            let plan = cx.planner().query(&insert.query.query, &[]).await?;
            Target::new(&push, insert, &name, plan.schema().fields().len())?;
            check_query(cx, &insert.query).await
        })
    }

    fn explain<'a>(
        &'a self,
        cx: &'a StatementContext,
        options: ExplainOptions,
    ) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let query = &self.insert.query;
            let plan = cx.planner().query(&query.query, &[]).await?;
            match self.is_continuous() {
                true => explain_continuous(cx, plan, &query.tail).await,
                false => {
                    explain_bounded(cx, plan, ExplainOptions { analyze: false, ..options }).await
                }
            }
        })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let insert = &self.insert;
            let name = plain_name(&insert.target)?;
            let Into::Stream(stream) = self.target(cx.catalog(), &name)? else {
                return self.standard().execute(cx).await;
            };
            let push = &accepts_inserts(&stream)?;
            let plan = self.plan(cx).await?;
            let target = Target::new(push, insert, &name, plan.schema().fields().len())?;
            let target = target.in_zone(cx.insert_zone());
            if !self.is_continuous() {
                return insert_bounded(cx, plan, &target, push).await;
            }
            let tail = &insert.query.tail;
            let reads = streams_read(&plan)?;
            let bounded = plan.clone();
            let plan = cx.planner().continuous(plan, tail).await?;
            plan.check_append_only("INSERT INTO a stream")?;
            if plan.is_resumable() && is_durable(cx, push, (&reads, tail.late_data_to.is_some())) {
                let insert = NewInsert { push, target, text: &self.text, reads, bounded };
                return insert.start(cx, plan).await;
            }
            let late_to = late_stream(cx, tail, &reads)?;
            let shared = cx.instance.parts.new_query(Some(format!("insert into {name}")));
            let id = shared.id;
            let output = Output::Stream { stream: Arc::clone(push), target: Arc::new(target) };
            start_query(cx, plan, QuerySetup::new(shared, output, late_to)).await?;
            // After a restart it is not known which rows it has inserted already.
            let ends = if cx.instance.store.is_some() {
                "; it ends with this process, unlike one over durable streams"
            } else {
                ""
            };
            Ok(Outcome::Done(format!("INSERT (continuous, query {id}{ends})").into()))
        })
    }
}

impl Insert {
    /// Whether it has a tail, and so runs until it is stopped.
    fn is_continuous(&self) -> bool {
        !self.insert.query.tail.is_empty()
    }

    /// Returns the same statement for a reference table.
    fn standard(&self) -> Standard {
        let statement = self.insert.clone().into_datafusion();
        Standard { statement, text: self.text.clone() }
    }

    /// Returns its target.
    fn target(&self, catalog: &Catalog, name: &str) -> Result<Into> {
        match catalog.get(name) {
            Some(Object::Stream(stream)) => Ok(Into::Stream(stream)),
            Some(other) => Err(Error::sql(format!(
                "\"{name}\" is a {}, rows cannot be inserted",
                other.kind()
            ))),
            None if catalog.exists(name) => Ok(Into::Table),
            None => Err(catalog.missing("stream", name)),
        }
    }

    /// Plans its query.
    async fn plan(&self, cx: &StatementContext) -> Result<LogicalPlan> {
        let query = &self.insert.query.query;
        let Some(rows) = &cx.value_rows else { return cx.planner().query(query, &[]).await };
        let (state, rows, query) = (cx.state(), rows.clone(), (**query).clone());
        let plan = cx.planner().run(async move { plan_values(&state, query, rows).await }).await?;
        plan.ok_or_else(|| Error::internal("an INSERT of VALUES has another plan"))
    }
}

/// Inserts the rows of a bounded query.
async fn insert_bounded(
    cx: &StatementContext,
    plan: LogicalPlan,
    target: &Target,
    push: &Arc<PushStream>,
) -> Result<Outcome> {
    let plan = cx.planner().physical_in_order(plan).await?;
    // All rows are produced before the first is inserted: a statement that fails inserts nothing. They exist twice while they
    // are concatenated.
    let plan = buffered(plan, 2);
    let counted = Arc::clone(&plan);
    let mut rows = cx.executor().stream(plan).skipping(&cx.skipped);
    let mut batches = Vec::new();
    while let Some(batch) = rows.try_next().await? {
        let batch = target.fit(&batch)?;
        push.check(&batch)?;
        batches.push(batch);
    }
    let (mut inserted, mut bad, mut in_1970) = (0, 0, true);
    for batch in &concatenated(batches)? {
        let pushed = push.append(batch).await?;
        inserted += pushed.rows;
        bad += pushed.bad;
        in_1970 &= pushed.in_1970;
    }
    drop(counted);
    let mut message = match bad {
        0 => format!("INSERT 0 {inserted}"),
        bad => format!("INSERT 0 {inserted} ({bad} bad, see windrow.bad_rows)"),
    };
    message += &rows.unused_rows().map(UnusedRows::aside).unwrap_or_default();
    if in_1970 && inserted > 0 {
        message.push_str(
            "\nnotice: all event times lie in 1970; numbers are read in the unit of the column",
        );
    }
    Ok(Outcome::Done(Done { said: message, rows: Some(inserted) }))
}

/// Returns the push stream that accepts the rows of a stream.
///
/// # Errors
/// When the stream has a connector.
pub(crate) fn accepts_inserts(stream: &Stream) -> Result<Arc<PushStream>> {
    let push = stream.push().filter(|_| stream.receiver.is_none());
    push.map(Arc::clone).ok_or_else(|| {
        Error::sql(format!(
            "stream \"{}\" is fed by its connector \"{}\", rows cannot be inserted",
            stream.name, stream.connector
        ))
    })
}

/// Concatenates the rows of one statement, so that they are durable together or not at all. More than [`ATOMIC_ROWS_MAX`] rows
/// stay as they are.
fn concatenated(batches: Vec<RecordBatch>) -> Result<Vec<RecordBatch>> {
    let rows: usize = batches.iter().map(RecordBatch::num_rows).sum();
    match batches.first() {
        Some(first) if batches.len() > 1 && rows <= ATOMIC_ROWS_MAX => {
            Ok(vec![concat_batches(&first.schema(), &batches)?])
        }
        _ => Ok(batches),
    }
}

/// Returns the number of the parameter that an expression is; `None`: it is another expression.
pub(super) fn placeholder(expr: &Expr) -> Option<usize> {
    let Expr::Value(value) = expr else { return None };
    let Value::Placeholder(text) = &value.value else { return None };
    text.strip_prefix('$')?.parse().ok()
}
