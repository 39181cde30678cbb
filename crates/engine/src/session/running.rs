//! One statement of a remote user, while it runs: its part of the limits, and the line in the log when
//! it is over.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use datafusion::error::DataFusionError;
use datafusion::execution::memory_pool::{
    MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation,
};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::{SessionState, TaskContext};
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use windrow_core::{Clock, Error, ErrorKind, Result};
use windrow_sql::parse::{Explained, Parsed, Statement};

use crate::session::admission::{Admission, Permit, Weight};
use crate::session::{Outcome, Session};

/// A statement that runs. The clones are held by whatever works for it; when the last one is
/// dropped, its place is free.
#[derive(Clone)]
pub(crate) struct Running {
    admission: Arc<Admission>,
    _permit: Option<Arc<Permit>>,
    weight: Option<Weight>,
    /// Completes when a bounded statement has taken too long.
    late: Shared<BoxFuture<'static, ()>>,
    account: Arc<Account>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("account", &self.account).finish_non_exhaustive()
    }
}

/// What the log tells of a statement.
#[derive(Debug)]
struct Account {
    id: u64,
    user: String,
    statement: &'static str,
    clock: Arc<dyn Clock>,
    began_micros: i64,
    rows: AtomicU64,
    error: Mutex<Option<(ErrorKind, String)>>,
}

impl Drop for Account {
    fn drop(&mut self) {
        let micros = self.clock.now_micros().saturating_sub(self.began_micros);
        let (kind, error) = self.error.lock().take().unzip();
        tracing::info!(
            id = self.id,
            user = self.user,
            statement = self.statement,
            rows = self.rows.load(Ordering::Relaxed),
            millis = micros.unsigned_abs() / 1_000,
            kind = kind.map(tracing::field::debug),
            error,
            "a statement is over"
        );
    }
}

impl Running {
    /// Completes with the error of a statement that has taken too long, or that the end of the
    /// server ends.
    pub(super) fn over(&self) -> BoxFuture<'static, Error> {
        let late = self.late.clone();
        let limit = self.admission.limits().query_time_max.unwrap_or_default();
        let late = late.map(move |()| too_long(limit));
        let Some(weight) = self.weight else { return late.boxed() };
        let closed = self.admission.closed(weight);
        async move {
            tokio::select! {
                error = late => error,
                error = closed => error,
            }
        }
        .boxed()
    }

    /// Counts what the client gets.
    pub(super) fn note(&self, next: Option<&Result<RecordBatch>>) {
        match next {
            Some(Ok(batch)) => {
                self.account.rows.fetch_add(batch.num_rows() as u64, Ordering::Relaxed);
            }
            Some(Err(error)) => self.account.fail(error),
            None => {}
        }
    }
}

fn too_long(limit: Duration) -> Error {
    let seconds = limit.as_secs_f64();
    let message = format!("the statement takes longer than the query timeout, {seconds} s");
    Error::new(ErrorKind::Limit, message).with_hint("Ask for less, or raise --query-timeout.")
}

impl Account {
    fn fail(&self, error: &Error) {
        *self.error.lock() = Some((error.kind(), error.message().to_owned()));
    }
}

impl Session {
    /// Executes a statement within the limits of the server, where there is one.
    pub(super) async fn admitted(&self, parsed: Parsed) -> Result<Outcome> {
        let Some(admission) = self.access.admission().map(Arc::clone) else {
            return self.dispatch(parsed).await;
        };
        let clock = &self.engine.parts.clock;
        let (name, weight) = told(&parsed.statement);
        let account = Arc::new(Account {
            id: self.engine.parts.next_statement(),
            user: self.access.user().to_owned(),
            statement: name,
            clock: Arc::clone(clock),
            began_micros: clock.now_micros(),
            rows: AtomicU64::new(0),
            error: Mutex::default(),
        });
        let done = self.admit(&admission, weight, parsed, &account).await;
        if let Err(error) = &done {
            account.fail(error);
        }
        done
    }

