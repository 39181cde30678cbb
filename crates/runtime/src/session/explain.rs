//! `EXPLAIN`, `EXPLAIN WHY NOT`.

use std::sync::Arc;

use arrow::array::{ArrayRef, StringArray};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::DataFrame;
use datafusion::sql::sqlparser::ast::ObjectName;
use futures::TryStreamExt;
use windrow_core::{Error, Result, Watermark};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::{ContinuousQuery, Explain, Explained, Statement, Tail};
use windrow_sql::plan::bounded;

use crate::catalog::plain_name;
use crate::query::intake::display_micros;
use crate::query::shared::Status;
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
                self.explain_continuous(plan, &query.tail).await
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
        let shown = self.continuous(plan, &query.tail).await?.to_string();
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

    /// In words: what a view is waiting for.
    async fn why_not(&self, view: &ObjectName) -> Result<Outcome> {
        let view = self.engine.catalog.materialized(&plain_name(view)?)?;
        let name = &view.name;
        let mut said = Vec::new();
        match view.query.status() {
            Status::Finished => said.push(format!(
                "View \"{name}\" waits for nothing: its inputs have ended and all windows are out."
            )),
            Status::Cancelled => said.push(format!("View \"{name}\" has been stopped.")),
            Status::Failed(error) => {
                said.push(format!("View \"{name}\" has failed: {}.", error.message()));
            }
            Status::Running => {
                let state = view.query.state.lock().clone();
                said.push(format!(
                    "View \"{name}\" has closed {} windows; {} are known to be open.",
                    state.windows_closed, state.windows_open
                ));
                said.extend(self.who_holds(&view.query));
            }
        }
        lines("why_not", &said.join("\n")).await
    }

    /// Which partitions hold the watermark of a query.
    fn who_holds(&self, query: &Arc<crate::query::shared::Shared>) -> Vec<String> {
        let notes = self.engine.parts.scans.lock().clone();
        let mut said = Vec::new();
        for note in notes.iter().filter(|n| n.queries.iter().any(|q| Arc::ptr_eq(q, query))) {
            let Some(progress) = note.progress.upgrade() else { continue };
            let partitions = progress.lock().status();
            for holder in partitions.iter().filter(|p| p.holds) {
                let at = note.time_type.as_ref();
                let at = at.and_then(|t| display_micros(holder.watermark.ticks(), t));
                let at = match (holder.watermark, at) {
                    (Watermark::NONE, _) | (_, None) => "no watermark yet".to_owned(),
                    (_, Some(micros)) => format!("the watermark {}", display_time(micros)),
                };
                said.push(format!(
                    "Partition {} (\"{}\", {}) of stream \"{}\" holds it with {at}: a window closes \
                     when the watermark reaches its end. A later row moves it; idle_timeout = '…' \
                     lets a silent partition go.",
                    holder.id, holder.name, holder.state, note.stream
                ));
            }
        }
        said
    }
}

pub(super) fn display_time(micros: i64) -> String {
    let array = arrow::array::TimestampMicrosecondArray::from(vec![micros]);
    arrow::util::display::array_value_to_string(&array, 0).unwrap_or_else(|_| micros.to_string())
}

/// Text as rows, one per line.
async fn lines(column: &str, text: &str) -> Result<Outcome> {
    let lines: ArrayRef = Arc::new(StringArray::from(text.lines().collect::<Vec<_>>()));
    rows(vec![(column, lines)]).await
}
