//! What an engine does beside answering: views that start together, checkpoints, archiving, retention, continuous INSERTs,
//! and the end of all that.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use windrow_core::{Error, ErrorKind, Result};
use windrow_query::shared::Shared;
use windrow_query::start::{Ready, launch};
use windrow_storage::checkpoint::Newest;
use windrow_stream::log::{Completion, Room};
use windrow_stream::retention::Retention;
use windrow_stream::spill::Spiller;

use super::pump::Pump;
use super::retention::pass_now;
use super::{Parts, Recovery};
use crate::catalog::{Catalog, Object};
use crate::durable::store::Store;
use crate::session::failing::Failed;

/// A follower of a view that gives out only archived rows waits for them at most this long.
const SETTLED_WITHIN: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) parts: Arc<Parts>,
    pub(crate) catalog: Arc<Catalog>,
    /// Views that wait to start, so that those created together read their streams once.
    pub(super) pending: Mutex<Vec<Ready>>,
    /// The data directory.
    pub(crate) store: Option<Arc<Store>>,
    /// Who moves rows to the archive, by stream and view.
    pub(super) spillers: Mutex<BTreeMap<String, Arc<Spiller>>>,
    /// Who copies the rows of continuous INSERTs.
    pub(super) pumps: Mutex<Vec<Weak<Pump>>>,
    /// For people: what became of the data directory's queries when it was opened.
    pub(super) told: Mutex<Recovery>,
    /// The tasks that release old rows, by stream and view.
    pub(super) retentions: Mutex<BTreeMap<String, Arc<Retention>>>,
    pub(super) runtime: Mutex<Option<Runtime>>,
    /// The views that have failed in this process.
    pub(crate) failed: Failed,
    /// Statements are checked and not run.
    pub(super) plan_only: AtomicBool,
}

impl Inner {
    /// Queues a view; it starts with the next statement that is no `CREATE`, or in a moment.
    pub(crate) fn start_later(self: &Arc<Self>, ready: Ready) {
        self.pending.lock().push(ready);
        let inner = Arc::downgrade(self);
        let pause = self.parts.clock.sleep(Duration::from_millis(20));
        self.parts.cpu.spawn(pause.map(move |()| {
            if let Some(inner) = inner.upgrade() {
                inner.start_pending();
            }
        }));
    }

    /// Whether statements are checked and not run.
    pub(crate) fn plans_only(&self) -> bool {
        self.plan_only.load(Ordering::Relaxed)
    }

    /// Starts the views that wait, together.
    pub(crate) fn start_pending(&self) {
        if self.plans_only() {
            return;
        }
        let ready = std::mem::take(&mut *self.pending.lock());
        if !ready.is_empty() {
            launch(&self.parts, ready);
        }
    }

    /// Moves the rows of a log to its archive from now on.
    pub(crate) fn keep(&self, name: &str, spiller: Arc<Spiller>) {
        let parts = &self.parts;
        let run = Arc::clone(&spiller).run(Arc::clone(&parts.clock), parts.limits.clone());
        parts.cpu.spawn(run);
        self.spillers.lock().insert(name.to_owned(), spiller);
    }

    /// Copies the rows of a continuous INSERT from now on.
    pub(crate) fn pump(&self, pump: &Arc<Pump>) {
        let parts = &self.parts;
        let run = Arc::clone(pump).run(Arc::clone(&self.catalog), Arc::clone(&parts.clock));
        parts.cpu.spawn(run);
        let mut pumps = self.pumps.lock();
        pumps.retain(|pump| pump.strong_count() > 0);
        pumps.push(Arc::downgrade(pump));
    }

    /// Inserts what continuous INSERTs have archived.
    pub(super) async fn pump_all(&self) -> Result<()> {
        let pumps: Vec<_> = self.pumps.lock().iter().filter_map(Weak::upgrade).collect();
        let mut done = Ok(());
        for pump in pumps {
            done = done.and(pump.copy().await);
        }
        done
    }

    /// Something that people are to know about the data directory.
    pub(crate) fn notice(&self, notice: String) {
        self.told.lock().notices.push(notice);
    }

    /// Remembers the state from which a view's query resumes.
    pub(crate) fn tell(&self, view: &str, newest: &Newest) {
        let mut told = self.told.lock();
        told.resumed += usize::from(newest.resume.is_some());
        told.notices.extend(newest.passed_over.iter().map(|why| format!("view \"{view}\": {why}")));
        told.again += usize::from(newest.resume.is_none());
    }

