//! The engine: one process' streams, views and queries. Everything that the command line does
//! goes through here.

use futures::future::BoxFuture;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arrow::datatypes::DataType;
use arrow::record_batch::RecordBatch;
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList,
};
use datafusion::execution::FunctionRegistry as _;
use datafusion::execution::SessionState;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::runtime::{Handle, Runtime};
use windrow_connectors::Files;
use windrow_core::{Clock, Error, ErrorKind, Limits, Result, SystemClock};
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::plan::{micro_batch_state, session_state};
use windrow_storage::checkpoint::Newest;

use crate::catalog::guarded::GuardedCatalogs;
use crate::catalog::schema::Tables;
use crate::catalog::{Catalog, Object, system};
use crate::caught::stopped;
use crate::durable::store::Store;
use crate::machine::statement_bytes;
use crate::memory::Memory;
use crate::query::kept::{BadRows, LateRows};
use crate::query::progress::Progress as ScanProgress;
use crate::query::runner::RunBytes;
use crate::query::scan::{Counters, Scan};
use crate::query::shared::Shared;
use crate::query::start::{Ready, launch};
use crate::session::failing::Failed;
use crate::session::planning::{Planners, inherit_budgets};
use crate::session::{Access, Session, SessionOptions};
use crate::stream::Feed;
use crate::stream::log::Completion;
use crate::stream::log::Room;
use crate::stream::pump::Pump;
use crate::stream::push::Pushed;
use crate::stream::retention::Retention;
use crate::stream::spill::Spiller;

/// Ended queries that `windrow.queries` and `windrow.ledger` remember.
const ENDED_QUERIES_MAX: usize = 256;
/// Who follows a view that gives out only what is archived waits at most so long for it.
const SETTLED_WITHIN: Duration = Duration::from_secs(1);
/// Plans are walked recursively; a long chain of set operations must not end the process. The
/// memory is only taken as it is used.
const THREAD_STACK_BYTES: usize = 64 << 20;
/// The one catalog and schema that statements may write to.
pub(crate) const CATALOG: &str = "datafusion";
pub(crate) const SCHEMA: &str = "public";

/// How an engine is to be.
#[derive(Debug, Clone, Default)]
pub struct EngineConfig {
    /// How much of anything is allowed.
    pub limits: Limits,
    /// Who tells the time; `None`: the machine. Tests bring their own.
    pub clock: Option<Arc<dyn Clock>>,
    /// Where everything is kept durably: a directory, or a URL such as `s3://bucket/prefix`; `None`:
    /// in memory. One engine at a time has a directory.
    pub data_dir: Option<PathBuf>,
    /// Statements are only checked: they are planned and define what later ones name, but no query
    /// runs, no rows are read but those that a source's columns are found by, nothing is written.
    pub plan_only: bool,
    /// Which files sessions of remote users may touch.
    pub files: Option<Files>,
    /// Scalar functions of whoever embeds the engine, beside the usual ones. A data directory whose views use
    /// some is opened with them again.
    pub functions: Vec<Arc<ScalarUDF>>,
    /// Streams of the data directory whose logs have lost their end go on behind it, and the loss is recorded
    /// (`windrow.lost_rows`); otherwise they are broken.
    pub accept_lost_rows: bool,
    /// Asks the allocator of the program to give what nobody uses back to the system. Called when much of
    /// [`Limits::memory_bytes_max`] is taken, so that what allocators keep for later does not come on top of it.
    pub give_back: Option<fn()>,
}

