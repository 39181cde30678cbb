//! Panics are logged with their location, like every other failure, in the format of the log.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::PanicHookInfo;

/// Sends the panics of all threads to the log from now on.
pub(crate) fn to_log() {
    std::panic::set_hook(Box::new(tell));
}

fn tell(panic: &PanicHookInfo<'_>) {
    let said = panic.payload_as_str().unwrap_or("without a message");
    let place = panic.location().map(ToString::to_string).unwrap_or_default();
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    let trace = Backtrace::capture();
    if trace.status() == BacktraceStatus::Captured {
        tracing::error!(place, thread, "a panic (a bug in Windrow): {said}\n{trace}");
    } else {
        tracing::error!(place, thread, "a panic (a bug in Windrow): {said}");
    }
}
