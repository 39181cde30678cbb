//! The facade: opens and closes an engine, and opens sessions. `restore` opens the objects of a data directory,
//! `health` is for monitoring; the running state is in `instance`.

pub(crate) mod health;
mod restore;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use arrow::record_batch::RecordBatch;
use datafusion::catalog::CatalogProviderList;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use datafusion::prelude::SessionContext;
use futures::future::BoxFuture;
use windrow_connectors::Files;
use windrow_core::{Clock, Error, ErrorKind, Limits, Result, budget};
use windrow_query::parts::QueryParts;
use windrow_query::status::QueryStatus;
use windrow_sql::plan::{micro_batch_state, session_state};
use windrow_stream::caught::stopped;
use windrow_stream::memory::Memory;
use windrow_stream::push::Pushed;

use self::restore::restore;
use crate::access::Access;
use crate::catalog::guarded::Guard;
use crate::catalog::overlaid::OverlaidCatalogs;
use crate::catalog::{Catalog, Object};
use crate::durable::store::Store;
use crate::execution::context::SessionOptions;
use crate::instance::configuration::{catalogs, df_config, machine_clock, query_bytes_max};
use crate::instance::failures::Failures;
use crate::instance::planners::{Planners, inherit_budgets};
use crate::instance::program_functions::ProgramFunctions;
use crate::instance::unused_memory::{self, GiveBack, thread_rests};
use crate::instance::{Instance, Parts, Recovery};
use crate::session::Session;
use crate::statements::is_taken;
use crate::system_tables;
use crate::views::wait::settle;

/// Threads that block end soon when they have nothing to do. A burst (the entries of a Delta log are read together) makes
/// a hundred of them, which the trickle of usual work would then keep, each with memory that the allocator retains for it.
const IDLE_THREAD_LIFETIME: Duration = Duration::from_millis(250);
/// Plans are walked recursively; a long chain of set operations must not overflow the stack. Memory is only taken as it is used.
const THREAD_STACK_BYTES: usize = 64 << 20;

/// The configuration of an engine.
#[derive(Debug, Clone, Default)]
pub struct EngineConfig {
    /// The limits.
    pub limits: Limits,
    /// The clock; `None`: the clock of the machine.
    pub clock: Option<Arc<dyn Clock>>,
    /// Where everything is stored: a directory, or a URL such as `s3://bucket/prefix`; `None`: in memory. One engine at a time
    /// can open a data directory.
    pub data_dir: Option<PathBuf>,
    /// Whether statements are only checked: they are planned and define what later ones name, but no query runs, no rows are
    /// read except those that the columns of a source are inferred from, and nothing is written.
    pub plan_only: bool,
    /// The files that sessions of remote users may use; `None`: no files.
    pub files: Option<Files>,
    /// Scalar functions of the embedding program, in addition to the built-in ones. Their names, aliases included, are in lower
    /// case and no other function's; remote users need a grant on the name. A data directory whose views use them must always be
    /// opened with them: what calls a function that is missing cannot be opened. A function that is declared immutable must
    /// be: a view that is recomputed calls it again on the same rows.
    pub functions: Vec<Arc<ScalarUDF>>,
    /// Aggregate functions of the embedding program; as [`functions`](Self::functions). Windows are merged from slices, so
    /// the state of an accumulator must be mergeable: any number of [`merge_batch`](datafusion::logical_expr::Accumulator::merge_batch)
    /// over the states of parts of the rows, in any order, gives the result over all rows.
    pub aggregates: Vec<Arc<AggregateUDF>>,
    /// Whether streams of the data directory whose logs have lost rows at the end continue after the loss, which is recorded in
    /// `windrow.lost_rows`; otherwise they are broken.
    pub accept_lost_rows: bool,
    /// Asks the allocator of the program to return unused memory to the system. Called when much of
    /// [`Limits::memory_bytes_max`] is in use, so that memory that the allocator caches does not come on top of it, and
    /// every few seconds where an allocator that counts ([`budget::allocated`]) has much of
    /// it.
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
    instance: Arc<Instance>,
}

/// How much has been read since the engine was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Rows read by continuous queries.
    pub rows: u64,
    /// Stored bytes read, counted per completed split.
    pub bytes: u64,
    /// Stored bytes of everything that was opened for reading.
    pub bytes_total: u64,
    /// Rows read among those that streams and views held when queries began to read them.
    pub history: u64,
    /// All rows of that kind, without those that a stopped query left unread.
    pub history_total: u64,
}

