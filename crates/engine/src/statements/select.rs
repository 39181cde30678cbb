//! `SELECT`: bounded, or continuous with EMIT.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};
use arrow::datatypes::SchemaRef;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::DataFrame;
use futures::TryStreamExt;
use futures::future::BoxFuture;
use windrow_core::{Error, Result, with_sql_types};
use windrow_query::output::Output;
use windrow_query::start::{QuerySetup, launch, ready};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::{ContinuousQuery, Tail};
use windrow_sql::plan::{ContinuousPlan, Parameters, bounded, continuous, parameters};

use super::explain::table_rules;
use super::show::{lines, rows};
use super::{Answer, ExplainOptions, Statement, authorize_late_rows};
use crate::access::Access;
use crate::access::admission::Weight;
use crate::catalog::{Catalog, streams_read};
use crate::execution::context::StatementContext;
use crate::execution::first_rows::without_limit;
use crate::execution::outcome::{Following, Outcome, ResultStream, Stop};
use crate::views::late_rows::late_stream;
use crate::views::wait::wait_for_pushes;

/// `SELECT … [EMIT …]`.
#[derive(Debug)]
pub(crate) struct Select {
    pub(super) query: ContinuousQuery,
}

impl Statement for Select {
    fn admission(&self) -> (&'static str, Option<Weight>) {
        match self.query.tail.is_empty() {
            true => ("SELECT", Some(Weight::Query)),
            false => ("SELECT EMIT", Some(Weight::Stream)),
        }
    }

    fn authorize(&self, access: &Access, catalog: &Catalog) -> Result<()> {
        authorize_late_rows(access, catalog, &self.query)
    }

    fn parameters<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Parameters> {
        Box::pin(async move { parameters(&cx.planner().unbound(&self.query.query).await?) })
    }

    fn columns<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Option<SchemaRef>> {
        Box::pin(async move {
            let plan = cx.planner().query(&self.query.query, &[]).await?;
            Ok(Some(match self.query.tail.is_empty() {
                true => cx.planner().physical(cx.state(), plan).await?.schema(),
                false => {
                    cx.planner().continuous(without_limit(plan)?.0, &self.query.tail).await?.schema
                }
            }))
        })
    }

    fn check<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, ()> {
        Box::pin(async move { check_query(cx, &self.query).await })
    }

    fn explain<'a>(
        &'a self,
        cx: &'a StatementContext,
        options: ExplainOptions,
    ) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let plan = cx.planner().query(&self.query.query, &[]).await?;
            if self.query.tail.is_empty() {
                return explain_bounded(cx, plan, options).await;
            }
            if !options.analyze {
                return explain_continuous(cx, without_limit(plan)?.0, &self.query.tail).await;
            }
            let plan = without_limit(plan)?.0;
            let shown = cx.planner().continuous(plan, &self.query.tail).await?.to_string();
            let Outcome::Rows(mut result) = self.execute(cx).await? else {
                return Err(Error::internal("a query returned no rows"));
            };
            let mut count = 0;
            while let Some(batch) = result.try_next().await? {
                count += batch.num_rows();
            }
            let unused = result.unused_rows();
            let (late, bad) = unused.map_or((0, 0), |u| (u.late, u.bad));
            let shown = format!("{shown}\nrows out: {count}, late: {late}, bad: {bad}");
            lines("continuous_plan", &shown).await
        })
    }

    fn execute<'a>(&'a self, cx: &'a StatementContext) -> Answer<'a, Outcome> {
        Box::pin(async move {
            let plan = cx.planner().query(&self.query.query, &[]).await?;
            if self.query.tail.is_empty() {
                return cx.executor().bounded(plan).await;
            }
            let reads = streams_read(&plan)?;
            let (plan, first) = without_limit(plan)?;
            let plan = cx.planner().continuous(plan, &self.query.tail).await?;
            if cx.options.push_ends {
                wait_for_pushes(cx.catalog(), &reads).await?;
            }
            let late_to = late_stream(cx, &self.query.tail, &reads)?;
            let shared = cx.instance.parts.new_query(None);
            let schema = Arc::clone(&plan.schema);
            let (sender, receiver) = cx.executor().queue(cx.limits().queue_batches_max);
            let time = plan.event_times.first().map(|t| schema.field(t.column).data_type().clone());
            let following = Following::new(0, time);
            let output = Output::Client { rows: sender, promise: following.promise() };
            let setup = QuerySetup {
                push_ends: cx.options.push_ends,
                ..QuerySetup::new(Arc::clone(&shared), output, late_to)
            };
            start_query(cx, plan, setup).await?;
            let stop = Stop::Query(shared);
            let rows = ResultStream::new(schema, Some(following), receiver, stop);
            Ok(Outcome::Rows(rows.only(first)))
        })
    }
}

/// Starts a continuous query at once.
///
/// # Errors
/// When its physical plans cannot be made.
pub(super) fn start_query<'a>(
    cx: &'a StatementContext,
    plan: ContinuousPlan,
    setup: QuerySetup,
) -> BoxFuture<'a, Result<()>> {
    Box::pin(async move {
        let query = ready(cx.catalog().as_ref(), &cx.state(), plan, setup).await?;
        launch(&cx.instance.parts, vec![query]);
        Ok(())
    })
}

/// Plans a query without running it.
///
/// # Errors
/// What is wrong with it.
pub(super) async fn check_query(cx: &StatementContext, query: &ContinuousQuery) -> Result<()> {
    let plan = cx.planner().query(&query.query, &[]).await?;
    if query.tail.is_empty() {
        return cx.state().optimize(&bounded(plan)?).map(drop).map_err(from_datafusion);
    }
    continuous(&cx.state(), without_limit(plan)?.0, &query.tail).map(drop)
}

/// Explains the bounded form of a plan.
///
/// # Errors
/// When it cannot be planned.
pub(super) async fn explain_bounded(
    cx: &StatementContext,
    plan: LogicalPlan,
    ExplainOptions { analyze, verbose }: ExplainOptions,
) -> Result<Outcome> {
    let frame = DataFrame::new(cx.state(), bounded(plan)?);
    let frame = frame.explain(verbose, analyze).map_err(from_datafusion)?;
    let (state, plan) = frame.into_parts();
    let plan = cx.planner().physical(state, plan).await?;
    let shown: Vec<_> = cx.executor().stream(plan).try_collect().await?;
    let (mut types, mut shown_lines) = (vec![], vec![]);
    for batch in &shown {
        let text = |column: usize| batch.column(column).as_string_opt::<i32>();
        let (Some(kinds), Some(plans)) = (text(0), text(1)) else {
            return Err(Error::internal("EXPLAIN gave other columns than texts"));
        };
        for (kind, plan) in kinds.iter().zip(plans) {
            let mut kind = kind.unwrap_or_default();
            for line in with_sql_types(plan.unwrap_or_default()).lines() {
                types.push(std::mem::take(&mut kind).to_owned());
                shown_lines.push(line.to_owned());
            }
        }
    }
    let column = |texts: Vec<String>| Arc::new(StringArray::from(texts)) as ArrayRef;
    rows(vec![("plan_type", column(types)), ("plan", column(shown_lines))]).await
}

/// Explains the continuous form of a plan.
///
/// # Errors
/// When it cannot run continuously.
pub(super) async fn explain_continuous(
    cx: &StatementContext,
    plan: LogicalPlan,
    tail: &Tail,
) -> Result<Outcome> {
    let plan = cx.planner().continuous(plan, tail).await?;
    let shown = format!("{plan}{}", table_rules(&plan)?);
    lines("continuous_plan", &shown).await
}
