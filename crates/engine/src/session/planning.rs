//! Planning: on threads of its own, within the budget of its statement.
//!
//! Planning never yields. On the threads of queries a few large plans would hold up everybody; here they hold
//! up one another at most, and a user has only some of the places. A statement that is over (its client has
//! left, its time is up) ends its budget, and the planner's rules stop at the next node.
//!
//! Invariants: there are so many planning threads and no more, whatever is asked for; a place is given back
//! when its thread has really stopped, so that plans that cannot be stopped at once do not pile up.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Once, Weak};

use datafusion::common::runtime::{JoinSetTracer, set_join_set_tracer};
use datafusion::execution::SessionState;
use datafusion::logical_expr::LogicalPlan;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::sql::parser::Statement as EngineStatement;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use windrow_core::{Budget, Error, Limits, Result};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::parse::Tail;
use windrow_sql::plan::{ContinuousPlan, bounded, continuous, statement as planned};
use windrow_stream::caught::stopped;

use crate::session::Session;

/// Plans that are made at the same time, at least.
const PLACES_MIN: usize = 16;
/// With less than this nothing can be planned.
const BUDGET_BYTES_MIN: usize = 32 << 20;
/// One user has at most this part of the places.
const USER_PART: usize = 2;

/// The places of those who plan.
#[derive(Debug)]
pub(crate) struct Planners {
    places: Arc<Semaphore>,
    of_one: usize,
    users: Mutex<BTreeMap<String, Weak<Semaphore>>>,
}

/// One's place; it is free when this is dropped.
struct Place {
    _all: OwnedSemaphorePermit,
    _user: OwnedSemaphorePermit,
    _users: Arc<Semaphore>,
}

impl Planners {
    pub(crate) fn new(limits: &Limits) -> Self {
        let places = PLACES_MIN.max(limits.threads);
        let of_one = places / USER_PART;
        Self { places: Arc::new(Semaphore::new(places)), of_one, users: Mutex::default() }
    }

    async fn enter(&self, user: &str) -> Result<Place> {
        let users = {
            let mut users = self.users.lock();
            users.retain(|_, places| places.strong_count() > 0);
            match users.get(user).and_then(Weak::upgrade) {
                Some(places) => places,
                None => {
                    let places = Arc::new(Semaphore::new(self.of_one));
                    users.insert(user.to_owned(), Arc::downgrade(&places));
                    places
                }
            }
        };
        let closed = |e| Error::internal("the places of planners are closed").with_source(e);
        let user = Arc::clone(&users).acquire_owned().await.map_err(closed)?;
        let all = Arc::clone(&self.places).acquire_owned().await.map_err(closed)?;
        Ok(Place { _all: all, _user: user, _users: users })
    }
}

/// Ends a budget when it is dropped, unless the work is done.
pub(super) struct EndOnDrop(Option<Arc<Budget>>);

impl EndOnDrop {
    pub(super) fn new(budget: &Arc<Budget>) -> Self {
        Self(Some(Arc::clone(budget)))
    }

    pub(super) fn done(mut self) {
        self.0 = None;
    }
}

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        if let Some(budget) = &self.0 {
            budget.end();
        }
    }
}

impl Session {
    /// The same session for one statement, with a budget and counts of its own.
    pub(super) fn for_statement(&self) -> Self {
        Self { budget: Some(self.new_budget()), unseen: Arc::default(), ..self.clone() }
    }

    fn new_budget(&self) -> Arc<Budget> {
        Budget::new(self.query_bytes_max().max(BUDGET_BYTES_MIN))
    }

    /// What the statement may hold at once.
    pub(super) fn budget(&self) -> Arc<Budget> {
        self.budget.clone().unwrap_or_else(|| self.new_budget())
    }

    /// Bytes of memory that one statement may take.
    pub(super) fn query_bytes_max(&self) -> usize {
        let given = self.access().admission().and_then(|a| a.limits().query_bytes_max);
        given.unwrap_or(self.engine.parts.query_bytes_max)
    }

