//! The running instance behind all clones of an [`Engine`](crate::Engine): its catalog, its data directory, and its
//! background work: views that start together, checkpoints, archiving, retention, continuous INSERTs.
//!
//! `parts` is shared by sessions and queries, `configuration` sets up DataFusion, `planners` limits planning, `program_functions` are those of the embedding program, `pump`
//! copies the rows of continuous INSERTs, `sink_pump` moves those of sinks, `refreshing` loads reference tables again, `retention` drops old rows, `unused_memory` returns what the allocator retains,
//! `failures` reports views that fail. No session and no statement is known here.

pub(crate) mod configuration;
pub(crate) mod failures;
pub(crate) mod machine;
mod parts;
pub(crate) mod planners;
pub(crate) mod program_functions;
pub(crate) mod pump;
pub(crate) mod refreshing;
pub(crate) mod retention;
pub(crate) mod sink_pump;
pub(crate) mod unused_memory;

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
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

use self::failures::FailureLog;
pub(crate) use self::parts::Parts;
use self::pump::Pump;
use self::retention::pass_now;
use self::sink_pump::SinkPump;
use crate::catalog::{Catalog, Materialized, Object};
use crate::durable::store::Store;

/// Maximum time between checkpoints of a view whose followers only get archived rows.
const UNORDERED_CHECKPOINT_INTERVAL: Duration = Duration::from_secs(1);

/// The state of an engine.
#[derive(Debug)]
pub(crate) struct Instance {
    /// The parts that sessions and queries share.
    pub(crate) parts: Arc<Parts>,
    /// The objects.
    pub(crate) catalog: Arc<Catalog>,
    /// Views that wait to start, so that those created together read their streams once.
    pending: Mutex<Vec<Ready>>,
    /// The data directory, if there is one.
    pub(crate) store: Option<Arc<Store>>,
    /// The spillers, which move rows to archives, by the name of the stream or view.
    spillers: Mutex<BTreeMap<String, Arc<Spiller>>>,
    /// The pumps, which copy the rows of continuous INSERTs.
    pumps: Mutex<Vec<Weak<Pump>>>,
    /// How the queries of the data directory were recovered.
    recovery: Mutex<Recovery>,
    /// The tasks that drop old rows, by the name of the stream or view.
    retentions: Mutex<BTreeMap<String, Arc<Retention>>>,
    runtime: Mutex<Option<Runtime>>,
    /// The views that have failed in this process.
    failures: FailureLog,
    /// Whether statements are only planned.
    plan_only: bool,
    /// Held while a stream is altered: the statement is added to those before it.
    pub(crate) altering: tokio::sync::Mutex<()>,
}

/// How the queries of a data directory were recovered when it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Number of views whose queries resumed from a checkpoint.
    pub resumed: usize,
    /// Number of views that are recomputed from what their streams hold.
    pub recomputed: usize,
    /// Notices about states that could not be used, one sentence each.
    pub notices: Vec<String>,
}

impl Instance {
    /// Creates an instance without objects. `plan_only`: statements are planned and not executed.
    pub(crate) fn new(
        (parts, catalog): (Arc<Parts>, Arc<Catalog>),
        store: Option<Store>,
        runtime: Runtime,
        plan_only: bool,
    ) -> Self {
        Self {
            parts,
            catalog,
            pending: Mutex::default(),
            store: store.map(Arc::new),
            spillers: Mutex::default(),
            pumps: Mutex::default(),
            altering: tokio::sync::Mutex::default(),
            recovery: Mutex::default(),
            retentions: Mutex::default(),
            runtime: Mutex::new(Some(runtime)),
            failures: FailureLog::default(),
            plan_only,
        }
    }

    /// Queues the query of a view. It starts before the next statement that does not create a stream or view, or after a
    /// short pause.
    pub(crate) fn enqueue(self: &Arc<Self>, ready: Ready) {
        self.pending.lock().push(ready);
        let instance = Arc::downgrade(self);
        let pause = self.parts.clock.sleep(Duration::from_millis(20));
        self.parts.cpu.spawn(pause.map(move |()| {
            if let Some(instance) = instance.upgrade() {
                instance.start_pending();
            }
        }));
    }

