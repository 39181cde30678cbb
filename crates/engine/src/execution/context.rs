//! The context in which a statement is executed.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use arrow::record_batch::RecordBatch;
use datafusion::catalog::TableProvider;
use datafusion::common::ScalarValue;
use datafusion::execution::{FunctionRegistry, SessionState};
use datafusion::prelude::SessionContext;
use windrow_core::{Budget, Error, Limits, Result};
use windrow_sql::plan::{PlannerNames, TIME_ZONE};
use windrow_stream::Stream;

use crate::access::{Access, Role};
use crate::catalog::models::{ModelPins, ModelVersion};
use crate::catalog::overlaid::OverlaidCatalogs;
use crate::catalog::{Catalog, Object, names_called};
use crate::durable::definitions::Definition;
use crate::execution::executor::Executor;
use crate::execution::file_tables::{FileTables, WithFiles};
use crate::execution::planner::Planner;
use crate::execution::running::Running;
use crate::execution::skipped::SkippedRows;
use crate::instance::Instance;

/// Less memory is not enough to plan anything.
const BUDGET_BYTES_MIN: usize = 32 << 20;

/// The options of a session.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Streams that are fed by INSERT count as ended once a `SELECT … EMIT` has read what they hold. Appropriate where
    /// no other client can insert while the query runs (a file of SQL that is executed statement by statement);
    /// otherwise such a query waits for further rows.
    pub push_ends: bool,
}

/// The values of the parameters of a statement, for one execution.
#[derive(Debug, Clone, Default)]
pub struct Values(pub(crate) Arc<[ScalarValue]>);

/// The context of one statement: the engine, the settings of the session, the rights of the user, a memory budget.
#[derive(Clone)]
pub(crate) struct StatementContext {
    /// The engine.
    pub(crate) instance: Arc<Instance>,
    /// DataFusion's session: settings, functions, catalogs.
    pub(crate) session: Arc<SessionContext>,
    /// The options of the session.
    pub(crate) options: SessionOptions,
    /// What its user may do.
    pub(crate) access: Arc<Access>,
    /// The definition that is being restored, while a data directory is opened.
    pub(crate) restoring: Option<Arc<Definition>>,
    /// Its share of the limits, on a server.
    pub(crate) running: Option<Running>,
    /// Its memory.
    pub(crate) budget: Arc<Budget>,
    /// The values of its parameters.
    pub(crate) values: Values,
    /// Many rows of values for an INSERT that takes them all; the columns are the parameters.
    pub(crate) value_rows: Option<RecordBatch>,
    /// Late and bad rows that it does not read.
    pub(crate) skipped: Arc<SkippedRows>,
    /// The files that it reads as tables.
    pub(crate) file_tables: Option<Arc<FileTables>>,
    /// The versions of the models that it can call: the newest ones when it is first planned.
    pub(crate) models: Arc<OnceLock<Vec<Arc<ModelVersion>>>>,
    /// How often columns had been added to the streams that the restored object reads, when it was created; never to others.
    pub(crate) additions: BTreeMap<String, u64>,
}

impl std::fmt::Debug for StatementContext {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StatementContext").field("options", &self.options).finish_non_exhaustive()
    }
}

impl StatementContext {
    /// Creates the context of a new statement of a session.
    pub(crate) fn new(
        instance: &Arc<Instance>,
        session: &Arc<SessionContext>,
        options: SessionOptions,
        access: &Arc<Access>,
    ) -> Self {
        let bytes_max = query_bytes_max(instance, access);
        Self {
            instance: Arc::clone(instance),
            session: Arc::clone(session),
            options,
            access: Arc::clone(access),
            restoring: None,
            running: None,
            budget: Budget::new(bytes_max.max(BUDGET_BYTES_MIN)),
            values: Values::default(),
            value_rows: None,
            skipped: Arc::default(),
            file_tables: None,
            models: Arc::default(),
            additions: BTreeMap::new(),
        }
    }

    /// Returns the objects.
    pub(crate) fn catalog(&self) -> &Arc<Catalog> {
        &self.instance.catalog
    }

    /// Returns the limits of the engine.
    pub(crate) fn limits(&self) -> &Limits {
        &self.instance.parts.limits
    }

    /// Returns the settings, functions and catalogs as they are now.
    pub(crate) fn state(&self) -> SessionState {
        let mut state = self.session.state();
        for function in self.catalog().functions() {
            if self.access.has(Role::Read, function.name()) {
                // It returns a function that it replaces, and never fails.
                drop(state.register_udf(function.to_udf()));
            }
        }
        for model in self.models().iter().filter(|model| self.access.has(Role::Read, &model.name)) {
            drop(state.register_udf(model.function()));
        }
        state.config_mut().set_extension(Arc::clone(&self.skipped.scans));
        if self.restoring.as_ref().is_some_and(|definition| !definition.named_by_text) {
            state.config_mut().set_extension(Arc::new(PlannerNames));
        }
        let older = if self.restoring.is_some() { self.older_tables() } else { FileTables::new() };
        if !older.is_empty() {
            let inner = Arc::clone(state.catalog_list());
            let overlay = Arc::new(WithFiles(Arc::new(older)));
            state.register_catalog_list(Arc::new(OverlaidCatalogs { inner, overlay }));
        }
        if let Some(files) = &self.file_tables {
            let inner = Arc::clone(state.catalog_list());
            let overlay = Arc::new(WithFiles(Arc::clone(files)));
            state.register_catalog_list(Arc::new(OverlaidCatalogs { inner, overlay }));
        }
        state
    }

