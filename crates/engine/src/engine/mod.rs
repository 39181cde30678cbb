//! The engine: one process' streams, views and queries. Everything that the command line does
//! goes through here.
//!
//! `configuration` sets up DataFusion, `parts` is what all sessions share, `background` what goes on beside statements (`pump`: continuous
//! INSERTs; `retention`: old rows).

mod background;
mod configuration;
mod parts;
pub(crate) mod pump;
mod retention;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arrow::record_batch::RecordBatch;
use datafusion::catalog::CatalogProviderList;
use datafusion::execution::FunctionRegistry as _;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::ScalarUDF;
use datafusion::prelude::SessionContext;
use futures::future::BoxFuture;
use parking_lot::Mutex;
use windrow_connectors::Files;
use windrow_core::{Clock, Error, Limits, Result};
use windrow_query::parts::QueryParts;
use windrow_query::status::QueryStatus;
use windrow_sql::diagnostics::from_datafusion;
use windrow_sql::plan::{micro_batch_state, session_state};
use windrow_stream::Feed;
use windrow_stream::caught::stopped;
use windrow_stream::memory::Memory;
use windrow_stream::push::Pushed;

use crate::catalog::guarded::GuardedCatalogs;
use crate::catalog::{Catalog, Object, system};
use crate::durable::store::Store;
use crate::session::failing::Failed;
use crate::session::planning::{Planners, inherit_budgets};
use crate::session::{Access, Session, SessionOptions};

pub(crate) use self::background::Inner;
pub(crate) use self::configuration::{CATALOG, SCHEMA, register_schema};
use self::configuration::{catalogs, df_config, machine_clock, query_bytes_max};
pub(crate) use self::parts::Parts;

/// Plans are walked recursively; a long chain of set operations must not end the process. The
/// memory is only taken as it is used.
const THREAD_STACK_BYTES: usize = 64 << 20;

/// How an engine is to be.
#[derive(Debug, Clone, Default)]
pub struct EngineConfig {
    /// How much of anything is allowed.
    pub limits: Limits,
    /// The clock; `None`: that of the machine. Tests bring their own.
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
/// use windrow_engine::{Engine, EngineConfig, Outcome, SessionOptions};
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

/// What became of the queries of a data directory when it was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Views whose queries go on from a checkpoint.
    pub resumed: usize,
    /// Views that are recomputed from what their streams hold.
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
        let (planners, query_bytes_max) = (Planners::new(&limits), query_bytes_max(&limits));
        let on = (clock, runtime.handle().clone());
        let parts = Arc::new(Parts {
            running: QueryParts::new(limits, on, memory, micro_batch_state(&state)),
            next_statement: AtomicU64::new(1),
            restored: AtomicBool::new(store.is_none()),
            catalogs,
            env,
            planners,
            query_bytes_max,
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

    /// How far a query is; `None` for one that nobody remembers. The number is that of
    /// `windrow.queries`.
    pub fn query_status(&self, id: u64) -> Option<QueryStatus> {
        let query = self.parts().queries.lock().get(&id).cloned()?;
        Some(QueryStatus::of(&query))
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

    /// The clock.
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