    async fn admit(
        &self,
        admission: &Arc<Admission>,
        weight: Option<Weight>,
        parsed: Parsed,
        account: &Arc<Account>,
    ) -> Result<Outcome> {
        let permit = match weight {
            Some(weight) => Some(Arc::new(admission.enter(weight).await?)),
            None => None,
        };
        let timed = admission.limits().query_time_max.filter(|_| weight == Some(Weight::Query));
        let late = match timed {
            Some(limit) => self.engine.parts.clock.sleep(limit),
            None => futures::future::pending().boxed(),
        };
        let running = Running {
            admission: Arc::clone(admission),
            _permit: permit,
            weight,
            late: late.shared(),
            account: Arc::clone(account),
        };
        let session = Self { running: Some(running.clone()), ..self.clone() };
        let outcome = tokio::select! {
            outcome = session.dispatch(parsed) => outcome?,
            error = running.over() => return Err(error),
        };
        Ok(match outcome {
            Outcome::Rows(rows) => Outcome::Rows(if weight == Some(Weight::Stream) {
                let over = running.over();
                rows.counted(running, Some(over))
            } else {
                // Its place is free when all rows are made, even if the client reads them later.
                rows.counted(Running { _permit: None, ..running }, None)
            }),
            Outcome::Done(said) => Outcome::Done(said),
        })
    }

    /// Completes with the error of what takes longer than a statement may.
    pub(super) async fn too_long(&self) -> Error {
        match self.access.admission().and_then(|a| a.limits().query_time_max) {
            Some(limit) => {
                self.engine.parts.clock.sleep(limit).await;
                too_long(limit)
            }
            None => futures::future::pending().await,
        }
    }

    /// What plans of bounded statements are executed with, and these settings.
    pub(super) fn task_context(&self, state: &SessionState) -> Arc<TaskContext> {
        if self.running.is_none() {
            return state.task_ctx();
        }
        let limit = self.query_bytes_max();
        let env = Arc::clone(state.runtime_env());
        let pool = QueryPool { limit, used: Mutex::new(0), inner: Arc::clone(&env.memory_pool) };
        let built = RuntimeEnvBuilder::from_runtime_env(&env)
            .with_memory_pool(Arc::new(pool))
            .build_arc()
            .unwrap_or(env);
        Arc::new(TaskContext::from(state).with_runtime(built))
    }
}

/// The name of a statement in the log, and in which limit it counts.
fn told(statement: &Statement) -> (&'static str, Option<Weight>) {
    let (query, stream) = (Some(Weight::Query), Some(Weight::Stream));
    match statement {
        Statement::Query(one) if one.tail.is_empty() => ("SELECT", query),
        Statement::Query(_) => ("SELECT EMIT", stream),
        Statement::Insert(_) => ("INSERT", query),
        Statement::Subscribe { .. } => ("SUBSCRIBE", stream),
        Statement::WaitFor { .. } => ("WAIT FOR", stream),
        Statement::Verify(_) => ("VERIFY", query),
        Statement::Explain(explain) => match &explain.what {
            // It runs as long as the query does.
            Explained::Statement(inner) if explain.analyze => ("EXPLAIN ANALYZE", told(inner).1),
            Explained::Statement(_) | Explained::WhyNot(_) => ("EXPLAIN", None),
        },
        Statement::Summarize(_) => ("SUMMARIZE", query),
        Statement::CopyFrom(_) | Statement::CopyOut(_) => ("COPY", query),
        Statement::DataFusion(_) => ("other", query),
        Statement::CreateStream(_) => ("CREATE STREAM", None),
        Statement::CreateView(_) => ("CREATE VIEW", None),
        Statement::Show(_) => ("SHOW", None),
        Statement::ShowCreate(_) => ("SHOW CREATE", None),
        Statement::Describe(_) => ("DESCRIBE", None),
        Statement::Drop(_) => ("DROP", None),
        Statement::Set(_) => ("SET", None),
    }
}

/// The memory of one statement, taken from that of the engine.
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
            // Operators that can go to disk do so at this kind of error.
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