    /// The versions of the models that it can call.
    pub(super) fn models(&self) -> &[Arc<ModelVersion>] {
        let newest = || self.catalog().models().iter().map(|model| model.newest()).collect();
        self.models.get_or_init(newest)
    }

    /// Makes it call these versions of models, and the newest ones of others, and read streams with the columns of these
    /// versions.
    ///
    /// # Errors
    /// When a version of a model cannot be loaded.
    pub(crate) fn pin_models(mut self, pins: &ModelPins) -> Result<Self> {
        let models = self.catalog().models().into_iter();
        let mut versions: Vec<_> = models.map(|model| model.newest()).collect();
        for (name, number) in pins {
            // The text may have the name of a stream that it does not read, or that is opened later. A model that is missing is
            // an error of the call.
            self.additions.insert(name.clone(), *number);
            let Some(Object::Model(model)) = self.catalog().get(name) else { continue };
            let version = model.version(*number, || self.stored_version(name, *number))?;
            versions.retain(|version| version.name != *name);
            versions.push(version);
        }
        self.models = Arc::new(OnceLock::from(versions));
        Ok(self)
    }

    /// Loads a version of a model from the data directory.
    ///
    /// # Errors
    /// When it is missing or damaged.
    pub(crate) fn stored_version(&self, name: &str, number: u64) -> Result<ModelVersion> {
        let Some(store) = &self.instance.store else {
            return Err(Error::internal("a version of a model is not in memory"));
        };
        let bytes = store.read_model(&store.model_named(name)?, number)?;
        ModelVersion::load(name, number, &bytes)
    }

    /// Returns a stream, or the output of a materialized view as one, as the object that is restored saw it.
    ///
    /// # Errors
    /// When there is none of this name.
    pub(crate) fn stream_to_read(&self, name: &str) -> Result<Arc<Stream>> {
        let stream = self.catalog().stream_to_read(name)?;
        Ok(self.older(&stream).map_or_else(|| Arc::clone(&stream), Arc::clone))
    }

    /// Returns a stream without the columns that were added after the creation of the object that is restored; `None`: it had
    /// all of them.
    fn older<'a>(&self, stream: &'a Stream) -> Option<&'a Arc<Stream>> {
        let number = self.additions.get(&stream.name).copied().unwrap_or(0);
        self.restoring.as_ref()?;
        stream.older.get(usize::try_from(number).ok()?)
    }

    /// The streams that the object that is restored sees without some of their columns, as tables.
    fn older_tables(&self) -> FileTables {
        let streams = self.catalog().all().into_iter().filter_map(|object| match object {
            Object::Stream(stream) => Some(stream),
            _ => None,
        });
        let older = |stream: Arc<Stream>| {
            let relation: Arc<dyn TableProvider> = Arc::new(self.older(&stream)?.relation(None));
            Some((stream.name.clone(), relation))
        };
        streams.filter_map(older).collect()
    }

    /// Returns the versions of the models that a definition uses, and how often columns have been added to the streams that it
    /// may read.
    pub(crate) fn versions_used(&self, text: &str) -> ModelPins {
        let mut versions = self.model_versions(text);
        let lower = text.to_lowercase();
        for object in self.catalog().all() {
            let Object::Stream(stream) = object else { continue };
            // Too many do no harm: they are the versions that it sees anyway.
            if !stream.older.is_empty() && lower.contains(&stream.name.to_lowercase()) {
                versions.insert(stream.name.clone(), stream.older.len() as u64);
            }
        }
        versions
    }

    /// Whether columns have been added to a stream that a definition may read.
    pub(crate) fn reads_widened(&self, text: &str) -> bool {
        let models = self.model_versions(text);
        self.versions_used(text).keys().any(|name| !models.contains_key(name))
    }

    fn model_versions(&self, text: &str) -> ModelPins {
        if self.models().is_empty() {
            return ModelPins::new();
        }
        let called = names_called(text);
        let versions = self.models().iter().filter(|model| called.contains(&model.name));
        versions.map(|model| (model.name.clone(), model.number)).collect()
    }

    /// Returns the planner of the statement.
    pub(crate) fn planner(&self) -> Planner<'_> {
        Planner::new(self)
    }

    /// Returns the executor of the statement.
    pub(crate) fn executor(&self) -> Executor<'_> {
        Executor::new(self)
    }

    /// Returns the maximum memory of the statement in bytes.
    pub(crate) fn query_bytes_max(&self) -> usize {
        query_bytes_max(&self.instance, &self.access)
    }

    /// Returns the time zone of timestamps that are written without one; `None`: TIMESTAMPTZ has no zone, as in definitions
    /// of versions without time zones.
    pub(crate) fn time_zone(&self) -> Option<String> {
        self.session.state_ref().read().config_options().execution.time_zone.clone()
    }

    /// Returns the same context in another [time zone](Self::time_zone).
    pub(crate) fn in_zone(&self, zone: Option<String>) -> Self {
        let mut state = self.state();
        state.config_mut().options_mut().execution.time_zone = zone;
        Self { session: Arc::new(SessionContext::new_with_state(state)), ..self.clone() }
    }

    /// Returns the time zone that INSERT reads timestamps without zone in.
    pub(crate) fn insert_zone(&self) -> Arc<str> {
        self.time_zone().as_deref().unwrap_or(TIME_ZONE).into()
    }
}

fn query_bytes_max(instance: &Instance, access: &Access) -> usize {
    let admitted = access.admission().and_then(|a| a.limits().query_bytes_max);
    admitted.unwrap_or(instance.parts.query_bytes_max)
}
