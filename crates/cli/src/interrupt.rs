//! Ctrl-C and SIGTERM: the first one cancels the running statement; the second one exits the program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Notify;
use windrow_core::{Error, ErrorKind, Result};

/// The number of Ctrl-C within one statement after which the program exits at once.
const INSISTS: u32 = 2;

/// The interrupts of the running statement.
#[derive(Debug)]
pub(crate) struct Interrupts {
    count: AtomicU32,
    notify: Notify,
    /// Nothing runs, the user may be typing. Ctrl-C is a key there and not a signal.
    at_prompt: AtomicBool,
    /// Another program has the terminal (a pager, an editor, a shell): signals are meant for it.
    of_another: AtomicBool,
}

impl Interrupts {
    /// Listens for Ctrl-C from now on.
    ///
    /// # Errors
    /// When the system does not permit it.
    pub(crate) fn listen() -> Result<Arc<Self>> {
        let interrupts = Arc::new(Self {
            count: AtomicU32::new(0),
            notify: Notify::new(),
            at_prompt: AtomicBool::new(false),
            of_another: AtomicBool::new(false),
        });
        let shared = Arc::clone(&interrupts);
        ctrlc::set_handler(move || {
            if shared.of_another.load(Ordering::SeqCst) {
                return;
            }
            let count = shared.count.fetch_add(1, Ordering::SeqCst) + 1;
            if count >= INSISTS || shared.at_prompt.load(Ordering::SeqCst) {
                leave();
            }
            shared.notify.notify_one();
        })
        .map_err(|e| Error::internal(format!("cannot listen for Ctrl-C: {e}")).with_source(e))?;
        Ok(interrupts)
    }

    /// Enters the prompt: the user may be typing from now on, and a signal ends the program. Returns whether one
    /// arrived while nothing ran, between a statement and the prompt, where Ctrl-C is still a signal.
    pub(crate) fn at_prompt(&self) -> bool {
        self.at_prompt.store(true, Ordering::SeqCst);
        self.count.swap(0, Ordering::SeqCst) > 0
    }

    /// Leaves the prompt: a statement may run from now on, and a signal cancels it. A statement typed at the prompt
    /// begins without the interrupts before it; the statements of a file do not, or a signal between two of them would
    /// be lost.
    pub(crate) fn leaves_prompt(&self) {
        self.at_prompt.store(false, Ordering::SeqCst);
        self.forget();
    }

    /// Waits for `work`, in which another program has the terminal.
    pub(crate) fn of_another<R>(&self, work: impl FnOnce() -> R) -> R {
        self.of_another.store(true, Ordering::SeqCst);
        let done = work();
        self.of_another.store(false, Ordering::SeqCst);
        done
    }

    /// Forgets the interrupts: what was to be cancelled has ended.
    pub(crate) fn forget(&self) {
        self.count.store(0, Ordering::SeqCst);
    }

    /// Completes when the running statement is to be cancelled.
    pub(crate) async fn cancelled(&self) -> Error {
        // A permit may be left from an interrupt of an earlier statement: then the count is 0.
        while self.count.load(Ordering::SeqCst) == 0 {
            self.notify.notified().await;
        }
        Error::new(ErrorKind::Cancelled, "cancelled")
    }
}

/// Exits the program while something still runs.
#[expect(clippy::exit, reason = "the user insists, and the statement did not stop")]
fn leave() {
    std::process::exit(i32::from(ErrorKind::Cancelled.exit_code()));
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn an_interrupt_of_an_earlier_statement_does_not_count() {
        let interrupts = Interrupts {
            count: AtomicU32::new(0),
            notify: Notify::new(),
            at_prompt: AtomicBool::new(false),
            of_another: AtomicBool::new(false),
        };
        interrupts.notify.notify_one();
        assert!(interrupts.cancelled().now_or_never().is_none());
        interrupts.count.store(1, Ordering::SeqCst);
        let error = interrupts.cancelled().now_or_never().unwrap();
        assert_eq!(error.kind().exit_code(), 130);
        interrupts.leaves_prompt();
        assert!(interrupts.cancelled().now_or_never().is_none());
    }

    #[test]
    fn an_interrupt_before_the_prompt_is_told_there() {
        let interrupts = Interrupts {
            count: AtomicU32::new(1),
            notify: Notify::new(),
            at_prompt: AtomicBool::new(false),
            of_another: AtomicBool::new(false),
        };
        assert!(interrupts.at_prompt());
        assert!(!interrupts.at_prompt());
    }
}
