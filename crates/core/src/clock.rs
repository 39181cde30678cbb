//! The time of day. Tests control it; nothing in Windrow reads the machine's clock directly.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use futures::future::BoxFuture;

/// The wall clock. Microseconds since the Unix epoch.
pub trait Clock: Debug + Send + Sync {
    /// The current time, in µs since the Unix epoch.
    fn now_micros(&self) -> i64;

    /// Completes when `duration` of this clock has passed.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;
}

/// A clock driven by the machine. Sleeping needs a timer, which this crate does not have; the runtime supplies one
/// (tokio's).
pub struct SystemClock {
    sleeper: Box<dyn Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync>,
}

impl SystemClock {
    /// The machine's clock, with `sleeper` as its timer.
    pub fn new(
        sleeper: impl Fn(Duration) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) -> Self {
        Self { sleeper: Box::new(sleeper) }
    }
}

impl Debug for SystemClock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SystemClock")
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "the only place that reads the machine's clock")]
    fn now_micros(&self) -> i64 {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(0, |d| i64::try_from(d.as_micros()).unwrap_or(i64::MAX))
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        (self.sleeper)(duration)
    }
}

/// A clock that stands still until a test moves it.
#[derive(Debug, Clone, Default)]
pub struct ManualClock(Arc<Mutex<Manual>>);

#[derive(Debug, Default)]
struct Manual {
    now_micros: i64,
    sleepers: Vec<Waker>,
}

impl ManualClock {
    /// Returns a clock that shows `now_micros` (µs since the Unix epoch).
    pub fn at(now_micros: i64) -> Self {
        Self(Arc::new(Mutex::new(Manual { now_micros, sleepers: vec![] })))
    }

    /// Moves the clock forward and wakes the sleepers whose time has come.
    pub fn advance(&self, by: Duration) {
        let mut manual = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        manual.now_micros =
            manual.now_micros.saturating_add(i64::try_from(by.as_micros()).unwrap_or(i64::MAX));
        manual.sleepers.drain(..).for_each(Waker::wake);
    }
}

impl Clock for ManualClock {
    fn now_micros(&self) -> i64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).now_micros
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        let shared = Arc::clone(&self.0);
        let micros = i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
        let until = self.now_micros().saturating_add(micros);
        Box::pin(futures::future::poll_fn(move |cx| {
            let mut manual = shared.lock().unwrap_or_else(PoisonError::into_inner);
            if manual.now_micros >= until {
                return std::task::Poll::Ready(());
            }
            manual.sleepers.push(cx.waker().clone());
            std::task::Poll::Pending
        }))
    }
}