impl Engine {
    /// Opens an engine. With a data directory, its objects are opened and its queries resume.
    ///
    /// # Errors
    /// When the data directory is in use, damaged, or not one of Windrow's; when a function of the program has a name that is
    /// taken; when threads cannot be started.
    pub fn open(config: EngineConfig) -> Result<Self> {
        let EngineConfig {
            limits,
            clock,
            data_dir,
            files,
            plan_only,
            functions,
            aggregates,
            accept_lost_rows,
            give_back,
        } = config;
        let clock = clock.unwrap_or_else(machine_clock);
        let store = match &data_dir {
            Some(path) => Some(Store::open(path, Arc::clone(&clock), accept_lost_rows)?),
            None => None,
        };
        // Temporary files are local.
        let local = data_dir.filter(|d| !d.to_string_lossy().contains("://"));
        let files = files.unwrap_or_else(Files::nowhere);
        let spill_dir = local.map(|data| data.join("tmp"));
        let memory = limits.memory_bytes_max.map(|limit| Memory::new(limit, spill_dir, give_back));
        let returning =
            give_back.map(|give_back| unused_memory::run(give_back, Arc::clone(&clock)));
        let engine = Self::open_with(
            (limits, files, ProgramFunctions { scalars: functions, aggregates }),
            clock,
            store,
            (memory, give_back, plan_only),
        )?;
        if let Some(returning) = returning {
            engine.instance.parts.cpu.spawn(returning);
        }
        Ok(engine)
    }

    /// [`open`](Self::open) over a data directory that is open already.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub(crate) fn open_with(
        (limits, files, functions): (Limits, Files, ProgramFunctions),
        clock: Arc<dyn Clock>,
        store: Option<Store>,
        (memory, give_back, plan_only): (Option<Arc<Memory>>, Option<GiveBack>, bool),
    ) -> Result<Self> {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        if let Some(give_back) = give_back {
            runtime.on_thread_park(move || thread_rests(give_back));
        }
        let runtime = runtime
            .worker_threads(limits.threads.max(1))
            .thread_name("windrow")
            .thread_stack_size(THREAD_STACK_BYTES)
            .thread_keep_alive(IDLE_THREAD_LIFETIME)
            .on_thread_stop(budget::thread_ends)
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
        functions.check(|name| is_taken(&state, name))?;
        let (planners, query_bytes_max) = (Planners::new(&limits), query_bytes_max(&limits));
        let cpu = runtime.handle().clone();
        let parts = Arc::new(Parts {
            query_parts: QueryParts::new(
                limits,
                (clock, cpu.clone()),
                memory,
                micro_batch_state(&state),
            ),
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
        system_tables::register(&parts, &catalog)?;
        let has_store = store.is_some();
        let instance = Instance::new((parts, catalog), store, runtime, plan_only);
        let engine = Self { instance: Arc::new(instance) };
        if has_store {
            let session = engine.session(SessionOptions::default())?;
            // On a thread of its own, because the caller may be on a thread of another runtime.
            let restored =
                std::thread::scope(|scope| scope.spawn(|| cpu.block_on(restore(&session))).join());
            restored.map_err(|panic| Error::panicked("opening the data directory", &*panic))?;
        }
        Ok(engine)
    }

    /// Opens a session, which has settings of its own and shares the catalog with all others.
    ///
    /// # Errors
    /// When functions cannot be registered (a bug).
    pub fn session(&self, options: SessionOptions) -> Result<Session> {
        self.session_with(options, Access::full(), Arc::clone(&self.instance.parts.catalogs))
    }

    /// Opens a session of a remote user with the rights in `access`.
    ///
    /// # Errors
    /// As [`Engine::session`].
    pub fn session_of(&self, options: SessionOptions, access: Access) -> Result<Session> {
        let guarded = OverlaidCatalogs {
            inner: Arc::clone(&self.instance.parts.catalogs),
            overlay: Arc::new(Guard { access: Arc::new(access.clone()) }),
        };
        self.session_with(options, access, Arc::new(guarded))
    }

    fn session_with(
        &self,
        options: SessionOptions,
        access: Access,
        catalogs: Arc<dyn CatalogProviderList>,
    ) -> Result<Session> {
        let parts = &self.instance.parts;
        let access = Arc::new(access);
        let config = df_config(&parts.limits).with_extension(Arc::clone(&access));
        let mut state = session_state(config, Arc::clone(&parts.env))?;
        state.register_catalog_list(catalogs);
        parts.functions.register(&mut state, &access)?;
        let context = SessionContext::new_with_state(state);
        Ok(Session::new(Arc::clone(&self.instance), context, options, access))
    }

    /// Appends rows to a stream without connector. The columns must be those of the stream, in order, without generated ones.
    ///
    /// # Errors
    /// When there is no such stream, or the columns differ.
    pub fn push(&self, stream: &str, rows: &RecordBatch) -> Result<Pushed> {
        let stream = self.instance.catalog.stream(stream)?;
        let Some(push) = stream.push().filter(|_| stream.receiver.is_none()) else {
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

    /// Returns how much has been read.
    pub fn progress(&self) -> Progress {
        let counters = &self.instance.parts.counters;
        Progress {
            rows: counters.rows.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
            bytes_total: counters.bytes_total.load(Ordering::Relaxed),
            history: counters.history.load(Ordering::Relaxed),
            history_total: counters.history_total.load(Ordering::Relaxed),
        }
    }

    /// Returns the names of all streams, views and tables, for completion.
    pub fn names(&self) -> Vec<String> {
        self.instance.catalog.names()
    }

    /// Returns the status of a query; `None`: it is unknown, or ended long ago. `id` is its number in `windrow.queries`.
    pub fn query_status(&self, id: u64) -> Option<QueryStatus> {
        let query = self.parts().queries.lock().get(&id).cloned()?;
        Some(QueryStatus::of(&query))
    }

    fn parts(&self) -> &Parts {
        &self.instance.parts
    }

    fn catalog(&self) -> &Catalog {
        &self.instance.catalog
    }

    /// Returns the clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        Arc::clone(&self.instance.parts.clock)
    }

    /// Returns how the queries of the data directory were recovered when it was opened.
    pub fn recovery(&self) -> Recovery {
        self.instance.recovery()
    }

    /// Returns the failures of views, from the opening of the engine on.
    pub fn failures(&self) -> Failures {
        Failures::of(&self.instance)
    }

    /// Waits for the end of the views whose inputs are all bounded.
    ///
    /// # Errors
    /// The first error of a view that fails.
    pub fn drain<'a>(&'a self) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.instance.start_pending();
            for object in self.instance.catalog.all() {
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

    /// Waits as [`drain`](Self::drain), then until the views over push streams have consumed what those hold now, and until
    /// sinks have committed the rows of their views.
    ///
    /// # Errors
    /// The first error of a view that has failed since the engine was opened, or of a sink that has stopped or whose destination
    /// fails for long.
    pub fn settle<'a>(&'a self) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            self.drain().await?;
            let instance = Arc::clone(&self.instance);
            let work = self.instance.parts.cpu.spawn(async move {
                tokio::select! {
                    () = settle(&instance.catalog) => {}
                    // A view that waits for its archive consumes nothing.
                    error = instance.failing_archive() => tracing::warn!(%error, "not waited for"),
                }
            });
            work.await.map_err(|end| stopped("waiting for views", end))?;
            let views = self.instance.catalog.all().into_iter();
            views
                .filter_map(|object| match object {
                    Object::Materialized(view) if !view.query.failed_before() => Some(view),
                    _ => None,
                })
                .try_for_each(|view| view.check())?;
            let instance = Arc::clone(&self.instance);
            let work = self.instance.parts.cpu.spawn(async move {
                instance.commit_sinks(|since| instance.fails_for_long(since)).await
            });
            work.await.map_err(|end| stopped("waiting for sinks", end))?
        })
    }

    /// Waits until views have consumed pushed rows, writes checkpoints, archives all final windows and stops. Without a data
    /// directory it stops once sinks have committed their rows.
    ///
    /// # Errors
    /// When final windows cannot be archived. They are not lost: they are recomputed when the data directory is opened. Without
    /// one, when a sink cannot commit its rows.
    pub fn close<'a>(&'a self) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let instance = Arc::clone(&self.instance);
            let closed = if instance.store.is_some() {
                instance.start_pending();
                let work = self.instance.parts.cpu.spawn(finish(instance));
                work.await.map_err(|end| stopped("closing the data directory", end))?
            } else {
                let work =
                    self.instance.parts.cpu.spawn(async move { commit_now(&instance).await });
                work.await.map_err(|end| stopped("closing sinks", end))?
            };
            self.instance.stop();
            closed
        })
    }

    /// Stops all queries at once.
    pub fn shutdown(&self) {
        self.instance.stop();
    }
}