    /// Makes checkpoints of the query of a view now and then, and when its rows wait for one, until
    /// it is over.
    pub(crate) fn keep_checkpoints(&self, query: Arc<Shared>, spiller: Option<Arc<Spiller>>) {
        let (clock, limits) = (Arc::clone(&self.parts.clock), self.parts.limits.clone());
        let completion = spiller.as_ref().and_then(|spiller| spiller.log().completion());
        let interval = if completion.is_some_and(Completion::is_unordered) {
            limits.checkpoint_interval.min(SETTLED_WITHIN)
        } else {
            limits.checkpoint_interval
        };
        let by_checkpoint = completion.is_some_and(Completion::is_by_checkpoint);
        let long = async move |spiller: Option<&Spiller>| match spiller {
            Some(spiller) if by_checkpoint => spiller.long(&limits).await,
            _ => std::future::pending().await,
        };
        self.parts.cpu.spawn(async move {
            loop {
                tokio::select! {
                    () = clock.sleep(interval) => {}
                    () = long(spiller.as_deref()) => {}
                    _ended = query.ended() => return,
                }
                if query.checkpoint().await.is_err() {
                    // Its writer has told why; the next one writes what this one could not.
                    tracing::debug!(query = query.name, "a checkpoint is left out");
                    clock.sleep(interval).await;
                }
            }
        });
    }

    /// Completes when a view has waited long for room, because it cannot be archived: that may go on
    /// for ever, also for those who wait for the view.
    pub(crate) async fn failing_archive(&self) -> Error {
        loop {
            self.parts.clock.sleep(self.parts.limits.archive_wait).await;
            let spillers: Vec<_> = self
                .spillers
                .lock()
                .iter()
                .filter(|(_, spiller)| spiller.is_view())
                .map(|(name, spiller)| (name.clone(), Arc::clone(spiller)))
                .collect();
            let room = Room::of(&self.parts.limits);
            for (name, spiller) in spillers {
                if let Some(why) = spiller.error().filter(|_| spiller.is_over(room)) {
                    let message =
                        format!("view \"{name}\" waits for its archive, which fails: {why}");
                    return Error::new(ErrorKind::Unavailable, message)
                        .with_hint("Nothing is lost. It goes on when the archive does.");
                }
            }
        }
    }

    /// Makes a checkpoint of each query that has some.
    pub(super) async fn checkpoint_all(&self) {
        for object in self.catalog.all() {
            if let Object::Materialized(view) = object
                && view.checkpoints.is_some()
                && view.query.checkpoint().await.is_err()
            {
                tracing::debug!(view = view.name, "the last checkpoint stays the one before");
            }
        }
    }

    /// All objects of the data directory are open again: drops the rows that are past their retention now.
    pub(crate) async fn drop_old(&self) {
        self.parts.restored.store(true, Ordering::Release);
        let retentions: Vec<_> = self.retentions.lock().values().cloned().collect();
        for retention in retentions {
            pass_now(&retention, &self.parts, &self.catalog).await;
        }
    }

    /// Releases the old rows of a log from now on.
    pub(crate) fn retain(&self, name: &str, retention: &Arc<Retention>) {
        let (parts, catalog) = (Arc::clone(&self.parts), Arc::clone(&self.catalog));
        let run = super::retention::run(Arc::clone(retention), parts, catalog);
        self.parts.cpu.spawn(run);
        self.retentions.lock().insert(name.to_owned(), Arc::clone(retention));
    }

    /// What archives and retains a log is known by another name from now on.
    pub(crate) fn rename_kept(&self, from: &str, to: &str) {
        fn rename<T>(kept: &mut BTreeMap<String, T>, from: &str, to: &str) {
            if let Some(one) = kept.remove(from) {
                kept.insert(to.to_owned(), one);
            }
        }
        rename(&mut self.spillers.lock(), from, to);
        rename(&mut self.retentions.lock(), from, to);
    }

    /// Nothing moves to the archive of this name any more, and nothing is dropped from it.
    pub(crate) async fn release(&self, name: &str) {
        if let Some(retention) = self.retentions.lock().remove(name) {
            retention.stop();
        }
        let spiller = self.spillers.lock().remove(name);
        if let Some(spiller) = spiller {
            spiller.stop().await;
        }
    }

    /// Archives what views have finished, then stops to archive. Rows of push streams stay in
    /// their write-ahead log.
    pub(super) async fn spill_all(&self) -> Result<()> {
        std::mem::take(&mut *self.retentions.lock()).values().for_each(|r| r.stop());
        let spillers = std::mem::take(&mut *self.spillers.lock());
        let mut done = Ok(());
        for spiller in spillers.values() {
            if spiller.is_view() {
                done = done.and(spiller.spill().await.map(|_| ()));
            }
            spiller.stop().await;
        }
        done
    }

    pub(super) fn stop(&self) {
        let queries: Vec<_> = self.parts.queries.lock().values().cloned().collect();
        queries.iter().for_each(|q| q.cancel());
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}
