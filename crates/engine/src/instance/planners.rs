//! Limits planning: plans are made on threads of their own, a limited number of them at the same time, each within the
//! budget of its statement.
//!
//! Planning never yields. On the threads of queries a few large plans would block all queries; here they block one another
//! at most, and one user only gets a part of the slots. A statement that has ended (its client has left, its time is up)
//! ends its budget, and the planner's rules stop at the next node.
//!
//! Invariants: the number of planning threads is bounded; a slot is returned only when its thread has really stopped, so
//! that plans that cannot be stopped at once do not accumulate.

use std::any::Any;
use std::collections::BTreeMap;
use std::sync::{Arc, Once, Weak};

use datafusion::common::runtime::{JoinSetTracer, set_join_set_tracer};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use windrow_core::{Budget, Error, Limits, Result};
use windrow_query::shared::cancelled;
use windrow_stream::caught::stopped;

/// Minimum number of slots.
const SLOTS_MIN: usize = 16;
/// One user gets at most the slots divided by this.
const USER_PART: usize = 2;

/// The slots of plans that are made at the same time.
#[derive(Debug)]
pub(crate) struct Planners {
    slots: Arc<Semaphore>,
    of_one: usize,
    users: Mutex<BTreeMap<String, Weak<Semaphore>>>,
}

/// A slot; dropping it returns it.
struct Slot {
    _all: OwnedSemaphorePermit,
    _user: OwnedSemaphorePermit,
    _users: Arc<Semaphore>,
}

impl Planners {
    /// Creates the slots; there are more on more threads.
    pub(crate) fn new(limits: &Limits) -> Self {
        let slots = SLOTS_MIN.max(limits.threads);
        let of_one = slots / USER_PART;
        Self { slots: Arc::new(Semaphore::new(slots)), of_one, users: Mutex::default() }
    }

    async fn enter(&self, user: &str) -> Result<Slot> {
        let users = {
            let mut users = self.users.lock();
            users.retain(|_, slots| slots.strong_count() > 0);
            match users.get(user).and_then(Weak::upgrade) {
                Some(slots) => slots,
                None => {
                    let slots = Arc::new(Semaphore::new(self.of_one));
                    users.insert(user.to_owned(), Arc::downgrade(&slots));
                    slots
                }
            }
        };
        let closed = |e| Error::internal("the slots for planning are closed").with_source(e);
        let user = Arc::clone(&users).acquire_owned().await.map_err(closed)?;
        let all = Arc::clone(&self.slots).acquire_owned().await.map_err(closed)?;
        Ok(Slot { _all: all, _user: user, _users: users })
    }

    /// Does work that plans for a user, on a thread for planning. Dropping the future ends the budget.
    ///
    /// # Errors
    /// As `work`; when it panics or the engine stops.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        user: &str,
        (budget, cpu): (Arc<Budget>, &Handle),
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let slot = self.enter(user).await?;
        let unless_done = EndOnDrop::new(&budget);
        let handle = cpu.clone();
        let task = cpu.spawn_blocking(move || {
            let done = handle.block_on(budget.within(Box::pin(work)));
            drop(slot);
            done
        });
        let done = task.await;
        unless_done.done();
        match done {
            Ok(done) => done,
            Err(error) if error.is_cancelled() => Err(cancelled()),
            Err(error) => Err(stopped("planning a statement", error)),
        }
    }

    /// The slots that are free.
    #[cfg(test)]
    pub(crate) fn slots(&self) -> &Arc<Semaphore> {
        &self.slots
    }
}

/// Ends a budget when it is dropped, unless the work is done.
pub(crate) struct EndOnDrop(Option<Arc<Budget>>);

impl EndOnDrop {
    /// Ends `budget` when it is dropped.
    pub(crate) fn new(budget: &Arc<Budget>) -> Self {
        Self(Some(Arc::clone(budget)))
    }

    /// Keeps the budget, because the work is done.
    pub(crate) fn done(mut self) {
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

/// Tasks that DataFusion's operators spawn are charged to the budget of the task that spawns them.
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

/// Makes spawned tasks inherit budgets, for the whole process.
pub(crate) fn inherit_budgets() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if set_join_set_tracer(&Inherited).is_err() {
            tracing::warn!(
                "the program traces DataFusion's tasks itself: their memory is not counted"
            );
        }
    });
}
