//! What one statement may take in one go: bytes, while it is planned and while its expressions are worked
//! out; and whether anybody still waits for it.
//!
//! Planning and expressions never yield, so nothing outside can stop them or look at what they hold. They
//! ask themselves: [`check`] between two steps and before a large one. Which statement a thread works for
//! is known to the thread ([`Budget::within`]), so that what is asked needs no way to be told.
//!
//! What a thread holds is counted by the allocator (the crate `metered`, in programs that have it as theirs);
//! without it only what is announced to [`check`] counts.
//!
//! Invariants: a budget counts what was taken since its thread began to work for it and was not given back;
//! when the thread turns to something else, that count ends, because what stays is counted where it lies
//! (operators' memory, queues, tables).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll};

use crate::{Error, ErrorKind};

thread_local! {
    /// Bytes that this thread has taken less those that it has given back. Only differences mean something.
    static HELD: Cell<i64> = const { Cell::new(0) };
    static WORKS_FOR: RefCell<Option<Work>> = const { RefCell::new(None) };
}

/// The allocator has given so many bytes to this thread; less than none: it has taken them back.
#[inline]
pub fn allocated(bytes: i64) {
    HELD.with(|held| held.set(held.get().wrapping_add(bytes)));
}

/// How much one statement may take, and whether it is to go on. Shared by all threads that work for it.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    /// What threads that work for it now hold, as they have told.
    held: AtomicI64,
    ended: AtomicBool,
}

/// Why a statement does not go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Nobody waits for it any more.
    Ended,
    /// It would hold so many bytes at once, more than it may.
    Over {
        /// What it would hold.
        wanted: usize,
        /// What it may.
        bytes_max: usize,
    },
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended => f.write_str("the statement was stopped"),
            Self::Over { wanted, bytes_max } => write!(
                f,
                "the statement would hold {wanted} bytes at once, more than it may (--query-memory, \
                 {bytes_max} bytes)"
            ),
        }
    }
}

impl std::error::Error for Stop {}

impl From<Stop> for Error {
    fn from(stop: Stop) -> Self {
        match stop {
            Stop::Ended => Self::new(ErrorKind::Cancelled, stop.to_string()),
            Stop::Over { .. } => Self::new(ErrorKind::Limit, stop.to_string())
                .with_hint("Ask for less at once, or raise --query-memory."),
        }
        .with_source(stop)
    }
}

/// What a thread does for a statement.
#[derive(Debug)]
struct Work {
    budget: Arc<Budget>,
    /// What the thread held when it began.
    began: i64,
    /// What it has told of what it holds since.
    told: i64,
}

impl Budget {
    /// One of so many bytes.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, held: AtomicI64::new(0), ended: AtomicBool::new(false) })
    }

    /// Nobody waits for the statement any more: work for it stops when it asks next.
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether it has [ended](Self::end).
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// How many bytes it is of.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// The budget that this thread works for.
    pub fn current() -> Option<Arc<Self>> {
        WORKS_FOR.with_borrow(|work| work.as_ref().map(|work| Arc::clone(&work.budget)))
    }

    /// Whichever thread polls the future works for this budget.
    pub fn within<T>(self: &Arc<Self>, future: BoxFuture<T>) -> Within<T> {
        Within { budget: Arc::clone(self), future }
    }

    /// This thread works for it while `work` runs.
    pub fn run<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        let _turn = Turn::to(self);
        work()
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// See [`Budget::within`].
pub struct Within<T> {
    budget: Arc<Budget>,
    future: BoxFuture<T>,
}

impl<T> fmt::Debug for Within<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Within").field("budget", &self.budget).finish_non_exhaustive()
    }
}

impl<T> Future for Within<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let this = &mut *self;
        let _turn = Turn::to(&this.budget);
        this.future.as_mut().poll(context)
    }
}

/// A thread that has turned to a statement; it turns back when this is dropped.
struct Turn(Option<Work>);

impl Turn {
    fn to(budget: &Arc<Budget>) -> Self {
        let work = Work { budget: Arc::clone(budget), began: HELD.get(), told: 0 };
        Self(WORKS_FOR.replace(Some(work)))
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(done) = WORKS_FOR.replace(self.0.take()) {
            done.budget.held.fetch_sub(done.told, Ordering::Relaxed);
        }
    }
}

/// Whether the statement that this thread works for may go on, and take `more` bytes on top of what it
/// holds. A thread that works for none is held to nothing.
///
/// # Errors
/// Why it may not.
pub fn check(more: usize) -> Result<(), Stop> {
    WORKS_FOR.with_borrow_mut(|work| work.as_mut().map_or(Ok(()), |work| work.check(more)))
}

impl Work {
    fn check(&mut self, more: usize) -> Result<(), Stop> {
        let budget = &self.budget;
        if budget.is_ended() {
            return Err(Stop::Ended);
        }
        let holds = HELD.get().wrapping_sub(self.began).max(0);
        let news = holds - self.told;
        self.told = holds;
        let all = budget.held.fetch_add(news, Ordering::Relaxed).saturating_add(news);
        let wanted = usize::try_from(all).unwrap_or_default().saturating_add(more);
        let bytes_max = budget.bytes_max;
        if wanted > bytes_max { Err(Stop::Over { wanted, bytes_max }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_counts_and_what_is_given_back_does_not() {
        let budget = Budget::new(100);
        assert_eq!(check(1_000), Ok(()), "nobody is worked for");
        budget.run(|| {
            let before = HELD.get();
            allocated(60);
            let held = usize::try_from(HELD.get() - before).unwrap();
            assert_eq!(held, 60);
            assert!(check(40).is_ok());
            assert!(matches!(check(41), Err(Stop::Over { bytes_max: 100, .. })));
            allocated(-60);
            assert!(check(100).is_ok());
        });
        assert_eq!(budget.held.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn threads_of_one_statement_share_it() {
        let budget = Budget::new(100);
        budget.run(|| {
            allocated(60);
            check(0).unwrap();
            let other = Arc::clone(&budget);
            let there = std::thread::spawn(move || other.run(|| check(50)));
            assert_eq!(there.join().unwrap(), Err(Stop::Over { wanted: 110, bytes_max: 100 }));
            allocated(-60);
        });
        budget.run(|| check(100).unwrap());
    }

    #[test]
    fn one_that_has_ended_stops_whoever_asks() {
        let budget = Budget::new(100);
        let inner = Budget::new(10);
        budget.run(|| {
            inner.run(|| inner.end());
            assert!(check(0).is_ok(), "it was another one");
            budget.end();
            assert_eq!(check(0), Err(Stop::Ended));
        });
        assert!(Budget::current().is_none());
    }
}
