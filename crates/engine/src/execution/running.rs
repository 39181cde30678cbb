//! A statement of a remote user while it runs: its share of the limits, its deadline, and the line in the log when it ends.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use parking_lot::Mutex;
use windrow_core::{Clock, Error, ErrorKind, Result};

use crate::access::admission::{Admission, Permit, Weight};
use crate::execution::context::StatementContext;
use crate::execution::outcome::Outcome;

/// A running statement. Whatever works for it has a clone; dropping the last one returns its share of the limits.
#[derive(Clone)]
pub(crate) struct Running {
    admission: Arc<Admission>,
    _permit: Option<Arc<Permit>>,
    weight: Option<Weight>,
    /// Completes when a bounded statement has reached its deadline.
    late: Shared<BoxFuture<'static, ()>>,
    account: Arc<Account>,
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("account", &self.account).finish_non_exhaustive()
    }
}

/// What is logged about a statement.
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
    /// Completes with the error of a statement that has reached its deadline or is ended by the shutdown of the server.
    pub(crate) fn over(&self) -> BoxFuture<'static, Error> {
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

    /// Records a result that the client gets.
    pub(crate) fn note(&self, next: Option<&Result<RecordBatch>>) {
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

/// Executes a statement within the limits of the server, if there is one. `name`: how it is logged; `weight`: the limit that
/// it counts in.
///
/// # Errors
/// As `execute`; when the limits do not admit the statement, or its deadline has passed.
pub(crate) async fn admitted<F>(
    cx: &StatementContext,
    (name, weight): (&'static str, Option<Weight>),
    execute: impl FnOnce(StatementContext) -> F,
) -> Result<Outcome>
where
    F: Future<Output = Result<Outcome>>,
{
    let Some(admission) = cx.access.admission().map(Arc::clone) else {
        return execute(cx.clone()).await;
    };
    let clock = &cx.instance.parts.clock;
    let account = Arc::new(Account {
        id: cx.instance.parts.next_statement(),
        user: cx.access.user().to_owned(),
        statement: name,
        clock: Arc::clone(clock),
        began_micros: clock.now_micros(),
        rows: AtomicU64::new(0),
        error: Mutex::default(),
    });
    let done = admit(cx, (&admission, weight), &account, execute).await;
    if let Err(error) = &done {
        account.fail(error);
    }
    done
}

async fn admit<F>(
    cx: &StatementContext,
    (admission, weight): (&Arc<Admission>, Option<Weight>),
    account: &Arc<Account>,
    execute: impl FnOnce(StatementContext) -> F,
) -> Result<Outcome>
where
    F: Future<Output = Result<Outcome>>,
{
    let permit = match weight {
        Some(weight) => Some(Arc::new(admission.enter(weight).await?)),
        None => None,
    };
    let timed = admission.limits().query_time_max.filter(|_| weight == Some(Weight::Query));
    let late = match timed {
        Some(limit) => cx.instance.parts.clock.sleep(limit),
        None => futures::future::pending().boxed(),
    };
    let running = Running {
        admission: Arc::clone(admission),
        _permit: permit,
        weight,
        late: late.shared(),
        account: Arc::clone(account),
    };
    let cx = StatementContext { running: Some(running.clone()), ..cx.clone() };
    let outcome = tokio::select! {
        outcome = execute(cx) => outcome?,
        error = running.over() => return Err(error),
    };
    Ok(match outcome {
        Outcome::Rows(rows) => Outcome::Rows(if weight == Some(Weight::Stream) {
            let over = running.over();
            rows.counted(running, Some(over))
        } else {
            // Its share is free once all rows are produced, even if the client reads them later.
            rows.counted(Running { _permit: None, ..running }, None)
        }),
        Outcome::Done(done) => Outcome::Done(done),
    })
}

impl StatementContext {
    /// Completes with an error at the deadline of a statement that is parsed or planned and not executed.
    pub(crate) async fn deadline(&self) -> Error {
        match self.access.admission().and_then(|a| a.limits().query_time_max) {
            Some(limit) => {
                self.instance.parts.clock.sleep(limit).await;
                too_long(limit)
            }
            None => futures::future::pending().await,
        }
    }
}
