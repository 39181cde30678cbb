//! Views that fail: how the failure is reported, and what is stored for the next start.
//!
//! ```text
//! query fails ─► its log fails: every reader gets the error
//!             └► reported (log, Engine::failures) ─► failures.json ─► next start: fails again at once, or is retried
//! ```
//! A view that failed because of its rows stays failed. One that failed because of something else (a missing file, a limit)
//! is retried at the next start, with a notice.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;
use windrow_core::{Error, ErrorKind};
use windrow_query::shared::Status;
use windrow_stream::repeated::repeated;

use super::Instance;
use crate::catalog::Materialized;
use crate::durable::failures::Failure;

/// Maximum number of failures that are retained for callers that have not read them yet.
const FAILURES_MAX: usize = 256;

/// The failures of this process, in order.
#[derive(Debug, Default)]
pub(crate) struct FailureLog {
    recent: Mutex<Recent>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Recent {
    /// Number of failures before the first in `errors`.
    dropped: usize,
    errors: VecDeque<Arc<Error>>,
}

impl FailureLog {
    fn add(&self, error: Arc<Error>) {
        {
            let mut recent = self.recent.lock();
            if recent.errors.len() == FAILURES_MAX {
                recent.errors.pop_front();
                recent.dropped += 1;
            }
            recent.errors.push_back(error);
        }
        self.changed.send_replace(());
    }

    fn after(&self, seen: usize) -> (Vec<Error>, usize) {
        let recent = self.recent.lock();
        let new = recent.errors.iter().skip(seen.saturating_sub(recent.dropped));
        (new.map(repeated).collect(), recent.dropped + recent.errors.len())
    }
}

/// The failures of views since an engine was opened, as the errors that their readers get.
#[derive(Debug)]
pub struct Failures {
    instance: Weak<Instance>,
    seen: usize,
    changed: watch::Receiver<()>,
}

impl Failures {
    /// Returns the failures of an engine, from the first on.
    pub(crate) fn of(instance: &Arc<Instance>) -> Self {
        let changed = instance.failures.changed.subscribe();
        Self { instance: Arc::downgrade(instance), seen: 0, changed }
    }

    /// Returns the failures since the last call.
    pub fn take(&mut self) -> Vec<Error> {
        let Some(instance) = self.instance.upgrade() else { return vec![] };
        let (new, seen) = instance.failures.after(self.seen);
        self.seen = seen;
        new
    }

    /// Waits for failures and returns them; an empty list when the engine is gone.
    pub async fn next(&mut self) -> Vec<Error> {
        loop {
            self.changed.mark_unchanged();
            let new = self.take();
            if !new.is_empty() || self.changed.changed().await.is_err() {
                return new;
            }
        }
    }
}

impl Instance {
    /// Reports and stores the failure of a view when it fails; `id` is that of its definition.
    pub(crate) fn watch_failure(self: &Arc<Self>, view: &Materialized, id: Option<u64>) {
        let (query, log) = (Arc::clone(&view.query), Arc::downgrade(&view.log));
        let instance = Arc::downgrade(self);
        self.parts.cpu.spawn(async move {
            let Err(error) = query.ended().await else { return };
            let (Some(instance), Some(log)) = (instance.upgrade(), log.upgrade()) else { return };
            if error.kind() == ErrorKind::Cancelled {
                return;
            }
            let reported = log.failed().unwrap_or(repeated(&Arc::new(error)));
            tracing::error!(target: "windrow_failures", "{}", reported.render(""));
            instance.failures.add(Arc::new(reported));
            let (Some(store), Some(id)) = (&instance.store, id) else { return };
            let Status::Failed(cause) = query.status() else { return };
            let failure = Failure::of(&cause, query.fails_again());
            if let Err(error) = store.note_failure(id, Some(failure)) {
                tracing::warn!(view = query.name, %error, "the failure of a view could not be stored");
            }
        });
    }
}