    /// Does work that plans, on a thread for that. Dropping the future ends it.
    pub(super) async fn planning<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let parts = &self.engine.parts;
        let place = parts.planners.enter(self.access().user()).await?;
        let budget = self.budget();
        let unless_done = EndOnDrop::new(&budget);
        let handle = parts.cpu.clone();
        let task = parts.cpu.spawn_blocking(move || {
            let done = handle.block_on(budget.within(Box::pin(work)));
            drop(place);
            done
        });
        let done = task.await;
        unless_done.done();
        match done {
            Ok(done) => done,
            Err(error) if error.is_cancelled() => Err(windrow_query::shared::cancelled()),
            Err(error) => Err(stopped("planning a statement", error)),
        }
    }

    /// The logical plan of a statement of DataFusion's.
    pub(super) async fn standard_plan(&self, statement: EngineStatement) -> Result<LogicalPlan> {
        let state = self.state();
        self.planning(async move { planned(&state, statement).await }).await
    }

    /// The continuous form of a plan.
    pub(super) async fn continuous(
        &self,
        plan: LogicalPlan,
        tail: &Tail,
    ) -> Result<ContinuousPlan> {
        let (state, tail) = (self.state(), tail.clone());
        self.planning(async move { continuous(&state, plan, &tail) }).await
    }

    /// The bounded form of a plan, ready to be executed with the settings of `state`.
    pub(super) async fn physical(
        &self,
        state: SessionState,
        plan: LogicalPlan,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.planning(async move {
            let plan = bounded(plan)?;
            state.create_physical_plan(&plan).await.map_err(from_datafusion)
        })
        .await
    }

    /// A plan in its bounded form, optimised.
    pub(super) async fn optimized(&self, plan: LogicalPlan) -> Result<LogicalPlan> {
        let state = self.state();
        self.planning(async move { state.optimize(&bounded(plan)?).map_err(from_datafusion) }).await
    }
}

/// Tasks that DataFusion's operators spawn work for the budget of the task that spawns them.
struct Inherited;

impl JoinSetTracer for Inherited {
    fn trace_future(
        &self,
        future: BoxFuture<'static, Box<dyn Any + Send>>,
    ) -> BoxFuture<'static, Box<dyn Any + Send>> {
        match Budget::current() {
            Some(budget) => Box::pin(budget.within(future)),
            None => future,
        }
    }

    fn trace_block(
        &self,
        work: Box<dyn FnOnce() -> Box<dyn Any + Send> + Send>,
    ) -> Box<dyn FnOnce() -> Box<dyn Any + Send> + Send> {
        match Budget::current() {
            Some(budget) => Box::new(move || budget.run(work)),
            None => work,
        }
    }
}

/// Makes budgets follow from task to task, from now on.
pub(crate) fn inherit_budgets() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if set_join_set_tracer(&Inherited).is_err() {
            tracing::warn!(
                "the program traces DataFusion's tasks itself: what they hold is not counted"
            );
        }
    });
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use windrow_core::budget;

    use super::*;
    use crate::engine::{Engine, EngineConfig};
    use crate::session::SessionOptions;

    /// A planner stops when nobody waits any more, and gives the place back then.
    #[test]
    fn planning_ends_with_whoever_waits_for_it() {
        let engine = Engine::open(EngineConfig::default()).unwrap();
        let session = engine.session(SessionOptions::default()).unwrap().for_statement();
        let places = Arc::clone(&session.engine.parts.planners.places);
        let all = places.available_permits();
        let (begun, begins) = std::sync::mpsc::sync_channel(1);
        let planning = session.planning(async move {
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
        assert_eq!(places.available_permits(), all - 1);
        drop(planning);
        // It is free when the thread has stopped.
        let free = futures::executor::block_on(
            Arc::clone(&places).acquire_many_owned(u32::try_from(all).unwrap()),
        );
        assert!(free.is_ok());
        engine.shutdown();
    }

    /// Reading a long text is within the limits of the session, like all else that a statement does.
    #[test]
    fn a_long_text_is_read_aside_and_within_the_budget() {
        let mut config = EngineConfig::default();
        config.limits.query_bytes_max = Some(BUDGET_BYTES_MIN);
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
