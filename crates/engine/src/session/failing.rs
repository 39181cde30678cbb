//! Views that fail: to whom it is reported, and what is remembered until the next start.
//!
//! ```text
//! query fails ─► its log fails: every reader gets the error
//!             └► told (log, Engine::failures) ─► failures.json ─► the next start: failed again at once, or tried again
//! ```
//! A view that failed by what its rows are stays failed. One that failed by something outside (a file that was
//! gone, a limit) is tried again, and that is told.

use std::collections::VecDeque;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use tokio::sync::watch;
use windrow_core::{Error, ErrorKind, Result};
use windrow_stream::repeated::repeated;

use crate::catalog::{Catalog, Materialized, Object};
use crate::durable::failures::Failure;
use crate::engine::{Engine, Inner};
use crate::session::Session;

/// Failures that are kept for callers that have not asked yet.
const KEPT_MAX: usize = 256;

/// The failures of this process, in their order.
#[derive(Debug, Default)]
pub(crate) struct Failed {
    all: Mutex<Told>,
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
struct Told {
    /// How many came before the first that is kept.
    gone: usize,
    kept: VecDeque<Arc<Error>>,
}

impl Failed {
    fn add(&self, error: Arc<Error>) {
        {
            let mut all = self.all.lock();
            if all.kept.len() == KEPT_MAX {
                all.kept.pop_front();
                all.gone += 1;
            }
            all.kept.push_back(error);
        }
        self.changed.send_replace(());
    }

    fn after(&self, seen: usize) -> (Vec<Error>, usize) {
        let all = self.all.lock();
        let new = all.kept.iter().skip(seen.saturating_sub(all.gone));
        (new.map(repeated).collect(), all.gone + all.kept.len())
    }
}

/// The views that fail from the opening of an engine on: what each reader of them is told.
#[derive(Debug)]
pub struct Failures {
    engine: Weak<Inner>,
    seen: usize,
    changed: watch::Receiver<()>,
}

impl Failures {
    /// Those that nobody has taken here yet.
    pub fn take(&mut self) -> Vec<Error> {
        let Some(engine) = self.engine.upgrade() else { return vec![] };
        let (new, seen) = engine.failed.after(self.seen);
        self.seen = seen;
        new
    }

    /// The next ones, when there are some; nothing when the engine is gone.
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

impl Engine {
    /// The views that fail, from the opening on.
    pub fn failures(&self) -> Failures {
        let changed = self.inner().failed.changed.subscribe();
        Failures { engine: Arc::downgrade(self.inner()), seen: 0, changed }
    }
}

impl Inner {
    /// Tells and remembers when a view fails; `id` is that of its definition.
    pub(crate) fn watch_failure(self: &Arc<Self>, view: &Materialized, id: Option<u64>) {
        let (query, log) = (Arc::clone(&view.query), Arc::downgrade(&view.log));
        let engine = Arc::downgrade(self);
        self.parts.cpu.spawn(async move {
            let Err(error) = query.ended().await else { return };
            let (Some(engine), Some(log)) = (engine.upgrade(), log.upgrade()) else { return };
            if error.kind() == ErrorKind::Cancelled {
                return;
            }
            let told = log.failed().unwrap_or(repeated(&Arc::new(error)));
            tracing::error!(target: "windrow_failures", "{}", told.render(""));
            engine.failed.add(Arc::new(told));
            let (Some(store), Some(id)) = (&engine.store, id) else { return };
            let windrow_query::shared::Status::Failed(cause) = query.status() else { return };
            let failure = Failure::of(&cause, query.fails_again());
            if let Err(error) = store.note_failure(id, Some(failure)) {
                tracing::warn!(view = query.name, %error, "that it has failed is not kept");
            }
        });
    }
}

impl Catalog {
    /// Whether what is read has failed.
    ///
    /// # Errors
    /// The error of the first view that has.
    pub(crate) fn check_reads(&self, reads: &[String]) -> Result<()> {
        reads.iter().try_for_each(|name| match self.get(name) {
            Some(Object::Materialized(view)) => view.check(),
            _ => Ok(()),
        })
    }
}

impl Materialized {
    /// Whether the view has failed.
    ///
    /// # Errors
    /// What its readers are told.
    pub(crate) fn check(&self) -> Result<()> {
        self.log.failed().map_or(Ok(()), Err)
    }

    /// Waits for the end of its query.
    ///
    /// # Errors
    /// What its readers are told when it fails; `Cancelled` when it is stopped.
    pub(crate) async fn ended(&self) -> Result<()> {
        let ended = self.query.ended().await;
        self.check().and(ended)
    }
}

impl Session {
    /// With what a view that is restored fails at once: it has failed before by its rows, or what it reads has.
    ///
    /// # Errors
    /// When it cannot be written that it is tried again.
    pub(super) fn fails_at_once(&self, view: &str, reads: &[String]) -> Result<Option<Error>> {
        let (Some(definition), Some(store)) = (&self.restoring, &self.engine.store) else {
            return Ok(None);
        };
        let failure = store.failure(definition.id);
        if let Some(failure) = failure.as_ref().filter(|failure| failure.again) {
            return Ok(Some(failure.error()));
        }
        if let Err(error) = self.engine.catalog.check_reads(reads) {
            return Ok(Some(error));
        }
        if let Some(failure) = failure {
            let why = failure.error();
            self.engine.notice(format!("view \"{view}\" had failed ({why}), it is tried again"));
            store.note_failure(definition.id, None)?;
        }
        Ok(None)
    }
}
