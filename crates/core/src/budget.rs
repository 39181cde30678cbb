//! The memory budget of one statement while it is planned and its expressions are evaluated, and its cancellation.
//!
//! Planning and expressions never yield, so nothing outside can stop them or inspect what they hold. They call
//! [`check`] themselves, between two steps and before a large allocation. The budget is attached to the thread
//! ([`Budget::within`]), so it need not be passed through their signatures.
//!
//! The bytes held by a thread are counted by the allocator (the crate `metered`, in programs that use it); without it,
//! only what is announced to [`check`] counts.
//!
//! Invariants: a budget counts what was allocated since its thread began to work for it and was not freed; when the
//! thread turns to something else, that count ends, because what remains is counted where it is stored (operators'
//! memory, queues, tables).

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::task::{Context, Poll};

use crate::{Error, ErrorKind};

thread_local! {
    /// Bytes allocated by this thread less bytes freed by it. Only differences are meaningful.
    static HELD: Cell<i64> = const { Cell::new(0) };
    /// The same since the thread last added it to [`ALL_HELD`].
    static NOT_ADDED: Cell<i64> = const { Cell::new(0) };
    static WORKS_FOR: RefCell<Option<Work>> = const { RefCell::new(None) };
}

/// Bytes that the program holds, except those that threads have not added yet.
static ALL_HELD: AtomicI64 = AtomicI64::new(0);
/// A thread adds what it has allocated or freed once it is this much, in bytes.
const ADDED_BYTES: u64 = 128 << 10;

/// Records that the allocator has given `bytes` to this thread; a negative number records that they were freed.
#[inline]
pub fn allocated(bytes: i64) {
    HELD.with(|held| held.set(held.get().wrapping_add(bytes)));
    NOT_ADDED.with(|not_added| {
        let news = not_added.get().wrapping_add(bytes);
        if news.unsigned_abs() < ADDED_BYTES {
            not_added.set(news);
        } else {
            not_added.set(0);
            ALL_HELD.fetch_add(news, Ordering::Relaxed);
        }
    });
}

/// Adds what this thread has allocated and freed to [`held_bytes`]. For a thread that ends: others do so as they go.
pub fn thread_ends() {
    let news = NOT_ADDED.with(|not_added| not_added.replace(0));
    ALL_HELD.fetch_add(news, Ordering::Relaxed);
}

/// Returns how many bytes the program has allocated and not freed, to within some hundred kilobytes for each thread; `None`
/// where no allocator counts.
pub fn held_bytes() -> Option<u64> {
    u64::try_from(ALL_HELD.load(Ordering::Relaxed)).ok().filter(|held| *held > 0)
}

/// How many bytes one statement may hold, and whether it is to continue. Shared by all threads that work for it.
#[derive(Debug)]
pub struct Budget {
    bytes_max: usize,
    /// Bytes that the threads working for it hold now, as they last reported.
    held: AtomicI64,
    ended: AtomicBool,
}

/// The reason why a statement must stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Nothing waits for its result any more.
    Ended,
    /// It would hold more bytes at once than it may.
    Over {
        /// Bytes that it would hold.
        wanted: usize,
        /// Bytes that it may hold.
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

/// The work of a thread for a statement.
#[derive(Debug)]
struct Work {
    budget: Arc<Budget>,
    /// Bytes that the thread held when it began.
    began: i64,
    /// Bytes that it has reported since.
    told: i64,
}

impl Budget {
    /// Returns a budget of `bytes_max` bytes.
    pub fn new(bytes_max: usize) -> Arc<Self> {
        Arc::new(Self { bytes_max, held: AtomicI64::new(0), ended: AtomicBool::new(false) })
    }

    /// Ends the statement: work for it stops at its next [`check`].
    pub fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
    }

    /// Whether it has [ended](Self::end).
    pub fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// The size of the budget in bytes.
    pub fn bytes_max(&self) -> usize {
        self.bytes_max
    }

    /// Returns the budget that this thread works for.
    pub fn current() -> Option<Arc<Self>> {
        WORKS_FOR.with_borrow(|work| work.as_ref().map(|work| Arc::clone(&work.budget)))
    }

    /// Attaches the budget to `future`: whichever thread polls it works for this budget.
    pub fn within<T>(self: &Arc<Self>, future: BoxFuture<T>) -> Within<T> {
        Within { budget: Arc::clone(self), future }
    }

    /// Runs `work` with this thread working for the budget.
    pub fn run<T>(self: &Arc<Self>, work: impl FnOnce() -> T) -> T {
        let _turn = Turn::to(self);
        work()
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A future whose polls work for a budget; see [`Budget::within`].
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

/// A thread's turn to work for a statement; dropping it restores what the thread worked for before.
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

/// Checks whether the statement that this thread works for may continue and hold `more` bytes on top of what it holds.
/// A thread that works for no statement is not limited.
///
/// # Errors
/// The reason to stop.
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
