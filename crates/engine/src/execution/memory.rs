//! The memory of the operators of one statement, on a server.

use std::fmt;
use std::sync::Arc;

use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, TaskContext};
use parking_lot::Mutex;

use crate::execution::context::StatementContext;

/// Returns the task context of the bounded plans of a statement, with the settings of `state`.
pub(super) fn task_context(cx: &StatementContext, state: &SessionState) -> Arc<TaskContext> {
    if cx.running.is_none() {
        return state.task_ctx();
    }
    let limit = cx.query_bytes_max();
    let env = Arc::clone(state.runtime_env());
    let pool = QueryPool { limit, used: Mutex::new(0), inner: Arc::clone(&env.memory_pool) };
    let built = RuntimeEnvBuilder::from_runtime_env(&env)
        .with_memory_pool(Arc::new(pool))
        .build_arc()
        .unwrap_or(env);
    Arc::new(TaskContext::from(state).with_runtime(built))
}

/// The memory pool of one statement, a part of the engine's.
#[derive(Debug)]
struct QueryPool {
    limit: usize,
    used: Mutex<usize>,
    inner: Arc<dyn MemoryPool>,
}

impl fmt::Display for QueryPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "query memory ({} of {} bytes)", self.reserved(), self.limit)
    }
}

impl MemoryPool for QueryPool {
    fn name(&self) -> &str {
        "query memory"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.inner.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.inner.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.inner.grow(reservation, additional);
        let mut used = self.used.lock();
        *used = used.saturating_add(additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.inner.shrink(reservation, shrink);
        let mut used = self.used.lock();
        *used = used.saturating_sub(shrink);
    }

    fn try_grow(
        &self,
        reservation: &MemoryReservation,
        additional: usize,
    ) -> datafusion::error::Result<()> {
        let mut used = self.used.lock();
        let wanted = used.saturating_add(additional);
        if wanted > self.limit {
            // Operators that can spill do so at this kind of error.
            return Err(DataFusionError::ResourcesExhausted(format!(
                "the statement needs more than --query-memory, {} bytes",
                self.limit
            )));
        }
        self.inner.try_grow(reservation, additional)?;
        *used = wanted;
        Ok(())
    }

    fn reserved(&self) -> usize {
        *self.used.lock()
    }

    fn memory_limit(&self) -> MemoryLimit {
        MemoryLimit::Finite(self.limit)
    }
}
