//! Plans the queries of a statement, within its budget and the slots of its user.

use std::sync::Arc;

use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement as EngineStatement;
use futures::future::BoxFuture;
use sqlparser::ast::{Ident, Query};
use windrow_core::Result;
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::Tail;
use windrow_sql::plan::{
    ContinuousPlan, bind, bounded, continuous, plan_query, statement as plan_statement, unbound,
};

use crate::execution::context::StatementContext;

/// Makes the plans of one statement, on threads for planning. Dropping a future of it ends the budget of the statement. The
/// futures are boxed for the reason that `lib.rs` gives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planner<'a> {
    cx: &'a StatementContext,
}

impl<'a> Planner<'a> {
    /// Creates the planner of a statement.
    pub(super) fn new(cx: &'a StatementContext) -> Self {
        Self { cx }
    }

    /// Does work that plans.
    ///
    /// # Errors
    /// As `work`; when the budget is used up.
    pub(crate) fn run<T: Send + 'static>(
        self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> BoxFuture<'a, Result<T>> {
        let (parts, budget) = (&self.cx.instance.parts, Arc::clone(&self.cx.budget));
        Box::pin(parts.planners.run(self.cx.access.user(), (budget, &parts.cpu), Box::pin(work)))
    }

    /// Plans a query with the values of its parameters; `columns` renames its columns.
    ///
    /// # Errors
    /// What is wrong with the query, with its place.
    pub(crate) fn query(
        self,
        query: &Query,
        columns: &[Ident],
    ) -> BoxFuture<'a, Result<LogicalPlan>> {
        let state = self.cx.state();
        let (query, columns) = (query.clone(), columns.to_vec());
        let values = Arc::clone(&self.cx.values.0);
        self.run(async move { plan_query(&state, query, &columns, &values).await })
    }

    /// Plans a query whose parameters have no values yet.
    ///
    /// # Errors
    /// What is wrong with the query, with its place.
    pub(crate) fn unbound(self, query: &Query) -> BoxFuture<'a, Result<LogicalPlan>> {
        let (state, query) = (self.cx.state(), query.clone());
        self.run(async move { unbound(&state, query).await })
    }

    /// Plans a statement of DataFusion's, without the values of its parameters.
    ///
    /// # Errors
    /// What is wrong with the statement.
    pub(crate) fn statement(
        self,
        statement: EngineStatement,
    ) -> BoxFuture<'a, Result<LogicalPlan>> {
        let state = self.cx.state();
        self.run(async move { plan_statement(&state, statement).await })
    }

    /// Puts the values of the parameters into a plan of [`statement`](Self::statement).
    ///
    /// # Errors
    /// When a parameter has no value.
    pub(crate) fn bind(self, plan: LogicalPlan) -> Result<LogicalPlan> {
        match plan {
            // PREPARE keeps its parameters.
            LogicalPlan::Statement(_) => Ok(plan),
            plan => bind(plan, &self.cx.values.0),
        }
    }

    /// Returns the continuous form of a plan.
    ///
    /// # Errors
    /// When the query cannot run continuously.
    pub(crate) fn continuous(
        self,
        plan: LogicalPlan,
        tail: &Tail,
    ) -> BoxFuture<'a, Result<ContinuousPlan>> {
        let (state, tail) = (self.cx.state(), tail.clone());
        self.run(async move { continuous(&state, plan, &tail) })
    }

    /// Returns the physical plan of the bounded form of a plan, for the settings of `state`.
    ///
    /// # Errors
    /// When DataFusion cannot plan it.
    pub(crate) fn physical(
        self,
        state: SessionState,
        plan: LogicalPlan,
    ) -> BoxFuture<'a, Result<Arc<dyn ExecutionPlan>>> {
        self.run(async move {
            let plan = bounded(plan)?;
            state.create_physical_plan(&plan).await.map_err(from_datafusion)
        })
    }

    /// As [`physical`](Self::physical), with the rows in the order of what is read, on one thread. The statement skips the
    /// late and bad rows of what it reads.
    ///
    /// # Errors
    /// As [`physical`](Self::physical); when a view that it reads has failed.
    pub(crate) fn physical_in_order(
        self,
        plan: LogicalPlan,
    ) -> BoxFuture<'a, Result<Arc<dyn ExecutionPlan>>> {
        let mut state = self.cx.state();
        state.config_mut().options_mut().execution.target_partitions = 1;
        match self.cx.skipped.add_reads(&plan, self.cx.catalog()) {
            Ok(()) => self.physical(state, plan),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }

    /// Returns the bounded form of a plan, optimised.
    ///
    /// # Errors
    /// When DataFusion cannot optimise it.
    pub(crate) fn optimized(self, plan: LogicalPlan) -> BoxFuture<'a, Result<LogicalPlan>> {
        let state = self.cx.state();
        self.run(async move { state.optimize(&bounded(plan)?).map_err(from_datafusion) })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use windrow_core::budget;

    use super::*;
    use crate::{Engine, EngineConfig, SessionOptions};

    const BUDGET_BYTES: usize = 32 << 20;

    /// Planning stops when nothing waits for it any more, and its slot is returned then.
    #[test]
    fn planning_ends_when_it_is_dropped() {
        let engine = Engine::open(EngineConfig::default()).unwrap();
        let cx = engine.session(SessionOptions::default()).unwrap().statement_context();
        let slots = Arc::clone(cx.instance.parts.planners.slots());
        let all = slots.available_permits();
        let (begun, begins) = std::sync::mpsc::sync_channel(1);
        let planning = cx.planner().run(async move {
            begun.send(()).unwrap();
            while budget::check(0).is_ok() {
                std::thread::yield_now();
            }
            Ok(())
        });
        let mut planning = Box::pin(planning);
        let waker = futures::task::noop_waker();
        assert!(planning.as_mut().poll(&mut std::task::Context::from_waker(&waker)).is_pending());
        begins.recv_timeout(Duration::from_secs(60)).unwrap();
        assert_eq!(slots.available_permits(), all - 1);
        drop(planning);
        // The slot is free when the thread has stopped.
        let free = futures::executor::block_on(
            Arc::clone(&slots).acquire_many_owned(u32::try_from(all).unwrap()),
        );
        assert!(free.is_ok());
        engine.shutdown();
    }

    /// Parsing a long text is within the limits of the session, like everything that a statement does.
    #[test]
    fn a_long_text_is_parsed_within_the_budget() {
        let mut config = EngineConfig::default();
        config.limits.query_bytes_max = Some(BUDGET_BYTES);
        let engine = Engine::open(config).unwrap();
        let session = engine.session(SessionOptions::default()).unwrap();
        let terms: Vec<String> = (0..400_000).map(|i| i.to_string()).collect();
        let sql = format!("SELECT 1 WHERE 1 IN ({})", terms.join(", "));
        let error = futures::executor::block_on(session.parse(&sql)).unwrap_err();
        assert_eq!(error.kind(), windrow_core::ErrorKind::Limit);
        assert!(error.message().contains("--query-memory"), "{error}");
        let many = format!("SELECT {}", " ".repeat(20 << 20));
        let error = futures::executor::block_on(session.parse(&many)).unwrap_err();
        assert!(error.message().contains("sql_bytes_max"), "{error}");
        engine.shutdown();
    }
}