/// Commits the rows of sinks, as far as their destinations take them now.
async fn commit_now(instance: &Instance) -> Result<()> {
    let wait = instance.parts.limits.archive_wait;
    tokio::select! {
        done = instance.commit_sinks(|_| true) => done,
        () = instance.parts.clock.sleep(wait) => Err(Error::new(
            ErrorKind::Unavailable,
            format!("sinks have not committed all rows within {wait:?}"),
        )),
    }
}

/// Finishes the work on a data directory that is being closed.
async fn finish(instance: Arc<Instance>) -> Result<()> {
    let settled = async {
        settle(&instance.catalog).await;
        instance.checkpoint_all().await;
    };
    tokio::select! {
        () = settled => {}
        // A view that waits for its archive consumes nothing; archiving below returns the error.
        error = instance.failing_archive() => tracing::warn!(%error, "closing at once"),
    }
    if let Err(error) = commit_now(&instance).await {
        tracing::warn!(%error, "the rows of a sink are committed after the next start");
    }
    let spillers = instance.spillers();
    let mut done = instance.spill_all().await;
    done = done.and(instance.flush_pumps().await);
    for stream in spillers.iter().filter(|spiller| !spiller.is_view()) {
        done = done.and(stream.note_extents().await);
    }
    done
}

#[cfg(test)]
mod tests;