    /// Whether statements are only planned.
    pub(crate) fn is_plan_only(&self) -> bool {
        self.plan_only
    }

    /// Starts the queued queries together.
    pub(crate) fn start_pending(&self) {
        if self.is_plan_only() {
            return;
        }
        let ready = std::mem::take(&mut *self.pending.lock());
        if !ready.is_empty() {
            launch(&self.parts, ready);
        }
    }

    /// Starts to move the rows of a log to its archive. `name` identifies it in [`release`](Self::release).
    pub(crate) fn start_archiving(&self, name: &str, spiller: Arc<Spiller>) {
        let parts = &self.parts;
        let run = Arc::clone(&spiller).run(Arc::clone(&parts.clock), parts.limits.clone());
        parts.cpu.spawn(run);
        self.spillers.lock().insert(name.to_owned(), spiller);
    }

    /// Starts to copy the rows of the view of a continuous INSERT, or of a stream AS SELECT.
    pub(crate) fn start_pump(&self, view: &Materialized, pump: Arc<Pump>) {
        if self.is_plan_only() {
            return;
        }
        let parts = &self.parts;
        let (catalog, name, log) =
            (Arc::clone(&self.catalog), view.name.clone(), Arc::clone(&view.log));
        let is_wanted = move || {
            let there = catalog.get(&name);
            matches!(there, Some(Object::Materialized(view)) if Arc::ptr_eq(&view.log, &log))
        };
        let run = Arc::clone(&pump).run(is_wanted, Arc::clone(&parts.clock));
        parts.cpu.spawn(run);
        let mut pumps = self.pumps.lock();
        pumps.retain(|pump| pump.strong_count() > 0);
        pumps.push(Arc::downgrade(&pump));
        // A view has one pump.
        drop(view.pump.set(pump));
    }

    /// Copies the rows that continuous INSERTs have archived.
    ///
    /// # Errors
    /// The first error of a continuous INSERT; the others are copied nevertheless.
    pub(crate) async fn flush_pumps(&self) -> Result<()> {
        let pumps: Vec<_> = self.pumps.lock().iter().filter_map(Weak::upgrade).collect();
        let mut done = Ok(());
        for pump in pumps {
            done = done.and(pump.copy().await);
        }
        done
    }

    /// Starts to move the rows of a sink.
    pub(crate) fn start_sink(&self, pump: SinkPump) {
        self.parts.cpu.spawn(pump.run());
    }

    /// Commits the rows of all sinks that are not paused. `fails` says whether a destination that has failed since a time, in µs,
    /// is waited for no longer.
    ///
    /// # Errors
    /// The first error of a sink; the others are committed nevertheless.
    pub(crate) async fn commit_sinks(&self, fails: impl Fn(i64) -> bool) -> Result<()> {
        let mut done = Ok(());
        for sink in self.catalog.sinks() {
            if sink.status() == "paused" {
                continue;
            }
            let committed = async {
                let to = sink.rows.finish().await?;
                sink.committed(to, &fails).await
            };
            done = done.and(committed.await);
        }
        done
    }

    /// Whether something that has failed since a time, in µs, is waited for no longer.
    pub(crate) fn fails_for_long(&self, since: i64) -> bool {
        let failed = self.parts.clock.now_micros().saturating_sub(since);
        i64::try_from(self.parts.limits.archive_wait.as_micros()).is_ok_and(|most| failed >= most)
    }

    /// Adds a notice about the data directory.
    pub(crate) fn notice(&self, notice: String) {
        self.recovery.lock().notices.push(notice);
    }

    /// Records from which state the query of a view resumes.
    pub(crate) fn note_resumed(&self, view: &str, newest: &Newest) {
        let mut recovery = self.recovery.lock();
        recovery.resumed += usize::from(newest.resume.is_some());
        let unusable = newest.skipped.iter().map(|why| format!("view \"{view}\": {why}"));
        recovery.notices.extend(unusable);
        recovery.recomputed += usize::from(newest.resume.is_none());
    }