/// A streaming SQL engine. Cheap to clone; the last clone that is dropped stops everything.
///
/// ```
/// use futures::TryStreamExt;
/// use windrow_runtime::{Engine, EngineConfig, Outcome, SessionOptions};
///
/// # fn main() -> windrow_core::Result<()> {
/// let engine = Engine::open(EngineConfig::default())?;
/// let session = engine.session(SessionOptions { push_ends: true })?;
/// let rows = futures::executor::block_on(async {
///     session.run("CREATE STREAM s (k INT, ts TIMESTAMP, WATERMARK FOR ts)").await?;
///     session.run("INSERT INTO s VALUES (1, TIMESTAMP '2026-01-01 00:00:01')").await?;
///     let sql = "SELECT window_end, count(*) AS n \
///                FROM TUMBLE(s, ts, INTERVAL '1 minute') GROUP BY window_start, window_end \
///                EMIT FINAL";
///     match session.run(sql).await? {
///         Outcome::Rows(rows) => rows.try_collect::<Vec<_>>().await,
///         Outcome::Done(_) => Ok(vec![]),
///     }
/// })?;
/// assert_eq!(rows.iter().map(|b| b.num_rows()).sum::<usize>(), 1);
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Engine {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) parts: Arc<Parts>,
    pub(crate) catalog: Arc<Catalog>,
    /// Views that wait to start, so that those created together read their streams once.
    pending: Mutex<Vec<Ready>>,
    /// The data directory.
    pub(crate) store: Option<Arc<Store>>,
    /// Who moves rows to the archive, by stream and view.
    spillers: Mutex<BTreeMap<String, Arc<Spiller>>>,
    /// Who copies the rows of continuous INSERTs.
    pumps: Mutex<Vec<Weak<Pump>>>,
    /// For people: what became of the data directory's queries when it was opened.
    told: Mutex<Recovery>,
    /// Who lets go of old rows, by stream and view.
    retentions: Mutex<BTreeMap<String, Arc<Retention>>>,
    runtime: Mutex<Option<Runtime>>,
    /// The views that have failed in this process.
    pub(crate) failed: Failed,
    /// Statements are checked and not run.
    plan_only: AtomicBool,
}

/// What all queries of an engine share.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) limits: Limits,
    /// What remote users may touch.
    pub(crate) files: Files,
    /// Functions of the embedder.
    functions: Vec<Arc<ScalarUDF>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) cpu: Handle,
    pub(crate) bad_rows: Arc<BadRows>,
    pub(crate) late_rows: Arc<LateRows>,
    pub(crate) counters: Arc<Counters>,
    pub(crate) queries: Mutex<BTreeMap<u64, Arc<Shared>>>,
    pub(crate) scans: Mutex<Vec<ScanNote>>,
    next_query: AtomicU64,
    next_statement: AtomicU64,
    /// Whether the views of the data directory stand where they stood before.
    restored: AtomicBool,
    catalogs: Arc<dyn CatalogProviderList>,
    env: Arc<RuntimeEnv>,
    /// The limit of memory, if there is one.
    pub(crate) memory: Option<Arc<Memory>>,
    micro_batches: SessionState,
    /// Who makes plans.
    pub(crate) planners: Planners,
    /// Bytes that one statement may take, where nobody says how many.
    pub(crate) query_bytes_max: usize,
}

/// What `windrow.watermarks` needs to know of a scan.
#[derive(Debug, Clone)]
pub(crate) struct ScanNote {
    pub(crate) stream: String,
    pub(crate) queries: Vec<Arc<Shared>>,
    pub(crate) progress: Weak<Mutex<ScanProgress>>,
    pub(crate) time_type: Option<DataType>,
}

/// What became of the queries of a data directory when it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Views whose queries go on from a checkpoint.
    pub resumed: usize,
    /// Views that are worked out again from what their streams hold.
    pub again: usize,
    /// What could not be used, and why, a sentence each.
    pub notices: Vec<String>,
}

/// How much has been read since the engine was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Rows read by continuous queries.
    pub rows: u64,
    /// Stored bytes read, in whole splits.
    pub bytes: u64,
    /// Stored bytes of everything that has been opened for reading.
    pub bytes_total: u64,
    /// Rows read of what streams and views held when queries began to read them.
    pub history: u64,
    /// All rows of that kind; what a query that was stopped left unread is not among them.
    pub history_total: u64,
}

