//! `EXPLAIN`.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::DataFrame;
use futures::TryStreamExt;
use windrow_core::{Error, Result};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::{ContinuousQuery, Explain, Explained, Statement, Tail};
use windrow_sql::plan::bounded;

use crate::session::first_rows::apart;
use crate::session::show::rows;
use crate::session::view_options::ViewOptions;
use crate::session::{Outcome, Session};

impl Session {
    pub(super) async fn explain(&self, explain: Explain) -> Result<Outcome> {
        let statement = match explain.what {
            Explained::WhyNot(view) => return self.why_not(&view).await,
            Explained::Statement(statement) => *statement,
        };
        match statement {
            Statement::Query(query) if query.tail.is_empty() => {
                let plan = self.plan(&query.query, &[]).await?;
                self.explain_bounded(plan, explain.verbose, explain.analyze).await
            }
            Statement::Query(query) if explain.analyze => self.analyze(query).await,
            Statement::Query(query) => {
                let plan = self.plan(&query.query, &[]).await?;
                self.explain_continuous(apart(plan)?.0, &query.tail).await
            }
            Statement::CreateView(create) if create.materialized => {
                let query = &create.query;
                let plan = self.plan(&query.query, &create.columns).await?;
                let plan = ViewOptions::read(&create.options)?.begin(plan)?;
                self.explain_continuous(plan, &query.tail).await
            }
            Statement::CreateView(create) => {
                let plan = self.plan(&create.query.query, &[]).await?;
                self.explain_bounded(plan, explain.verbose, false).await
            }
            Statement::Insert(insert) if insert.query.tail.is_empty() => {
                let plan = self.plan(&insert.query.query, &[]).await?;
                self.explain_bounded(plan, explain.verbose, false).await
            }
            Statement::Insert(insert) => {
                let plan = self.plan(&insert.query.query, &[]).await?;
                self.explain_continuous(plan, &insert.query.tail).await
            }
            _ => Err(Error::sql("EXPLAIN takes a query, an INSERT or a CREATE VIEW")),
        }
    }

    async fn explain_bounded(
        &self,
        plan: LogicalPlan,
        verbose: bool,
        analyze: bool,
    ) -> Result<Outcome> {
        let frame = DataFrame::new(self.state(), bounded(plan)?);
        let frame = frame.explain(verbose, analyze).map_err(from_datafusion)?;
        let (state, plan) = frame.into_parts();
        let plan = self.physical(state, plan).await?;
        Ok(Outcome::Rows(self.execute_plan(plan)))
    }

    async fn explain_continuous(&self, plan: LogicalPlan, tail: &Tail) -> Result<Outcome> {
        let plan = self.continuous(plan, tail).await?;
        lines("continuous_plan", &plan.to_string()).await
    }

    /// Runs a continuous query to its end and tells what became of the rows.
    async fn analyze(&self, query: ContinuousQuery) -> Result<Outcome> {
        let plan = self.plan(&query.query, &[]).await?;
        let shown = self.continuous_query(plan, &query).await?.0.to_string();
        let Outcome::Rows(mut result) = Box::pin(self.query(query)).await? else {
            return Err(Error::internal("a query gave no rows"));
        };
        let mut count = 0;
        while let Some(batch) = result.try_next().await? {
            count += batch.num_rows();
        }
        let unused = result.unused_rows();
        let (late, bad) = unused.map_or((0, 0), |u| (u.late, u.bad));
        let shown = format!("{shown}\nrows out: {count}, late: {late}, bad: {bad}");
        lines("continuous_plan", &shown).await
    }
}

pub(super) fn display_time(micros: i64) -> String {
    let array = arrow::array::TimestampMicrosecondArray::from(vec![micros]);
    arrow::util::display::array_value_to_string(&array, 0).unwrap_or_else(|_| micros.to_string())
}

/// Text as rows, one per line.
pub(super) async fn lines(column: &str, text: &str) -> Result<Outcome> {
    let lines: ArrayRef = Arc::new(StringArray::from(text.lines().collect::<Vec<_>>()));
    rows(vec![(column, lines)]).await
}