    /// Returns how the queries of the data directory were recovered.
    pub(crate) fn recovery(&self) -> Recovery {
        self.recovery.lock().clone()
    }

    /// Starts to write checkpoints of the query of a view, at the checkpoint interval and whenever its rows wait for one,
    /// until the query ends.
    pub(crate) fn start_checkpoints(&self, query: Arc<Shared>, spiller: Option<Arc<Spiller>>) {
        let (clock, limits) = (Arc::clone(&self.parts.clock), self.parts.limits.clone());
        let completion = spiller.as_ref().and_then(|spiller| spiller.log().completion());
        let interval = if completion.is_some_and(Completion::is_unordered) {
            limits.checkpoint_interval.min(UNORDERED_CHECKPOINT_INTERVAL)
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
                    // Its writer has logged why; the next checkpoint includes what this one could not write.
                    tracing::debug!(query = query.name, "a checkpoint is skipped");
                    clock.sleep(interval).await;
                }
            }
        });
    }

    /// Completes with an error when a view has been blocked for a long time because its rows cannot be archived. Whatever
    /// waits for the view would otherwise wait for ever.
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
                        .with_hint("Nothing is lost. It continues when the archive does.");
                }
            }
        }
    }

    /// Writes a checkpoint of each query that has checkpoints.
    pub(crate) async fn checkpoint_all(&self) {
        for object in self.catalog.all() {
            if let Object::Materialized(view) = object
                && view.checkpoints.is_some()
                && view.query.checkpoint().await.is_err()
            {
                tracing::debug!(view = view.name, "the final checkpoint is skipped");
            }
        }
    }

    /// Enables retention once all objects of the data directory are open, and drops the rows that are past it.
    pub(crate) async fn enable_retention(&self) {
        self.parts.restored.store(true, Ordering::Release);
        let retentions: Vec<_> = self.retentions.lock().values().cloned().collect();
        for retention in retentions {
            pass_now(&retention, &self.parts, &self.catalog).await;
        }
    }

    /// Starts to drop the old rows of a log. `name` identifies it in [`release`](Self::release).
    pub(crate) fn retain(&self, name: &str, retention: &Arc<Retention>) {
        let (parts, catalog) = (Arc::clone(&self.parts), Arc::clone(&self.catalog));
        let run = retention::run(Arc::clone(retention), parts, catalog);
        self.parts.cpu.spawn(run);
        self.retentions.lock().insert(name.to_owned(), Arc::clone(retention));
    }

    /// Renames the archiving and the retention of a log.
    pub(crate) fn rename_log(&self, from: &str, to: &str) {
        fn rename<T>(tasks: &mut BTreeMap<String, T>, from: &str, to: &str) {
            if let Some(task) = tasks.remove(from) {
                tasks.insert(to.to_owned(), task);
            }
        }
        rename(&mut self.spillers.lock(), from, to);
        rename(&mut self.retentions.lock(), from, to);
    }

    /// Stops the archiving and the retention of a log.
    pub(crate) async fn release(&self, name: &str) {
        if let Some(retention) = self.retentions.lock().remove(name) {
            retention.stop();
        }
        let spiller = self.spillers.lock().remove(name);
        if let Some(spiller) = spiller {
            spiller.stop().await;
        }
    }

    /// Returns the spillers of all streams and views.
    pub(crate) fn spillers(&self) -> Vec<Arc<Spiller>> {
        self.spillers.lock().values().cloned().collect()
    }

    /// Archives the final rows of views and stops all archiving. Rows of push streams stay in their write-ahead log.
    ///
    /// # Errors
    /// The first error of an archive; the others are written nevertheless.
    pub(crate) async fn spill_all(&self) -> Result<()> {
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

    /// Stops all queries and background work.
    pub(crate) fn stop(&self) {
        let queries: Vec<_> = self.parts.queries.lock().values().cloned().collect();
        queries.iter().for_each(|q| q.cancel());
        if let Some(runtime) = self.runtime.lock().take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.stop();
    }
}