impl Engine {
    /// Opens an engine. With a data directory, what it holds is there again, and its queries go
    /// on.
    ///
    /// # Errors
    /// When the data directory is in use, not ours or damaged; when threads cannot be started, or
    /// functions not be registered (our bug).
    pub fn open(config: EngineConfig) -> Result<Self> {
        let EngineConfig {
            limits,
            clock,
            data_dir,
            files,
            plan_only,
            functions,
            accept_lost_rows,
            give_back,
        } = config;
        let clock = clock.unwrap_or_else(machine_clock);
        let store = match &data_dir {
            Some(path) => Some(Store::open(path, Arc::clone(&clock), accept_lost_rows)?),
            None => None,
        };
        // A bucket is no place for what lives as long as the process.
        let local = data_dir.filter(|d| !d.to_string_lossy().contains("://"));
        let files = files.unwrap_or_else(Files::nowhere);
        let spill_dir = local.map(|data| data.join("tmp"));
        let memory = limits.memory_bytes_max.map(|limit| Memory::new(limit, spill_dir, give_back));
        let engine = Self::open_with((limits, files, functions), clock, store, memory)?;
        engine.inner.plan_only.store(plan_only, Ordering::Relaxed);
        Ok(engine)
    }

    /// [`open`](Self::open) over a data directory that is open already.
    pub(crate) fn open_with(
        (limits, files, functions): (Limits, Files, Vec<Arc<ScalarUDF>>),
        clock: Arc<dyn Clock>,
        store: Option<Store>,
        memory: Option<Arc<Memory>>,
    ) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(limits.threads.max(1))
            .thread_name("windrow")
            .thread_stack_size(THREAD_STACK_BYTES)
            .enable_all()
            .build()
            .map_err(|e| Error::internal(format!("cannot start threads: {e}")).with_source(e))?;
        inherit_budgets();
        let (catalogs, schema) = catalogs()?;
        let store = store.map(|store| store.with_memory(memory.clone()));
        let env = match &memory {
            Some(memory) => memory.env()?,
            None => Arc::new(RuntimeEnv::default()),
        };
        let mut state = session_state(df_config(&limits), Arc::clone(&env))?;
        state.register_catalog_list(Arc::clone(&catalogs));
        let parts = Arc::new(Parts {
            bad_rows: Arc::new(BadRows::new(limits.kept_rows_max)),
            late_rows: Arc::new(LateRows::new(limits.kept_rows_max)),
            clock,
            cpu: runtime.handle().clone(),
            counters: Arc::default(),
            queries: Mutex::default(),
            scans: Mutex::default(),
            next_query: AtomicU64::new(1),
            next_statement: AtomicU64::new(1),
            restored: AtomicBool::new(store.is_none()),
            catalogs,
            env,
            memory,
            micro_batches: micro_batch_state(&state),
            planners: Planners::new(&limits),
            query_bytes_max: query_bytes_max(&limits),
            limits,
            files,
            functions,
        });
        let catalog = Arc::new(Catalog::new(schema));
        system::register(&parts, &catalog)?;
        let cpu = runtime.handle().clone();
        let inner = Inner {
            parts,
            catalog,
            pending: Mutex::default(),
            store: store.map(Arc::new),
            spillers: Mutex::default(),
            pumps: Mutex::default(),
            told: Mutex::default(),
            failed: Failed::default(),
            retentions: Mutex::default(),
            runtime: Mutex::new(Some(runtime)),
            plan_only: AtomicBool::new(false),
        };
        let engine = Self { inner: Arc::new(inner) };
        if engine.inner.store.is_some() {
            let session = engine.session(SessionOptions::default())?;
            // On a thread of its own, because the caller may be inside of another runtime.
            let restored =
                std::thread::scope(|scope| scope.spawn(|| cpu.block_on(session.restore())).join());
            restored.map_err(|panic| Error::panicked("opening the data directory", &*panic))?;
        }
        Ok(engine)
    }

    /// A session: settings of its own, the catalog shared with all others.
    ///
    /// # Errors
    /// When functions cannot be registered (our bug).
    pub fn session(&self, options: SessionOptions) -> Result<Session> {
        self.session_with(options, Access::full(), Arc::clone(&self.inner.parts.catalogs))
    }

    /// A session of a remote user, who may do what `access` says.
    ///
    /// # Errors
    /// As [`Engine::session`].
    pub fn session_of(&self, options: SessionOptions, access: Access) -> Result<Session> {
        let guarded = GuardedCatalogs {
            inner: Arc::clone(&self.inner.parts.catalogs),
            access: Arc::new(access.clone()),
        };
        self.session_with(options, access, Arc::new(guarded))
    }

    fn session_with(
        &self,
        options: SessionOptions,
        access: Access,
        catalogs: Arc<dyn CatalogProviderList>,
    ) -> Result<Session> {
        let parts = &self.inner.parts;
        let access = Arc::new(access);
        let config = df_config(&parts.limits).with_extension(Arc::clone(&access));
        let mut state = session_state(config, Arc::clone(&parts.env))?;
        state.register_catalog_list(catalogs);
        for function in &parts.functions {
            state.register_udf(Arc::clone(function)).map_err(from_datafusion)?;
        }
        let context = SessionContext::new_with_state(state);
        Ok(Session::new(Arc::clone(&self.inner), context, options, access))
    }

    /// Appends rows to a stream without connector. The columns must be the stream's, in order,
    /// without generated ones.
    ///
    /// # Errors
    /// When there is no such stream, or the columns are others.
    pub fn push(&self, stream: &str, rows: &RecordBatch) -> Result<Pushed> {
        let stream = self.inner.catalog.stream(stream)?;
        let Feed::Push(push) = &stream.feed else {
            return Err(Error::sql(format!(
                "stream \"{}\" is fed by its connector, rows cannot be pushed",
                stream.name
            )));
        };
        if rows.schema().fields() != push.physical().fields() {
            return Err(Error::data(format!(
                "the columns of the rows are not those of stream \"{}\"",
                stream.name
            )));
        }
        push.append_blocking(rows)
    }

    /// How much has been read.
    pub fn progress(&self) -> Progress {
        let counters = &self.inner.parts.counters;
        Progress {
            rows: counters.rows.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            bytes_total: counters.bytes_total.load(Ordering::Relaxed),
            history: counters.history.load(Ordering::Relaxed),
            history_total: counters.history_total.load(Ordering::Relaxed),
        }
    }

    /// The names of all streams, views and tables, for completion.
    pub fn names(&self) -> Vec<String> {
        self.inner.catalog.names()
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.inner.parts
    }

    pub(crate) fn inner(&self) -> &Arc<Inner> {
        &self.inner
    }

    /// What exists.
    pub(crate) fn catalog(&self) -> &Catalog {
        &self.inner.catalog
    }

    /// Who tells the time.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.inner.parts.clock)
    }

    /// What became of the queries of the data directory when it was opened.
    pub fn recovery(&self) -> Recovery {
        self.inner.told.lock().clone()
    }

    /// Waits for the views that read only bounded inputs.
    ///
    /// # Errors
    /// What a view failed with.
    pub fn drain<'a>(&'a self) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.inner.start_pending();
            for object in self.inner.catalog.all() {
                if let Object::Materialized(view) = object
                    && view.bounded
                    && !view.query.failed_before()
                {
                    view.ended().await?;
                }
            }
            Ok(())
        })
    }

    /// Waits as [`drain`](Self::drain), and then until the views over streams that are pushed have taken in what those
    /// hold now.
    ///
    /// # Errors
    /// What a view has failed with since the engine was opened.
    pub fn settle<'a>(&'a self) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.drain().await?;
            let session = self.session(SessionOptions::default())?;
            let inner = Arc::clone(&self.inner);
            let work = self.inner.parts.cpu.spawn(async move {
                tokio::select! {
                    () = session.settle() => {}
                    // A view that waits for its archive takes nothing in.
                    error = inner.failing_archive() => tracing::warn!(%error, "not waited for"),
                }
            });
            work.await.map_err(|end| stopped("waiting for views", end))?;
            let views = self.inner.catalog.all().into_iter();
            views
                .filter_map(|object| match object {
                    Object::Materialized(view) if !view.query.failed_before() => Some(view),
                    _ => None,
                })
                .try_for_each(|view| view.check())
        })
    }

    /// Takes in what was pushed, makes checkpoints, archives all finished windows and stops.
    /// Without a data directory it stops at once.
    ///
    /// # Errors
    /// When finished windows cannot be archived. They are not lost: the next opening works them
    /// out again.
    pub fn close<'a>(&'a self) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut closed = Ok(());
            if self.inner.store.is_some() {
                self.inner.start_pending();
                let session = self.session(SessionOptions::default())?;
                let inner = Arc::clone(&self.inner);
                let work = self.inner.parts.cpu.spawn(async move {
                let settled = async {
                    session.settle().await;
                    inner.checkpoint_all().await;
                };
                tokio::select! {
                    () = settled => {}
                    // A view that waits for its archive takes nothing in; the spill below tells.
                    error = inner.failing_archive() => tracing::warn!(%error, "closing at once"),
                }
                let streams: Vec<_> = inner.spillers.lock().values().cloned().collect();
                let mut done = inner.spill_all().await;
                done = done.and(inner.pump_all().await);
                for stream in streams.iter().filter(|spiller| !spiller.is_view()) {
                    done = done.and(stream.note_extents().await);
                }
                done
            });
                closed = work.await.map_err(|end| stopped("closing the data directory", end))?;
            }
            self.inner.stop();
            closed
        })
    }

    /// Stops all queries and waits for nothing.
    pub fn shutdown(&self) {
        self.inner.stop();
    }
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
    async fn pump_all(&self) -> Result<()> {
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

    /// Remembers what a view's query goes on from.
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
        let completion = spiller.as_ref().map(|spiller| spiller.log().completion());
        let interval = match completion {
            Some(Completion::Checkpoint { in_order: false }) => {
                limits.checkpoint_interval.min(SETTLED_WITHIN)
            }
            _ => limits.checkpoint_interval,
        };
        let long = async move |spiller: Option<&Spiller>| match (completion, spiller) {
            (Some(Completion::Checkpoint { .. }), Some(spiller)) => spiller.long(&limits).await,
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
    /// for ever, for who waits for the view too.
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
    async fn checkpoint_all(&self) {
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
            retention.pass_now(&self.parts, &self.catalog).await;
        }
    }

    /// Lets go of the old rows of a log from now on.
    pub(crate) fn retain(&self, name: &str, retention: &Arc<Retention>) {
        let run = Arc::clone(retention).run(Arc::clone(&self.parts), Arc::clone(&self.catalog));
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
    pub(crate) async fn let_go(&self, name: &str) {
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
    async fn spill_all(&self) -> Result<()> {
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

    fn stop(&self) {
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

impl Parts {
    /// The settings and functions for plans that run per micro-batch.
    pub(crate) fn micro_batch_state(&self) -> SessionState {
        self.micro_batches.clone()
    }

    /// Whether all objects of the data directory are there again.
    pub(crate) fn is_restored(&self) -> bool {
        self.restored.load(Ordering::Acquire)
    }

    /// A number for a statement in the log.
    pub(crate) fn next_statement(&self) -> u64 {
        self.next_statement.fetch_add(1, Ordering::Relaxed)
    }

    /// Registers a query; the oldest ended ones are forgotten.
    pub(crate) fn new_query(&self, name: Option<String>) -> Arc<Shared> {
        let id = self.next_query.fetch_add(1, Ordering::Relaxed);
        let name = name.unwrap_or_else(|| format!("query_{id}"));
        let memory = self.memory.clone();
        let shared =
            Shared::new(id, name, self.limits.queue_batches_max, memory, Arc::clone(&self.clock));
        let mut queries = self.queries.lock();
        let ended: Vec<u64> =
            queries.iter().filter(|(_, q)| q.is_over()).map(|(id, _)| *id).collect();
        let surplus = ended.len().saturating_sub(ENDED_QUERIES_MAX);
        for id in ended.into_iter().take(surplus) {
            queries.remove(&id);
        }
        queries.insert(id, Arc::clone(&shared));
        shared
    }

    /// Fails the queries that read a stream or view that is gone. (Views that read one keep it from being dropped.)
    pub(crate) fn fail_readers(&self, name: &str, error: &Arc<Error>) {
        let notes = self.scans.lock().clone();
        let queries = notes.iter().filter(|note| note.stream == name).flat_map(|n| &n.queries);
        queries.filter(|query| !query.is_over()).for_each(|query| query.fail(Arc::clone(error)));
    }

    /// Remembers a scan for `windrow.watermarks`.
    pub(crate) fn note_scan(&self, scan: &Scan) {
        let mut scans = self.scans.lock();
        scans.retain(|s| s.progress.strong_count() > 0);
        scans.push(ScanNote {
            stream: scan.stream.clone(),
            queries: scan.taps.iter().map(|t| Arc::clone(&t.shared)).collect(),
            progress: Arc::downgrade(&scan.progress),
            time_type: scan.time_type.clone(),
        });
    }
}

fn machine_clock() -> Arc<dyn Clock> {
    #[expect(clippy::disallowed_methods, reason = "the one timer behind the clock")]
    let sleeper = |duration| tokio::time::sleep(duration).boxed();
    Arc::new(SystemClock::new(sleeper))
}

/// Bytes that one statement, or one run of a continuous query, may hold.
fn query_bytes_max(limits: &Limits) -> usize {
    limits.query_bytes_max.unwrap_or_else(statement_bytes)
}

fn df_config(limits: &Limits) -> SessionConfig {
    let mut config = SessionConfig::new();
    if let Some(memory) = limits.memory_bytes_max {
        // What a sort keeps free for its last merge must leave it something to sort with.
        let execution = &mut config.options_mut().execution;
        let (reserved, in_place) = (memory / 32, memory / 64);
        execution.sort_spill_reservation_bytes =
            execution.sort_spill_reservation_bytes.min(reserved);
        execution.sort_in_place_threshold_bytes =
            execution.sort_in_place_threshold_bytes.min(in_place);
    }
    config
        .with_extension(Arc::new(RunBytes(query_bytes_max(limits))))
        // Errors of the planner carry their place in the text.
        .set_bool("datafusion.sql_parser.collect_spans", true)
        .with_target_partitions(limits.threads.max(1))
        .with_information_schema(true)
        .with_default_catalog_and_schema(CATALOG, SCHEMA)
        .with_create_default_catalog_and_schema(false)
}

fn catalogs() -> Result<(Arc<dyn CatalogProviderList>, Arc<Tables>)> {
    let list = MemoryCatalogProviderList::new();
    let catalog = MemoryCatalogProvider::new();
    let schema = Arc::new(Tables::default());
    catalog.register_schema(SCHEMA, Arc::clone(&schema) as _).map_err(from_datafusion)?;
    list.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    Ok((Arc::new(list), schema))
}

/// Registers a further schema in the catalog.
pub(crate) fn register_schema(
    parts: &Parts,
    name: &str,
    schema: Arc<dyn datafusion::catalog::SchemaProvider>,
) -> Result<()> {
    let catalog = parts
        .catalogs
        .catalog(CATALOG)
        .ok_or_else(|| Error::internal("the catalog is not registered"))?;
    catalog.register_schema(name, schema).map(|_| ()).map_err(from_datafusion)
}
