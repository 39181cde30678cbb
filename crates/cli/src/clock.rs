//! The clock of the program: the machine's.

use windrow_core::SystemClock;

/// Returns the machine's clock, with tokio's timer.
#[expect(clippy::disallowed_methods, reason = "the wall clock needs the timer of the machine")]
pub(crate) fn clock() -> SystemClock {
    SystemClock::new(|time| Box::pin(tokio::time::sleep(time)))
}
